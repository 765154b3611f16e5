"""/privacy: what is kept of a person; theirs to take along, or to have forgotten."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import discord

from bots.discord.context import Asked, Desk
from bots.strings import say
from core.queue_types import Place

EXPORT, FORGET, SURE = "h1p.export", "h1p.forget", "h1p.sure"


class Privacy:
    """What a person may ask about themselves; only they see the answers."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def show(self, interaction: Asked) -> None:
        locale = self._desk.locale_of(interaction)
        days = f"{self._desk.terms.retention_days:g}"
        text = say("privacy", locale, days=days)
        take = _button(EXPORT, say("export_button", locale), discord.ButtonStyle.secondary)
        drop = _button(FORGET, say("forget_button", locale), discord.ButtonStyle.danger)
        await self._desk.show(interaction, text, _view(take, drop))

    async def pressed(self, interaction: Asked) -> None:
        """One of the buttons; others are passed over."""
        data: Any = interaction.data or {}
        match data.get("custom_id"):
            case "h1p.export":
                await self._export(interaction)
            case "h1p.forget":
                await self._ask_again(interaction)
            case "h1p.sure":
                await self._forget(interaction)

    async def _ask_again(self, interaction: Asked) -> None:
        locale = self._desk.locale_of(interaction)
        sure = _button(SURE, say("reset_yes", locale), discord.ButtonStyle.danger)
        await self._desk.show(interaction, say("forget_sure", locale), _view(sure))

    async def _forget(self, interaction: Asked) -> None:
        await interaction.response.defer(ephemeral=True, thinking=True)
        person, turns = str(interaction.user.id), 0
        for place in _places(interaction):
            turns += await self._desk.history.forget(place, person)
        await self._desk.tell(interaction, "forget_done", turns=turns)

    async def _export(self, interaction: Asked) -> None:
        """The person's words and the replies to them, as a JSON file."""
        await interaction.response.defer(ephemeral=True, thinking=True)
        rows = [
            {"thread": str(thread), **asdict(stored.turn)}
            for place in _places(interaction)
            async for thread, stored in self._desk.history.export(place, str(interaction.user.id))
        ]
        person = str(interaction.user.id)
        for place in _places(interaction):
            await self._desk.relay.access.record(place, person, "export", person)
        if not rows:
            await self._desk.tell(interaction, "export_nothing")
            return
        text = json.dumps(rows, ensure_ascii=False, indent=1)
        said = say("export_done", self._desk.locale_of(interaction), turns=len(rows))
        file = discord.File(io.BytesIO(text.encode()), "henji.json")
        await interaction.followup.send(said, file=file, ephemeral=True)


def _places(interaction: Asked) -> Sequence[Place]:
    """Where a person's words are: the guild where they ask, and their direct messages."""
    direct = Place("discord", "dm", str(interaction.user.id))
    if interaction.guild_id is None:
        return (direct,)
    return (Place("discord", str(interaction.guild_id)), direct)


def _button(custom_id: str, label: str, style: discord.ButtonStyle) -> discord.ui.Button[Any]:
    return discord.ui.Button(custom_id=custom_id, label=label, style=style)


def _view(*buttons: discord.ui.Button[Any]) -> discord.ui.View:
    """Buttons that nobody keeps: what they mean stands in their ids."""
    view = discord.ui.View(timeout=None)
    for button in buttons:
        view.add_item(button)
    view.stop()
    return view
