"""Signs of life: the status in a thread, and the session that gives Slack's own Stop button.

Slack takes a status away when the app posts there, and after two minutes. It does neither where a
message is only updated, and it never ends a session by itself: whatever is put up here is taken
down here.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

import structlog
from slack_sdk.errors import SlackApiError

from bots.platform import PlatformRefused
from bots.slack.api import NoRoom, SlackApi, Workspaces
from bots.slack.rate_limits import LiveReply
from core.types import ThreadKey

STATUS = "assistant.threads.setStatus"
SESSION = "agents.sessions.setStatus"
STATUS_SECONDS = 90.0
"""Then a status is set again: Slack takes it away after 120."""

INTAKE_SECONDS = 0.5
"""Seconds that a sign waits at the longest: it is seen within one."""

log = structlog.get_logger()


class StatusIndicator:
    """Puts signs up and takes them down. The caller holds the reply's `lock`."""

    def __init__(self, workspaces: Workspaces, api: SlackApi) -> None:
        self._workspaces = workspaces
        self._api = api

    # -- the status -----------------------------------------------------------------------------

    async def show(self, thread: ThreadKey, live: LiveReply, sentence: str) -> None:
        """Say what is going on, where there is room for it now."""
        if live.status == sentence:
            return
        with contextlib.suppress(NoRoom):
            await self._set(thread, sentence)
            live.status, live.status_at = sentence, time.monotonic()

    async def hide(self, thread: ThreadKey, live: LiveReply) -> None:
        """Take the status away, where Slack has not done so by itself."""
        if not live.status:
            return
        live.status = ""
        try:
            await self._set(thread, "")
        except Exception as error:  # the reply is not lost for it, and Slack's time for it ends
            log.info("a status was left standing", error=repr(error))

    async def renew(self, thread: ThreadKey, live: LiveReply) -> None:
        """Set a status again before Slack takes it away."""
        seconds = STATUS_SECONDS * self._api.limiter.minute / 60
        if live.status and time.monotonic() >= live.status_at + seconds:
            sentence, live.status = live.status, ""
            await self.show(thread, live, sentence)

    async def _set(self, thread: ThreadKey, sentence: str) -> None:
        client = await self._workspaces.client(thread.space)
        await self._api.call_if_room(
            STATUS,
            thread.space,
            thread.channel,
            lambda: client.assistant_threads_setStatus(
                channel_id=thread.channel,
                thread_ts=thread.thread,
                status=sentence,
                loading_messages=[sentence] if sentence else None,
            ),
        )

    # -- the session ----------------------------------------------------------------------------

    async def start_session(self, thread: ThreadKey, live: LiveReply) -> None:
        """Tell Slack that work is under way: its own Stop button appears."""
        with contextlib.suppress(NoRoom, SlackApiError, PlatformRefused):
            client = await self._workspaces.client(thread.space)
            await self._api.call_if_room(
                SESSION,
                thread.space,
                thread.channel,
                lambda: client.agents_sessions_setStatus(
                    channel_id=thread.channel, thread_ts=thread.thread, status="processing"
                ),
            )
            live.session = True

    async def end_session(self, thread: ThreadKey) -> None:
        """Tell Slack that the work is over, whoever began it."""
        client = await self._workspaces.client(thread.space)
        try:
            await self._api.call(
                SESSION,
                thread.space,
                thread.channel,
                lambda: client.agents_sessions_setStatus(
                    channel_id=thread.channel, thread_ts=thread.thread, status="active"
                ),
            )
        except Exception as error:  # nor for this
            log.info("a session was left open", error=repr(error))


class Intake:
    """Knows whether events are being taken in at this moment."""

    def __init__(self) -> None:
        self._events = 0
        self._none = asyncio.Event()
        self._none.set()

    @contextlib.contextmanager
    def storing(self) -> Iterator[None]:
        """While an event is taken in."""
        self._events += 1
        self._none.clear()
        try:
            yield
        finally:
            self._events -= 1
            if not self._events:
                self._none.set()

    async def wait_until_stored(self) -> None:
        """Return when no event is being taken in, or when that cannot be waited for any longer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(INTAKE_SECONDS):
                await self._none.wait()
