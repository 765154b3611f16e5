"""Unreadable records: each stops only its own job or thread."""

from __future__ import annotations

from dataclasses import replace

import pytest
from redis.asyncio import Redis

from core.queue_types import Place
from core.types import Delta, Failed
from storage import keys
from storage.codec import Undecodable
from tests.store_fixture import (
    LANE,
    THREAD,
    StoreFixture,
    answered,
    edit,
    job_of,
    lose_lease,
    nothing_is_left_open,
    past_deadline,
)

SPACE = Place("slack", "T1")


@pytest.fixture
async def stores(redis: Redis) -> StoreFixture:
    return await StoreFixture.serving(redis, lease=0.1, backoff=60.0, max_attempts=2)


@pytest.mark.parametrize(("field", "value"), [("thread", "nowhere"), ("v", "2")])
async def test_a_delivery_that_cannot_be_read_stops_no_other(
    stores: StoreFixture, field: str, value: str
) -> None:
    poisoned = await stores.say("poison", thread=replace(THREAD, thread="2.0"))
    await stores.redis.hset(keys.key("delivery", 0, job_of(poisoned)), field, value)
    healthy = await stores.say("hello")
    for receipt in (poisoned, healthy):
        await stores.redis.zadd(keys.key("deliveries", 0, "slack"), {job_of(receipt): 1})
    assert [d.job for d in await stores.deliveries.take_over("slack", "other")] == [healthy.job]


@pytest.mark.parametrize(
    "field", ["v", "thread", "turn", "lane", "author", "seed", "deadline", "arrival", "attempts"]
)
async def test_a_job_that_lacks_anything_stops_nobody(stores: StoreFixture, field: str) -> None:
    poisoned = await stores.say("poison", thread=replace(THREAD, thread="2.0"))
    await stores.redis.hdel(keys.key("job", 0, job_of(poisoned)), field)
    healthy = await stores.say("hello", author="U2")
    held = await stores.queue.claim(LANE, "core", 3)
    assert healthy.job in [claim.job.id for claim in held]
    for claim in held:
        await stores.queue.release(claim)
    await stores.queue.sweep()
    assert (await stores.say("more")).outcome == "queued"
    await stores.redis.flushall()  # the keys of a lane without a name


async def test_a_turn_that_cannot_be_read_is_left_out_of_its_thread(stores: StoreFixture) -> None:
    await answered(stores, "one", "1", "m1")
    await stores.redis.hset(keys.key("turns", 0, str(THREAD)), "m1", "{not json")
    await stores.say("two", id="m2")
    claim = await stores.claim()
    fresh = StoreFixture(stores.redis, stores.store)
    window = await fresh.history.window(claim)
    assert [s.turn.text for s in [*window.history, *window.mailbox]] == ["1", "two"]
    assert (await edit(stores, "m1", "uno")).outcome == "ignored"
    assert await stores.reply(claim, "2") == "ok"
    assert await stores.history.forget(SPACE, "U1") > 0
    assert not await stores.redis.hexists(keys.key("turns", 0, str(THREAD)), "m1")


@pytest.mark.parametrize("record", ["{not json", "{} more", "[" * 100_000, "7", "null"])
async def test_an_unreadable_prompt_does_not_count_as_a_missing_one(
    stores: StoreFixture, record: str
) -> None:
    await stores.say("one", id="m1")
    await stores.redis.hset(keys.key("turns", 0, str(THREAD)), "m1", record)
    with pytest.raises(Undecodable):  # so that it is a dead letter, and can be asked again
        await stores.history.window(await stores.claim())


async def test_a_job_without_a_thread_keeps_no_other_from_its_end(stores: StoreFixture) -> None:
    poisoned = await stores.say("poison", thread=replace(THREAD, thread="2.0"))
    await stores.redis.hdel(keys.key("job", 0, job_of(poisoned)), "thread")
    await stores.redis.zadd("henji:{0}:deadlines", {job_of(poisoned): 1})
    late = await stores.say("late", thread=replace(THREAD, thread="3.0"))
    await past_deadline(stores, late)
    for receipt in (poisoned, late):
        assert (await stores.events(receipt.job))[-1] == Failed("deadline")
    assert await nothing_is_left_open(stores)


async def test_a_job_whose_record_has_expired_counts_against_nobody(stores: StoreFixture) -> None:
    receipt = await stores.say("hello")
    await stores.redis.delete(keys.key("job", 0, job_of(receipt)))
    await past_deadline(stores, receipt)
    assert not await stores.redis.exists(keys.key("open", 0))


async def test_an_event_that_cannot_be_read_keeps_no_core_from_taking_over(
    stores: StoreFixture,
) -> None:
    receipt = await stores.say("hello")
    claim = await stores.claim()
    await stores.queue.publish(claim, Delta(0, "half"))
    await stores.redis.xadd(keys.key("events", 0, job_of(receipt)), {"e": "{not json"})
    await stores.queue.cancel(THREAD, job_of(receipt))
    await lose_lease(stores)
    assert await stores.texts() == ["hello", "half"]


async def test_a_dead_letter_of_nowhere_is_refused(stores: StoreFixture) -> None:
    await stores.redis.xadd(
        keys.key("dead", 0),
        {"job": "j", "thread": "nowhere", "turn": "m1", "author": "U1", "attempts": "1",
         "code": "internal", "message": "boom"},
    )  # fmt: skip
    (letter,) = await stores.queue.dead()
    assert (await stores.queue.requeue(letter, LANE)).code == "prompt_gone"
