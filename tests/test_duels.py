"""Duels: two answers to one question, one reply, one memory."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from bots import duels
from bots.relay import Relay, RelaySettings
from bots.strings import say
from core.access_policy import Permit, Quota
from core.place_rules import Rules
from core.queue_types import Claim, Commit, DuelSettings, Place, Receipt, Regeneration
from core.types import Delta, Done, Duel, Failed, Job, Sampling, ThreadKey, Turn, Usage, Verdict
from storage import keys
from storage.feedback import RedisPreferences
from tests.open_access import EVERYBODY, OPEN_RULES
from tests.simulated_platform import Board, SimulatedPlatform
from tests.store_fixture import LANE, THREAD, StoreFixture, answered
from tests.waiting import until

OTHER = "other"
TERMS = DuelSettings(OTHER, 2, 3600.0)
PLACE = Place("slack", "T1", "C1")


@pytest.fixture
async def stores(redis: Redis) -> StoreFixture:
    stores = StoreFixture.over(redis, lease=0.1, backoff=0.0, max_attempts=2)
    for lane in (LANE, OTHER):
        await stores.queue.announce(lane, "core", 60)
    return stores


async def ask(stores: StoreFixture, text: str = "why?", **more: Any) -> Receipt:
    return await stores.say(text, duel=TERMS, **more)


async def claim(stores: StoreFixture, lane: str) -> Claim:
    (claim,) = await stores.queue.claim(lane, f"core of {lane}", 1)
    return claim


async def answer(
    stores: StoreFixture, lane: str, text: str, tokens: int = 5, evict: tuple[str, ...] = ()
) -> str:
    """A core of the lane answers with a text."""
    held = await claim(stores, lane)
    window = await stores.history.window(held)
    turn = Turn(held.job.id, "assistant", lane, text, at=2.0) if text else None
    done = Done(text, "stop", Usage(10, tokens), f"model of {lane}")
    commit = Commit(
        done, turn, "chars", version=window.version, evict=evict, model=f"model of {lane}",
        sampling=Sampling(),
    )  # fmt: skip
    return await stores.queue.commit(held, commit)


async def both(stores: StoreFixture) -> Receipt:
    """A duel that is written, and delivered."""
    receipt = await ask(stores)
    await answer(stores, LANE, "one")
    await answer(stores, OTHER, "two")
    assert await stores.deliveries.close(await stores.delivery(receipt.job), ["b1"])
    return receipt


async def vote(
    stores: StoreFixture,
    receipt: Receipt,
    person: str,
    verdict: Verdict,
    thread: ThreadKey = THREAD,
) -> bool:
    return await stores.feedback.vote(thread, receipt.job or "", person, verdict)


async def end(stores: StoreFixture, receipt: Receipt) -> Done:
    last = (await stores.events(receipt.job))[-1]
    assert isinstance(last, Done)
    return last


async def shown(stores: StoreFixture, receipt: Receipt) -> Duel:
    duel = (await end(stores, receipt)).duel
    assert duel is not None
    return duel


async def remembered(stores: StoreFixture) -> str:
    question, reply = await stores.texts()
    assert question == "why?"
    return reply


async def kept(stores: StoreFixture, receipt: Receipt) -> list[str]:
    """The keys that still speak of a duel."""
    assert receipt.job is not None
    found = [name for name in await stores.redis.keys("*duel:*") if receipt.job in name]
    if await stores.redis.zscore(keys.key("duels", 0), receipt.job) is not None:
        found.append("duels")
    if await stores.redis.hexists(keys.key("kept", 0, str(THREAD)), receipt.job):
        found.append("kept")
    return found


def owned(duel: Duel, text: str) -> Verdict:
    return "a" if duel.a == text else "b"


async def test_two_lanes_answer_one_question_and_one_answer_is_remembered(
    stores: StoreFixture,
) -> None:
    receipt = await ask(stores)
    held = await claim(stores, LANE)
    assert await stores.queue.publish(held, Delta(0, "on")) == "ok"
    assert not [e for e in await stores.events(receipt.job) if isinstance(e, Delta)]
    await stores.queue.release(held)
    assert await answer(stores, LANE, "one") == "ok"
    assert await stores.texts() == ["why?"]
    assert await stores.queue.claim(LANE, "core", 1) == []
    held = await claim(stores, OTHER)
    window = await stores.history.window(held)
    assert [s.turn.text for s in (*window.history, *window.mailbox)] == ["why?"]
    await stores.queue.release(held)
    assert await answer(stores, OTHER, "two") == "ok"
    duel, last = await shown(stores, receipt), await end(stores, receipt)
    assert {duel.a, duel.b} == {"one", "two"}
    assert (duel.models, duel.votes, last.model) == ((), (), "")
    assert await remembered(stores) == last.text in (duel.a, duel.b)


async def test_what_the_first_answer_could_not_read_is_forgotten(stores: StoreFixture) -> None:
    old = await answered(stores, "a long question", "a long reply", "m0")
    await ask(stores, id="m1")
    await answer(stores, LANE, "one", evict=("m0", old))
    await answer(stores, OTHER, "two")
    assert (await stores.texts())[:-1] == ["why?"]


async def test_order_and_memory_are_drawn_fairly(stores: StoreFixture) -> None:
    drawn = set()
    for number in range(40):
        thread = replace(THREAD, thread=str(number))
        receipt = await ask(stores, thread=thread)
        await answer(stores, LANE, "one")
        await answer(stores, OTHER, "two")
        (last,) = (e for e in await stores.events(receipt.job, thread) if isinstance(e, Done))
        assert last.duel
        drawn.add((last.duel.a, last.text))
    assert drawn == {(a, text) for a in ("one", "two") for text in ("one", "two")}


async def test_the_askers_choice_is_the_memory_until_the_thread_goes_on(
    stores: StoreFixture,
) -> None:
    receipt = await both(stores)
    duel, drawn = await shown(stores, receipt), await remembered(stores)
    other = "two" if drawn == "one" else "one"
    assert await vote(stores, receipt, "U2", owned(duel, other))
    assert await remembered(stores) == drawn  # only the asker chooses
    assert await vote(stores, receipt, "U1", owned(duel, other))
    # with two votes the models are named, and the memory does not change any more
    assert await remembered(stores) == other
    assert not await vote(stores, receipt, "U1", owned(duel, drawn))
    assert await remembered(stores) == other


@pytest.mark.parametrize("draw", range(4))
@pytest.mark.parametrize("verdict", ["a", "b"])
async def test_the_answer_that_the_asker_chose_is_remembered_in_either_order(
    stores: StoreFixture, monkeypatch: pytest.MonkeyPatch, draw: int, verdict: Verdict
) -> None:
    monkeypatch.setattr("storage.queue.secrets.randbits", lambda bits: draw)
    receipt = await both(stores)
    duel = await shown(stores, receipt)
    assert duel.a == ("two" if draw % 2 else "one")
    await vote(stores, receipt, "U1", verdict)
    assert await remembered(stores) == getattr(duel, verdict)


async def test_an_answer_that_is_remembered_is_counted_and_a_choice_renews_its_thread(
    stores: StoreFixture,
) -> None:
    receipt = await both(stores)
    duel, drawn = await shown(stores, receipt), await remembered(stores)
    turns, counts = (keys.key(name, 0, str(THREAD)) for name in ("turns", "counts"))
    assert await stores.redis.hget(counts, receipt.job or "") == "5 chars"
    delivery = keys.key("delivery", 0, receipt.job or "")
    lanes = {"one": LANE, "two": OTHER}
    assert f"model of {lanes[drawn]}" in await stores.redis.hget(delivery, "made")
    for name in (turns, counts):
        await stores.redis.expire(name, 1000)
    other = "two" if drawn == "one" else "one"
    await vote(stores, receipt, "U1", owned(duel, other))
    for name in (turns, counts):
        assert await stores.redis.ttl(name) > 1000
    assert f"model of {lanes[other]}" in await stores.redis.hget(delivery, "made")


async def test_a_choice_is_taken_back_to_the_draw(stores: StoreFixture) -> None:
    receipt = await both(stores)
    duel, drawn = await shown(stores, receipt), await remembered(stores)
    other = "two" if drawn == "one" else "one"
    await vote(stores, receipt, "U1", owned(duel, other))
    await vote(stores, receipt, "U1", "tie")
    assert await remembered(stores) == drawn


async def test_the_next_turn_fixes_the_memory_and_votes_still_count(stores: StoreFixture) -> None:
    receipt = await both(stores)
    duel, drawn = await shown(stores, receipt), await remembered(stores)
    other = "two" if drawn == "one" else "one"
    await stores.say("and then?")
    await claim(stores, LANE)
    assert await vote(stores, receipt, "U1", owned(duel, other))
    assert (await stores.texts())[1] == drawn
    await vote(stores, receipt, "U2", "tie")
    assert (await shown(stores, receipt)).votes == tuple(
        {"tie": 1, owned(duel, other): 1}.get(verdict, 0) for verdict in ("a", "tie", "b", "bad")
    )


async def test_after_enough_votes_the_models_are_told(stores: StoreFixture) -> None:
    receipt = await both(stores)
    assert await vote(stores, receipt, "U1", "a")
    assert await vote(stores, receipt, "U1", "bad")  # one vote a person
    assert (await shown(stores, receipt)).models == ()
    assert await vote(stores, receipt, "U2", "a")
    duel = await shown(stores, receipt)
    assert duel.votes == (1, 0, 0, 1)
    models = {"one": f"model of {LANE}", "two": f"model of {OTHER}"}
    assert duel.models == (models[duel.a], models[duel.b])
    (taken,) = await stores.deliveries.take_over("slack", "bot")
    assert (taken.job, taken.messages) == (receipt.job, ("b1",))
    assert not await vote(stores, receipt, "U3", "a")


async def test_after_its_time_the_models_are_told(stores: StoreFixture) -> None:
    receipt = await both(stores)
    await stores.redis.zadd("henji:{0}:duels", {receipt.job: 1}, xx=True)
    await stores.queue.sweep()
    assert (await shown(stores, receipt)).models
    assert await stores.redis.exists("henji:{0}:duels") == 0


async def test_a_duel_that_is_over_or_gone_is_not_looked_at_again(stores: StoreFixture) -> None:
    receipt = await both(stores)
    await stores.redis.hset(keys.key("duel", 0, str(receipt.job)), "state", "over")
    await stores.redis.zadd("henji:{0}:duels", {str(receipt.job): 1, "gone": 1})
    await stores.queue.sweep()
    assert await stores.redis.exists("henji:{0}:duels") == 0


async def test_a_duel_that_is_still_being_written_down_is_told_later(stores: StoreFixture) -> None:
    receipt = await ask(stores)
    await answer(stores, LANE, "one")
    await answer(stores, OTHER, "two")
    for person in ("U1", "U2"):
        await vote(stores, receipt, person, "tie")
    assert (await shown(stores, receipt)).models == ()
    await stores.deliveries.close(await stores.delivery(receipt.job), ["b1"])
    await stores.redis.zadd("henji:{0}:duels", {receipt.job: 1}, xx=True)
    await stores.queue.sweep()
    assert (await shown(stores, receipt)).votes == (0, 2, 0, 0)


# -- where one model is away ---------------------------------------------------------------------


async def test_without_the_other_lane_there_is_a_usual_reply(stores: StoreFixture) -> None:
    await stores.queue.withdraw(OTHER, "core")
    receipt = await ask(stores)
    await answer(stores, LANE, "one")
    assert (await end(stores, receipt)).duel is None
    assert await remembered(stores) == "one"


async def test_a_lane_that_goes_away_leaves_the_other_answer(stores: StoreFixture) -> None:
    receipt = await ask(stores)
    await answer(stores, LANE, "one")
    await stores.queue.withdraw(OTHER, "core")
    await stores.redis.zadd("henji:{0}:duels", {receipt.job: 1}, xx=True)
    await stores.queue.sweep()
    last = await end(stores, receipt)
    assert (last.text, last.duel, last.model) == ("one", None, f"model of {LANE}")
    assert await remembered(stores) == "one"
    assert not await vote(stores, receipt, "U1", "a")


async def test_a_lane_that_goes_away_before_the_first_answer_is_not_waited_for(
    stores: StoreFixture,
) -> None:
    receipt = await ask(stores)
    await stores.queue.withdraw(OTHER, "core")
    await answer(stores, LANE, "one")
    assert (await end(stores, receipt)).text == "one"


@pytest.mark.parametrize("retry", [True, False])
async def test_a_second_answer_that_fails_leaves_the_first(
    stores: StoreFixture, retry: bool
) -> None:
    receipt = await ask(stores)
    await answer(stores, LANE, "one")
    for _ in range(2 if retry else 1):
        await stores.queue.fail(
            await claim(stores, OTHER), "too_long", "", retry=retry, forget=True
        )
        await stores.redis.zadd("henji:{0}:delayed", {str(THREAD): 1}, xx=True)
        await stores.queue.sweep()
    assert (await end(stores, receipt)).text == "one"
    assert await stores.queue.dead() == []
    assert await remembered(stores) == "one"
    assert await kept(stores, receipt) == []


async def test_a_second_answer_whose_cores_all_die_leaves_the_first(stores: StoreFixture) -> None:
    receipt = await ask(stores)
    await answer(stores, LANE, "one")
    for _ in range(2):
        await claim(stores, OTHER)
        await stores.redis.zadd("henji:{0}:leases", {str(THREAD): 1}, xx=True)
        await stores.queue.sweep()
    assert (await end(stores, receipt)).text == await remembered(stores) == "one"
    assert await stores.queue.dead() == []
    assert await kept(stores, receipt) == []


async def test_a_deadline_between_the_answers_shows_the_one_that_is_there(
    stores: StoreFixture,
) -> None:
    receipt = await ask(stores)
    await answer(stores, LANE, "one")
    job = keys.key("job", 0, receipt.job or "")
    await stores.redis.hset(job, "deadline", "1")
    await stores.redis.zadd(keys.key("deadlines", 0), {receipt.job or "": 1})
    assert await stores.queue.claim(OTHER, "core", 1) == []  # before anybody has swept
    await stores.queue.sweep()
    assert (await end(stores, receipt)).text == "one"
    assert await stores.texts() == ["why?", "one"]


async def test_a_duel_without_any_answer_is_refunded_to_the_model_that_it_counted_for(
    stores: StoreFixture,
) -> None:
    receipt = await ask(stores, permit=Permit(quota=Quota(person_messages=100)))
    await answer(stores, LANE, "one")
    await stores.redis.delete(keys.key("duel", 0, receipt.job or ""))
    await stores.queue.fail(await claim(stores, OTHER), "too_long", "", retry=False, forget=True)
    assert (await stores.events(receipt.job))[-1] == Failed("internal", "the first answer is gone")
    (day,) = await stores.redis.keys("*used:*")
    used = await stores.redis.hgetall(day)
    counts = {field: int(by) for field, by in used.items() if field.startswith("messages ")}
    assert set(counts.values()) == {0}


async def test_a_core_that_dies_in_the_second_answer_is_followed_by_another(
    stores: StoreFixture,
) -> None:
    receipt = await ask(stores)
    await answer(stores, LANE, "one")
    dead = await claim(stores, OTHER)
    await stores.redis.zadd("henji:{0}:leases", {str(THREAD): 1}, xx=True)
    await stores.queue.sweep()
    assert await answer(stores, OTHER, "two") == "ok"
    late = Commit(
        Done("late", "stop", Usage(1, 1)), Turn("x", "assistant", "m", "late", 1.0), "chars"
    )
    assert await stores.queue.commit(dead, late) == "fenced"
    duel = await shown(stores, receipt)
    assert {duel.a, duel.b} == {"one", "two"}


async def test_an_answer_without_a_word_is_no_duel(stores: StoreFixture) -> None:
    receipt = await ask(stores)
    await answer(stores, LANE, "one")
    await answer(stores, OTHER, "")
    assert (await end(stores, receipt)).duel is None
    assert await remembered(stores) == "one"


# -- people at the same time ---------------------------------------------------------------------


async def test_stop_between_the_answers_shows_the_one_that_is_there(stores: StoreFixture) -> None:
    receipt = await ask(stores)
    await answer(stores, LANE, "one")
    assert await stores.queue.cancel(THREAD, receipt.job or "")
    assert (await end(stores, receipt)).text == "one"


async def test_stop_in_the_second_answer_shows_the_first(stores: StoreFixture) -> None:
    receipt = await ask(stores)
    await answer(stores, LANE, "one")
    held = await claim(stores, OTHER)
    assert await stores.queue.cancel(THREAD, receipt.job or "")
    turn = Turn(held.job.id, "assistant", "m", "tw", 1.0)
    stopped = Commit(Done("tw", "cancelled", Usage(1, 1)), turn, "chars")
    assert await stores.queue.commit(held, stopped) == "ok"
    assert (await end(stores, receipt)).text == "one"
    assert await remembered(stores) == "one"


@pytest.mark.parametrize("running", [True, False])
async def test_an_edit_in_the_middle_has_both_answer_the_new_question(
    stores: StoreFixture, running: bool
) -> None:
    receipt = await ask(stores, id="m1")
    await answer(stores, LANE, "one")
    if running:
        await claim(stores, OTHER)
    await stores.queue.edit(THREAD, "m1", "how?", "2", LANE, "adapter")
    assert await kept(stores, receipt) == []
    assert await stores.queue.claim(OTHER, "core", 1) == []
    await answer(stores, LANE, "one to how")
    await answer(stores, OTHER, "two to how")
    duel = await shown(stores, receipt)
    assert {duel.a, duel.b} == {"one to how", "two to how"}


async def test_an_edit_after_the_duel_ends_it(stores: StoreFixture) -> None:
    receipt = await ask(stores, id="m1")
    await answer(stores, LANE, "one")
    await answer(stores, OTHER, "two")
    await stores.deliveries.close(await stores.delivery(receipt.job), ["b1"])
    again = await stores.queue.edit(THREAD, "m1", "how?", "2", LANE, "adapter")
    assert again.outcome == "queued"
    assert not await vote(stores, receipt, "U1", "a")
    assert await stores.redis.exists(f"henji:{{0}}:duel:{receipt.job}") == 0


async def test_an_edit_of_an_older_question_ends_its_duel_and_tells_the_models(
    stores: StoreFixture,
) -> None:
    receipt = await ask(stores, id="m1")
    await answer(stores, LANE, "one")
    await answer(stores, OTHER, "two")
    await stores.deliveries.close(await stores.delivery(receipt.job), ["b1"])
    await stores.say("and then?")
    await answer(stores, LANE, "then")
    await stores.queue.edit(THREAD, "m1", "how?", "2", LANE, "adapter")
    assert (await shown(stores, receipt)).models
    assert not await vote(stores, receipt, "U1", "a")


async def test_a_regeneration_ends_the_votes(stores: StoreFixture) -> None:
    receipt = await both(stores)
    wanted = Regeneration(THREAD, receipt.job or "", "1", "U1", lane=LANE)
    again = await stores.queue.regenerate(wanted, "adapter")
    assert not await vote(stores, receipt, "U1", "a")
    await answer(stores, LANE, "three")
    assert await stores.texts() == ["why?", "three"]
    assert (await end(stores, again)).duel is None


@pytest.mark.parametrize("what", ["question", "reply", "reset", "channel", "asker"])
async def test_whatever_is_deleted_takes_the_duel_with_it(stores: StoreFixture, what: str) -> None:
    receipt = await ask(stores, id="m1", text="secret")
    await answer(stores, LANE, "secret one")
    await answer(stores, OTHER, "secret two")
    await stores.deliveries.close(await stores.delivery(receipt.job), ["b1"])
    await vote(stores, receipt, "U2", "a")
    match what:
        case "question":
            await stores.queue.delete(THREAD, "m1")
        case "reply":
            await stores.queue.delete(THREAD, receipt.job or "")
        case "reset":
            await stores.history.reset(THREAD, "U9")
        case "channel":
            await stores.history.reset_place(PLACE, "U9")
        case "asker":
            await stores.history.forget(Place("slack", "T1"), "U1")
    assert not await vote(stores, receipt, "U1", "a")
    names = [name for name in await stores.redis.keys("*") if ":duel" in name or "kept" in name]
    assert names == []


async def test_a_vote_goes_with_the_person_who_is_forgotten(stores: StoreFixture) -> None:
    receipt = await both(stores)
    await vote(stores, receipt, "U7", "a")
    await stores.history.forget(Place("slack", "T1"), "U7")
    fields = await stores.redis.hgetall(f"henji:{{0}}:duel:{receipt.job}")
    assert not any("U7" in name for name in fields)
    assert await vote(stores, receipt, "U8", "b")


async def test_a_duel_is_one_message_and_the_longer_replys_tokens(stores: StoreFixture) -> None:
    permit = Permit(quota=Quota(person_messages=10, person_tokens=1000))
    await ask(stores, permit=permit)
    await answer(stores, LANE, "one", tokens=30)
    lost = await claim(stores, OTHER)
    await stores.queue.publish(lost, Delta(0, "t"), 55)
    await stores.redis.zadd("henji:{0}:leases", {str(THREAD): 1}, xx=True)
    await stores.queue.sweep()
    await answer(stores, OTHER, "two", tokens=5)
    (name,) = await stores.redis.keys("henji:{0}:used:*")
    used = await stores.redis.hgetall(name)
    assert used["messages person slack:T1:U1"] == "1"
    assert used["tokens person slack:T1:U1"] == "40"


async def test_a_message_that_comes_meanwhile_waits_and_is_read_by_neither(
    stores: StoreFixture,
) -> None:
    await ask(stores)
    await answer(stores, LANE, "one")
    later = await stores.say("more", id="m9")
    held = await claim(stores, OTHER)
    window = await stores.history.window(held)
    assert [stored.turn.text for stored in window.mailbox] == ["why?"]
    await stores.queue.release(held)
    await answer(stores, OTHER, "two")
    await answer(stores, LANE, "to more")
    assert (await end(stores, later)).text == "to more"
    texts = await stores.texts()
    assert (texts[0], texts[2:]) == ("why?", ["more", "to more"])


async def test_duels_are_read_with_their_votes(stores: StoreFixture) -> None:
    receipt = await both(stores)
    await vote(stores, receipt, "U2", "b")
    preferences = RedisPreferences(stores.store, OPEN_RULES)
    (duel,) = [duel async for duel in preferences.duels(PLACE)]
    assert duel.votes == {"U2": "b"}
    assert [one.text for one in duel.answers] == [
        (await shown(stores, receipt)).a,
        (await shown(stores, receipt)).b,
    ]
    assert [one async for one in preferences.duels(Place("slack", "T1", "C2"))] == []


# -- the messages --------------------------------------------------------------------------------


def test_a_share_of_the_questions_becomes_duels_always_the_same() -> None:
    rules = Rules(duel="rinna:0.25", duel_votes=5, duel_hours=2.0)
    jobs = [Job.id_for(THREAD, str(number), "") for number in range(2000)]
    drawn = [job for job in jobs if duels.settings_for(rules, job)]
    assert 400 < len(drawn) < 600
    assert [job for job in jobs if duels.settings_for(rules, job)] == drawn
    assert duels.settings_for(rules, drawn[0]) == DuelSettings("rinna", 5, 7200.0)
    assert all(duels.settings_for(Rules(duel="rinna:1"), job) for job in jobs)
    assert not any(duels.settings_for(Rules(duel="rinna:0"), job) for job in jobs)
    assert not any(duels.settings_for(Rules(), job) for job in jobs)


def test_answers_are_headed_by_letters_and_models_are_named_in_the_end() -> None:
    blind = Duel("one", "two")
    assert duels.headed(blind) == ("**A**\n\none", "**B**\n\ntwo")
    assert duels.note(blind, "en") == say("duel_asks", "en")
    told = Duel("one", "two", ("new", "old"), (3, 1, 0, 2))
    assert duels.headed(told)[1] == "**B · old**\n\ntwo"
    assert duels.note(told, "en") == "Votes: A 3 · Tie 1 · B 0 · Both bad 2"


async def test_answers_too_long_for_one_message_have_their_own(stores: StoreFixture) -> None:
    board = Board()
    platform = SimulatedPlatform(board, "slack", part_length=100)
    settings = RelaySettings(LANE, "bot", lease=0.4, take_over=0.05, access=EVERYBODY)
    relay = Relay(platform, stores.of_a_platform(), settings)
    stop = asyncio.Event()
    running = asyncio.create_task(relay.run(stop))
    receipt = await ask(stores)
    await stores.redis.zadd("henji:{0}:deliveries:slack", {receipt.job: 1})  # nobody has it
    texts = ["one " * 15, "two " * 15]
    for lane, text in zip((LANE, OTHER), texts, strict=True):
        await answer(stores, lane, text.strip())

    async def both_shown() -> bool:
        return len(board.shown()) == 2

    await until(both_shown)
    first, second = board.shown()
    assert first.startswith("**A**")
    assert second.startswith("**B**")
    assert second.endswith(say("duel_asks", "en"))
    assert {first[7:10], second[7:10]} == {"one", "two"}
    for person in ("U1", "U2"):
        assert await vote(stores, receipt, person, "tie")

    async def told() -> bool:
        return all("model of" in text for text in board.shown())

    await until(told)
    assert len(board.shown()) == 2
    stop.set()
    await running
