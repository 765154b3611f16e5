"""/privacy: the data stored about a person, to export or to forget.

Everybody may use it, even people who may not use the bot: privacy laws give them the right.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import discord

from bots.actions import Scope
from bots.discord import DIRECT, PLATFORM
from bots.discord.components import DANGER, Component, button, row
from bots.discord.context import Context, actor_of, within
from bots.discord.convert import Interaction
from bots.strings import about, say
from core.queue_types import Place

COMMAND = "privacy"
EXPORT, FORGET, CONFIRM = "h1p.export", "h1p.forget", "h1p.sure"
OPT_OUT, OPT_IN = "h1p.out", "h1p.in"


def is_of_privacy(interaction: Interaction) -> bool:
    """Whether it is the command, or one of its buttons."""
    data: Any = interaction.data or {}
    if interaction.type is not discord.InteractionType.application_command:
        return data.get("custom_id") in (EXPORT, FORGET, CONFIRM, OPT_OUT, OPT_IN)
    is_slash = data.get("type") == discord.AppCommandType.chat_input.value
    return is_slash and bool(data.get("name") == COMMAND)


class Privacy:
    """A person's own data; only they see the answers."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def show(self, interaction: Interaction) -> None:
        """Say which data is stored, with buttons to export and forget it."""
        locale = self._context.locale_of(interaction)
        days = f"{self._context.settings.retention_days:g}"
        export = button(EXPORT, say("export_button", locale))
        forget = button(FORGET, say("forget_button", locale), DANGER)
        hosts = await self._context.model_hosts(interaction)
        text, buttons = about("privacy", locale, hosts, days=days), [export, forget]
        if self._context.actions.may_collect(PLATFORM):
            text += f"\n{say('privacy_training', locale)}"
            buttons.append(await self._opt_button(interaction, locale))
        await self._context.answer_privately(interaction, text, (row(*buttons),))

    async def _opt_button(self, interaction: Interaction, locale: str) -> Component:
        """The button that refuses or allows the use for training."""
        places, actor = _places(interaction), actor_of(interaction)
        out = await within(self._context.actions.has_opted_out(actor, places))
        return button(OPT_IN if out else OPT_OUT, say("opt_in" if out else "opt_out", locale))

    async def on_press(self, interaction: Interaction) -> None:
        """One of the buttons above; others are ignored."""
        data: Any = interaction.data or {}
        ident = data.get("custom_id")
        if ident == EXPORT:
            await self._export(interaction)
        elif ident in (OPT_OUT, OPT_IN):
            work = self._context.actions.opt_out(
                actor_of(interaction), _places(interaction), out=ident == OPT_OUT
            )
            await self._context.tell_outcome(interaction, await work)
        elif ident == FORGET:
            await self._ask_to_confirm(interaction)
        elif ident == CONFIRM:
            await self._forget(interaction)

    async def _ask_to_confirm(self, interaction: Interaction) -> None:
        locale = self._context.locale_of(interaction)
        confirm = button(CONFIRM, say("reset_yes", locale), DANGER)
        text = say("forget_sure", locale)
        await self._context.answer_privately(interaction, text, (row(confirm),))

    async def _forget(self, interaction: Interaction) -> None:
        await interaction.response.defer(ephemeral=True, thinking=True)
        actor, turns = actor_of(interaction), 0
        for place in _places(interaction):
            turns += (await self._context.actions.reset(actor, Scope("mine", place))).turns
        await self._context.tell(interaction, "forget_done", turns=turns)

    async def _export(self, interaction: Interaction) -> None:
        """Send the person's messages and the replies to them as a JSON file."""
        await interaction.response.defer(ephemeral=True, thinking=True)
        person = str(interaction.user.id)
        rows: list[Mapping[str, object]] = [
            {"thread": str(thread), **asdict(stored.turn)}
            for place in _places(interaction)
            async for thread, stored in self._context.stores.history.export(place, person)
        ]
        actor, places = actor_of(interaction), _places(interaction)
        rows += await self._context.actions.kept_of(actor, places)
        for place in _places(interaction):
            await self._context.relay.access.record(place, person, "export", person)
        if not rows:
            await self._context.tell(interaction, "export_nothing")
            return
        text = say("export_done", self._context.locale_of(interaction), turns=len(rows))
        data = json.dumps(rows, ensure_ascii=False, indent=1)
        file = discord.File(io.BytesIO(data.encode()), "henji.json")
        await interaction.followup.send(text, file=file, ephemeral=True)


def _places(interaction: Interaction) -> Sequence[Place]:
    """The places of a person's messages: this guild, and direct messages."""
    direct = Place(PLATFORM, DIRECT, str(interaction.user.id))
    if interaction.guild_id is None:
        return (direct,)
    return (Place(PLATFORM, str(interaction.guild_id)), direct)
