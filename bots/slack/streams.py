"""Native streams, and the task cards above their text, within the rate limits.

Raises SlackApiError where Slack refuses, RateLimited where the rate limits do not allow a call.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import structlog
from slack_sdk.errors import SlackApiError

from bots.platform import Part, PlatformRefused
from bots.slack.api import RateLimited, Refused, SlackApi, error_code
from bots.slack.components import Block
from bots.slack.convert import is_person
from bots.slack.error_codes import (
    ABOUT_THE_APP,
    ABOUT_THE_PERSON,
    CANNOT_DISPLAY,
    CANNOT_POST_HERE,
    STREAM_IS_OVER,
    WRONG_CALL,
)
from bots.strings import say
from bots.text import closed
from core.observe import metrics
from core.queue_types import Delivery
from core.types import Bounded, Done, ReplyEvent, ThreadKey

REFUSED_SECONDS = 600.0
"""How long no stream is started after a refusal: in the workspace, in the channel, or for the
person, depending on the error."""
KEPT_REFUSALS = 10_000
KEPT_STREAMS = 10_000

log = structlog.get_logger()


class Streams:
    """The streams of this process."""

    def __init__(self, api: SlackApi, *, wanted: bool = True) -> None:
        self._api = api
        self._wanted = wanted
        self._refused = Bounded[tuple[str, str], float](KEPT_REFUSALS)
        """Workspace, and channel, person or "" for all of it -> when a stream was refused."""
        self._without_cards = Bounded[str, float](KEPT_REFUSALS)
        """Workspace -> when it refused task cards."""
        self._with_cards = Bounded[tuple[ThreadKey, str], None](KEPT_STREAMS)
        """The messages whose stream takes only chunks."""

    def has(self, delivery: Delivery) -> bool:
        """Whether a stream may be started for a reply, by the known refusals."""
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

    async def start(self, delivery: Delivery, text: str, cards: Sequence[Chunk] = ()) -> str | None:
        """Start a stream. Returns its message, or None if that is not possible now.

        If the task cards are refused, the text is streamed without them.
        """
        refused = self._without_cards.get(delivery.thread.space)
        if refused is not None and time.monotonic() - refused <= REFUSED_SECONDS:
            cards = ()
        try:
            message = await self._start(delivery, _content(text, cards))
        except (SlackApiError, PlatformRefused) as error:
            if not cards or error_code(error) not in WRONG_CALL | CANNOT_DISPLAY:
                self._give_up(delivery, error)
                return None
            log.info("no task cards; streaming text alone", error=str(error))
            self._without_cards[delivery.thread.space] = time.monotonic()
            return await self.start(delivery, text)
        if message is not None and cards:
            self._with_cards[delivery.thread, message] = None
        return message

    async def _start(self, delivery: Delivery, content: Mapping[str, Any]) -> str | None:
        thread = delivery.thread
        try:
            answer = await self._api.try_call(
                "chat.startStream",
                thread,
                channel=thread.channel,
                thread_ts=thread.thread,
                recipient_team_id=delivery.note.get("team", thread.space),
                recipient_user_id=delivery.author,
                **content,
            )
        except RateLimited:
            return None
        return str(answer["ts"])

    def _give_up(self, delivery: Delivery, error: Exception) -> None:
        # an error that affects posts, too, is handled there
        log.info("no native stream; posting and editing", error=str(error))
        self._note_refusal(delivery, error_code(error))
        metrics.STREAM_FALLBACKS.labels("slack", "refused").inc()

    async def append(self, delivery: Delivery, message: str, text: str) -> None:
        if not text:
            return
        thread = delivery.thread
        content: dict[str, Any] = (
            {"chunks": [text_chunk(text)]}
            if self._has_cards(delivery, message)
            else {"markdown_text": text}
        )
        await self._api.try_call(
            "chat.appendStream", thread, channel=thread.channel, ts=message, **content
        )

    def _has_cards(self, delivery: Delivery, message: str) -> bool:
        return (delivery.thread, message) in self._with_cards

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
            **self._rest(delivery, message, part, rest),
            blocks=under or None,
            metadata=metadata,
            session_status="active" if part.end is not None else "processing",
        )

    def _rest(self, delivery: Delivery, message: str, part: Part, text: str) -> dict[str, Any]:
        """The last text of a stream, and the last state of its cards."""
        if not self._has_cards(delivery, message):
            return {"markdown_text": text or None}
        cards = ending(part.end, _locale(delivery))
        return {"chunks": [*([text_chunk(text)] if text else ()), *cards]}

    async def end(self, delivery: Delivery, message: str) -> None:
        """Stop a stream, so that its message can be updated. The reply continues."""
        cards: dict[str, Any] = {}
        if self._has_cards(delivery, message):
            cards = {"chunks": ending(None, _locale(delivery))}
        try:
            await self._end(delivery, message, cards)
        except Refused:
            if not cards:
                raise
            await self._end(delivery, message, {})  # it must not stay open for its cards

    async def _end(self, delivery: Delivery, message: str, cards: Mapping[str, Any]) -> None:
        try:
            await self._stop(delivery, message, session_status="processing", **cards)
        except Refused as error:
            if error.error not in STREAM_IS_OVER:
                raise

    async def _stop(self, delivery: Delivery, message: str, **content: Any) -> None:
        thread = delivery.thread
        await self._api.call(
            "chat.stopStream", thread, channel=thread.channel, ts=message, **content
        )


def _locale(delivery: Delivery) -> str:
    return delivery.note.get("locale", "en")


def _content(text: str, cards: Sequence[Chunk]) -> dict[str, Any]:
    """A stream's first text: with cards, everything in it is chunks."""
    if not cards:
        return {"markdown_text": text or None}
    chunks = [*cards, *([text_chunk(text)] if text else ())]
    return {"chunks": chunks, "task_display_mode": DISPLAY_MODE}


def _scope(error: str, delivery: Delivery) -> str | None:
    """The scope in which an error prevents other streams: a channel, a person, "" for the whole
    workspace; None: it does not."""
    if error in CANNOT_POST_HERE:
        return delivery.thread.channel
    if error in ABOUT_THE_PERSON:
        return delivery.author
    if error in ABOUT_THE_APP or error == "unknown_method":
        return ""
    return None


# -- task cards ---------------------------------------------------------------------------------
#
# The cards tell how long the person waited, and why. They are chunks of a stream. A stream that
# began with chunks takes no `markdown_text`, and its display mode is that of its start (github
# NousResearch/hermes-agent pull 104173 and app-vitals/shipwright pull 3057, 2026-09). A task with
# a known id is updated in its place.

Chunk: TypeAlias = dict[str, Any]
Step: TypeAlias = tuple[str, float]
"""The kind of a status, and when it began."""

DISPLAY_MODE = "plan"
"""All tasks in one collapsible block."""
CARD_SECONDS = 3.0
"""A faster reply gets no cards."""
SHORTEST_STEP = 1.0
"""Shorter steps are left out."""
KINDS = ("queued", "thinking")
WRITING = "writing"


def text_chunk(text: str) -> Chunk:
    """A piece of the reply."""
    return {"type": "markdown_text", "text": text}


def opening(steps: Sequence[Step], now: float, locale: str) -> list[Chunk]:
    """The cards at the beginning of a stream; none if the reply came soon."""
    if not steps or now - steps[0][1] < CARD_SECONDS:
        return []
    took = _seconds(steps, now)
    waits = [
        _task(kind, say(f"task_{kind}", locale, seconds=round(took[kind])), "complete")
        for kind in KINDS
        if took[kind] >= SHORTEST_STEP
    ]
    return [
        {"type": "plan_update", "title": say("task_plan", locale)},
        *waits,
        _task(WRITING, say("task_writing", locale), "in_progress"),
    ]


def ending(end: ReplyEvent | None, locale: str) -> list[Chunk]:
    """The final state of the cards: none may stay in progress when the stream ends."""
    is_whole = end is None or isinstance(end, Done)
    done = "complete" if is_whole else "error"
    return [_task(WRITING, say("task_writing", locale), done)]


def _seconds(steps: Sequence[Step], now: float) -> dict[str, float]:
    """How long each kind of status lasted."""
    took = dict.fromkeys(KINDS, 0.0)
    ends = [at for _, at in steps[1:]] + [now]
    for (kind, began), ended in zip(steps, ends, strict=True):
        took[kind] += ended - began
    return took


def _task(id_: str, title: str, status: str) -> Chunk:
    return {"type": "task_update", "id": id_, "title": title, "status": status}
