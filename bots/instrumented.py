"""A wrapper that counts and times the calls of a platform."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from contextlib import nullcontext
from typing import TypeVar

from bots.attachments import File
from bots.platform import Incoming, Part, Platform, PlatformRefused, Status
from core.observe import metrics
from core.observe.tracing import span
from core.queue_types import Delivery
from core.types import ThreadKey

T = TypeVar("T")


class InstrumentedPlatform:
    """The same platform, with `metrics.CALLS` and `metrics.CALL_SECONDS` kept."""

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
