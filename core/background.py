"""What a process does again and again, beside its work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from core.errors import StoreUnavailable

log = structlog.get_logger()


CANCEL_AGAIN = 10.0
"""Seconds after which a task that was told to end is told so again."""


async def repeat(chore: Callable[[], Awaitable[None]], seconds: float, retry: float = 0.5) -> None:
    """Do `chore` for ever, `seconds` apart; where it fails, say so once and wait `retry`.

    No fault ends it: a core that claims no more, but vouches for its lane, would be worse.
    """
    fault: Exception | None = None
    while True:
        try:
            await chore()
        except Exception as error:
            if type(error) is not type(fault):
                _say(error)
            fault = error
            await asyncio.sleep(max(seconds, retry))
        else:
            if fault is not None:
                away = isinstance(fault, StoreUnavailable)
                log.info("redis is back" if away else "a chore works again")
            fault = None
            await asyncio.sleep(seconds)


def _say(error: Exception) -> None:
    if isinstance(error, StoreUnavailable):
        log.warning("redis is away; trying again", error=str(error))
    else:
        log.error("a chore failed; trying again", exc_info=error)


async def end(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks, and return when they have ended.

    They are told again after a while: a library may have swallowed the first cancellation.
    """
    while left := {task for task in tasks if not task.done()}:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=CANCEL_AGAIN)
