"""After a session that could not be resumed: what people wrote in between, in the bot's threads.

A message that was taken in before is known by its id, so that reading too much does no harm. Edits
and deletions in between are not looked for.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import discord
import structlog
from discord.utils import time_snowflake

from bots.discord import convert
from bots.discord.context import Desk
from bots.discord.messages import Listener
from core.errors import StoreUnavailable
from core.queue_types import ThreadSummary

log = structlog.get_logger()

MOST_THREADS = 200
"""The threads that were active last; each costs a request."""
BACK = 24 * 3600.0
"""Seconds: a thread that has been quiet for longer is not looked at."""
MOST_MESSAGES = 100
SKEW = 30.0
"""Seconds by which this machine's clock and Discord's may differ."""


class CatchUp:
    """Reads on where the last session ended."""

    def __init__(self, desk: Desk, client: discord.Client, listener: Listener) -> None:
        self._desk = desk
        self._client = client
        self._listener = listener

    async def run(self, began: float) -> None:
        """Hand every message that came since the last one known to the listener.

        `began`: when this session was opened, in seconds since the epoch.
        """
        read: set[str] = set()
        try:
            async for summary in self._threads():
                channel = _channel_of(summary)
                if channel and channel not in read:
                    read.add(channel)
                    await self._read(summary, channel, began - SKEW)
        except StoreUnavailable as error:
            log.warning("could not look for what was written meanwhile", error=str(error))

    async def _threads(self) -> AsyncIterator[ThreadSummary]:
        """This shard's threads of late."""
        found = 0
        since = time.time() - BACK
        async for summary in self._desk.history.threads(convert.PLATFORM, since):
            if found < MOST_THREADS and self._is_ours(summary.thread.space):
                found += 1
                yield summary

    def _is_ours(self, space: str) -> bool:
        count = self._client.shard_count or 1
        shard = 0 if space == convert.DIRECT else (int(space) >> 22) % count
        return shard == (self._client.shard_id or 0)

    async def _read(self, summary: ThreadSummary, channel: str, until: float) -> None:
        after = await self._last_known(summary, until)
        try:
            place = await self._place(channel)
            await self._desk.rest.turn()
            found = place.history(limit=MOST_MESSAGES, after=after, oldest_first=True)
            messages = [message async for message in found]
        except discord.HTTPException as error:  # gone meanwhile, or closed to the bot
            log.info("a thread was not caught up", thread=str(summary.thread), code=error.code)
            return
        if len(messages) == MOST_MESSAGES:
            log.warning("too much was missed in a thread", thread=str(summary.thread))
        me = self._client.user
        mine = [message for message in messages if message.author == me]
        answered = {message.reference.message_id for message in mine if message.reference}
        for message in messages:
            if message.id not in answered:
                await self._listener.heard(message)

    async def _last_known(self, summary: ThreadSummary, until: float) -> discord.Object:
        """Behind which there may be news. What came since the session began does not count: it
        may have overtaken what was missed.
        """
        newest = time_snowflake(datetime.fromtimestamp(until, UTC))
        turns = [stored.turn for stored in await self._desk.history.turns(summary.thread)]
        known = sorted(int(turn.id) for turn in turns if turn.role == "user")
        before = [ident for ident in known if ident <= newest] or known[:1]
        since = datetime.fromtimestamp(summary.last_at - SKEW, UTC)
        return discord.Object(before[-1] if before else time_snowflake(since))

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
