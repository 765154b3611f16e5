"""Reads the bot's threads for missed messages, after a session that could not be resumed.

Messages that were stored before are recognised by their ids, so reading too much does no harm.
Edits and deletions made meanwhile are not found. The command `/catchup` is another thing: a
summary, by `bots/summaries.py`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import discord
import structlog
from discord.utils import time_snowflake

from bots.discord import DIRECT, PLATFORM, convert
from bots.discord.api import HISTORY_LIMIT
from bots.discord.backfill import newest_first, parsed
from bots.discord.context import Context
from bots.discord.messages import MessageHandler
from core.errors import StoreUnavailable
from core.queue_types import ThreadSummary

log = structlog.get_logger()

MAX_THREADS = 200
"""The most threads that are read, most recently active first; each costs a request."""
MAX_AGE = 24 * 3600.0
"""Seconds after which a quiet thread is not read."""
CLOCK_SKEW = 30.0
"""Seconds by which this machine's clock and Discord's may differ."""


class CatchUp:
    """Reads threads from where the last session ended."""

    def __init__(self, context: Context, client: discord.Client, messages: MessageHandler) -> None:
        self._context = context
        self._client = client
        self._messages = messages

    async def run(self, began: float) -> None:
        """Handle every message since the last stored one.

        `began`: when this session was opened, in seconds since the epoch.
        """
        read: set[str] = set()
        try:
            async for summary in self._threads():
                channel = _channel_of(summary)
                if channel and channel not in read:
                    read.add(channel)
                    await self._read_thread(summary, channel, began - CLOCK_SKEW)
        except StoreUnavailable as error:
            log.warning("could not look for what was written meanwhile", error=str(error))

    async def _threads(self) -> AsyncIterator[ThreadSummary]:
        """This shard's recently active threads."""
        found = 0
        since = time.time() - MAX_AGE
        async for summary in self._context.stores.history.threads(PLATFORM, since):
            if found < MAX_THREADS and self._is_of_this_shard(summary.thread.space):
                found += 1
                yield summary

    def _is_of_this_shard(self, space: str) -> bool:
        count = self._client.shard_count or 1
        shard = 0 if space == DIRECT else (int(space) >> 22) % count
        return shard == (self._client.shard_id or 0)

    async def _read_thread(self, summary: ThreadSummary, channel: str, until: float) -> None:
        after = await self._last_known(summary, until)
        try:
            place = await self._channel(channel)
            await self._context.api.acquire()
            found = await newest_first(self._client, int(channel), after=after.id)
        except discord.HTTPException as error:  # deleted meanwhile, or not readable by the bot
            log.info("a thread was not caught up", thread=str(summary.thread), code=error.code)
            return
        messages = sorted(parsed(place, found), key=lambda message: message.id)
        if len(found) == HISTORY_LIMIT:
            log.warning("too much was missed in a thread", thread=str(summary.thread))
        own = [message for message in messages if message.author == self._client.user]
        answered = {message.reference.message_id for message in own if message.reference}
        for message in messages:
            if message.id not in answered:
                await self._messages.handle(message)

    async def _last_known(self, summary: ThreadSummary, until: float) -> discord.Object:
        """The newest message stored before this session. Later ones do not count: earlier messages
        may have been missed.
        """
        newest = time_snowflake(datetime.fromtimestamp(until, UTC))
        turns = [stored.turn for stored in await self._context.stores.history.turns(summary.thread)]
        known = sorted(int(turn.id) for turn in turns if turn.role == "user")
        before = [ident for ident in known if ident <= newest] or known[:1]
        since = datetime.fromtimestamp(summary.last_at - CLOCK_SKEW, UTC)
        return discord.Object(before[-1] if before else time_snowflake(since))

    async def _channel(self, channel: str) -> discord.abc.Messageable:
        """A channel with its type and permissions: from the cache, or requested."""
        found = self._client.get_channel(int(channel))
        if found is None:
            await self._context.api.acquire()
            found = await self._client.fetch_channel(int(channel))
        if isinstance(found, discord.abc.Messageable):
            return found
        return self._client.get_partial_messageable(int(channel))


def _channel_of(summary: ThreadSummary) -> str:
    """The channel of a thread's messages; none for a private conversation."""
    thread = summary.thread
    if thread.thread.startswith("!"):
        return ""
    return thread.channel if convert.is_personal(thread) else thread.thread
