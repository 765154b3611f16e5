"""`henji bench queue`: jobs a second, and how long one takes, beside other job queues.

Ours is the whole way with everything on: a submission with its limits, de-duplication and fair
order, a real worker on the echo engine with leases, a fenced commit that writes the history, and a
follower that reads the events. Theirs are jobs that do nothing. All on one server, one after the
other, without persistence.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from bots.processes import freeze_loaded
from core.dialogue import Dialogue
from core.engine.echo import EchoEngine
from core.engine_types import EngineStats
from core.models.catalogue import CATALOGUE
from core.queue_types import OPENED, Claim, Commit, Delivery, FenceResult, Submission
from core.types import Done, ThreadKey, Turn
from core.worker import Worker, WorkerSettings
from storage.connect import connect
from storage.deliveries import RedisDeliveries
from storage.history import RedisHistory
from storage.queue import RedisQueue
from storage.store import Limits, Store
from tests.benchmarks.server import plain_server
from tests.open_access import OPEN_RULES

LANE = "bench"
AT_ONCE = 64
PEERS = ("saq", "streaq", "arq")
PEERS_PYTHON = Path(".venv-peers/queue/bin/python")


@dataclass(frozen=True, slots=True)
class Result:
    """Jobs a second to drain a filled queue; sorted seconds from asking to having the result."""

    name: str
    drain: float
    waits: Sequence[float]

    def wait(self, quantile: float) -> float:
        """In milliseconds."""
        return 1000 * self.waits[min(int(len(self.waits) * quantile), len(self.waits) - 1)]


class Engine(EchoEngine):
    """As many places as the others have workers."""

    def stats(self) -> EngineStats:
        stats = super().stats()
        return EngineStats(running=stats.running, slots=max(0, AT_ONCE - stats.running))


class CountingQueue(RedisQueue):
    """Says when so many jobs have been committed."""

    awaited = 0
    reached: asyncio.Event

    async def commit(self, claim: Claim, commit: Commit) -> FenceResult:
        verdict = await super().commit(claim, commit)
        self.awaited -= 1
        if self.awaited == 0:
            self.reached.set()
        return verdict


@dataclass
class Ours:
    queue: CountingQueue
    history: RedisHistory
    deliveries: RedisDeliveries

    @classmethod
    async def on(cls, url: str) -> Ours:
        most = 1_000_000
        limits = Limits(all=most, channel=most, person=most)
        store = Store(await connect(url), limits=limits)
        return cls(CountingQueue(store), RedisHistory(store), RedisDeliveries(store))

    def worker(self) -> Worker:
        dialogue = Dialogue.load(CATALOGUE["echo"], None)
        process_settings = WorkerSettings(lane=LANE, name="core")
        return Worker(
            self.queue, self.history, Engine(), dialogue, process_settings, rulebook=OPEN_RULES
        )

    async def submit(self, number: int) -> Delivery:
        thread = ThreadKey("bench", "T", f"C{number % 50}", str(number))
        turn = Turn(f"m{number}", "user", f"U{number % 200}", "hello", time.time())
        receipt = await self.queue.submit(Submission(thread, turn, True, LANE), "adapter")
        if receipt.job is None or receipt.outcome != "queued":
            raise RuntimeError(f"not queued: {receipt}")
        at = receipt.position
        return Delivery(receipt.job, thread, turn.id, turn.author, token=OPENED, position=at)

    async def drain(self, jobs: int) -> float:
        await self.queue.announce(LANE, "core", 60)
        for start in range(0, jobs, AT_ONCE):
            await asyncio.gather(*map(self.submit, range(start, min(start + AT_ONCE, jobs))))
        self.queue.awaited, self.queue.reached = jobs, asyncio.Event()
        began = time.perf_counter()
        async with self.at_work():
            await self.queue.reached.wait()
            return jobs / (time.perf_counter() - began)

    async def waits(self, rate: float, seconds: float) -> list[float]:
        async def one(number: int) -> float:
            await asyncio.sleep(number / rate)
            began = time.perf_counter()
            delivery = await self.submit(10_000_000 + number)
            async for event in self.deliveries.follow(delivery):
                if isinstance(event, Done):
                    break
            return time.perf_counter() - began

        await self.queue.announce(LANE, "core", 60)  # the worker may be later than the first job
        listening = asyncio.create_task(self.deliveries.listen("bench"))
        try:
            async with self.at_work():
                return sorted(await asyncio.gather(*map(one, range(int(rate * seconds)))))
        finally:
            listening.cancel()

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        stop = asyncio.Event()
        working = asyncio.create_task(self.worker().run(stop))
        try:
            yield
        finally:
            stop.set()
            await working


async def measure_ours(url: str, jobs: int, rate: float, seconds: float) -> Result:
    ours = await Ours.on(url)
    freeze_loaded()  # as our processes do
    return Result("henji", await ours.drain(jobs), await ours.waits(rate, seconds))


def measure_peer(name: str, url: str, jobs: int, rate: float, seconds: float) -> Result | None:
    """None where it did not come to an end within a minute and a half."""
    script = Path(__file__).with_name("peers_queue.py")
    # -P: the folder of the script has modules that are named like the library's
    words = [PEERS_PYTHON, "-P", script, name, url, jobs, rate, seconds]
    try:
        answer = subprocess.run(
            [str(word) for word in words], capture_output=True, text=True, check=True, timeout=90
        )
    except subprocess.TimeoutExpired:
        sys.stderr.write(f"{name} did not come to an end\n")
        return None
    measured = json.loads(answer.stdout.splitlines()[-1])
    return Result(name, measured["drain"], measured["waits"])


def report(results: Sequence[Result]) -> str:
    ours = results[0]
    lines = [
        "| | jobs/s to drain | of ours | result after, p50 ms | p99 ms |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.name} | {r.drain:,.0f} | {r.drain / ours.drain:.2f} "
        f"| {r.wait(0.5):.2f} | {r.wait(0.99):.2f} |"
        for r in results
    ]
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="henji bench queue", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=200.0, help="jobs a second")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--alone", action="store_true", help="without the other queues")
    options = parser.parse_args(argv)
    load = (options.jobs, options.rate, options.seconds)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with plain_server() as url:
        results = [asyncio.run(measure_ours(url, *load))]
        if not options.alone:
            peers = [measure_peer(name, url, *load) for name in PEERS if found_peers()]
            results += filter(None, peers)
    sys.stdout.write(report(results) + "\n")


def found_peers() -> bool:
    if not PEERS_PYTHON.exists():
        sys.stderr.write("the other queues are installed by: make bench-peers\n")
    return PEERS_PYTHON.exists()


if __name__ == "__main__":
    main(sys.argv[1:])
