"""Steps of different people and processes that meet: each pair in the order that hurts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from redis.asyncio import Redis

from core.records import Claim, Place, Receipt
from core.types import Cancelled, Delta, Done, Failed, Queued, Started, Turn
from storage import keys
from storage.codec import Undecodable
from storage.store import Limits
from tests.storehouse import LANE, THREAD, Storehouse

CHANNEL = Place("slack", "T1", "C1")
SPACE = Place("slack", "T1")


@pytest.fixture
async def house(redis: Redis) -> Storehouse:
    house = Storehouse.over(redis, lease=0.1, backoff=60.0, max_attempts=2)
    await house.queue.announce(LANE, "core", 60)
    return house


def job_of(receipt: Receipt) -> str:
    assert receipt.job is not None
    return receipt.job


async def lose_lease(house: Storehouse) -> None:
    await house.redis.zadd("henji:{0}:leases", {str(THREAD): 1})
    await house.queue.sweep()


async def answered(house: Storehouse, text: str, reply: str, id_: str) -> str:
    """A message that has its reply; the reply's id."""
    receipt = await house.say(text, id=id_)
    await house.reply(await house.claim(), reply)
    return job_of(receipt)


async def edit(house: Storehouse, turn: str, text: str, revision: str = "1") -> Receipt:
    return await house.queue.edit(THREAD, turn, text, revision, LANE, "adapter")


async def regenerate(house: Storehouse, reply: str, revision: str = "1") -> Receipt:
    return await house.queue.regenerate(THREAD, reply, revision, "U1", LANE, "adapter")


async def nothing_is_left_open(house: Storehouse) -> bool:
    """No counter, lease, deadline or place in the order outlives the jobs."""
    names = ("leases", "delayed", "deadlines", "open")
    left = [name for name in names if await house.redis.exists(keys.key(name, 0))]
    waiting = await house.redis.get(keys.key("waiting", 0, LANE))
    assert (left, waiting or "0") == ([], "0")
    return True


# -- commit -------------------------------------------------------------------------------------


async def test_a_commit_after_a_reset_is_refused(house: Storehouse) -> None:
    receipt = await house.say("a secret")
    claim = await house.claim()
    await house.history.reset(THREAD, "U1")
    assert await house.reply(claim, "kept?") == "fenced"
    assert await house.texts() == []
    assert (await house.events(receipt.job))[-1] == Cancelled("reset")
    assert await nothing_is_left_open(house)


async def test_a_reset_after_a_commit_takes_both(house: Storehouse) -> None:
    await answered(house, "a secret", "kept?", "m1")
    assert await house.history.reset(THREAD, "U1") == 2
    assert await house.texts() == []


@pytest.mark.parametrize("place", [CHANNEL, SPACE])
async def test_a_reset_of_a_place_meets_a_commit_a_claim_and_who_waits(
    house: Storehouse, place: Place
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


async def test_a_reset_of_another_channel_touches_nothing(house: Storehouse) -> None:
    await house.say("here")
    claim = await house.claim()
    await house.history.reset_place(Place("slack", "T1", "C2"), "U1")
    assert await house.reply(claim, "there") == "ok"
    assert await house.texts() == ["here", "there"]


async def test_a_thread_that_began_after_a_reset_of_its_channel_is_not_reset(
    house: Storehouse,
) -> None:
    await house.history.reset_place(CHANNEL, "U1")
    await answered(house, "hello", "hi", "m1")
    await house.say("more")
    assert await house.texts() == ["hello", "hi", "more"]


async def test_a_late_delta_stands_in_no_later_attempt(house: Storehouse) -> None:
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


async def test_a_stop_that_meets_the_commit_is_a_stopped_reply(house: Storehouse) -> None:
    receipt = await house.say("hello")
    claim = await house.claim()
    assert await house.queue.cancel(THREAD, job_of(receipt))
    assert await house.reply(claim, "all") == "cancelled"
    assert await house.reply(claim, "all", finish="cancelled") == "ok"
    assert not await house.queue.cancel(THREAD, job_of(receipt))
    assert await nothing_is_left_open(house)


async def test_a_stopped_reply_that_is_handed_back_ends_with_what_was_shown(
    house: Storehouse,
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


async def test_a_stopped_reply_whose_engine_fails_is_no_dead_letter(house: Storehouse) -> None:
    receipt = await house.say("hello")
    claim = await house.claim()
    await house.queue.publish(claim, Delta(0, "half of"))
    await house.queue.cancel(THREAD, job_of(receipt))
    await house.queue.fail(claim, "internal", "boom", retry=True)
    assert isinstance((await house.events(receipt.job))[-1], Done)
    assert await house.queue.dead(10) == []
    assert await house.texts() == ["hello", "half of"]


async def test_a_stopped_reply_whose_core_died_is_what_the_history_keeps(
    house: Storehouse,
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


async def test_stopping_a_thread_that_is_held_frees_it(house: Storehouse) -> None:
    receipt = await house.say("hello", hold=60.0)
    await house.queue.cancel(THREAD, job_of(receipt))
    await house.queue.seed(THREAD, [Turn("m0", "user", "U2", "before", at=1.0)])
    await answered(house, "again", "hi", "m2")
    assert await house.texts() == ["before", "hello", "again", "hi"]
    assert await nothing_is_left_open(house)


async def test_stopping_the_second_leaves_the_first_to_its_core(house: Storehouse) -> None:
    await house.say("one", author="U1")
    claim = await house.claim()
    second = await house.say("two", author="U2")
    await house.queue.cancel(THREAD, job_of(second))
    assert await house.reply(claim, "1") == "ok"
    assert await house.nothing_to_do()
    assert await nothing_is_left_open(house)


# -- edits --------------------------------------------------------------------------------------


async def test_an_edit_that_follows_a_stop_is_answered(house: Storehouse) -> None:
    receipt = await house.say("helo", id="m1")
    claim = await house.claim()
    await house.queue.cancel(THREAD, job_of(receipt))
    await edit(house, "m1", "hello")
    assert await house.reply(claim, "", finish="cancelled") == "fenced"
    assert await house.reply(await house.claim(), "hi") == "ok"
    assert await house.texts() == ["hello", "hi"]


async def test_edits_that_come_in_the_wrong_order_end_with_the_newest(house: Storehouse) -> None:
    await house.say("first", id="m1")
    await edit(house, "m1", "third", revision="3")
    await edit(house, "m1", "second", revision="2")
    assert await house.texts() == ["third"]


async def test_an_edit_back_to_the_first_text_is_newer_than_the_one_between(
    house: Storehouse,
) -> None:
    await house.say("first", id="m1")
    await edit(house, "m1", "first", revision="3")
    await edit(house, "m1", "second", revision="2")
    assert await house.texts() == ["first"]


async def test_edits_that_all_overtook_their_message_end_with_the_newest(
    house: Storehouse,
) -> None:
    await edit(house, "m1", "third", revision="3")
    await edit(house, "m1", "second", revision="2")
    await house.say("first", id="m1")
    assert await house.texts() == ["third"]


async def test_an_edit_holds_for_a_copy_of_its_message_that_comes_after_a_reset(
    house: Storehouse,
) -> None:
    await answered(house, "hello", "hi", "m0")
    await house.say("helo", id="m1", addressed=False)
    await edit(house, "m1", "hello")
    await house.history.reset(THREAD, "U1")
    await house.say("helo", id="m1")
    assert await house.texts() == ["hello"]


async def test_an_edit_of_one_of_several_messages_starts_their_reply_over(
    house: Storehouse,
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
    house: Storehouse,
) -> None:
    await house.say("and you?", hold=60.0, id="m5")
    await edit(house, "m1", "as it reads now")
    await house.queue.seed(THREAD, [Turn("m1", "user", "U2", "as it read before", at=1.0)])
    assert await house.texts() == ["as it reads now", "and you?"]


async def test_an_edit_while_the_reply_is_written_anew_starts_that_over(
    house: Storehouse,
) -> None:
    reply = await answered(house, "helo", "helo?", "m1")
    again = await regenerate(house, reply)
    claim = await house.claim()
    assert (await edit(house, "m1", "hello")).job == again.job
    assert await house.reply(claim, "helo!") == "fenced"
    await house.reply(await house.claim(), "hi")
    assert await house.texts() == ["hello", "hi"]


async def test_an_edit_after_the_answer_failed_stands_in_the_same_messages(
    house: Storehouse,
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
    house: Storehouse,
) -> None:
    reply = await answered(house, "one", "1", "m1")
    again = await regenerate(house, reply)
    claim = await house.claim()
    assert await house.queue.delete(THREAD, "m1") == [again.job]
    assert await house.reply(claim, "uno") == "fenced"
    assert await house.texts() == []
    assert await nothing_is_left_open(house)


async def test_deleting_a_reply_while_it_is_written_anew_leaves_the_prompt(
    house: Storehouse,
) -> None:
    reply = await answered(house, "one", "1", "m1")
    again = await regenerate(house, reply)
    claim = await house.claim()
    assert await house.queue.delete(THREAD, reply) == [again.job]
    assert await house.reply(claim, "uno") == "fenced"
    assert await house.texts() == ["one"]
    assert (await regenerate(house, reply, "2")).code == "prompt_gone"


async def test_deleting_what_waits_behind_a_reply_leaves_that_to_its_core(
    house: Storehouse,
) -> None:
    await house.say("one", author="U1")
    claim = await house.claim()
    second = await house.say("two", author="U2", id="m2")
    assert await house.queue.delete(THREAD, "m2") == [second.job]
    assert await house.reply(claim, "1") == "ok"
    assert await house.texts() == ["one", "1"]
    assert await nothing_is_left_open(house)


async def test_deleting_one_of_several_messages_that_are_answered_starts_over(
    house: Storehouse,
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


async def test_a_delete_that_overtook_its_message_wins(house: Storehouse) -> None:
    await house.queue.delete(THREAD, "m1")
    assert (await house.say("gone already", id="m1")).outcome == "duplicate"
    await house.say("and you?", hold=60.0, id="m5")
    await house.queue.delete(THREAD, "m2")
    await house.queue.seed(THREAD, [Turn("m2", "user", "U2", "gone too", at=1.0)])
    assert await house.texts() == ["and you?"]


# -- copies, and messages that go together ------------------------------------------------------


async def test_an_upgrade_of_chatter_joins_the_reply_that_reads_it_anyway(
    house: Storehouse,
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
    house: Storehouse,
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


async def test_an_upgrade_of_what_was_read_does_not_join_what_waits(house: Storehouse) -> None:
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
    house = Storehouse.over(redis, limits=Limits(mailbox=5, thread=3))
    await house.queue.announce(LANE, "core", 60)
    outcomes = [(await house.say("and")).outcome for _ in range(20)]
    assert outcomes[-1] == "refused"
    assert await house.redis.zcard(keys.key("mailbox", 0, str(THREAD))) <= 5 + 3


# -- time ---------------------------------------------------------------------------------------


async def past_deadline(house: Storehouse, receipt: Receipt) -> None:
    await house.redis.zadd("henji:{0}:deadlines", {job_of(receipt): 1})
    await house.queue.sweep()


async def test_a_deadline_that_meets_a_claim_lets_the_core_finish(house: Storehouse) -> None:
    receipt = await house.say("hello")
    claim = await house.claim()
    await past_deadline(house, receipt)
    assert await house.reply(claim, "hi") == "ok"
    assert await nothing_is_left_open(house)


async def test_a_deadline_passes_over_who_stands_first_to_who_comes_next(
    house: Storehouse,
) -> None:
    first = await house.say("one", author="U1")
    second = await house.say("two", author="U2")
    await past_deadline(house, first)
    assert (await house.events(first.job))[-1] == Failed("deadline")
    assert (await house.claim()).job.id == second.job


async def test_a_deadline_behind_a_running_reply_leaves_that_to_its_core(
    house: Storehouse,
) -> None:
    await house.say("one", author="U1")
    claim = await house.claim()
    second = await house.say("two", author="U2")
    await past_deadline(house, second)
    assert (await house.events(second.job))[-1] == Failed("deadline")
    assert await house.reply(claim, "1") == "ok"
    assert await nothing_is_left_open(house)


async def test_a_hold_that_ends_is_not_waited_for_and_its_past_comes_in_front(
    house: Storehouse,
) -> None:
    await house.say("and you?", hold=60.0, id="m5")
    await house.redis.zadd("henji:{0}:delayed", {str(THREAD): 1})
    await house.queue.sweep()
    claim = await house.claim()
    await house.queue.seed(THREAD, [Turn("m1", "user", "U2", "before", at=1.0)])
    assert await house.reply(claim, "fine") == "ok"
    assert await house.texts() == ["before", "and you?", "fine"]


async def test_of_a_long_past_the_newest_is_seeded(redis: Redis) -> None:
    house = Storehouse.over(redis, limits=Limits(mailbox=5))
    await house.queue.announce(LANE, "core", 60)
    await house.say("and you?", hold=60.0, id="m99")
    past = [Turn(f"m{n}", "user", "U2", f"said {n}", at=n) for n in range(20)]
    await house.queue.seed(THREAD, past)
    assert await house.texts() == [*(f"said {n}" for n in range(15, 20)), "and you?"]


async def test_a_seed_that_comes_after_a_reset_brings_nothing_back(house: Storehouse) -> None:
    held = await house.say("and you?", hold=60.0, id="m5")
    await house.history.reset_place(CHANNEL, "U1")
    await house.queue.seed(THREAD, [Turn("m1", "user", "U2", "a secret", at=1.0)])
    assert await house.texts() == []
    assert (await house.events(held.job))[-1] == Cancelled("reset")
    assert await nothing_is_left_open(house)


# -- Redis away for days ------------------------------------------------------------------------


async def test_after_a_week_end_without_redis_what_was_answered_ends_with_a_sentence(
    redis: Redis,
) -> None:
    house = Storehouse.over(redis, deadline=0.001)
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
async def test_a_thread_outlives_all_that_was_owed_in_it(house: Storehouse, state: str) -> None:
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


async def expire(house: Storehouse, *names: str) -> None:
    """As when the retention is over."""
    for name in names or ("thread", "turns", "history", "mailbox", "counts", "changes"):
        await house.redis.delete(keys.key(name, 0, str(THREAD)))


async def test_a_thread_that_expired_is_not_remembered_by_the_core_that_knew_it(
    house: Storehouse,
) -> None:
    await answered(house, "a secret", "noted", "m1")
    await house.history.window(await _next_claim(house, "m2"))
    await expire(house)
    await house.redis.delete(keys.key("jobs", 0, str(THREAD)))
    await house.redis.delete("henji:{0}:leases", "henji:{0}:deadlines", "henji:{0}:open")
    window = await house.history.window(await _next_claim(house, "m3"))
    assert list(window.history) == []
    assert [stored.turn.id for stored in window.mailbox] == ["m3"]


async def _next_claim(house: Storehouse, id_: str) -> Claim:
    await house.say("next", id=id_)
    return await house.claim()


@pytest.mark.parametrize("held", [0.0, 60.0])
async def test_a_thread_that_expired_while_a_job_waits_leaves_no_key_behind(
    house: Storehouse, held: float
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
    house: Storehouse,
) -> None:
    await house.say("hello")
    claim = await house.claim()
    await expire(house)
    assert await house.reply(claim, "hi") == "fenced"
    await lose_lease(house)
    assert not await house.redis.exists(keys.key("thread", 0, str(THREAD)))
    assert not await house.redis.exists(keys.key("leases", 0))


async def test_chatter_keeps_all_of_a_thread_alive(house: Storehouse) -> None:
    await answered(house, "hello", "hi", "m1")
    parts = ("thread", "turns", "history", "counts")
    for name in parts:
        await house.redis.pexpire(keys.key(name, 0, str(THREAD)), 60_000)
    await house.say("by the way", addressed=False)
    left = [await house.redis.pttl(keys.key(name, 0, str(THREAD))) for name in parts]
    assert min(left) > 60_000


async def test_what_is_changed_outside_a_reply_has_a_lifetime_too(house: Storehouse) -> None:
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


# -- poison -------------------------------------------------------------------------------------


async def test_a_delivery_that_cannot_be_read_stops_no_other(house: Storehouse) -> None:
    poisoned = await house.say("poison", thread=replace(THREAD, thread="2.0"))
    await house.redis.hset(keys.key("delivery", 0, job_of(poisoned)), "thread", "nowhere")
    healthy = await house.say("hello")
    for receipt in (poisoned, healthy):
        await house.redis.zadd(keys.key("deliveries", 0, "slack"), {job_of(receipt): 1})
    assert [d.job for d in await house.deliveries.take("slack", "other")] == [healthy.job]


@pytest.mark.parametrize(
    "field", ["v", "thread", "turn", "lane", "author", "seed", "deadline", "arrival", "attempts"]
)
async def test_a_job_that_lacks_anything_stops_nobody(house: Storehouse, field: str) -> None:
    poisoned = await house.say("poison", thread=replace(THREAD, thread="2.0"))
    await house.redis.hdel(keys.key("job", 0, job_of(poisoned)), field)
    healthy = await house.say("hello", author="U2")
    held = await house.queue.claim(LANE, "core", 3)
    assert healthy.job in [claim.job.id for claim in held]
    for claim in held:
        await house.queue.release(claim)
    await house.queue.sweep()
    assert (await house.say("more")).outcome == "queued"


async def test_a_turn_that_cannot_be_read_is_left_out_of_its_thread(house: Storehouse) -> None:
    await answered(house, "one", "1", "m1")
    await house.redis.hset(keys.key("turns", 0, str(THREAD)), "m1", "{not json")
    await house.say("two", id="m2")
    claim = await house.claim()
    fresh = Storehouse(house.redis, house.store)
    window = await fresh.history.window(claim)
    assert [s.turn.text for s in [*window.history, *window.mailbox]] == ["1", "two"]
    assert (await edit(house, "m1", "uno")).outcome == "ignored"
    assert await house.reply(claim, "2") == "ok"
    assert await house.history.forget(SPACE, "U1") > 0
    assert not await house.redis.hexists(keys.key("turns", 0, str(THREAD)), "m1")


async def test_a_prompt_that_cannot_be_read_is_no_prompt_that_is_gone(house: Storehouse) -> None:
    await house.say("one", id="m1")
    await house.redis.hset(keys.key("turns", 0, str(THREAD)), "m1", "{not json")
    with pytest.raises(Undecodable):  # so that it is a dead letter, and can be asked again
        await house.history.window(await house.claim())


async def test_a_job_without_a_thread_keeps_no_other_from_its_end(house: Storehouse) -> None:
    poisoned = await house.say("poison", thread=replace(THREAD, thread="2.0"))
    await house.redis.hdel(keys.key("job", 0, job_of(poisoned)), "thread")
    await house.redis.zadd("henji:{0}:deadlines", {job_of(poisoned): 1})
    late = await house.say("late", thread=replace(THREAD, thread="3.0"))
    await past_deadline(house, late)
    for receipt in (poisoned, late):
        assert (await house.events(receipt.job))[-1] == Failed("deadline")
    assert await nothing_is_left_open(house)


async def test_an_event_that_cannot_be_read_keeps_no_core_from_taking_over(
    house: Storehouse,
) -> None:
    receipt = await house.say("hello")
    claim = await house.claim()
    await house.queue.publish(claim, Delta(0, "half"))
    await house.redis.xadd(keys.key("events", 0, job_of(receipt)), {"e": "{not json"})
    await house.queue.cancel(THREAD, job_of(receipt))
    await lose_lease(house)
    assert await house.texts() == ["hello", "half"]


async def test_a_dead_letter_of_nowhere_is_refused(house: Storehouse) -> None:
    await house.redis.xadd(
        keys.key("dead", 0),
        {"job": "j", "thread": "nowhere", "turn": "m1", "author": "U1", "attempts": "1",
         "code": "internal", "message": "boom"},
    )  # fmt: skip
    (letter,) = await house.queue.dead()
    assert (await house.queue.requeue(letter, LANE)).code == "prompt_gone"


async def test_a_position_is_told_while_a_reply_waits(house: Storehouse) -> None:
    await house.say("one", author="U1")
    await house.claim()
    second = await house.say("two", author="U2")
    assert await house.events(second.job) == [Queued(1)]
    assert await house.queue.positions(THREAD, [job_of(second)]) == [1]
