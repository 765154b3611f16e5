"""The health pages of a process, and the numbers about it that are in Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version

import structlog

from core.errors import StoreUnavailable
from core.observe import metrics
from core.observe.tracing import set_up_tracing
from core.ports import JobQueue
from core.settings import Settings


class Monitor:
    """The state of one process, for its pages."""

    def __init__(self, settings: Settings, queue: JobQueue) -> None:
        self._lane = settings.job_lane
        self._queue = queue
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
        await self._queue.check_writes()
        metrics.set_load(self._lane, await self._queue.load(self._lane))
        metrics.REDIS_UP.set(1)


@asynccontextmanager
async def monitored(
    part: str, settings: Settings, queue: JobQueue, starting: str = ""
) -> AsyncIterator[Monitor]:
    """Serve the health pages, if a port is set, and send traces, if an endpoint is set.

    `part`: the kind of process, such as ``core``; each line of its log names it. `starting`: why
    it is not ready yet.
    """
    # a command that serves no pages need not wait for aiohttp
    from core.observe.health import Health, health_pages

    structlog.contextvars.bind_contextvars(part=part)
    set_up_tracing(settings.otlp_endpoint, part)
    metrics.BUILD.labels(version("henji")).set(1)
    monitor = Monitor(settings, queue)
    monitor.starting = starting
    health = Health(monitor.ready, monitor.refresh)
    async with health_pages(settings.metrics_host, settings.metrics_port, health):
        yield monitor
