"""Calls within Slack's limits: the ends of replies first, and nothing over the tier."""

from __future__ import annotations

import asyncio

from bots.slack.rate_limits import POST, Bucket, RateLimiter


def test_a_bucket_limits_calls_in_any_span_of_its_length() -> None:
    bucket = Bucket(most=2, seconds=10)
    assert bucket.wait(0.0) == 0
    bucket.calls.append(0.0)
    bucket.calls.append(4.0)
    assert bucket.wait(5.0) == 5.0
    assert bucket.wait(10.0) == 0


def test_a_bucket_stays_blocked_for_retry_after() -> None:
    bucket = Bucket(most=2, seconds=10, blocked_until=7.0)
    assert bucket.wait(5.0) == 2.0


async def test_last_updates_are_reserved_from_intermediate_ones() -> None:
    limiter = RateLimiter(minute=60)
    for reply in range(44):
        limiter.reserve("chat.update", "T1", str(reply))
    assert limiter.try_acquire("chat.update", "T1", "C1")
    assert not limiter.try_acquire("chat.update", "T1", "C1")
    assert limiter.try_acquire("chat.update", "T2", "C1")  # another workspace has its own
    async with asyncio.timeout(1):
        await limiter.acquire("chat.update", "T1", "C1")
    limiter.release("T1", "0")
    limiter.release("T1", "1")
    assert limiter.try_acquire("chat.update", "T1", "C1")


async def test_posts_are_one_a_second_in_each_channel() -> None:
    limiter = RateLimiter(minute=6)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.gather(*(limiter.acquire(POST, "T1", "C1") for _ in range(4)))
    assert 0.3 <= loop.time() - began < 0.6
    assert limiter.try_acquire(POST, "T1", "C2")


async def test_several_processes_share_the_tier() -> None:
    limiter = RateLimiter(minute=60, share=0.5)
    assert sum(limiter.try_acquire("chat.update", "T1", "C1") for _ in range(60)) == 22
