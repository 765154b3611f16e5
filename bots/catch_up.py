"""Catch me up: a summary of a thread or a channel, for the person alone who asks for it.

It is read live from the platform and is added to no conversation. The model sees it in errands
(`bots.errands`), in pieces of whole messages where it is long: the points of each piece are kept,
with links to its messages, until they make one answer.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, tzinfo
from functools import partial
from typing import Protocol, TypeAlias

import structlog

from bots.actions import Actions, Actor
from bots.errands import Errand, ErrandFailed, thread_of
from bots.platform import Incoming, PlatformRefused
from bots.relay import Relay
from bots.strings import Locale, failure, guess, say
from core.access_policy import Asker, Permit
from core.errors import StoreUnavailable
from core.place_rules import Persona, marks_on, scopes
from core.ports import History
from core.types import Failed, ThreadKey

MOST_MESSAGES = 1000
"""The newest of a place; more are not read in one go."""
LARGE, MOST_PIECES = 3, 30
"""From so many pieces on it is asked first; so many are the most."""
MOST_SECONDS = 400 * 24 * 3600.0
"""How far a span reaches back."""
SHARE = 4
"""A summary takes at most this part of what the model reads."""
LONGEST = 500
"""Tokens of a summary, at most."""
MARGIN = 96
"""Tokens for the format around a prompt."""
MEASURED = 100_000
"""Characters whose tokens are counted in one errand."""
REDUCTIONS = 4
"""How often the points of pieces are summed up again."""

log = structlog.get_logger()


# -- the span ------------------------------------------------------------------------------------


class WrongSpan(Exception):
    """`key` names the sentence that says what is wrong."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


@dataclass(frozen=True, slots=True)
class Span:
    """From when on; `since_last`: since the person's own last message."""

    after: float = 0.0
    since_last: bool = False


_SINCE = ("since my last message", "since", "last", "前回から", "最後の発言から")
_TODAY = ("today", "今日")
_UNITS = {"m": 60, "分": 60, "h": 3600, "時間": 3600, "d": 86400, "日": 86400, "w": 7 * 86400}
_LENGTH = re.compile(rf"(\d{{1,6}})\s*({'|'.join(_UNITS)})")
_ALL = ("all", "全部", "すべて")
_DATES = ("%Y-%m-%d", "%Y-%m-%d %H:%M")


def span_from_text(text: str, now: float, zone: tzinfo) -> Span:
    """The span that a person types; nothing is: since their last message. WrongSpan for none."""
    words = " ".join(text.lower().split())
    if not words or words in _SINCE:
        return Span(since_last=True)
    if words in _ALL:
        return Span()
    here = datetime.fromtimestamp(now, zone)
    if words in _TODAY:
        return Span(here.replace(hour=0, minute=0, second=0, microsecond=0).timestamp())
    if length := _LENGTH.fullmatch(words):
        seconds = int(length[1]) * _UNITS[length[2]]
        if not 0 < seconds <= MOST_SECONDS:
            raise WrongSpan("catchup_no_span")
        return Span(now - seconds)
    return Span(_time(words, here))


def _time(words: str, here: datetime) -> float:
    found = None
    for form in _DATES:
        with suppress(ValueError):
            found = datetime.strptime(words, form).replace(tzinfo=here.tzinfo)
    if found is None:
        raise WrongSpan("catchup_no_span")
    if found > here:
        raise WrongSpan("catchup_future")
    if here - found > timedelta(seconds=MOST_SECONDS):
        raise WrongSpan("catchup_no_span")
    return found.timestamp()


# -- what a platform does ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reading:
    """The newest messages of a place, oldest first."""

    messages: Sequence[Incoming]
    more: bool = False
    """There are older ones in the span."""
    limited: bool = False
    """The platform's rate limits allowed no more."""


class Source(Protocol):
    """A platform, as it is read for a summary. A place is a thread, or a channel where its
    `thread` is empty."""

    async def may_read(self, place: ThreadKey, person: str) -> bool:
        """Whether the platform lets the person read there. PlatformRefused: the bot may not."""
        ...

    async def recent(self, place: ThreadKey, after: float, most: int) -> Reading: ...

    async def links(self, place: ThreadKey) -> Callable[[str], str]:
        """From the id of a message there to its address."""
        ...


@dataclass(frozen=True, slots=True)
class Offer:
    """What a button of an answer goes on with."""

    place: ThreadKey
    after: float
    most: int
    newest: bool = False
    """Only the newest part."""


class Screen(Protocol):
    """The message that only the person sees: each call replaces its text."""

    async def show(
        self, text: str, *, offer: Offer | None = None, stops: ThreadKey | None = None
    ) -> None: ...


# -- the summary ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Line:
    """One message as the model reads it. `tokens` with its line end."""

    text: str
    link: str
    at: float
    tokens: int = 0
    language: Locale = "en"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person asks for, and where they see it."""

    actor: Actor
    place: ThreadKey
    span: Span
    locale: str
    screen: Screen
    source: Source
    most: int = MOST_MESSAGES
    asked: bool = False
    """They know what it takes."""

    @property
    def errand(self) -> ThreadKey:
        return _errand_thread(self.place, self.actor.person)


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for one summary."""

    person: str
    place: ThreadKey
    lane: str
    permit: Permit
    prompt: str
    reply: int
    room: int
    """Tokens of messages in one prompt."""
    hidden: Mapping[str, float]
    """What had been forgotten when the messages were read."""


Progress: TypeAlias = Callable[[int, int], Awaitable[None]]


class CatchUp:
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
        source: Source,
    ) -> None:
        """Summarise what was said in a place since the time that a person names."""
        try:
            span = span_from_text(words, time.time(), self._relay.zone)
        except WrongSpan as wrong:
            await screen.show(say(wrong.key, locale))
            return
        wanted = Wanted(actor, place, span, locale=locale, screen=screen, source=source)
        await self._answer(wanted)

    async def go_on(
        self, actor: Actor, offer: Offer, locale: str, screen: Screen, source: Source
    ) -> None:
        """The person has accepted what a large summary takes, or its newest part."""
        most = max(1, min(offer.most, MOST_MESSAGES))
        span = Span(offer.after)
        await self._answer(
            Wanted(actor, offer.place, span, locale, screen, source, most, asked=True)
        )

    async def stop(self, actor: Actor, place: ThreadKey) -> bool:
        """End a person's summary at once; False where there is none."""
        task = self._running.get((place.space, actor.person))
        if task is not None:
            task.cancel()
            return True
        errand = _errand_thread(place, actor.person)
        jobs = await self._relay.open_jobs(errand)
        return any([await self._relay.stop(errand, job) for job in jobs])

    async def _answer(self, wanted: Wanted) -> None:
        actor, place, screen = wanted.actor, wanted.place, wanted.screen
        if refusal := await self._actions.refusal(actor, _in(place)):
            await screen.show(refusal.sentence(wanted.locale))
            return
        key = (place.space, actor.person)
        if key in self._running or await self._relay.open_jobs(wanted.errand):
            await screen.show(say("catchup_running", wanted.locale))
            return
        task = self._running[key] = asyncio.ensure_future(self._explained(wanted))
        try:
            await asyncio.wait({task})
        finally:
            del self._running[key]
            task.cancel()
        text = say("catchup_stopped", wanted.locale) if task.cancelled() else task.result()
        if text:
            await screen.show(text)

    async def _explained(self, wanted: Wanted) -> str:
        """The summary, or the sentence that says why there is none."""
        try:
            return await self._summary(wanted)
        except PlatformRefused as error:
            log.info("a place could not be read", place=str(wanted.place), error=str(error))
            return say("catchup_no_access", wanted.locale)
        except ErrandFailed as failed:
            return self._failure(failed.failed, wanted.locale)
        except StoreUnavailable:
            return failure("store_down", wanted.locale)

    async def _summary(self, wanted: Wanted) -> str:
        """The answer; empty where the screen offers something."""
        place, screen, locale = wanted.place, wanted.screen, wanted.locale
        if not await wanted.source.may_read(place, wanted.actor.person):
            return say("catchup_no_access", locale)
        await screen.show(say("catchup_reading", locale), stops=place)
        hidden = await self._hidden(place)
        reading = await wanted.source.recent(place, wanted.span.after, wanted.most)
        if wanted.span.since_last:
            reading = _since_last(reading, wanted.actor.person)
        lines = await self._lines(wanted, reading.messages)
        if not lines:
            limited = reading.limited and not reading.messages
            return say("catchup_limited_all" if limited else "catchup_nothing", locale)
        terms = replace(await self._terms(wanted.actor, place, lines), hidden=hidden)
        lines, terms = await self._measured(terms, lines)
        pieces = list(split_pieces(lines, terms.room))
        if offer := _offer(pieces, reading, place, asked=wanted.asked):
            key = "catchup_too_much" if offer.newest else "catchup_large"
            cost = _cost(pieces, terms)
            text = say(key, locale, newest=offer.most, messages=len(lines), **cost)
            await screen.show(text, offer=offer)
            return ""
        tell = partial(_tell, screen, locale, place)
        answer = await self._summed_up(terms, pieces, tell, locale)
        note = say("catchup_limited", locale, messages=len(lines)) if reading.limited else ""
        head = say("catchup_head", locale, messages=len(lines), link=lines[0].link)
        return "\n\n".join(filter(None, (head, answer, note)))

    def _failure(self, failed: Failed, locale: str) -> str:
        if failed.code in ("stopped", "ended_by_reset"):
            return say("catchup_stopped", locale)
        waiting = int(failed.message) if failed.message.isdecimal() else 0
        return failure(failed.code, locale, failed.until, self._relay.zone, waiting)

    # -- what is read -----------------------------------------------------------------------------

    async def _lines(self, wanted: Wanted, messages: Sequence[Incoming]) -> list[Line]:
        """The messages that a summary may have in it, as the model reads them."""
        place = wanted.place
        marks = await self._history.marks(_in(place))
        link = await wanted.source.links(place)
        read: dict[str, bool] = {}
        found = []
        for message in messages:
            turn = message.turn
            if turn.at <= _mark(marks, place, message) or not turn.text.strip():
                continue
            if turn.role == "user" and turn.author not in read:
                asker = Asker(_in(place), turn.author, message.roles, message.stranger)
                read[turn.author] = (await self._relay.admission(asker)).permit.read
            if turn.role == "assistant" or read[turn.author]:
                name = turn.name or turn.author
                text = " ".join(turn.text.split())
                language = guess(text)
                found.append(Line(f"{name}: {text}", link(turn.id), turn.at, language=language))
        return found

    async def _hidden(self, place: ThreadKey) -> Mapping[str, float]:
        """What has been forgotten in a place, and whose."""
        space, channel = scopes(_in(place))
        marks = await self._history.marks(_in(place))
        names = (f"space {space}", f"channel {channel}")
        return {
            name: at
            for name, at in marks.items()
            if name in names or name.startswith(f"person {space}:")
        }

    async def _terms(self, actor: Actor, place: ThreadKey, lines: Sequence[Line]) -> Terms:
        asker = Asker(_in(place), actor.person, actor.roles, actor.stranger)
        admission = await self._relay.admission(asker)
        if admission.permit.refuse:
            raise ErrandFailed(Failed(admission.permit.refuse))
        japanese = sum(line.language == "ja" for line in lines)
        language: Locale = "ja" if 2 * japanese >= len(lines) else "en"
        rules = await self._relay.access.rules(_in(place))
        own = rules.summary_prompt or self._relay.summary_prompts.get(admission.lane)
        prompt = own or say("catchup_prompt", language)
        reply = rules.max_new_tokens or LONGEST
        permit = admission.permit
        return Terms(actor.person, place, admission.lane, permit, prompt, reply, 0, {})

    async def _measured(self, terms: Terms, lines: Sequence[Line]) -> tuple[list[Line], Terms]:
        """The lines with their tokens, cut where one has no room by itself."""
        texts = [terms.prompt, *(line.text for line in lines)]
        counts: list[int] = []
        context = 0
        for some in _batches(texts):
            measured = await self._relay.errands.measure(
                _in(terms.place), terms.person, terms.lane, some, self._name(terms)
            )
            counts, context = [*counts, *measured.tokens], measured.context
        reply = max(1, min(terms.reply, LONGEST, context // SHARE))
        room = max(1, context - reply - counts[0] - MARGIN)
        sized = [
            replace(line, tokens=tokens + 8)  # its number, and the line end
            for line, tokens in zip(lines, counts[1:], strict=True)
        ]
        cut = [_cut(line, room) for line in sized]
        return cut, replace(terms, reply=reply, room=room)

    # -- what the model makes of it ---------------------------------------------------------------

    async def _summed_up(
        self, terms: Terms, pieces: Sequence[Sequence[Line]], progress: Progress, locale: str
    ) -> str:
        """One answer, from the points of each piece."""
        points: list[str] = []
        for done, piece in enumerate(pieces):
            await progress(done, len(pieces))
            points.append(await self._points(terms, piece, counted=done == 0))
        if len(pieces) == 1:
            return points[0]
        parts = [f"[{_clock(piece[0].at, self._relay.zone)}]({piece[0].link})" for piece in pieces]
        await progress(len(pieces), len(pieces))
        answer = await self._reduced(terms, points)
        sources = say("catchup_parts", locale, links=" · ".join(parts))
        return f"{answer}\n\n{sources}"

    async def _points(self, terms: Terms, piece: Sequence[Line], *, counted: bool) -> str:
        """The points of one piece, with the numbers that the model names made links."""
        numbered = [f"[{number}] {line.text}" for number, line in enumerate(piece, 1)]
        text = await self._written(terms, "\n".join(numbered), counted=counted)
        return linked(text, [line.link for line in piece])

    async def _reduced(self, terms: Terms, points: Sequence[str]) -> str:
        """One text of several; as they stand, where they have no room even when summed up."""
        for _ in range(REDUCTIONS):
            lines = [Line(_unlinked(text), "", 0.0) for text in points]
            sized, _ = await self._measured(terms, lines)
            groups = list(split_pieces(sized, terms.room))
            texts = ["\n\n".join(line.text for line in group) for group in groups]
            points = [await self._written(terms, text, counted=False) for text in texts]
            if len(points) == 1:
                return points[0]
        return "\n\n".join(points)

    async def _written(self, terms: Terms, text: str, *, counted: bool) -> str:
        if await self._hidden(terms.place) != terms.hidden:
            raise ErrandFailed(Failed("ended_by_reset"))  # their words may be among the messages
        persona = Persona(system_prompt="", max_new_tokens=terms.reply, temperature=0.0)
        errand = Errand(
            _in(terms.place),
            terms.person,
            f"{terms.prompt}\n\n{text}",
            terms.lane,
            terms.permit,
            persona,
            counted=counted,
            name=self._name(terms),
        )
        done = await self._relay.errands.run(errand)
        if done.finish_reason == "cancelled":
            raise ErrandFailed(Failed("stopped"))
        return done.text.strip()

    @staticmethod
    def _name(terms: Terms) -> str:
        return _errand_name(terms.person)


def split_pieces(lines: Sequence[Line], room: int) -> Iterator[Sequence[Line]]:
    """The lines in pieces that have room; a line is never in two of them."""
    piece: list[Line] = []
    left = room
    for line in lines:
        if piece and line.tokens > left:
            yield piece
            piece, left = [], room
        piece.append(line)
        left -= line.tokens
    if piece:
        yield piece


def linked(text: str, links: Sequence[str]) -> str:
    """A text in which the numbers of messages are links to them; others stay as they are."""

    def link(found: re.Match[str]) -> str:
        number = int(found[1])
        return f"[[{number}]]({links[number - 1]})" if 1 <= number <= len(links) else found[0]

    return re.sub(r"\[(\d{1,4})\](?!\()", link, text)


def _unlinked(text: str) -> str:
    return re.sub(r"\s*\[\[\d{1,4}\]\]\([^)\s]*\)", "", text)


def _cut(line: Line, room: int) -> Line:
    """The line, or as much of its beginning as has room by itself."""
    if line.tokens <= room:
        return line
    share = room / line.tokens
    return replace(line, text=f"{line.text[: int(len(line.text) * share * 0.9)]}…", tokens=room)


def _batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    some: list[str] = []
    length = 0
    for text in texts:
        if some and length + len(text) > MEASURED:
            yield some
            some, length = [], 0
        some.append(text)
        length += len(text)
    yield some


def _offer(
    pieces: Sequence[Sequence[Line]], reading: Reading, place: ThreadKey, *, asked: bool
) -> Offer | None:
    """What is asked before a summary begins: nothing, where it is small or has been asked."""
    if reading.more or len(pieces) > MOST_PIECES:
        newest = [line for piece in pieces[-MOST_PIECES:] for line in piece]
        if not (asked and len(pieces) <= MOST_PIECES):
            return Offer(place, newest[0].at - 0.001, len(newest), newest=True)
    if len(pieces) >= LARGE and not asked:
        lines = [line for piece in pieces for line in piece]
        return Offer(place, lines[0].at - 0.001, MOST_MESSAGES)
    return None


def _cost(pieces: Sequence[Sequence[Line]], terms: Terms) -> Mapping[str, int]:
    """What a summary of these takes: the newest of them, where there are too many."""
    wanted = pieces[-MOST_PIECES:]
    written = (len(wanted) + 1) * terms.reply
    return {
        "tokens": sum(line.tokens for piece in wanted for line in piece) + written,
        "pieces": len(wanted),
    }


async def _tell(screen: Screen, locale: str, stops: ThreadKey, done: int, pieces: int) -> None:
    if pieces > 1:
        await screen.show(say("catchup_progress", locale, done=done, pieces=pieces), stops=stops)


def _since_last(reading: Reading, person: str) -> Reading:
    """What comes after the person's own last message, where it was read."""
    authors = [message.turn.author for message in reading.messages]
    if person not in authors:
        return reading
    last = len(authors) - 1 - authors[::-1].index(person)
    return replace(reading, messages=reading.messages[last + 1 :], more=False)


def _mark(marks: Mapping[str, float], place: ThreadKey, message: Incoming) -> float:
    """The newest time of a reset or a forget that hides a message."""
    turn = message.turn
    threads = (place.thread or turn.id, turn.id, f"@{turn.author}")
    names = {
        name for thread in threads for name in marks_on(replace(place, thread=thread), turn.author)
    }
    return max(marks.get(name, 0.0) for name in names)


def _in(place: ThreadKey) -> ThreadKey:
    """A thread of the place, for what holds in all of them."""
    return place if place.thread else replace(place, thread="-")


def _errand_name(person: str) -> str:
    return f"catchup-{person}"


def _errand_thread(place: ThreadKey, person: str) -> ThreadKey:
    return thread_of(_in(place), _errand_name(person))


def _clock(at: float, zone: tzinfo) -> str:
    return f"{datetime.fromtimestamp(at, zone):%m-%d %H:%M}"
