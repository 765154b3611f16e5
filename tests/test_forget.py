"""A person who is forgotten is nowhere any more."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from core.queue_types import Place, Regeneration
from core.types import Delta
from storage import queue
from storage.store import Store
from tests.queue_steps import before, regenerate
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
            case "set":
                held[name] = str(await house.redis.smembers(name))
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


async def test_a_reset_of_a_channel_takes_every_word_away_and_says_how_many(
    house: StoreFixture,
) -> None:
    for number in range(150):  # more than one step's worth
        thread = replace(THREAD, thread=str(number))
        answered = await house.say("secret", thread=thread, author=f"U{number % 3}")
        await house.reply(await house.claim(), "secret reply")
        await house.deliveries.close(await house.delivery(answered.job, thread), [f"b{number}"])
    other = replace(THREAD, channel="C9")
    await house.say("kept", thread=other)
    assert await house.history.reset_place(Place("slack", "T1", "C1"), "U9") == 300
    assert await words_left(house, "secret") == []
    assert await house.texts(other) == ["kept"]
    assert await house.redis.exists("henji:{0}:purges") == 0


@pytest.mark.parametrize("place", [None, Place("slack", "T1", "C1"), Place("slack", "T1")])
async def test_no_word_of_a_reset_thread_is_left_once_its_replies_are_delivered(
    house: StoreFixture, place: Place | None
) -> None:
    closed = await house.say("secret 1", id="m1")
    await house.reply(await house.claim(), "secret reply")
    await house.deliveries.close(await house.delivery(closed.job), ["b1"])
    again = await regenerate(house, closed.job or "", "1")
    await house.reply(await house.claim(), "secret reply again")
    await house.deliveries.close(await house.delivery(again.job), ["b1"])
    running = await house.say("secret 2", id="m2")
    await house.queue.publish(await house.claim(), Delta(0, "secret half"))
    await house.queue.edit(THREAD, "m7", "secret edit", "1", LANE, "adapter")
    waiting = await house.delivery(running.job)
    if place:
        await house.history.reset_place(place, "U9")
    else:
        await house.history.reset(THREAD, "U9")
    assert await house.deliveries.close(waiting, ["b2"])
    assert await words_left(house, "secret") == []


async def test_a_deleted_message_leaves_no_word_of_its_reply(house: StoreFixture) -> None:
    receipt = await house.say("secret", id="m1")
    await house.reply(await house.claim(), "secret reply")
    await house.deliveries.close(await house.delivery(receipt.job), ["b1"])
    await house.queue.delete(THREAD, "m1")
    assert await words_left(house, "secret") == []


async def test_the_sweep_goes_on_with_a_reset_whose_process_died(
    house: StoreFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(150):
        await house.say("secret", thread=replace(THREAD, thread=str(number)), addressed=False)
        await house.say("secret", thread=replace(THREAD, thread=str(number)), bulk=True)
        await house.reply(await house.claim(), "secret reply")
    scope = {"kind": "channel", "scope": "slack:T1:C1", "place": "slack:T1:C1", "by": "U9"}
    await house.store.run("reset", 0, **scope)  # and then it died
    await house.queue.sweep()
    assert await words_left(house, "secret") != []  # it may yet live
    monkeypatch.setattr(queue, "PURGE_SECONDS", -1)
    await house.queue.sweep()
    held = await everything(house)
    assert [n for n, v in held.items() if "secret" in v and ":events:" not in n] == []


async def test_the_append_only_file_is_written_anew_after_words_went(
    house: StoreFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewritten: list[int] = []

    async def rewrite_file(_: Store, bucket: int) -> None:
        rewritten.append(bucket)

    monkeypatch.setattr(Store, "rewrite_file", rewrite_file)
    await house.say("secret")
    await house.history.reset(THREAD, "U9")
    await house.queue.sweep()
    assert rewritten == []
    monkeypatch.setattr(queue, "REWRITE_SECONDS", -1)
    await house.queue.sweep()
    await house.queue.sweep()
    assert rewritten == [0]


async def words_left(house: StoreFixture, word: str) -> list[str]:
    """The keys that hold a word, but for those that end within a minute."""
    await house.redis.delete("henji:{0}:news:slack")  # adapters renew its lifetime of a minute
    held = await everything(house)
    return [
        name for name, value in held.items() if word in value and await house.redis.ttl(name) > 60
    ]


async def test_marks_stay_few_and_hide_no_less(house: StoreFixture) -> None:
    threads = [replace(THREAD, thread=str(number)) for number in range(3000)]
    for at in range(0, 3000, 100):
        await asyncio.gather(*(house.history.reset(t, "U9") for t in threads[at : at + 100]))
    assert await house.redis.hlen("henji:{0}:marks") <= 2048
    for thread in (threads[0], threads[-1]):
        await house.say("hello", thread=thread, hold=5.0)
        await house.queue.seed(thread, [before("old", "said before the reset", "U1")])
        assert await house.texts(thread) == ["hello"]


async def test_marks_of_persons_and_channels_fold_into_their_space(house: StoreFixture) -> None:
    for number in range(2100):
        await house.history.reset_place(Place("slack", "T1", f"C{number}"), "U9")
    assert await house.redis.hlen("henji:{0}:marks") <= 2048
    channel = replace(THREAD, channel="C0")
    await house.say("hello", thread=channel, hold=5.0)
    await house.queue.seed(channel, [before("old", "said before the reset", "U1")])
    assert await house.texts(channel) == ["hello"]
