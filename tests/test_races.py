"""Steps of different people and processes that meet: each pair in the order that hurts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from redis.asyncio import Redis

from core.queue_types import Place
from core.types import Cancelled, Delta, Done, Started
from storage import keys
from storage.store import Limits
from tests.queue_steps import (
    answered,
    before,
    edit,
    job_of,
    lose_lease,
    nothing_is_left_open,
    regenerate,
)
from tests.store_fixture import LANE, THREAD, StoreFixture

CHANNEL = Place("slack", "T1", "C1")
SPACE = Place("slack", "T1")


@pytest.fixture
async def house(redis: Redis) -> StoreFixture:
    house = StoreFixture.over(redis, lease=0.1, backoff=60.0, max_attempts=2)
    await house.queue.announce(LANE, "core", 60)
    return house


# -- commit -------------------------------------------------------------------------------------


async def test_a_commit_after_a_reset_is_refused(house: StoreFixture) -> None:
    receipt = await house.say("a secret")
    claim = await house.claim()
    await house.history.reset(THREAD, "U1")
    assert await house.reply(claim, "kept?") == "fenced"
    assert await house.texts() == []
    assert (await house.events(receipt.job))[-1] == Cancelled("reset")
    assert await nothing_is_left_open(house)


async def test_a_reset_after_a_commit_takes_both(house: StoreFixture) -> None:
    await answered(house, "a secret", "kept?", "m1")
    assert await house.history.reset(THREAD, "U1") == 2
    assert await house.texts() == []


@pytest.mark.parametrize("place", [CHANNEL, SPACE])
async def test_a_reset_of_a_place_meets_a_commit_a_claim_and_who_waits(
    house: StoreFixture, place: Place
) -> None:
    other = replace(THREAD, thread="2.0")
    await answered(house, "old", "old reply", "m0")
    running = await house.say("running", author="U1")
    claim = await house.claim()
    behind = await house.say("behind it", author="U2")
    waiting = await house.say("in another thread", thread=other)
    await house.history.reset_place(place, "U1")
    assert await house.reply(claim, "kept?") == "fenced"
    assert await house.nothing_to_do()
    assert await house.texts() == []
    for receipt in (running, behind, waiting):
        assert (await house.events(receipt.job))[-1] == Cancelled("reset")
    assert await nothing_is_left_open(house)


async def test_a_reset_of_another_channel_touches_nothing(house: StoreFixture) -> None:
    await house.say("here")
    claim = await house.claim()
    await house.history.reset_place(Place("slack", "T1", "C2"), "U1")
    assert await house.reply(claim, "there") == "ok"
    assert await house.texts() == ["here", "there"]


async def test_a_thread_that_began_after_a_reset_of_its_channel_is_not_reset(
    house: StoreFixture,
) -> None:
    await house.history.reset_place(CHANNEL, "U1")
    await answered(house, "hello", "hi", "m1")
    await house.say("more")
    assert await house.texts() == ["hello", "hi", "more"]


async def test_a_late_delta_stands_in_no_later_attempt(house: StoreFixture) -> None:
    receipt = await house.say("hello")
    late = await house.claim()
    await lose_lease(house)
    claim = await house.claim()
    assert await house.queue.publish(late, Delta(0, "late")) == "fenced"
    assert await house.queue.renew([late, claim]) == {job_of(receipt): "ok"}
    assert await house.queue.fail(late, "internal", "late", retry=False) == "fenced"
    assert await house.queue.release(late) == "fenced"
    assert await house.reply(claim, "in time") == "ok"
    assert Delta(0, "late") not in await house.events(receipt.job)
    assert await nothing_is_left_open(house)


# -- cancel -------------------------------------------------------------------------------------


async def test_a_stop_that_meets_the_commit_is_a_stopped_reply(house: StoreFixture) -> None:
    receipt = await house.say("hello")
    claim = await house.claim()
    assert await house.queue.cancel(THREAD, job_of(receipt))
    assert await house.reply(claim, "all") == "cancelled"
    assert await house.reply(claim, "all", finish="cancelled") == "ok"
    assert not await house.queue.cancel(THREAD, job_of(receipt))
    assert await nothing_is_left_open(house)


async def test_a_stopped_reply_that_is_handed_back_ends_with_what_was_shown(
    house: StoreFixture,
) -> None:
    receipt = await house.say("hello")
    claim = await house.claim()
    await house.queue.publish(claim, Delta(0, "half of"))
    await house.queue.cancel(THREAD, job_of(receipt))
    await house.queue.release(claim)
    assert await house.nothing_to_do()
    last = (await house.events(receipt.job))[-1]
    assert isinstance(last, Done)
    assert (last.text, last.finish_reason) == ("half of", "cancelled")
    assert await house.texts() == ["hello", "half of"]
    assert await nothing_is_left_open(house)


async def test_a_stopped_reply_whose_engine_fails_is_no_dead_letter(house: StoreFixture) -> None:
    receipt = await house.say("hello")
    claim = await house.claim()
    await house.queue.publish(claim, Delta(0, "half of"))
    await house.queue.cancel(THREAD, job_of(receipt))
    await house.queue.fail(claim, "internal", "boom", retry=True)
    assert isinstance((await house.events(receipt.job))[-1], Done)
    assert await house.queue.dead(10) == []
    assert await house.texts() == ["hello", "half of"]


async def test_a_stopped_reply_whose_core_died_is_what_the_history_keeps(
    house: StoreFixture,
) -> None:
    receipt = await house.say("hello")
    claim = await house.claim()
    await house.queue.publish(claim, Delta(0, "こん"))
    await house.queue.publish(claim, Delta(1, "んにち"))  # its answer was lost: it is sent again
    await house.queue.cancel(THREAD, job_of(receipt))
    await lose_lease(house)
    assert await house.texts() == ["hello", "こんにち"]
    stored = (await house.history.turns(THREAD))[-1]
    assert (stored.turn.id, stored.finish_reason) == (receipt.job, "cancelled")
    await answered(house, "and now?", "this", "m2")
    assert await house.texts() == ["hello", "こんにち", "and now?", "this"]


async def test_stopping_a_thread_that_is_held_frees_it(house: StoreFixture) -> None:
    receipt = await house.say("hello", hold=60.0)
    await house.queue.cancel(THREAD, job_of(receipt))
    await house.queue.seed(THREAD, [before("m0", "before")])
    await answered(house, "again", "hi", "m2")
    assert await house.texts() == ["before", "hello", "again", "hi"]
    assert await nothing_is_left_open(house)


async def test_stopping_the_second_leaves_the_first_to_its_core(house: StoreFixture) -> None:
    await house.say("one", author="U1")
    claim = await house.claim()
    second = await house.say("two", author="U2")
    await house.queue.cancel(THREAD, job_of(second))
    assert await house.reply(claim, "1") == "ok"
    assert await house.nothing_to_do()
    assert await nothing_is_left_open(house)


# -- edits --------------------------------------------------------------------------------------


async def test_an_edit_that_follows_a_stop_is_answered(house: StoreFixture) -> None:
    receipt = await house.say("helo", id="m1")
    claim = await house.claim()
    await house.queue.cancel(THREAD, job_of(receipt))
    await edit(house, "m1", "hello")
    assert await house.reply(claim, "", finish="cancelled") == "fenced"
    assert await house.reply(await house.claim(), "hi") == "ok"
    assert await house.texts() == ["hello", "hi"]


async def test_edits_that_come_in_the_wrong_order_end_with_the_newest(house: StoreFixture) -> None:
    await house.say("first", id="m1")
    await edit(house, "m1", "third", revision="3")
    await edit(house, "m1", "second", revision="2")
    assert await house.texts() == ["third"]


async def test_an_edit_back_to_the_first_text_is_newer_than_the_one_between(
    house: StoreFixture,
) -> None:
    await house.say("first", id="m1")
    await edit(house, "m1", "first", revision="3")
    await edit(house, "m1", "second", revision="2")
    assert await house.texts() == ["first"]


async def test_edits_that_all_overtook_their_message_end_with_the_newest(
    house: StoreFixture,
) -> None:
    await edit(house, "m1", "third", revision="3")
    await edit(house, "m1", "second", revision="2")
    await house.say("first", id="m1")
    assert await house.texts() == ["third"]


async def test_an_edit_holds_for_a_copy_of_its_message_that_comes_after_a_reset(
    house: StoreFixture,
) -> None:
    await answered(house, "hello", "hi", "m0")
    await house.say("helo", id="m1", addressed=False)
    await edit(house, "m1", "hello")
    await house.history.reset(THREAD, "U1")
    await house.say("helo", id="m1")
    assert await house.texts() == ["hello"]


async def test_an_edit_of_one_of_several_messages_starts_their_reply_over(
    house: StoreFixture,
) -> None:
    first = await house.say("helo", id="m1")
    await house.say("are you there?", id="m2")
    claim = await house.claim()
    receipt = await edit(house, "m1", "hello")
    assert receipt.job == first.job
    assert await house.reply(claim, "helo?") == "fenced"
    claim = await house.claim()
    window = await house.history.window(claim)
    assert [stored.turn.text for stored in window.mailbox] == ["hello", "are you there?"]
    await house.reply(claim, "hi")
    assert Started(2) in await house.events(first.job)


async def test_an_edit_that_comes_before_the_past_is_seeded_is_not_lost(
    house: StoreFixture,
) -> None:
    await house.say("and you?", hold=60.0, id="m5")
    await edit(house, "m1", "as it reads now")
    await house.queue.seed(THREAD, [before("m1", "as it read before")])
    assert await house.texts() == ["as it reads now", "and you?"]


async def test_an_edit_while_the_reply_is_written_anew_starts_that_over(
    house: StoreFixture,
) -> None:
    reply = await answered(house, "helo", "helo?", "m1")
    again = await regenerate(house, reply)
    claim = await house.claim()
    assert (await edit(house, "m1", "hello")).job == again.job
    assert await house.reply(claim, "helo!") == "fenced"
    await house.reply(await house.claim(), "hi")
    assert await house.texts() == ["hello", "hi"]


async def test_an_edit_after_the_answer_failed_stands_in_the_same_messages(
    house: StoreFixture,
) -> None:
    reply = await answered(house, "helo", "helo?", "m1")
    failing = await edit(house, "m1", "hello")
    await house.queue.fail(await house.claim(), "internal", "boom", retry=False)
    last = await edit(house, "m1", "hello!", revision="2")
    assert (await house.delivery(failing.job)).replaces == reply
    assert (await house.delivery(last.job)).replaces == failing.job
    assert (await house.claim()).job.replaces == reply


# -- deletes ------------------------------------------------------------------------------------


async def test_deleting_a_prompt_while_its_reply_is_written_anew_takes_both(
    house: StoreFixture,
) -> None:
    reply = await answered(house, "one", "1", "m1")
    again = await regenerate(house, reply)
    claim = await house.claim()
    assert await house.queue.delete(THREAD, "m1") == [again.job]
    assert await house.reply(claim, "uno") == "fenced"
    assert await house.texts() == []
    assert await nothing_is_left_open(house)


async def test_deleting_a_reply_while_it_is_written_anew_leaves_the_prompt(
    house: StoreFixture,
) -> None:
    reply = await answered(house, "one", "1", "m1")
    again = await regenerate(house, reply)
    claim = await house.claim()
    assert await house.queue.delete(THREAD, reply) == [again.job]
    assert await house.reply(claim, "uno") == "fenced"
    assert await house.texts() == ["one"]
    assert (await regenerate(house, reply, "2")).code == "prompt_gone"


async def test_deleting_what_waits_behind_a_reply_leaves_that_to_its_core(
    house: StoreFixture,
) -> None:
    await house.say("one", author="U1")
    claim = await house.claim()
    second = await house.say("two", author="U2", id="m2")
    assert await house.queue.delete(THREAD, "m2") == [second.job]
    assert await house.reply(claim, "1") == "ok"
    assert await house.texts() == ["one", "1"]
    assert await nothing_is_left_open(house)


async def test_deleting_one_of_several_messages_that_are_answered_starts_over(
    house: StoreFixture,
) -> None:
    receipt = await house.say("one", id="m1")
    await house.say("two", id="m2")
    claim = await house.claim()
    assert await house.queue.delete(THREAD, "m2") == []
    assert await house.reply(claim, "1 and 2") == "fenced"
    again = await house.claim()
    assert (again.job.id, again.job.turn) == (receipt.job, "m1")
    await house.reply(again, "1")
    assert await house.texts() == ["one", "1"]
    assert await nothing_is_left_open(house)


async def test_a_delete_that_overtook_its_message_wins(house: StoreFixture) -> None:
    await house.queue.delete(THREAD, "m1")
    assert (await house.say("gone already", id="m1")).outcome == "duplicate"
    await house.say("and you?", hold=60.0, id="m5")
    await house.queue.delete(THREAD, "m2")
    await house.queue.seed(THREAD, [before("m2", "gone too")])
    assert await house.texts() == ["and you?"]


# -- copies, and messages that go together ------------------------------------------------------


async def test_an_upgrade_of_chatter_joins_the_reply_that_reads_it_anyway(
    house: StoreFixture,
) -> None:
    await answered(house, "hello", "hi", "m0")
    await house.say("@henji one", id="m1", addressed=False)
    second = await house.say("two", id="m2")
    upgrade = await house.say("@henji one", id="m1")
    assert upgrade.job == second.job
    claim = await house.claim()
    window = await house.history.window(claim)
    assert [stored.turn.text for stored in window.mailbox] == ["@henji one", "two"]
    await house.reply(claim, "both")
    assert await house.texts() == ["hello", "hi", "@henji one", "two", "both"]


async def test_an_upgrade_of_what_is_being_read_gets_its_own_reply_in_its_place(
    house: StoreFixture,
) -> None:
    await answered(house, "hello", "hi", "m0")
    await house.say("@henji one", id="m1", addressed=False, author="U2")
    await house.say("two", id="m2")
    claim = await house.claim()
    upgrade = await house.say("@henji one", id="m1", author="U2")
    await house.reply(claim, "2")
    third = await house.say("three", id="m3", author="U2")
    assert third.job != upgrade.job
    claim = await house.claim()
    assert claim.job.id == upgrade.job
    await house.reply(claim, "1")
    await house.reply(await house.claim(), "3")
    told = ["hello", "hi", "@henji one", "1", "two", "2", "three", "3"]
    assert await house.texts() == told


async def test_an_upgrade_of_what_was_read_does_not_join_what_waits(house: StoreFixture) -> None:
    await answered(house, "hello", "hi", "m0")
    await house.say("@henji one", id="m1", addressed=False)
    await answered(house, "two", "2", "m2")
    waiting = await house.say("three", id="m3")
    upgrade = await house.say("@henji one", id="m1")
    assert upgrade.job != waiting.job
    await house.reply(await house.claim(), "3")
    await house.reply(await house.claim(), "1")
    told = ["hello", "hi", "@henji one", "1", "two", "2", "three", "3"]
    assert await house.texts() == told


async def test_a_person_who_floods_one_thread_fills_no_mailbox_without_end(redis: Redis) -> None:
    house = StoreFixture.over(redis, limits=Limits(mailbox=5, thread=3))
    await house.queue.announce(LANE, "core", 60)
    outcomes = [(await house.say("and")).outcome for _ in range(20)]
    assert outcomes[-1] == "refused"
    assert await house.redis.zcard(keys.key("mailbox", 0, str(THREAD))) <= 5 + 3
