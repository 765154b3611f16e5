"""What a process does again and again, beside its work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from core.errors import StoreUnavailable

log = structlog.get_logger()


async def repeat(chore: Callable[[], Awaitable[None]], seconds: float, retry: float = 0.5) -> None:
    """Do `chore` for ever, `seconds` apart; while Redis is away, say so once and wait `retry`."""
    away = False
    while True:
        try:
            await chore()
        except StoreUnavailable as error:
            if not away:
                log.warning("redis is away; trying again", error=str(error))
            away = True
            await asyncio.sleep(max(seconds, retry))
        else:
            if away:
                log.info("redis is back")
            away = False
            await asyncio.sleep(seconds)
