"""The store as tests use it, and short ways to say what happens to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from redis.asyncio import Redis

from core.access_policy import Policy
from core.dialogue import Dialogue
from core.models.catalogue import CATALOGUE
from core.ports import Engine, RuleBook, Stores
from core.queue_types import Claim, Commit, Delivery, Receipt, Regeneration, Submission
from core.types import Delta, Done, Failed, FinishReason, ReplyEvent, ThreadKey, Turn, Usage
from core.worker import Worker, WorkerSettings
from storage import codec, keys
from storage.deliveries import RedisDeliveries
from storage.feedback import RedisFeedback, RedisPreferences
from storage.history import RedisHistory
from storage.queue import RedisQueue
from storage.rules import RedisRules
from storage.shared import RedisLeases, RedisOutbox, RedisSecrets
from storage.store import Store
from tests.open_access import OPEN_RULES
from tests.waiting import until

LANE = "test"
THREAD = ThreadKey("slack", "T1", "C1", "1.0")


@dataclass(frozen=True, slots=True)
class TestConnection:
    """The session's server, as `storage.connect` would give it."""

    __test__ = False
    client: Redis

    def blocking(self) -> Redis:
        return self.client


@dataclass
class StoreFixture:
    """Queue, history and deliveries over one Redis, seen by a person, a core and an adapter."""

    redis: Any
    """The server itself, to look behind the scenes."""
    store: Store
    queue: RedisQueue = field(init=False)
    history: RedisHistory = field(init=False)
    deliveries: RedisDeliveries = field(init=False)
    secrets: RedisSecrets = field(init=False)
    feedback: RedisFeedback = field(init=False)
    outbox: RedisOutbox = field(init=False)
    preferences: RedisPreferences = field(init=False)
    policy: Policy = field(default_factory=Policy)
    """The policy of henji.toml."""
    numbers: Any = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        self.queue = RedisQueue(self.store)
        self.history = RedisHistory(self.store)
        self.deliveries = RedisDeliveries(self.store)
        self.secrets = RedisSecrets(self.store)
        self.feedback = RedisFeedback(self.store)
        self.outbox = RedisOutbox(self.store)
        self.preferences = RedisPreferences(self.store, RedisRules(self.store, self.policy))

    def of_a_platform(self) -> Stores:
        """The stores of a platform's process."""
        return Stores(
            self.queue,
            self.history,
            self.deliveries,
            RedisLeases(self.store),
            self.secrets,
            self.outbox,
            self.feedback,
            self.preferences,
        )

    @classmethod
    def over(cls, redis: Redis, **options: Any) -> StoreFixture:
        return cls(redis, Store(TestConnection(redis), **options))

    @classmethod
    async def serving(cls, redis: Redis, **options: Any) -> StoreFixture:
        """The same, with a core that serves the lane."""
        stores = cls.over(redis, **options)
        await stores.queue.announce(LANE, "core", 60)
        return stores

    async def say(
        self, text: str, thread: ThreadKey = THREAD, author: str = "U1", **changes: Any
    ) -> Receipt:
        """A person's message, with a new id unless one is given."""
        id_ = changes.pop("id", f"m{next(self.numbers)}")
        turn = Turn(id_, "user", author, text, at=changes.pop("at", 1.0))
        submission = Submission(thread, turn, addressed=True, lane=LANE)
        return await self.queue.submit(replace(submission, **changes), "adapter")

    async def claim(self) -> Claim:
        (claim,) = await self.queue.claim(LANE, "core", 1)
        return claim

    async def nothing_to_do(self) -> bool:
        return not await self.queue.claim(LANE, "core", 1)

    async def reply(
        self, claim: Claim, text: str, finish: FinishReason = "stop", evict: tuple[str, ...] = ()
    ) -> str:
        window = await self.history.window(claim)
        counts = {
            stored.turn.id: len(stored.turn.text) for stored in window.mailbox
        }  # a character is a token here
        turn = Turn(claim.job.id, "assistant", "henji", text, at=2.0) if text else None
        done = Done(text, finish, Usage(0, len(text)))
        return await self.queue.commit(
            claim, Commit(done, turn, "chars", counts, window.version, evict)
        )

    async def texts(self, thread: ThreadKey = THREAD) -> list[str]:
        """The remembered texts of a thread, oldest first."""
        return [stored.turn.text for stored in await self.history.turns(thread)]

    async def events(self, job: str | None, thread: ThreadKey = THREAD) -> list[ReplyEvent]:
        assert job is not None
        name = keys.key("events", self.store.bucket(thread), job)
        return [codec.decode_event(fields["e"]) for _, fields in await self.redis.xrange(name)]

    async def delivery(self, job: str | None, thread: ThreadKey = THREAD) -> Delivery:
        assert job is not None
        found = await self.deliveries.get(thread, job)
        assert found is not None
        return found


@asynccontextmanager
async def at_work(
    stores: StoreFixture,
    engine: Engine,
    rulebook: RuleBook = OPEN_RULES,
    dialogue: Dialogue | None = None,
    **options: Any,
) -> AsyncIterator[None]:
    """A core, until it is left: then it is told to stop, and has stopped."""
    stop = asyncio.Event()
    dialogue = dialogue or Dialogue.load(CATALOGUE["echo"], None)
    settings = WorkerSettings(
        LANE, "core", **{"sweep": 0.02, "idle": 0.05, "publish": 0.02, **options}
    )
    worker = Worker(stores.queue, stores.history, engine, dialogue, settings, rulebook)
    working = asyncio.create_task(worker.run(stop))
    try:
        yield
    finally:
        stop.set()
        await working


async def ends(stores: StoreFixture, job: str | None, thread: ThreadKey = THREAD) -> ReplyEvent:
    """Wait for the end of a reply, and return it."""

    async def ended() -> bool:
        return isinstance((await stores.events(job, thread))[-1], Done | Failed)

    await until(ended)
    return (await stores.events(job, thread))[-1]


async def shows(stores: StoreFixture, job: str | None, thread: ThreadKey = THREAD) -> bool:
    """Whether something of the reply has been published."""
    return any(isinstance(event, Delta) for event in await stores.events(job, thread))


def before(id_: str, text: str, author: str = "U2", ago: float = 60.0) -> Turn:
    """What was said in a thread before, so many seconds ago."""
    return Turn(id_, "user", author, text, at=time.time() - ago)


def job_of(receipt: Receipt) -> str:
    assert receipt.job is not None
    return receipt.job


async def lose_lease(stores: StoreFixture) -> None:
    await stores.redis.zadd("henji:{0}:leases", {str(THREAD): 1})
    await stores.queue.sweep()


async def answered(stores: StoreFixture, text: str, reply: str, id_: str) -> str:
    """A message that has its reply; the reply's id."""
    receipt = await stores.say(text, id=id_)
    await stores.reply(await stores.claim(), reply)
    return job_of(receipt)


async def edit(stores: StoreFixture, turn: str, text: str, revision: str = "1") -> Receipt:
    return await stores.queue.edit(THREAD, turn, text, revision, LANE, "adapter")


async def regenerate(stores: StoreFixture, reply: str, revision: str = "1") -> Receipt:
    return await stores.queue.regenerate(
        Regeneration(THREAD, reply, revision, "U1", lane=LANE), "adapter"
    )


async def nothing_is_left_open(stores: StoreFixture) -> bool:
    """No counter, lease, deadline or place in the order outlives the jobs."""
    names = ("leases", "delayed", "deadlines", "open")
    left = [name for name in names if await stores.redis.exists(keys.key(name, 0))]
    waiting = await stores.redis.get(keys.key("waiting", 0, LANE))
    assert (left, waiting or "0") == ([], "0")
    return True


async def past_deadline(stores: StoreFixture, receipt: Receipt) -> None:
    await stores.redis.zadd("henji:{0}:deadlines", {job_of(receipt): 1})
    await stores.queue.sweep()
