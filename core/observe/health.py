"""How a process is, over HTTP: `/healthz`, `/readyz` and `/metrics`, on a port of its own.

A bot's image has no web framework, and three pages without parameters need none.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import structlog

from core.observe import metrics

REQUEST_SECONDS = 5.0
"""Who has not asked by then is not listened to any longer."""

ANSWER_SECONDS = 4.0
"""No check takes longer: who asks gives up after some seconds, too."""

REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed",
           503: "Service Unavailable"}  # fmt: skip

Check = Callable[[], Awaitable[str]]
"""Empty where all is well, else a sentence that says what is not."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Page:
    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"

    @classmethod
    def of(cls, status: int, sentence: str) -> Page:
        return cls(status, f"{sentence}\n".encode())

    def written(self, *, with_body: bool) -> bytes:
        head = (
            f"HTTP/1.1 {self.status} {REASONS[self.status]}\r\n"
            f"Content-Type: {self.content_type}\r\n"
            f"Content-Length: {len(self.body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        return head.encode() + (self.body if with_body else b"")


class Health:
    """The three pages of one process.

    Healthy is a process whose event loop turns: it answers at all. Ready is one that `ready` has
    nothing to say against. `refresh` looks up the numbers that are another's, before a scrape.
    """

    def __init__(self, ready: Check, refresh: Callable[[], Awaitable[None]]) -> None:
        self._ready = ready
        self._refresh = refresh

    async def page(self, path: str) -> Page:
        match path:
            case "/healthz":
                return Page.of(200, "alive")
            case "/readyz":
                return await self._readiness()
            case "/metrics":
                await self._refreshed()
                return Page(200, metrics.page(), metrics.CONTENT_TYPE)
        return Page.of(404, "there are /healthz, /readyz and /metrics")

    async def _readiness(self) -> Page:
        try:
            fault = await asyncio.wait_for(self._ready(), ANSWER_SECONDS)
        except TimeoutError:
            fault = "the check itself takes too long"
        return Page.of(503, fault) if fault else Page.of(200, "ready")

    async def _refreshed(self) -> None:
        """What cannot be looked up now keeps its last value: the rest is still worth reading."""
        try:
            await asyncio.wait_for(self._refresh(), ANSWER_SECONDS)
        except Exception as error:
            log.warning("some metrics could not be looked up", error=repr(error))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, and close."""
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await _head(reader)
            writer.write(await self._answer(head))
            await writer.drain()
        writer.close()

    async def _answer(self, head: bytes) -> bytes:
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/"):
            return Page.of(400, "that is no request").written(with_body=True)
        method, target, _ = words
        if method not in ("GET", "HEAD"):
            return Page.of(405, "these pages can only be read").written(with_body=True)
        page = await self.page(target.split("?")[0])
        return page.written(with_body=method == "GET")


async def _head(reader: asyncio.StreamReader) -> bytes:
    """The request line and its headers; empty where they are too long."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return b""


@contextlib.asynccontextmanager
async def health_pages(host: str, port: int, health: Health) -> AsyncIterator[None]:
    """Serve the pages while inside; with port 0, or a port that is taken, go on without."""
    server = await _listen(host, port, health) if port else None
    try:
        yield
    finally:
        if server is not None:
            server.close()


async def _listen(host: str, port: int, health: Health) -> asyncio.Server | None:
    try:
        server = await asyncio.start_server(health.serve, host, port)
    except OSError as error:
        log.warning(
            "no metrics: HENJI_METRICS_PORT cannot be listened on",
            host=host, port=port, error=error.strerror or str(error),
        )  # fmt: skip
        return None
    log.info("metrics", host=host, port=port)
    return server
