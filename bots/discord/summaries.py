"""Summaries on Discord: `/catchup`, the message menu, and their buttons."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import discord
import structlog
from discord import app_commands

from bots.discord import DIRECT, PLATFORM, convert
from bots.discord.api import ORIGINAL
from bots.discord.components import Component, SummaryButton, button, row
from bots.discord.context import Context, actor_of, localized
from bots.discord.convert import Interaction
from bots.discord.markdown import rendered
from bots.discord.platform import MESSAGE_LENGTH
from bots.strings import say
from bots.summaries import MOST_MESSAGES, Offer, Summarizer
from bots.text import split
from core.types import ThreadKey

log = structlog.get_logger()


class InteractionSource:
    """A `bots.summaries.MessageSource`, with the permissions of an interaction's person."""

    def __init__(self, context: Context, interaction: Interaction) -> None:
        self._context = context
        self._interaction = interaction
        self.recent = context.platform.recent

    async def may_read(self, place: ThreadKey, person: str) -> bool:
        """By the permissions of the person and the bot, which Discord sends with the
        interaction."""
        if place.space == DIRECT:
            return place.channel == person
        here, channel = self._interaction, self._interaction.channel
        ids = {str(here.channel_id), str(getattr(channel, "parent_id", ""))}
        if place.channel not in ids or str(here.guild_id) != place.space:
            return False
        return all(
            may.view_channel and may.read_message_history
            for may in (here.permissions, here.app_permissions)
        )

    async def links(self, place: ThreadKey) -> Callable[[str], str]:
        guild = "@me" if place.space == DIRECT else place.space
        channel = place.thread or place.channel
        return lambda ident: f"https://discord.com/channels/{guild}/{channel}/{ident}"


class InteractionScreen:
    """A `bots.summaries.Screen`: the private answer to an interaction."""

    def __init__(self, context: Context, interaction: Interaction, locale: str) -> None:
        self._context = context
        self._interaction = interaction
        self._locale = locale

    async def show(
        self, text: str, *, offer: Offer | None = None, stops: ThreadKey | None = None
    ) -> None:
        app, token = str(self._interaction.application_id), self._interaction.token
        first, *others = split(rendered(text), MESSAGE_LENGTH)
        buttons = self._buttons(offer, stops)
        try:
            await self._context.api.edit_by_token(app, token, ORIGINAL, first, buttons)
            for part in others:
                await self._context.api.follow_up(app, token, part, private=True)
        except discord.HTTPException as error:  # for example, its token has expired
            log.info("a summary could not be shown", code=error.code)

    def _buttons(self, offer: Offer | None, stops: ThreadKey | None) -> tuple[Component, ...]:
        if offer is not None:
            key = "catchup_go_newest" if offer.newest else "catchup_go"
            go = SummaryButton(offer.place, offer.after, offer.most)
            return (row(button(str(go), say(key, self._locale))),)
        if stops is not None:
            return (row(button(str(SummaryButton(stops)), say("stop", self._locale))),)
        return ()


class SummaryHandler:
    """Starts, continues and stops summaries."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._tasks: set[asyncio.Task[None]] = set()

    @app_commands.rename(since=localized("cmd_span"))
    @app_commands.describe(since=localized("cmd_span_about"))
    async def catchup(self, interaction: Interaction, since: str = "") -> None:
        await self._summarise(interaction, place_of(interaction), since)

    async def of_thread(self, interaction: Interaction, message: discord.Message) -> None:
        place = place_of(interaction)
        if not place.thread and not message.flags.has_thread:
            await self._context.tell(interaction, "not_in_thread")
            return
        here = place if place.thread else replace(place, thread=str(message.id))
        await self._summarise(interaction, here, "all")

    async def on_press(self, interaction: Interaction, pressed: SummaryButton) -> None:
        """Go on, or stop."""
        if pressed.most:
            offer = Offer(pressed.place, pressed.after, min(pressed.most, MOST_MESSAGES))
            await self._summarise(interaction, pressed.place, "", offer)
        elif await self._summarizer.stop(actor_of(interaction), pressed.place):
            await interaction.response.defer()
        else:
            await self._context.tell(interaction, "catchup_stop_late")

    @property
    def _summarizer(self) -> Summarizer:
        return self._context.summarizer

    async def _summarise(
        self, interaction: Interaction, place: ThreadKey, since: str, offer: Offer | None = None
    ) -> None:
        """Acknowledge, and start the summary as a background task."""
        locale, actor = self._context.locale_of(interaction), actor_of(interaction)
        screen = InteractionScreen(self._context, interaction, locale)
        source = InteractionSource(self._context, interaction)
        if offer is None:
            await interaction.response.defer(ephemeral=True, thinking=True)
            work = self._summarizer.ask(actor, place, since, locale, screen, source)
        else:
            await interaction.response.defer()
            work = self._summarizer.go_on(actor, offer, locale, screen, source)
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a summary failed", error=repr(error), exc_info=error)


def place_of(interaction: Interaction) -> ThreadKey:
    """The place of a command: a thread, or a channel (with an empty thread)."""
    person = interaction.user.id
    key = convert.thread_in(interaction.guild_id, interaction.channel, person)
    if key.space != DIRECT and convert.is_personal(key):
        return ThreadKey(PLATFORM, key.space, key.channel, "")
    return key
