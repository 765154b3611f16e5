"""Native streams: start, append and stop, within the rate limits.

SlackApiError where Slack refuses, NoRoom where the rate limits have no room.
"""

from __future__ import annotations

import time
from typing import Any

import structlog
from slack_sdk.errors import SlackApiError

from bots.platform import Part, PlatformRefused
from bots.slack.api import NoRoom, Refused, SlackApi, Workspaces, error_code
from bots.slack.components import Block
from bots.slack.convert import is_person
from bots.slack.error_codes import (
    ABOUT_THE_APP,
    ABOUT_THE_PERSON,
    CANNOT_POST_HERE,
    STREAM_IS_OVER,
)
from bots.text import closed
from core.observe import metrics
from core.queue_types import Delivery
from core.types import Bounded

REFUSED_SECONDS = 600.0
"""After a refusal no stream is started there for so long: in the workspace, in the channel, or for
the person, by the error."""
KEPT_REFUSALS = 10_000

log = structlog.get_logger()


class Streams:
    """The workspaces' streams."""

    def __init__(self, workspaces: Workspaces, api: SlackApi, *, wanted: bool = True) -> None:
        self._workspaces = workspaces
        self._api = api
        self._wanted = wanted
        self._refused = Bounded[tuple[str, str], float](KEPT_REFUSALS)
        """Workspace, and channel, person or "" for all of it -> when a stream was refused."""

    def has(self, delivery: Delivery) -> bool:
        """Whether a stream may be started for a reply, as far as known."""
        thread, person = delivery.thread, delivery.author
        if not self._wanted or not is_person(person):
            return False  # a bot has no user to stream to
        now = time.monotonic()
        times = (self._refused.get((thread.space, what)) for what in ("", thread.channel, person))
        return all(at is None or now - at > REFUSED_SECONDS for at in times)

    def _note_refusal(self, delivery: Delivery, error: str) -> None:
        scope = _scope(error, delivery)
        if scope is not None:
            self._refused[delivery.thread.space, scope] = time.monotonic()

    async def start(self, delivery: Delivery, text: str) -> str | None:
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
                    markdown_text=text,
                    recipient_team_id=delivery.note.get("team", team),
                    recipient_user_id=delivery.author,
                ),
            )
        except NoRoom:
            return None
        except (SlackApiError, PlatformRefused) as error:
            # an error that also holds for a post is handled there
            log.info("no native stream; posting and editing", error=str(error))
            self._note_refusal(delivery, error_code(error))
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
        """Stop a stream as it stands, so that its message can be updated. The reply goes on."""
        try:
            await self._stop(delivery, message, session_status="processing")
        except Refused as error:
            if error.error not in STREAM_IS_OVER:
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


def _scope(error: str, delivery: Delivery) -> str | None:
    """Where an error stands against other streams: a channel, a person, "" for all; or nowhere."""
    if error in CANNOT_POST_HERE:
        return delivery.thread.channel
    if error in ABOUT_THE_PERSON:
        return delivery.author
    if error in ABOUT_THE_APP or error == "unknown_method":
        return ""
    return None
