"""Native streams: start, append and stop, within the rate limits.

SlackApiError where Slack refuses, NoRoom where the rate limits have no room.
"""

from __future__ import annotations

import time
from typing import Any

import structlog
from slack_sdk.errors import SlackApiError

from bots.platform import Part, PlatformRefused
from bots.slack import components
from bots.slack.api import NoRoom, Refused, SlackApi, Workspaces, error_code
from bots.slack.components import Block
from bots.slack.error_codes import CANNOT_POST_HERE
from bots.text import closed
from core.observe import metrics
from core.queue_types import Delivery

STREAM_IS_OVER = "message_not_in_streaming_state"
WITHOUT_SECONDS = 600.0
"""How long a workspace that refused a stream is not asked for another."""

log = structlog.get_logger()


class Streams:
    """The workspaces' streams."""

    def __init__(self, workspaces: Workspaces, api: SlackApi, *, wanted: bool = True) -> None:
        self._workspaces = workspaces
        self._api = api
        self._wanted = wanted
        self._refused: dict[str, float] = {}
        """Workspace -> when it refused a stream."""

    def has(self, team: str) -> bool:
        """Whether a workspace has streams, as far as known."""
        at = self._refused.get(team)
        return self._wanted and (at is None or time.monotonic() - at > WITHOUT_SECONDS)

    async def start(self, delivery: Delivery, part: Part) -> str | None:
        """The message of a new stream; None where the workspace will not have it now."""
        thread, team = delivery.thread, delivery.thread.space
        client = await self._workspaces.client(team)
        try:
            answer = await self._api.call_if_room(
                "chat.startStream",
                team,
                thread.channel,
                lambda: client.chat_startStream(
                    channel=thread.channel,
                    thread_ts=thread.thread,
                    markdown_text=components.without_pings(part.text),
                    recipient_team_id=delivery.note.get("team", team),
                    recipient_user_id=delivery.author,
                ),
            )
        except NoRoom:
            return None
        except (SlackApiError, PlatformRefused) as error:
            # an error that also holds for a post is handled there
            name = error_code(error) if isinstance(error, SlackApiError) else str(error)
            log.info("no native stream; posting and editing", error=name)
            if not (isinstance(error, Refused) and error.error in CANNOT_POST_HERE):
                self._refused[team] = time.monotonic()
            metrics.STREAM_FALLBACKS.labels("slack", "refused").inc()
            return None
        return str(answer["ts"])

    async def append(self, delivery: Delivery, message: str, text: str) -> None:
        if not text:
            return
        thread = delivery.thread
        client = await self._workspaces.client(thread.space)
        await self._api.call_if_room(
            "chat.appendStream",
            thread.space,
            thread.channel,
            lambda: client.chat_appendStream(
                channel=thread.channel, ts=message, markdown_text=text
            ),
        )

    async def stop(
        self,
        delivery: Delivery,
        message: str,
        part: Part,
        text: str,
        under: list[Block],
        metadata: dict[str, Any],
    ) -> None:
        """Append the rest of a part and its controls. The session ends with the reply."""
        rest = text + closed(part.text)[len(part.text) :]
        await self._stop(
            delivery,
            message,
            markdown_text=rest or None,
            blocks=under or None,
            metadata=metadata,
            session_status="active" if part.end is not None else "processing",
        )

    async def end(self, delivery: Delivery, message: str) -> None:
        """Stop a stream that another process began, so that its message can be updated."""
        try:
            await self._stop(delivery, message, session_status="active")
        except SlackApiError as error:
            if error_code(error) != STREAM_IS_OVER:
                raise

    async def _stop(self, delivery: Delivery, message: str, **content: Any) -> None:
        thread = delivery.thread
        client = await self._workspaces.client(thread.space)
        await self._api.call(
            "chat.stopStream",
            thread.space,
            thread.channel,
            lambda: client.chat_stopStream(channel=thread.channel, ts=message, **content),
        )
