"""One seeded schedule: people write, edit, delete, stop and reset while processes die around them.

All of a schedule happens on a platform and a lane of its own, so that many share one Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import TypeVar, cast

from bots import relay as relays
from bots.platform import Incoming
from bots.relay import Relay
from core import worker as workers
from core.access_policy import Asker
from core.dialogue import Dialogue
from core.errors import StoreUnavailable
from core.models.catalogue import CATALOGUE
from core.ports import Deliveries, History, JobQueue
from core.queue_types import Delivery, Place, Receipt, Regeneration
from core.types import Done, Job, ReplyEvent, ThreadKey, Turn
from core.worker import Worker
from storage import codec
from storage.deliveries import RedisDeliveries
from storage.history import RedisHistory
from storage.queue import RedisQueue
from storage.store import Store
from tests.chaos.process import Gated, Process, some_faults
from tests.chaos.prompts import Prompts, RecordingEngine, recorded
from tests.open_access import EVERYBODY, OPEN_RULES
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
QUIET = 30.0
"""Seconds that everything has to come to rest in, once nothing fails any more."""

DIALOGUE = Dialogue.load(CATALOGUE["echo"], None)


@dataclass
class SentMessage:
    """A message of a person's, and what became of it on the platform's side."""

    turn: Turn
    thread: ThreadKey
    addressed: bool
    acknowledged: float | None = None
    texts: list[str] = field(default_factory=list)
    """By revision."""
    edits: int = 0
    """The newest revision that was acknowledged."""
    edited_at: list[tuple[float, int]] = field(default_factory=list)
    """When each revision was acknowledged."""
    deleting: float | None = None
    deleted: float | None = None


@dataclass
class Reset:
    covers: Callable[[ThreadKey], bool]
    began: float
    ended: float | None = None
    """When it was acknowledged."""


@dataclass
class Adapter:
    process: Process
    relay: Relay


class KeptEvents(RedisDeliveries):
    """Copies a reply's events when its delivery is closed: a reset takes them away."""

    async def close(self, delivery: Delivery, messages: Sequence[str]) -> bool:
        rows = await self._store.command("xrange", f"henji:{{0}}:events:{delivery.job}")
        if rows:
            texts = codec.dump([fields["e"] for _, fields in rows])
            await self._store.command("set", f"chaos:{delivery.job}", texts, 600)
        return await super().close(delivery, messages)


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
        channels = [f"C{n}" for n in range(self.random.randint(1, 2))]
        self.threads = [
            ThreadKey(self.platform, "S", self.random.choice(channels), str(n)) for n in range(3)
        ]
        if self.random.random() < LONG:
            self._write_past(self.threads[0])

    async def run(self) -> None:
        """Let it all happen, and come to rest. TimeoutError where it does not."""
        try:
            for _ in range(2):
                self._start_core()
                self._start_adapter()
            async with asyncio.TaskGroup() as group:
                for _ in range(self.random.randint(3, 12)):
                    at = self.random.uniform(0, ACTING)
                    group.create_task(self._act(at, Random(self.random.random())))
            self._heal()
            async with asyncio.timeout(QUIET):
                while not await self._rests_for_good():  # noqa: ASYNC110 - all are gated
                    await asyncio.sleep(0.05)
        except TimeoutError:
            self.stuck = [process.doing() for process in self.processes if not process.dead]
            raise
        finally:
            self.over = True
            for process in self.processes:
                await process.cancel_tasks()

    def _heal(self) -> None:
        self.harmless = True
        for process in self.processes:
            process.faults.clear()

    async def _rests_for_good(self) -> bool:
        """Also those have been awake for a while who find that they wrote one message too many."""
        if not await self._rests() or any(process.held for process in self.processes):
            return False
        await asyncio.sleep(LEASE)
        return await self._rests()

    async def _rests(self) -> bool:
        busy = [f"deliveries:{self.platform}"] + [
            f"thread:{thread}:jobs" for thread in self.threads
        ]
        return not await self.store.command("exists", *(f"henji:{{0}}:{name}" for name in busy))

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
            (self._start_core if kind == "core" else self._start_adapter)()

    def _start_core(self) -> None:
        process = self._process("core")
        queue, history, _ = self._ports(process)
        process_settings = workers.WorkerSettings(
            self.lane, process.name, lease=LEASE, renew=0.08, sweep=0.15, announced_for=0.8,
            publish=0.02, idle=0.1, retry=0.05,
        )  # fmt: skip
        engine = RecordingEngine(self.random.choice((0, 300)), self.prompts)
        worker = Worker(
            *recorded(self.prompts, queue, history),
            engine,
            DIALOGUE,
            process_settings,
            rulebook=OPEN_RULES,
        )
        process.start(worker.run(asyncio.Event()))

    def _start_adapter(self) -> None:
        process = self._process("adapter")
        process_settings = relays.RelaySettings(
            self.lane,
            process.name,
            lease=LEASE,
            take_over=0.15,
            positions=0.3,
            backfill_wait=0.2,
            access=EVERYBODY,
        )
        simulated = SimulatedPlatform(
            self.board, self.platform, 100, CALL_SECONDS, process.platform
        )
        relay = Relay(simulated, *self._ports(process), process_settings)
        self.adapters = [a for a in self.adapters if not a.process.dead]
        self.adapters.append(Adapter(process, relay))
        process.start(relay.run(asyncio.Event()))

    def _ports(self, process: Process) -> tuple[JobQueue, History, Deliveries]:
        ports = (RedisQueue(self.store), RedisHistory(self.store), KeptEvents(self.store))
        queue, history, deliveries = (Gated(port, process) for port in ports)
        return cast("JobQueue", queue), cast("History", history), cast("Deliveries", deliveries)

    # -- people ---------------------------------------------------------------------------------

    async def _act(self, at: float, random: Random) -> None:
        await asyncio.sleep(at)
        acts: list[tuple[int, Callable[[Random], Awaitable[None]]]] = [
            (12, self._say), (3, self._chat), (3, self._edit), (2, self._delete),
            (1, self._delete_reply), (2, self._stop), (3, self._regenerate), (1, self._reset),
            (1, self._reset_place),
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
        self.said[id_] = said = SentMessage(turn, thread, addressed, texts=[turn.text])
        self.jobs.add(Job.id_for(thread, id_, ""))
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
        )
        return await self._deliver(lambda relay: relay.submit(incoming), random)

    async def _edit(self, random: Random) -> None:
        said = self._pick(random)
        if said is None or said.deleting is not None:
            return
        text = _words(random, f"{self.seed}.{said.turn.id}e{len(said.texts)}")
        said.texts.append(text)
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
        if standing:
            message, revision = random.choice(standing), str(random.randint(1, 3))
            self.jobs.add(Job.id_for(message.thread, message.job, revision))
            await self._deliver(
                lambda r: r.regenerate(Regeneration(message.thread, message.job, revision, "U1")),
                random,
            )

    async def _reset(self, random: Random) -> None:
        thread = random.choice(self.threads)
        reset = Reset(lambda other: other == thread, time.monotonic())
        self.resets.append(reset)
        await self._deliver(lambda relay: relay.reset(thread, "U1"), random)
        reset.ended = time.monotonic()

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

    def _pick(self, random: Random) -> SentMessage | None:
        return random.choice(list(self.said.values())) if self.said else None

    async def _deliver(self, handle: Callable[[Relay], Awaitable[T]], random: Random) -> T:
        """As platforms do: again, and to another process, until one acknowledges."""
        while True:
            living = [adapter for adapter in self.adapters if not adapter.process.dead]
            if living:
                adapter = random.choice(living)
                handling = adapter.process.start(_handled(handle(adapter.relay)))
                await asyncio.wait({handling}, timeout=PATIENCE)
                with contextlib.suppress(StoreUnavailable):
                    if handling.done() and not handling.cancelled():
                        return handling.result()
            await asyncio.sleep(0.02)


async def _handled(work: Awaitable[T]) -> T:
    return await work


def _words(random: Random, name: str) -> str:
    """Text that no other message has; at times more than one message holds."""
    length = random.choice((1, 3, 3, 30))
    return " ".join([name, *(random.choice(("to", "be", "or", "not")) for _ in range(length))])
