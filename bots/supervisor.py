"""`henji up`: a process for each part, started again when it ends by itself."""

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
"""Seconds before the first, second, ... start in a row of a process that did not last."""

FIRST_TRIES = 3
"""A process that never lasted is given up after so many starts, for somebody to look at."""

LASTED = 60.0
"""Seconds after which a process counts as one that works: what ends it then is something new."""

WRONG_USAGE = 2
"""The exit status of a process whose settings are wrong: starting it again mends nothing."""

LAST_PORT = 65_535

NOTHING: Mapping[str, Callable[[], Awaitable[None]]] = MappingProxyType({})

log = structlog.get_logger()


async def supervise(
    names: Sequence[str],
    stop: asyncio.Event,
    patience: float,
    metrics_port: int = 0,
    before: Mapping[str, Callable[[], Awaitable[None]]] = NOTHING,
) -> None:
    """Run henji commands, each in a process that is started again when it ends, until `stop`.

    Then all are asked to end, and after `patience` seconds are ended. Each serves its metrics on a
    port of its own, from `metrics_port` on. `before`: what a command's first start waits for.
    OperatorError where one cannot be: its settings are wrong, or it never got as far as to work.
    """
    if metrics_port and metrics_port + len(names) - 1 > LAST_PORT:
        raise UsageError(
            f"HENJI_METRICS_PORT is {metrics_port}, and {len(names)} processes need a port each: "
            f"the last that there is is {LAST_PORT}"
        )
    parts = [
        _Part(name, _port(metrics_port, at), stop, patience, before.get(name))
        for at, name in enumerate(names)
    ]
    running = [asyncio.ensure_future(part.run()) for part in parts]
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


class _Part:
    """One command and the processes that it has been so far."""

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
            self._judge(process.returncode or 0, time.monotonic() - began)
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
        """True where it ended by itself, False where it is to be stopped."""
        return await self._unless_stopped(process.wait())

    def _judge(self, status: int, seconds: float) -> None:
        """Whether another try may work; OperatorError where it will not."""
        sentence = f"`henji {self._name}` ended, with status {status}"
        if status == WRONG_USAGE:
            raise UsageError(f"{sentence}: see above for what is wrong with its settings")
        self._fast_ends = 1 if seconds > LASTED else self._fast_ends + 1
        self._worked = self._worked or seconds > LASTED
        if not self._worked and self._fast_ends >= FIRST_TRIES:
            raise OperatorError(f"{sentence}, {self._fast_ends} times in a row")
        log.warning("a part ended; starting it again", part=self._name, status=status)

    async def _unless_stopped(self, work: Awaitable[object]) -> bool:
        """Wait for `work`; False where all is to be stopped first."""
        stopping = asyncio.ensure_future(self._stop.wait())
        first = await first_of(stopping, work)
        if first is stopping:
            return False
        first.result()
        return True
