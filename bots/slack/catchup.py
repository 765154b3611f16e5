"""What was said while nobody listened: read from the threads that the bot takes part in.

Slack delivers again for about six minutes; after a longer gap, or where sockets were cut, the
newest threads are read from their last known message on. A mention in a thread that is new to the
bot is found only by Slack's own redelivery.
"""

from __future__ import annotations

import asyncio
import time

import structlog

from bots.base import PlatformRefused
from bots.slack.convert import PLATFORM
from bots.slack.desk import Desk
from bots.slack.messages import Messages
from core.errors import StoreUnavailable
from core.records import ThreadSummary
from core.types import ThreadKey

THREADS = 50
DAY = 86_400.0
METHOD = "conversations.replies"
SPARE = 1 / 3
"""The part of Slack's calls that is left to others."""

log = structlog.get_logger()


class CatchUp:
    """Reads what was missed."""

    def __init__(self, desk: Desk, messages: Messages) -> None:
        self._desk = desk
        self._messages = messages

    def soon(self) -> None:
        self._desk.later(self.run())

    async def run(self) -> None:
        """Submit what the newest threads have and the store has not; what is known is known."""
        threads: list[ThreadSummary] = []
        try:
            async for summary in self._desk.history.threads(PLATFORM):
                if summary.last_at > time.time() - DAY and len(threads) < THREADS:
                    threads.append(summary)
            for summary in threads:
                await self._one_or_say(summary)
        except StoreUnavailable as error:
            log.warning("could not catch up", error=str(error))

    async def _one_or_say(self, summary: ThreadSummary) -> None:
        """One thread that cannot be read keeps nobody from the others."""
        try:
            await self._one(summary)
        except StoreUnavailable:
            raise
        except PlatformRefused as error:  # the channel is gone, or the app was taken out
            log.info("a thread was not caught up", thread=str(summary.thread), error=str(error))
        except Exception as error:
            log.warning("a thread was not caught up", thread=str(summary.thread), error=repr(error))

    async def _one(self, summary: ThreadSummary) -> None:
        key = summary.thread
        turns = [stored.turn for stored in await self._desk.history.turns(key)]
        last = max((t.id for t in turns if t.role == "user"), default=key.thread, key=float)
        bot = await self._desk.workspaces.bot(key.space)
        await self._room(key)
        for message in await self._desk.past.replies(key, oldest=last):
            await self._messages.catch_up(dict(message), key, bot)

    async def _room(self, key: ThreadKey) -> None:
        """Leave room for those who ask now and want their thread read."""
        budget = self._desk.caller.budget
        while seconds := budget.wait(METHOD, key.space, key.channel, spare=SPARE):  # noqa: ASYNC110
            await asyncio.sleep(seconds)
