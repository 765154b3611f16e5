"""A person who is forgotten is nowhere any more."""

from __future__ import annotations

from dataclasses import replace

import pytest
from redis.asyncio import Redis

from core.queue_types import Place, Regeneration
from core.types import Delta
from tests.queue_steps import before
from tests.store_fixture import LANE, THREAD, StoreFixture


@pytest.fixture
async def house(redis: Redis) -> StoreFixture:
    house = StoreFixture.over(redis, lease=0.1, backoff=0.02, max_attempts=2)
    await house.queue.announce(LANE, "core", 60)
    return house


async def test_a_person_who_is_forgotten_leaves_no_word_behind(house: StoreFixture) -> None:
    await house.say("my secret", author="U1")
    await house.reply(await house.claim(), "what a secret")
    await house.say("hello", author="U2")
    await house.reply(await house.claim(), "hi")
    await house.say("another secret", author="U1")
    place = Place("slack", "T1")
    told = [stored.turn.text async for _, stored in house.history.export(place, "U1")]
    assert told == ["my secret", "what a secret", "another secret"]
    assert await house.history.forget(place, "U1") == 3
    assert await house.texts() == ["hello", "hi"]
    assert [_ async for _ in house.history.export(place, "U1")] == []
    await house.queue.seed(THREAD, [before("old", "a secret of old", "U1")])
    assert await house.texts() == ["hello", "hi"]
    assert await house.nothing_to_do()


KINDS = {"zset": "zrange", "list": "lrange", "stream": "xrange"}


async def everything(house: StoreFixture) -> dict[str, str]:
    """All that Redis holds, by key."""
    held = {}
    for name in await house.redis.keys():
        kind = await house.redis.type(name)
        bounds = ("-", "+") if kind == "stream" else (0, -1)
        match kind:
            case "hash":
                held[name] = str(await house.redis.hgetall(name))
            case "string":
                held[name] = str(await house.redis.get(name))
            case _:
                held[name] = str(await getattr(house.redis, KINDS[kind])(name, *bounds))
    return held


async def test_nothing_a_forgotten_person_said_or_was_told_is_anywhere(house: StoreFixture) -> None:
    async def close(job: str | None) -> None:
        await house.deliveries.close(await house.delivery(job), ["b1"])

    answered = await house.say("secret 1", author="U1", id="m1")
    await house.reply(await house.claim(), "secret reply")
    await close(answered.job)
    again = await house.queue.regenerate(
        Regeneration(THREAD, answered.job or "", "1", "U2", lane=LANE), "adapter"
    )
    await house.reply(await house.claim(), "secret told to another")
    await close(again.job)
    given_up = await house.say("secret 2", author="U1", thread=replace(THREAD, thread="2"))
    for _ in range(2):
        await house.queue.fail(await house.claim(), "internal", "boom", retry=True)
        await house.redis.zadd("henji:{0}:delayed", {str(replace(THREAD, thread="2")): 1}, xx=True)
        await house.queue.sweep()
    assert len(await house.queue.dead()) == 1
    running = await house.say("secret 3", author="U1", id="m3")
    await house.queue.publish(await house.claim(), Delta(0, "secret half"))
    await house.queue.edit(THREAD, "m3", "secret edit", "1", LANE, "adapter")
    await house.say("secret chatter", author="U1", addressed=False)
    deliveries = [await house.delivery(receipt.job) for receipt in (given_up, running)]

    await house.history.forget(Place("slack", "T1"), "U1")
    for delivery in deliveries:  # they were under way: the person was told the end
        assert await house.deliveries.close(delivery, ["b2"])
    await house.redis.delete("henji:{0}:news:slack")  # it lives for seconds
    held = await everything(house)
    assert [name for name, value in held.items() if "secret" in value] == []
    named = {name.split(":")[2] for name, value in held.items() if "U1" in value}
    assert named <= {"marks", "audit", "used", "ready", "clock"}


async def test_a_delivery_is_forgotten_for_as_long_as_it_is_kept(house: StoreFixture) -> None:
    receipt = await house.say("hello")
    await house.reply(await house.claim(), "hi")
    life = await house.redis.ttl(f"henji:{{0}}:delivery:{receipt.job}")
    assert await house.redis.ttl("henji:{0}:asked:slack:T1:U1") >= life
