"""The health pages of a process, its reports to Redis, and the metrics of platform calls."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from importlib.metadata import version
from typing import TypeVar

import structlog

from bots.attachments import File
from bots.platform import Incoming, Part, PlaceNames, Platform, PlatformRefused, Status
from core.background import cancel, repeat_forever
from core.errors import StoreUnavailable
from core.observe import metrics
from core.observe.logs import LONGEST_ERROR, Redaction, newest_error, printable
from core.observe.tracing import set_up_tracing, span
from core.ports import JobQueue, ReportBoard
from core.queue_types import Delivery, ProcessReport
from core.settings import Settings
from core.types import ThreadKey

REPORT_SECONDS = 10.0
MINUTE = 60.0


class Monitor:
    """The state of one process, for its pages."""

    def __init__(self, settings: Settings, queue: JobQueue, board: ReportBoard) -> None:
        self._lane = settings.job_lane
        self._redaction = Redaction.of(settings)
        self._queue = queue
        self._board = board
        self._since = time.time()
        self._replies: deque[tuple[float, int]] = deque()
        self.starting = ""
        """Why the process is not ready yet, in a few words; empty: it is ready."""
        self.measure: Callable[[], None] = lambda: None
        """Updates the metrics of this process."""
        self.fault: Callable[[], str] = lambda: ""
        """Why this process can no longer work; empty: it can."""

    async def ready(self) -> str:
        """Why this process cannot serve now, in one line; empty: it can."""
        if self.starting:
            return self.starting
        if fault := self.fault():  # an engine's error may say anything
            return printable(self._redaction.redact(fault)[:LONGEST_ERROR])
        if down := metrics.gateways_down():
            return f"no connection to {', '.join(down)}"
        try:
            await self._queue.check_writes()
        except StoreUnavailable as error:
            return str(error)
        return ""

    async def refresh(self) -> None:
        """Update the metrics. Those from Redis keep their last value while it is down."""
        self.measure()
        metrics.REDIS_UP.set(0)
        metrics.set_redis(await self._board.server())
        await self._queue.check_writes()
        metrics.set_load(self._lane, await self._queue.load(self._lane))
        metrics.REDIS_UP.set(1)

    async def report(self, name: str, part: str) -> ProcessReport:
        """The report of this process."""
        error_at, error = newest_error()
        return ProcessReport(
            name=name,
            part=part,
            lane=self._lane,
            version=version("henji"),
            since=self._since,
            at=time.time(),
            state=await self.ready(),
            replies=self._replies_of_last_minute(metrics.replies_so_far(self._lane)),
            error=error,
            error_at=error_at,
        )

    def _replies_of_last_minute(self, so_far: int) -> int:
        now = time.monotonic()
        self._replies.append((now, so_far))
        while len(self._replies) > 1 and self._replies[1][0] <= now - MINUTE:
            self._replies.popleft()
        return so_far - self._replies[0][1]


@asynccontextmanager
async def monitored(
    part: str,
    name: str,
    settings: Settings,
    queue: JobQueue,
    board: ReportBoard,
    starting: str = "",
) -> AsyncIterator[Monitor]:
    """Serve the health pages, if a port is set, send traces, if an endpoint is set, and report.

    `part`: the kind of process, such as ``core``; each line of its log names it. `name`: this
    process among all. `starting`: why it is not ready yet.
    """
    # a command that serves no pages need not wait for aiohttp
    from core.observe.health import Health, health_pages

    structlog.contextvars.bind_contextvars(part=part)
    set_up_tracing(settings.otlp_endpoint, part)
    metrics.BUILD.labels(version("henji")).set(1)
    monitor = Monitor(settings, queue, board)
    monitor.starting = starting

    async def report() -> None:
        await board.report(await monitor.report(name, part))

    health = Health(monitor.ready, monitor.refresh)
    async with health_pages(settings.metrics_host, settings.metrics_port, health):
        reporting = asyncio.create_task(repeat_forever(report, REPORT_SECONDS))
        try:
            yield monitor
        finally:
            await cancel(reporting)
        with suppress(StoreUnavailable):  # a failed process stays listed, with its error
            await board.withdraw(name)


T = TypeVar("T")


class InstrumentedPlatform:
    """A platform whose calls are counted and timed (`metrics.CALLS`, `metrics.CALL_SECONDS`)."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self.name = platform.name
        self.part_length = platform.part_length
        self.call_seconds = platform.call_seconds

    def split(self, delivery: Delivery, text: str, limit: int) -> Sequence[str]:
        return self._platform.split(delivery, text, limit)

    async def pace(self, delivery: Delivery, *, final: bool) -> None:
        await self._platform.pace(delivery, final=final)

    async def status(self, delivery: Delivery, status: Status) -> None:
        await self._count("status", delivery, self._platform.status(delivery, status))

    async def post(self, delivery: Delivery, part: Part) -> str:
        return await self._count("post", delivery, self._platform.post(delivery, part))

    async def edit(self, delivery: Delivery, message: str, part: Part) -> None:
        await self._count("edit", delivery, self._platform.edit(delivery, message, part))

    async def remove(self, delivery: Delivery, message: str) -> None:
        await self._count("remove", delivery, self._platform.remove(delivery, message))

    async def find(self, delivery: Delivery, index: int) -> str | None:
        return await self._count("find", delivery, self._platform.find(delivery, index))

    async def fetch(self, thread: ThreadKey, file: File, most: int) -> bytes:
        return await self._count("fetch", None, self._platform.fetch(thread, file, most))

    async def names(self, thread: ThreadKey) -> PlaceNames:
        return await self._count("names", None, self._platform.names(thread))

    async def linked(self, thread: ThreadKey, address: str) -> Incoming | None:
        return await self._count("linked", None, self._platform.linked(thread, address))

    async def earlier(self, thread: ThreadKey, before: str, after: float) -> Sequence[Incoming]:
        return await self._count("earlier", None, self._platform.earlier(thread, before, after))

    async def _count(self, call: str, delivery: Delivery | None, work: Awaitable[T]) -> T:
        began, outcome = time.monotonic(), "failed"
        try:
            with span(delivery.job, f"{self.name} {call}") if delivery else nullcontext():
                answer = await work
            outcome = "ok"
        except PlatformRefused:
            outcome = "refused"
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        else:
            return answer
        finally:
            metrics.CALLS.labels(self.name, call, outcome).inc()
            metrics.CALL_SECONDS.labels(self.name, call).observe(time.monotonic() - began)
