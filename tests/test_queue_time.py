"""What time alone brings about: deadlines, holds, days without Redis, and threads that expire."""

from __future__ import annotations

from dataclasses import replace

import pytest
from redis.asyncio import Redis

from core.queue_types import Claim, Place
from core.types import Cancelled, Failed
from storage import keys
from storage.store import Limits
from tests.queue_steps import (
    answered,
    before,
    job_of,
    lose_lease,
    nothing_is_left_open,
    past_deadline,
)
from tests.store_fixture import LANE, THREAD, StoreFixture

CHANNEL = Place("slack", "T1", "C1")


@pytest.fixture
async def house(redis: Redis) -> StoreFixture:
    house = StoreFixture.over(redis, lease=0.1, backoff=60.0, max_attempts=2)
    await house.queue.announce(LANE, "core", 60)
    return house


# -- time ---------------------------------------------------------------------------------------


async def test_a_deadline_that_meets_a_claim_lets_the_core_finish(house: StoreFixture) -> None:
    receipt = await house.say("hello")
    claim = await house.claim()
    await past_deadline(house, receipt)
    assert await house.reply(claim, "hi") == "ok"
    assert await nothing_is_left_open(house)


async def test_a_deadline_passes_over_who_stands_first_to_who_comes_next(
    house: StoreFixture,
) -> None:
    first = await house.say("one", author="U1")
    second = await house.say("two", author="U2")
    await past_deadline(house, first)
    assert (await house.events(first.job))[-1] == Failed("deadline")
    assert (await house.claim()).job.id == second.job


async def test_a_deadline_behind_a_running_reply_leaves_that_to_its_core(
    house: StoreFixture,
) -> None:
    await house.say("one", author="U1")
    claim = await house.claim()
    second = await house.say("two", author="U2")
    await past_deadline(house, second)
    assert (await house.events(second.job))[-1] == Failed("deadline")
    assert await house.reply(claim, "1") == "ok"
    assert await nothing_is_left_open(house)


async def test_a_hold_that_ends_is_not_waited_for_and_its_past_comes_in_front(
    house: StoreFixture,
) -> None:
    await house.say("and you?", hold=60.0, id="m5")
    await house.redis.zadd("henji:{0}:delayed", {str(THREAD): 1})
    await house.queue.sweep()
    claim = await house.claim()
    await house.queue.seed(THREAD, [before("m1", "before")])
    assert await house.reply(claim, "fine") == "ok"
    assert await house.texts() == ["before", "and you?", "fine"]


async def test_of_a_long_past_the_newest_is_seeded(redis: Redis) -> None:
    house = StoreFixture.over(redis, limits=Limits(mailbox=5))
    await house.queue.announce(LANE, "core", 60)
    await house.say("and you?", hold=60.0, id="m99")
    past = [before(f"m{n}", f"said {n}") for n in range(20)]
    await house.queue.seed(THREAD, past)
    assert await house.texts() == [*(f"said {n}" for n in range(15, 20)), "and you?"]


async def test_a_seed_that_comes_after_a_reset_brings_nothing_back(house: StoreFixture) -> None:
    held = await house.say("and you?", hold=60.0, id="m5")
    await house.history.reset_place(CHANNEL, "U1")
    await house.queue.seed(THREAD, [before("m1", "a secret")])
    assert await house.texts() == []
    assert (await house.events(held.job))[-1] == Cancelled("reset")
    assert await nothing_is_left_open(house)


# -- Redis away for days ------------------------------------------------------------------------


async def test_after_a_week_end_without_redis_what_was_answered_ends_with_a_sentence(
    redis: Redis,
) -> None:
    house = StoreFixture.over(redis, deadline=0.001)
    await house.queue.announce(LANE, "core", 60)
    receipt = await house.say("Friday's question")
    await house.redis.hset(keys.key("job", 0, job_of(receipt)), "deadline", "9999999999999")
    await house.claim()
    await house.redis.delete(keys.key("leases", 0), keys.key("events", 0, job_of(receipt)))
    await past_deadline(house, receipt)
    assert await house.events(receipt.job) == [Failed("deadline")]
    assert await house.redis.ttl(keys.key("events", 0, job_of(receipt))) > 0
    assert await nothing_is_left_open(house)


@pytest.mark.parametrize("state", ["ready", "leased", "delayed"])
async def test_a_thread_outlives_all_that_was_owed_in_it(house: StoreFixture, state: str) -> None:
    await house.say("before", hold=60.0 if state == "delayed" else 0.0)
    if state == "leased":
        await house.claim()
    for name in await house.redis.keys():
        if not name.startswith((f"henji:{{0}}:thread:{THREAD}", "henji:{0}:lane")):
            await house.redis.delete(name)
    await house.redis.delete(keys.key("jobs", 0, str(THREAD)))
    after = await house.say("after", id="after")
    assert (await house.claim()).job.id == after.job


# -- threads that expire ------------------------------------------------------------------------


async def expire(house: StoreFixture, *names: str) -> None:
    """As when the retention is over."""
    for name in names or ("thread", "turns", "history", "mailbox", "counts", "changes"):
        await house.redis.delete(keys.key(name, 0, str(THREAD)))


async def test_a_thread_that_expired_is_not_remembered_by_the_core_that_knew_it(
    house: StoreFixture,
) -> None:
    await answered(house, "a secret", "noted", "m1")
    await house.history.window(await _next_claim(house, "m2"))
    await expire(house)
    await house.redis.delete(keys.key("jobs", 0, str(THREAD)))
    await house.redis.delete("henji:{0}:leases", "henji:{0}:deadlines", "henji:{0}:open")
    window = await house.history.window(await _next_claim(house, "m3"))
    assert list(window.history) == []
    assert [stored.turn.id for stored in window.mailbox] == ["m3"]


async def _next_claim(house: StoreFixture, id_: str) -> Claim:
    await house.say("next", id=id_)
    return await house.claim()


@pytest.mark.parametrize("held", [0.0, 60.0])
async def test_a_thread_that_expired_while_a_job_waits_leaves_no_key_behind(
    house: StoreFixture, held: float
) -> None:
    receipt = await house.say("hello", hold=held)
    await expire(house)
    assert await house.nothing_to_do()
    await house.redis.zadd("henji:{0}:delayed", {str(THREAD): 1}, xx=True)
    await past_deadline(house, receipt)
    assert (await house.events(receipt.job))[-1] == Failed("deadline")
    assert not await house.redis.exists(keys.key("thread", 0, str(THREAD)))
    assert await nothing_is_left_open(house)


async def test_a_thread_that_expired_while_it_was_answered_leaves_no_key_behind(
    house: StoreFixture,
) -> None:
    await house.say("hello")
    claim = await house.claim()
    await expire(house)
    assert await house.reply(claim, "hi") == "fenced"
    await lose_lease(house)
    assert not await house.redis.exists(keys.key("thread", 0, str(THREAD)))
    assert not await house.redis.exists(keys.key("leases", 0))


async def test_chatter_keeps_all_of_a_thread_alive(house: StoreFixture) -> None:
    await answered(house, "hello", "hi", "m1")
    parts = ("thread", "turns", "history", "counts")
    for name in parts:
        await house.redis.pexpire(keys.key(name, 0, str(THREAD)), 60_000)
    await house.say("by the way", addressed=False)
    left = [await house.redis.pttl(keys.key(name, 0, str(THREAD))) for name in parts]
    assert min(left) > 60_000


async def test_what_is_changed_outside_a_reply_has_a_lifetime_too(house: StoreFixture) -> None:
    await answered(house, "one", "1", "m1")
    await house.history.reset(THREAD, "U1")
    await house.queue.delete(THREAD, "m1")
    other = replace(THREAD, thread="2.0")
    await house.say("too long", thread=other)
    await house.queue.fail(await house.claim(), "too_long", "", retry=False, forget=True)
    await house.queue.sweep()
    await house.deliveries.take("slack", "adapter")
    forever = [name for name in await house.redis.keys() if await house.redis.ttl(name) < 0]
    assert forever == []
