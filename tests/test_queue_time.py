"""The effects of time: deadlines, backfill waits, days without Redis, and expiring threads."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from core.place_rules import scopes
from core.queue_types import Claim, Place, Receipt
from core.types import Cancelled, Failed
from storage import keys
from storage.store import Limits
from tests.store_fixture import (
    LANE,
    THREAD,
    StoreFixture,
    answered,
    before,
    edit,
    job_of,
    lose_lease,
    nothing_is_left_open,
    past_deadline,
)

CHANNEL = Place("slack", "T1", "C1")


@pytest.fixture
async def stores(redis: Redis) -> StoreFixture:
    return await StoreFixture.serving(redis, lease=0.1, backoff=60.0, max_attempts=2)


# -- time ---------------------------------------------------------------------------------------


async def test_a_sweep_tells_when_the_next_is_due(stores: StoreFixture) -> None:
    assert (await stores.queue.sweep()).due_in == math.inf
    await stores.say("hello")
    assert 30 < (await stores.queue.sweep()).due_in <= 3600  # its deadline
    await stores.claim()
    assert (await stores.queue.sweep()).due_in <= 0.1  # its lease


async def test_a_deadline_that_meets_a_claim_lets_the_core_finish(stores: StoreFixture) -> None:
    receipt = await stores.say("hello")
    claim = await stores.claim()
    await past_deadline(stores, receipt)
    assert await stores.reply(claim, "hi") == "ok"
    assert await nothing_is_left_open(stores)


async def test_after_a_deadline_the_next_message_is_answered(
    stores: StoreFixture,
) -> None:
    first = await stores.say("one", author="U1")
    second = await stores.say("two", author="U2")
    await past_deadline(stores, first)
    assert (await stores.events(first.job))[-1] == Failed("deadline")
    assert (await stores.claim()).job.id == second.job


async def test_a_deadline_after_a_running_reply_does_not_touch_that_reply(
    stores: StoreFixture,
) -> None:
    await stores.say("one", author="U1")
    claim = await stores.claim()
    second = await stores.say("two", author="U2")
    await past_deadline(stores, second)
    assert (await stores.events(second.job))[-1] == Failed("deadline")
    assert await stores.reply(claim, "1") == "ok"
    assert await nothing_is_left_open(stores)


async def test_after_the_backfill_wait_earlier_messages_still_come_first(
    stores: StoreFixture,
) -> None:
    await stores.say("and you?", backfill_wait=60.0, id="m5")
    await stores.redis.zadd("henji:{0}:delayed", {str(THREAD): 1})
    await stores.queue.sweep()
    claim = await stores.claim()
    await stores.queue.seed(THREAD, [before("m1", "before")])
    assert await stores.reply(claim, "fine") == "ok"
    assert await stores.texts() == ["before", "and you?", "fine"]


async def test_of_a_long_past_the_newest_is_seeded(redis: Redis) -> None:
    stores = StoreFixture.over(redis, limits=Limits(mailbox=5))
    await stores.queue.announce(LANE, "core", 60)
    await stores.say("and you?", backfill_wait=60.0, id="m99")
    past = [before(f"m{n}", f"said {n}") for n in range(20)]
    await stores.queue.seed(THREAD, past)
    assert await stores.texts() == [*(f"said {n}" for n in range(15, 20)), "and you?"]


async def test_a_seed_after_a_reset_restores_nothing(stores: StoreFixture) -> None:
    held = await stores.say("and you?", backfill_wait=60.0, id="m5")
    await stores.history.reset_place(CHANNEL, "U1")
    await stores.queue.seed(THREAD, [before("m1", "a secret")])
    assert await stores.texts() == []
    assert (await stores.events(held.job))[-1] == Cancelled("reset")
    assert await nothing_is_left_open(stores)


# -- Redis away for days ------------------------------------------------------------------------


async def test_after_a_weekend_without_redis_running_jobs_end_with_a_sentence(
    redis: Redis,
) -> None:
    stores = await StoreFixture.serving(redis, deadline=0.001)
    receipt = await stores.say("Friday's question")
    await stores.redis.hset(keys.key("job", 0, job_of(receipt)), "deadline", "9999999999999")
    await stores.claim()
    await stores.redis.delete(keys.key("leases", 0), keys.key("events", 0, job_of(receipt)))
    await past_deadline(stores, receipt)
    assert await stores.events(receipt.job) == [Failed("deadline")]
    assert await stores.redis.ttl(keys.key("events", 0, job_of(receipt))) > 0
    assert await nothing_is_left_open(stores)


@pytest.mark.parametrize("state", ["ready", "leased", "delayed"])
async def test_a_thread_outlives_all_jobs_in_it(stores: StoreFixture, state: str) -> None:
    await stores.say("before", backfill_wait=60.0 if state == "delayed" else 0.0)
    if state == "leased":
        await stores.claim()
    for name in await stores.redis.keys():
        if not name.startswith((f"henji:{{0}}:thread:{THREAD}", "henji:{0}:lane")):
            await stores.redis.delete(name)
    await stores.redis.delete(keys.key("jobs", 0, str(THREAD)))
    after = await stores.say("after", id="after")
    assert (await stores.claim()).job.id == after.job


# -- threads that expire ------------------------------------------------------------------------


async def expire(stores: StoreFixture, *names: str) -> None:
    """As when the retention is over."""
    for name in names or ("thread", "turns", "history", "mailbox", "counts", "changes"):
        await stores.redis.delete(keys.key(name, 0, str(THREAD)))


async def test_a_thread_that_expired_is_not_remembered_by_the_core_that_knew_it(
    stores: StoreFixture,
) -> None:
    await answered(stores, "a secret", "noted", "m1")
    await stores.history.window(await _next_claim(stores, "m2"))
    await expire(stores)
    await stores.redis.delete(keys.key("jobs", 0, str(THREAD)))
    await stores.redis.delete("henji:{0}:leases", "henji:{0}:deadlines", "henji:{0}:open")
    window = await stores.history.window(await _next_claim(stores, "m3"))
    assert list(window.history) == []
    assert [stored.turn.id for stored in window.mailbox] == ["m3"]


async def _next_claim(stores: StoreFixture, id_: str) -> Claim:
    await stores.say("next", id=id_)
    return await stores.claim()


@pytest.mark.parametrize("held", [0.0, 60.0])
async def test_a_thread_that_expired_while_a_job_waits_leaves_no_key_behind(
    stores: StoreFixture, held: float
) -> None:
    receipt = await stores.say("hello", backfill_wait=held)
    await expire(stores)
    assert await stores.nothing_to_do()
    await stores.redis.zadd("henji:{0}:delayed", {str(THREAD): 1}, xx=True)
    await past_deadline(stores, receipt)
    assert (await stores.events(receipt.job))[-1] == Failed("deadline")
    assert not await stores.redis.exists(keys.key("thread", 0, str(THREAD)))
    assert await nothing_is_left_open(stores)


async def test_a_thread_that_expired_while_it_was_answered_leaves_no_key_behind(
    stores: StoreFixture,
) -> None:
    await stores.say("hello")
    claim = await stores.claim()
    await expire(stores)
    assert await stores.reply(claim, "hi") == "fenced"
    await lose_lease(stores)
    assert not await stores.redis.exists(keys.key("thread", 0, str(THREAD)))
    assert not await stores.redis.exists(keys.key("leases", 0))


async def test_a_thread_that_goes_on_keeps_the_records_of_its_first_messages(redis: Redis) -> None:
    """Edits and deletions are still followed, and the reply can be regenerated."""
    stores = await StoreFixture.serving(redis, retention=0.5)
    receipt = await stores.say("hello", id="first")
    await stores.reply(await stores.claim(), "hi")
    assert await stores.deliveries.close(await stores.delivery(receipt.job), ["posted"])
    for _ in range(4):
        await asyncio.sleep(0.2)  # the lifetimes are Redis's
        await stores.say("go on")
        await stores.reply(await stores.claim(), "so?")
    assert await stores.deliveries.locate(THREAD, "first") == (THREAD, "first")
    assert await stores.deliveries.locate(THREAD, "posted") == (THREAD, receipt.job)
    assert await redis.exists(keys.key("delivery", 0, receipt.job or ""))


async def test_chatter_keeps_all_of_a_thread_alive(stores: StoreFixture) -> None:
    await answered(stores, "hello", "hi", "m1")
    assert await renewed(stores, lambda: stores.say("by the way", addressed=False))


async def test_a_message_that_was_too_long_keeps_all_of_a_thread_alive_when_it_is_shorter(
    stores: StoreFixture,
) -> None:
    await answered(stores, "hello", "hi", "m1")
    await stores.say("too long", id="m2")
    await stores.queue.fail(await stores.claim(), "too_long", "", retry=False, forget=True)
    assert await renewed(stores, lambda: edit(stores, "m2", "short"))


async def test_a_message_that_was_too_long_is_answered_in_its_language_when_it_is_shorter(
    stores: StoreFixture,
) -> None:
    await stores.say("too long", id="m1", note={"locale": "ja"})
    await stores.queue.fail(await stores.claim(), "too_long", "", retry=False, forget=True)
    again = await edit(stores, "m1", "short")
    assert (await stores.delivery(again.job)).note == {"locale": "ja"}


async def test_the_records_of_old_messages_are_renewed_once_a_day(stores: StoreFixture) -> None:
    """A long thread has thousands: not at each message."""
    await answered(stores, "hello", "hi", "m1")
    record = keys.key("message", 0, scopes(THREAD)[1], "m1")
    for days, is_renewed in ((0.9, False), (1.1, True)):
        await stores.redis.expire(record, 1000)
        renewed = int(1000 * (time.time() - days * keys.DAY))
        await stores.redis.hset(keys.key("thread", 0, str(THREAD)), "renewed", renewed)
        await stores.say("by the way", addressed=False)
        assert (await stores.redis.ttl(record) > 1000) is is_renewed


async def renewed(stores: StoreFixture, act: Callable[[], Awaitable[Receipt]]) -> bool:
    """Whether all of a thread lives longer after an act."""
    parts = ("thread", "turns", "history", "counts", "changes")
    for name in parts:
        await stores.redis.pexpire(keys.key(name, 0, str(THREAD)), 60_000)
    assert (await act()).outcome in ("kept", "queued")
    left: list[int] = [await stores.redis.pttl(keys.key(name, 0, str(THREAD))) for name in parts]
    return min(left) > 60_000


async def test_keys_changed_outside_a_reply_have_a_lifetime_too(stores: StoreFixture) -> None:
    await answered(stores, "one", "1", "m1")
    await stores.history.reset(THREAD, "U1")
    await stores.queue.delete(THREAD, "m1")
    other = replace(THREAD, thread="2.0")
    await stores.say("too long", thread=other)
    await stores.queue.fail(await stores.claim(), "too_long", "", retry=False, forget=True)
    await stores.queue.sweep()
    await stores.deliveries.take_over("slack", "adapter")
    forever = [name for name in await stores.redis.keys() if await stores.redis.ttl(name) < 0]
    assert forever == []


async def test_dead_letters_and_ratings_have_lifetimes_of_their_own(stores: StoreFixture) -> None:
    """A list that is written again and again would keep its oldest entries for ever."""
    for name in ("dead", "feedback"):
        seconds = keys.seconds_of(name) or 0
        now, _ = await stores.redis.time()
        for ago in (seconds + 60, seconds - 60):
            entry = f"{1000 * (now - ago)}-0"
            await stores.redis.xadd(keys.key(name, 0), {"by": "U1"}, entry)
        await stores.redis.expire(keys.key(name, 0), seconds)
        await stores.queue.sweep()
        assert await stores.redis.xlen(keys.key(name, 0)) == 1


async def test_a_job_whose_record_has_expired_holds_up_nobody(stores: StoreFixture) -> None:
    lost = job_of(await stores.say("one", id="m1", alone=True))
    await stores.say("two", id="m2", alone=True)
    await stores.redis.delete(keys.key("job", 0, lost))
    assert (await stores.claim()).job.turn == "m2"


@pytest.mark.parametrize("name", ["leases", "delayed"])
async def test_what_was_due_of_an_expired_thread_is_due_once(
    stores: StoreFixture, name: str
) -> None:
    """A message in such a thread begins it anew, and what is left of it is not that thread's."""
    await stores.redis.zadd(keys.key(name, 0), {str(THREAD): 1})
    await stores.say("hello")
    await stores.queue.sweep()
    assert not await stores.redis.zcard(keys.key(name, 0))
    assert await stores.reply(await stores.claim(), "hi") == "ok"
