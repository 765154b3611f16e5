"""Work that a process repeats, and the mapping behind every cache."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from core import background
from core.errors import StoreUnavailable
from core.types import Bounded


def test_the_oldest_entry_makes_room() -> None:
    kept = Bounded[str, int](2)
    kept["a"], kept["b"] = 1, 2
    kept["a"] = 3
    assert kept.setdefault("c", 4) == 4
    assert dict(kept) == {"a": 3, "c": 4}


def test_an_entry_that_was_used_can_be_kept() -> None:
    kept = Bounded[str, int](2)
    kept["a"], kept["b"] = 1, 2
    kept.move_to_end("a")
    kept["c"] = 3
    assert list(kept) == ["a", "c"]


@pytest.mark.parametrize("error", [StoreUnavailable("away"), KeyError("unforeseen")])
async def test_a_chore_that_fails_is_tried_again(error: Exception) -> None:
    tries, worked = [error, error], asyncio.Event()

    async def chore() -> None:
        if tries:
            raise tries.pop()
        worked.set()

    repeating = asyncio.create_task(background.repeat_forever(chore, 0, retry=0))
    await asyncio.wait_for(worked.wait(), 5)
    await background.cancel(repeating)
    assert repeating.cancelled()


async def test_a_task_that_swallows_a_cancellation_is_told_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(background, "CANCEL_AGAIN_SECONDS", 0.01)

    async def deaf() -> None:
        with suppress(asyncio.CancelledError):  # as asyncio.wait_for may on Python 3.11
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    tasks = [asyncio.create_task(deaf()) for _ in range(2)]
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await background.cancel(*tasks)
    assert all(task.cancelled() for task in tasks)
