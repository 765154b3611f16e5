"""Waiting for what a test expects, with a limit: no test sleeps and hopes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


async def until(expected: Callable[[], Awaitable[bool]], seconds: float = 60.0) -> None:
    """Return as soon as `expected` holds; TimeoutError where it never does."""
    async with asyncio.timeout(seconds):
        while not await expected():  # noqa: ASYNC110 - what is waited for is in another process
            await asyncio.sleep(0.01)
