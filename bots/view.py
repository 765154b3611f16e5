"""The state of a reply that a person should see now, from its events, and its words. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import tzinfo

from bots import duels
from bots.platform import Status
from bots.strings import failure, file_line, say
from core.types import Cancelled, Delta, Done, Failed, Queued, ReplyEvent, Started

FILES_NAMED = 3
"""In a note."""

_THOUGHTS = ("thought_cut", "thought_over")
"""For a thought without an answer: it can be continued, or there is no room for that."""
_NOTES = {"length": "cut_short", "repetition": "repeated", "cancelled": "stopped"}


@dataclass(frozen=True, slots=True)
class View:
    """The state of a reply that a person should see now."""

    text: str = ""
    status: Status | None = None
    thinks_since: float = 0.0
    """The start of the current thought, by the store's clock; 0: the model is not thinking."""
    end: Done | Failed | Cancelled | None = None

    def after(self, event: ReplyEvent) -> View:
        """The view after one more event."""
        match event:
            case Queued(position):
                return replace(self, status=Status("queued", position))
            case Started():
                return View(status=Status("thinking"))
            case Delta(offset, new, at):
                text = self.text[:offset] + new
                return View(text) if text else self._thinking(at)
            case Done(whole):
                return View(whole, end=event)
            case Failed() | Cancelled():
                return View(self.text, end=event)

    def _thinking(self, at: float) -> View:
        since = self.thinks_since or at
        return View(status=Status("thinking", seconds=round(at - since)), thinks_since=since)

    def words(self, locale: str, zone: tzinfo) -> tuple[str, str]:
        """The text of the reply, and the bot's sentence under it."""
        match self.end:
            case Done():
                return _words_of(self.end, locale)
            case Failed(code, detail, until):
                waiting = int(detail) if code == "busy" and detail.isdecimal() else 0
                return failure(code, locale, until, zone, waiting, detail), ""
            case Cancelled(by):
                sentence = say("stopped" if by == "person" else f"ended_by_{by}", locale)
                return (self.text, sentence) if self.text else (sentence, "")
        return self.text, ""


def _words_of(done: Done, locale: str) -> tuple[str, str]:
    if done.duel is not None:
        said = duels.note(done.duel, locale)
        return "\n\n".join(duels.headed(done.duel)), _joined(said, done, locale)
    if done.in_thought and done.finish_reason != "cancelled":
        return say(_THOUGHTS[done.finish_reason == "stop"], locale), ""
    note = _NOTES.get(done.finish_reason)
    said = say(note, locale) if note else ""
    if not done.text:
        return said or say("nothing_said", locale), ""
    return done.text, _joined(said, done, locale)


def _joined(said: str, done: Done, locale: str) -> str:
    return " · ".join(filter(None, (said, *_memory_notes(done, locale))))


def _memory_notes(done: Done, locale: str) -> Iterator[str]:
    """Sentences about dropped turns, files, lost choices, and collection for training."""
    if done.dropped:
        key = "turn_dropped" if done.dropped == 1 else "turns_dropped"
        yield say(key, locale, turns=done.dropped)
    for read in done.files[:FILES_NAMED]:
        yield file_line(read, locale)
    if (more := len(done.files) - FILES_NAMED) > 0:
        yield say("files_more", locale, files=more)
    for name in done.lost:
        yield say("choice_lost", locale, name=name)
    if done.collected:
        yield say("collects", locale)
