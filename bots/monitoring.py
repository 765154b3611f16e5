"""The health pages of a process, and its reports to Redis about itself."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version

import structlog

from core.background import cancel, repeat_forever
from core.errors import StoreUnavailable
from core.observe import metrics
from core.observe.logs import newest_error
from core.observe.tracing import set_up_tracing
from core.ports import JobQueue, ReportBoard
from core.queue_types import ProcessReport
from core.settings import Settings

REPORT_SECONDS = 10.0
MINUTE = 60.0


class Monitor:
    """The state of one process, for its pages."""

    def __init__(self, settings: Settings, queue: JobQueue, board: ReportBoard) -> None:
        self._lane = settings.job_lane
        self._queue = queue
        self._board = board
        self._since = time.time()
        self._replies: deque[tuple[float, int]] = deque()
        self.starting = ""
        """Why the process is not ready yet, in a few words; empty when it is."""
        self.measure: Callable[[], None] = lambda: None
        """Updates the metrics that only this process knows."""
        self.fault: Callable[[], str] = lambda: ""
        """Why this process cannot do its work any more; empty if it can."""

    async def ready(self) -> str:
        """Why this process cannot serve now; empty if it can."""
        if self.starting:
            return self.starting
        if fault := self.fault():
            return fault
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
        """What this process says of itself."""
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
        with suppress(StoreUnavailable):  # one that fails stays listed, with its error
            await board.withdraw(name)
