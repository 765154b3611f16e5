"""Summaries of a thread or a channel, shown only to the person who asks.

The messages are read live from the platform and added to no conversation. One-off jobs
(`bots.one_off_jobs`) summarise them. A long text is cut into pieces of whole messages: the model
lists the points of each piece, with links to the messages, and then writes one answer from them.
"""

from __future__ import annotations

import asyncio
import re
import time
import unicodedata
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, tzinfo
from functools import partial
from typing import Protocol, TypeAlias, TypeVar

import structlog

from bots.actions import Actions, Actor
from bots.attachments import clean_name
from bots.one_off_jobs import OneOffFailed, OneOffJob, thread_of
from bots.platform import Incoming, PlatformRefused
from bots.reading import turn_to_read
from bots.relay import Relay
from bots.strings import Locale, failure, guess, say
from core.access_policy import Asker, Permit
from core.errors import StoreUnavailable
from core.place_rules import Persona, marks_on, scopes
from core.ports import History
from core.types import Failed, ThreadKey

T = TypeVar("T")

MOST_MESSAGES = 1000
"""The newest of a place that are read for one summary."""
LARGE, MOST_PIECES = 3, 30
"""From LARGE pieces on, the person is asked first. MOST_PIECES are summarised at most."""
MOST_SECONDS = 400 * 24 * 3600.0
"""The longest span."""
SHARE = 4
"""A summary's length is at most the context length divided by this."""
LONGEST = 500
"""Tokens of a summary, at most."""
MARGIN = 96
"""Tokens for the format around a prompt."""
BATCH_LENGTH = 100_000
"""Characters whose tokens one job counts."""
REDUCTIONS = 4
"""How often points are summarised again, at most, to make one answer."""

log = structlog.get_logger()


# -- the span ------------------------------------------------------------------------------------


class InvalidSpan(Exception):
    """`key` names the sentence that tells the person why."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


@dataclass(frozen=True, slots=True)
class Span:
    """The time after `after`; with `since_last`, after the person's own last message."""

    after: float = 0.0
    since_last: bool = False


_SINCE = ("since my last message", "since", "last", "前回から", "最後の発言から")
_TODAY = ("today", "今日")
_UNITS = {
    "m": 60,
    "分": 60,
    "h": 3600,
    "時": 3600,
    "d": 86400,
    "日": 86400,
    "w": 604800,
    "週": 604800,
}
_LENGTH = re.compile(
    r"(\d{1,6}) ?"
    r"(?:(m|h|d|w)|(m)ins?|(m)inutes?|(h)(?:ou)?rs?|(d)ays?|(w)eeks?|(分)間?|(時)間|(日|週)間?)"
)
_ALL = ("all", "全部", "すべて")
_DATES = ("%Y-%m-%d", "%Y-%m-%d %H:%M")


def span_from_text(text: str, now: float, zone: tzinfo) -> Span:
    """The span in a person's words; without any, since their last message. Or InvalidSpan."""
    words = " ".join(unicodedata.normalize("NFKC", text).lower().split())
    if not words or words in _SINCE:
        return Span(since_last=True)
    if words in _ALL:
        return Span()
    here = datetime.fromtimestamp(now, zone)
    if words in _TODAY:
        return Span(here.replace(hour=0, minute=0, second=0, microsecond=0).timestamp())
    if length := _LENGTH.fullmatch(words):
        seconds = int(length[1]) * _UNITS[str(length[length.lastindex or 0])]
        if not 0 < seconds <= MOST_SECONDS:
            raise InvalidSpan("catchup_no_span")
        return Span(now - seconds)
    return Span(_time(words, here))


def _time(words: str, here: datetime) -> float:
    found = None
    for form in _DATES:
        with suppress(ValueError):
            written = words.replace("/", "-")
            found = datetime.strptime(written, form).replace(tzinfo=here.tzinfo)
    if found is None:
        raise InvalidSpan("catchup_no_span")
    if found > here:
        raise InvalidSpan("catchup_future")
    if here - found > timedelta(seconds=MOST_SECONDS):
        raise InvalidSpan("catchup_no_span")
    return found.timestamp()


# -- the platform's part -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RecentMessages:
    """The newest messages of a place, oldest first."""

    messages: Sequence[Incoming]
    more: bool = False
    """The span has older messages, which were not read."""
    limited: bool = False
    """The platform's rate limit ended the reading early."""


class MessageSource(Protocol):
    """Reads a platform's messages for a summary. A place is a thread, or a whole channel if its
    `thread` is empty."""

    async def may_read(self, place: ThreadKey, person: str) -> bool:
        """Whether the person may read there. PlatformRefused where the bot may not."""
        ...

    async def recent(self, place: ThreadKey, after: float, most: int) -> RecentMessages:
        """The newest messages, each with the conversation that it belongs to."""
        ...

    async def links(self, place: ThreadKey) -> Callable[[str], str]:
        """A function from a message's id to its address."""
        ...


@dataclass(frozen=True, slots=True)
class Offer:
    """The summary that a button offers."""

    place: ThreadKey
    after: float
    most: int
    newest: bool = False
    """Only the newest part."""


class Screen(Protocol):
    """A message that only the person sees. Each call replaces its text."""

    async def show(
        self, text: str, *, offer: Offer | None = None, stops: ThreadKey | None = None
    ) -> None: ...


# -- the summary ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PromptLine:
    """One message as the model reads it. `tokens` includes its line end."""

    text: str
    link: str
    at: float
    tokens: int = 0
    language: Locale = "en"


@dataclass(frozen=True, slots=True)
class SummaryRequest:
    """A person's request for a summary, and the message to show it in."""

    actor: Actor
    place: ThreadKey
    span: Span
    locale: str
    screen: Screen
    source: MessageSource
    most: int = MOST_MESSAGES
    accepted: bool = False
    """The person has accepted its cost."""

    @property
    def job_thread(self) -> ThreadKey:
        return _job_thread(self.place, self.actor.person)


@dataclass(frozen=True, slots=True)
class Plan:
    """The prompt, the lengths and the permit of one summary."""

    person: str
    place: ThreadKey
    lane: str
    permit: Permit
    prompt: str
    reply: int
    room: int
    """Tokens of messages in one prompt."""
    hidden: Mapping[str, float]
    """The marks of resets and forgets when the messages were read."""


Progress: TypeAlias = Callable[[int, int], Awaitable[None]]


class Summarizer:
    """Summaries for people, at most one at a time for each."""

    def __init__(self, relay: Relay, actions: Actions, history: History) -> None:
        self._relay = relay
        self._actions = actions
        self._history = history
        self._running: dict[tuple[str, str], asyncio.Task[str]] = {}

    async def ask(
        self,
        actor: Actor,
        place: ThreadKey,
        words: str,
        locale: str,
        screen: Screen,
        source: MessageSource,
    ) -> None:
        """Summarise a place since the time in the person's `words`."""
        try:
            span = span_from_text(words, time.time(), self._relay.settings.zone)
        except InvalidSpan as error:
            await screen.show(say(error.key, locale))
            return
        request = SummaryRequest(actor, place, span, locale=locale, screen=screen, source=source)
        await self._answer(request)

    async def go_on(
        self, actor: Actor, offer: Offer, locale: str, screen: Screen, source: MessageSource
    ) -> None:
        """Summarise after the person has accepted an offer."""
        most = max(1, min(offer.most, MOST_MESSAGES))
        span = Span(offer.after)
        await self._answer(
            SummaryRequest(actor, offer.place, span, locale, screen, source, most, accepted=True)
        )

    async def stop(self, actor: Actor, place: ThreadKey) -> bool:
        """End a person's summary at once; False where there is none."""
        task = self._running.get((place.space, actor.person))
        if task is not None:
            task.cancel()
            return True
        thread = _job_thread(place, actor.person)
        jobs = await self._relay.open_jobs(thread)
        return any([await self._relay.stop(thread, job) for job in jobs])

    async def _answer(self, request: SummaryRequest) -> None:
        actor, place, screen = request.actor, request.place, request.screen
        if refusal := await self._actions.refusal(actor, _any_thread(place)):
            await screen.show(refusal.sentence(request.locale))
            return
        key = (place.space, actor.person)
        if key in self._running or await self._relay.open_jobs(request.job_thread):
            await screen.show(say("catchup_running", request.locale))
            return
        task = self._running[key] = asyncio.ensure_future(self._summary_or_reason(request))
        try:
            await asyncio.wait({task})
        finally:
            del self._running[key]
            task.cancel()
        text = say("catchup_stopped", request.locale) if task.cancelled() else task.result()
        if text:
            await screen.show(text)

    async def _summary_or_reason(self, request: SummaryRequest) -> str:
        """The summary, or a sentence that says why there is none."""
        try:
            return await self._summary(request)
        except PlatformRefused as error:
            log.info("a place could not be read", place=str(request.place), error=str(error))
            return say("catchup_no_access", request.locale)
        except OneOffFailed as error:
            return self._failure(error.failed, request.locale)
        except StoreUnavailable:
            return failure("store_down", request.locale)

    async def _summary(self, request: SummaryRequest) -> str:
        """The answer; empty if the screen shows an offer."""
        place, screen, locale = request.place, request.screen, request.locale
        if not await request.source.may_read(place, request.actor.person):
            return say("catchup_no_access", locale)
        await screen.show(say("catchup_reading", locale), stops=place)
        hidden = await self._hidden(place)
        reading = await request.source.recent(place, request.span.after, request.most)
        if request.span.since_last:
            reading = _since_last(reading, request.actor.person)
        lines = await self._lines(request, reading.messages)
        if not lines:
            limited = reading.limited and not reading.messages
            return say("catchup_limited_all" if limited else "catchup_nothing", locale)
        plan = replace(await self._plan(request.actor, place, lines), hidden=hidden)
        lines, plan = await self._with_tokens(plan, lines)
        pieces = list(split_pieces(lines, plan.room))
        if offer := _offer(pieces, reading, place, accepted=request.accepted):
            key = "catchup_too_much" if offer.newest else "catchup_large"
            cost = _cost(pieces, plan)
            text = say(key, locale, newest=offer.most, messages=len(lines), **cost)
            await screen.show(text, offer=offer)
            return ""
        tell = partial(_tell, screen, locale, place)
        answer = await self._summarize(plan, pieces, tell, locale)
        note = say("catchup_limited", locale, messages=len(lines)) if reading.limited else ""
        head = say("catchup_head", locale, messages=len(lines), link=lines[0].link)
        return "\n\n".join(filter(None, (head, answer, note)))

    def _failure(self, failed: Failed, locale: str) -> str:
        if failed.code in ("stopped", "ended_by_reset"):
            return say("catchup_stopped", locale)
        waiting = int(failed.message) if failed.message.isdecimal() else 0
        return failure(failed.code, locale, failed.until, self._relay.settings.zone, waiting)

    # -- reading ----------------------------------------------------------------------------------

    async def _lines(
        self, request: SummaryRequest, messages: Sequence[Incoming]
    ) -> list[PromptLine]:
        """The messages that the summary may use, as the model reads them."""
        place = request.place
        marks = await self._history.marks(_any_thread(place))
        link = await request.source.links(place)
        read: dict[str, bool] = {}
        found = []
        for message in messages:
            turn = await turn_to_read(message, self._history)
            if turn.at <= _hidden_until(marks, message) or not turn.text.strip():
                continue
            if turn.role == "user" and turn.author not in read:
                asker = Asker(_any_thread(place), turn.author, message.roles, message.stranger)
                read[turn.author] = (await self._relay.admission(asker)).permit.read
            if turn.role == "assistant" or read[turn.author]:
                name = clean_name(turn.name or turn.author)
                text = " ".join(turn.text.split())
                language = guess(text)
                found.append(
                    PromptLine(f"{name}: {text}", link(turn.id), turn.at, language=language)
                )
        return found

    async def _hidden(self, place: ThreadKey) -> Mapping[str, float]:
        """The marks of resets and forgets in a place, by name."""
        space, channel = scopes(_any_thread(place))
        marks = await self._history.marks(_any_thread(place))
        names = (f"space {space}", f"channel {channel}")
        return {
            name: at
            for name, at in marks.items()
            if name in names or name.startswith(f"person {space}:")
        }

    async def _plan(self, actor: Actor, place: ThreadKey, lines: Sequence[PromptLine]) -> Plan:
        asker = Asker(_any_thread(place), actor.person, actor.roles, actor.stranger)
        admission = await self._relay.admission(asker)
        if admission.permit.refuse:
            raise OneOffFailed(Failed(admission.permit.refuse))
        japanese = sum(line.language == "ja" for line in lines)
        language: Locale = "ja" if 2 * japanese >= len(lines) else "en"
        rules = await self._relay.access.rulebook.rules(_any_thread(place))
        own = rules.summary_prompt or self._relay.settings.summary_prompts.get(admission.lane)
        prompt = own or say("catchup_prompt", language)
        reply = rules.max_new_tokens or LONGEST
        permit = admission.permit
        return Plan(actor.person, place, admission.lane, permit, prompt, reply, 0, {})

    async def _with_tokens(
        self, plan: Plan, lines: Sequence[PromptLine]
    ) -> tuple[list[PromptLine], Plan]:
        """The lines with their token counts. A line that does not fit into a prompt is cut."""
        texts = [plan.prompt, *(line.text for line in lines)]
        counts: list[int] = []
        context = 0
        for some in _batches(texts, BATCH_LENGTH, len):
            thread, name = _any_thread(plan.place), _job_name(plan.person)
            measured = await self._relay.one_off_jobs.count_tokens(
                thread, plan.person, plan.lane, some, plan.permit, name
            )
            counts, context = [*counts, *measured.tokens], measured.context
        reply = max(1, min(plan.reply, LONGEST, context // SHARE))
        room = max(1, context - reply - counts[0] - MARGIN)
        sized = [
            replace(line, tokens=tokens + 8)  # its number, and the line end
            for line, tokens in zip(lines, counts[1:], strict=True)
        ]
        cut = [_cut(line, room) for line in sized]
        return cut, replace(plan, reply=reply, room=room)

    # -- generating -------------------------------------------------------------------------------

    async def _summarize(
        self, plan: Plan, pieces: Sequence[Sequence[PromptLine]], progress: Progress, locale: str
    ) -> str:
        """One answer, from the points of each piece."""
        points: list[str] = []
        for done, piece in enumerate(pieces):
            await progress(done, len(pieces))
            points.append(await self._points(plan, piece, counts_as_message=done == 0))
        if len(pieces) == 1:
            return points[0]
        parts = [
            f"[{_clock(piece[0].at, self._relay.settings.zone)}]({piece[0].link})"
            for piece in pieces
        ]
        await progress(len(pieces), len(pieces))
        answer = await self._combine(plan, points)
        sources = say("catchup_parts", locale, links=" · ".join(parts))
        return f"{answer}\n\n{sources}"

    async def _points(
        self, plan: Plan, piece: Sequence[PromptLine], *, counts_as_message: bool
    ) -> str:
        """The points of one piece. Message numbers in the model's text become links."""
        numbered = [f"[{number}] {line.text}" for number, line in enumerate(piece, 1)]
        text = await self._generate(plan, "\n".join(numbered), counts_as_message=counts_as_message)
        return linked(text, [line.link for line in piece])

    async def _combine(self, plan: Plan, points: Sequence[str]) -> str:
        """One text from several; all of them joined if they do not fit after REDUCTIONS rounds."""
        for _ in range(REDUCTIONS):
            lines = [PromptLine(_unlinked(text), "", 0.0) for text in points]
            sized, _ = await self._with_tokens(plan, lines)
            groups = list(split_pieces(sized, plan.room))
            texts = ["\n\n".join(line.text for line in group) for group in groups]
            points = [await self._generate(plan, text, counts_as_message=False) for text in texts]
            if len(points) == 1:
                return points[0]
        return "\n\n".join(points)

    async def _generate(self, plan: Plan, text: str, *, counts_as_message: bool) -> str:
        if await self._hidden(plan.place) != plan.hidden:
            # the messages may include the forgotten words
            raise OneOffFailed(Failed("ended_by_reset"))
        persona = Persona(system_prompt="", max_new_tokens=plan.reply, temperature=0.0)
        job = OneOffJob(
            _any_thread(plan.place),
            plan.person,
            f"{plan.prompt}\n\n{text}",
            plan.lane,
            plan.permit,
            persona,
            counts_as_message=counts_as_message,
            name=_job_name(plan.person),
        )
        done = await self._relay.one_off_jobs.run(job)
        if done.finish_reason == "cancelled":
            raise OneOffFailed(Failed("stopped"))
        return done.text.strip()


def split_pieces(lines: Sequence[PromptLine], room: int) -> Iterator[Sequence[PromptLine]]:
    """The lines in pieces of at most `room` tokens. No line is split."""
    return _batches(lines, room, lambda line: line.tokens)


def linked(text: str, links: Sequence[str]) -> str:
    """The text with the numbers of messages as links. Other numbers stay as they are."""

    def link(found: re.Match[str]) -> str:
        number = int(found[1])
        return f"[[{number}]]({links[number - 1]})" if 1 <= number <= len(links) else found[0]

    return re.sub(r"\[(\d{1,4})\](?!\()", link, text)


def _unlinked(text: str) -> str:
    return re.sub(r"(?<!\s)\s*\[\[\d{1,4}\]\]\([^)\s\[]*\)", "", text)


def _cut(line: PromptLine, room: int) -> PromptLine:
    """The line, cut to `room` tokens."""
    if line.tokens <= room:
        return line
    share = room / line.tokens
    return replace(line, text=f"{line.text[: int(len(line.text) * share * 0.9)]}…", tokens=room)


def _batches(items: Sequence[T], room: int, size: Callable[[T], int]) -> Iterator[Sequence[T]]:
    """The items in batches of at most `room`; a larger item is alone."""
    batch: list[T] = []
    left = room
    for item in items:
        if batch and size(item) > left:
            yield batch
            batch, left = [], room
        batch.append(item)
        left -= size(item)
    if batch:
        yield batch


def _offer(
    pieces: Sequence[Sequence[PromptLine]],
    reading: RecentMessages,
    place: ThreadKey,
    *,
    accepted: bool,
) -> Offer | None:
    """The question before a summary begins. None if it is small, or already accepted."""
    if reading.more or len(pieces) > MOST_PIECES:
        newest = [line for piece in pieces[-MOST_PIECES:] for line in piece]
        if not (accepted and len(pieces) <= MOST_PIECES):
            return Offer(place, newest[0].at - 0.001, len(newest), newest=True)
    if len(pieces) >= LARGE and not accepted:
        lines = [line for piece in pieces for line in piece]
        return Offer(place, lines[0].at - 0.001, MOST_MESSAGES)
    return None


def _cost(pieces: Sequence[Sequence[PromptLine]], plan: Plan) -> Mapping[str, int]:
    """The cost of a summary; of the newest pieces if there are too many."""
    read = pieces[-MOST_PIECES:]
    written = (len(read) + 1) * plan.reply
    return {
        "tokens": sum(line.tokens for piece in read for line in piece) + written,
        "pieces": len(read),
    }


async def _tell(screen: Screen, locale: str, stops: ThreadKey, done: int, pieces: int) -> None:
    if pieces > 1:
        await screen.show(say("catchup_progress", locale, done=done, pieces=pieces), stops=stops)


def _since_last(reading: RecentMessages, person: str) -> RecentMessages:
    """The messages after the person's own last one; all if that was not read."""
    authors = [message.turn.author for message in reading.messages]
    if person not in authors:
        return reading
    last = len(authors) - 1 - authors[::-1].index(person)
    return replace(reading, messages=reading.messages[last + 1 :], more=False)


def _hidden_until(marks: Mapping[str, float], message: Incoming) -> float:
    """The newest time of a reset or a forget that hides a message, or the thread it opened."""
    turn = message.turn
    threads = (message.thread, replace(message.thread, thread=turn.id))
    names = {name for thread in threads for name in marks_on(thread, turn.author)}
    return max(marks.get(name, 0.0) for name in names)


def _any_thread(place: ThreadKey) -> ThreadKey:
    """A thread key for the rules of a place."""
    return place if place.thread else replace(place, thread="-")


def _job_name(person: str) -> str:
    return f"catchup-{person}"


def _job_thread(place: ThreadKey, person: str) -> ThreadKey:
    return thread_of(_any_thread(place), _job_name(person))


def _clock(at: float, zone: tzinfo) -> str:
    return f"{datetime.fromtimestamp(at, zone):%m-%d %H:%M}"
