"""What was said in a conversation before the bot joined it, read from Discord."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import discord

from bots.discord import DIRECT, convert
from bots.discord.api import HISTORY_LIMIT, DiscordApi
from bots.discord.markdown import READ_TYPES
from bots.platform import Incoming, PlaceNames, PlatformRefused
from bots.strings import is_own_sentence
from bots.summaries import RecentMessages
from core.types import ThreadKey

NEWS_THREAD, PUBLIC_THREAD, PRIVATE_THREAD = 10, 11, 12
"""Types of channels."""
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

    async def recent(self, place: ThreadKey, after: float, most: int) -> RecentMessages:
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
        if not place.thread:
            messages = [
                replace(message, thread=convert.personal_thread(place, message.turn.author))
                for message in messages
            ]
        return RecentMessages(messages, more=len(found) > most)

    async def linked(self, thread: ThreadKey, address: str) -> Incoming | None:
        """The message behind a link, where everyone who sees an answer in `thread` may read it.

        It is in the same channel or in the one that the thread is of; or in one of the same server
        that everybody there may read. A direct message is in no server.
        """
        link = convert.LINK.match(address)
        if link is None:
            return None
        parent = thread.channel
        await self._api.acquire()
        try:
            if link["channel"] not in (thread.thread, thread.channel):
                same = thread.space != DIRECT and link["guild"] == thread.space
                parent = await self._open_channel(thread.space, link["channel"]) if same else ""
                if not parent:
                    return None
            channel = self._client.get_partial_messageable(int(link["channel"]))
            message = await channel.fetch_message(int(link["message"]))
        except (discord.NotFound, discord.Forbidden):
            return None
        bot = convert.bot_in(self._client, message.guild)
        turn, roles = convert.turn_of(message, bot), convert.roles_of(message.author)
        named = [f"[file: {file.name}]" for file in convert.files_of(message)]
        turn = replace(turn, text="\n\n".join(filter(None, [turn.text, *named])))
        place = _place_of(thread, parent, message)
        return Incoming(place, turn, addressed=False, roles=roles) if turn.text else None

    async def _open_channel(self, guild: str, ident: str) -> str:
        """A channel that everybody in a server may read, or that of a public thread; else empty."""
        http = self._client.http
        channel: Mapping[str, Any] = await http.get_channel(int(ident))
        if channel["type"] in (NEWS_THREAD, PUBLIC_THREAD):
            channel = await http.get_channel(int(channel["parent_id"]))
        if channel["type"] == PRIVATE_THREAD or channel.get("nsfw"):
            return ""
        if channel.get("guild_id") != guild:
            return ""
        is_open = _everybody_reads(guild, channel, await http.get_roles(int(guild)))
        return str(channel["id"]) if is_open else ""

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


def _place_of(thread: ThreadKey, parent: str, message: discord.Message) -> ThreadKey:
    """The conversation of a linked message, for whether it is forgotten there; `parent`: the
    channel that it is in, or that its thread is of."""
    where = str(message.channel.id)
    if where == thread.thread:
        return thread
    if where == parent and message.flags.has_thread:
        where = str(message.id)
    elif where == parent:
        return convert.personal_thread(replace(thread, channel=parent), str(message.author.id))
    return replace(thread, channel=parent, thread=where)


def _everybody_reads(guild: str, channel: Mapping[str, Any], roles: Sequence[Any]) -> bool:
    """Whether the role that everybody in a server has may read a channel."""
    everybody = next(discord.Permissions(int(r["permissions"])) for r in roles if r["id"] == guild)
    for overwrite in channel.get("permission_overwrites", ()):
        if overwrite["id"] == guild:
            everybody.handle_overwrite(int(overwrite["allow"]), int(overwrite["deny"]))
    return everybody.view_channel and everybody.read_message_history


def model_text(text: str) -> str:
    """The model's words in a message of the bot's own; none in a notice."""
    words, mark, note = text.rpartition("\n-# ")
    text = words if mark and is_own_sentence(note) else text
    return "" if is_own_sentence(text) else text
