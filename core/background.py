"""Work that a process repeats beside its main task."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from core.errors import StoreUnavailable

log = structlog.get_logger()


CANCEL_AGAIN_SECONDS = 10.0
"""Seconds after which a task that has not ended is cancelled again."""


async def repeat_forever(
    work: Callable[[], Awaitable[None]], seconds: float, retry: float = 0.5
) -> None:
    """Do `work` for ever, `seconds` apart; log a failure once and wait `retry` after it.

    No exception ends it: a core that stopped claiming but still announced its lane would be worse.
    """
    fault: Exception | None = None
    while True:
        try:
            await work()
        except Exception as error:
            if type(error) is not type(fault):
                _log_failure(error)
            fault = error
            await asyncio.sleep(max(seconds, retry))
        else:
            if fault is not None:
                away = isinstance(fault, StoreUnavailable)
                log.info("redis is back" if away else "a chore works again")
            fault = None
            await asyncio.sleep(seconds)


def _log_failure(error: Exception) -> None:
    if isinstance(error, StoreUnavailable):
        log.warning("redis is away; trying again", error=str(error))
    else:
        log.error("a chore failed; trying again", exc_info=error)


async def cancel(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks, and return when they have ended.

    They are cancelled again after a while: a library may have swallowed the first cancellation.
    """
    while left := {task for task in tasks if not task.done()}:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=CANCEL_AGAIN_SECONDS)


async def first_of(*works: Awaitable[Any]) -> asyncio.Future[Any]:
    """Wait for whichever ends first, cancel the others, and return it: of several that have ended,
    the one named first. A work that is a future comes back as itself."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task.done())
    finally:
        for task in tasks:
            task.cancel()
