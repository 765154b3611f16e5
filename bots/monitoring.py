"""What each process tells of itself: its health pages, and the numbers that Redis has for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version

from core.errors import StoreUnavailable
from core.observe import metrics
from core.observe.tracing import set_up_tracing
from core.ports import JobQueue
from core.settings import Settings


class Monitor:
    """The state of one process, as its pages show it."""

    def __init__(self, settings: Settings, queue: JobQueue) -> None:
        self._lane = settings.job_lane
        self._queue = queue
        self.starting = ""
        """What is still to be waited for, in a few words; empty once it is there."""
        self.measure: Callable[[], None] = lambda: None
        """Looks up what this process alone knows."""

    async def ready(self) -> str:
        """Why nothing should be asked of this process now; empty where all is well."""
        if self.starting:
            return self.starting
        if down := metrics.gateways_down():
            return f"no connection to {', '.join(down)}"
        try:
            await self._queue.cores(self._lane)
        except StoreUnavailable as error:
            return str(error)
        return ""

    async def refresh(self) -> None:
        """The numbers of this moment; those of Redis keep their last value while it is away."""
        self.measure()
        metrics.REDIS_UP.set(0)
        metrics.set_load(self._lane, await self._queue.load(self._lane))
        metrics.REDIS_UP.set(1)


@asynccontextmanager
async def monitored(
    part: str, settings: Settings, queue: JobQueue, starting: str = ""
) -> AsyncIterator[Monitor]:
    """A process with its health pages, where a port is set, and its traces where they go.

    `part`: what the process is, such as ``core``.
    """
    # a command that serves no pages need not wait for aiohttp
    from core.observe.health import Health, health_pages

    set_up_tracing(settings.otlp_endpoint, part)
    metrics.BUILD.labels(version("henji")).set(1)
    watch = Monitor(settings, queue)
    watch.starting = starting
    health = Health(watch.ready, watch.refresh)
    async with health_pages(settings.metrics_host, settings.metrics_port, health):
        yield watch
