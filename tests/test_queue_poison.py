"""Records that cannot be read: each stops nobody but what it belongs to."""

from __future__ import annotations

from dataclasses import replace

import pytest
from redis.asyncio import Redis

from core.queue_types import Place
from core.types import Delta, Failed
from storage import keys
from storage.codec import Undecodable
from tests.queue_steps import (
    answered,
    edit,
    job_of,
    lose_lease,
    nothing_is_left_open,
    past_deadline,
)
from tests.store_fixture import LANE, THREAD, StoreFixture

SPACE = Place("slack", "T1")


@pytest.fixture
async def house(redis: Redis) -> StoreFixture:
    house = StoreFixture.over(redis, lease=0.1, backoff=60.0, max_attempts=2)
    await house.queue.announce(LANE, "core", 60)
    return house


async def test_a_delivery_that_cannot_be_read_stops_no_other(house: StoreFixture) -> None:
    poisoned = await house.say("poison", thread=replace(THREAD, thread="2.0"))
    await house.redis.hset(keys.key("delivery", 0, job_of(poisoned)), "thread", "nowhere")
    healthy = await house.say("hello")
    for receipt in (poisoned, healthy):
        await house.redis.zadd(keys.key("deliveries", 0, "slack"), {job_of(receipt): 1})
    assert [d.job for d in await house.deliveries.take("slack", "other")] == [healthy.job]


@pytest.mark.parametrize(
    "field", ["v", "thread", "turn", "lane", "author", "seed", "deadline", "arrival", "attempts"]
)
async def test_a_job_that_lacks_anything_stops_nobody(house: StoreFixture, field: str) -> None:
    poisoned = await house.say("poison", thread=replace(THREAD, thread="2.0"))
    await house.redis.hdel(keys.key("job", 0, job_of(poisoned)), field)
    healthy = await house.say("hello", author="U2")
    held = await house.queue.claim(LANE, "core", 3)
    assert healthy.job in [claim.job.id for claim in held]
    for claim in held:
        await house.queue.release(claim)
    await house.queue.sweep()
    assert (await house.say("more")).outcome == "queued"


async def test_a_turn_that_cannot_be_read_is_left_out_of_its_thread(house: StoreFixture) -> None:
    await answered(house, "one", "1", "m1")
    await house.redis.hset(keys.key("turns", 0, str(THREAD)), "m1", "{not json")
    await house.say("two", id="m2")
    claim = await house.claim()
    fresh = StoreFixture(house.redis, house.store)
    window = await fresh.history.window(claim)
    assert [s.turn.text for s in [*window.history, *window.mailbox]] == ["1", "two"]
    assert (await edit(house, "m1", "uno")).outcome == "ignored"
    assert await house.reply(claim, "2") == "ok"
    assert await house.history.forget(SPACE, "U1") > 0
    assert not await house.redis.hexists(keys.key("turns", 0, str(THREAD)), "m1")


async def test_a_prompt_that_cannot_be_read_is_no_prompt_that_is_gone(house: StoreFixture) -> None:
    await house.say("one", id="m1")
    await house.redis.hset(keys.key("turns", 0, str(THREAD)), "m1", "{not json")
    with pytest.raises(Undecodable):  # so that it is a dead letter, and can be asked again
        await house.history.window(await house.claim())


async def test_a_job_without_a_thread_keeps_no_other_from_its_end(house: StoreFixture) -> None:
    poisoned = await house.say("poison", thread=replace(THREAD, thread="2.0"))
    await house.redis.hdel(keys.key("job", 0, job_of(poisoned)), "thread")
    await house.redis.zadd("henji:{0}:deadlines", {job_of(poisoned): 1})
    late = await house.say("late", thread=replace(THREAD, thread="3.0"))
    await past_deadline(house, late)
    for receipt in (poisoned, late):
        assert (await house.events(receipt.job))[-1] == Failed("deadline")
    assert await nothing_is_left_open(house)


async def test_an_event_that_cannot_be_read_keeps_no_core_from_taking_over(
    house: StoreFixture,
) -> None:
    receipt = await house.say("hello")
    claim = await house.claim()
    await house.queue.publish(claim, Delta(0, "half"))
    await house.redis.xadd(keys.key("events", 0, job_of(receipt)), {"e": "{not json"})
    await house.queue.cancel(THREAD, job_of(receipt))
    await lose_lease(house)
    assert await house.texts() == ["hello", "half"]


async def test_a_dead_letter_of_nowhere_is_refused(house: StoreFixture) -> None:
    await house.redis.xadd(
        keys.key("dead", 0),
        {"job": "j", "thread": "nowhere", "turn": "m1", "author": "U1", "attempts": "1",
         "code": "internal", "message": "boom"},
    )  # fmt: skip
    (letter,) = await house.queue.dead()
    assert (await house.queue.requeue(letter, LANE)).code == "prompt_gone"
