"""The state of a process over HTTP: `/healthz`, `/readyz` and `/metrics`, on a separate port."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import structlog
from aiohttp import web

from core.observe import metrics

ANSWER_SECONDS = 4.0
"""The longest that a check may take; a client gives up after some seconds, too."""
IDLE_SECONDS = 5.0
"""How long an idle connection stays open."""

Check = Callable[[], Awaitable[str]]
"""Empty where all is well, else a sentence that names the fault."""

log = structlog.get_logger()

_request_log = logging.getLogger("core.observe.health.requests")
_request_log.disabled = True  # the library would log a bad request's own bytes


class Health:
    """The three pages of one process.

    A process is healthy while its event loop turns: it answers at all. It is ready while `ready`
    returns nothing. `refresh` looks up shared numbers, such as the queue's length, before a scrape.
    """

    def __init__(self, ready: Check, refresh: Callable[[], Awaitable[None]]) -> None:
        self._ready = ready
        self._refresh = refresh

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        return app

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        try:
            fault = await asyncio.wait_for(self._ready(), ANSWER_SECONDS)
        except TimeoutError:
            fault = "the check itself takes too long"
        return web.Response(status=503 if fault else 200, text=f"{fault or 'ready'}\n")

    async def _metrics(self, _: web.Request) -> web.Response:
        """A number that cannot be looked up keeps its last value."""
        try:
            await asyncio.wait_for(self._refresh(), ANSWER_SECONDS)
        except Exception as error:
            log.warning("some metrics could not be looked up", error=repr(error))
        return web.Response(body=metrics.render(), headers={"Content-Type": metrics.CONTENT_TYPE})


@contextlib.asynccontextmanager
async def health_pages(host: str, port: int, health: Health) -> AsyncIterator[None]:
    """Serve the pages while inside; with port 0, or a port that is taken, go on without."""
    if not port:
        yield
        return
    runner = web.AppRunner(
        health.app(),
        access_log=None,
        logger=_request_log,
        handle_signals=False,
        keepalive_timeout=IDLE_SECONDS,
        shutdown_timeout=0,
    )
    await runner.setup()
    try:
        await _listen(runner, host, port)
        yield
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, host: str, port: int) -> None:
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        log.warning(
            "no metrics: HENJI_METRICS_PORT cannot be listened on",
            host=host, port=port, error=error.strerror or str(error),
        )  # fmt: skip
    else:
        log.info("metrics", host=host, port=port)
