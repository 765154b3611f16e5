"""Concurrent steps of people and processes: each pair in the order that is hard."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from core.queue_types import Claim, Place
from core.types import Cancelled, Delta, Done, Started
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
    regenerate,
)

CHANNEL = Place("slack", "T1", "C1")
SPACE = Place("slack", "T1")


@pytest.fixture
async def stores(redis: Redis) -> StoreFixture:
    return await StoreFixture.serving(redis, lease=0.1, backoff=60.0, max_attempts=2)


# -- commit -------------------------------------------------------------------------------------


async def test_a_commit_after_a_reset_is_refused(stores: StoreFixture) -> None:
    receipt = await stores.say("a secret")
    claim = await stores.claim()
    await stores.history.reset(THREAD, "U1")
    assert await stores.reply(claim, "kept?") == "fenced"
    assert await stores.texts() == []
    assert (await stores.events(receipt.job))[-1] == Cancelled("reset")
    assert await nothing_is_left_open(stores)


async def test_a_reset_after_a_commit_takes_both(stores: StoreFixture) -> None:
    await answered(stores, "a secret", "kept?", "m1")
    assert await stores.history.reset(THREAD, "U1") == 2
    assert await stores.texts() == []


@pytest.mark.parametrize("place", [CHANNEL, SPACE])
async def test_a_reset_of_a_place_ends_running_claimed_and_waiting_jobs(
    stores: StoreFixture, place: Place
) -> None:
    other = replace(THREAD, thread="2.0")
    await answered(stores, "old", "old reply", "m0")
    running = await stores.say("running", author="U1")
    claim = await stores.claim()
    behind = await stores.say("behind it", author="U2")
    waiting = await stores.say("in another thread", thread=other)
    await stores.history.reset_place(place, "U1")
    assert await stores.reply(claim, "kept?") == "fenced"
    assert await stores.nothing_to_do()
    assert await stores.texts() == []
    for receipt in (running, behind, waiting):
        assert (await stores.events(receipt.job))[-1] == Cancelled("reset")
    assert await nothing_is_left_open(stores)


async def test_a_reset_of_another_channel_touches_nothing(stores: StoreFixture) -> None:
    await stores.say("here")
    claim = await stores.claim()
    await stores.history.reset_place(Place("slack", "T1", "C2"), "U1")
    assert await stores.reply(claim, "there") == "ok"
    assert await stores.texts() == ["here", "there"]


async def test_a_thread_that_began_after_a_reset_of_its_channel_is_not_reset(
    stores: StoreFixture,
) -> None:
    await stores.history.reset_place(CHANNEL, "U1")
    await answered(stores, "hello", "hi", "m1")
    await stores.say("more")
    assert await stores.texts() == ["hello", "hi", "more"]


async def test_a_late_delta_is_not_part_of_a_later_attempt(stores: StoreFixture) -> None:
    receipt = await stores.say("hello")
    late = await stores.claim()
    await lose_lease(stores)
    claim = await stores.claim()
    assert await stores.queue.publish(late, Delta(0, "late")) == "fenced"
    assert await stores.queue.renew([late, claim]) == {job_of(receipt): "ok"}
    assert await stores.queue.fail(late, "internal", "late", retry=False) == "fenced"
    assert await stores.queue.release(late) == "fenced"
    assert await stores.reply(claim, "in time") == "ok"
    assert Delta(0, "late") not in await stores.events(receipt.job)
    assert await nothing_is_left_open(stores)


# -- cancel -------------------------------------------------------------------------------------


async def test_a_stop_that_meets_the_commit_is_a_stopped_reply(stores: StoreFixture) -> None:
    receipt = await stores.say("hello")
    claim = await stores.claim()
    assert await stores.queue.cancel(THREAD, job_of(receipt))
    assert await stores.reply(claim, "all") == "cancelled"
    assert await stores.reply(claim, "all", finish="cancelled") == "ok"
    assert not await stores.queue.cancel(THREAD, job_of(receipt))
    assert await nothing_is_left_open(stores)


async def stopped(stores: StoreFixture) -> Claim:
    """A reply that shows "half of", and whose person has stopped it."""
    receipt = await stores.say("hello")
    claim = await stores.claim()
    await stores.queue.publish(claim, Delta(0, "half of"))
    await stores.queue.cancel(THREAD, job_of(receipt))
    return claim


async def test_a_stopped_reply_that_is_handed_back_ends_with_the_shown_text(
    stores: StoreFixture,
) -> None:
    claim = await stopped(stores)
    await stores.queue.release(claim)
    assert await stores.nothing_to_do()
    last = (await stores.events(claim.job.id))[-1]
    assert isinstance(last, Done)
    assert (last.text, last.finish_reason) == ("half of", "cancelled")
    assert await stores.texts() == ["hello", "half of"]
    assert await nothing_is_left_open(stores)


async def test_a_stopped_reply_keeps_its_thread_for_the_whole_retention(
    stores: StoreFixture,
) -> None:
    claim = await stopped(stores)
    turns = keys.key("turns", 0, str(THREAD))
    await stores.redis.expire(turns, 100)  # it was said a while ago
    await stores.queue.release(claim)
    assert await stores.redis.ttl(turns) > 100


async def test_a_stopped_reply_whose_engine_fails_is_no_dead_letter(stores: StoreFixture) -> None:
    claim = await stopped(stores)
    await stores.queue.fail(claim, "internal", "boom", retry=True)
    assert isinstance((await stores.events(claim.job.id))[-1], Done)
    assert await stores.queue.dead(10) == []
    assert await stores.texts() == ["hello", "half of"]


async def test_the_history_keeps_a_stopped_reply_of_a_dead_core(
    stores: StoreFixture,
) -> None:
    receipt = await stores.say("hello")
    claim = await stores.claim()
    await stores.queue.publish(claim, Delta(0, "こん"))
    await stores.queue.publish(claim, Delta(1, "んにち"))  # its answer was lost: it is sent again
    await stores.queue.cancel(THREAD, job_of(receipt))
    await lose_lease(stores)
    assert await stores.texts() == ["hello", "こんにち"]
    stored = (await stores.history.turns(THREAD))[-1]
    assert (stored.turn.id, stored.finish_reason) == (receipt.job, "cancelled")
    assert stored.turn.at == pytest.approx(time.time(), abs=3600)
    await answered(stores, "and now?", "this", "m2")
    assert await stores.texts() == ["hello", "こんにち", "and now?", "this"]


async def test_stopping_a_thread_that_is_held_frees_it(stores: StoreFixture) -> None:
    receipt = await stores.say("hello", backfill_wait=60.0)
    await stores.queue.cancel(THREAD, job_of(receipt))
    await stores.queue.seed(THREAD, [before("m0", "before")])
    await answered(stores, "again", "hi", "m2")
    assert await stores.texts() == ["before", "hello", "again", "hi"]
    assert await nothing_is_left_open(stores)


async def test_stopping_the_second_leaves_the_first_to_its_core(stores: StoreFixture) -> None:
    await stores.say("one", author="U1")
    claim = await stores.claim()
    second = await stores.say("two", author="U2")
    await stores.queue.cancel(THREAD, job_of(second))
    assert await stores.reply(claim, "1") == "ok"
    assert await stores.nothing_to_do()
    assert await nothing_is_left_open(stores)


# -- edits --------------------------------------------------------------------------------------


async def test_an_edit_that_follows_a_stop_is_answered(stores: StoreFixture) -> None:
    receipt = await stores.say("helo", id="m1")
    claim = await stores.claim()
    await stores.queue.cancel(THREAD, job_of(receipt))
    await edit(stores, "m1", "hello")
    assert await stores.reply(claim, "", finish="cancelled") == "fenced"
    assert await stores.reply(await stores.claim(), "hi") == "ok"
    assert await stores.texts() == ["hello", "hi"]


async def test_edits_that_come_in_the_wrong_order_end_with_the_newest(stores: StoreFixture) -> None:
    await stores.say("first", id="m1")
    await edit(stores, "m1", "third", revision="3")
    await edit(stores, "m1", "second", revision="2")
    assert await stores.texts() == ["third"]


async def test_an_edit_back_to_the_first_text_is_newer_than_the_one_between(
    stores: StoreFixture,
) -> None:
    await stores.say("first", id="m1")
    await edit(stores, "m1", "first", revision="3")
    await edit(stores, "m1", "second", revision="2")
    assert await stores.texts() == ["first"]


async def test_edits_that_all_overtook_their_message_end_with_the_newest(
    stores: StoreFixture,
) -> None:
    await edit(stores, "m1", "third", revision="3")
    await edit(stores, "m1", "second", revision="2")
    await stores.say("first", id="m1")
    assert await stores.texts() == ["third"]


async def test_an_edit_applies_to_a_copy_of_its_message_after_a_reset(
    stores: StoreFixture,
) -> None:
    await answered(stores, "hello", "hi", "m0")
    await stores.say("helo", id="m1", addressed=False)
    await edit(stores, "m1", "hello")
    await stores.history.reset(THREAD, "U1")
    await stores.say("helo", id="m1")
    assert await stores.texts() == ["hello"]


async def test_an_edit_of_one_of_several_messages_starts_their_reply_over(
    stores: StoreFixture,
) -> None:
    first = await stores.say("helo", id="m1")
    await stores.say("are you there?", id="m2")
    claim = await stores.claim()
    receipt = await edit(stores, "m1", "hello")
    assert receipt.job == first.job
    assert await stores.reply(claim, "helo?") == "fenced"
    claim = await stores.claim()
    window = await stores.history.window(claim)
    assert [stored.turn.text for stored in window.mailbox] == ["hello", "are you there?"]
    await stores.reply(claim, "hi")
    assert Started(2) in await stores.events(first.job)


async def test_an_edit_before_the_seed_is_not_lost(
    stores: StoreFixture,
) -> None:
    await stores.say("and you?", backfill_wait=60.0, id="m5")
    await edit(stores, "m1", "as it reads now")
    await stores.queue.seed(THREAD, [before("m1", "as it read before")])
    assert await stores.texts() == ["as it reads now", "and you?"]


async def test_an_edit_during_a_regeneration_restarts_it(
    stores: StoreFixture,
) -> None:
    reply = await answered(stores, "helo", "helo?", "m1")
    again = await regenerate(stores, reply)
    claim = await stores.claim()
    assert (await edit(stores, "m1", "hello")).job == again.job
    assert await stores.reply(claim, "helo!") == "fenced"
    await stores.reply(await stores.claim(), "hi")
    assert await stores.texts() == ["hello", "hi"]


async def test_a_reply_to_an_edit_after_a_failure_uses_the_same_messages(
    stores: StoreFixture,
) -> None:
    reply = await answered(stores, "helo", "helo?", "m1")
    failing = await edit(stores, "m1", "hello")
    await stores.queue.fail(await stores.claim(), "internal", "boom", retry=False)
    last = await edit(stores, "m1", "hello!", revision="2")
    assert (await stores.delivery(failing.job)).replaces == reply
    assert (await stores.delivery(last.job)).replaces == failing.job
    assert (await stores.claim()).job.replaces == reply


# -- deletes ------------------------------------------------------------------------------------


async def test_deleting_a_prompt_during_a_regeneration_deletes_both(
    stores: StoreFixture,
) -> None:
    reply = await answered(stores, "one", "1", "m1")
    again = await regenerate(stores, reply)
    claim = await stores.claim()
    assert await stores.queue.delete(THREAD, "m1") == [again.job]
    assert await stores.reply(claim, "uno") == "fenced"
    assert await stores.texts() == []
    assert await nothing_is_left_open(stores)


async def test_deleting_a_reply_during_its_regeneration_keeps_the_prompt(
    stores: StoreFixture,
) -> None:
    reply = await answered(stores, "one", "1", "m1")
    again = await regenerate(stores, reply)
    claim = await stores.claim()
    assert await stores.queue.delete(THREAD, reply) == [again.job]
    assert await stores.reply(claim, "uno") == "fenced"
    assert await stores.texts() == ["one"]
    assert (await regenerate(stores, reply, "2")).code == "prompt_gone"


async def test_deleting_a_waiting_message_does_not_touch_the_running_reply(
    stores: StoreFixture,
) -> None:
    await stores.say("one", author="U1")
    claim = await stores.claim()
    second = await stores.say("two", author="U2", id="m2")
    assert await stores.queue.delete(THREAD, "m2") == [second.job]
    assert await stores.reply(claim, "1") == "ok"
    assert await stores.texts() == ["one", "1"]
    assert await nothing_is_left_open(stores)


async def test_a_thread_goes_on_before_the_reset_of_its_channel_has_come_to_it(
    stores: StoreFixture,
) -> None:
    await answered(stores, "one", "1", "m1")
    await stores.redis.hincrby(keys.key("resets", 0), "slack:T1:C1", 1)
    await stores.say("two", id="m2")
    assert await stores.reply(await stores.claim(), "2") == "ok"
    assert await stores.texts() == ["two", "2"]


@pytest.mark.parametrize(("gone", "left"), [("m1", "m2"), ("m2", "m1")])
async def test_deleting_one_of_several_messages_that_are_answered_starts_over(
    stores: StoreFixture, gone: str, left: str
) -> None:
    receipt = await stores.say("text of m1", id="m1")
    await stores.say("text of m2", id="m2")
    claim = await stores.claim()
    assert await stores.queue.delete(THREAD, gone) == []
    assert await stores.reply(claim, "1 and 2") == "fenced"
    again = await stores.claim()
    assert (again.job.id, again.job.turn) == (receipt.job, left)
    assert await stores.redis.hget(keys.key("job", 0, again.job.id), "attempts") == "1"
    await stores.reply(again, "one of them")
    assert await stores.texts() == [f"text of {left}", "one of them"]
    assert await nothing_is_left_open(stores)


async def test_a_job_without_one_of_its_messages_still_answers_the_others(
    stores: StoreFixture,
) -> None:
    first = await stores.say("one", id="m1")
    await stores.say("two", id="m2")
    await stores.say("three", id="m3")
    await stores.queue.delete(THREAD, "m3")
    edited = await edit(stores, "m1", "uno")
    assert (edited.outcome, edited.job) == ("queued", first.job)


async def test_an_edit_that_overtook_its_message_goes_with_the_message(
    stores: StoreFixture,
) -> None:
    await answered(stores, "one", "1", "m1")
    await edit(stores, "m2", "a secret")
    await stores.queue.delete(THREAD, "m2")
    assert not await stores.redis.exists(keys.key("edited", 0, f"{THREAD} m2"))


async def test_a_delete_that_overtook_its_message_wins(stores: StoreFixture) -> None:
    await stores.queue.delete(THREAD, "m1")
    assert (await stores.say("gone already", id="m1")).outcome == "duplicate"
    await stores.say("and you?", backfill_wait=60.0, id="m5")
    await stores.queue.delete(THREAD, "m2")
    await stores.queue.seed(THREAD, [before("m2", "gone too")])
    assert await stores.texts() == ["and you?"]


# -- copies, and messages that go together ------------------------------------------------------


async def test_an_upgrade_of_chatter_joins_the_reply_that_reads_it_anyway(
    stores: StoreFixture,
) -> None:
    await answered(stores, "hello", "hi", "m0")
    await stores.say("@henji one", id="m1", addressed=False)
    second = await stores.say("two", id="m2")
    upgrade = await stores.say("@henji one", id="m1")
    assert upgrade.job == second.job
    claim = await stores.claim()
    window = await stores.history.window(claim)
    assert [stored.turn.text for stored in window.mailbox] == ["@henji one", "two"]
    await stores.reply(claim, "both")
    assert await stores.texts() == ["hello", "hi", "@henji one", "two", "both"]


async def test_an_upgrade_of_the_answered_message_gets_a_separate_reply(
    stores: StoreFixture,
) -> None:
    await answered(stores, "hello", "hi", "m0")
    await stores.say("@henji one", id="m1", addressed=False, author="U2")
    await stores.say("two", id="m2")
    claim = await stores.claim()
    upgrade = await stores.say("@henji one", id="m1", author="U2")
    await stores.reply(claim, "2")
    third = await stores.say("three", id="m3", author="U2")
    assert third.job != upgrade.job
    claim = await stores.claim()
    assert claim.job.id == upgrade.job
    await stores.reply(claim, "1")
    await stores.reply(await stores.claim(), "3")
    told = ["hello", "hi", "@henji one", "1", "two", "2", "three", "3"]
    assert await stores.texts() == told


async def test_an_upgrade_of_an_answered_message_does_not_join_waiting_ones(
    stores: StoreFixture,
) -> None:
    await answered(stores, "hello", "hi", "m0")
    await stores.say("@henji one", id="m1", addressed=False)
    await answered(stores, "two", "2", "m2")
    waiting = await stores.say("three", id="m3")
    upgrade = await stores.say("@henji one", id="m1")
    assert upgrade.job != waiting.job
    await stores.reply(await stores.claim(), "3")
    await stores.reply(await stores.claim(), "1")
    told = ["hello", "hi", "@henji one", "1", "two", "2", "three", "3"]
    assert await stores.texts() == told


async def test_chatter_from_before_a_reset_does_not_come_again(stores: StoreFixture) -> None:
    await answered(stores, "one", "1", "m1")
    chatter: dict[str, Any] = {"addressed": False, "id": "c1", "event_ids": ("e1",)}
    assert (await stores.say("a secret", **chatter)).outcome == "kept"
    await stores.history.reset(THREAD, "U1")
    assert (await stores.say("a secret", **chatter)).outcome == "duplicate"
    assert await stores.texts() == []


async def test_of_much_chatter_the_newest_is_kept(redis: Redis) -> None:
    stores = await StoreFixture.serving(redis, limits=Limits(mailbox=3))
    await answered(stores, "one", "1", "m1")
    for number in range(6):
        await stores.say(f"said {number}", addressed=False)
    assert await stores.texts() == ["one", "1", "said 3", "said 4", "said 5"]


async def test_a_flood_in_one_thread_does_not_fill_the_mailbox_without_limit(redis: Redis) -> None:
    stores = StoreFixture.over(redis, limits=Limits(mailbox=5, thread=3))
    await stores.queue.announce(LANE, "core", 60)
    outcomes = [(await stores.say("and")).outcome for _ in range(20)]
    assert outcomes[-1] == "refused"
    assert await stores.redis.zcard(keys.key("mailbox", 0, str(THREAD))) <= 5 + 3
