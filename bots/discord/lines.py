"""Taking turns: what comes from one channel is stored in the order in which it came.

discord.py handles each event in a task of its own, and they would overtake one another: after a
RESUME, a whole conversation comes at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class Line:
    """Who stands in it, and who comes first."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    standing: int = 0


class Lines:
    """One for each channel in which something is being taken in."""

    def __init__(self) -> None:
        self._lines: dict[int, Line] = {}

    @contextlib.asynccontextmanager
    async def turn(self, channel: int) -> AsyncIterator[None]:
        """Wait for those who came before."""
        line = self._lines.setdefault(channel, Line())
        line.standing += 1
        try:
            async with line.lock:
                yield
        finally:
            line.standing -= 1
            if not line.standing:
                del self._lines[channel]
