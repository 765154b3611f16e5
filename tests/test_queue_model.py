"""The scripts against the model: hypothesis takes steps of all kinds, and both must agree."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from random import Random
from typing import Any, TypeVar

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from redis.asyncio import Redis

from core.queue_types import Claim, Commit, Place, Regeneration, Submission
from core.types import Cancelled, Delta, Done, Failed, ThreadKey, Turn, Usage
from storage import keys
from storage.store import Limits
from tests.queue_model import MAX_ATTEMPTS, Model, ModelThread
from tests.store_fixture import LANE, StoreFixture

T = TypeVar("T")

THREADS = [ThreadKey("p", "S", *place) for place in (("C1", "1"), ("C1", "2"), ("C2", "1"))]
PEOPLE = ("U1", "U2")
MANY = Limits(thread=1000)

ACTS = (
    *("say", "say", "say", "claim", "claim", "claim", "commit", "commit", "edit", "edit", "cancel"),
    *("say_again", "delete", "regenerate", "publish", "fail", "release", "lose_lease", "wait_over"),
    *("reset", "reset_place"),
)


def newest(things: Sequence[T], pick: int) -> T:
    """One of the last few."""
    return things[-1 - pick % min(len(things), 4)]


class QueueMachine(RuleBasedStateMachine):
    """Runs each step in Redis and in the model."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.redis: Any = Redis.from_url(self.url, decode_responses=True)
        self.stores = StoreFixture.over(
            self.redis, lease=60.0, backoff=60.0, max_attempts=MAX_ATTEMPTS, limits=MANY
        )
        self.model = Model()
        self.claims: list[tuple[Claim, int]] = []
        """Every claim that there was, with the model's gen of it."""
        self.number, self.edits, self.sound = 0, 2, True
        self.run(self._empty())
        self.run(self.stores.queue.announce(LANE, "core", 3600))

    async def _empty(self) -> None:
        await self.redis.flushall()

    def run(self, step: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(step)

    @rule(seed=st.integers(0, 2**32))
    def step(self, seed: int) -> None:
        """Hypothesis would rather not choose, and then seldom gets far."""
        random = Random(seed)
        act, key = random.choice(ACTS), random.choice(THREADS)
        pick, flag = random.choice((0, 0, 1, 2, 3)), random.random() < 0.5
        self.sound = False
        getattr(self, act)(key, pick, flag)
        self.sound = True

    # -- people ---------------------------------------------------------------------------------

    def say(self, key: ThreadKey, pick: int, flag: bool) -> None:
        self.number += 1
        self._submit(key, f"m{self.number}", PEOPLE[flag], addressed=pick != 1)

    def say_again(self, key: ThreadKey, pick: int, flag: bool) -> None:
        if said := [id_ for thread, id_ in self.model.seen if thread == key]:
            id_ = newest(said, pick)
            author = self.model.thread(key).authors.get(id_, "U1")
            self._submit(key, id_, author, addressed=flag)

    def _submit(self, key: ThreadKey, id_: str, author: str, *, addressed: bool) -> None:
        turn = Turn(id_, "user", author, f"text of {id_}", at=1.0)
        expected = self.model.submit(key, id_, author, turn.text, addressed=addressed)
        receipt = self.run(self.stores.queue.submit(Submission(key, turn, addressed, LANE), "a"))
        assert (receipt.outcome, receipt.job) == expected
        ready = [thread for thread in self.model.threads.values() if thread.ready]
        assert 0 <= receipt.position <= len(ready)

    def edit(self, key: ThreadKey, pick: int, flag: bool) -> None:
        thread = self.model.thread(key)
        turns = [id_ for id_, _ in thread.remembered() if id_ in thread.authors]
        if turns:
            id_ = newest(turns, pick)
            self.edits += 1
            revision = self.edits - (2 if flag else 0)  # some come too late
            text = thread.texts[id_] if pick == 3 else f"text {revision} of {id_}"
            expected = self.model.edit(key, id_, text, revision)
            receipt = self.run(
                self.stores.queue.edit(key, id_, text, str(revision), LANE, "adapter")
            )
            assert (receipt.outcome, receipt.job) == expected

    def delete(self, key: ThreadKey, pick: int, flag: bool) -> None:
        thread = self.model.thread(key)
        if ids := [*(id_ for id_, _ in thread.remembered()), *(job.id for job in thread.jobs)]:
            id_ = newest(ids, pick)
            expected = self.model.delete(key, id_)
            assert list(self.run(self.stores.queue.delete(key, id_))) == expected

    def regenerate(self, key: ThreadKey, pick: int, flag: bool) -> None:
        revision = str(flag)
        thread = self.model.thread(key)
        if replies := [*thread.answers, *(job.id for job in thread.jobs)]:
            reply = newest(replies, pick)
            expected = self.model.regenerate(key, reply, revision)
            receipt = self.run(
                self.stores.queue.regenerate(
                    Regeneration(key, reply, revision, "U1", lane=LANE), "adapter"
                )
            )
            assert (receipt.outcome, receipt.job) == expected

    def cancel(self, key: ThreadKey, pick: int, flag: bool) -> None:
        if self.model.jobs:
            id_ = newest(list(self.model.jobs), pick)
            expected = self.model.cancel(id_)
            assert self.run(self.stores.queue.cancel(THREADS[0], id_)) == expected

    def reset(self, key: ThreadKey, pick: int, flag: bool) -> None:
        expected = self.model.reset(key)
        assert self.run(self.stores.history.reset(key, "U1")) == expected

    def reset_place(self, key: ThreadKey, pick: int, flag: bool) -> None:
        channel = key.channel if flag else None
        for other in THREADS:
            if channel in (None, other.channel):
                self.model.reset(other)
        self.run(self.stores.history.reset_place(Place("p", "S", channel), "U1"))

    # -- cores ----------------------------------------------------------------------------------

    def claim(self, key: ThreadKey, pick: int, flag: bool) -> None:
        ready = {key for key, thread in self.model.threads.items() if thread.ready}
        claims = self.run(self.stores.queue.claim(LANE, "core", 1))
        assert bool(claims) == bool(ready)
        for claim in claims:
            key = claim.job.thread
            assert key in ready
            job = self.model.claim(key)
            assert (claim.job.id, claim.job.turn) == (job.id, job.turn)
            assert claim.job.replaces == job.replaces
            self.claims.append((claim, self.model.thread(key).gen))
            self._read(claim, self.model.thread(key))

    def _read(self, claim: Claim, thread: ModelThread) -> None:
        window = self.run(self.stores.history.window(claim))
        assert [stored.turn.id for stored in window.history] == thread.history
        upto = thread.mailbox.index(claim.job.turn) + 1 if claim.job.turn in thread.mailbox else 0
        assert [stored.turn.id for stored in window.mailbox] == thread.mailbox[:upto]

    def _pick(self, pick: int) -> tuple[Claim, str]:
        """One of the last claims, held or lost, and what the model says of it."""
        claim, gen = newest(self.claims, pick)
        return claim, self.model.verdict(claim.job.thread, claim.job.id, gen)

    def publish(self, key: ThreadKey, pick: int, flag: bool) -> None:
        if not self.claims:
            return
        claim, verdict = self._pick(pick)
        job = self.model.jobs[claim.job.id]
        delta = Delta(len(job.shown), "言葉 ")
        assert self.run(self.stores.queue.publish(claim, delta)) == verdict
        if verdict == "ok":
            job.shown += delta.text

    def commit(self, key: ThreadKey, pick: int, flag: bool) -> None:
        if not self.claims:
            return
        text, stopped = "" if pick == 3 else f"reply {pick}", flag
        claim, verdict = self._pick(pick)
        reply = Turn(claim.job.id, "assistant", "henji", text, at=2.0)
        done = Done(text, "cancelled" if stopped else "stop", Usage(0, 0))
        answer = self.run(
            self.stores.queue.commit(claim, Commit(done, reply if text else None, "chars"))
        )
        if stopped and verdict == "cancelled":
            verdict = answer
        assert answer == verdict
        if answer == "ok" or (stopped and answer == "cancelled"):
            self.model.commit(claim.job.thread, claim.job.id, text)

    def fail(self, key: ThreadKey, pick: int, flag: bool) -> None:
        if not self.claims:
            return
        claim, verdict = self._pick(pick)
        answer = self.run(self.stores.queue.fail(claim, "internal", "boom", retry=flag))
        assert answer == verdict
        if verdict != "fenced":
            self.model.fail(claim.job.thread, claim.job.id, retry=flag)

    def release(self, key: ThreadKey, pick: int, flag: bool) -> None:
        if not self.claims:
            return
        claim, verdict = self._pick(pick)
        assert self.run(self.stores.queue.release(claim)) == verdict
        if verdict != "fenced":
            self.model.release(claim.job.thread, claim.job.id)

    def lose_lease(self, key: ThreadKey, pick: int, flag: bool) -> None:
        if self.model.thread(key).running:
            self.model.lose_lease(key)
            self.run(self.redis.zadd(keys.key("leases", 0), {str(key): 1}, xx=True))
            assert self.run(self.stores.queue.sweep()).taken_over == 1

    def wait_over(self, key: ThreadKey, pick: int, flag: bool) -> None:
        if self.model.thread(key).delayed:
            self.model.thread(key).delayed = False
            self.run(self.redis.zadd(keys.key("delayed", 0), {str(key): 1}, xx=True))
            self.run(self.stores.queue.sweep())

    # -- the comparison -------------------------------------------------------------------------

    @invariant()
    def they_agree(self) -> None:
        self.run(self._agree())

    async def _agree(self) -> None:
        await asyncio.gather(*map(self._agree_on, self.model.threads), self._count())

    async def _agree_on(self, key: ThreadKey) -> None:
        thread = self.model.threads[key]
        turns = await self.stores.history.turns(key)
        assert [(s.turn.id, s.turn.text) for s in turns] == thread.remembered()
        ids = await self.redis.zrange(keys.key("jobs", 0, str(key)), 0, -1)
        assert ids == [job.id for job in thread.jobs]

    async def _count(self) -> None:
        """The counters are those of the open jobs."""
        owed: Counter[str] = Counter()
        for key, thread in self.model.threads.items():
            for job in thread.jobs:
                owed.update(("all", f"channel p:S:{key.channel}", f"person p:S:{job.author}"))
        open_ = await self.redis.hgetall(keys.key("open", 0))
        assert {name: int(number) for name, number in open_.items()} == owed
        ready = [thread for thread in self.model.threads.values() if thread.ready]
        assert int(await self.redis.get(keys.key("waiting", 0, LANE)) or 0) == len(ready)
        assert await self.redis.zcard(keys.key("deadlines", 0)) == owed["all"]

    def teardown(self) -> None:
        """Drained, nothing is open, each job has ended once, and no key lives for ever."""
        try:
            if self.sound:
                self.check_the_end()
        finally:
            self.run(self.redis.aclose())
            self.runner.close()

    def check_the_end(self) -> None:
        self.drain()
        for name in ("leases", "delayed", "deadlines", "open"):
            assert not self.run(self.redis.exists(keys.key(name, 0)))
        for id_, job in self.model.jobs.items():
            ends = [e for e in self.run(self.stores.events(id_, THREADS[0]))
                        if isinstance(e, Done | Failed | Cancelled)]  # fmt: skip
            assert (id_, job.ended, len(ends)) == (id_, job.ended or "open", 1)
        self.run(self.stores.queue.sweep())
        self.run(self.stores.deliveries.take_over("p", "adapter"))
        for name in self.run(self.redis.keys()):
            assert self.run(self.redis.ttl(name)) >= 0, name

    def drain(self) -> None:
        for key in THREADS:
            if self.model.thread(key).running:
                self.lose_lease(key, 0, True)
            self.wait_over(key, 0, True)
        while any(thread.jobs for thread in self.model.threads.values()):
            assert any(thread.ready for thread in self.model.threads.values())
            self.claim(THREADS[0], 0, True)
            self.commit(THREADS[0], 0, True)
            self.they_agree()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_scripts_agree_with_the_model(redis_url: str, request: pytest.FixtureRequest) -> None:
    QueueMachine.url = redis_url
    chaos = request.config.getoption("--schedules")
    run_state_machine_as_test(
        QueueMachine,
        settings=settings(
            max_examples=max(16, chaos // 20) if chaos else 16,
            stateful_step_count=150,
            deadline=None,
            phases=(Phase.explicit, Phase.reuse, Phase.generate),
            suppress_health_check=list(HealthCheck),
        ),
    )
