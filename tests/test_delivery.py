"""The delivery of a reply: stories on a stand-in for the real platforms."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC
from itertools import islice
from typing import Any, TypeVar, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from bots import delivery, strings
from bots.platform import (
    EditRefused,
    Incoming,
    MessageGone,
    MessageTooLong,
    PlatformRefused,
    Status,
)
from bots.relay import Relay, RelaySettings
from bots.view import View
from core.access_policy import Asker
from core.background import first_of
from core.errors import StoreUnavailable
from core.queue_types import OPENED, Claim, Delivery, Place, Receipt, Regeneration
from core.types import Delta, Done, Duel, Failed, FileRead, ReplyEvent, ThreadKey, Usage
from storage import deliveries, keys
from storage.queue import RedisQueue
from storage.store import Limits
from tests.open_access import EVERYBODY
from tests.simulated_platform import Board, SimulatedPlatform, Wire, at_once
from tests.store_fixture import LANE, StoreFixture
from tests.waiting import until

T = TypeVar("T")

THREAD = ThreadKey("stand-in", "T1", "C1", "1.0")
LEASE = 0.4
LONG = " ".join(["word"] * 70)
"""Four messages of a hundred characters."""


@dataclass
class Story:
    """People, a core that is played by hand, and relays in front of one board."""

    stores: StoreFixture
    board: Board = field(default_factory=Board)
    number: int = 0
    lease: float = LEASE
    call_seconds: float = 0.1
    part_length: int = 100

    def relay(self, holder: str = "one", wire: Wire = at_once) -> Relay:
        simulated = SimulatedPlatform(
            self.board,
            part_length=self.part_length,
            call_seconds=self.call_seconds,
            wire=wire,
        )
        process_settings = RelaySettings(
            LANE, holder, lease=self.lease, take_over=0.05, drain=0.05, access=EVERYBODY
        )
        return Relay(simulated, self.stores.of_a_platform(), process_settings)

    @asynccontextmanager
    async def running(self, holder: str = "one", wire: Wire = at_once) -> AsyncIterator[Relay]:
        """A relay at work; leaving it is its process's clean end."""
        relay, stop = self.relay(holder, wire), asyncio.Event()
        work = asyncio.create_task(relay.run(stop))
        try:
            yield relay
        finally:
            stop.set()
            await work

    async def say(self, relay: Relay, text: str, id_: str = "") -> str:
        """A message to the bot; its job."""
        self.number += 1
        turn = self.board.say(THREAD, id_ or f"m{self.number}", "U1", text)
        return job_of(await relay.submit(Incoming(THREAD, turn, addressed=True)))

    async def begin(self, relay: Relay) -> Claim:
        """The message "hello", and its reply, which shows "hi" so far."""
        await self.say(relay, "hello")
        claim = await self.stores.claim()
        await self.stores.queue.publish(claim, Delta(0, "hi"))
        await until(lambda: _shown(self, ["hi"]))
        return claim

    async def answer(self, text: str) -> Claim:
        claim = await self.stores.claim()
        await self.stores.reply(claim, text)
        return claim

    async def shows(self, *messages: str) -> None:
        """Wait until the board reads so, and every delivery is over."""

        async def so() -> bool:
            open_ = await self.stores.redis.exists("henji:{0}:deliveries:stand-in")
            return self.board.shown() == list(messages) and not open_

        try:
            await until(so, 5)
        except TimeoutError:
            pytest.fail(f"the board shows {self.board.shown()}, not {messages}")


def job_of(receipt: Receipt) -> str:
    assert receipt.job is not None
    return receipt.job


@dataclass
class Trouble:
    """A wire on which some calls go wrong: how each call of that name fails, in turn."""

    troubles: dict[str, list[str]]
    called: list[str] = field(default_factory=list)
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    landed: asyncio.Event = field(default_factory=asyncio.Event)
    """What was held has taken effect."""

    async def __call__(self, name: str, effect: Callable[[], Awaitable[T]]) -> T:
        self.called.append(name)
        trouble = self.troubles[name].pop(0) if self.troubles.get(name) else ""
        match trouble:
            case "fails":
                raise OSError("no connection")
            case "is refused":
                raise PlatformRefused("the channel is gone")
            case "may not be edited":
                raise EditRefused("the time to edit is over")
            case "is deleted":
                raise MessageGone("no such message")
            case "is too long":
                raise MessageTooLong(100)
            case "is held":
                await self._hold()
                done = await effect()
                self.landed.set()
                return done
            case "answers late":
                done = await effect()
                await self._hold()
                return done
            case "loses its answer":
                await effect()
                raise OSError("no answer")
        return await effect()

    async def _hold(self) -> None:
        self.reached.set()
        await self.released.wait()


@pytest.fixture
async def story(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Story:
    monkeypatch.setattr(delivery, "RETRY_SECONDS", (0.01, 0.01))
    monkeypatch.setattr(deliveries, "LOOK_AGAIN", 0.2)  # for relays that do not listen
    stores = await StoreFixture.serving(redis, delivery_lease=LEASE)
    return Story(stores)


# -- the messages -------------------------------------------------------------------------------


async def test_a_reply_is_posted_once_and_edited_as_it_grows(story: Story) -> None:
    wire = Trouble({})
    async with story.running(wire=wire) as relay:
        claim = await story.begin(relay)
        await story.stores.queue.publish(claim, Delta(2, " there"))
        await until(lambda: _shown(story, ["hi there"]))
        await story.stores.reply(claim, "hi there!")
        await story.shows("hi there!")
    assert wire.called.count("post") == 1


async def test_only_the_end_of_a_reply_takes_the_place_of_an_end(story: Story) -> None:
    async with story.running() as relay:
        claim = await story.begin(relay)
        await story.stores.queue.publish(claim, Delta(2, " there"))
        await until(lambda: _shown(story, ["hi there"]))
        assert set(story.board.paced) == {False}
        await story.stores.reply(claim, "hi there!")
        await story.shows("hi there!")
    assert story.board.paced[-1]


async def test_a_status_does_not_wait_for_the_limits_of_replies(story: Story) -> None:
    async with story.running() as relay:
        await story.say(relay, "hello")
        await until(lambda: _has_status(story))
        assert story.board.paced == []


def _alone(story: Story, after: delivery.ReplyDelivery | None = None) -> delivery.ReplyDelivery:
    """A delivery that the store does not know."""
    told = Delivery("0" * 24, THREAD, "m1", "U1", token=1)
    platform = SimulatedPlatform(story.board, part_length=300)
    return delivery.ReplyDelivery(
        told, platform, story.stores.deliveries, "en", LEASE, after=after, zone=UTC
    )


async def test_a_process_that_lost_its_lease_shows_no_status(story: Story) -> None:
    held = _alone(story)
    held.confirmed -= LEASE
    with pytest.raises(delivery.LeaseLost):
        await held._show_status(View(status=Status("thinking")))
    assert story.board.statuses == []


async def test_a_reply_that_waits_for_its_turn_looks_only_when_something_happens(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []

    async def counted(*waits: Any) -> None:
        looks.append(1)
        await first_of(*waits)

    monkeypatch.setattr(delivery, "first_of", counted)
    first = _alone(story)
    second = _alone(story, after=first)
    waiting = asyncio.create_task(second._wait_for_turn())
    second._set_view(View("hi"))
    await until(lambda: _has_looked(looks, 2))
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(looks) == 2
    first.finished.set()
    await waiting


async def test_a_reply_that_waits_for_its_turn_shows_its_place(story: Story) -> None:
    first = _alone(story)
    second = _alone(story, after=first)
    waiting = asyncio.create_task(second._wait_for_turn())
    second.set_status(Status("queued", 3))
    await until(lambda: _has_status(story))
    first.finished.set()
    await waiting


async def test_a_recorded_message_renews_the_lease(story: Story) -> None:
    job = await story.say(story.relay("one"), "hello")
    held = await story.stores.delivery(job, THREAD)
    open_ = keys.key("deliveries", story.stores.store.bucket(THREAD), THREAD.platform)
    await story.stores.redis.zadd(open_, {job: 1}, xx=True)
    assert await story.stores.deliveries.record(held, ["b1"], None)
    assert await story.stores.redis.zscore(open_, job) > 1000 * time.time()


async def test_a_reply_is_not_written_before_the_one_above_it(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []

    async def counted(*events: Any) -> None:
        waits.append(1)
        await first_of(*events)

    monkeypatch.setattr(delivery, "first_of", counted)
    second = _alone(story, after=_alone(story))
    writing = asyncio.create_task(second._write_until_end())
    second._set_view(View("hi"))
    await until(lambda: _has_looked(waits, 1))
    second.set_status(Status("thinking"))  # too late: it has words
    assert story.board.paced == []
    writing.cancel()


def test_retries_slow_down_and_go_on() -> None:
    assert list(islice(delivery.pauses(), 8)) == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]


async def test_a_lease_is_renewed_when_half_of_it_has_passed(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = _alone(story)
    renewed: list[Delivery] = []

    async def renew(deliveries: Sequence[Delivery]) -> dict[str, bool]:
        renewed.extend(deliveries)
        return {one.job: True for one in deliveries}

    monkeypatch.setattr(story.stores.deliveries, "renew", renew)
    held.lease = 1000.0
    held.confirmed -= 400
    await held._confirm()
    assert renewed == []
    held.confirmed -= 200
    await held._confirm()
    await held._confirm()
    assert renewed == [held.delivery]


async def test_a_status_is_shown_until_there_are_words(story: Story) -> None:
    held = _alone(story)
    held.set_status(Status("queued", 3))
    assert held.view.status == Status("queued", 3)
    assert held._changed.is_set()
    held._set_view(View("hi"))
    held.set_status(Status("queued", 2))
    assert held.view == View("hi")


async def test_a_follower_that_redis_cut_off_reads_all_events_again(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    paused: list[float] = []

    async def sleep(seconds: float) -> None:
        paused.append(seconds)

    class CutOff:
        async def follow(self, followed: Delivery) -> AsyncIterator[ReplyEvent]:
            begun.append(followed.position)
            yield Delta(0, "hi")
            if len(begun) == 1:
                raise StoreUnavailable
            yield Done("hi", "stop", Usage(1, 1))

    held = _alone(story)
    held.delivery = replace(held.delivery, position=7)
    held.deliveries = cast("Any", CutOff())
    monkeypatch.setattr(asyncio, "sleep", sleep)
    await held._read()
    assert (begun, paused) == ([7, 0], [0.5])
    assert held._ended.is_set()


async def test_a_reply_that_cannot_be_followed_ends_with_a_sentence(story: Story) -> None:
    class Odd:
        async def follow(self, followed: Delivery) -> AsyncIterator[ReplyEvent]:
            yield Delta(0, "hi")
            raise ValueError("an event that cannot be read")

    held = _alone(story)
    held.deliveries = cast("Any", Odd())
    await held._read()
    assert held.view == View("hi", end=Failed("internal"))


async def test_no_call_is_made_after_the_lease_was_lost(story: Story) -> None:
    held, calls = _alone(story), []

    async def call() -> None:
        calls.append(1)

    held.confirmed -= LEASE
    with pytest.raises(delivery.LeaseLost):
        await held._call(call)
    assert calls == []


@dataclass
class NotYet:
    """Another process closes the reply at the third look."""

    delivery: Delivery
    looks: int = 0

    async def closed(self, thread: ThreadKey, job: str) -> bool:
        self.looks += 1
        return self.looks == 3

    async def get(self, thread: ThreadKey, job: str) -> Delivery:
        return self.delivery

    async def renew(self, held: Sequence[Delivery]) -> dict[str, bool]:
        return {one.job: False for one in held}


async def test_another_process_is_looked_at_in_pauses(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    removed: list[str] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def remove(of: Delivery, message: str) -> None:
        removed.append(message)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    held = _alone(story)
    monkeypatch.setattr(held.platform, "remove", remove)
    held.lease = 1000.0
    held.deliveries = cast("Any", NotYet(replace(held.delivery, messages=("b1",))))
    assert await held._predecessor("1" * 24) == ("b1",)
    held.deliveries = cast("Any", NotYet(replace(held.delivery, messages=())))
    await held._withdraw(0, "b2")
    assert (slept, removed) == ([0.1] * 4, ["b2"])


async def test_a_takeover_writes_the_end_again_when_the_last_holder_must_know_of_it(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    held = _alone(story)
    held.lease = 1000.0
    await held._repeat_end(time.monotonic())
    assert slept == []  # nobody held it before
    held.delivery = replace(held.delivery, token=OPENED + 1)
    await held._repeat_end(time.monotonic())
    assert slept == [pytest.approx(500.0 + held.platform.call_seconds, abs=50)]


async def test_a_post_of_an_earlier_process_is_looked_for_again_when_its_call_is_over(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    found = [None, "b1"]

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def find(of: Delivery, index: int) -> str | None:
        return found.pop(0)

    async def record(of: Delivery, messages: Sequence[str], posting: int | None) -> bool:
        return True

    held = _alone(story)
    held.lease = 1000.0
    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(held.platform, "call_seconds", 500.0)
    monkeypatch.setattr(held.platform, "find", find)
    monkeypatch.setattr(held.deliveries, "record", record)
    await held._find_unrecorded(0)
    assert slept == [pytest.approx(500.0, abs=50)]
    assert held._messages == ["b1"]


async def test_a_process_that_waits_for_another_ones_reply_keeps_its_lease(story: Story) -> None:
    held = _alone(story)
    ports = NotYet(held.delivery)
    held.deliveries = cast("Any", ports)
    held.confirmed -= LEASE
    with pytest.raises(delivery.LeaseLost):
        await held._predecessor("1" * 24)
    assert ports.looks == 1


async def test_the_end_of_a_reply_does_not_wait_for_the_pace_of_its_words(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    paced: list[bool] = []

    async def pace(of: Delivery, *, final: bool) -> None:
        paced.append(final)
        if not final:
            held._set_view(replace(held.view, end=Done("hi", "stop", Usage(1, 1))))
            await asyncio.Event().wait()

    held = _alone(story)
    monkeypatch.setattr(held.platform, "pace", pace)
    held._set_view(View("hi"))
    await held._pace()
    assert paced == [False, True]


async def test_a_message_is_disowned_before_it_is_removed(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its removal comes back as an event: nobody may take it for a person's."""
    done: list[object] = []

    async def disown(of: Delivery, messages: Sequence[str]) -> bool:
        done.append(list(messages))
        return True

    async def remove(of: Delivery, message: str) -> None:
        done.append(message)

    held = _alone(story)
    held.lease = 1000.0
    monkeypatch.setattr(held.deliveries, "disown", disown)
    monkeypatch.setattr(held.platform, "remove", remove)
    await held._remove_messages(["b1", "b2"])
    assert done == [["b1", "b2"], "b1", "b2"]


async def test_a_duplicate_that_may_not_be_removed_is_left(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[str] = []

    async def find(of: Delivery, index: int) -> str | None:
        return None if "b2" in of.messages else "b2"

    async def remove(of: Delivery, message: str) -> None:
        removed.append(message)
        assert len(removed) == 1
        raise PlatformRefused("too old")

    held = _alone(story)
    held.lease = 1000.0
    monkeypatch.setattr(held.platform, "find", find)
    monkeypatch.setattr(held.platform, "remove", remove)
    await held._remove_duplicates(0)
    assert removed == ["b2"]


def test_the_answers_of_a_duel_are_apart_only_if_they_do_not_fit(story: Story) -> None:
    held = _alone(story)
    short = Done("", "stop", Usage(1, 2), duel=Duel("one", "two"))
    assert len(held._parts(View(end=short))) == 1
    held._part_length = 120
    long = Done("", "stop", Usage(1, 2), duel=Duel("one " * 50, "two " * 50))
    parts = held._parts(View(end=long))
    assert len(parts) > 3
    assert all(len(part.text) <= 120 for part in parts)
    assert not any("one" in part.text and "two" in part.text for part in parts)


async def test_a_message_that_may_not_be_removed_is_not_looked_for(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = _alone(story)
    known: list[str] = []

    async def remove(of: Delivery, message: str) -> None:
        raise PlatformRefused("too old")

    async def find(of: Delivery, index: int) -> None:
        known.extend(of.messages)

    held.lease = 1000.0
    monkeypatch.setattr(held.platform, "remove", remove)
    monkeypatch.setattr(held.platform, "find", find)
    await held._remove_if_possible("b1")
    await held._find(0)
    assert known == ["b1"]


async def test_a_removal_without_the_lease_is_tried_again_after_a_pause(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    results = [OSError("no connection"), OSError("no connection"), None, OSError("not tried")]

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def remove() -> None:
        if error := results.pop(0):
            raise error

    monkeypatch.setattr(asyncio, "sleep", sleep)
    await _alone(story)._without_lease(remove)
    assert (slept, len(results)) == ([0.01, 0.01], 1)


async def test_a_long_note_leaves_its_last_part_shorter(story: Story) -> None:
    files = tuple(FileRead("f" * 60, 5, 10) for _ in range(3))
    end = Done("word " * 100, "stop", Usage(1, 2), files=files)
    parts = _alone(story)._parts(View(end.text, end=end))
    assert len(parts[-1].note) > delivery.NOTE_LENGTH
    assert len(parts[-1].text) + len(parts[-1].note) <= 300 + delivery.NOTE_LENGTH
    assert " ".join(part.text for part in parts).split() == end.text.split()


async def test_a_note_of_one_character_too_many_takes_it_from_the_words(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = Done("w" * 300, "length", Usage(1, 2))
    (whole,) = _alone(story)._parts(View(end.text, end=end))
    assert whole.note
    monkeypatch.setattr(delivery, "NOTE_LENGTH", len(whole.note) - 1)
    parts = _alone(story)._parts(View(end.text, end=end))
    assert [len(part.text) for part in parts] == [299, 1]


async def _has_looked(looks: list[int], times: int) -> bool:
    return len(looks) >= times


async def _has_status(story: Story) -> bool:
    return bool(story.board.statuses)


async def _is_over(relay: Relay, job: str) -> bool:
    return not relay.delivers(job)


async def _shown(story: Story, messages: list[str]) -> bool:
    return story.board.shown() == messages


async def test_a_long_reply_is_several_messages_and_a_shorter_one_takes_them_back(
    story: Story,
) -> None:
    async with story.running() as relay:
        await story.say(relay, "hello")
        reply = (await story.answer(LONG)).job.id
        await until(lambda: _settled(story))
        assert " ".join(story.board.shown()) == LONG
        assert len(story.board.shown()) == 4
        await relay.regenerate(Regeneration(THREAD, reply, "1", "U1"))
        await story.answer("short")
        await story.shows("short")


async def _settled(story: Story) -> bool:
    return not await story.stores.redis.exists("henji:{0}:deliveries:stand-in")


async def test_a_reply_that_starts_over_keeps_its_message(story: Story) -> None:
    async with story.running() as relay:
        await story.say(relay, "helo", id_="m1")
        claim = await story.stores.claim()
        await story.stores.queue.publish(claim, Delta(0, "helo is no word"))
        await until(lambda: _shown(story, ["helo is no word"]))
        await relay.edited(Asker(THREAD, "U1"), "m1", "hello", "1")
        await story.answer("hi")
        await story.shows("hi")
    assert len(story.board.messages) == 1


async def test_an_edit_of_the_newest_prompt_is_answered_in_the_same_message(
    story: Story,
) -> None:
    async with story.running() as relay:
        await story.say(relay, "helo", id_="m1")
        await story.answer("what?")
        await story.shows("what?")
        await relay.edited(Asker(THREAD, "U1"), "m1", "hello", "1")
        await story.answer("hi")
        await story.shows("hi")
    assert len(story.board.messages) == 1


async def test_a_reply_without_words_says_so(story: Story) -> None:
    async with story.running() as relay:
        await story.say(relay, "hello")
        await story.answer("")
        await story.shows("The model had nothing to say to that.")


async def test_a_stopped_reply_says_so_under_its_text(story: Story) -> None:
    async with story.running() as relay:
        job = await story.say(relay, "hello")
        claim = await story.stores.claim()
        await relay.stop(THREAD, job)
        await story.stores.reply(claim, "half of", finish="cancelled")
        await story.shows("half of | Stopped.")


async def test_a_reset_says_so_in_replies_under_way_and_in_those_that_wait(story: Story) -> None:
    async with story.running() as relay:
        await story.say(relay, "one", id_="m1")
        claim = await story.stores.claim()
        await story.stores.queue.publish(claim, Delta(0, "half of"))
        await until(lambda: _shown(story, ["half of"]))
        await story.say(relay, "two")
        await relay.reset(THREAD, "U1")
        sentence = "This conversation was reset, so the reply ended here."
        await story.shows(f"half of | {sentence}", sentence)


async def test_a_reset_of_a_reply_that_starts_over_leaves_no_half_reply_alone(
    story: Story,
) -> None:
    async with story.running() as relay:
        await story.say(relay, "helo", id_="m1")
        claim = await story.stores.claim()
        await story.stores.queue.publish(claim, Delta(0, "half of"))
        await until(lambda: _shown(story, ["half of"]))
        await relay.edited(Asker(THREAD, "U1"), "m1", "hello", "1")
        await story.stores.claim()  # the shown text is gone now
        await relay.reset(THREAD, "U1")
        await story.shows("This conversation was reset, so the reply ended here.")


async def test_a_question_deleted_before_there_was_an_answer_gets_none(story: Story) -> None:
    async with story.running() as relay:
        await story.say(relay, "hello", id_="m1")
        await relay.deleted(THREAD, "m1")
        await story.shows()


async def test_a_stopped_regeneration_leaves_the_old_reply(
    story: Story,
) -> None:
    async with story.running() as relay:
        await story.say(relay, "hello")
        reply = (await story.answer("hi")).job.id
        await story.shows("hi")
        again = await relay.regenerate(Regeneration(THREAD, reply, "1", "U1"))
        await relay.stop(THREAD, job_of(again))
        await story.shows("hi")


async def test_deleting_the_bots_message_forgets_the_reply(story: Story) -> None:
    async with story.running() as relay:
        await story.say(relay, "hello")
        await story.answer("hi")
        await story.shows("hi")
        (message,) = story.board.messages
        story.board.take_away(message)
        await relay.deleted(replace(THREAD, thread="-"), message)
    assert await story.stores.texts(THREAD) == ["hello"]


async def test_without_a_core_the_person_reads_why(story: Story) -> None:
    await story.stores.queue.withdraw(LANE, "core")
    async with story.running() as relay:
        await story.say(relay, "hello")
        await story.shows("No language model is running right now. Please try again in a while.")


async def test_where_too_many_wait_the_person_reads_how_many(story: Story) -> None:
    limits = Limits(person=2)
    story.stores = StoreFixture.over(story.stores.redis, delivery_lease=LEASE, limits=limits)
    for number in range(2):
        await story.stores.say("hi", thread=replace(THREAD, thread=f"other {number}"))
    async with story.running() as relay:
        await story.say(relay, "hello")
        told = [
            "2 messages are waiting for an answer already, and there is no room for more.",
            "Please try again in a few minutes.",
        ]
        await until(lambda: _shown(story, told))


async def test_a_new_thread_is_answered_with_its_earlier_messages(story: Story) -> None:
    story.board.say(THREAD, "m0", "U2", "the sky is green")
    async with story.running() as relay:
        turn = story.board.say(THREAD, "m1", "U1", "is it?")
        await relay.submit(Incoming(THREAD, turn, addressed=True, has_past=True))
        await until(lambda: _claimable(story))
    assert await story.stores.texts(THREAD) == ["the sky is green", "is it?"]


async def _claimable(story: Story) -> bool:
    return bool(await story.stores.redis.get(f"henji:{{0}}:waiting:{LANE}") == "1")


# -- a platform that fails ----------------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["fails", "loses its answer"])
@pytest.mark.parametrize("call", ["post", "edit", "remove", "status"])
async def test_a_call_that_fails_is_made_again(story: Story, call: str, trouble: str) -> None:
    story.board.nonce = False
    wire = Trouble({call: [trouble]})
    async with story.running(wire=wire) as relay:
        await story.say(relay, "hello")
        reply = (await story.answer(LONG)).job.id
        await until(lambda: _settled(story))
        await relay.regenerate(Regeneration(THREAD, reply, "1", "U1"))
        await story.answer("short")
        await story.shows("short")
    assert wire.troubles[call] == []


async def test_a_platform_that_is_down_for_long_gets_the_reply_when_it_is_back(
    story: Story,
) -> None:
    async with story.running(wire=Trouble({"post": ["fails"] * 20})) as relay:
        await story.say(relay, "hello")
        await story.answer("hi")
        await story.shows("hi")


async def test_a_platform_that_does_not_come_back_is_given_up(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "GIVE_UP_SECONDS", 0.05)
    async with story.running(wire=Trouble({"post": ["fails"] * 100})) as relay:
        await story.say(relay, "hello")
        await story.answer("hi")
        await story.shows()


async def test_a_search_that_fails_does_not_post_twice(story: Story) -> None:
    story.board.nonce = False
    async with story.running(wire=Trouble({"post": ["loses its answer"], "find": ["fails"]})) as r:
        await story.say(r, "hello")
        await story.answer("hi")
        await story.shows("hi")


async def test_a_platform_that_refuses_ends_the_delivery(story: Story) -> None:
    async with story.running(wire=Trouble({"post": ["is refused"]})) as relay:
        await story.say(relay, "hello")
        await story.answer("hi")
        await story.shows()


@pytest.mark.parametrize("call", ["post", "edit"])
async def test_a_part_that_is_too_long_is_sent_in_smaller_ones(story: Story, call: str) -> None:
    story.part_length = 1000
    wire = Trouble({call: ["is too long"]})
    async with story.running(wire=wire) as relay:
        await story.say(relay, "hello")
        claim = await story.stores.claim()
        await story.stores.queue.publish(claim, Delta(0, "a word"))
        if call == "edit":
            await until(lambda: _shown(story, ["a word"]))
        await story.stores.reply(claim, "word " * 25 + "end")
        await until(lambda: _settled(story))
    assert len(story.board.shown()) == 2
    assert " ".join(story.board.shown()) == "word " * 25 + "end"


async def test_a_message_that_cannot_be_edited_is_posted_again_once(story: Story) -> None:
    story.board.nonce = False
    wire = Trouble({"edit": ["may not be edited"]})
    async with story.running(wire=wire) as relay:
        claim = await story.begin(relay)
        await story.stores.reply(claim, "hi there")
        await story.shows("hi there")
    assert wire.called.count("post") == 2
    assert wire.called.count("remove") == 1
    assert await story.stores.texts(THREAD) == ["hello", "hi there"]


async def test_a_message_that_may_never_be_edited_is_posted_again_only_once(story: Story) -> None:
    story.board.nonce = False
    wire = Trouble({"edit": ["may not be edited"] * 9})
    async with story.running(wire=wire) as relay:
        claim = await story.begin(relay)
        await story.stores.queue.publish(claim, Delta(2, " there"))
        await until(lambda: _shown(story, ["hi there"]))
        await story.stores.reply(claim, "hi there!")
        await until(lambda: _settled(story))
    assert wire.called.count("post") == 2


async def test_a_message_that_is_posted_again_is_noted_before(story: Story) -> None:
    """So that a process that takes over looks for it."""
    story.board.nonce = False
    wire = Trouble({"post": ["", "is held"], "edit": ["may not be edited"]})
    async with story.running(wire=wire) as relay:
        claim = await story.begin(relay)
        await story.stores.reply(claim, "hi there")
        await wire.reached.wait()
        assert (await story.stores.delivery(claim.job.id, THREAD)).posting == 0
        wire.released.set()
        await story.shows("hi there")


async def test_a_message_that_was_posted_again_is_known_before_the_old_one_goes(
    story: Story,
) -> None:
    story.board.nonce = False
    wire = Trouble({"edit": ["may not be edited"], "remove": ["is held"]})
    async with story.running(wire=wire) as relay:
        claim = await story.begin(relay)
        await story.stores.reply(claim, "hi there")
        await wire.reached.wait()
        _, new = story.board.messages
        known = await story.stores.delivery(claim.job.id, THREAD)
        assert (known.messages, known.posting) == ((new,), None)
        wire.released.set()
        await story.shows("hi there")


async def test_parts_after_one_that_is_posted_again_stay_below_it(story: Story) -> None:
    story.board.nonce = False
    wire = Trouble({"edit": ["may not be edited"]})
    first, second, third = (f"{word} " * 14 + word for word in ("one", "two", "three"))
    async with story.running(wire=wire) as relay:
        await story.say(relay, "hello")
        claim = await story.stores.claim()
        await story.stores.queue.publish(claim, Delta(0, "\n\n".join((first, second, third))))
        await until(lambda: _length(story, 3))
        parts = story.board.shown()
        await story.stores.reply(claim, "\n\n".join((first, second, third)) + ".")
        await story.shows(*parts[:-1], parts[-1] + ".")


async def _length(story: Story, parts: int) -> bool:
    return len(story.board.shown()) == parts


@given(
    st.fixed_dictionaries(
        {
            "post": st.lists(st.sampled_from(["", "fails", "loses its answer"]), max_size=6),
            "edit": st.lists(st.sampled_from(["", "fails", "loses its answer"]), max_size=6),
            "refused": st.integers(0, 8),
            "find": st.lists(st.sampled_from(["", "fails"]), max_size=2),
            "remove": st.lists(st.sampled_from(["", "fails", "loses its answer"]), max_size=3),
        }
    )
)
@settings(max_examples=25, deadline=None)
def test_the_parts_of_a_reply_keep_their_order_whatever_fails(
    redis_url: str, troubles: dict[str, Any]
) -> None:
    edits, refused = troubles["edit"], troubles.pop("refused")
    troubles["edit"] = [*edits[:refused], "may not be edited", *edits[refused:]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delivery, "RETRY_SECONDS", (0.01, 0.01))
        patch.setattr(deliveries, "LOOK_AGAIN", 0.2)
        asyncio.run(_parts_keep_their_order(redis_url, troubles))


async def _parts_keep_their_order(redis_url: str, troubles: dict[str, list[str]]) -> None:
    text = "\n\n".join(f"{word} " * 14 + word for word in ("one", "two", "three"))
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        await redis.flushall()
        story = Story(StoreFixture.over(redis, delivery_lease=LEASE))
        story.board.nonce = False  # a part that is posted again is a new message
        await story.stores.queue.announce(LANE, "core", 60)
        async with story.running(wire=Trouble(troubles)) as relay:
            await story.say(relay, "hello")
            claim = await story.stores.claim()
            for end in (40, 130, len(text)):
                await story.stores.queue.publish(claim, Delta(0, text[:end]))
                await asyncio.sleep(0.02)
            await story.stores.reply(claim, text)
            await until(lambda: _settled(story))
        assert " ".join(story.board.shown()).split() == text.split()


async def test_an_old_message_that_may_not_be_removed_stays(story: Story) -> None:
    story.board.nonce = False
    wire = Trouble({"edit": ["may not be edited"], "remove": ["is refused"]})
    async with story.running(wire=wire) as relay:
        claim = await story.begin(relay)
        await story.stores.reply(claim, "hi there")
        await story.shows("hi", "hi there")


async def test_a_reply_whose_message_was_deleted_stops_and_is_forgotten(story: Story) -> None:
    wire = Trouble({"edit": ["is deleted"]})
    async with story.running(wire=wire) as relay:
        claim = await story.begin(relay)
        await story.stores.queue.publish(claim, Delta(2, " there"))
        await until(lambda: _settled(story))
        assert "ReplyDelivery._read" not in str(asyncio.all_tasks())
    assert wire.called.count("post") == 1
    assert await story.stores.texts(THREAD) == ["hello"]


# -- processes that come and go -----------------------------------------------------------------


async def test_another_process_edits_the_same_message(story: Story) -> None:
    async with story.running("one") as relay:
        claim = await story.begin(relay)
    async with story.running("two"):
        await story.stores.reply(claim, "hi there")
        await story.shows("hi there")
    assert len(story.board.messages) == 1


@pytest.mark.parametrize("trouble", ["is held", "answers late"])
@pytest.mark.parametrize("nonce", [True, False])
async def test_an_unrecorded_post_is_found_again(story: Story, nonce: bool, trouble: str) -> None:
    """The process is killed in the call, which takes effect all the same (or, held, does not)."""
    story.board.nonce = nonce
    wire = Trouble({"post": [trouble]})
    async with story.running("one", wire) as relay:
        await story.say(relay, "hello")
        await story.answer("hi")
        await wire.reached.wait()
    async with story.running("two"):
        await story.shows("hi")
    assert len(story.board.messages) == 1


async def test_a_post_that_was_found_again_is_known_while_its_reply_grows(story: Story) -> None:
    """Or nobody could delete it until then."""
    wire = Trouble({"post": ["answers late"]})
    async with story.running("one", wire) as relay:
        await story.say(relay, "hello")
        claim = await story.stores.claim()
        await story.stores.queue.publish(claim, Delta(0, "hi"))
        await wire.reached.wait()
    [message] = story.board.messages
    async with story.running("two"):
        await until(lambda: _is_known(story, message))
        await story.stores.reply(claim, "hi!")
        await story.shows("hi!")


async def _is_known(story: Story, message: str) -> bool:
    return await story.stores.deliveries.locate(THREAD, message) is not None


async def test_a_paused_process_removes_its_own_second_message(story: Story) -> None:
    """Stopped just before its post was sent, past its lease, on a platform that posts twice."""
    story.board.nonce = False
    wire = Trouble({"post": ["is held"]})
    asleep = story.relay("one", wire)
    stored = await story.say(asleep, "hello")
    assert stored
    await story.answer("hi")
    await wire.reached.wait()
    async with story.running("two"):
        await story.shows("hi")
        wire.released.set()
        await until(lambda: _taken_back(story))
        await story.shows("hi")


async def test_a_paused_process_removes_its_second_message_to_a_person_who_was_forgotten(
    story: Story,
) -> None:
    story.board.nonce = False
    wire = Trouble({"post": ["is held"]})
    await story.say(story.relay("one", wire), "hello")
    await story.answer("hi")
    await wire.reached.wait()
    await story.stores.history.forget(Place("stand-in", "T1"), "U1")
    async with story.running("two"):
        await story.shows("hi")
        wire.released.set()
        await until(lambda: _taken_back(story))


@pytest.mark.parametrize("third", ["", "is held"])
async def test_of_two_unrecorded_posts_of_one_part_one_stays(story: Story, third: str) -> None:
    """One process was paused before its post, past its lease; its successor was killed in its post.
    A third, which may be killed before the end as well, finds the message of the first."""
    await _posted_twice(story, ["is held"])
    if third:
        wire = Trouble({"edit": [third]})
        async with story.running("three", wire):
            await wire.reached.wait()
    async with story.running("four"):
        await story.shows("hi")


async def test_both_unrecorded_posts_go_where_the_final_text_is_shorter(story: Story) -> None:
    await _posted_twice(story, ["", "is held"], streamed=LONG[:150])
    async with story.running("three"):
        await story.shows("hi")


async def test_a_reply_that_is_deleted_leaves_no_second_copy(story: Story) -> None:
    """A person deletes one of two posts of one part, before the other is found."""
    await _posted_twice(story, ["is held"])
    wire = Trouble({"edit": ["is held"]})
    async with story.running("three", wire):
        await wire.reached.wait()
        story.board.take_away(next(iter(story.board.messages)))
        wire.released.set()
        await story.shows()


async def _posted_twice(story: Story, posts: list[str], streamed: str = "") -> None:
    """A reply whose newest part two processes have posted; its end is "hi"."""
    story.board.nonce = False
    asleep, killed = Trouble({"post": posts}), Trouble({"post": ["is held"]})
    await story.say(story.relay("one", asleep), "hello")
    claim = await story.stores.claim()
    if streamed:
        await story.stores.queue.publish(claim, Delta(0, streamed))
    else:
        await story.stores.reply(claim, "hi")
    await asleep.reached.wait()
    async with story.running("two", killed):
        await killed.reached.wait()
    asleep.released.set()
    await asleep.landed.wait()
    *_, posted = story.board.messages.values()
    story.board.post(THREAD, posted.job, posted.part)  # the words of the killed core
    if streamed:
        await story.stores.reply(claim, "hi")


async def _taken_back(story: Story) -> bool:
    return [message.gone for message in story.board.messages.values()] == ["", "bot"]


async def _stopped_before_an_edit(story: Story) -> tuple[Claim, Trouble]:
    """A process is stopped just before it writes "hi th"; the claim of that reply."""
    wire = Trouble({"edit": ["is held"]})
    await story.say(story.relay("one", wire), "hello")
    claim = await story.stores.claim()
    await story.stores.queue.publish(claim, Delta(0, "hi"))
    await until(lambda: _shown(story, ["hi"]))
    await story.stores.queue.publish(claim, Delta(2, " th"))
    await wire.reached.wait()
    return claim, wire


async def test_a_late_edit_does_not_overwrite_the_end(story: Story) -> None:
    """Another process has brought the reply to its end."""
    claim, wire = await _stopped_before_an_edit(story)
    async with story.running("two"):
        await story.stores.reply(claim, "hi there")
        await story.shows("hi there")
        wire.released.set()
        await wire.landed.wait()
        await story.shows("hi there")


async def test_a_second_copy_that_looked_before_the_reply_was_closed_posts_nothing(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    story.board.nonce = False
    async with story.running() as relay:
        job = await story.say(relay, "hello", "m1")
        looked = await story.stores.deliveries.opened(THREAD, job, "one")

        async def opened(thread: ThreadKey, job: str, holder: str) -> Delivery | None:
            return looked

        await story.answer("hi")
        await story.shows("hi")
        await until(lambda: _is_over(relay, job))
        monkeypatch.setattr(relay._deliveries, "opened", opened)
        await story.say(relay, "hello", "m1")
        assert relay.delivers(job)
        await until(lambda: _is_over(relay, job))
        await story.shows("hi")


@pytest.mark.parametrize("is_stopped_first", [True, False])
async def test_a_late_edit_does_not_overwrite_a_reply_whose_regeneration_was_stopped(
    story: Story, is_stopped_first: bool
) -> None:
    claim, wire = await _stopped_before_an_edit(story)
    async with story.running("two") as relay:
        await story.stores.reply(claim, "hi there")
        await story.shows("hi there")
        wanted = Regeneration(THREAD, claim.job.id, "1", "U1")
        again = job_of(await relay.regenerate(wanted))
        if is_stopped_first:
            await relay.stop(THREAD, again)
            await until(lambda: story.stores.deliveries.closed(THREAD, again))
        wire.released.set()
        await wire.landed.wait()
        if not is_stopped_first:
            await relay.stop(THREAD, again)
        await story.shows("hi there")


async def test_a_late_edit_does_not_overwrite_the_sentence_of_a_dead_regeneration(
    story: Story,
) -> None:
    claim, wire = await _stopped_before_an_edit(story)
    async with story.running("two") as relay:
        await story.stores.reply(claim, "hi there")
        await story.shows("hi there")
        again = job_of(await relay.regenerate(Regeneration(THREAD, claim.job.id, "1", "U1")))
        last = await story.stores.claim()
        await story.stores.redis.hset(keys.key("job", 0, again), "attempts", 99)
        await story.stores.queue.fail(last, "internal", "boom", retry=True)
        sentence = strings.failure("internal", "en")
        await story.shows(sentence)
        (letter,) = await story.stores.queue.dead()
        assert letter.job == again
        wire.released.set()
        await wire.landed.wait()
        await until(lambda: _is_open(story, again))
        assert await story.stores.deliveries.closed(THREAD, claim.job.id)
        await story.shows(sentence)


async def _is_open(story: Story, job: str) -> bool:
    return not await story.stores.deliveries.closed(THREAD, job)


async def test_a_late_edit_of_a_message_that_the_next_process_removed_forgets_nothing(
    story: Story,
) -> None:
    wire = Trouble({"edit": ["is held"]})
    asleep = story.relay("one", wire)
    job = await story.say(asleep, "hello")
    claim = await story.stores.claim()
    await story.stores.queue.publish(claim, Delta(0, LONG[:149]))
    await until(lambda: _shown(story, [LONG[:99], LONG[100:149]]))
    await story.stores.queue.publish(claim, Delta(149, LONG[149:160]))
    await wire.reached.wait()
    async with story.running("two"):
        await story.stores.reply(claim, "hi")
        await story.shows("hi")
        wire.released.set()
        await until(lambda: _let_go(asleep, job))
        await story.shows("hi")
    assert await story.stores.texts(THREAD) == ["hello", "hi"]


async def _let_go(relay: Relay, job: str) -> bool:
    return not relay.delivers(job)


async def test_a_late_edit_does_not_overwrite_a_reopened_delivery(
    story: Story,
) -> None:
    """A paused process wrote late, so the delivery was reopened; its holder edits and is killed."""
    story.lease, story.call_seconds = 4.0, 0.5
    story.stores = StoreFixture.over(story.stores.redis, delivery_lease=story.lease)
    wire = Trouble({"edit": ["is held"]})
    job = await story.say(story.relay("one", wire), "hello")
    claim = await story.stores.claim()
    await story.stores.queue.publish(claim, Delta(0, "hi"))
    await until(lambda: _shown(story, ["hi"]))
    async with story.running("two"):
        await story.stores.deliveries.reopen(await story.stores.delivery(job, THREAD))
        await until(lambda: _taken_again(story, job))
        await asyncio.sleep(story.call_seconds)
        await story.stores.queue.publish(claim, Delta(2, " th"))
        await wire.reached.wait()
        await story.stores.reply(claim, "hi there")
        await asyncio.sleep(story.call_seconds / 2)
        ((message, shown),) = story.board.messages.items()
        story.board.edit(message, replace(shown.part, text="hi th", end=None))  # it lands
        await story.shows("hi there")


async def test_a_paused_adapter_leaves_a_delivery_that_another_took_over(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that write with one token would write over each other."""
    async with story.running() as relay:
        await story.say(relay, "helo", id_="m1")
        await story.answer("what?")
        await story.shows("what?")
    ports, look = story.stores.deliveries, story.stores.deliveries.opened

    async def late(thread: ThreadKey, job: str, holder: str) -> Delivery | None:
        await story.stores.redis.zadd("henji:{0}:deliveries:stand-in", {job: 1})  # its lease ended
        assert [taken.job for taken in await ports.take_over("stand-in", "two")] == [job]
        return await look(thread, job, holder)

    with monkeypatch.context() as stopped:
        stopped.setattr(ports, "opened", late)
        await story.relay("asleep").edited(Asker(THREAD, "U1"), "m1", "hello", "1")
    await story.answer("hi")
    await asyncio.sleep(LEASE)
    assert story.board.shown() == ["what?"]


async def test_a_submit_repeated_after_a_lost_answer_is_delivered_at_once(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def say(relay: Relay) -> Receipt:
        turn = story.board.say(THREAD, "m1", "U1", "helo")
        return await relay.submit(Incoming(THREAD, turn, addressed=True))

    async def edit(relay: Relay) -> Receipt:
        return await relay.edited(Asker(THREAD, "U1"), "m1", "hello", "1")

    async def regenerate(relay: Relay) -> Receipt:
        return await relay.regenerate(Regeneration(THREAD, job, "again", "U1"))

    async with story.running() as relay:
        for step, again in (("submit", say), ("edit", edit), ("regenerate", regenerate)):
            with monkeypatch.context() as cut:
                cut.setattr(story.stores.queue, step, _loses_its_answer(story.stores.queue, step))
                with pytest.raises(StoreUnavailable):
                    await again(relay)
            receipt = await again(relay)
            job = job_of(receipt)
            assert receipt.outcome == "duplicate"
            await story.answer(step)
            await story.shows(step)
            assert (await story.stores.delivery(job, THREAD)).token == OPENED  # no lease had to end


def _loses_its_answer(queue: RedisQueue, step: str) -> Callable[..., Awaitable[Receipt]]:
    whole = getattr(queue, step)

    async def cut(*arguments: Any, **more: Any) -> Receipt:
        await whole(*arguments, **more)
        raise StoreUnavailable("no answer")

    return cut


async def test_a_message_that_two_processes_receive_is_delivered_by_one(story: Story) -> None:
    """Two processes hear of one message: the second leaves it to the first."""
    async with story.running("one") as one, story.running("two") as two:
        turn = story.board.say(THREAD, "m1", "U1", "hello")
        incoming = Incoming(THREAD, turn, addressed=True)
        job = job_of(await one.submit(incoming))
        assert (await two.submit(incoming)).outcome == "duplicate"
        assert (await one.submit(incoming)).outcome == "duplicate"
        assert (one.delivers(job), two.delivers(job)) == (True, False)
        await story.answer("hi")
        await story.shows("hi")
        assert (await one.submit(incoming)).outcome == "duplicate"
        assert not one.delivers(job)
        await story.shows("hi")


async def test_a_process_that_lost_its_lease_takes_over_the_reply_again(story: Story) -> None:
    async with story.running("one") as relay:
        job = await story.say(relay, "hello")
        claim = await story.stores.claim()
        await story.stores.redis.hincrby(f"henji:{{0}}:delivery:{job}", "token", 1)  # another's
        await until(lambda: _taken_again(story, job))
        await story.stores.reply(claim, "hi")
        await story.shows("hi")


async def _taken_again(story: Story, job: str) -> bool:
    return (await story.stores.delivery(job, THREAD)).token > 2


async def test_a_message_that_is_edited_to_nothing_is_forgotten_with_its_reply(
    story: Story,
) -> None:
    async with story.running() as relay:
        await story.say(relay, "hello")
        claim = await story.stores.claim()
        await relay.edited(Asker(THREAD, "U1"), claim.job.turn, " ", "1")
        assert await story.stores.texts(THREAD) == []
        assert await story.stores.queue.open_jobs(THREAD) == {}
