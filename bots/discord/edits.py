"""Memory follows the channel: what is edited or deleted on Discord is so in the store."""

from __future__ import annotations

from collections.abc import Iterable

import discord
import structlog

from bots.discord import backfill, convert
from bots.discord.context import Desk
from bots.discord.messages import Listener
from bots.discord.replies import ELSEWHERE
from core.queue_types import Place
from core.types import ThreadKey

log = structlog.get_logger()

DISCORD = "discord"
YOUNG = 900.0
"""Seconds for which a message that is edited to name the bot is answered like a new one."""


def _is_young(message: discord.Message) -> bool:
    return (discord.utils.utcnow() - message.created_at).total_seconds() < YOUNG


class Memory:
    """Takes in what happens to messages and places."""

    def __init__(self, desk: Desk, client: discord.Client, listener: Listener) -> None:
        self._desk = desk
        self._client = client
        self._listener = listener

    async def edited(self, event: discord.RawMessageUpdateEvent) -> None:
        """A message reads differently; a link that unfolds in it is no edit."""
        message = event.message
        revision = convert.revision_of(message)
        if not revision or not convert.is_spoken(message):
            return
        me = backfill.myself(self._client, message.guild)
        thread = convert.thread_of(message, self._listener.answers_in(message))
        found = await self._desk.deliveries.locate(thread, str(message.id))
        if found is None and not convert.concerns(message, me):
            return
        where, ident = found[0] if found else thread, str(message.id)
        text = convert.text_of(message, me)
        if not text:  # nothing is left of it, or the bot may not read what is
            await self._forget(where, ident)
            return
        author, roles = message.author, convert.roles_of(message.author)
        receipt = await self._desk.relay.edited(where, ident, text, revision, str(author.id), roles)
        if receipt.outcome == "ignored" and _is_young(message) and convert.addressed(message, me):
            await self._listener.heard(message)  # named only now

    async def deleted(self, channel: int, guild: int | None, messages: Iterable[int]) -> None:
        """Messages are gone: people's, or the bot's own."""
        place = await self._place(channel, guild)
        if place is None:
            return
        for message in messages:
            if convert.is_personal(place):
                await self._deleted_in_channel(place, str(message))
            else:
                await self._forget(place, str(message))

    async def _deleted_in_channel(self, place: ThreadKey, message: str) -> None:
        """A question, the thread that it may have opened, or a reply that found no thread."""
        thread = ThreadKey(place.platform, place.space, place.channel, message)
        beside = f"{place.channel}{ELSEWHERE}{message}"
        found = await self._desk.deliveries.locate(thread, beside)
        await self._forget(thread, beside if found else message)

    async def _forget(self, thread: ThreadKey, message: str) -> None:
        found = await self._desk.deliveries.locate(thread, message)
        await self._desk.relay.deleted(thread, message)
        if found:
            owed = await self._desk.queue.owed(found[0])
            await self._desk.platform.withdraw(found[0], found[1], owed)

    async def thread_deleted(self, event: discord.RawThreadDeleteEvent) -> None:
        thread = ThreadKey(DISCORD, str(event.guild_id), str(event.parent_id), str(event.thread_id))
        await self._desk.relay.reset(thread, "discord")

    async def channel_deleted(self, channel: discord.abc.GuildChannel) -> None:
        place = Place(DISCORD, str(channel.guild.id), str(channel.id))
        await self._desk.history.reset_place(place, "discord")

    async def left(self, guild: discord.Guild) -> None:
        """The bot was thrown out of a guild, or the guild is no more."""
        await self._desk.history.reset_place(Place(DISCORD, str(guild.id)), "discord")

    async def _place(self, channel: int, guild: int | None) -> ThreadKey | None:
        """The thread of a channel's id; for an ordinary channel, nobody's (``@0``)."""
        found = self._client.get_channel(channel)
        if found is None:
            try:
                found = await self._client.fetch_channel(channel)
            except discord.HTTPException:
                log.info("messages were deleted in a channel that is gone", channel=channel)
                return None
        if isinstance(found, discord.DMChannel):
            person = found.recipient.id if found.recipient else 0
            return convert.thread_in(None, found, person)
        return convert.thread_in(guild, found, 0)
