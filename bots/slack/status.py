"""The status in a thread, and the session that shows Slack's Stop button.

Slack clears a status when the app posts in the thread, and after two minutes, but not when a
message is only updated. It never ends a session. So every status and session is also cleared here.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Any

import structlog
from slack_sdk.errors import SlackApiError

from bots.platform import PlatformRefused
from bots.slack.api import RateLimited, SlackApi
from bots.slack.convert import is_person
from bots.slack.rate_limits import LiveReply
from core.types import ThreadKey

STATUS = "assistant.threads.setStatus"
SESSION = "agents.sessions.setStatus"
STATUS_SECONDS = 90.0
"""When a status is set again: Slack clears it after 120."""

INTAKE_SECONDS = 0.5
"""The longest that a status waits for events to be stored."""

log = structlog.get_logger()


class StatusIndicator:
    """Sets and clears statuses and sessions. The caller holds the reply's `lock`."""

    def __init__(self, api: SlackApi) -> None:
        self._api = api

    # -- the status -----------------------------------------------------------------------------

    async def show(self, thread: ThreadKey, live: LiveReply, sentence: str) -> None:
        """Set the status, if the rate limits allow it now."""
        if live.status == sentence:
            return
        with contextlib.suppress(RateLimited):
            await self._set(thread, sentence)
            live.status, live.status_at = sentence, time.monotonic()

    async def hide(self, thread: ThreadKey, live: LiveReply) -> None:
        """Clear the status, unless Slack has cleared it."""
        if not live.status:
            return
        live.status = ""
        try:
            await self._set(thread, "")
        except Exception as error:  # Slack clears it in time
            log.info("a status was left standing", error=repr(error))

    async def renew(self, thread: ThreadKey, live: LiveReply) -> None:
        """Set a status again before Slack clears it."""
        seconds = STATUS_SECONDS * self._api.limiter.minute / 60
        if live.status and time.monotonic() >= live.status_at + seconds:
            sentence, live.status = live.status, ""
            await self.show(thread, live, sentence)

    async def _set(self, thread: ThreadKey, sentence: str) -> None:
        await self._api.try_call(
            STATUS,
            thread,
            channel_id=thread.channel,
            thread_ts=thread.thread,
            status=sentence,
            loading_messages=[sentence] if sentence else None,
        )

    # -- the session ----------------------------------------------------------------------------

    async def start_session(
        self, thread: ThreadKey, live: LiveReply, person: str, title: str = ""
    ) -> None:
        """Begin ``processing``: Slack shows its Stop button. A new session gets the title."""
        more = {"title": title} if title else {}
        if is_person(person):
            more["initiator_user_id"] = person
        with contextlib.suppress(RateLimited, SlackApiError, PlatformRefused):
            place = {"channel_id": thread.channel, "thread_ts": thread.thread}
            await self._api.try_call(SESSION, thread, status="processing", **place, **more)
            live.session = True

    async def end_session(self, thread: ThreadKey) -> None:
        """End ``processing``, whichever process began it."""
        place: dict[str, Any] = {"channel_id": thread.channel, "thread_ts": thread.thread}
        try:
            await self._api.call(SESSION, thread, status="active", **place)
        except Exception as error:  # the reply matters more
            log.info("a session was left open", error=repr(error))


class PendingEvents:
    """Counts the events that are being stored, so that statuses can wait for them."""

    def __init__(self) -> None:
        self._events = 0
        self._none = asyncio.Event()
        self._none.set()

    @contextlib.contextmanager
    def storing(self) -> Iterator[None]:
        """Count an event while it is stored."""
        self._events += 1
        self._none.clear()
        try:
            yield
        finally:
            self._events -= 1
            if not self._events:
                self._none.set()

    async def wait_until_stored(self) -> None:
        """Return when no event is being stored, at the latest after `INTAKE_SECONDS`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(INTAKE_SECONDS):
                await self._none.wait()
