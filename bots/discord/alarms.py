"""Before a token ends: what becomes of a reply that has no other way to its person."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import discord
import structlog

from bots.discord.note import Note
from core.queue_types import Delivery
from core.types import ThreadKey

log = structlog.get_logger()

BEFORE_THE_END = 60.0
"""Seconds before a token's end at which a reply that cannot do without it is cut or moved."""


class Alarms:
    """One for each reply that needs its token: what only one person may see moves to their direct
    messages; what the bot can bring to nobody without the token is stopped, and says so.
    """

    def __init__(
        self,
        stop: Callable[[ThreadKey, str], Awaitable[object]],
        move: Callable[[Delivery, Note], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        self._stop = stop
        self._move = move
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def set(self, delivery: Delivery, note: Note) -> None:
        """See to a reply in time; a second call changes nothing."""
        seconds = note.until - BEFORE_THE_END - self._clock()
        needs_it = note.token and (note.private or note.stranger)
        if needs_it and delivery.job not in self._tasks and seconds > -BEFORE_THE_END:
            ringing = self._ring(delivery, note, max(seconds, 0.0))
            self._tasks[delivery.job] = asyncio.create_task(ringing, name=f"alarm {delivery.job}")

    def clear(self, job: str) -> None:
        """The reply has ended."""
        if task := self._tasks.pop(job, None):
            task.cancel()

    def close(self) -> None:
        for job in list(self._tasks):
            self.clear(job)

    async def _ring(self, delivery: Delivery, note: Note, seconds: float) -> None:
        await asyncio.sleep(seconds)
        try:
            if note.stranger:
                await self._stop(delivery.thread, delivery.job)
            else:
                await self._move(delivery, note)
        except discord.Forbidden:  # the person takes no direct messages: it ends here
            await self._stop(delivery.thread, delivery.job)
        except Exception as error:  # what is written after the token's end tries it again
            log.warning("a reply was not moved in time", job=delivery.job, error=repr(error))
