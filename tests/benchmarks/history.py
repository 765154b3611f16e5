"""`henji bench history`: what a turn costs in a short thread and in a long one, and in memory.

For threads of several lengths under a budget that nothing falls out of: microseconds to read the
next prompt (what changed since the core last looked, and the mailbox) and to commit a reply. The
lengths take turns, so that a noisy machine is noisy for all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from core.queue_types import Claim, Commit, Submission, Window
from core.types import Done, ThreadKey, Turn, Usage
from storage.connect import connect
from storage.history import RedisHistory
from storage.queue import RedisQueue
from storage.store import Limits, Store
from tests.benchmarks.server import plain_server

LANE = "bench"
LENGTHS = (10, 100, 1_000, 5_000)
TEXT = "こんにちは。今日の会議の議事録を要約してください。" * 3


@dataclass
class Thread:
    """One thread that grows by a turn and a reply at a time; times in seconds."""

    key: ThreadKey
    queue: RedisQueue
    history: RedisHistory
    length: int = 0
    reads: list[float] = field(default_factory=list)
    commits: list[float] = field(default_factory=list)

    async def fill(self, turns: int) -> None:
        """Bring the thread to so many turns, a hundred a prompt."""
        while self.length < turns:
            some = min(100, turns - self.length - 1)
            for _ in range(max(some, 1) - 1):
                await self._say(addressed=self.length == 0)
            await self.take_turn()
        self.reads.clear()
        self.commits.clear()

    async def take_turn(self) -> None:
        """A message and its reply: timed are the reading and the commit."""
        await self._say(addressed=True)
        (claim,) = await self.queue.claim(LANE, "core", 1)
        began = time.perf_counter()
        window = await self.history.window(claim)
        self.reads.append(time.perf_counter() - began)
        commit = self._commit(claim, window)
        began = time.perf_counter()
        await self.queue.commit(claim, commit)
        self.commits.append(time.perf_counter() - began)
        self.length += 1

    def _commit(self, claim: Claim, window: Window) -> Commit:
        reply = Turn(claim.job.id, "assistant", "henji", TEXT, time.time())
        counts = {stored.turn.id: 60 for stored in window.mailbox}
        return Commit(Done(TEXT, "stop", Usage(0, 60)), reply, "print", counts, window.version)

    async def _say(self, *, addressed: bool) -> None:
        self.length += 1
        turn = Turn(f"{self.key.thread}.{self.length}", "user", "U1", TEXT, time.time())
        await self.queue.submit(Submission(self.key, turn, addressed, LANE), "adapter")


async def open_stores(url: str) -> tuple[RedisQueue, RedisHistory]:
    most = 10_000_000
    limits = Limits(all=most, channel=most, person=most, mailbox=1_000)
    store = Store(await connect(url), limits=limits)
    queue = RedisQueue(store)
    await queue.announce(LANE, "core", 3600)
    return queue, RedisHistory(store)


async def measure_lengths(url: str, rounds: int) -> list[Thread]:
    queue, history = await open_stores(url)
    threads = []
    for length in LENGTHS:
        thread = Thread(ThreadKey("bench", "T", "C", str(length)), queue, history)
        await thread.fill(length)
        threads.append(thread)
    for _ in range(rounds):
        for thread in threads:
            await thread.take_turn()
    return threads


async def measure_memory(url: str, threads: int) -> tuple[float, float]:
    """Kilobytes a thread of 20 turns: with what its ten replies leave for a day, and without."""
    connection = await connect(url)
    await connection.client.flushall()
    queue, history = await open_stores(url)
    before = (await connection.client.info("memory"))["used_memory"]
    for number in range(threads):
        thread = Thread(ThreadKey("bench", "M", f"C{number % 100}", str(number)), queue, history)
        for _ in range(10):
            await thread.take_turn()
    after = (await connection.client.info("memory"))["used_memory"]
    passing = [key async for key in connection.client.scan_iter("henji:*", 1000) if _passes(key)]
    for start in range(0, len(passing), 1000):
        await connection.client.delete(*passing[start : start + 1000])
    left = (await connection.client.info("memory"))["used_memory"]
    return (after - before) / threads / 1024, (left - before) / threads / 1024


def _passes(key: str) -> bool:
    """Whether a key goes within a few days, whatever the retention."""
    return key.split(":", 2)[2].split(":")[0] in ("job", "events", "seen", "news")


def report(threads: Sequence[Thread]) -> str:
    first = threads[0]
    lines = [
        "| stored turns | read, µs | of the first | commit, µs | of the first |",
        "|---|---|---|---|---|",
    ]
    for length, thread in zip(LENGTHS, threads, strict=True):
        read, commit = median(thread.reads), median(thread.commits)
        lines.append(
            f"| {length:,} | {1e6 * read:,.0f} | {read / median(first.reads):.2f} "
            f"| {1e6 * commit:,.0f} | {commit / median(first.commits):.2f} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="henji bench history", description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--threads", type=int, default=500, help="for the memory; 0: leave it")
    options = parser.parse_args(argv)
    with plain_server() as url:
        sys.stdout.write(report(asyncio.run(measure_lengths(url, options.rounds))) + "\n")
        if options.threads:
            full, rest = asyncio.run(measure_memory(url, options.threads))
            sys.stdout.write(
                f"\nA thread of 20 turns of {len(TEXT)} characters: {full:.1f} KiB on its day, "
                f"{rest:.1f} KiB after it; 10,000 of them: {full * 10_000 / 1024:.0f} and "
                f"{rest * 10_000 / 1024:.0f} MiB (measured over {options.threads}).\n"
            )


if __name__ == "__main__":
    main(sys.argv[1:])
