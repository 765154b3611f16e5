"""Forgetting a person removes all of their data."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from bots.one_off_jobs import thread_of
from core.queue_types import Place, Regeneration
from core.types import Cancelled, Delta, Queued, Turn
from storage import keys, queue
from storage.store import Store
from tests.store_fixture import LANE, THREAD, StoreFixture, before, regenerate


@pytest.fixture
async def stores(redis: Redis) -> StoreFixture:
    return await StoreFixture.serving(redis, lease=0.1, backoff=0.02, max_attempts=2)


async def test_no_word_of_a_forgotten_person_is_left(stores: StoreFixture) -> None:
    await stores.say("my secret", author="U1")
    await stores.reply(await stores.claim(), "what a secret")
    await stores.say("hello", author="U2")
    await stores.reply(await stores.claim(), "hi")
    await stores.say("another secret", author="U1")
    place = Place("slack", "T1")
    told = [stored.turn.text async for _, stored in stores.history.export(place, "U1")]
    assert told == ["my secret", "what a secret", "another secret"]
    assert await stores.history.forget(place, "U1") == 3
    assert await stores.texts() == ["hello", "hi"]
    assert [_ async for _ in stores.history.export(place, "U1")] == []
    await stores.queue.seed(THREAD, [before("old", "a secret of old", "U1")])
    assert await stores.texts() == ["hello", "hi"]
    assert await stores.nothing_to_do()


async def test_a_person_is_found_in_a_thread_that_others_keep_alive(redis: Redis) -> None:
    """Long after the person's own last message, while the thread goes on."""
    stores = await StoreFixture.serving(redis, retention=0.4)
    await stores.say("my secret", author="U1")
    await stores.reply(await stores.claim(), "what a secret")
    for _ in range(4):
        await asyncio.sleep(0.2)  # the lifetimes are Redis's
        await stores.say("go on", author="U2")
        await stores.reply(await stores.claim(), "so?")
    assert await stores.history.forget(Place("slack", "T1"), "U1") == 2
    assert "secret" not in str(await stores.texts())


KINDS = {"zset": "zrange", "list": "lrange", "stream": "xrange"}


async def everything(stores: StoreFixture) -> dict[str, str]:
    """All that Redis holds, by key."""
    held = {}
    for name in await stores.redis.keys():
        kind = await stores.redis.type(name)
        bounds = ("-", "+") if kind == "stream" else (0, -1)
        match kind:
            case "hash":
                held[name] = str(await stores.redis.hgetall(name))
            case "string":
                held[name] = str(await stores.redis.get(name))
            case "set":
                held[name] = str(await stores.redis.smembers(name))
            case _:
                held[name] = str(await getattr(stores.redis, KINDS[kind])(name, *bounds))
    return held


async def test_a_reset_of_a_thread_takes_its_dead_letters(stores: StoreFixture) -> None:
    other = replace(THREAD, thread="2")
    for thread in (THREAD, other):
        await stores.say("hello", thread=thread)
        for _ in range(2):
            await stores.queue.fail(await stores.claim(), "internal", "the engine's", retry=True)
            await stores.redis.zadd("henji:{0}:delayed", {str(thread): 1}, xx=True)
            await stores.queue.sweep()
    assert len(await stores.queue.dead()) == 2
    await stores.history.reset(THREAD, "U1")
    assert [letter.thread for letter in await stores.queue.dead()] == [str(other)]


async def test_nothing_a_forgotten_person_said_or_was_told_is_anywhere(
    stores: StoreFixture,
) -> None:
    async def close(job: str | None) -> None:
        await stores.deliveries.close(await stores.delivery(job), ["b1"])

    answered = await stores.say("secret 1", author="U1", id="m1")
    await stores.reply(await stores.claim(), "secret reply")
    await close(answered.job)
    again = await stores.queue.regenerate(
        Regeneration(THREAD, answered.job or "", "1", "U2", lane=LANE), "adapter"
    )
    await stores.reply(await stores.claim(), "secret told to another")
    await close(again.job)
    given_up = await stores.say("secret 2", author="U1", thread=replace(THREAD, thread="2"))
    for _ in range(2):
        await stores.queue.fail(await stores.claim(), "internal", "boom", retry=True)
        await stores.redis.zadd("henji:{0}:delayed", {str(replace(THREAD, thread="2")): 1}, xx=True)
        await stores.queue.sweep()
    assert len(await stores.queue.dead()) == 1
    running = await stores.say("secret 3", author="U1", id="m3")
    await stores.queue.publish(await stores.claim(), Delta(0, "secret half"))
    await stores.queue.edit(THREAD, "m3", "secret edit", "1", LANE, "adapter")
    await stores.say("secret chatter", author="U1", addressed=False)
    deliveries = [await stores.delivery(receipt.job) for receipt in (given_up, running)]

    await stores.history.forget(Place("slack", "T1"), "U1")
    for delivery in deliveries:  # they were under way: the person was told the end
        assert await stores.deliveries.close(delivery, ["b2"])
    assert await stores.redis.zcard(keys.key("deliveries", 0, "slack")) == 0
    await stores.redis.delete("henji:{0}:news:slack")  # it lives for seconds
    held = await everything(stores)
    assert [name for name, value in held.items() if "secret" in value] == []
    named = {name.split(":")[2] for name, value in held.items() if "U1" in value}
    assert named <= {"marks", "audit", "spent", "ready", "clock"}


async def test_a_person_is_forgotten_in_more_threads_than_one_step_reads(
    stores: StoreFixture,
) -> None:
    threads = [replace(THREAD, thread=f"{number}") for number in range(45)]
    for thread in threads:
        await stores.say("secret", author="U1", thread=thread)
    assert await stores.history.forget(Place("slack", "T1"), "U1") == 45
    assert [await stores.texts(thread) for thread in threads] == [[]] * 45


async def test_an_old_reply_in_a_thread_that_goes_on_is_forgotten_with_its_delivery(
    stores: StoreFixture,
) -> None:
    """The list of a person's jobs is not renewed with the thread."""
    receipt = await stores.say("secret", author="U1")
    await stores.reply(await stores.claim(), "secret, too")
    await stores.deliveries.close(await stores.delivery(receipt.job), ["b1"])
    await stores.redis.delete(keys.key("asked", 0, "slack:T1:U1"))
    await stores.history.forget(Place("slack", "T1"), "U1")
    for name in ("job", "events", "delivery"):
        assert not await stores.redis.exists(keys.key(name, 0, receipt.job or ""))


async def test_a_delivery_is_forgotten_for_as_long_as_it_is_kept(stores: StoreFixture) -> None:
    receipt = await stores.say("hello")
    await stores.reply(await stores.claim(), "hi")
    life = await stores.redis.ttl(f"henji:{{0}}:delivery:{receipt.job}")
    assert await stores.redis.ttl("henji:{0}:asked:slack:T1:U1") >= life


async def test_a_reset_of_a_channel_takes_every_word_away_and_says_how_many(
    stores: StoreFixture,
) -> None:
    for number in range(150):  # more than one step's worth
        thread = replace(THREAD, thread=str(number))
        answered = await stores.say("secret", thread=thread, author=f"U{number % 3}")
        await stores.reply(await stores.claim(), "secret reply")
        await stores.deliveries.close(await stores.delivery(answered.job, thread), [f"b{number}"])
    other = replace(THREAD, channel="C9")
    await stores.say("kept", thread=other)
    assert await stores.history.reset_place(Place("slack", "T1", "C1"), "U9") == 300
    assert await words_left(stores, "secret") == []
    assert await stores.texts(other) == ["kept"]
    assert await stores.redis.exists("henji:{0}:purges") == 0


@pytest.mark.parametrize("place", [None, Place("slack", "T1", "C1"), Place("slack", "T1")])
async def test_no_word_of_a_reset_thread_is_left_once_its_replies_are_delivered(
    stores: StoreFixture, place: Place | None
) -> None:
    closed = await stores.say("secret 1", id="m1")
    await stores.reply(await stores.claim(), "secret reply")
    await stores.deliveries.close(await stores.delivery(closed.job), ["b1"])
    again = await regenerate(stores, closed.job or "", "1")
    await stores.reply(await stores.claim(), "secret reply again")
    await stores.deliveries.close(await stores.delivery(again.job), ["b1"])
    running = await stores.say("secret 2", id="m2")
    await stores.queue.publish(await stores.claim(), Delta(0, "secret half"))
    await stores.queue.edit(THREAD, "m7", "secret edit", "1", LANE, "adapter")
    waiting = await stores.delivery(running.job)
    if place:
        await stores.history.reset_place(place, "U9")
    else:
        await stores.history.reset(THREAD, "U9")
    assert await stores.deliveries.close(waiting, ["b2"])
    assert await words_left(stores, "secret") == []


async def test_a_deleted_message_leaves_no_word_of_its_reply(stores: StoreFixture) -> None:
    receipt = await stores.say("secret", id="m1")
    await stores.reply(await stores.claim(), "secret reply")
    await stores.deliveries.close(await stores.delivery(receipt.job), ["b1"])
    await stores.queue.delete(THREAD, "m1")
    assert await words_left(stores, "secret") == []


async def test_the_sweep_goes_on_with_a_reset_whose_process_died(
    stores: StoreFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(150):
        await stores.say("secret", thread=replace(THREAD, thread=str(number)), addressed=False)
        await stores.say("secret", thread=replace(THREAD, thread=str(number)), bulk=True)
        await stores.reply(await stores.claim(), "secret reply")
    scope = {"kind": "channel", "scope": "slack:T1:C1", "place": "slack:T1:C1", "by": "U9"}
    await stores.store.run("reset", 0, **scope)  # and then it died
    await stores.queue.sweep()
    assert await words_left(stores, "secret") != []  # it may yet live
    monkeypatch.setattr(queue, "PURGE_SECONDS", -1)
    await stores.queue.sweep()
    held = await everything(stores)
    assert [n for n, v in held.items() if "secret" in v and ":events:" not in n] == []


async def test_the_append_only_file_is_rewritten_after_a_deletion(
    stores: StoreFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewritten: list[int] = []

    async def rewrite_file(_: Store, bucket: int) -> None:
        rewritten.append(bucket)

    monkeypatch.setattr(Store, "rewrite_file", rewrite_file)
    await stores.say("secret")
    await stores.history.reset(THREAD, "U9")
    await stores.queue.sweep()
    assert rewritten == []
    monkeypatch.setattr(queue, "REWRITE_SECONDS", -1)
    await stores.queue.sweep()
    await stores.queue.sweep()
    assert rewritten == [0]


async def test_the_news_of_a_quiet_platform_leaves_its_last_words_behind(
    stores: StoreFixture,
) -> None:
    news = "henji:{0}:news:slack"
    await stores.redis.xadd(news, {"j": "1", "e": "secret"}, "1-1")
    await stores.deliveries.take_over("slack", "adapter")  # as every adapter does each second
    assert await stores.redis.xlen(news) == 0


async def test_the_edit_of_a_message_that_is_not_for_the_bot_is_not_kept(
    stores: StoreFixture,
) -> None:
    edit = THREAD, "m1", "secret", "1", LANE, "adapter"
    await stores.queue.edit(*edit, expected=False)
    assert await words_left(stores, "secret") == []
    await stores.queue.edit(*edit)
    await stores.say("old", id="m1")
    assert await stores.texts() == ["secret"]


async def words_left(stores: StoreFixture, word: str) -> list[str]:
    """The keys that hold a word, but for those that end within a minute."""
    await stores.redis.delete("henji:{0}:news:slack")  # adapters trim it to the last seconds
    held = await everything(stores)
    return [
        name for name, value in held.items() if word in value and await stores.redis.ttl(name) > 60
    ]


async def test_an_edit_that_overtook_its_message_is_forgotten_with_its_person(
    stores: StoreFixture,
) -> None:
    for id_, author in (("m1", "U1"), ("m2", "U2")):
        edit = THREAD, id_, "it came too early", "1", LANE, "adapter"
        await stores.queue.edit(*edit, author=author)
    await stores.history.forget(Place("slack", "T1"), "U1")
    lives = [await stores.redis.ttl(keys.key("edited", 0, f"{THREAD} m{n}")) for n in (1, 2)]
    assert lives[0] <= 60 < lives[1]
    assert await stores.redis.keys("*early*") == [keys.key("early", 0, "slack:T1:U2")]


async def test_marks_stay_few_and_hide_no_less(stores: StoreFixture) -> None:
    threads = [replace(THREAD, thread=str(number)) for number in range(3000)]
    for at in range(0, 3000, 100):
        await asyncio.gather(*(stores.history.reset(t, "U9") for t in threads[at : at + 100]))
    assert await stores.redis.hlen("henji:{0}:marks") <= 2048
    for thread in (threads[0], threads[-1]):
        await stores.say("hello", thread=thread, backfill_wait=5.0)
        await stores.queue.seed(thread, [before("old", "said before the reset", "U1")])
        assert await stores.texts(thread) == ["hello"]


async def test_marks_of_persons_and_channels_fold_into_their_space(stores: StoreFixture) -> None:
    for number in range(2100):
        await stores.history.reset_place(Place("slack", "T1", f"C{number}"), "U9")
    assert await stores.redis.hlen("henji:{0}:marks") <= 2048
    channel = replace(THREAD, channel="C0")
    await stores.say("hello", thread=channel, backfill_wait=5.0)
    await stores.queue.seed(channel, [before("old", "said before the reset", "U1")])
    assert await stores.texts(channel) == ["hello"]


async def test_forgetting_ends_one_off_jobs_that_may_hold_the_persons_words(
    stores: StoreFixture,
) -> None:
    """Another person's summary, in that space alone."""
    threads = (thread_of(THREAD, "s1"), thread_of(replace(THREAD, space="T2"), "s2"))
    jobs = [(await stores.say("U1: a secret", thread, "U2")).job for thread in threads]
    await stores.history.forget(Place("slack", "T1"), "U1")
    ends = [(await stores.events(job, at))[-1] for job, at in zip(jobs, threads, strict=True)]
    assert ends == [Cancelled("reset"), Queued(2)]


async def test_a_discarded_job_leaves_nothing(stores: StoreFixture) -> None:
    thread, said = thread_of(THREAD, "s1"), Turn("m1", "user", "U1", "a secret", at=1.0)
    receipt = await stores.say(said.text, thread, id=said.id)
    await stores.reply(await stores.claim(), "a summary")
    await stores.history.discard(thread, said, str(receipt.job))
    kept = await stores.redis.keys("*")
    parts = (str(thread), str(receipt.job), said.id)
    assert [name for name in kept if any(part in name for part in parts)] == []
    for name in ("threads", "deliveries:slack", "person:slack:T1:U1", "asked:slack:T1:U1"):
        assert await stores.redis.zcard(f"{keys.base(0)}{name}") == 0


async def test_lists_lose_what_has_expired(stores: StoreFixture) -> None:
    """At one message of sixteen."""
    lists = [
        keys.key("asked", 0, "slack:T1:U1"), keys.key("replies", 0, str(THREAD)),
        keys.key("person", 0, "slack:T1:U1"),
    ]  # fmt: skip
    for name in lists:
        await stores.redis.zadd(name, {"expired": 1})
    for _ in range(1000):
        await stores.say("hello")
        await stores.reply(await stores.claim(), "")
        if not any([await stores.redis.zscore(name, "expired") for name in lists]):
            return
    pytest.fail("they are still there")


async def test_forgetting_in_one_space_keeps_the_ratings_of_another(stores: StoreFixture) -> None:
    threads = (THREAD, replace(THREAD, space="T2"))
    for thread in threads:
        await stores.feedback.keep(thread, "0" * 24, "U1", "good")
    await stores.history.forget(Place("slack", "T1"), "U1")
    rated = await stores.redis.xrange(keys.key("feedback", 0))
    assert [fields["thread"] for _, fields in rated] == [str(threads[1])]


async def test_seeded_words_are_forgotten_too(stores: StoreFixture) -> None:
    await stores.say("and you?", backfill_wait=60.0, id="m5")
    await stores.queue.seed(THREAD, [before("m1", "a secret")])
    assert await stores.history.forget(Place("slack", "T1"), "U2") == 1
    assert await stores.texts() == ["and you?"]
    assert await stores.redis.exists(keys.key("rewrite", 0))  # the file may hold it still


async def test_a_reset_leaves_no_list_of_the_thread(stores: StoreFixture) -> None:
    await stores.say("hello", id="m1")
    await stores.reply(await stores.claim(), "hi")
    await stores.queue.edit(THREAD, "m2", "it came too early", "1", LANE, "adapter")
    await stores.history.reset(THREAD, "U1")
    assert await stores.redis.keys(f"*thread:{THREAD}:*") == []
    assert await stores.redis.ttl(keys.key("edited", 0, f"{THREAD} m2")) <= 60
