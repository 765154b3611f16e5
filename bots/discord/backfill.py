"""What was said in a conversation before the bot joined it, read from Discord."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import discord

from bots.catch_up import Reading
from bots.discord import DIRECT, convert
from bots.discord.api import HISTORY_LIMIT, DiscordApi
from bots.discord.markdown import READ_TYPES
from bots.platform import Incoming, PlaceNames, PlatformRefused
from bots.strings import is_own_sentence
from core.types import ThreadKey

MAX_MESSAGES = 100
"""More than the context of today's models holds."""


class Backfill:
    """Reads a conversation's earlier messages."""

    def __init__(self, client: discord.Client, api: DiscordApi) -> None:
        self._client = client
        self._api = api

    async def names(self, thread: ThreadKey) -> PlaceNames:
        """What a channel and the bot are called; a direct message has no name."""
        user = self._client.user
        bot = user.display_name if user else "Henji"
        if thread.space == DIRECT:
            return PlaceNames(thread.channel, bot)
        await self._api.acquire()
        channel = await self._client.fetch_channel(int(thread.channel))
        return PlaceNames(getattr(channel, "name", "") or thread.channel, bot)

    async def earlier(self, thread: ThreadKey, before: str, after: float) -> Sequence[Incoming]:
        """The messages in a thread before another and after a time, oldest first.

        A person's conversation in a channel has none: other people's messages are not part of it.
        """
        await self._api.acquire()
        if convert.is_personal(thread):
            return ()
        guild = self._guild(thread)
        messages = self._messages(thread, guild, before, after)
        return self._read(thread, guild, [message async for message in messages])

    def _guild(self, thread: ThreadKey) -> discord.Guild | None:
        return None if thread.space == DIRECT else self._client.get_guild(int(thread.space))

    def _read(
        self,
        thread: ThreadKey,
        guild: discord.Guild | None,
        messages: Sequence[discord.Message],
    ) -> list[Incoming]:
        """Messages as the relay takes them, oldest first."""
        bot = convert.bot_in(self._client, guild)
        found: list[Incoming] = []
        for message in messages:
            own = message.author.id == bot.user
            if message.type not in READ_TYPES:
                continue
            turn, files = convert.turn_of(message, bot), convert.files_of(message)
            turn = replace(turn, text=model_text(turn.text)) if own else turn
            if turn.text or files:
                roles = convert.roles_of(message.author)
                found.append(Incoming(thread, turn, addressed=False, roles=roles, files=files))
        return sorted(found, key=lambda incoming: int(incoming.turn.id))

    async def recent(self, place: ThreadKey, after: float, most: int) -> Reading:
        """The newest messages of a thread or, without one, of a channel; PlatformRefused where the
        bot may not read there.
        """
        guild, guild_id = self._guild(place), None if place.space == DIRECT else int(place.space)
        where = int(place.thread or place.channel)
        channel = self._client.get_partial_messageable(where, guild_id=guild_id)
        found: list[discord.Message] = []
        try:
            while len(found) <= most:
                await self._api.acquire()
                before = found[-1] if found else None
                page = [m async for m in channel.history(limit=HISTORY_LIMIT, before=before)]
                found += [m for m in page if m.created_at.timestamp() > after]
                if len(page) < HISTORY_LIMIT or page[-1].created_at.timestamp() <= after:
                    break
        except (discord.NotFound, discord.Forbidden) as error:
            raise PlatformRefused(f"Discord refuses to read there: {error.code}") from error
        messages = self._read(place, guild, found[:most])
        return Reading(messages, more=len(found) > most)

    async def _messages(
        self, thread: ThreadKey, guild: discord.Guild | None, before: str, after: float
    ) -> AsyncIterator[discord.Message]:
        guild_id = guild.id if guild else None
        floor = datetime.fromtimestamp(after, UTC)
        until = discord.Object(int(before))
        channel = self._client.get_partial_messageable(int(thread.thread), guild_id=guild_id)
        try:
            async for message in channel.history(limit=MAX_MESSAGES, before=until):
                if message.created_at > floor:
                    yield message
        except (discord.NotFound, discord.Forbidden):
            return  # the thread is not open yet, or not to the bot
        if guild is not None and thread.thread != before:
            async for message in self._starter(thread, guild.id, floor):
                yield message

    async def _starter(
        self, thread: ThreadKey, guild: int, floor: datetime
    ) -> AsyncIterator[discord.Message]:
        """The message that a thread was made from: in the parent channel, with the thread's id."""
        parent = self._client.get_partial_messageable(int(thread.channel), guild_id=guild)
        try:
            message = await parent.fetch_message(int(thread.thread))
        except (discord.NotFound, discord.Forbidden):
            return  # made without one, or a forum post, which contains its first message
        if message.created_at > floor:
            yield message


def model_text(text: str) -> str:
    """The model's words in a message of the bot's own; none in a notice."""
    words, mark, note = text.rpartition("\n-# ")
    text = words if mark and is_own_sentence(note) else text
    return "" if is_own_sentence(text) else text
