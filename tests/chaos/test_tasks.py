"""Chaos among tasks: each call to Redis and to the platform is a place to die, stop or fail at.

``make chaos`` runs 10,000 schedules. A failing one is named with its seed: ``pytest
tests/chaos/test_tasks.py --seed N`` plays it again (the same acts and faults; how they fall
together is up to the machine, so a rare failure may want ``--schedules`` too).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest
from redis.asyncio import Redis

from bots import delivery
from storage.store import Store
from tests.chaos.invariants import gather, violations
from tests.chaos.process import owned
from tests.chaos.schedule import LEASE, Schedule
from tests.store_fixture import TestConnection

AT_ONCE = 24
AT_ONCE_IN_SUITE = 8
"""Other tests run beside them: a processor that is too busy keeps no leases."""
SHORT = 32
"""Schedules in the suite."""


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "RETRY_SECONDS", (0.01, 0.05, 0.1, 0.2, 0.4))


@pytest.fixture
def seeds(request: pytest.FixtureRequest) -> Sequence[int]:
    first = request.config.getoption("--seed")
    number = request.config.getoption("--schedules")
    if first is not None:
        return range(first, first + (number or 1))
    return range(number or SHORT)


@pytest.fixture
async def store(redis: Redis, redis_url: str) -> AsyncIterator[Store]:
    """For many processes at once: each blocks on its own connections."""
    assert await redis.ping()
    async with Redis.from_url(
        redis_url, decode_responses=True, socket_timeout=None, max_connections=10_000
    ) as client:
        yield Store(
            TestConnection(client), lease=LEASE, delivery_lease=LEASE, backoff=0.02, max_attempts=4
        )


@pytest.mark.usefixtures("quick_retries")
async def test_no_reply_is_lost_or_doubled_when_tasks_die(
    redis: Redis, store: Store, seeds: Sequence[int]
) -> None:
    asyncio.get_running_loop().set_task_factory(owned)
    for some in _batches(seeds):
        broken = {seed: said for seed, said in await _run_all(store, some) if said}
        assert not broken, "\n".join(f"{seed}: {line}" for seed in broken for line in broken[seed])
        assert await _left_over(redis) == []
        await redis.flushall()


def _batches(seeds: Sequence[int]) -> Iterator[Sequence[int]]:
    for at in range(0, len(seeds), 256):
        yield seeds[at : at + 256]


async def _run_all(store: Store, seeds: Sequence[int]) -> list[tuple[int, list[str]]]:
    room = asyncio.Semaphore(AT_ONCE if len(seeds) > SHORT else AT_ONCE_IN_SUITE)

    async def one(seed: int) -> tuple[int, list[str]]:
        async with room:
            while await _lag() > LEASE / 8:
                pass  # a machine that is busy otherwise keeps no leases
            return seed, await _run(seed, store)

    return await asyncio.gather(*map(one, seeds))


async def _lag() -> float:
    """The delay of the loop's wake-ups, in seconds."""
    began = time.monotonic()
    await asyncio.sleep(0.05)
    return time.monotonic() - began - 0.05


async def _run(seed: int, store: Store) -> list[str]:
    schedule = Schedule(seed, store)
    try:
        await schedule.run()
    except TimeoutError:
        return ["it does not come to rest", *violations(await gather(schedule))]
    return violations(await gather(schedule))


async def _left_over(redis: Redis) -> list[str]:
    """Counters, leases and keys without a lifetime that outlive their reasons."""
    names = ("open", "leases", "delayed", "deadlines")
    left = [name for name in names if await redis.exists(f"henji:{{0}}:{name}")]
    async for name in redis.scan_iter(count=1000):
        if await redis.ttl(name) == -1:
            left.append(f"{name} for ever")
        if ":waiting:" in name and await redis.get(name) != "0":
            left.append(name)
    return left
