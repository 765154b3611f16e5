"""Threads that begin as copies of others: their turns, and changes that reach every copy."""

from __future__ import annotations

from dataclasses import replace

import pytest
from redis.asyncio import Redis

from bots.relay import Relay, RelaySettings
from core.access_policy import Asker
from core.engine.echo import EchoEngine
from core.queue_types import Commit, Place
from core.types import Done, Job, ThreadKey, Turn, TurnFile, Usage
from storage import keys
from storage.history import BRANCH_DEPTH, MOST_BRANCHES
from tests.open_access import EVERYBODY
from tests.simulated_platform import Board, SimulatedPlatform
from tests.store_fixture import (
    LANE,
    THREAD,
    StoreFixture,
    answered,
    at_work,
    ends,
    job_of,
    regenerate,
)

BRANCH = replace(THREAD, thread="9.0")


@pytest.fixture
async def stores(redis: Redis) -> StoreFixture:
    return await StoreFixture.serving(redis)


def relay_over(stores: StoreFixture) -> Relay:
    platform = SimulatedPlatform(Board(), "slack")
    settings = RelaySettings(LANE, "bot", EVERYBODY)
    return Relay(platform, stores.of_a_platform(), settings)


async def three_answers(stores: StoreFixture) -> list[str]:
    """A thread of three questions, q1 to q3, and their replies; the replies' ids."""
    return [await answered(stores, f"ask {n}", f"reply {n}", f"q{n}") for n in (1, 2, 3)]


async def branched(
    stores: StoreFixture, turn: str, into: ThreadKey = BRANCH, thread: ThreadKey = THREAD
) -> None:
    assert (await stores.history.branch(thread, turn, into)).outcome == "ok"


# -- the turns of a branch ------------------------------------------------------------------------


async def test_a_branch_remembers_all_up_to_a_reply_and_the_old_thread_stays(
    stores: StoreFixture,
) -> None:
    _, second, _ = await three_answers(stores)
    before = await stores.history.turns(THREAD)
    await branched(stores, second)
    assert await stores.history.turns(BRANCH) == before[:4]  # with their counted tokens
    assert await stores.history.turns(THREAD) == before
    await stores.say("another way?", BRANCH, id="b1")
    await stores.reply(await stores.claim(), "yes")
    assert (await stores.texts(BRANCH))[3:] == ["reply 2", "another way?", "yes"]
    assert await stores.history.turns(THREAD) == before


async def test_a_branch_from_a_question_ends_with_it(stores: StoreFixture) -> None:
    await three_answers(stores)
    await branched(stores, "q2")
    assert await stores.texts(BRANCH) == ["ask 1", "reply 1", "ask 2"]


async def test_a_message_that_no_reply_has_read_yet_can_be_continued_from(
    stores: StoreFixture,
) -> None:
    await answered(stores, "ask 1", "reply 1", "q1")
    for number in (1, 2):
        await stores.say(f"aside {number}", id=f"a{number}", addressed=False)
    await branched(stores, "a1")
    assert await stores.texts(BRANCH) == ["ask 1", "reply 1", "aside 1"]
    await stores.say("and?", BRANCH)
    window = await stores.history.window(await stores.claim())
    assert [s.turn.text for s in window.mailbox] == ["aside 1", "and?"]


async def test_the_model_reads_a_branch_as_it_read_the_thread(stores: StoreFixture) -> None:
    async with at_work(stores, EchoEngine()):
        first = await stores.say("one")
        await ends(stores, first.job)
        await branched(stores, job_of(first))
        second = await stores.say("two", BRANCH)
        done = await ends(stores, second.job, BRANCH)
        assert isinstance(done, Done)
        assert await stores.texts(BRANCH) == ["one", "echo: one", "two", "echo: two"]
        assert await stores.texts() == ["one", "echo: one"]


async def test_a_branch_has_the_choice_and_the_retention_of_its_thread(
    stores: StoreFixture,
) -> None:
    await answered(stores, "ask 1", "reply 1", "q1")
    name = keys.key("choice", 0, str(THREAD))
    await stores.redis.hset(name, mapping={"model": "house", "persona": "pirate"})
    await stores.redis.expire(name, keys.HOUR)
    await stores.redis.hset(keys.key("thread", 0, str(THREAD)), "retention", 5_000_000)
    await branched(stores, "q1")
    choice = keys.key("choice", 0, str(BRANCH))
    assert await stores.redis.hgetall(choice) == {"model": "house", "persona": "pirate"}
    for key in ("turns", "choice", "thread"):
        assert 0 < await stores.redis.pttl(keys.key(key, 0, str(BRANCH))) <= 5_000_000


# -- refusals -------------------------------------------------------------------------------------


async def test_what_is_not_remembered_cannot_be_continued_from(stores: StoreFixture) -> None:
    assert (await stores.history.branch(THREAD, "q1", BRANCH)).outcome == "gone"
    await answered(stores, "ask 1", "reply 1", "q1")
    await stores.history.reset(THREAD, "U1")
    assert (await stores.history.branch(THREAD, "q1", BRANCH)).outcome == "gone"
    assert (await stores.history.may_branch(THREAD, "q1", "p")).outcome == "gone"
    assert not await stores.history.takes_part(BRANCH)


async def test_a_reset_of_the_channel_that_nobody_has_met_yet_leaves_nothing_to_copy(
    stores: StoreFixture,
) -> None:
    await answered(stores, "ask 1", "reply 1", "q1")
    await stores.redis.hincrby(keys.key("resets", 0), "slack:T1:C1", 1)
    assert (await stores.history.branch(THREAD, "q1", BRANCH)).outcome == "gone"


async def test_a_branch_says_that_the_beginning_had_been_evicted(stores: StoreFixture) -> None:
    first, second, _ = await three_answers(stores)
    assert not (await stores.history.may_branch(THREAD, "q3", "p1")).evicted
    await stores.say("ask 4", id="q4")
    claim = await stores.claim()
    done = Done("reply 4", "stop", Usage(9, 9, dropped_turns=2))
    turn = Turn(claim.job.id, "assistant", "henji", "reply 4", at=2.0)
    await stores.queue.commit(claim, Commit(done, turn, "chars", evict=("q1", first)))
    assert (await stores.history.may_branch(THREAD, "q1", "p2")).outcome == "gone"
    assert (await stores.history.may_branch(THREAD, second, "p3")).evicted
    made = await stores.history.branch(THREAD, second, BRANCH)
    assert (made.outcome, made.evicted) == ("ok", True)
    assert await stores.texts(BRANCH) == ["ask 2", "reply 2"]


async def test_a_press_and_a_branch_count_once(stores: StoreFixture) -> None:
    _, second, third = await three_answers(stores)
    assert (await stores.history.may_branch(THREAD, second, "p1")).outcome == "ok"
    assert (await stores.history.may_branch(THREAD, second, "p1")).outcome == "duplicate"
    assert (await stores.history.may_branch(THREAD, second, "p2")).outcome == "ok"
    await branched(stores, second)
    await stores.say("mine", BRANCH)
    before = await stores.texts(BRANCH)
    assert (await stores.history.branch(THREAD, third, BRANCH)).outcome == "duplicate"
    assert await stores.texts(BRANCH) == before


async def test_the_copies_of_a_thread_and_of_its_copies_are_bounded(stores: StoreFixture) -> None:
    await answered(stores, "ask 1", "reply 1", "q1")
    thread = THREAD
    for depth in range(BRANCH_DEPTH):
        await branched(stores, "q1", replace(THREAD, thread=f"d{depth}"), thread)
        thread = replace(THREAD, thread=f"d{depth}")
    deeper = replace(THREAD, thread="deeper")
    assert (await stores.history.branch(thread, "q1", deeper)).outcome == "full"
    for number in range(MOST_BRANCHES - BRANCH_DEPTH):
        await branched(stores, "q1", replace(THREAD, thread=f"n{number}"))
    assert (await stores.history.branch(THREAD, "q1", deeper)).outcome == "full"
    assert (await stores.history.may_branch(THREAD, "q1", "p")).outcome == "full"
    assert not await stores.history.takes_part(deeper)


async def test_what_a_purge_is_still_taking_away_is_not_copied(stores: StoreFixture) -> None:
    await stores.say("mine", id="q1", author="U2")
    await stores.reply(await stores.claim(), "to U2")
    await answered(stores, "ask", "reply", "q2")
    await stores.redis.hset(keys.key("marks", 0), "person slack:T1:U2", 10**13)
    await branched(stores, "q2")
    assert await stores.texts(BRANCH) == ["ask"]


# -- changes that reach every copy ----------------------------------------------------------------

DEEPER = replace(THREAD, thread="10.0")


async def two_branches(stores: StoreFixture) -> list[str]:
    """A branch, and a branch of that, each with a separate question; the thread's replies."""
    replies = await three_answers(stores)
    await branched(stores, replies[1])
    await stores.say("in the branch", BRANCH, "U2", id="b1")
    await stores.reply(await stores.claim(), "to the branch")
    await branched(stores, "b1", DEEPER, BRANCH)
    return replies


async def test_an_edit_reaches_every_copy_and_answers_nobody_there(stores: StoreFixture) -> None:
    _, second, _ = await three_answers(stores)
    await branched(stores, second)
    await branched(stores, second, DEEPER, BRANCH)
    await relay_over(stores).edited(Asker(THREAD, "U1"), "q2", "ask two", "1")
    for thread in (THREAD, BRANCH, DEEPER):
        assert (await stores.texts(thread))[2:4] == ["ask two", "reply 2"]
    assert await stores.nothing_to_do()
    edited = [name for name in await stores.redis.keys("*edited:*") if "9.0" in name]
    assert edited == []  # no copy of the words stays beside the turn


async def test_an_edit_that_takes_a_file_away_takes_its_text_out_of_every_copy(
    stores: StoreFixture,
) -> None:
    below = "[file: a.txt]\nthe secret"
    await stores.say("see", id="q1", unread=True)
    file = TurnFile("a.txt", read=True, length=len(below), source="s1")
    turn = Turn("q1", "user", "", below, 0.0, files=(file,), below=len(below))
    assert await stores.queue.attach(THREAD, turn, Job.id_for(THREAD, "q1", ""))
    await stores.reply(await stores.claim(), "seen")
    await branched(stores, "q1")
    assert "the secret" in str(await stores.texts(BRANCH))
    await relay_over(stores).edited(Asker(THREAD, "U1"), "q1", "see", "1")
    for thread in (THREAD, BRANCH):
        assert "the secret" not in str(await stores.texts(thread))


async def test_a_deletion_reaches_every_copy(stores: StoreFixture) -> None:
    await two_branches(stores)
    relay = relay_over(stores)
    await relay.deleted(THREAD, "q1")
    assert await stores.texts(BRANCH) == ["ask 2", "reply 2", "in the branch", "to the branch"]
    assert await stores.texts(DEEPER) == ["ask 2", "reply 2", "in the branch"]
    await relay.deleted(BRANCH, "b1")
    assert await stores.texts(DEEPER) == ["ask 2", "reply 2"]
    assert await stores.texts() == ["ask 2", "reply 2", "ask 3", "reply 3"]


async def test_a_deleted_reply_leaves_every_copy_also_as_it_was_before(
    stores: StoreFixture,
) -> None:
    first = await answered(stores, "ask 1", "reply 1", "q1")
    await branched(stores, first)
    again = await regenerate(stores, first)
    await stores.reply(await stores.claim(), "reply 1, anew")
    assert await stores.texts(BRANCH) == ["ask 1", "reply 1"]
    delivery = await stores.delivery(again.job)
    await stores.deliveries.close(delivery, ["m-reply"])
    await relay_over(stores).deleted(THREAD, "m-reply")
    assert await stores.texts() == ["ask 1"]
    assert await stores.texts(BRANCH) == ["ask 1"]


async def test_a_person_is_forgotten_in_every_copy(stores: StoreFixture) -> None:
    await two_branches(stores)
    await stores.history.forget(Place("slack", "T1"), "U1")
    assert await stores.texts() == []
    assert await stores.texts(BRANCH) == ["in the branch", "to the branch"]
    assert await stores.texts(DEEPER) == ["in the branch"]
    assert [entry async for entry in stores.history.export(Place("slack", "T1"), "U1")] == []


async def test_a_reset_of_the_channel_reaches_every_copy_and_one_of_the_thread_its_own(
    stores: StoreFixture,
) -> None:
    await two_branches(stores)
    await stores.history.reset(THREAD, "U1")
    assert await stores.texts() == []
    assert len(await stores.texts(BRANCH)) == 6
    await stores.history.reset_place(Place("slack", "T1", "C1"), "U9")
    assert await stores.texts(BRANCH) == await stores.texts(DEEPER) == []


async def test_the_messages_of_a_deleted_thread_leave_its_copies(stores: StoreFixture) -> None:
    await two_branches(stores)
    await relay_over(stores).thread_deleted(THREAD, "somebody")
    assert await stores.texts() == []
    assert await stores.texts(BRANCH) == ["in the branch", "to the branch"]
    assert await stores.texts(DEEPER) == ["in the branch"]


async def test_a_copy_is_found_for_as_long_as_it_is_kept(stores: StoreFixture) -> None:
    await answered(stores, "ask 1", "reply 1", "q1")
    await branched(stores, "q1")
    name = keys.key("branches", 0, str(THREAD))
    assert await stores.redis.ttl(name) > 29 * keys.DAY
    await stores.redis.expire(name, 60)  # much later
    await stores.say("more", BRANCH)
    await stores.reply(await stores.claim(), "and more")
    assert await stores.redis.ttl(name) > 29 * keys.DAY
    await stores.redis.delete(keys.key("thread", 0, str(THREAD)))  # the thread itself expires
    await relay_over(stores).deleted(THREAD, "q1")
    assert await stores.texts(BRANCH) == ["more", "and more"]


async def test_a_copied_reply_cannot_be_regenerated_in_the_branch(stores: StoreFixture) -> None:
    first = await answered(stores, "ask 1", "reply 1", "q1")
    await branched(stores, first)
    found = await stores.deliveries.get(BRANCH, first)
    assert found is not None
    assert found.thread == THREAD  # so that `Actions.newest_reply` leaves it out
