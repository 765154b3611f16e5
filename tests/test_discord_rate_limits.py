"""The limiter of edits follows Discord's headers, finished texts first."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from bots.discord.rate_limits import GLOBAL, GLOBAL_LIMIT, RateLimiter


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limiter(clock: Clock) -> RateLimiter:
    return RateLimiter(clock)


def headers(remaining: int, after: float, limit: int = 5) -> Mapping[str, str]:
    return {
        "X-RateLimit-Limit": str(limit),
        "X-RateLimit-Remaining": str(remaining),
        "X-RateLimit-Reset-After": str(after),
    }


async def is_let_through(limiter: RateLimiter, key: str = "c", *, final: bool = False) -> bool:
    """Whether a turn comes at once; a turn that does not is given up."""
    task = asyncio.create_task(limiter.acquire(key, final=final))
    for _ in range(5):
        await asyncio.sleep(0)
    through = task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return through


async def test_an_unknown_window_lets_one_request_through(limiter: RateLimiter) -> None:
    assert await is_let_through(limiter)
    assert not await is_let_through(limiter)


async def test_intermediate_texts_leave_room_for_finished_ones(limiter: RateLimiter) -> None:
    limiter.observe("c", headers(4, 5.0), 200)
    assert [await is_let_through(limiter) for _ in range(3)] == [True, True, False]
    assert [await is_let_through(limiter, final=True) for _ in range(3)] == [True, True, False]


async def test_a_bucket_is_full_again_after_its_window(limiter: RateLimiter, clock: Clock) -> None:
    limiter.observe("c", headers(0, 5.0), 200)
    assert not await is_let_through(limiter, final=True)
    clock.now += 5.0
    assert [await is_let_through(limiter) for _ in range(4)] == [True, True, True, False]


async def test_a_finished_text_goes_before_those_that_wait(
    limiter: RateLimiter, clock: Clock
) -> None:
    limiter.observe("c", headers(0, 0.01), 200)
    order: list[str] = []

    async def wait(name: str, *, final: bool) -> None:
        await limiter.acquire("c", final=final)
        order.append(name)

    tasks = [asyncio.create_task(wait("draft", final=False))]
    tasks.append(asyncio.create_task(wait("final", final=True)))
    await asyncio.sleep(0)
    clock.now += 1.0
    await asyncio.wait_for(asyncio.gather(*tasks), 5)
    assert order == ["final", "draft"]


async def test_a_cancelled_request_does_not_block_the_bucket(limiter: RateLimiter) -> None:
    limiter.observe("c", headers(0, 5.0), 200)
    assert not await is_let_through(limiter, final=True)
    limiter.observe("c", {}, 200)
    assert not limiter._buckets["c"].waiting


async def test_a_429_empties_the_bucket_for_as_long_as_it_says(
    limiter: RateLimiter, clock: Clock
) -> None:
    limiter.observe("c", headers(3, 5.0), 200)
    limiter.observe("c", {"Retry-After": "7"}, 429)
    clock.now += 6.0
    assert not await is_let_through(limiter, final=True)
    clock.now += 1.0
    assert await is_let_through(limiter, final=True)


async def test_an_answer_that_was_overtaken_gives_nothing_back(limiter: RateLimiter) -> None:
    limiter.observe("c", headers(4, 5.0), 200)
    assert await is_let_through(limiter, final=True)
    assert await is_let_through(limiter, final=True)
    limiter.observe("c", headers(4, 5.0), 200)
    assert [await is_let_through(limiter, final=True) for _ in range(3)] == [True, True, False]


async def test_all_channels_together_stay_below_fifty_a_second(
    limiter: RateLimiter, clock: Clock
) -> None:
    through = [await is_let_through(limiter, GLOBAL, final=True) for _ in range(60)]
    assert sum(through) == GLOBAL_LIMIT
    clock.now += 1.0
    assert await is_let_through(limiter, GLOBAL, final=True)


async def test_an_optional_request_is_skipped_where_the_bucket_is_empty(
    limiter: RateLimiter,
) -> None:
    limiter.observe("c", headers(3, 5.0), 200)
    assert limiter.try_acquire("c")
    assert not limiter.try_acquire("c")


async def test_a_flood_of_notices_puts_no_request_before_a_reply(
    limiter: RateLimiter, clock: Clock
) -> None:
    order: list[str] = []

    async def send(name: str, *, final: bool) -> None:
        await limiter.acquire("c", final=final)
        order.append(name)

    limiter.observe("c", headers(0, 5.0), 200)
    flood = [asyncio.create_task(send("notice", final=False)) for _ in range(100)]
    reply = asyncio.create_task(send("reply", final=True))
    await asyncio.sleep(0)
    clock.now += 5.0
    limiter.observe("c", headers(5, 5.0), 200)
    await reply
    assert order[0] == "reply"
    for task in flood:
        task.cancel()
    await asyncio.gather(*flood, return_exceptions=True)
