"""Votes are kept to train a model: only where people know it, and not of people who opted out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from core.access_policy import Policy
from core.dialogue import Dialogue
from core.engine.echo import EchoEngine
from core.models.catalogue import CATALOGUE
from core.place_rules import Rules
from core.queue_types import (
    Commit,
    DuelSettings,
    Place,
    Rating,
    Receipt,
    Regeneration,
    Sample,
    Trace,
)
from core.types import Done, ThreadKey, Turn, Usage
from core.worker import Worker, WorkerSettings
from storage import keys
from storage.rules import RedisRules
from storage.store import Store
from tests.store_fixture import LANE, THREAD, StoreFixture, TestConnection, at_work, ends

SPACE, PLACE = Place("slack", "T1"), Place("slack", "T1", "C1")
COLLECTS = Policy(spaces={"slack:T1": Rules(collect=True)}, training_permitted=("slack",))


class Collecting(StoreFixture):
    """A place where what people vote on is kept."""

    @classmethod
    def at(cls, redis: Redis, policy: Policy = COLLECTS) -> Collecting:
        return cls(redis, Store(TestConnection(redis)), policy=policy)

    @property
    def rulebook(self) -> RedisRules:
        return RedisRules(self.store, self.policy)

    def at_work(self) -> AbstractAsyncContextManager[None]:
        return at_work(self, EchoEngine(), self.rulebook)

    async def ask(self, text: str, author: str = "U1", thread: ThreadKey = THREAD) -> Receipt:
        receipt = await self.say(text, thread, author)
        await ends(self, receipt.job, thread)
        return receipt

    async def rate(
        self,
        receipt: Receipt,
        by: str = "U1",
        verdict: Rating = "good",
        thread: ThreadKey = THREAD,
    ) -> None:
        await self.feedback.keep(thread, receipt.job or "", by, verdict, collect=True)

    async def samples(self, place: Place = PLACE) -> list[Sample]:
        return [sample async for sample in self.preferences.samples(place)]


@pytest.fixture
async def stores(redis: Redis) -> AsyncIterator[Collecting]:
    stores = Collecting.at(redis)
    await stores.queue.announce(LANE, "core", 60)
    async with stores.at_work():
        yield stores


async def words(stores: StoreFixture, word: str) -> set[str]:
    """The kinds of what is kept for training, of a word that is in it."""
    names = [f"henji:{{0}}:{kind}:*" for kind in ("trace", "sample", "duel")]
    keys = [key for name in names for key in await stores.redis.keys(name)]
    return {key.split(":")[2] for key in keys if word in str(await stores.redis.hgetall(key))}


async def test_a_rating_names_the_model_and_the_sampling_of_its_reply(stores: Collecting) -> None:
    receipt = await stores.ask("hello")
    await stores.rate(receipt, "U2")
    (opinion,) = await stores.feedback.opinions(PLACE)
    spec = CATALOGUE["echo"]
    assert (opinion.job, opinion.by, opinion.model) == (receipt.job, "U2", spec.name)
    assert opinion.sampling == spec.sampling
    assert opinion.seed is not None


async def test_a_thumb_keeps_how_the_reply_was_made(stores: Collecting) -> None:
    await stores.ask("hello", author="U2")
    receipt = await stores.ask("why?")
    assert await stores.samples() == []
    await stores.rate(receipt, by="U3")
    (sample,) = await stores.samples()
    (trace,) = sample.traces
    assert trace is not None
    assert [turn.text for turn in trace.turns] == ["hello", "echo: hello", "why?"]
    assert (trace.text, trace.model, trace.sampling) == (
        "echo: why?", "echo", CATALOGUE["echo"].sampling,
    )  # fmt: skip
    dialogue = Dialogue.load(CATALOGUE["echo"], None)
    assert trace.prompt_ids == dialogue.prompt(list(trace.turns), low_water=1.0).ids
    assert trace.reply_ids == dialogue.encode_reply("echo: why?")
    assert trace.fingerprint == dialogue.fingerprint
    assert (sample.asker, sample.authors, sample.votes) == ("U1", ("U2", "U1"), {"U3": "good"})


async def test_a_duel_keeps_how_both_answers_were_made(stores: Collecting) -> None:
    second, stop = Collecting.at(stores.redis), asyncio.Event()
    await second.queue.announce("other", "another core", 60)
    dialogue = Dialogue.load(CATALOGUE["echo"], None)
    settings = WorkerSettings("other", "other core", sweep=0.02, idle=0.05, publish=0.02)
    worker = Worker(
        second.queue, second.history, EchoEngine(), dialogue, settings, rulebook=second.rulebook
    )
    working = asyncio.create_task(worker.run(stop))
    receipt = await stores.say("why?", duel=DuelSettings("other", 2, 3600.0))
    await ends(stores, receipt.job)
    stop.set()
    await working
    await stores.feedback.vote(THREAD, receipt.job or "", "U1", "a", collect=True)
    (sample,) = await stores.samples()
    assert [trace and trace.text for trace in sample.traces] == ["echo: why?"] * 2


async def test_nothing_is_kept_where_collecting_is_off(redis: Redis) -> None:
    for policy in (Policy(), replace(COLLECTS, training_permitted=())):
        stores = Collecting.at(redis, policy)
        await stores.queue.announce(LANE, "core", 60)
        async with stores.at_work():
            receipt = await stores.ask("secret")
            await stores.rate(receipt)
    assert await stores.samples() == []
    assert await words(stores, "secret") == set()


async def test_no_sample_has_the_words_of_a_person_who_opted_out(
    stores: Collecting,
) -> None:
    await stores.preferences.opt_out(SPACE, "U2")
    assert await stores.preferences.has_opted_out(SPACE, "U2")
    await stores.ask("secret", author="U2")
    await stores.rate(await stores.ask("why?"))
    assert await words(stores, "secret") == set()
    other = replace(THREAD, thread="2.0")
    await stores.rate(await stores.ask("fine", thread=other), by="U2", thread=other)
    assert await stores.samples() == []  # neither is their vote
    await stores.preferences.opt_out(SPACE, "U2", out=False)
    assert not await stores.preferences.has_opted_out(SPACE, "U2")
    await stores.rate(await stores.ask("fine", author="U2", thread=other), thread=other)
    assert len(await stores.samples()) == 1


async def test_opting_out_deletes_the_persons_samples(stores: Collecting) -> None:
    for number in range(25):  # more than one step's worth
        thread = replace(THREAD, thread=f"{number}.0")
        await stores.ask("secret", author="U2", thread=thread)
        await stores.rate(await stores.ask("why?", thread=thread), by="U3", thread=thread)
    assert len(await stores.samples()) == 25
    await stores.preferences.opt_out(SPACE, "U2")
    assert await words(stores, "secret") == set()
    assert await stores.texts(replace(THREAD, thread="3.0")) != []


async def test_opting_out_reaches_the_copies_of_a_thread(stores: Collecting) -> None:
    await stores.ask("secret", author="U2")
    known = await stores.ask("known")
    for number in (1, 2):
        branch = replace(THREAD, thread=f"{number}.9")
        await stores.history.branch(THREAD, known.job or "", branch)
        await stores.rate(await stores.ask("why?", thread=branch), by="U3", thread=branch)
        if number == 1:
            assert await words(stores, "secret") == {"trace", "sample"}
            await stores.preferences.opt_out(SPACE, "U2")
        assert await words(stores, "secret") == set()
        assert "secret" in await stores.texts(branch)  # it stays in the conversation


async def test_the_words_of_a_denied_person_are_not_kept(stores: Collecting) -> None:
    await stores.ask("secret", author="U2")
    receipt = await stores.ask("why?")
    await stores.rate(receipt)
    assert len(await stores.samples()) == 1
    await stores.rulebook.change(SPACE, "deny_people", ["U2"], "U9")
    assert await stores.samples() == []
    assert await words(stores, "secret") == set()
    await stores.rate(await stores.ask("and now?"))
    assert await words(stores, "secret") == set()


async def test_a_denied_role_counts_as_the_person(stores: Collecting) -> None:
    await stores.rulebook.remember_roles(SPACE, "U2", ["R1"])
    await stores.ask("secret", author="U2")
    await stores.rulebook.change(SPACE, "deny_roles", ["R1"], "U9")
    await stores.rate(await stores.ask("why?"))
    assert "sample" not in await words(stores, "secret")


async def kept_secret(stores: Collecting) -> Receipt:
    """U2 wrote the secret, U1 asked behind it, and U3 liked the reply."""
    await stores.say("secret", author="U2", id="m1")
    receipt = await stores.say("why?", author="U1", id="m2")
    await ends(stores, receipt.job)
    await stores.rate(receipt, by="U3")
    assert "sample" in await words(stores, "secret")
    return receipt


@pytest.mark.parametrize(
    "what", ["forget", "edit", "delete", "reply", "thread", "channel", "space", "asker"]
)
async def test_forgotten_messages_leave_the_samples(stores: Collecting, what: str) -> None:
    receipt = await kept_secret(stores)
    match what:
        case "forget":
            await stores.history.forget(SPACE, "U2")
        case "edit":
            await stores.queue.edit(THREAD, "m1", "nothing", "2", LANE, "adapter")
        case "delete":
            await stores.queue.delete(THREAD, "m1")
        case "reply":
            await stores.queue.delete(THREAD, receipt.job or "")
        case "thread":
            await stores.history.reset(THREAD, "U9")
        case "channel":
            await stores.history.reset_place(PLACE, "U9")
        case "space":
            await stores.history.reset_place(SPACE, "U9")
        case "asker":
            await stores.history.forget(SPACE, "U1")
    # the reply to the secret itself is still there if only a later one was removed
    assert await words(stores, "secret") <= ({"trace"} if what in ("reply", "asker") else set())
    assert await stores.samples() == []


async def test_an_edit_reaches_words_that_the_memory_no_longer_holds(stores: Collecting) -> None:
    await kept_secret(stores)
    await stores.redis.hdel(f"henji:{{0}}:thread:{THREAD}:turns", "m1")  # evicted
    await stores.queue.edit(THREAD, "m1", "nothing", "2", LANE, "adapter")
    assert await words(stores, "secret") == set()


async def test_a_voter_who_is_forgotten_leaves_the_votes(stores: Collecting) -> None:
    receipt = await kept_secret(stores)
    await stores.rate(receipt, by="U4", verdict="bad")
    await stores.history.forget(SPACE, "U3")
    (sample,) = await stores.samples()
    assert sample.votes == {"U4": "bad"}


async def test_a_message_forgotten_while_the_reply_was_written_is_not_kept(redis: Redis) -> None:
    stores = Collecting.at(redis)
    await stores.queue.announce(LANE, "core", 60)
    await stores.say("secret", author="U2", id="m1")
    await stores.reply(await stores.claim(), "hm")
    await stores.say("why?", author="U1", id="m2")
    claim = await stores.claim()
    window = await stores.history.window(claim)
    turns = [stored.turn for stored in (*window.history, *window.mailbox)]
    await stores.history.forget(SPACE, "U2")
    trace = Trace(tuple(turns), "so", "echo")
    turn = Turn(claim.job.id, "assistant", "echo", "so", 1.0)
    done = Done("so", "stop", Usage(1, 1))
    commit = Commit(done, turn, "chars", version=window.version, trace=trace)
    assert await stores.queue.commit(claim, commit) == "ok"
    assert await words(stores, "secret") == set()


async def test_a_shorter_retention_reaches_the_samples(stores: Collecting) -> None:
    receipt = await kept_secret(stores)
    name = f"henji:{{0}}:sample:{receipt.job}"
    day = 24 * 3600
    assert 29 * day < await stores.redis.ttl(name) <= 30 * day
    await stores.rulebook.change(PLACE, "retention_days", 2, "U9")
    assert 0 < await stores.redis.ttl(name) <= 2 * day
    await stores.rulebook.change(PLACE, "retention_days", 9, "U9")
    assert 0 < await stores.redis.ttl(name) <= 2 * day  # it is not kept longer than promised


async def test_a_reply_without_votes_is_kept_two_days(stores: Collecting) -> None:
    receipt = await stores.ask("why?")
    assert 0 < await stores.redis.ttl(f"henji:{{0}}:trace:{receipt.job}") <= 2 * 24 * 3600


async def test_a_regeneration_keeps_both_replies(stores: Collecting) -> None:
    receipt = await stores.ask("why?")
    wanted = Regeneration(THREAD, receipt.job or "", "1", "U1", lane=LANE)
    again = await stores.queue.regenerate(wanted, "adapter")
    await ends(stores, again.job)
    found = {sample.job: sample for sample in await stores.samples()}
    assert found.keys() == {receipt.job, again.job}
    assert found[again.job or ""].replaced == receipt.job
    assert all(not sample.votes for sample in found.values())


async def test_a_persons_samples_can_be_exported(stores: Collecting) -> None:
    await kept_secret(stores)
    for person, number in (("U1", 1), ("U2", 1), ("U3", 1), ("U4", 0)):
        found = [one async for one in stores.preferences.of_person(SPACE, person)]
        assert len(found) == number, person


async def test_a_thread_keeps_only_so_much(stores: Collecting) -> None:
    for number in range(205):
        receipt = await stores.ask(f"number {number}", thread=replace(THREAD, thread="many"))
    kept = await stores.redis.hkeys("henji:{0}:thread:slack:T1:C1:many:kept")
    assert len(kept) <= 200
    assert receipt.job in kept


async def test_a_full_list_loses_first_what_has_expired(stores: Collecting) -> None:
    first = await stores.ask("one")
    name = keys.key("kept", 0, str(THREAD))
    await stores.redis.hset(name, mapping={f"expired {n}": '{"at": 1}' for n in range(199)})
    second = await stores.ask("two")
    assert set(await stores.redis.hkeys(name)) == {first.job, second.job}


async def test_a_digest_of_a_person_is_the_same_and_needs_the_salt(stores: Collecting) -> None:
    one = await stores.preferences.digest(PLACE, "U1")
    assert one == await stores.preferences.digest(SPACE, "U1")
    assert one != await stores.preferences.digest(SPACE, "U2")
    await stores.redis.delete("henji:{0}:salt")
    assert one != await stores.preferences.digest(SPACE, "U1")
