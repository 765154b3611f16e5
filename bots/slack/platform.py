"""The `Platform` that the relay writes to: native streams where there is room, else edits.

A reply is streamed where the workspace's streams last; else it is posted once and edited as often
as the budget allows. What was sent to a message is kept in memory only to send less: whatever a
process does not know about a message, it finds out from Slack's answer.
"""

from __future__ import annotations

import contextlib
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import structlog
from slack_sdk.errors import SlackApiError

from bots.base import Part, Status
from bots.slack import blocks
from bots.slack.budget import POST
from bots.slack.calls import Caller, NotNow, error_of
from bots.slack.convert import PLATFORM, REPLY_METADATA
from bots.slack.pace import Live, Pace
from bots.slack.past import Past
from bots.slack.workspaces import Workspaces
from bots.strings import say
from bots.text import closed
from core import metrics
from core.records import Delivery
from core.types import ThreadKey, Turn

PART_LENGTH = 11_500
"""A Markdown block takes 12,000 characters, and all blocks together about 13,200."""
CALL_SECONDS = 15.0
KEPT_REPLIES = 10_000

_STREAM_IS_OVER = "message_not_in_streaming_state"

log = structlog.get_logger()


class SlackPlatform:
    """Writes replies into Slack."""

    name = PLATFORM
    part_length = PART_LENGTH
    call_seconds = CALL_SECONDS

    def __init__(
        self,
        workspaces: Workspaces,
        caller: Caller,
        past: Past,
        model: str,
        *,
        streaming: bool = True,
    ) -> None:
        self._workspaces = workspaces
        self._caller = caller
        self._pace = Pace(caller.budget)
        self._past = past
        self._model = model
        self._streaming = streaming
        self._no_streams: set[str] = set()
        """Workspaces that have no native streaming."""
        self._live: OrderedDict[str, Live] = OrderedDict()
        self.open: OrderedDict[str, Delivery] = OrderedDict()
        """The replies that this process brings out now."""

    def length_of(self, text: str) -> int:
        return len(blocks.harmless(text))

    # -- pace ---------------------------------------------------------------------------------

    async def pace(self, delivery: Delivery, *, final: bool) -> None:
        """The end of a reply finds its room in the call itself."""
        if final:
            return
        team = delivery.thread.space
        await self._pace.leave(delivery, self._of(delivery), can_stream=self._can_stream(team))

    def _can_stream(self, team: str) -> bool:
        return self._streaming and team not in self._no_streams

    # -- status -------------------------------------------------------------------------------

    async def status(self, delivery: Delivery, status: Status) -> None:
        """Say what is going on, once, and not behind the first words of the reply."""
        live = self._of(delivery)
        sentence = say(status.kind, self._locale(delivery), position=status.position)
        async with live.order:
            if live.shown or delivery.messages or live.status == sentence:
                return
            with contextlib.suppress(NotNow):
                await self._set_status(delivery.thread, sentence)
                live.status = sentence

    async def _set_status(self, thread: ThreadKey, sentence: str) -> None:
        client = await self._workspaces.client(thread.space)
        await self._caller.may(
            "assistant.threads.setStatus",
            thread.space,
            thread.channel,
            lambda: client.assistant_threads_setStatus(
                channel_id=thread.channel,
                thread_ts=thread.thread,
                status=sentence,
                loading_messages=[sentence],
            ),
        )

    def _locale(self, delivery: Delivery) -> str:
        return delivery.note.get("locale", "en")

    # -- posting ------------------------------------------------------------------------------

    async def post(self, delivery: Delivery, part: Part) -> str:
        live = self._of(delivery)
        async with live.order:
            if part.end is None and part.last and self._can_stream(delivery.thread.space):
                message = await self._start_stream(delivery, part, live)
                if message is not None:
                    return message
            return await self._post(delivery, part, live)

    async def _post(self, delivery: Delivery, part: Part, live: Live) -> str:
        thread = delivery.thread
        client = await self._workspaces.client(thread.space)
        answer = await self._caller.must(
            POST,
            thread.space,
            thread.channel,
            lambda: client.chat_postMessage(
                channel=thread.channel,
                thread_ts=thread.thread,
                metadata=_metadata(delivery, part),
                unfurl_links=False,
                unfurl_media=False,
                **self._content(delivery, part),
            ),
        )
        self._sent(delivery, part, live, str(answer["ts"]))
        return str(answer["ts"])

    def _content(self, delivery: Delivery, part: Part) -> dict[str, Any]:
        """The blocks, and the text that notifications and other readers get."""
        part = Part(part.index, closed(part.text), part.last, part.note, part.end)
        written = blocks.reply(part, delivery, self._model, self._locale(delivery))
        return {"text": blocks.escaped(part.text), "blocks": written}

    def _sent(self, delivery: Delivery, part: Part, live: Live, message: str) -> None:
        budget, team = self._caller.budget, delivery.thread.space
        live.shown[message] = part.text
        live.updated = time.monotonic()
        if part.end is None:
            ending = "chat.stopStream" if message in live.streams else "chat.update"
            budget.promise(ending, team, delivery.job)
        elif part.last:
            budget.redeem(team, delivery.job)
            live.streams.clear()
            self.open.pop(delivery.job, None)

    # -- streams ------------------------------------------------------------------------------

    async def _start_stream(self, delivery: Delivery, part: Part, live: Live) -> str | None:
        """Begin a native stream; None where there is no room or the workspace has none."""
        thread, team = delivery.thread, delivery.thread.space
        if self._pace.room("chat.startStream", delivery) > 0:
            metrics.STREAM_FALLBACKS.labels("slack", "no room").inc()
            return None
        client = await self._workspaces.client(team)
        try:
            answer = await self._caller.may(
                "chat.startStream",
                team,
                thread.channel,
                lambda: client.chat_startStream(
                    channel=thread.channel,
                    thread_ts=thread.thread,
                    markdown_text=blocks.harmless(part.text),
                    recipient_team_id=delivery.note.get("team", team),
                    recipient_user_id=delivery.author,
                ),
            )
        except NotNow:
            return None
        except SlackApiError as error:
            log.info("no native stream; posting and editing", error=error_of(error))
            self._no_streams.add(team)
            metrics.STREAM_FALLBACKS.labels("slack", "refused").inc()
            return None
        message = str(answer["ts"])
        live.streams.add(message)
        self._sent(delivery, part, live, message)
        await self._enter_session(delivery)
        return message

    async def _enter_session(self, delivery: Delivery) -> None:
        """Tell Slack that work is under way: its own Stop button appears."""
        thread = delivery.thread
        client = await self._workspaces.client(thread.space)
        try:
            await self._caller.may(
                "agents.sessions.setStatus",
                thread.space,
                thread.channel,
                lambda: client.agents_sessions_setStatus(
                    channel_id=thread.channel, thread_ts=thread.thread, status="processing"
                ),
            )
        except (NotNow, SlackApiError):
            return

    async def leave_session(self, key: ThreadKey) -> None:
        """Slack's Stop button was pressed: the session does not leave ``processing`` by itself."""
        client = await self._workspaces.client(key.space)
        await self._caller.must(
            "agents.sessions.setStatus",
            key.space,
            key.channel,
            lambda: client.agents_sessions_setStatus(
                channel_id=key.channel, thread_ts=key.thread, status="active"
            ),
        )

    # -- editing ------------------------------------------------------------------------------

    async def edit(self, delivery: Delivery, message: str, part: Part) -> None:
        live = self._of(delivery)
        if self._stands_already(delivery, message, part, live):
            return
        if message in live.streams and await self._stream_on(delivery, message, part, live):
            return
        try:
            await self._update(delivery, message, part, live)
        except NotNow:
            return  # the end will say it

    def _stands_already(self, delivery: Delivery, message: str, part: Part, live: Live) -> bool:
        """A message that is full, and was full before: its end needs no call of its own."""
        same = live.shown.get(message) == part.text and message not in live.streams
        return same and not part.last and delivery.token == 1

    async def _update(self, delivery: Delivery, message: str, part: Part, live: Live) -> None:
        thread = delivery.thread
        client = await self._workspaces.client(thread.space)
        call = self._caller.may if part.end is None and part.last else self._caller.must
        content = self._content(delivery, part)

        async def update() -> Any:
            return await client.chat_update(channel=thread.channel, ts=message, **content)

        try:
            await call("chat.update", thread.space, thread.channel, update)
        except SlackApiError as error:
            if error_of(error) != "streaming_state_conflict":
                raise
            await self._end_stream(delivery, message)  # a process before this one began it
            await self._caller.must("chat.update", thread.space, thread.channel, update)
        self._sent(delivery, part, live, message)

    async def _end_stream(self, delivery: Delivery, message: str) -> None:
        thread = delivery.thread
        client = await self._workspaces.client(thread.space)
        try:
            await self._caller.must(
                "chat.stopStream",
                thread.space,
                thread.channel,
                lambda: client.chat_stopStream(
                    channel=thread.channel, ts=message, session_status="active"
                ),
            )
        except SlackApiError as error:
            if error_of(error) != _STREAM_IS_OVER:
                raise

    async def _stream_on(self, delivery: Delivery, message: str, part: Part, live: Live) -> bool:
        """Append to a stream, or stop it; False where the message must be updated instead."""
        before, now = blocks.harmless(live.shown[message]), blocks.harmless(part.text)
        if not now.startswith(before):
            live.streams.discard(message)
            return False
        over = part.end is not None or not part.last
        try:
            if over:
                await self._stop(delivery, message, part, now[len(before) :])
            else:
                await self._append(delivery, message, now[len(before) :])
        except NotNow:
            return True
        except Exception as error:
            live.streams.discard(message)  # what it holds now is not certain: it is updated whole
            metrics.STREAM_FALLBACKS.labels("slack", "ended").inc()
            if isinstance(error, SlackApiError) and error_of(error) == _STREAM_IS_OVER:
                return False
            raise
        if over:
            live.streams.discard(message)
        self._sent(delivery, part, live, message)
        return True

    async def _append(self, delivery: Delivery, message: str, text: str) -> None:
        thread = delivery.thread
        client = await self._workspaces.client(thread.space)
        if text:
            await self._caller.may(
                "chat.appendStream",
                thread.space,
                thread.channel,
                lambda: client.chat_appendStream(
                    channel=thread.channel, ts=message, markdown_text=text
                ),
            )

    async def _stop(self, delivery: Delivery, message: str, part: Part, text: str) -> None:
        thread = delivery.thread
        client = await self._workspaces.client(thread.space)
        under = blocks.under(part, delivery, self._model, self._locale(delivery))
        rest = text + closed(part.text)[len(part.text) :]
        await self._caller.must(
            "chat.stopStream",
            thread.space,
            thread.channel,
            lambda: client.chat_stopStream(
                channel=thread.channel,
                ts=message,
                markdown_text=rest or None,
                blocks=under or None,
                metadata=_metadata(delivery, part),
                session_status="active",
            ),
        )

    # -- taking away, and finding again ---------------------------------------------------------

    async def remove(self, delivery: Delivery, message: str) -> None:
        thread = delivery.thread
        client = await self._workspaces.client(thread.space)
        await self._caller.must(
            "chat.delete",
            thread.space,
            thread.channel,
            lambda: client.chat_delete(channel=thread.channel, ts=message),
        )

    async def find(self, delivery: Delivery, index: int) -> str | None:
        return await self._past.find(delivery, index)

    async def earlier(self, thread: ThreadKey, before: str, after: float) -> Sequence[Turn]:
        return await self._past.earlier(thread, before, after)

    # -- what is under way ----------------------------------------------------------------------

    def _of(self, delivery: Delivery) -> Live:
        if delivery.job not in self._live:
            self._live[delivery.job] = Live()
            self.open[delivery.job] = delivery
        for kept in (self._live, self.open):
            if len(kept) > KEPT_REPLIES:
                kept.popitem(last=False)
        return self._live[delivery.job]


def _metadata(delivery: Delivery, part: Part) -> dict[str, Any]:
    return {
        "event_type": REPLY_METADATA,
        "event_payload": {"job": delivery.job, "part": part.index},
    }
