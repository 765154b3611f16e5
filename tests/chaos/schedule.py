"""One seeded schedule: people write, edit, delete, stop and reset while processes die around them.

All of a schedule happens on a platform and a lane of its own, so that many share one Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, TypeVar, cast

from bots import relay as relays
from bots.access import Access
from bots.platform import Incoming
from bots.relay import Relay
from core import worker as workers
from core.access_policy import Asker, Policy
from core.dialogue import Dialogue
from core.errors import StoreUnavailable
from core.models.catalogue import CATALOGUE
from core.ports import ConversationStores, RuleBook
from core.queue_types import Delivery, Place, Receipt, Regeneration
from core.types import VERDICTS, Cancelled, Done, Failed, Job, ReplyEvent, ThreadKey, Turn, Verdict
from core.worker import Worker
from storage import codec
from storage.deliveries import RedisDeliveries
from storage.feedback import RedisFeedback
from storage.history import RedisHistory
from storage.queue import RedisQueue
from storage.rules import RedisRules
from storage.store import Store
from tests.chaos.process import Gated, Process, some_faults
from tests.chaos.prompts import Prompts, RecordingEngine, recorded
from tests.chaos.terms import RETENTION, SEEN, RuleChanges, Terms
from tests.open_access import EVERYBODY, OPEN_RULES, NoAudit
from tests.simulated_platform import Board, SimulatedPlatform

T = TypeVar("T")

LEASE = 0.3
CALL_SECONDS = 0.5
"""Longer than a lease: what a dead process sent may take effect after another has taken over."""
ACTING = 1.2
"""Seconds in which people act and processes fail."""
PATIENCE = 0.4
"""Seconds without an acknowledgement after which the platform delivers an event again."""
LONG = 0.4
"""The part of schedules with a thread so long that cores keep a copy of it."""
VOTES = 4
"""After a day with duels, when all answers are there."""
QUIET = 30.0
"""Seconds that everything has to come to rest in, once nothing fails any more."""

OF_JOBS = ("job", "events", "delivery", "duel", "trace", "sample")
"""Kinds of keys that are named after a job."""

DIALOGUE = Dialogue.load(CATALOGUE["echo"], None)


@dataclass
class SentMessage:
    """A message of a person's, and what became of it on the platform's side."""

    turn: Turn
    thread: ThreadKey
    addressed: bool
    day: int = 0
    """How many nights had passed."""
    began: float = field(default_factory=time.monotonic)
    acknowledged: float | None = None
    texts: list[str] = field(default_factory=list)
    """By revision."""
    edits: int = 0
    """The newest revision that was acknowledged."""
    edited_at: list[tuple[float, int]] = field(default_factory=list)
    """When each revision was acknowledged."""
    editing: list[float] = field(default_factory=list)
    """When each edit was made."""
    deleting: float | None = None
    deleted: float | None = None

    @property
    def job(self) -> str:
        """The id of its first reply."""
        return Job.id_for(self.thread, self.turn.id, "")


@dataclass
class Reset:
    covers: Callable[[ThreadKey], bool]
    began: float
    ended: float | None = None
    """When it was acknowledged."""


@dataclass
class Vote:
    """A press on a button under a duel."""

    job: str
    person: str
    verdict: Verdict
    began: float
    ended: float | None = None
    counted: bool = False


@dataclass
class Adapter:
    process: Process
    relay: Relay


class KeptEvents(RedisDeliveries):
    """Copies a reply's events when its delivery is closed: a reset takes them away.

    The delivery of a reply whose message was deleted is closed before the job ends. A reset that
    comes then takes the end away as well, so that the copy gets one.
    """

    async def close(self, delivery: Delivery, messages: Sequence[str]) -> bool:
        rows = await self._store.command("xrange", f"henji:{{0}}:events:{delivery.job}")
        if rows:
            texts = [fields["e"] for _, fields in rows]
            if not isinstance(codec.decode_event(texts[-1]), Done | Failed | Cancelled):
                texts.append(codec.encode_event(Cancelled("delete")))
            await self._store.command("set", f"chaos:{delivery.job}", codec.dump(texts), 600)
        return await super().close(delivery, messages)


OTHER_WORD = "oche"
"""Begins the answers of the other lane, where those of the first begin with ``echo``."""


async def events_of(store: Store, job: str) -> list[ReplyEvent]:
    """A reply's events, or how they were when its delivery was closed."""
    rows = await store.command("xrange", f"henji:{{0}}:events:{job}")
    texts = [fields["e"] for _, fields in rows]
    kept = await store.command("get", f"chaos:{job}") or "[]"
    return [codec.decode_event(text) for text in texts or codec.load(kept)]


class Schedule:
    """What happens in one schedule, and afterwards what there is to check."""

    def __init__(self, seed: int, store: Store) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.store = store
        self.platform = f"chaos{seed}"
        self.lane = f"lane{seed}"
        self.terms = Terms.drawn(self.random, self.other_lane)
        self.changes = RuleChanges()
        self.votes: list[Vote] = []
        self.dates = [0.0]
        """Of each day of acts, in seconds."""
        self.kept: dict[str, tuple[Mapping[str, str], Mapping[str, str]]] = {}
        """Jobs and deliveries as they were before the last night, by the job's id."""
        self.board = Board(nonce=self.random.random() < 0.5)
        self.said: dict[str, SentMessage] = {}
        self.past: dict[str, SentMessage] = {}
        """Messages from before the bot was there."""
        self.prompts = Prompts()
        self.resets: list[Reset] = []
        self.jobs: set[str] = set()
        """Ids that a reply may have had."""
        self.adapters: list[Adapter] = []
        self.processes: list[Process] = []
        self.stuck: list[str] = []
        """What the living do where it does not come to rest."""
        self.harmless = False
        self.over = False
        self._number = 0
        self._changing = asyncio.Lock()
        channels = [f"C{n}" for n in range(self.random.randint(1, 2))]
        self.threads = [
            ThreadKey(self.platform, "S", self.random.choice(channels), str(n)) for n in range(3)
        ]
        if self.random.random() < LONG:
            self._write_past(self.threads[0])

    async def run(self) -> None:
        """Let it all happen, and come to rest. TimeoutError where it does not."""
        try:
            for kind in ("core", "adapter", *(["other core"] if self.terms.rules.duel else [])) * 2:
                self._start(kind)
            await self._live_a_day()
            for night in self.terms.nights:
                await self._sleep(night)
                await self._live_a_day()
        except TimeoutError:
            self.stuck = [process.doing() for process in self.processes if not process.dead]
            raise
        finally:
            self.over = True
            for process in self.processes:
                await process.cancel_tasks()

    async def _live_a_day(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self.random.randint(3, 12) + 4 * self.terms.calm):
                at = self.random.uniform(0, ACTING)
                group.create_task(self._act(at, Random(self.random.random())))
        self._heal()
        await self._rest()
        if self.terms.rules.duel:
            await asyncio.gather(*(self._vote(Random(self.random.random())) for _ in range(VOTES)))
            await self._rest()

    async def _rest(self) -> None:
        async with asyncio.timeout(QUIET):
            while not await self._rests_for_good():  # noqa: ASYNC110 - all are gated
                await asyncio.sleep(0.05)

    async def _sleep(self, seconds: float) -> None:
        """Nobody does anything for so long: what is kept comes so much nearer to its end."""
        for job in self.jobs:
            if records := await records_of(self.store, job):
                self.kept[job] = records
        passed = round(1000 * seconds)
        for thread in self.threads:
            name = f"henji:{{0}}:thread:{thread}"
            if await self.store.command("hexists", name, "renewed"):
                await self.store.command("hincrby", name, "renewed", -passed)
        for name in await self._names():
            left = await self.store.command("pttl", name)
            await self.store.command("pexpire", name, max(1, left - passed))
        for said in (self.said | self.past).values():
            said.turn = replace(said.turn, at=said.turn.at - seconds)
        for turns in self.board.said.values():
            for id_, turn in turns.items():
                turns[id_] = replace(turn, at=turn.at - seconds)
        self.dates.append(self.dates[-1] + seconds)
        if seconds > RETENTION:
            now = time.monotonic()
            self.resets.append(Reset(lambda thread: True, now, now))

    async def _names(self) -> Sequence[str]:
        """The keys of this schedule that living processes do not write again and again."""
        renewed = ("deliveries", "news")
        names = {
            name
            for pattern in (f"*{self.platform}:*", f"*:seen:*.{self.seed}")
            async for name in self.store.connection.client.scan_iter(pattern, count=5000)
        }
        names |= {f"henji:{{0}}:{kind}:{job}" for job in self.jobs for kind in OF_JOBS}
        return [name for name in names if name.split(":")[2] not in renewed]

    def _heal(self) -> None:
        self.harmless = True
        for process in self.processes:
            process.faults.clear()

    async def _rests_for_good(self) -> bool:
        """Also those have been awake for a while who find that they wrote one message too many:
        Redis may be slow to tell them."""
        at_work = any(adapter.relay._tasks for adapter in self.adapters if not adapter.process.dead)
        held = any(process.held for process in self.processes)
        if at_work or held or not await self._rests():
            return False
        await asyncio.sleep(LEASE)
        return await self._rests()

    async def _rests(self) -> bool:
        busy = [f"deliveries:{self.platform}"] + [
            f"thread:{thread}:jobs" for thread in self.threads
        ]
        if await self.store.command("exists", *(f"henji:{{0}}:{name}" for name in busy)):
            return False
        soon = 1000 * (time.time() + 60)
        due = await self.store.command("zrangebyscore", "henji:{0}:duels", "-inf", soon)
        return self.jobs.isdisjoint(due)

    # -- processes ------------------------------------------------------------------------------

    def _process(self, kind: str) -> Process:
        faults = {} if self.harmless else some_faults(self.random, LEASE, CALL_SECONDS)
        # The one window: where a platform posts twice, a process that was stopped between its look
        # at the lease and its post, and is killed as it wakes up, leaves a second message.
        process = Process(
            f"{kind}{len(self.processes)}.{self.seed}", faults, hardy=not self.board.nonce
        )
        self.processes.append(process)
        asyncio.ensure_future(self._replace(process, kind))  # noqa: RUF006 - ends with the process
        return process

    async def _replace(self, process: Process, kind: str) -> None:
        await process.died.wait()
        await asyncio.sleep(Random(process.name).uniform(0, 0.4))
        if not self.over:
            self._start(kind)

    def _start(self, kind: str) -> None:
        match kind:
            case "core":
                self._start_core(kind, self.lane, "echo")
            case "other core":
                self._start_core(kind, self.other_lane, OTHER_WORD)
            case _:
                self._start_adapter()

    @property
    def other_lane(self) -> str:
        return f"{self.lane}b"

    def _start_core(self, kind: str, lane: str, word: str) -> None:
        process = self._process(kind)
        stores = self._stores(process)
        process_settings = workers.WorkerSettings(
            lane, process.name, lease=LEASE, renew=0.08, sweep=0.15, announced_for=0.8,
            publish=0.02, idle=0.1, retry=0.05,
        )  # fmt: skip
        engine = RecordingEngine(self.random.choice((0, 300)), self.prompts, word)
        ports, rulebook = (
            recorded(self.prompts, stores.queue, stores.history),
            self._rulebook(process),
        )
        worker = Worker(*ports, engine, DIALOGUE, process_settings, rulebook=rulebook)
        process.start(worker.run(asyncio.Event()))

    def _start_adapter(self) -> None:
        process = self._process("adapter")
        process_settings = relays.RelaySettings(
            self.lane, process.name, lease=LEASE, take_over=0.15, positions=0.3, backfill_wait=0.2,
            access=self._access(process),
        )  # fmt: skip
        simulated = SimulatedPlatform(
            self.board, self.platform, 100, CALL_SECONDS, process.platform
        )
        relay = Relay(simulated, self._stores(process), process_settings)
        self.adapters = [a for a in self.adapters if not a.process.dead]
        self.adapters.append(Adapter(process, relay))
        process.start(relay.run(asyncio.Event()))

    def _stores(self, process: Process) -> ConversationStores:
        ports = (RedisQueue(self.store), RedisHistory(self.store), KeptEvents(self.store))
        gated: list[Any] = [Gated(port, process) for port in ports]
        return ConversationStores(*gated)

    def _rulebook(self, process: Process) -> RuleBook:
        if self.terms.is_usual:
            return OPEN_RULES
        return cast("RuleBook", Gated(RedisRules(self.store, self.terms.policy), process))

    def _access(self, process: Process) -> Access:
        if self.terms.is_usual:
            return EVERYBODY
        cores = RedisQueue(self.store).cores
        return Access(self._rulebook(process), NoAudit(), self.terms.policy, cores)

    # -- people ---------------------------------------------------------------------------------

    async def _act(self, at: float, random: Random) -> None:
        await asyncio.sleep(at)
        acts: list[tuple[int, Callable[[Random], Awaitable[None]]]] = [
            (12, self._say), (3, self._chat),
            (3 * (not self.terms.calm), self._edit), (2 * (not self.terms.calm), self._delete),
            (1, self._delete_reply), (2, self._stop), (3, self._regenerate), (1, self._reset),
            (1, self._reset_place), (3 * self.terms.changes, self._change_rule),
            (6 * bool(self.terms.rules.duel), self._vote),
            (3 * (len(self.dates) > 1), self._say_again),
        ]  # fmt: skip
        (act,) = random.choices([act for _, act in acts], [weight for weight, _ in acts])
        await act(random)

    def _write_past(self, thread: ThreadKey) -> None:
        for number in range(self.random.randint(18, 30)):
            id_ = f"p{number}"
            turn = self.board.say(thread, id_, "U1", _words(self.random, f"{self.seed}.{id_}"))
            said = SentMessage(
                turn, thread, False, acknowledged=time.monotonic(), texts=[turn.text]
            )
            self.past[id_] = said

    def _write(self, random: Random, *, addressed: bool) -> SentMessage:
        self._number += 1
        thread, author = random.choice(self.threads), random.choice(("U1", "U2"))
        id_ = f"m{self._number}"
        turn = self.board.say(thread, id_, author, _words(random, f"{self.seed}.{id_}"))
        day = len(self.dates) - 1
        self.said[id_] = said = SentMessage(turn, thread, addressed, day, texts=[turn.text])
        self.jobs.add(said.job)
        return said

    async def _say(self, random: Random) -> None:
        said = self._write(random, addressed=True)
        copies = [True] + [random.random() < 0.5 for _ in range(random.choice((0, 0, 1, 2)))]
        random.shuffle(copies)
        events = [self._event(said, addressed, n, random) for n, addressed in enumerate(copies)]
        await asyncio.gather(*events)
        said.acknowledged = time.monotonic()

    async def _chat(self, random: Random) -> None:
        said = self._write(random, addressed=False)
        await self._event(said, False, 0, random)
        said.acknowledged = time.monotonic()

    async def _event(
        self, said: SentMessage, addressed: bool, number: int, random: Random
    ) -> Receipt:
        await asyncio.sleep(random.choice((0, 0, 0.05, 0.3)))
        incoming = Incoming(
            said.thread,
            said.turn,
            addressed,
            event_ids=(f"e{number}.{said.turn.id}.{self.seed}",),
            has_past=len(self.board.said[said.thread]) > 1,
            can_vote=True,
        )
        return await self._deliver(lambda relay: relay.submit(incoming), random)

    async def _say_again(self, random: Random) -> None:
        """The platform delivers a message of an earlier day once more."""
        known = [
            said
            for said in self.said.values()
            if said.addressed and 0 < self.dates[-1] - self.dates[said.day] < SEEN
        ]
        if known:
            await self._event(random.choice(known), True, 0, random)

    async def _edit(self, random: Random) -> None:
        said = self._pick(random)
        if said is None or said.deleting is not None:
            return
        text = _words(random, f"{self.seed}.{said.turn.id}e{len(said.texts)}")
        said.texts.append(text)
        said.editing.append(time.monotonic())
        number = len(said.texts) - 1
        turn = replace(said.turn, text=text)
        self.board.said[said.thread][turn.id] = turn
        self.jobs.add(Job.id_for(said.thread, turn.id, str(number)))
        await asyncio.sleep(random.choice((0, 0, 0.1)))
        await self._deliver(
            lambda r: r.edited(Asker(said.thread, turn.author), turn.id, text, str(number)), random
        )
        said.edits = max(said.edits, number)
        said.edited_at.append((time.monotonic(), number))

    async def _delete(self, random: Random) -> None:
        said = self._pick(random)
        if said is None:
            return
        said.deleting = said.deleting or time.monotonic()
        self.board.said[said.thread].pop(said.turn.id, None)
        await self._deliver(lambda relay: relay.deleted(said.thread, said.turn.id), random)
        said.deleted = said.deleted or time.monotonic()

    async def _delete_reply(self, random: Random) -> None:
        standing = [message for message in self.board.messages.values() if not message.gone]
        if standing:
            message = random.choice(standing)
            self.board.take_away(message.id)
            await self._deliver(lambda relay: relay.deleted(message.thread, message.id), random)

    async def _stop(self, random: Random) -> None:
        if said := self._pick(random):
            job = Job.id_for(said.thread, said.turn.id, "")
            await self._deliver(lambda relay: relay.stop(said.thread, job), random)

    async def _regenerate(self, random: Random) -> None:
        standing = [m for m in self.board.messages.values() if isinstance(m.part.end, Done)]
        if not standing:
            return
        message, revision = random.choice(standing), f"{len(self.dates)}{random.randint(1, 3)}"
        self.jobs.add(Job.id_for(message.thread, message.job, revision))
        pressed = Regeneration(message.thread, message.job, revision, "U1")
        await self._deliver(lambda relay: relay.regenerate(pressed), random)

    async def _reset(self, random: Random) -> None:
        thread = random.choice(self.threads)
        reset = Reset(lambda other: other == thread, time.monotonic())
        self.resets.append(reset)
        await self._deliver(lambda relay: relay.reset(thread, "U1"), random)
        reset.ended = time.monotonic()

    async def _vote(self, random: Random) -> None:
        for _ in range(20):
            standing = [
                m for m in self.board.messages.values()
                if isinstance(m.part.end, Done) and m.part.end.duel and not m.gone
            ]  # fmt: skip
            if standing:
                break
            await asyncio.sleep(0.05)
        if standing:
            message = random.choice(standing)
            asker = next(s.turn.author for s in self.said.values() if message.job == s.job)
            person = random.choice((asker, asker, "U1", "U2", "U3"))
            vote = Vote(message.job, person, random.choice(VERDICTS), time.monotonic())
            self.votes.append(vote)
            feedback, verdict = RedisFeedback(self.store), vote.verdict
            await asyncio.sleep(random.choice((0, 0.1)))
            vote.counted = await feedback.vote(message.thread, message.job, person, verdict)
            vote.ended = time.monotonic()

    async def _change_rule(self, random: Random) -> None:
        channel, rules = random.choice(self.threads).channel, RedisRules(self.store, Policy())
        async with self._changing:
            change = self.changes.drawn(random, channel, self.terms)
            self.changes.made.append(change)
            place = Place(self.platform, self.threads[0].space, channel)
            await rules.change(place, change.name, change.value, "U1")
            change.ended = time.monotonic()

    async def _reset_place(self, random: Random) -> None:
        channel = random.choice((None, random.choice(self.threads).channel))
        covers = lambda thread: channel in (None, thread.channel)  # noqa: E731
        reset = Reset(covers, time.monotonic())
        self.resets.append(reset)
        history, place = (
            RedisHistory(self.store),
            Place(self.platform, self.threads[0].space, channel),
        )
        while True:
            with contextlib.suppress(StoreUnavailable):
                await history.reset_place(place, "U1")
                reset.ended = time.monotonic()
                return
            await asyncio.sleep(0.05)

    @property
    def restarts(self) -> int:
        """How many replies may have begun again, at the most."""
        return sum(len(said.editing) + (said.deleting is not None) for said in self.said.values())

    def _pick(self, random: Random) -> SentMessage | None:
        return random.choice(list(self.said.values())) if self.said else None

    async def _deliver(self, handle: Callable[[Relay], Awaitable[T]], random: Random) -> T:
        """As platforms do: again, and to another process, until one acknowledges."""
        patience = PATIENCE
        while True:
            living = [adapter for adapter in self.adapters if not adapter.process.dead]
            if living:
                adapter = random.choice(living)
                handling = adapter.process.start(_handled(handle(adapter.relay)))
                await asyncio.wait({handling}, timeout=patience)
                patience *= 1.5  # or those of a slow machine would slow it further
                with contextlib.suppress(StoreUnavailable):
                    if handling.done() and not handling.cancelled():
                        return handling.result()
            await asyncio.sleep(0.02)


async def records_of(store: Store, job: str) -> tuple[Mapping[str, str], Mapping[str, str]] | None:
    """What Redis has of a job and its delivery."""
    names = (f"henji:{{0}}:job:{job}", f"henji:{{0}}:delivery:{job}")
    records = [await store.command("hgetall", name) for name in names]
    return (records[0], records[1]) if records[0] else None


async def _handled(work: Awaitable[T]) -> T:
    return await work


def _words(random: Random, name: str) -> str:
    """Text that no other message has; at times more than one message holds."""
    length = random.choice((1, 3, 3, 30))
    return " ".join([name, *(random.choice(("to", "be", "or", "not")) for _ in range(length))])
