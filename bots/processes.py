"""Child processes: signals, `henji up`'s supervisor, and the core of a terminal chat."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import structlog

from core.background import first_of
from core.errors import OperatorError, StoreUnavailable, UsageError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def stop_on_signals(signals: Sequence[signal.Signals] = SIGNALS) -> asyncio.Event:
    """An event that is set when this process gets one of the signals."""
    stop = asyncio.Event()
    for number in signals:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def stop_at_end_of_input(stop: asyncio.Event) -> None:
    """Set `stop` when standard input ends: the parent process has ended."""
    loop = asyncio.get_running_loop()

    def read() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            loop.remove_reader(sys.stdin.fileno())
            stop.set()

    loop.add_reader(sys.stdin.fileno(), read)


def command(*words: str) -> list[str]:
    """The command line of a henji command, run by the same Python.

    With ``-P``, so that no folder `bots` of the working directory is run in its place.
    """
    return [sys.executable, "-P", "-m", "bots", *words]


def freeze_loaded() -> None:
    """Freeze everything that is loaded out of garbage collection, and give freed memory back.

    A full collection stopped a bot for 0.06 s in a rush of messages, and took 0.14 s of every reply
    of a core. glibc keeps what loading freed: 220 of a core's 1,120 MB.
    """
    gc.collect()
    gc.freeze()
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """No garbage collection while modules are imported: it finds nothing, and takes a fifth."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


async def end(process: asyncio.subprocess.Process, stop_timeout: float) -> None:
    """Terminate a process; after `stop_timeout` seconds, kill it."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), stop_timeout)
    except TimeoutError:
        process.kill()
        await process.wait()


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a core's start."""

    done: int
    stages: int
    name: str
    """The current stage."""


class LocalCore:
    """The core of a terminal chat, which runs only while no other core serves the lane.

    The core has its own process group, so that Ctrl-C in the terminal does not reach it. It stops
    when its standard input ends, so that it never outlives this process.
    """

    def __init__(
        self,
        serves: Callable[[], Awaitable[bool]],
        tell: Callable[[str], None],
        stop_timeout: float,
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        """`serves`: whether a core serves the lane. `tell` gets the core's log lines while it
        starts, and its warnings; `progress` gets the stages of its start. `stop_timeout`: seconds
        that the core may take to stop."""
        self._serves = serves
        self._tell = tell
        self._progress = progress
        self._stop_timeout = stop_timeout
        self._core: _CoreProcess | None = None

    async def served(self) -> None:
        """Return when a core serves the lane. `keep` starts one."""
        while not await self._serves():  # noqa: ASYNC110 - a core is another process
            await asyncio.sleep(0.05)

    async def keep(self) -> None:
        """Keep the lane served, for ever. OperatorError, with the core's sentence, if it cannot
        start."""
        await self._ensure()
        while True:
            await asyncio.sleep(1.0)
            with contextlib.suppress(StoreUnavailable):  # Redis is down: try again
                await self._ensure()

    async def _ensure(self) -> None:
        if self._core is not None and self._core.has_ended():
            # its lease on the lane may last a while longer
            self._tell(f"the core {self._core.how_it_ended()}; starting another")
            self._core = await _CoreProcess.start(self._tell, self._progress)
        while not await self._serves():
            if self._core is None:
                self._core = await _CoreProcess.start(self._tell, self._progress)
            elif self._core.has_ended():
                await self._core.report()
                self._core = None
            await asyncio.sleep(0.05)

    async def aclose(self) -> None:
        if self._core is not None:
            await self._core.stop(self._stop_timeout)


class _CoreProcess:
    """A `henji core` process, and its log."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        tell: Callable[[str], None],
        progress: Callable[[Progress], None],
    ) -> None:
        self._process = process
        self._tell = tell
        self._progress = progress
        self._reading = asyncio.create_task(self._read())
        self._last_line = ""
        self._starting = True

    @classmethod
    async def start(
        cls, tell: Callable[[str], None], progress: Callable[[Progress], None]
    ) -> _CoreProcess:
        process = await asyncio.create_subprocess_exec(
            *command("core", "--with-parent"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "HENJI_LOG_FORMAT": "json"},
            start_new_session=True,
        )
        return cls(process, tell, progress)

    def has_ended(self) -> bool:
        return self._process.returncode is not None

    def how_it_ended(self) -> str:
        status = self._process.returncode or 0
        if status < 0:  # most often by the kernel, for lack of memory
            return f"died ({signal.strsignal(-status)})"
        return f"ended with status {status}"

    async def report(self) -> None:
        """OperatorError if it ended with a fault."""
        await self._reading
        status = self._process.returncode or 0
        if status == 0:
            return
        if status < 0:
            raise OperatorError(
                f"the core {self.how_it_ended()}; is there enough memory for the model?"
            )
        sentence = self._last_line.removeprefix("henji: ") or f"the core {self.how_it_ended()}"
        raise UsageError(sentence) if status == 2 else OperatorError(sentence)

    async def stop(self, stop_timeout: float) -> None:
        await end(self._process, stop_timeout)
        await self._reading

    async def _read(self) -> None:
        if self._process.stderr is not None:
            async for line in self._process.stderr:
                self._forward(line.decode(errors="replace").strip())

    def _forward(self, line: str) -> None:
        """Pass on the progress of loading and warnings, but no other line of the log."""
        try:
            entry = json.loads(line)
            event, level = entry["event"], entry["level"]
        except (ValueError, KeyError, TypeError):
            self._last_line = line or self._last_line
            return
        if "stage" in entry:
            self._progress(Progress(entry["stage"], entry["stages"], event))
        elif level in ("warning", "error") or (level == "info" and self._starting):
            why = entry.get("error", "")
            self._tell(f"{event}: {why}" if why else event)
        if event == "ready":
            self._starting = False
            self._progress(Progress(1, 1, event))


BACK_OFF = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Seconds before each restart of a process that keeps ending soon; the last value repeats."""

MAX_FAST_ENDS = 3
"""A process that never worked is given up after so many fast ends in a row."""

WORKING_SECONDS = 60.0
"""A process that ran this long counts as working."""

WRONG_USAGE = 2
"""The exit status of a process whose settings are wrong: a restart cannot help."""

LAST_PORT = 65_535

NO_CONDITIONS: Mapping[str, Callable[[], Awaitable[None]]] = MappingProxyType({})

log = structlog.get_logger()


async def supervise(
    names: Sequence[str],
    stop: asyncio.Event,
    stop_timeout: float,
    metrics_port: int = 0,
    before: Mapping[str, Callable[[], Awaitable[None]]] = NO_CONDITIONS,
) -> None:
    """Run henji commands, each in a process that is restarted when it ends, until `stop`.

    Then all are terminated, and killed after `stop_timeout` seconds. Each serves its metrics on its
    own port, from `metrics_port` on. `before`: what the first start of a command waits for.
    OperatorError if one cannot start: its settings are wrong, or it never worked.
    """
    if metrics_port and metrics_port + len(names) - 1 > LAST_PORT:
        raise UsageError(
            f"HENJI_METRICS_PORT is {metrics_port}, and {len(names)} processes need a port each: "
            f"the last port is {LAST_PORT}"
        )
    commands = [
        _SupervisedCommand(name, _port(metrics_port, at), stop, stop_timeout, before.get(name))
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
        stop_timeout: float,
        before: Callable[[], Awaitable[None]] | None,
    ) -> None:
        self._name = name
        self._environment = {**os.environ, **environment}
        self._stop = stop
        self._stop_timeout = stop_timeout
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
                await end(process, self._stop_timeout)
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
        """True if the process ended, False if everything is to stop."""
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
