"""The typing indicator, kept alive: Discord shows it for ten seconds a request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import discord
import structlog

from bots.discord.error_codes import is_final

log = structlog.get_logger()

INTERVAL = 8.0
"""Seconds between two requests."""
LONGEST = 600.0
"""Seconds after which it ends by itself: another process may have the delivery."""


class StatusIndicator:
    """Shows "Henji is typing…" for each reply that has no text yet."""

    def __init__(self, show: Callable[[str], Awaitable[None]], interval: float = INTERVAL) -> None:
        self._show = show
        self._interval = interval
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, job: str, channel: str) -> None:
        """Show it in a channel until `stop`; a second start changes nothing."""
        if job not in self._tasks:
            task = asyncio.create_task(self._keep_showing(channel), name=f"typing {job}")
            self._tasks[job] = task
            task.add_done_callback(lambda _: self._tasks.pop(job, None))

    def stop(self, job: str) -> None:
        if task := self._tasks.pop(job, None):
            task.cancel()

    def close(self) -> None:
        for job in list(self._tasks):
            self.stop(job)

    async def _keep_showing(self, channel: str) -> None:
        for _ in range(int(LONGEST / self._interval)):
            try:
                await self._show(channel)
            except Exception as error:  # the reply itself will tell what is wrong
                log.info("no typing indicator", channel=channel, error=repr(error))
                if isinstance(error, discord.HTTPException) and is_final(error):
                    return
            await asyncio.sleep(self._interval)
