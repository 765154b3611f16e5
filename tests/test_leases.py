"""One process at a time, and the next when it is gone."""

from __future__ import annotations

import asyncio

from redis.asyncio import Redis

from storage.shared import RedisLeases
from tests.store_fixture import StoreFixture


async def test_a_lease_has_one_holder_who_may_renew_it(redis: Redis) -> None:
    leases = RedisLeases(StoreFixture.over(redis).store)
    assert await leases.acquire("shard 0", "a", 10)
    assert await leases.acquire("shard 0", "a", 10)
    assert not await leases.acquire("shard 0", "b", 10)
    assert await leases.acquire("shard 1", "b", 10)


async def test_a_lease_that_is_given_up_is_the_next_ones_at_once(redis: Redis) -> None:
    leases = RedisLeases(StoreFixture.over(redis).store)
    await leases.acquire("shard 0", "a", 10)
    await leases.give_up("shard 0", "b")
    assert not await leases.acquire("shard 0", "b", 10)
    await leases.give_up("shard 0", "a")
    assert await leases.acquire("shard 0", "b", 10)


async def test_a_lease_whose_holder_died_ends_by_itself(redis: Redis) -> None:
    leases = RedisLeases(StoreFixture.over(redis).store)
    await leases.acquire("shard 0", "a", 0.05)
    async with asyncio.timeout(5):
        while not await leases.acquire("shard 0", "b", 10):
            pass
