"""Catching up with messages, edits and deletions that the bot missed while it was not connected.

Slack redelivers an event for about six minutes. After a longer gap the bot reads the newest threads
that it takes part in, and handles what it finds there as if the events came now. A mention in a
thread that is new to the bot is found only by Slack's redelivery. The command `/henji catchup` is
another thing: a summary, by `bots/summaries.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from math import inf

import structlog

from bots.platform import PlatformRefused
from bots.slack.backfill import SPARE
from bots.slack.context import Context
from bots.slack.convert import PLATFORM, Bot, Json, MessagePosted, parse_event
from bots.slack.edits import EditHandler
from bots.slack.messages import MessageHandler
from core.errors import StoreUnavailable
from core.queue_types import ThreadSummary
from core.types import ThreadKey

THREADS = 50
PAGES = 10
"""Of one thread, at most: an app that may read one page a minute must reach the other threads."""
DAY = 86_400.0
METHOD = "conversations.replies"
SKEW = 30.0
"""Seconds by which the store's clock and Slack's may differ."""

log = structlog.get_logger()


class CatchUp:
    """Reads the newest threads for missed events."""

    def __init__(self, context: Context, messages: MessageHandler, edits: EditHandler) -> None:
        self._context = context
        self._messages = messages
        self._edits = edits

    def soon(self) -> None:
        self._context.spawn(self.run())

    async def run(self) -> None:
        """Read the newest threads. Events that were handled before change nothing."""
        threads: list[ThreadSummary] = []
        try:
            async for summary in self._context.history.threads(PLATFORM, time.time() - DAY):
                threads.append(summary)
                if len(threads) == THREADS:
                    break
            for summary in threads:
                await self._read_thread_or_log(summary)
        except StoreUnavailable as error:
            log.warning("could not catch up", error=str(error))

    async def _read_thread_or_log(self, summary: ThreadSummary) -> None:
        """Read one thread; an error in it does not keep the others from being read."""
        try:
            await self._read_thread(summary)
        except StoreUnavailable:
            raise
        except PlatformRefused as error:  # the channel is gone, or the app was taken out
            log.info("a thread was not caught up", thread=str(summary.thread), error=str(error))
        except Exception as error:
            log.warning("a thread was not caught up", thread=str(summary.thread), error=repr(error))

    async def _read_thread(self, summary: ThreadSummary) -> None:
        key = summary.thread
        turns = [stored.turn for stored in await self._context.history.turns(key)]
        known = sorted((t.id for t in turns if t.role == "user"), key=float)
        # after a reset, only messages since the thread's last activity
        known = known or [f"{summary.last_at - SKEW:.6f}"]
        bot = await self._context.workspaces.bot(key.space)
        await self._wait_for_room(key)
        found, is_whole = await self._since(key, f"{float(known[0]) - 1e-6:.6f}")
        there = {str(m["ts"]): m for m in found if m.get("subtype") != "tombstone"}
        # before new messages, because an edit of the newest question is answered again
        for ts in known:
            edited = ts in there and there[ts].get("edited")
            if edited and (posted := _posted(there[ts], key, bot)):
                await self._edits.apply(posted, bot)
        read_to = inf if is_whole or not found else float(found[-1]["ts"])
        for ts in _deleted([ts for ts in known if float(ts) <= read_to], found, there):
            await self._context.relay.deleted(key, ts)
        for ts, message in there.items():
            if float(ts) > float(known[-1]) and (posted := _posted(message, key, bot)):
                await self._messages.handle(posted, bot)

    async def _since(self, key: ThreadKey, oldest: str) -> tuple[list[Json], bool]:
        """The first pages of a thread since a time, and whether these are all."""
        found: list[Json] = []
        number = 0
        async for page in self._context.backfill.pages(key, oldest):
            found += page
            number += 1
            if number == PAGES:
                return found, False
        return found, True

    async def _wait_for_room(self, key: ThreadKey) -> None:
        """Wait until the call leaves enough room for people who ask now."""
        limiter = self._context.api.limiter
        while seconds := limiter.wait(METHOD, key.space, key.channel, spare=SPARE):  # noqa: ASYNC110
            await asyncio.sleep(seconds)


def _posted(message: Json, key: ThreadKey, bot: Bot) -> MessagePosted | None:
    """A message of a thread, as if its event had come."""
    posted = parse_event({"event": {**message, "channel": key.channel}}, bot)
    return posted if isinstance(posted, MessagePosted) else None


def _deleted(known: Sequence[str], found: Sequence[Json], there: Collection[str]) -> Sequence[str]:
    """The known messages that are missing from the part of the thread that was read."""
    if not found:
        return ()
    first = float(found[0]["ts"])
    return [ts for ts in known if float(ts) >= first and ts not in there]
