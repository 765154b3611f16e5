"""The `Platform` that the relay writes to.

A reply is streamed if the rate limits allow another stream; else it is posted once and edited. The
sent text is kept in memory only to send less. A process that does not know a message's state learns
it from Slack's answer.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

import structlog
from slack_sdk.errors import SlackApiError

from bots.attachments import File
from bots.commonmark import mended
from bots.markdown import ZERO_WIDTH_SPACE, simplified
from bots.platform import (
    EditRefused,
    Incoming,
    MessageGone,
    MessageTooLong,
    Part,
    PlaceNames,
    PlatformRefused,
    Status,
)
from bots.slack import components, streams
from bots.slack.api import (
    CALL_SECONDS,
    WITHOUT_PREVIEWS,
    RateLimited,
    Refused,
    SlackApi,
)
from bots.slack.audience import Audience
from bots.slack.backfill import Backfill
from bots.slack.convert import LINK, PLATFORM, REPLY_METADATA
from bots.slack.error_codes import CANNOT_DISPLAY, CANNOT_EDIT, STREAM_IS_OVER, TOO_LONG
from bots.slack.markdown import escaped, has_table, settled, without_margins
from bots.slack.rate_limits import POST, LiveReply, ReplyPacer
from bots.slack.status import PendingEvents, StatusIndicator
from bots.slack.streams import Streams
from bots.strings import say
from bots.text import closed, split
from core.observe import metrics
from core.ports import History
from core.queue_types import OPENED, Delivery
from core.types import Bounded, ThreadKey

PART_LENGTH = 9_600
"""In UTF-8 bytes. A stream ends between 10,571 and 10,821 of them (measured: github
openclaw/openclaw pull 143882, 2026). A Markdown block takes 12,000 characters."""
PLAIN_MARGIN = 0.95
"""Parts differ in how much escaping adds to them."""
KEPT_REPLIES = 10_000
SEARCHED_THREADS = 500
NOT_A_MEMBER = frozenset({"channel_not_found", "no_permission", "not_in_channel"})

log = structlog.get_logger()


class SlackPlatform:
    """Writes replies into Slack."""

    name = PLATFORM
    part_length = PART_LENGTH
    call_seconds = CALL_SECONDS

    def __init__(
        self,
        api: SlackApi,
        backfill: Backfill,
        history: History,
        model: str,
        *,
        streaming: bool = True,
    ) -> None:
        self._api = api
        self._pacer = ReplyPacer(api.limiter)
        self._backfill = backfill
        self._audience = Audience(api)
        self._history = history
        self._model = model
        self._streams = Streams(api, wanted=streaming)
        self._indicator = StatusIndicator(api)
        self.pending_events = PendingEvents()
        self._live = Bounded[str, LiveReply](KEPT_REPLIES)
        self._open = Bounded[str, Delivery](KEPT_REPLIES)
        """Replies whose status may need a refresh."""

    def split(self, delivery: Delivery, text: str, limit: int) -> Sequence[str]:
        return without_margins(split(simplified(text), limit, self.length_of))

    def length_of(self, text: str) -> int:
        """UTF-8 bytes, including the additions of `components.markdown`."""
        written = components.without_pings(text)
        spaces = mended(written).count(ZERO_WIDTH_SPACE) - written.count(ZERO_WIDTH_SPACE)
        return len(written.encode()) + spaces * len(ZERO_WIDTH_SPACE.encode())

    # -- pace ---------------------------------------------------------------------------------

    async def pace(self, delivery: Delivery, *, final: bool) -> None:
        """Wait for the rate limits. The end of a reply does not wait here, but in its call."""
        live = self._of(delivery)
        if final:
            live.ended = True
            return
        can_stream = self._streams.has(delivery)
        await self._pacer.wait_for_update(delivery, live, can_stream=can_stream)

    # -- status -------------------------------------------------------------------------------

    async def status(self, delivery: Delivery, status: Status) -> None:
        """Set the status, unless text of the reply is shown already."""
        live = self._of(delivery)
        sentence = status.sentence(self._locale(delivery))
        if not live.steps or live.steps[-1][0] != status.kind:
            live.steps.append((status.kind, time.monotonic()))
        await self.pending_events.wait_until_stored()
        async with live.lock:
            if live.shown or delivery.messages:
                return
            await self._indicator.show(delivery.thread, live, sentence)
            if status.seconds and not live.session:  # it takes long: Slack shows its Stop button
                await self._indicator.start_session(delivery.thread, live, delivery.author)

    async def refresh_statuses(self, delivers: Callable[[str], bool]) -> None:
        """Refresh the statuses of replies that this process `delivers`; clear those of replies
        that ended without a message."""
        for job, delivery in list(self._open.items()):
            live = self._live.get(job, LiveReply())
            if live.lock.locked():
                continue  # a call is under way
            try:
                async with live.lock:
                    await self._refresh_status(job, delivery, live, delivers)
            except Exception as error:
                log.info("a status could not be refreshed", job=job, error=repr(error))
                self._open.pop(job, None)

    async def _refresh_status(
        self, job: str, delivery: Delivery, live: LiveReply, delivers: Callable[[str], bool]
    ) -> None:
        if delivers(job):
            await self._indicator.renew(delivery.thread, live)
            return
        self._open.pop(job, None)
        if live.ended:  # else another process has taken over the reply and its status
            self._api.limiter.release(job)
            await self._clear_signs(delivery, live)

    async def _clear_signs(self, delivery: Delivery, live: LiveReply) -> None:
        await self._indicator.hide(delivery.thread, live)
        if live.session:
            live.session = False
            await self._indicator.end_session(delivery.thread)

    async def begin_session(self, delivery: Delivery, title: str) -> None:
        """Start the session of a new conversation: its title, its initiator, and that work has
        begun."""
        live = self._of(delivery)
        async with live.lock:
            if not live.session and not live.ended:
                await self._indicator.start_session(delivery.thread, live, delivery.author, title)

    async def end_session(self, key: ThreadKey) -> None:
        """End the session after Slack's Stop button, which does not end it."""
        for job, delivery in self._open.items():
            if delivery.thread == key and job in self._live:
                self._live[job].session = False
        await self._indicator.end_session(key)

    def _locale(self, delivery: Delivery) -> str:
        return delivery.note.get("locale", "en")

    # -- posting ------------------------------------------------------------------------------

    async def post(self, delivery: Delivery, part: Part) -> str:
        if part.private and not delivery.thread.channel.startswith("D"):
            return await self._post_privately(delivery, part)
        live = self._of(delivery)
        async with live.lock, self._reporting_refusals(delivery, live):
            message = await self._stream(delivery, part, live)
            return message or await self._post(delivery, part, live)

    async def _post_privately(self, delivery: Delivery, part: Part) -> str:
        """Post for the person who asked alone. Slack shows it in a thread only if that exists."""
        thread = delivery.thread
        begins = thread.thread == delivery.turn
        place = replace(thread, thread="") if begins else thread
        return await self._api.post_privately(place, delivery.author, escaped(part.text))

    async def _stream(self, delivery: Delivery, part: Part, live: LiveReply) -> str | None:
        """Start a native stream, if the part will grow and the rate limits allow it."""
        if part.end is not None or not part.last or not self._streams.has(delivery):
            return None
        if self._pacer.room("chat.startStream", delivery) > 0:
            metrics.STREAM_FALLBACKS.labels("slack", "no room").inc()
            return None
        text = components.markdown(settled(part.text))
        steps = live.steps if part.index == 0 else ()
        cards = streams.opening(steps, time.monotonic(), self._locale(delivery))
        message = await self._streams.start(delivery, text, cards)
        if message is not None:
            live.streams[message] = text
            self._sent(delivery, part, live, message)
            live.status = ""  # Slack has cleared it
            await self._indicator.start_session(delivery.thread, live, delivery.author)
        return message

    async def _post(self, delivery: Delivery, part: Part, live: LiveReply) -> str:
        thread = delivery.thread

        async def send(**content: Any) -> Any:
            return await self._api.call(
                POST,
                thread,
                channel=thread.channel,
                thread_ts=thread.thread,
                metadata=_metadata(delivery, part),
                **WITHOUT_PREVIEWS,
                **content,
            )

        try:
            answer = await send(**self._content(delivery, part, live))
        except Refused as refusal:
            self._change_form(part, live, refusal)
            answer = await send(**self._content(delivery, part, live))
        message = str(answer["ts"])
        live.status = ""  # Slack has cleared it
        self._sent(delivery, part, live, message)
        return message

    @contextlib.asynccontextmanager
    async def _reporting_refusals(self, delivery: Delivery, live: LiveReply) -> AsyncIterator[None]:
        """If a refusal ends the reply, tell the person, and have its status cleared."""
        try:
            yield
        except (EditRefused, MessageTooLong):
            raise  # the reply goes on in another message
        except PlatformRefused as refusal:
            if isinstance(refusal, Refused) and not live.ended_by_refusal:
                await self._tell_person(delivery, refusal)
            live.ended = live.ended_by_refusal = True
            await self._end_streams(delivery, live)
            raise

    async def _end_streams(self, delivery: Delivery, live: LiveReply) -> None:
        """Stop the open streams of a reply that ends early: clients show an open one as growing."""
        while live.streams:
            message, _ = live.streams.popitem()
            with contextlib.suppress(SlackApiError, PlatformRefused):
                await self._streams.end(delivery, message)

    async def _tell_person(self, delivery: Delivery, refusal: Refused) -> None:
        """Tell the person why there is no reply: where they asked, else in a direct message."""
        key, person = delivery.thread, delivery.author
        invite = "cannot_post" if refusal.error in NOT_A_MEMBER else "post_refused"
        channel = f"<#{key.channel}>"
        sentence = say(invite, self._locale(delivery), channel=channel, error=refusal.error)
        with contextlib.suppress(SlackApiError, PlatformRefused):
            try:
                await self._api.post_privately(key, person, sentence)
            except (SlackApiError, PlatformRefused):
                if direct := await self._direct_channel(key.space, person):
                    place = replace(key, channel=direct, thread="")
                    await self._api.post_privately(place, person, sentence)

    async def _direct_channel(self, team: str, person: str) -> str | None:
        """The person's direct channel with the bot, if a conversation there is stored."""
        seen = 0
        async for summary in self._history.threads(PLATFORM, 0.0):
            key, seen = summary.thread, seen + 1
            if key.space == team and key.channel.startswith("D"):
                turns = await self._history.turns(key)
                if any(stored.turn.author == person for stored in turns):
                    return key.channel
            if seen == SEARCHED_THREADS:
                break
        return None

    def _change_form(self, part: Part, live: LiveReply, refusal: Refused) -> None:
        """Prepare to send the part in another form: smaller, or as plain text.

        Raises `refusal` if no other form helps.
        """
        if refusal.error in TOO_LONG:
            raise MessageTooLong(self.length_of(part.text) // 2) from refusal
        if refusal.error not in CANNOT_DISPLAY or live.plain:
            raise refusal
        live.plain = True

    def _content(self, delivery: Delivery, part: Part, live: LiveReply) -> dict[str, Any]:
        """The blocks, and the text for notifications and screen readers."""
        part = replace(part, text=closed(part.text))
        if live.plain:
            return {"text": self._plain(part), "blocks": []}
        written = components.reply(part, delivery, self._model, self._locale(delivery))
        return {"text": components.notification(part.text), "blocks": written}

    def _plain(self, part: Part) -> str:
        """The part as plain text; MessageTooLong if Slack would refuse it."""
        text = escaped(part.text)
        size = len(text.encode())
        if size > components.TEXT_BYTES:
            share = components.TEXT_BYTES / size
            raise MessageTooLong(int(self.length_of(part.text) * share * PLAIN_MARGIN))
        return text

    def _sent(self, delivery: Delivery, part: Part, live: LiveReply, message: str) -> None:
        limiter, team = self._api.limiter, delivery.thread.space
        live.shown[message] = part.text
        live.updated = time.monotonic()
        if part.end is None:
            ending = "chat.stopStream" if message in live.streams else "chat.update"
            limiter.reserve(ending, team, delivery.job)
        elif part.last:
            limiter.release(delivery.job)
            live.streams.clear()

    # -- editing ------------------------------------------------------------------------------

    async def edit(self, delivery: Delivery, message: str, part: Part) -> None:
        if part.private and not delivery.thread.channel.startswith("D"):
            return  # it cannot be edited, and its text is the same
        live = self._of(delivery)
        async with self._reporting_refusals(delivery, live):
            await self._edit(delivery, message, part, live)

    async def _edit(self, delivery: Delivery, message: str, part: Part, live: LiveReply) -> None:
        if self._is_unchanged(delivery, message, part, live):
            return
        if message in live.streams and await self._continue_stream(delivery, message, part, live):
            return
        try:
            await self._update(delivery, message, part, live)
        except RateLimited:
            return  # a later edit has this text too
        async with live.lock:
            if part.end is not None and part.last:
                # an earlier process may have begun a session
                live.session |= delivery.token > OPENED and self._streams.has(delivery)
                await self._clear_signs(delivery, live)
            else:
                await self._indicator.hide(delivery.thread, live)

    def _is_unchanged(self, delivery: Delivery, message: str, part: Part, live: LiveReply) -> bool:
        """Whether a finished message needs no edit, because its text is the same."""
        same = live.shown.get(message) == part.text and message not in live.streams
        return same and not part.last and delivery.token == OPENED

    async def _update(self, delivery: Delivery, message: str, part: Part, live: LiveReply) -> None:
        thread = delivery.thread
        call = self._api.try_call if part.end is None and part.last else self._api.call

        async def update() -> Any:
            content = self._content(delivery, part, live)
            return await call("chat.update", thread, channel=thread.channel, ts=message, **content)

        try:
            await update()
        except Refused as refusal:
            if refusal.error == "streaming_state_conflict":
                await self._streams.end(delivery, message)  # an earlier process began it
                live.session = True
            else:
                _check_message(refusal)
                self._change_form(part, live, refusal)
            call = self._api.call
            await update()
        self._sent(delivery, part, live, message)

    async def _continue_stream(
        self, delivery: Delivery, message: str, part: Part, live: LiveReply
    ) -> bool:
        """Append to a stream, or stop it; False if the message needs chat.update instead."""
        over = part.end is not None or not part.last
        before, now = live.streams[message], components.markdown(_settled_text(part))
        if not now.startswith(before):
            live.streams.pop(message)
            return False
        try:
            if over:
                await self._stop(delivery, message, part, now[len(before) :], live)
            else:
                await self._streams.append(delivery, message, now[len(before) :])
        except RateLimited:
            return True
        except Exception as error:
            live.streams.pop(message, None)  # its text is unknown now: update it whole
            metrics.STREAM_FALLBACKS.labels("slack", "ended").inc()
            if isinstance(error, Refused):
                await self._leave_stream(delivery, message, part, live, error)
                return False
            raise
        if over:
            live.streams.pop(message)
        else:
            live.streams[message] = now
        self._sent(delivery, part, live, message)
        return not (over and has_table(part.text))  # not every client lays out a streamed table

    async def _leave_stream(
        self, delivery: Delivery, message: str, part: Part, live: LiveReply, refusal: Refused
    ) -> None:
        """Close a stream that refused text, so that chat.update or a new message can continue."""
        _check_message(refusal)
        if refusal.error in STREAM_IS_OVER:
            return
        log.info("a stream was refused", job=delivery.job, error=refusal.error)
        with contextlib.suppress(SlackApiError, PlatformRefused):
            await self._streams.end(delivery, message)
            live.session = True
        if refusal.error in TOO_LONG:
            shown = self.length_of(live.shown[message])
            raise MessageTooLong(max(shown, self.length_of(part.text) // 2)) from refusal

    async def _stop(
        self, delivery: Delivery, message: str, part: Part, text: str, live: LiveReply
    ) -> None:
        under = components.under(part, delivery, self._model, self._locale(delivery))
        await self._streams.stop(delivery, message, part, text, under, _metadata(delivery, part))
        live.session = part.end is None

    # -- removing and finding ---------------------------------------------------------

    async def remove(self, delivery: Delivery, message: str) -> None:
        thread = delivery.thread
        await self._api.call("chat.delete", thread, channel=thread.channel, ts=message)

    async def find(self, delivery: Delivery, index: int) -> str | None:
        return await self._backfill.find(delivery, index)

    async def fetch(self, thread: ThreadKey, file: File, most: int) -> bytes:
        return await self._api.file(thread.space, file.address, most)

    async def names(self, thread: ThreadKey) -> PlaceNames:
        return await self._backfill.names(thread)

    async def linked(self, thread: ThreadKey, address: str) -> Incoming | None:
        link = LINK.match(address)
        if link is None or not await self._audience.may_read(thread, link["channel"]):
            return None
        ts = f"{link['at']}.{link['rest']}"
        place = replace(thread, channel=link["channel"], thread=link["root"] or ts)
        try:
            return await self._backfill.message(place, ts)
        except (Refused, RateLimited):
            return None

    async def earlier(self, thread: ThreadKey, before: str, after: float) -> Sequence[Incoming]:
        return await self._backfill.earlier(thread, before, after)

    # -- replies under way ----------------------------------------------------------------------

    def _of(self, delivery: Delivery) -> LiveReply:
        self._live.setdefault(delivery.job, LiveReply())
        self._open.setdefault(delivery.job, delivery)
        return self._live[delivery.job]


def _metadata(delivery: Delivery, part: Part) -> dict[str, Any]:
    return {
        "event_type": REPLY_METADATA,
        "event_payload": {"job": delivery.job, "part": part.index},
    }


def _settled_text(part: Part) -> str:
    """The text of a part; while it grows, without marks at its end."""
    return part.text if part.end is not None or not part.last else settled(part.text)


def _check_message(refusal: Refused) -> None:
    """Raise MessageGone or EditRefused if the error is about the message."""
    if refusal.error == "message_not_found":
        raise MessageGone(str(refusal)) from refusal
    if refusal.error in CANNOT_EDIT:
        raise EditRefused(str(refusal)) from refusal
