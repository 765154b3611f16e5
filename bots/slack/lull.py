"""In a rush, what has come in is stored and acknowledged before anybody is shown a sign of life."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

PATIENCE = 0.5
"""Seconds that a sign waits at the longest: it is seen within one."""


class Lull:
    """Knows whether events are being taken in at this moment."""

    def __init__(self) -> None:
        self._events = 0
        self._none = asyncio.Event()
        self._none.set()

    @contextlib.contextmanager
    def event(self) -> Iterator[None]:
        """While an event is taken in."""
        self._events += 1
        self._none.clear()
        try:
            yield
        finally:
            self._events -= 1
            if not self._events:
                self._none.set()

    async def wait(self) -> None:
        """Return when no event is being taken in, or when that cannot be waited for any longer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._none.wait()
