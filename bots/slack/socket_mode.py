"""Socket Mode: the SDK's connection, with a catch-up after a lost one."""

from __future__ import annotations

import contextlib
import json
import logging
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

log = structlog.get_logger()


@contextlib.asynccontextmanager
async def socket_mode_connection(
    app: AsyncApp, app_token: str, on_reconnect: Callable[[], None], ping: float = PING_SECONDS
) -> AsyncIterator[None]:
    """Stay connected. `on_reconnect` is called when a lost connection is back.

    `ping`: seconds between checks of the connection.
    """
    handler = _Handler(app, app_token, logger=_quiet_logger(), ping_interval=ping)
    handler.client.on_message_listeners.append(_ConnectionWatcher(on_reconnect).on_frame)
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
    """Notices a connection that was lost and is back."""

    def __init__(self, on_reconnect: Callable[[], None]) -> None:
        self._on_lost = on_reconnect
        self._expected = True  # the first hello

    async def on_frame(self, frame: aiohttp.WSMessage) -> None:
        text = str(frame.data)
        if '"hello"' not in text and '"disconnect"' not in text:
            return
        kind = json.loads(text).get("type")
        if kind == "disconnect":
            metrics.count_gateway_event("slack", "disconnect")
            self._expected = True
        elif kind == "hello":
            metrics.count_gateway_event("slack", "hello" if self._expected else "lost and back")
            if not self._expected:
                log.warning("the connection to slack was lost; reading what was missed")
                self._on_lost()
            self._expected = False
