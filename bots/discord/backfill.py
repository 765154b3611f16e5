"""The messages of a conversation from before the bot joined it, read from Discord."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeAlias

import discord
import structlog
from discord.utils import time_snowflake

from bots.discord import DIRECT, PLATFORM, convert
from bots.discord.api import HISTORY_LIMIT, DiscordApi
from bots.discord.extract import READ_TYPES, files_of
from bots.platform import Incoming, PlaceNames, PlatformRefused
from bots.strings import is_own_sentence
from bots.summaries import RecentMessages
from core.observe import metrics
from core.types import ThreadKey

NEWS_THREAD, PUBLIC_THREAD, PRIVATE_THREAD = 10, 11, 12
VOICE = (2, 13)
"""Types of channels. The messages of a voice channel are for people who may connect to it."""
RawMessage: TypeAlias = Mapping[str, Any]

log = structlog.get_logger()


class Backfill:
    """Reads a conversation's earlier messages."""

    def __init__(self, client: discord.Client, api: DiscordApi) -> None:
        self._client = client
        self._api = api

    async def names(self, thread: ThreadKey) -> PlaceNames:
        """The names of a channel and of the bot; a direct message has none."""
        bot = convert.name_of_bot(self._client)
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
        messages = await self._messages(thread, guild, before, after)
        return self._read(thread, guild, messages)

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
            turn, files = convert.turn_of(message, bot), files_of(message)
            turn = replace(turn, text=model_text(turn.text)) if own else turn
            if turn.text or files:
                roles, quote = convert.roles_of(message.author), convert.quote_in(message, bot)
                found.append(Incoming(thread, turn, False, roles=roles, files=files, quote=quote))
        return sorted(found, key=lambda incoming: int(incoming.turn.id))

    async def recent(self, place: ThreadKey, after: float, most: int) -> RecentMessages:
        """The newest messages of a thread or, without one, of a channel; PlatformRefused where the
        bot may not read there.
        """
        guild, guild_id = self._guild(place), None if place.space == DIRECT else int(place.space)
        where = int(place.thread or place.channel)
        channel = self._client.get_partial_messageable(where, guild_id=guild_id)
        found: list[RawMessage] = []
        floor = time_snowflake(datetime.fromtimestamp(after, UTC), high=True)
        try:
            while len(found) <= most:
                await self._api.acquire()
                page = await newest_first(self._client, where, before=_oldest_in(found))
                found += page
                if len(page) < HISTORY_LIMIT or int(page[-1]["id"]) <= floor:
                    break
        except (discord.NotFound, discord.Forbidden) as error:
            raise PlatformRefused(f"Discord refuses to read there: {error.code}") from error
        found = [message for message in found if int(message["id"]) > floor]
        messages = self._read(place, guild, parsed(channel, found[:most]))
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
            http = self._client.http
            raw = await http.get_message(int(link["channel"]), int(link["message"]))
        except (discord.NotFound, discord.Forbidden):
            return None
        message = next(iter(parsed(channel, [raw])), None)
        if message is None:
            return None
        bot = convert.bot_in(self._client, message.guild)
        turn, roles = convert.turn_of(message, bot), convert.roles_of(message.author)
        named = [f"[file: {file.name}]" for file in files_of(message)]
        turn = replace(turn, text="\n\n".join(filter(None, [turn.text, *named])))
        place = _place_of(thread, parent, message)
        quote = convert.quote_in(message, bot)
        said = Incoming(place, turn, addressed=False, roles=roles, quote=quote)
        return said if turn.text else None

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
    ) -> list[discord.Message]:
        where, guild_id = int(thread.thread), guild.id if guild else None
        channel = self._client.get_partial_messageable(where, guild_id=guild_id)
        try:
            found = parsed(channel, await newest_first(self._client, where, before=before))
        except (discord.NotFound, discord.Forbidden):
            return []  # the thread is not open yet, or not to the bot
        if guild is not None and thread.thread != before:
            found += await self._starter(thread, guild.id)
        floor = datetime.fromtimestamp(after, UTC)
        return [message for message in found if message.created_at > floor]

    async def _starter(self, thread: ThreadKey, guild: int) -> list[discord.Message]:
        """The message that a thread was made from: in the parent channel, with the thread's id."""
        parent = self._client.get_partial_messageable(int(thread.channel), guild_id=guild)
        try:
            found = await self._client.http.get_message(int(thread.channel), int(thread.thread))
        except (discord.NotFound, discord.Forbidden):
            return []  # made without one, or a forum post, which contains its first message
        return parsed(parent, [found])


async def newest_first(
    client: discord.Client, channel: int, *, before: str = "", after: int = 0
) -> list[RawMessage]:
    """At most HISTORY_LIMIT messages of a channel before another, or the first ones after one."""
    bounds = {"before": int(before)} if before else {"after": after} if after else {}
    found: Any = await client.http.logs_from(channel, HISTORY_LIMIT, **bounds)
    return list(found)


def parsed(
    channel: discord.abc.Messageable, messages: Iterable[RawMessage]
) -> list[discord.Message]:
    """Messages as discord.py's objects, without those that it cannot parse: see `HenjiClient`."""
    found: list[discord.Message] = []
    place: Any = channel
    for message in messages:
        try:
            found.append(discord.Message(state=place._state, channel=place, data=message))  # type: ignore[arg-type]  # of the API
        except Exception as error:
            metrics.count_gateway_event(PLATFORM, "unreadable")
            log.info("a message cannot be parsed; it is not read", error=type(error).__name__)
    return found


def _oldest_in(messages: Sequence[RawMessage]) -> str:
    return str(messages[-1]["id"]) if messages else ""


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
    reads = everybody.view_channel and everybody.read_message_history
    return reads and (everybody.connect or channel["type"] not in VOICE)


def model_text(text: str) -> str:
    """The model's words in a message of the bot's own; none in a notice."""
    words, mark, note = text.rpartition("\n-# ")
    text = words if mark and is_own_sentence(note) else text
    return "" if is_own_sentence(text) else text
