"""Chaos among real processes: kill -9, stop and continue, and Redis killed and started again.

The processes live on through the schedules of a run, in front of which people do what they do.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from asyncio.subprocess import Process as Child
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TypeVar, cast

import pytest

from bots.relay import Relay
from core.errors import StoreUnavailable
from core.types import ThreadKey
from storage.embedded_server import find_binary
from storage.store import Store
from tests.chaos.board_server import BoardServer, RemoteRelay
from tests.chaos.child import LANE, LEASE, PLATFORM, store_at
from tests.chaos.invariants import gather, violations
from tests.chaos.schedule import Schedule
from tests.chaos.terms import Terms
from tests.simulated_platform import Board
from tests.waiting import until

T = TypeVar("T")

SHORT = 3
CORES, ADAPTERS = 2, 2


@dataclass
class Processes:
    """A Redis, adapters and cores, each a process that may be killed or stopped."""

    folder: Path
    board: BoardServer = field(init=False)
    children: dict[str, Child] = field(default_factory=dict)
    number: int = 0

    def __post_init__(self) -> None:
        self.board = BoardServer(self.folder / "board.sock")

    @property
    def url(self) -> str:
        return f"unix://{self.folder}/redis.sock"

    async def start_redis(self) -> None:
        settings = {
            "port": "0", "unixsocket": f"{self.folder}/redis.sock", "dir": str(self.folder),
            "appendonly": "yes", "appendfsync": "always", "save": "",
        }  # fmt: skip
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        await self._start("redis", str(find_binary()), *words)

    async def start(self, kind: str) -> None:
        self.number += 1
        name = f"{kind}{self.number}"
        module = ("-m", "tests.chaos.child", kind, name, self.url, str(self.board.socket))
        await self._start(name, sys.executable, *module)

    async def _start(self, name: str, *command: str) -> None:
        quiet = asyncio.subprocess.DEVNULL
        self.children[name] = await asyncio.create_subprocess_exec(*command, stdout=quiet)

    async def kill(self, name: str) -> None:
        child = self.children.pop(name)
        child.kill()
        await child.wait()
        if name == "redis":
            await self.start_redis()
        else:
            await self.start(name.rstrip("0123456789"))

    async def pause(self, name: str, seconds: float) -> None:
        child = self.children[name]
        child.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(signal.SIGCONT)

    async def end(self) -> None:
        for child in self.children.values():
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()


class TownSchedule(Schedule):
    """A schedule with real processes."""

    def __init__(self, seed: int, store: Store, town: Processes) -> None:
        super().__init__(seed, store)
        self.town = town
        self.lane, self.platform, self.terms = LANE, PLATFORM, Terms()
        self.threads = [ThreadKey(PLATFORM, f"S{seed}", "C1", str(n)) for n in range(3)]
        self.board = Board(nonce=self.random.random() < 0.5, prefix=f"b{seed}.")
        town.board.boards[f"S{seed}"] = self.board

    async def play(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self.random.randint(6, 14)):
                at = self.random.uniform(0, 2)
                group.create_task(self._act(at, Random(self.random.random())))
            for _ in range(self.random.randint(1, 3)):
                group.create_task(self._hurt(self.random.uniform(0.2, 2)))
        async with asyncio.timeout(60):
            while not await self._at_rest():  # noqa: ASYNC110 - it is in other processes
                await asyncio.sleep(0.1)
        await asyncio.sleep(LEASE)

    async def _at_rest(self) -> bool:
        with contextlib.suppress(StoreUnavailable):
            return await self._rests()
        return False

    async def _hurt(self, at: float) -> None:
        await asyncio.sleep(at)
        name = self.random.choice(list(self.town.children))
        if name != "redis" and self.random.random() < 0.4:
            await self.town.pause(name, self.random.uniform(0.5, 2.5) * LEASE)
        elif name in self.town.children:
            await self.town.kill(name)

    async def _deliver(self, handle: Callable[[Relay], Awaitable[T]], random: Random) -> T:
        """As platforms do: again, and to another process, until one acknowledges."""
        while True:
            living = [line for line in self.town.board.lines.values() if not line.closed]
            if living:
                relay = cast("Relay", RemoteRelay(random.choice(living)))
                with contextlib.suppress(TimeoutError, OSError, asyncio.CancelledError):
                    async with asyncio.timeout(2 * LEASE):
                        return await handle(relay)
            await asyncio.sleep(0.05)


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Processes]:
    town = Processes(tmp_path)
    server = await town.board.serve()
    try:
        await town.start_redis()
        for kind in ("core",) * CORES + ("adapter",) * ADAPTERS:
            await town.start(kind)
        yield town
    finally:
        await town.end()
        server.close()


async def test_no_reply_is_lost_or_doubled_when_processes_are_killed(
    town: Processes, request: pytest.FixtureRequest
) -> None:
    first = request.config.getoption("--seed") or 0
    number = request.config.getoption("--schedules")
    store = store_at(town.url)
    await until(lambda: _up(town, store))
    for seed in range(first, first + (max(1, number // 50) if number else SHORT)):
        schedule = TownSchedule(seed, store, town)
        await schedule.play()
        assert violations(await gather(schedule)) == [], f"seed {seed}"


async def _up(town: Processes, store: Store) -> bool:
    with contextlib.suppress(StoreUnavailable):
        cores = await store.command("zcard", f"henji:{{0}}:lane:{LANE}")
        return bool(cores == CORES) and len(town.board.lines) == ADAPTERS
    return False
