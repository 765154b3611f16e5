"""Questions of the slash command and the shortcut: posted in the person's name, then submitted."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import structlog

from bots.platform import Incoming, PlatformRefused
from bots.slack import components
from bots.slack.api import WITHOUT_PREVIEWS
from bots.slack.context import Context
from bots.slack.convert import PLATFORM, QUESTION_METADATA, links_in
from bots.slack.markdown import escaped
from bots.slack.rate_limits import POST
from bots.strings import failure, say
from core.ports import Outbox
from core.types import ThreadKey, Turn

log = structlog.get_logger()

MOST_OF_PERSON = 20
"""Questions of one person that are not posted yet, in one process: all people share the outbox."""

STALE_SECONDS = 90.0
"""After this time without a sign from its process, a question is taken over."""


@dataclass(frozen=True, slots=True)
class Question:
    """A person's question. `thread` is empty where it begins a new thread."""

    id: str
    team: str
    channel: str
    thread: str
    user: str
    text: str
    response_url: str = ""
    cared_for: float = 0.0
    """When a process last marked it as being worked on."""

    @property
    def place(self) -> ThreadKey:
        return ThreadKey(PLATFORM, self.team, self.channel, self.thread)


class Questions:
    """Accepts questions, and brings each to the relay once.

    A question is stored, acknowledged, posted, and then submitted.
    Slack wants an acknowledgement within three seconds, but a post may wait longer for the rate
    limits. So a question stays in the outbox until it is submitted under its message's id. If the
    process ends in between, another one looks for the message and continues.
    """

    def __init__(self, context: Context, outbox: Outbox) -> None:
        self._context = context
        self._outbox = outbox
        self._mine: dict[str, Question] = {}

    async def accept(self, question: Question) -> None:
        """Store a question; StoreUnavailable where that failed. The rest happens afterwards."""
        person = (question.team, question.user)
        mine = [other for other in self._mine.values() if (other.team, other.user) == person]
        if len(mine) < MOST_OF_PERSON and await self._keep(question):
            self._mine[question.id] = question
            self._context.spawn(self._ask(question, asked_before=False))
        else:
            self._context.spawn(self._tell(question, "busy"))

    async def recover(self) -> None:
        """Mark the questions of this process, and take over those of processes that ended."""
        for question in list(self._mine.values()):
            await self._keep(question)
        for id_, text in (await self._outbox.entries(PLATFORM)).items():
            try:
                question = Question(**json.loads(text))
            except (ValueError, TypeError, RecursionError) as error:
                # another release may know how to read it
                log.warning("a question is poisoned", question=id_, error=str(error))
                continue
            stale = time.time() - question.cared_for > STALE_SECONDS * self._context.second
            if id_ not in self._mine and stale and await self._outbox.remove(PLATFORM, id_):
                self._mine[id_] = question
                await self._keep(question)
                self._context.spawn(self._ask(question, asked_before=True))

    async def _keep(self, question: Question) -> bool:
        fields = asdict(replace(question, cared_for=time.time()))
        return await self._outbox.put(PLATFORM, question.id, json.dumps(fields))

    async def _ask(self, question: Question, *, asked_before: bool) -> None:
        try:
            if not await self._is_refused(question):
                await self._post_and_submit(question, asked_before=asked_before)
        except PlatformRefused as error:
            log.info("a question could not be posted", error=str(error))
            await self._tell(question, "cannot_post")
        finally:
            del self._mine[question.id]
        await self._outbox.remove(PLATFORM, question.id)

    async def _is_refused(self, question: Question) -> bool:
        """Whether the person may not ask there. Then nothing is posted in their name."""
        key = replace(question.place, thread=question.thread or "-")
        refusal = await self._context.refusal(key, question.user)
        if refusal:
            await self._say(question, refusal)
        return refusal is not None

    async def _post_and_submit(self, question: Question, *, asked_before: bool) -> None:
        users, place = self._context.users, question.place
        locale = await users.locale(place.space, question.user, question.text)
        ts = await self._posted_before(question) if asked_before else None
        ts = ts or await self._post(question, locale)
        key = replace(place, thread=place.thread or ts)
        names = await users.names(place.space, (question.user,))
        turn = Turn(
            ts, "user", question.user, question.text, float(ts), names.get(question.user, "")
        )
        has_past = bool(place.thread)
        note = {"locale": locale}
        files = links_in(question.text)
        asked = Incoming(key, turn, True, note=note, has_past=has_past, files=files, can_vote=True)
        await self._context.relay.submit(asked)

    async def _posted_before(self, question: Question) -> str | None:
        backfill, since = self._context.backfill, question.cared_for - 2 * STALE_SECONDS
        for message in await backfill.since(question.place, since):
            if (message.get("metadata") or {}).get("event_payload") == _payload(question):
                return str(message["ts"])
        return None

    async def _post(self, question: Question, locale: str) -> str:
        """Post the question visibly, in the person's name."""
        place = question.place
        text = escaped(question.text)
        shown = say("asked", locale, person=f"<@{question.user}>", text=text)
        answer = await self._context.api.call(
            POST,
            place,
            notice=True,  # or many questions of one person would hold up the replies to others
            channel=place.channel,
            thread_ts=place.thread or None,
            text=components.shortened(shown),
            metadata={"event_type": QUESTION_METADATA, "event_payload": _payload(question)},
            **WITHOUT_PREVIEWS,
        )
        return str(answer["ts"])

    async def _tell(self, question: Question, key: str) -> None:
        """Tell the person why the question was not submitted, by its response_url if it has one."""
        locale = await self._context.users.locale(question.team, question.user, question.text)
        channel = say("scope_channel", locale)
        known = key == "busy"
        sentence = failure(key, locale) if known else say(key, locale, channel=channel)
        await self._say(question, sentence)

    async def _say(self, question: Question, sentence: str) -> None:
        if question.response_url:
            await self._context.respond(question.team, question.response_url, sentence)
        else:
            await self._context.send_privately(question.place, question.user, sentence)


def _payload(question: Question) -> Mapping[str, str]:
    return {"question": question.id}
