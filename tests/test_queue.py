"""The queue's scripts, one step at a time, against a real Valkey."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from bots.attachments import File, ReadFile, turn_of_files
from core.access_policy import OPEN_PERMIT, Permit, Quota
from core.place_rules import Persona
from core.queue_types import DeadLetter, Place, Receipt, Regeneration
from core.types import Cancelled, Delta, Done, Failed, Job, Queued, Started, ThreadKey
from storage import keys
from tests.store_fixture import (
    LANE,
    THREAD,
    StoreFixture,
    answered,
    before,
    edit,
    job_of,
    lose_lease,
)


@pytest.fixture
async def stores(redis: Redis) -> StoreFixture:
    return await StoreFixture.serving(redis, lease=0.1, backoff=0.02, max_attempts=2)


async def test_a_message_is_queued_answered_and_remembered(stores: StoreFixture) -> None:
    receipt = await stores.say("hello")
    assert (receipt.outcome, receipt.position) == ("queued", 1)
    claim = await stores.claim()
    assert claim.job.id == receipt.job
    assert await stores.queue.publish(claim, Delta(0, "hi")) == "ok"
    assert await stores.reply(claim, "hi there") == "ok"
    assert await stores.texts() == ["hello", "hi there"]
    events = await stores.events(receipt.job)
    assert events[:3] == [Queued(1), Started(1), Delta(0, "hi")]
    assert isinstance(events[3], Done)
    assert await stores.nothing_to_do()


async def test_a_follower_that_starts_late_gets_the_events_from_the_first(
    stores: StoreFixture,
) -> None:
    receipt = await stores.say("hello")
    await stores.reply(await stores.claim(), "hi")
    delivery = replace(await stores.delivery(receipt.job), position=1)
    async with asyncio.timeout(1):  # long before it would look again
        events = [event async for event in stores.deliveries.follow(delivery)]
    assert events[:2] == [Queued(1), Started(1)]
    assert [type(event) for event in events[2:]] == [Done]


async def test_a_gap_in_the_news_is_closed_without_telling_anything_twice(
    stores: StoreFixture,
) -> None:
    receipt = await stores.say("hello")
    delivery = replace(await stores.delivery(receipt.job), position=1)
    claim = await stores.claim()  # nobody follows yet, so nobody sees its start
    listening = asyncio.create_task(stores.deliveries.listen(THREAD.platform))
    events = stores.deliveries.follow(delivery)
    assert await anext(events) == Queued(1)
    await stores.reply(claim, "hi")
    rest = [type(event) async for event in events]
    listening.cancel()
    assert rest == [Started, Done]


async def test_a_message_may_have_a_persona_of_its_own(stores: StoreFixture) -> None:
    await stores.say("hello", persona=Persona(system_prompt="Be brief."))
    assert json.loads((await stores.claim()).job.persona) == {"system_prompt": "Be brief."}
    await stores.say("hello", replace(THREAD, thread="2.0"))
    assert (await stores.claim()).job.persona == ""


async def test_a_message_that_comes_twice_is_one_job(stores: StoreFixture) -> None:
    first = await stores.say("hello", id="m1", event_ids=("e1",))
    again = await stores.say("hello", id="m1", event_ids=("e1",))
    other_event = await stores.say("hello", id="m1", event_ids=("e2",))
    same_event = await stores.say("hello", id="m2", event_ids=("e1",))
    assert same_event.outcome == "duplicate"
    assert [first.outcome, again.outcome, other_event.outcome] == [
        "queued",
        "duplicate",
        "duplicate",
    ]
    await stores.reply(await stores.claim(), "hi")
    assert (await stores.say("hello", id="m1")).outcome == "duplicate"
    assert await stores.nothing_to_do()


async def test_each_outcome_of_a_message_has_its_receipt(stores: StoreFixture) -> None:
    assert await stores.say("psst", addressed=False) == Receipt("ignored")
    first = await stores.say("one", id="m1", event_ids=("e1",))
    assert first == Receipt("queued", first.job, 1)
    assert await stores.say("one", id="m1", event_ids=("e1",)) == Receipt("duplicate", first.job)
    assert await stores.say("two") == Receipt("queued", first.job, 1)
    assert await stores.say("psst", addressed=False) == Receipt("kept")
    new = replace(THREAD, thread="2.0")
    waiting = await stores.say("three", thread=new, author="U2", backfill_wait=5.0)
    assert waiting == Receipt("queued", waiting.job, new_thread=True)
    no_core = await stores.say("four", lane="nobody")
    assert no_core == Receipt("refused", no_core.job, code="no_core")
    assert no_core.job
    assert await stores.say("four", lane="nobody") == Receipt("refused", None, code="no_core")


async def test_the_keys_of_a_refusal_have_a_lifetime(stores: StoreFixture) -> None:
    assert (await stores.say("hello", lane="nobody")).job
    await stores.deliveries.take_over(THREAD.platform, "one")  # it renews the deliveries
    await stores.queue.sweep()
    names = await stores.redis.keys("*")
    assert [name for name in names if await stores.redis.ttl(name) < 0] == []


async def test_the_list_of_threads_loses_what_has_expired(stores: StoreFixture) -> None:
    await stores.say("hello")
    await stores.redis.zadd(keys.key("threads", 0), {"slack:T1:C1:old": 1})
    await stores.queue.sweep()
    assert await stores.redis.zrange(keys.key("threads", 0), 0, -1) == [str(THREAD)]


async def test_each_outcome_of_an_edit_has_its_receipt(stores: StoreFixture) -> None:
    async def edit(
        text: str, revision: str, lane: str = LANE, permit: Permit = OPEN_PERMIT, turn: str = "m1"
    ) -> Receipt:
        return await stores.queue.edit(THREAD, turn, text, revision, lane, "adapter", permit)

    assert await edit("one", "1") == Receipt("ignored")
    await stores.say("one", id="m1")
    await stores.reply(await stores.claim(), "1")
    assert await edit("one", "1") == Receipt("duplicate", Job.id_for(THREAD, "m1", "1"))
    assert await edit("one", "2") == Receipt("duplicate")
    again = await edit("two", "3")
    assert again == Receipt("queued", Job.id_for(THREAD, "m1", "3"), 1)
    assert await edit("two", "3") == Receipt("duplicate", again.job)
    running = await stores.claim()
    assert await edit("three", "4") == Receipt("queued", again.job, 1)
    await stores.reply(await stores.claim(), "3")
    assert running.job.id == again.job
    assert await edit("four", "5", "nobody") == Receipt("refused", code="no_core")
    spent = Permit(quota=Quota(person_messages=1))
    refused = await edit("six", "6", permit=spent)
    assert refused == Receipt("refused", code="quota", until=refused.until)
    assert refused.until > time.time()
    await stores.say("seven", id="m7")
    assert await edit("eight", "8") == Receipt("kept")
    await stores.reply(await stores.claim(), "7")
    assert await edit("nine", "9") == Receipt("kept")


async def test_each_outcome_of_a_press_has_its_receipt(stores: StoreFixture) -> None:
    async def press(reply: str, revision: str, lane: str = LANE) -> Receipt:
        return await stores.queue.regenerate(
            Regeneration(THREAD, reply, revision, "U1", lane=lane), "adapter"
        )

    gone = Receipt("refused", code="prompt_gone")
    assert await press("r0", "1") == gone
    old = str((await stores.say("one")).job)
    await stores.reply(await stores.claim(), "1")
    assert await press(old, "1", "nobody") == Receipt("refused", code="no_core")
    again = await press(old, "1")
    assert again == Receipt("queued", Job.id_for(THREAD, old, "1"), 1)
    assert await stores.redis.hget(keys.key("job", 0, str(again.job)), "cost") == "1"
    assert await press(old, "1") == await press(old, "2") == Receipt("duplicate", again.job)
    beginning = Regeneration(THREAD, old, "1", "U1", truncates=True, lane=LANE)
    assert await stores.queue.regenerate(beginning, "adapter") == Receipt("duplicate", again.job)
    beginning = replace(beginning, revision="2")
    assert await stores.queue.regenerate(beginning, "adapter") == gone
    letter = DeadLetter("0/1-1", "job", str(THREAD), "m1", "U1", 1, "internal", "boom")
    assert await stores.queue.requeue(letter, LANE) == Receipt("ignored")


async def test_an_addressed_copy_upgrades_one_that_was_not(stores: StoreFixture) -> None:
    await stores.say("first")
    await stores.reply(await stores.claim(), "one")
    copy = await stores.say("@henji and now?", id="m9", addressed=False, event_ids=("e1",))
    mention = await stores.say("@henji and now?", id="m9", event_ids=("e2",))
    assert [copy.outcome, mention.outcome] == ["kept", "queued"]
    await stores.reply(await stores.claim(), "two")
    assert await stores.texts() == ["first", "one", "@henji and now?", "two"]


async def test_chatter_is_kept_only_where_the_bot_takes_part(stores: StoreFixture) -> None:
    assert (await stores.say("psst", addressed=False)).outcome == "ignored"
    await stores.say("hello")
    assert (await stores.say("psst", addressed=False)).outcome == "kept"


async def test_without_a_core_the_person_gets_a_notice_at_once(stores: StoreFixture) -> None:
    receipt = await stores.say("hello", lane="nobody")
    assert (receipt.outcome, receipt.code) == ("refused", "no_core")
    assert await stores.events(receipt.job) == [Failed("no_core")]
    assert await stores.texts() == []


async def test_a_thread_is_answered_one_at_a_time_in_order(stores: StoreFixture) -> None:
    await stores.say("one", author="U1")
    claim = await stores.claim()
    await stores.say("two", author="U2")
    assert await stores.nothing_to_do()
    await stores.reply(claim, "1")
    await stores.reply(await stores.claim(), "2")
    assert await stores.texts() == ["one", "1", "two", "2"]


async def test_messages_of_one_person_that_wait_together_get_one_reply(
    stores: StoreFixture,
) -> None:
    first = await stores.say("are you there?")
    second = await stores.say("I have a question")
    assert second.job == first.job
    await stores.reply(await stores.claim(), "ask away")
    assert await stores.texts() == ["are you there?", "I have a question", "ask away"]
    assert await stores.nothing_to_do()


async def test_a_core_that_wakes_up_late_is_fenced(stores: StoreFixture) -> None:
    receipt = await stores.say("hello")
    late = await stores.claim()
    await stores.redis.zadd("henji:{0}:leases", {str(THREAD): 1})  # its lease ends
    assert (await stores.queue.sweep()).taken_over == 1
    claim = await stores.claim()
    assert claim.job.id == receipt.job
    assert await stores.queue.publish(late, Delta(0, "late")) == "fenced"
    assert await stores.reply(late, "late") == "fenced"
    assert await stores.reply(claim, "in time") == "ok"
    assert await stores.reply(claim, "again") == "fenced"
    assert await stores.texts() == ["hello", "in time"]
    assert Started(2) in await stores.events(receipt.job)


async def test_a_job_that_fails_for_good_is_a_dead_letter_and_a_sentence(
    stores: StoreFixture,
) -> None:
    receipt = await stores.say("hello")
    await stores.queue.fail(await stores.claim(), "internal", "boom", retry=True)
    assert await stores.nothing_to_do()  # it waits for its second try
    await stores.redis.zadd("henji:{0}:delayed", {str(THREAD): 1})
    await stores.queue.sweep()
    await stores.queue.fail(await stores.claim(), "internal", "boom", retry=True)
    assert (await stores.events(receipt.job))[-1] == Failed("internal", "boom")
    letters = await stores.redis.xrange("henji:{0}:dead")
    assert [fields["job"] for _, fields in letters] == [receipt.job]


async def test_a_job_under_which_two_cores_went_away_ends_with_a_sentence(
    stores: StoreFixture,
) -> None:
    receipt = await stores.say("hello")
    for _ in range(2):
        await stores.claim()
        await lose_lease(stores)
    assert (await stores.events(receipt.job))[-1] == Failed(
        "internal", "its core went away 2 times"
    )
    assert [letter.job for letter in await stores.queue.dead()] == [receipt.job]
    assert await stores.nothing_to_do()


async def test_a_job_handed_back_is_not_an_attempt(stores: StoreFixture) -> None:
    receipt = await stores.say("hello")
    for _ in range(5):
        await stores.queue.release(await stores.claim())
    assert (await stores.claim()).job.id == receipt.job


async def test_a_poisoned_job_stops_nobody(stores: StoreFixture) -> None:
    poisoned = await stores.say("hello", thread=replace(THREAD, thread="2.0"))
    await stores.redis.hset(f"henji:{{0}}:job:{poisoned.job}", "v", "99")
    healthy = await stores.say("hello")
    claims = await stores.queue.claim(LANE, "core", 2)
    assert [claim.job.id for claim in claims] == [healthy.job]
    letters = await stores.redis.xrange("henji:{0}:dead")
    assert [fields["job"] for _, fields in letters] == [poisoned.job]


async def test_the_place_of_a_poisoned_job_is_the_next_ones(stores: StoreFixture) -> None:
    for thread in ("2.0", "3.0"):
        poisoned = await stores.say("hello", thread=replace(THREAD, thread=thread))
        await stores.redis.hset(f"henji:{{0}}:job:{poisoned.job}", "v", "99")
    healthy = await stores.say("hello")
    claims = await stores.queue.claim(LANE, "core", 1)
    assert [claim.job.id for claim in claims] == [healthy.job]


async def test_stopping_a_reply_keeps_the_shown_text(stores: StoreFixture) -> None:
    receipt = await stores.say("hello")
    claim = await stores.claim()
    assert receipt.job is not None
    assert await stores.queue.cancel(THREAD, receipt.job)
    assert await stores.queue.renew([claim]) == {receipt.job: "cancelled"}
    assert await stores.reply(claim, "all of it") == "cancelled"
    assert await stores.reply(claim, "half of", finish="cancelled") == "ok"
    assert await stores.texts() == ["hello", "half of"]
    assert not await stores.queue.cancel(THREAD, receipt.job)


async def test_stopping_a_reply_that_waits_ends_it(stores: StoreFixture) -> None:
    await stores.say("one", author="U1")
    claim = await stores.claim()
    waiting = await stores.say("two", author="U2")
    assert waiting.job is not None
    assert await stores.queue.cancel(THREAD, waiting.job)
    assert (await stores.events(waiting.job))[-1] == Cancelled("person")
    await stores.reply(claim, "1")
    assert await stores.nothing_to_do()


async def test_a_thread_goes_on_after_a_stopped_reply_failed(stores: StoreFixture) -> None:
    first = await stores.say("hello")
    second = await stores.say("and you?", alone=True)
    claim = await stores.claim()
    assert first.job is not None
    await stores.queue.cancel(THREAD, first.job)
    assert await stores.queue.fail(claim, "internal", "boom", retry=True) == "cancelled"
    assert (await stores.claim()).job.id == second.job


async def test_a_stopped_reply_of_a_dead_core_ends_with_the_shown_text(
    stores: StoreFixture,
) -> None:
    receipt = await stores.say("hello")
    claim = await stores.claim()
    await stores.queue.publish(claim, Delta(0, "こん"))
    await stores.queue.publish(claim, Delta(2, "にちは"))
    assert receipt.job is not None
    await stores.queue.cancel(THREAD, receipt.job)
    await stores.redis.zadd("henji:{0}:leases", {str(THREAD): 1})
    await stores.queue.sweep()
    last = (await stores.events(receipt.job))[-1]
    assert isinstance(last, Done)
    assert (last.text, last.finish_reason) == ("こんにちは", "cancelled")


async def test_after_a_reset_nothing_from_before_is_there(stores: StoreFixture) -> None:
    await stores.say("one")
    await stores.reply(await stores.claim(), "1")
    running = await stores.say("two", author="U1")
    claim = await stores.claim()
    waiting = await stores.say("three", author="U2")
    assert await stores.history.reset(THREAD, "U1") == 4
    assert await stores.reply(claim, "2") == "fenced"
    assert await stores.texts() == []
    for job in (running.job, waiting.job):
        assert (await stores.events(job))[-1] == Cancelled("reset")
    await stores.say("four")
    await stores.reply(await stores.claim(), "4")
    assert await stores.texts() == ["four", "4"]


async def test_a_core_that_reads_a_long_thread_again_reads_what_changed(
    stores: StoreFixture,
) -> None:
    """What it has then is what a core reads that never saw the thread."""

    async def read_again() -> list[str]:
        await stores.say("and then?")
        claim = await stores.claim()
        ours, anew = [
            [stored.turn.text for stored in (await history.window(claim)).history]
            for history in (stores.history, StoreFixture.over(stores.redis).history)
        ]
        assert ours == anew
        await stores.reply(claim, "that")
        return ours

    for number in range(12):
        await answered(stores, f"ask {number}", f"reply {number}", f"m{number}")
    assert len(await read_again()) == 24
    assert (await read_again())[-2:] == ["and then?", "that"]
    await stores.queue.edit(THREAD, "m3", "ask three", "1", LANE, "adapter")
    assert "ask three" in await read_again()
    await stores.queue.delete(THREAD, "m5")
    assert "ask 5" not in await read_again()


async def test_an_edit_of_a_waiting_message_is_answered(stores: StoreFixture) -> None:
    receipt = await stores.say("helo", id="m1")
    edited = await stores.queue.edit(THREAD, "m1", "hello", "1", LANE, "adapter")
    assert edited.job == receipt.job
    window = await stores.history.window(await stores.claim())
    assert [stored.turn.text for stored in window.mailbox] == ["hello"]


async def test_an_edit_while_answered_starts_the_same_reply_over(stores: StoreFixture) -> None:
    receipt = await stores.say("helo", id="m1")
    claim = await stores.claim()
    await stores.queue.publish(claim, Delta(0, "helo?"))
    await stores.queue.edit(THREAD, "m1", "hello", "1", LANE, "adapter")
    assert await stores.reply(claim, "helo?") == "fenced"
    await stores.reply(await stores.claim(), "hi")
    assert await stores.texts() == ["hello", "hi"]
    assert Started(2) in await stores.events(receipt.job)


async def test_editing_the_newest_prompt_answers_again_in_place(stores: StoreFixture) -> None:
    first = await stores.say("helo", id="m1")
    await stores.reply(await stores.claim(), "helo?")
    again = await stores.queue.edit(THREAD, "m1", "hello", "1", LANE, "adapter")
    assert again.job not in (None, first.job)
    claim = await stores.claim()
    assert claim.job.replaces == first.job
    await stores.reply(claim, "hi")
    assert await stores.texts() == ["hello", "hi"]
    redelivered = await stores.queue.edit(THREAD, "m1", "hello", "1", LANE, "adapter")
    assert redelivered.outcome == "duplicate"


async def test_editing_an_older_prompt_changes_only_that_turn(stores: StoreFixture) -> None:
    for number in ("m1", "m2"):
        await stores.say("helo", id=number)
        await stores.reply(await stores.claim(), "hi")
    receipt = await stores.queue.edit(THREAD, "m1", "hello", "1", LANE, "adapter")
    assert receipt.outcome == "kept"
    assert await stores.texts() == ["hello", "hi", "helo", "hi"]
    stored = (await stores.history.turns(THREAD))[0]
    assert stored.tokens is None


async def test_an_edit_that_overtook_its_message_is_not_lost(stores: StoreFixture) -> None:
    await stores.queue.edit(THREAD, "m1", "hello", "1", LANE, "adapter")
    await stores.say("helo", id="m1")
    assert await stores.texts() == ["hello"]


async def test_a_deleted_prompt_leaves_with_its_reply(stores: StoreFixture) -> None:
    for number in ("m1", "m2"):
        await stores.say(number, id=number)
        await stores.reply(await stores.claim(), f"re {number}")
    await stores.queue.delete(THREAD, "m1")
    assert await stores.texts() == ["m2", "re m2"]
    assert (await stores.say("m1", id="m1")).outcome == "duplicate"


async def test_a_deleted_reply_leaves_alone(stores: StoreFixture) -> None:
    receipt = await stores.say("m1", id="m1")
    await stores.reply(await stores.claim(), "re m1")
    await stores.say("m2", id="m2")
    await stores.reply(await stores.claim(), "re m2")
    assert receipt.job is not None
    await stores.queue.delete(THREAD, receipt.job)
    assert await stores.texts() == ["m1", "m2", "re m2"]


async def test_deleting_a_prompt_that_is_answered_ends_the_reply(stores: StoreFixture) -> None:
    receipt = await stores.say("m1", id="m1")
    claim = await stores.claim()
    assert await stores.queue.delete(THREAD, "m1") == [receipt.job]
    assert await stores.reply(claim, "re m1") == "fenced"
    assert (await stores.events(receipt.job))[-1] == Cancelled("delete")
    assert await stores.texts() == []


async def test_deleting_one_of_several_messages_answers_the_rest(stores: StoreFixture) -> None:
    await stores.say("one", id="m1")
    await stores.say("two", id="m2")
    await stores.queue.delete(THREAD, "m2")
    claim = await stores.claim()
    assert claim.job.turn == "m1"
    await stores.reply(claim, "1")
    assert await stores.texts() == ["one", "1"]


async def test_a_reply_is_regenerated_in_its_place(stores: StoreFixture) -> None:
    old = await stores.say("one", id="m1")
    await stores.reply(await stores.claim(), "1")
    await stores.say("two")
    await stores.reply(await stores.claim(), "2")
    assert old.job is not None
    again = await stores.queue.regenerate(
        Regeneration(THREAD, old.job, "1", "U1", lane=LANE), "adapter"
    )
    pressed_twice = await stores.queue.regenerate(
        Regeneration(THREAD, old.job, "1", "U1", lane=LANE), "adapter"
    )
    assert pressed_twice.outcome == "duplicate"
    claim = await stores.claim()
    assert (claim.job.id, claim.job.replaces) == (again.job, old.job)
    await stores.reply(claim, "uno")
    assert await stores.texts() == ["one", "uno", "two", "2"]


async def test_a_reply_without_its_prompt_is_not_regenerated(stores: StoreFixture) -> None:
    old = await stores.say("one", id="m1")
    await stores.reply(await stores.claim(), "1", evict=("m1",))
    assert old.job is not None
    receipt = await stores.queue.regenerate(
        Regeneration(THREAD, old.job, "1", "U1", lane=LANE), "adapter"
    )
    assert (receipt.outcome, receipt.code) == ("refused", "prompt_gone")


async def test_a_message_during_a_reply_comes_after_it_in_the_history(stores: StoreFixture) -> None:
    await stores.say("one", author="U1")
    claim = await stores.claim()
    await stores.say("two", author="U2")
    await stores.reply(claim, "1")
    assert await stores.texts() == ["one", "1", "two"]


async def test_a_window_read_again_loads_only_changes(stores: StoreFixture) -> None:
    for number in range(3):
        await stores.say(f"say {number}", id=f"m{number}")
        await stores.reply(await stores.claim(), f"re {number}")
    await stores.queue.edit(THREAD, "m0", "said 0", "1", LANE, "adapter")
    await stores.queue.delete(THREAD, "m1")
    await stores.say("more")
    window = await stores.history.window(await stores.claim())
    fresh = StoreFixture(stores.redis, stores.store)
    assert [stored.turn.text for stored in window.history] == ["said 0", "re 0", "say 2", "re 2"]
    assert list(window.history) == (await fresh.history.turns(THREAD))[:-1]


async def long_conversation(stores: StoreFixture) -> None:
    """So long that this process keeps a copy of it."""
    for number in range(12):
        await stores.say(f"say {number}", id=f"m{number}")
        await stores.reply(await stores.claim(), f"re {number}")


async def test_a_core_that_knew_a_long_thread_reads_nothing_from_before_its_reset(
    stores: StoreFixture,
) -> None:
    await long_conversation(stores)
    await stores.history.reset(THREAD, "U1")
    for number in range(20):
        await stores.say(f"chatter {number}", addressed=False)
    await stores.say("and now?")
    window = await stores.history.window(await stores.claim())
    assert list(window.history) == []
    assert len(window.mailbox) == 21


async def test_a_core_that_knew_a_long_thread_misses_no_change_of_many(
    stores: StoreFixture,
) -> None:
    """Redis lists only the newest changes: who knows an older version reads all."""
    await long_conversation(stores)
    await edit(stores, "m0", "said 0")
    for number in range(1000):
        await stores.queue.delete(THREAD, f"unknown {number}")
    await stores.say("and now?")
    window = await stores.history.window(await stores.claim())
    fresh = StoreFixture(stores.redis, stores.store)
    assert list(window.history) == (await fresh.history.turns(THREAD))[:-1]
    assert window.history[0].turn.text == "said 0"


async def test_a_claim_has_each_turn_of_a_short_thread_once(stores: StoreFixture) -> None:
    await stores.say("one", id="m1")
    await stores.reply(await stores.claim(), "1")
    await stores.say("two", id="m2")
    claim = await stores.claim()
    _, _, history, mailbox = claim.window
    assert [row[2] is None for row in history] == [False, False]
    assert [row[0] for row in mailbox] == ["m2"]


async def test_new_files_of_an_edit_keep_what_else_a_reply_needs(stores: StoreFixture) -> None:
    receipt = await stores.say("what is in it?", id="m1", note={"locale": "ja"})
    file = ReadFile(File("a.txt", "text", 3, "https://files/a.txt"))
    named = turn_of_files("m1", [file])
    edited = await stores.queue.edit(
        THREAD, "m1", "and in this?", "1", LANE, "adapter", files=named, note={"files": "[]"}
    )
    assert (edited.outcome, edited.unread) == ("queued", True)
    assert (await stores.delivery(receipt.job)).note == {"locale": "ja", "files": "[]"}


async def test_behind_a_job_past_its_deadline_the_next_of_the_thread_is_claimed(
    redis: Redis,
) -> None:
    stores = await StoreFixture.serving(redis, deadline=0.001)
    await stores.say("Friday's question", author="U1")
    await stores.queue.wait("nobody", 0.01)
    stores = StoreFixture.over(redis)
    await stores.say("Monday's question", author="U2", id="monday")
    assert await stores.nothing_to_do()  # the core is woken for the next
    assert (await stores.claim()).job.turn == "monday"


async def test_a_job_past_its_deadline_ends_with_a_sentence(redis: Redis) -> None:
    stores = await StoreFixture.serving(redis, deadline=0.001)
    receipt = await stores.say("hello")
    await stores.queue.wait("nobody", 0.01)
    await stores.queue.sweep()
    assert (await stores.events(receipt.job))[-1] == Failed("deadline")
    assert await stores.nothing_to_do()


async def test_a_job_past_its_deadline_is_not_claimed_though_nobody_swept(redis: Redis) -> None:
    """As when Redis was away over the week-end."""
    stores = await StoreFixture.serving(redis, deadline=0.001)
    late = await stores.say("Friday's question")
    await stores.queue.wait("nobody", 0.01)
    assert await stores.nothing_to_do()
    assert (await stores.events(late.job))[-1] == Failed("deadline")
    stores = StoreFixture.over(redis)
    await stores.say("Monday's question", id="monday")
    assert (await stores.claim()).job.turn == "monday"


async def test_a_new_thread_waits_for_its_earlier_messages(stores: StoreFixture) -> None:
    receipt = await stores.say("and you?", backfill_wait=5.0, id="m5")
    assert receipt.new_thread
    assert await stores.nothing_to_do()
    past = [before(f"m{n}", f"said {n}") for n in range(1, 4)]
    await stores.queue.seed(THREAD, past)
    window = await stores.history.window(await stores.claim())
    texts = [stored.turn.text for stored in window.mailbox]
    assert texts == ["said 1", "said 2", "said 3", "and you?"]


async def test_messages_from_before_a_reset_are_not_seeded(stores: StoreFixture) -> None:
    await stores.history.reset(THREAD, "U1")
    await stores.say("and you?", backfill_wait=5.0, id="m5")
    await stores.queue.seed(THREAD, [before("m1", "a secret")])
    assert await stores.texts() == ["and you?"]


@pytest.mark.parametrize("is_deleted", [False, True])
async def test_messages_older_than_the_retention_time_are_not_seeded(
    redis: Redis, is_deleted: bool
) -> None:
    """As when the retention of a thread is over, and somebody calls the bot in it again."""
    stores = await StoreFixture.serving(redis, retention=3600.0)
    await stores.say("and you?", backfill_wait=5.0, id="m5", at=time.time())
    if is_deleted:
        await stores.queue.delete(THREAD, "m5")
    past = [before("m1", "long ago", ago=3601.0), before("m2", "of late", ago=3000.0)]
    await stores.queue.seed(THREAD, past)
    assert await stores.texts() == ["of late", *(["and you?"] * (not is_deleted))]


async def test_a_stale_holder_cannot_close_a_reopened_delivery(
    stores: StoreFixture,
) -> None:
    """The answer to its closing may have been lost: it says it again."""
    delivery = await stores.delivery((await stores.say("hello")).job)
    assert await stores.deliveries.close(delivery, ["b1"])
    await stores.deliveries.reopen(delivery)
    assert not await stores.deliveries.close(delivery, ["b1"])
    assert [d.job for d in await stores.deliveries.take_over("slack", "other")] == [delivery.job]


async def test_a_dead_letter_can_be_given_another_life(stores: StoreFixture) -> None:
    await stores.say("hello")
    for _ in range(2):
        await stores.redis.zadd("henji:{0}:delayed", {str(THREAD): 1})
        await stores.queue.sweep()
        await stores.queue.fail(await stores.claim(), "internal", "boom", retry=True)
    (letter,) = await stores.queue.dead()
    assert (letter.thread, letter.attempts, letter.message) == (str(THREAD), 2, "boom")
    receipt = await stores.queue.requeue(letter, LANE)
    assert receipt.outcome == "queued"
    await stores.reply(await stores.claim(), "hi, late")
    assert await stores.texts() == ["hello", "hi, late"]
    taken = await stores.deliveries.take_over("slack", "any adapter")
    assert receipt.job in [delivery.job for delivery in taken]
    assert await stores.queue.dead() == []


async def test_a_reset_of_a_channel_ends_its_replies_in_progress(stores: StoreFixture) -> None:
    elsewhere = replace(THREAD, channel="C2")
    for thread in (THREAD, elsewhere):
        await stores.say("one", thread=thread)
        await stores.reply(await stores.claim(), "1")
    running = await stores.say("two")
    claim = await stores.claim()
    await stores.history.reset_place(Place("slack", "T1", "C1"), "U1")
    assert (await stores.events(running.job))[-1] == Cancelled("reset")
    assert await stores.reply(claim, "2") == "fenced"
    assert await stores.texts() == []
    assert await stores.texts(elsewhere) == ["one", "1"]


async def test_a_reset_of_a_space_reaches_all_its_channels(stores: StoreFixture) -> None:
    other_space = replace(THREAD, space="T2")
    for thread in (THREAD, replace(THREAD, channel="C2"), other_space):
        await stores.say("one", thread=thread)
        await stores.reply(await stores.claim(), "1")
    await stores.history.reset_place(Place("slack", "T1"), "U1")
    assert await stores.texts() == await stores.texts(replace(THREAD, channel="C2")) == []
    assert await stores.texts(other_space) == ["one", "1"]


async def test_every_key_has_a_lifetime(stores: StoreFixture) -> None:
    await stores.say("one", event_ids=("e1",))
    claim = await stores.claim()
    await stores.say("two", author="U2")
    await stores.reply(claim, "1")
    await stores.queue.edit(ThreadKey("slack", "T1", "C1", "x"), "m", "t", "1", LANE, "adapter")
    await stores.queue.fail(await stores.claim(), "internal", "boom", retry=False)
    await stores.queue.sweep()
    await stores.deliveries.take_over("slack", "adapter")
    forever = [name for name in await stores.redis.keys() if await stores.redis.ttl(name) < 0]
    assert forever == []
    open_ = await stores.redis.hgetall("henji:{0}:open")
    assert open_ == {}


async def test_a_thread_lists_its_open_jobs_and_their_askers(stores: StoreFixture) -> None:
    first, second = await stores.say("one"), await stores.say("two", author="U2")
    assert await stores.queue.open_jobs(THREAD) == {first.job: "U1", second.job: "U2"}
    await stores.reply(await stores.claim(), "1")
    await stores.reply(await stores.claim(), "2")
    assert await stores.queue.open_jobs(THREAD) == {}


async def test_a_waiting_job_has_a_position(stores: StoreFixture) -> None:
    await stores.say("one", author="U1")
    await stores.claim()
    second = await stores.say("two", author="U2")
    assert await stores.events(second.job) == [Queued(1)]
    assert await stores.queue.positions(THREAD, [job_of(second)]) == [1]


async def test_no_position_is_behind_all_that_wait(stores: StoreFixture) -> None:
    for number, channel in enumerate(("C2", "C1", "C1")):
        thread = replace(THREAD, channel=channel, thread=f"{number}.0")
        last = await stores.say("hello", thread, author=f"U{number}")
    assert last.position == 3  # equal shares of two channels and two people would be 4


async def test_half_a_character_in_a_message_does_not_keep_it_from_being_answered(
    stores: StoreFixture,
) -> None:
    receipt = await stores.say("a \ud83d b \U0001f600")
    assert receipt.outcome == "queued"
    await stores.claim()
    assert await stores.texts() == ["a \ufffd b \U0001f600"]
