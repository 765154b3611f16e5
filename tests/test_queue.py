"""The queue's scripts, one step at a time, against a real Valkey."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from core.queue_types import Place, Regeneration
from core.types import Cancelled, Delta, Done, Failed, Queued, Started, ThreadKey
from tests.queue_steps import (
    before,
    job_of,
)
from tests.store_fixture import LANE, THREAD, StoreFixture


@pytest.fixture
async def house(redis: Redis) -> StoreFixture:
    house = StoreFixture.over(redis, lease=0.1, backoff=0.02, max_attempts=2)
    await house.queue.announce(LANE, "core", 60)
    return house


async def test_a_message_is_queued_answered_and_remembered(house: StoreFixture) -> None:
    receipt = await house.say("hello")
    assert (receipt.outcome, receipt.position) == ("queued", 1)
    claim = await house.claim()
    assert claim.job.id == receipt.job
    assert await house.queue.publish(claim, Delta(0, "hi")) == "ok"
    assert await house.reply(claim, "hi there") == "ok"
    assert await house.texts() == ["hello", "hi there"]
    events = await house.events(receipt.job)
    assert events[:3] == [Queued(1), Started(1), Delta(0, "hi")]
    assert isinstance(events[3], Done)
    assert await house.nothing_to_do()


async def test_who_opened_a_reply_is_told_what_happened_before_it_was_followed(
    house: StoreFixture,
) -> None:
    receipt = await house.say("hello")
    await house.reply(await house.claim(), "hi")
    delivery = replace(await house.delivery(receipt.job), position=1)
    async with asyncio.timeout(1):  # long before it would look again
        events = [event async for event in house.deliveries.follow(delivery)]
    assert events[:2] == [Queued(1), Started(1)]
    assert [type(event) for event in events[2:]] == [Done]


async def test_a_gap_in_the_news_is_closed_without_telling_anything_twice(
    house: StoreFixture,
) -> None:
    receipt = await house.say("hello")
    delivery = replace(await house.delivery(receipt.job), position=1)
    claim = await house.claim()  # nobody follows yet: that it started is missed
    listening = asyncio.create_task(house.deliveries.listen(THREAD.platform))
    events = house.deliveries.follow(delivery)
    assert await anext(events) == Queued(1)
    await house.reply(claim, "hi")
    rest = [type(event) async for event in events]
    listening.cancel()
    assert rest == [Started, Done]


async def test_a_message_that_comes_twice_is_one_job(house: StoreFixture) -> None:
    first = await house.say("hello", id="m1", event_ids=("e1",))
    again = await house.say("hello", id="m1", event_ids=("e1",))
    other_event = await house.say("hello", id="m1", event_ids=("e2",))
    assert [first.outcome, again.outcome, other_event.outcome] == [
        "queued",
        "duplicate",
        "duplicate",
    ]
    await house.reply(await house.claim(), "hi")
    assert (await house.say("hello", id="m1")).outcome == "duplicate"
    assert await house.nothing_to_do()


async def test_an_addressed_copy_upgrades_one_that_was_not(house: StoreFixture) -> None:
    await house.say("first")
    await house.reply(await house.claim(), "one")
    copy = await house.say("@henji and now?", id="m9", addressed=False, event_ids=("e1",))
    mention = await house.say("@henji and now?", id="m9", event_ids=("e2",))
    assert [copy.outcome, mention.outcome] == ["kept", "queued"]
    await house.reply(await house.claim(), "two")
    assert await house.texts() == ["first", "one", "@henji and now?", "two"]


async def test_chatter_is_kept_only_where_the_bot_takes_part(house: StoreFixture) -> None:
    assert (await house.say("psst", addressed=False)).outcome == "ignored"
    await house.say("hello")
    assert (await house.say("psst", addressed=False)).outcome == "kept"


async def test_without_a_core_the_person_is_told_at_once(house: StoreFixture) -> None:
    receipt = await house.say("hello", lane="nobody")
    assert (receipt.outcome, receipt.code) == ("refused", "no_core")
    assert await house.events(receipt.job) == [Failed("no_core")]
    assert await house.texts() == []


async def test_a_thread_is_answered_one_at_a_time_in_order(house: StoreFixture) -> None:
    await house.say("one", author="U1")
    claim = await house.claim()
    await house.say("two", author="U2")
    assert await house.nothing_to_do()
    await house.reply(claim, "1")
    await house.reply(await house.claim(), "2")
    assert await house.texts() == ["one", "1", "two", "2"]


async def test_messages_of_one_person_that_wait_together_get_one_reply(house: StoreFixture) -> None:
    first = await house.say("are you there?")
    second = await house.say("I have a question")
    assert second.job == first.job
    await house.reply(await house.claim(), "ask away")
    assert await house.texts() == ["are you there?", "I have a question", "ask away"]
    assert await house.nothing_to_do()


async def test_a_core_that_wakes_up_late_is_fenced(house: StoreFixture) -> None:
    receipt = await house.say("hello")
    late = await house.claim()
    await house.redis.zadd("henji:{0}:leases", {str(THREAD): 1})  # its lease ends
    assert await house.queue.sweep() == 1
    claim = await house.claim()
    assert claim.job.id == receipt.job
    assert await house.queue.publish(late, Delta(0, "late")) == "fenced"
    assert await house.reply(late, "late") == "fenced"
    assert await house.reply(claim, "in time") == "ok"
    assert await house.reply(claim, "again") == "fenced"
    assert await house.texts() == ["hello", "in time"]
    assert Started(2) in await house.events(receipt.job)


async def test_a_job_that_fails_for_good_is_a_dead_letter_and_a_sentence(
    house: StoreFixture,
) -> None:
    receipt = await house.say("hello")
    await house.queue.fail(await house.claim(), "internal", "boom", retry=True)
    assert await house.nothing_to_do()  # it waits for its second try
    await house.redis.zadd("henji:{0}:delayed", {str(THREAD): 1})
    await house.queue.sweep()
    await house.queue.fail(await house.claim(), "internal", "boom", retry=True)
    assert (await house.events(receipt.job))[-1] == Failed("internal", "boom")
    letters = await house.redis.xrange("henji:{0}:dead")
    assert [fields["job"] for _, fields in letters] == [receipt.job]


async def test_a_job_handed_back_is_not_an_attempt(house: StoreFixture) -> None:
    receipt = await house.say("hello")
    for _ in range(5):
        await house.queue.release(await house.claim())
    assert (await house.claim()).job.id == receipt.job


async def test_a_poisoned_job_stops_nobody(house: StoreFixture) -> None:
    poisoned = await house.say("hello", thread=replace(THREAD, thread="2.0"))
    await house.redis.hset(f"henji:{{0}}:job:{poisoned.job}", "v", "99")
    healthy = await house.say("hello")
    claims = await house.queue.claim(LANE, "core", 2)
    assert [claim.job.id for claim in claims] == [healthy.job]
    letters = await house.redis.xrange("henji:{0}:dead")
    assert [fields["job"] for _, fields in letters] == [poisoned.job]


async def test_the_place_of_a_poisoned_job_is_the_next_ones(house: StoreFixture) -> None:
    for thread in ("2.0", "3.0"):
        poisoned = await house.say("hello", thread=replace(THREAD, thread=thread))
        await house.redis.hset(f"henji:{{0}}:job:{poisoned.job}", "v", "99")
    healthy = await house.say("hello")
    claims = await house.queue.claim(LANE, "core", 1)
    assert [claim.job.id for claim in claims] == [healthy.job]


async def test_stopping_a_reply_keeps_what_was_shown(house: StoreFixture) -> None:
    receipt = await house.say("hello")
    claim = await house.claim()
    assert receipt.job is not None
    assert await house.queue.cancel(THREAD, receipt.job)
    assert await house.queue.renew([claim]) == {receipt.job: "cancelled"}
    assert await house.reply(claim, "all of it") == "cancelled"
    assert await house.reply(claim, "half of", finish="cancelled") == "ok"
    assert await house.texts() == ["hello", "half of"]
    assert not await house.queue.cancel(THREAD, receipt.job)


async def test_stopping_a_reply_that_waits_ends_it(house: StoreFixture) -> None:
    await house.say("one", author="U1")
    claim = await house.claim()
    waiting = await house.say("two", author="U2")
    assert waiting.job is not None
    assert await house.queue.cancel(THREAD, waiting.job)
    assert (await house.events(waiting.job))[-1] == Cancelled("person")
    await house.reply(claim, "1")
    assert await house.nothing_to_do()


async def test_a_thread_goes_on_where_a_stopped_reply_failed(house: StoreFixture) -> None:
    first = await house.say("hello")
    second = await house.say("and you?", alone=True)
    claim = await house.claim()
    assert first.job is not None
    await house.queue.cancel(THREAD, first.job)
    assert await house.queue.fail(claim, "internal", "boom", retry=True) == "cancelled"
    assert (await house.claim()).job.id == second.job


async def test_a_stopped_reply_whose_core_died_ends_with_what_was_shown(
    house: StoreFixture,
) -> None:
    receipt = await house.say("hello")
    claim = await house.claim()
    await house.queue.publish(claim, Delta(0, "こん"))
    await house.queue.publish(claim, Delta(2, "にちは"))
    assert receipt.job is not None
    await house.queue.cancel(THREAD, receipt.job)
    await house.redis.zadd("henji:{0}:leases", {str(THREAD): 1})
    await house.queue.sweep()
    last = (await house.events(receipt.job))[-1]
    assert isinstance(last, Done)
    assert (last.text, last.finish_reason) == ("こんにちは", "cancelled")


async def test_after_a_reset_nothing_from_before_is_there(house: StoreFixture) -> None:
    await house.say("one")
    await house.reply(await house.claim(), "1")
    running = await house.say("two", author="U1")
    claim = await house.claim()
    waiting = await house.say("three", author="U2")
    assert await house.history.reset(THREAD, "U1") == 4
    assert await house.reply(claim, "2") == "fenced"
    assert await house.texts() == []
    for job in (running.job, waiting.job):
        assert (await house.events(job))[-1] == Cancelled("reset")
    await house.say("four")
    await house.reply(await house.claim(), "4")
    assert await house.texts() == ["four", "4"]


async def test_an_edit_while_waiting_is_what_is_answered(house: StoreFixture) -> None:
    receipt = await house.say("helo", id="m1")
    edited = await house.queue.edit(THREAD, "m1", "hello", "1", LANE, "adapter")
    assert edited.job == receipt.job
    window = await house.history.window(await house.claim())
    assert [stored.turn.text for stored in window.mailbox] == ["hello"]


async def test_an_edit_while_answered_starts_the_same_reply_over(house: StoreFixture) -> None:
    receipt = await house.say("helo", id="m1")
    claim = await house.claim()
    await house.queue.publish(claim, Delta(0, "helo?"))
    await house.queue.edit(THREAD, "m1", "hello", "1", LANE, "adapter")
    assert await house.reply(claim, "helo?") == "fenced"
    await house.reply(await house.claim(), "hi")
    assert await house.texts() == ["hello", "hi"]
    assert Started(2) in await house.events(receipt.job)


async def test_editing_the_newest_prompt_answers_again_in_place(house: StoreFixture) -> None:
    first = await house.say("helo", id="m1")
    await house.reply(await house.claim(), "helo?")
    again = await house.queue.edit(THREAD, "m1", "hello", "1", LANE, "adapter")
    assert again.job not in (None, first.job)
    claim = await house.claim()
    assert claim.job.replaces == first.job
    await house.reply(claim, "hi")
    assert await house.texts() == ["hello", "hi"]
    redelivered = await house.queue.edit(THREAD, "m1", "hello", "1", LANE, "adapter")
    assert redelivered.outcome == "duplicate"


async def test_editing_an_older_prompt_changes_only_that_turn(house: StoreFixture) -> None:
    for number in ("m1", "m2"):
        await house.say("helo", id=number)
        await house.reply(await house.claim(), "hi")
    receipt = await house.queue.edit(THREAD, "m1", "hello", "1", LANE, "adapter")
    assert receipt.outcome == "kept"
    assert await house.texts() == ["hello", "hi", "helo", "hi"]
    stored = (await house.history.turns(THREAD))[0]
    assert stored.tokens is None


async def test_an_edit_that_overtook_its_message_is_not_lost(house: StoreFixture) -> None:
    await house.queue.edit(THREAD, "m1", "hello", "1", LANE, "adapter")
    await house.say("helo", id="m1")
    assert await house.texts() == ["hello"]


async def test_a_deleted_prompt_leaves_with_its_reply(house: StoreFixture) -> None:
    for number in ("m1", "m2"):
        await house.say(number, id=number)
        await house.reply(await house.claim(), f"re {number}")
    await house.queue.delete(THREAD, "m1")
    assert await house.texts() == ["m2", "re m2"]
    assert (await house.say("m1", id="m1")).outcome == "duplicate"


async def test_a_deleted_reply_leaves_alone(house: StoreFixture) -> None:
    receipt = await house.say("m1", id="m1")
    await house.reply(await house.claim(), "re m1")
    await house.say("m2", id="m2")
    await house.reply(await house.claim(), "re m2")
    assert receipt.job is not None
    await house.queue.delete(THREAD, receipt.job)
    assert await house.texts() == ["m1", "m2", "re m2"]


async def test_deleting_a_prompt_that_is_answered_ends_the_reply(house: StoreFixture) -> None:
    receipt = await house.say("m1", id="m1")
    claim = await house.claim()
    assert await house.queue.delete(THREAD, "m1") == [receipt.job]
    assert await house.reply(claim, "re m1") == "fenced"
    assert (await house.events(receipt.job))[-1] == Cancelled("delete")
    assert await house.texts() == []


async def test_deleting_one_of_several_messages_answers_the_rest(house: StoreFixture) -> None:
    await house.say("one", id="m1")
    await house.say("two", id="m2")
    await house.queue.delete(THREAD, "m2")
    claim = await house.claim()
    assert claim.job.turn == "m1"
    await house.reply(claim, "1")
    assert await house.texts() == ["one", "1"]


async def test_a_reply_is_regenerated_in_its_place(house: StoreFixture) -> None:
    old = await house.say("one", id="m1")
    await house.reply(await house.claim(), "1")
    await house.say("two")
    await house.reply(await house.claim(), "2")
    assert old.job is not None
    again = await house.queue.regenerate(
        Regeneration(THREAD, old.job, "1", "U1", lane=LANE), "adapter"
    )
    pressed_twice = await house.queue.regenerate(
        Regeneration(THREAD, old.job, "1", "U1", lane=LANE), "adapter"
    )
    assert pressed_twice.outcome == "duplicate"
    claim = await house.claim()
    assert (claim.job.id, claim.job.replaces) == (again.job, old.job)
    await house.reply(claim, "uno")
    assert await house.texts() == ["one", "uno", "two", "2"]


async def test_a_reply_whose_prompt_is_gone_is_not_regenerated(house: StoreFixture) -> None:
    old = await house.say("one", id="m1")
    await house.reply(await house.claim(), "1", evict=("m1",))
    assert old.job is not None
    receipt = await house.queue.regenerate(
        Regeneration(THREAD, old.job, "1", "U1", lane=LANE), "adapter"
    )
    assert (receipt.outcome, receipt.code) == ("refused", "prompt_gone")


async def test_what_comes_while_a_reply_is_written_stands_behind_it(house: StoreFixture) -> None:
    await house.say("one", author="U1")
    claim = await house.claim()
    await house.say("two", author="U2")
    await house.reply(claim, "1")
    assert await house.texts() == ["one", "1", "two"]


async def test_a_window_read_again_brings_only_what_changed(house: StoreFixture) -> None:
    for number in range(3):
        await house.say(f"say {number}", id=f"m{number}")
        await house.reply(await house.claim(), f"re {number}")
    await house.queue.edit(THREAD, "m0", "said 0", "1", LANE, "adapter")
    await house.queue.delete(THREAD, "m1")
    await house.say("more")
    window = await house.history.window(await house.claim())
    fresh = StoreFixture(house.redis, house.store)
    assert [stored.turn.text for stored in window.history] == ["said 0", "re 0", "say 2", "re 2"]
    assert list(window.history) == (await fresh.history.turns(THREAD))[:-1]


async def test_a_job_past_its_deadline_ends_with_a_sentence(redis: Redis) -> None:
    house = StoreFixture.over(redis, deadline=0.001)
    await house.queue.announce(LANE, "core", 60)
    receipt = await house.say("hello")
    await house.queue.wait("nobody", 0.01)
    await house.queue.sweep()
    assert (await house.events(receipt.job))[-1] == Failed("deadline")
    assert await house.nothing_to_do()


async def test_a_job_past_its_deadline_is_not_claimed_though_nobody_swept(redis: Redis) -> None:
    """As when Redis was away over the week-end."""
    house = StoreFixture.over(redis, deadline=0.001)
    await house.queue.announce(LANE, "core", 60)
    late = await house.say("Friday's question")
    await house.queue.wait("nobody", 0.01)
    assert await house.nothing_to_do()
    assert (await house.events(late.job))[-1] == Failed("deadline")
    house = StoreFixture.over(redis)
    await house.say("Monday's question", id="monday")
    assert (await house.claim()).job.turn == "monday"


async def test_a_new_thread_waits_for_what_was_said_before(house: StoreFixture) -> None:
    receipt = await house.say("and you?", hold=5.0, id="m5")
    assert receipt.new_thread
    assert await house.nothing_to_do()
    past = [before(f"m{n}", f"said {n}") for n in range(1, 4)]
    await house.queue.seed(THREAD, past)
    window = await house.history.window(await house.claim())
    texts = [stored.turn.text for stored in window.mailbox]
    assert texts == ["said 1", "said 2", "said 3", "and you?"]


async def test_what_was_said_before_a_reset_is_not_read_again(house: StoreFixture) -> None:
    await house.history.reset(THREAD, "U1")
    await house.say("and you?", hold=5.0, id="m5")
    await house.queue.seed(THREAD, [before("m1", "a secret")])
    assert await house.texts() == ["and you?"]


async def test_what_is_older_than_anything_is_kept_is_not_read_again(redis: Redis) -> None:
    """As when the retention of a thread is over, and somebody calls the bot in it again."""
    house = StoreFixture.over(redis, retention=3600.0)
    await house.queue.announce(LANE, "core", 60)
    await house.say("and you?", hold=5.0, id="m5", at=time.time())
    past = [before("m1", "long ago", ago=3601.0), before("m2", "of late", ago=3000.0)]
    await house.queue.seed(THREAD, past)
    assert await house.texts() == ["of late", "and you?"]


async def test_who_closed_a_delivery_cannot_close_it_again_once_it_was_reopened(
    house: StoreFixture,
) -> None:
    """The answer to its closing may have been lost: it says it again."""
    delivery = await house.delivery((await house.say("hello")).job)
    assert await house.deliveries.close(delivery, ["b1"])
    await house.deliveries.reopen(delivery)
    assert not await house.deliveries.close(delivery, ["b1"])
    assert [d.job for d in await house.deliveries.take("slack", "other")] == [delivery.job]


async def test_a_dead_letter_can_be_given_another_life(house: StoreFixture) -> None:
    await house.say("hello")
    for _ in range(2):
        await house.redis.zadd("henji:{0}:delayed", {str(THREAD): 1})
        await house.queue.sweep()
        await house.queue.fail(await house.claim(), "internal", "boom", retry=True)
    (letter,) = await house.queue.dead()
    assert (letter.thread, letter.attempts, letter.message) == (str(THREAD), 2, "boom")
    receipt = await house.queue.requeue(letter, LANE)
    assert receipt.outcome == "queued"
    await house.reply(await house.claim(), "hi, late")
    assert await house.texts() == ["hello", "hi, late"]
    taken = await house.deliveries.take("slack", "any adapter")
    assert receipt.job in [delivery.job for delivery in taken]
    assert await house.queue.dead() == []


async def test_a_reset_of_a_channel_ends_what_is_under_way_there(house: StoreFixture) -> None:
    elsewhere = replace(THREAD, channel="C2")
    for thread in (THREAD, elsewhere):
        await house.say("one", thread=thread)
        await house.reply(await house.claim(), "1")
    running = await house.say("two")
    claim = await house.claim()
    await house.history.reset_place(Place("slack", "T1", "C1"), "U1")
    assert (await house.events(running.job))[-1] == Cancelled("reset")
    assert await house.reply(claim, "2") == "fenced"
    assert await house.texts() == []
    assert await house.texts(elsewhere) == ["one", "1"]


async def test_a_reset_of_a_space_reaches_all_its_channels(house: StoreFixture) -> None:
    other_space = replace(THREAD, space="T2")
    for thread in (THREAD, replace(THREAD, channel="C2"), other_space):
        await house.say("one", thread=thread)
        await house.reply(await house.claim(), "1")
    await house.history.reset_place(Place("slack", "T1"), "U1")
    assert await house.texts() == await house.texts(replace(THREAD, channel="C2")) == []
    assert await house.texts(other_space) == ["one", "1"]


async def test_every_key_has_a_lifetime(house: StoreFixture) -> None:
    await house.say("one", event_ids=("e1",))
    claim = await house.claim()
    await house.say("two", author="U2")
    await house.reply(claim, "1")
    await house.queue.edit(ThreadKey("slack", "T1", "C1", "x"), "m", "t", "1", LANE, "adapter")
    await house.queue.fail(await house.claim(), "internal", "boom", retry=False)
    await house.queue.sweep()
    await house.deliveries.take("slack", "adapter")
    forever = [name for name in await house.redis.keys() if await house.redis.ttl(name) < 0]
    assert forever == []
    open_ = await house.redis.hgetall("henji:{0}:open")
    assert open_ == {}


async def test_a_thread_says_which_replies_it_is_owed_and_to_whom(house: StoreFixture) -> None:
    first, second = await house.say("one"), await house.say("two", author="U2")
    assert await house.queue.owed(THREAD) == {first.job: "U1", second.job: "U2"}
    await house.reply(await house.claim(), "1")
    await house.reply(await house.claim(), "2")
    assert await house.queue.owed(THREAD) == {}


async def test_a_position_is_told_while_a_reply_waits(house: StoreFixture) -> None:
    await house.say("one", author="U1")
    await house.claim()
    second = await house.say("two", author="U2")
    assert await house.events(second.job) == [Queued(1)]
    assert await house.queue.positions(THREAD, [job_of(second)]) == [1]


async def test_half_a_character_in_a_message_does_not_keep_it_from_being_answered(
    house: StoreFixture,
) -> None:
    receipt = await house.say("a \ud83d b \U0001f600")
    assert receipt.outcome == "queued"
    await house.claim()
    assert await house.texts() == ["a \ufffd b \U0001f600"]
