"""After a session that could not be resumed: what people wrote in between, in the bot's threads.

A message that was taken in before is known by its id, so that reading too much does no harm. Edits
and deletions in between are not looked for.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import discord
import structlog

from bots.discord import convert
from bots.discord.desk import Desk
from bots.discord.listening import Listener
from core.errors import StoreUnavailable
from core.records import ThreadSummary

log = structlog.get_logger()

MOST_THREADS = 200
"""The threads that were active last; each costs a request."""
BACK = 24 * 3600.0
"""Seconds: a thread that has been quiet for longer is not looked at."""
MOST_MESSAGES = 100


class CatchUp:
    """Reads on where the last session ended."""

    def __init__(self, desk: Desk, client: discord.Client, listener: Listener) -> None:
        self._desk = desk
        self._client = client
        self._listener = listener

    async def run(self) -> None:
        """Hand every message that came since the last one known to the listener."""
        read: set[str] = set()
        try:
            async for summary in self._threads():
                channel = _channel_of(summary)
                if channel and channel not in read:
                    read.add(channel)
                    await self._read(summary, channel)
        except StoreUnavailable as error:
            log.warning("could not look for what was written meanwhile", error=str(error))

    async def _threads(self) -> AsyncIterator[ThreadSummary]:
        """This shard's threads of late, the newest first."""
        found = 0
        async for summary in self._desk.history.threads(convert.PLATFORM):
            if found >= MOST_THREADS or summary.last_at < time.time() - BACK:
                return
            if self._is_ours(summary.thread.space):
                found += 1
                yield summary

    def _is_ours(self, space: str) -> bool:
        count = self._client.shard_count or 1
        shard = 0 if space == convert.DIRECT else (int(space) >> 22) % count
        return shard == (self._client.shard_id or 0)

    async def _read(self, summary: ThreadSummary, channel: str) -> None:
        turns = await self._desk.history.turns(summary.thread)
        known = [int(stored.turn.id) for stored in turns if stored.turn.id.isdecimal()]
        if not known:
            return
        try:
            place = await self._place(channel)
            await self._desk.rest.turn()
            after = discord.Object(max(known))
            async for message in place.history(limit=MOST_MESSAGES, after=after, oldest_first=True):
                await self._listener.heard(message)
        except (discord.NotFound, discord.Forbidden):
            return  # gone meanwhile, or closed to the bot

    async def _place(self, channel: str) -> discord.abc.Messageable:
        """A channel with its kind and rights: from the cache, or asked for."""
        found = self._client.get_channel(int(channel))
        if found is None:
            await self._desk.rest.turn()
            found = await self._client.fetch_channel(int(channel))
        if isinstance(found, discord.abc.Messageable):
            return found
        return self._client.get_partial_messageable(int(channel))


def _channel_of(summary: ThreadSummary) -> str:
    """Where the messages of a thread are; nowhere for a private conversation."""
    thread = summary.thread
    if thread.thread.startswith("!"):
        return ""
    return thread.channel if convert.is_personal(thread) else thread.thread
