"""Socket Mode: the SDK's connection, with a catch-up after a lost one."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Callable

import aiohttp
import structlog
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_sdk.errors import SlackApiError
from slack_sdk.socket_mode.aiohttp import SocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest
from slack_sdk.socket_mode.response import SocketModeResponse

from bots.slack.api import error_code
from bots.slack.setup_checks import app_token_sentence
from core.observe import metrics

PING_SECONDS = 5.0
GAP_SECONDS = 2.0
"""Slack may not deliver again what it sent in a longer gap."""

log = structlog.get_logger()


@contextlib.asynccontextmanager
async def socket_mode_connection(
    app: AsyncApp,
    app_token: str,
    on_gap: Callable[[], None],
    processes: int = 1,
    second: float = 1.0,
) -> AsyncIterator[None]:
    """Stay connected. `on_gap` is called when the connection is back after a gap.

    `processes`: how many are meant to share the app token; `second`: shorter in tests.
    """
    ping = PING_SECONDS * second
    handler = _Handler(app, app_token, logger=_quiet_logger(), ping_interval=ping)
    watcher = _ConnectionWatcher(on_gap, processes, GAP_SECONDS * second)
    handler.client.on_message_listeners.append(watcher.on_frame)
    _log_connection_errors(handler.client)
    with metrics.gateway_connection("slack", lambda: _is_connected(handler.client.current_session)):
        await handler.connect_async()  # type: ignore[no-untyped-call]  # Bolt's has no types
        try:
            yield
        finally:
            await handler.close_async()  # type: ignore[no-untyped-call]  # nor this


def _is_connected(session: aiohttp.ClientWebSocketResponse | None) -> bool:
    return session is not None and not session.closed


class _Handler(AsyncSocketModeHandler):
    """Acknowledges what Bolt cannot read, which Slack would otherwise send again."""

    async def handle(  # type: ignore[override]  # as Bolt's own
        self, client: SocketModeClient, req: SocketModeRequest
    ) -> None:
        try:
            await super().handle(client, req)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            log.warning("a malformed payload", kind=req.type, error=type(error).__name__)
            await client.send_socket_mode_response(SocketModeResponse(envelope_id=req.envelope_id))


def _log_connection_errors(client: SocketModeClient) -> None:
    """Log why a reconnect fails: the SDK retries for ever, even with a revoked token."""
    ask = client.issue_new_wss_url

    async def ask_and_say() -> str:
        try:
            return await ask()
        except SlackApiError as error:
            sentence = app_token_sentence(error_code(error))
            log.error("cannot connect to slack again", why=sentence)  # noqa: TRY400 -- the sentence is enough
            raise

    client.issue_new_wss_url = ask_and_say  # type: ignore[method-assign]  # the SDK has no hook


def _quiet_logger() -> logging.Logger:
    """A logger without the SDK's DEBUG lines, which quote messages, and without tracebacks."""

    def sentence_only(record: logging.LogRecord) -> bool:
        record.exc_info = None
        return True

    logger = logging.getLogger("henji.slack_socket")
    logger.setLevel(logging.WARNING)
    logger.filters[:] = [sentence_only]
    return logger


class _ConnectionWatcher:
    """Notices gaps in the connection, and other processes that use the same app token."""

    def __init__(self, on_gap: Callable[[], None], processes: int, gap: float) -> None:
        self._on_gap = on_gap
        self._processes = processes
        self._gap = gap
        self._is_first = True
        self._sent_away: float | None = None
        """When Slack announced the end of the connection."""

    async def on_frame(self, frame: aiohttp.WSMessage) -> None:
        text = str(frame.data)
        if '"hello"' not in text and '"disconnect"' not in text:
            return
        body = json.loads(text)
        if body.get("type") == "disconnect":
            metrics.count_gateway_event("slack", "disconnect")
            self._sent_away = self._sent_away or time.monotonic()
        elif body.get("type") == "hello":
            self._on_hello(int(body.get("num_connections") or 1))

    def _on_hello(self, connections: int) -> None:
        announced, self._sent_away = self._sent_away, None
        is_lost = not self._is_first and announced is None
        metrics.count_gateway_event("slack", "lost and back" if is_lost else "hello")
        if is_lost or (announced is not None and time.monotonic() - announced > self._gap):
            log.warning("the connection to slack had a gap; reading what was missed")
            self._on_gap()
        # the old connection may be counted still
        if connections > self._processes + (not self._is_first):
            log.warning(
                "other processes use SLACK_APP_TOKEN: each gets only a part of the events",
                connections=connections,
                slack_processes=self._processes,
            )
        self._is_first = False
