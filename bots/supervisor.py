"""`henji up`: runs henji commands as processes, and restarts each when it ends."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType

import structlog

from bots.processes import command, end
from core.background import first_of
from core.errors import OperatorError, UsageError

BACK_OFF = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Seconds before the first, second, ... restart in a row of a process that ends soon."""

MAX_FAST_ENDS = 3
"""Fast ends in a row after which a process that never worked is given up."""

WORKING_SECONDS = 60.0
"""Seconds after which a process counts as working."""

WRONG_USAGE = 2
"""The exit status of a process whose settings are wrong: a restart cannot help."""

LAST_PORT = 65_535

NO_CONDITIONS: Mapping[str, Callable[[], Awaitable[None]]] = MappingProxyType({})

log = structlog.get_logger()


async def supervise(
    names: Sequence[str],
    stop: asyncio.Event,
    patience: float,
    metrics_port: int = 0,
    before: Mapping[str, Callable[[], Awaitable[None]]] = NO_CONDITIONS,
) -> None:
    """Run henji commands, each in a process that is restarted when it ends, until `stop`.

    Then all are terminated, and killed after `patience` seconds. Each serves its metrics on its own
    port, from `metrics_port` on. `before`: what the first start of a command waits for.
    OperatorError if one cannot start: its settings are wrong, or it never worked.
    """
    if metrics_port and metrics_port + len(names) - 1 > LAST_PORT:
        raise UsageError(
            f"HENJI_METRICS_PORT is {metrics_port}, and {len(names)} processes need a port each: "
            f"the last port is {LAST_PORT}"
        )
    commands = [
        _SupervisedCommand(name, _port(metrics_port, at), stop, patience, before.get(name))
        for at, name in enumerate(names)
    ]
    running = [asyncio.ensure_future(each.run()) for each in commands]
    try:
        await asyncio.wait(running, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        stop.set()
        results = await asyncio.gather(*running, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


def _port(first: int, at: int) -> Mapping[str, str]:
    return {"HENJI_METRICS_PORT": str(first + at)} if first else {}


class _SupervisedCommand:
    """One command, and its current process."""

    def __init__(
        self,
        name: str,
        environment: Mapping[str, str],
        stop: asyncio.Event,
        patience: float,
        before: Callable[[], Awaitable[None]] | None,
    ) -> None:
        self._name = name
        self._environment = {**os.environ, **environment}
        self._stop = stop
        self._patience = patience
        self._before = before
        self._worked = False
        self._fast_ends = 0

    async def run(self) -> None:
        if self._before is not None:
            await self._unless_stopped(self._before())
        while not self._stop.is_set():
            began = time.monotonic()
            process = await self._start()
            if not await self._ended(process):
                await end(process, self._patience)
                return
            self._check_exit(process.returncode or 0, time.monotonic() - began)
            pause = BACK_OFF[min(self._fast_ends, len(BACK_OFF)) - 1]
            await self._unless_stopped(asyncio.sleep(pause))

    async def _start(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *command(self._name, "--with-parent"),
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,
            env=self._environment,
        )

    async def _ended(self, process: asyncio.subprocess.Process) -> bool:
        """True if it ended by itself, False if everything is to stop."""
        return await self._unless_stopped(process.wait())

    def _check_exit(self, status: int, seconds: float) -> None:
        """OperatorError if a restart cannot help."""
        sentence = f"`henji {self._name}` ended, with status {status}"
        if status == WRONG_USAGE:
            raise UsageError(f"{sentence}: its settings are wrong, see above")
        self._fast_ends = 1 if seconds > WORKING_SECONDS else self._fast_ends + 1
        self._worked = self._worked or seconds > WORKING_SECONDS
        if not self._worked and self._fast_ends >= MAX_FAST_ENDS:
            raise OperatorError(f"{sentence}, {self._fast_ends} times in a row")
        log.warning("a part ended; restarting it", part=self._name, status=status)

    async def _unless_stopped(self, work: Awaitable[object]) -> bool:
        """Wait for `work`; False if everything is to stop first."""
        stopping = asyncio.ensure_future(self._stop.wait())
        first = await first_of(stopping, work)
        if first is stopping:
            return False
        first.result()
        return True
