"""Background work: repeating, retrying, cancelling."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import structlog

from core.errors import StoreUnavailable

T = TypeVar("T")

log = structlog.get_logger()

CANCEL_AGAIN_SECONDS = 10.0
"""Seconds after which a task that has not ended is cancelled again."""


async def repeat_forever(
    work: Callable[[], Awaitable[None]], seconds: float, retry: float = 0.5
) -> None:
    """Do `work` for ever, `seconds` apart; log a failure once and wait `retry` after it.

    No exception ends it: a core must not stop claiming while it still announces its lane.
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


async def retry_while_away(
    step: Callable[[], Awaitable[T]],
    goes_on: Callable[[], bool] = lambda: True,
    pause: float = 0.5,
) -> T:
    """The result of a step in the store, retried while the store is away.

    StoreUnavailable once `goes_on` says no.
    """
    while True:
        try:
            return await step()
        except StoreUnavailable:
            if not goes_on():
                raise
            await asyncio.sleep(pause)


async def cancel(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks, and return when they have ended.

    They are cancelled again after a while: a library may have swallowed the first cancellation.
    """
    while left := {task for task in tasks if not task.done()}:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=CANCEL_AGAIN_SECONDS)


async def first_of(*works: Awaitable[Any]) -> asyncio.Future[Any]:
    """Wait for the first to end, cancel the others, and return it; of several, the one named first.
    A future is returned as itself."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task.done())
    finally:
        for task in tasks:
            task.cancel()
