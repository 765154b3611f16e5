"""Buttons and modals, as Discord's component dictionaries: pure.

A button's custom id contains its action, reply and thread, so that it works after a restart and in
every process. `discord.ui` is not used: its views need a running loop, and discord.py keeps each in
memory until it ends. Discord accepts 100 characters of id, so numbers are written in base 62.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from bots.actions import can_continue, can_truncate, offers_file
from bots.discord import PLATFORM
from bots.platform import Part
from bots.strings import say
from core.types import Done, ThreadKey, Verdict

Action: TypeAlias = Literal[
    "stop", "regenerate", "continue", "begin", "as_file", "good", "bad",
    "vote_a", "vote_tie", "vote_b", "vote_bad",
]  # fmt: skip
"""`good` and `bad` rate the reply."""

Component: TypeAlias = Mapping[str, Any]

_ACTIONS: Mapping[str, Action] = {
    "s": "stop",
    "a": "regenerate",
    "m": "continue",
    "r": "begin",
    "f": "as_file",
    "g": "good",
    "b": "bad",
    "1": "vote_a",
    "2": "vote_tie",
    "3": "vote_b",
    "4": "vote_bad",
}
VOTES: Mapping[Action, Verdict] = {
    "vote_a": "a",
    "vote_tie": "tie",
    "vote_b": "b",
    "vote_bad": "bad",
}
"""The buttons of a duel."""
_LETTERS: Mapping[Action, str] = {action: letter for letter, action in _ACTIONS.items()}
_DIGITS = string.digits + string.ascii_letters
_VERSION = "h1"
_ROW, _BUTTON, _LABEL, _TEXT_INPUT = 1, 2, 18, 4
SECONDARY, DANGER = 2, 4
_PARAGRAPH = 2
REASON = "reason"
REASON_LENGTH = 500


@dataclass(frozen=True, slots=True)
class ButtonId:
    """The content of a reply's button id."""

    action: Action
    thread: ThreadKey
    job: str
    index: int = 0
    """The part of the reply that the button is under."""

    def __str__(self) -> str:
        where = (
            _encode(self.thread.space),
            _encode(self.thread.channel),
            _encode(self.thread.thread),
        )
        return ".".join((_VERSION, _LETTERS[self.action], self.job, str(self.index), *where))

    @classmethod
    def parse(cls, custom_id: str) -> ButtonId | None:
        """The id that `str` made; None for any other."""
        match custom_id.split("."):
            case [version, letter, job, index, space, channel, thread] if version == _VERSION:
                with suppress(KeyError, ValueError):
                    key = ThreadKey(PLATFORM, _decode(space), _decode(channel), _decode(thread))
                    return cls(_ACTIONS[letter], key, job, int(index))
        return None


_SUMMARY = "c1"


@dataclass(frozen=True, slots=True)
class SummaryButton:
    """The content of a summary's button id: to go on with, or without `most` to stop."""

    place: ThreadKey
    after: float = 0.0
    most: int = 0

    def __str__(self) -> str:
        where = (self.place.space, self.place.channel, self.place.thread or "0")
        numbers = (str(int(self.after * 1000)), str(self.most))
        return ".".join((_SUMMARY, *map(_encode, where), *numbers))

    @classmethod
    def parse(cls, custom_id: str) -> SummaryButton | None:
        """The id that `str` made; None for any other."""
        match custom_id.split("."):
            case [version, space, channel, thread, after, most] if version == _SUMMARY:
                with suppress(ValueError):
                    place = ThreadKey(PLATFORM, _decode(space), _decode(channel), _decode(thread))
                    place = replace(place, thread=place.thread.removeprefix("0"))
                    return cls(place, int(after) / 1000, int(most))
        return None


_EMOJI: Mapping[Action, str] = {"good": "👍", "bad": "👎"}


def reply_buttons(
    actions: Iterable[Action], thread: ThreadKey, job: str, index: int, locale: str
) -> Sequence[Component]:
    """A row of buttons under a part of a reply."""
    buttons = []
    for action in actions:
        ident, emoji = ButtonId(action, thread, job, index), _EMOJI.get(action, "")
        style = DANGER if action == "stop" else SECONDARY
        buttons.append(button(ident, "" if emoji else say(action, locale), style, emoji=emoji))
    return (row(*buttons),)


def actions_of(part: Part) -> Sequence[Action]:
    """The buttons under the last part of a reply that has ended, or is being written."""
    end = part.end
    if end is None:
        return ("stop",)
    if can_truncate(end):
        return ("begin",)
    if not isinstance(end, Done):
        return ()
    if end.duel and not end.duel.models:
        return tuple(VOTES)
    resuming: Sequence[Action] = ("continue",) if can_continue(end) else ()
    filing: Sequence[Action] = ("as_file",) if offers_file(part) else ()
    rating: Sequence[Action] = () if end.duel else ("good", "bad")
    return ("regenerate", *resuming, *filing, *rating)


def reason_modal(button: ButtonId, locale: str) -> Mapping[str, Any]:
    """The question that follows 👎, as the data of a modal."""
    box = {
        "type": _TEXT_INPUT,
        "custom_id": REASON,
        "style": _PARAGRAPH,
        "required": False,
        "max_length": REASON_LENGTH,
    }
    label = {
        "type": _LABEL,
        "label": say("feedback_reason", locale),
        "description": say("feedback_reason_hint", locale),
        "component": box,
    }
    return {"custom_id": str(button), "title": say("feedback_title", locale), "components": [label]}


def reason_in(components: Sequence[Mapping[str, Any]]) -> str:
    """The reason in a submitted modal's components, however they are nested."""
    for component in components:
        if component.get("custom_id") == REASON:
            return str(component.get("value") or "").strip()
        inner = component.get("components") or [component.get("component")]
        if found := reason_in([part for part in inner if part]):
            return found
    return ""


def button_ids_in(components: Sequence[Mapping[str, Any]]) -> Sequence[ButtonId]:
    """The ids of a reply's buttons in a message's components."""
    buttons = (inner for outer in components for inner in outer.get("components", ()))
    found = (ButtonId.parse(str(inner.get("custom_id", ""))) for inner in buttons)
    return [ident for ident in found if ident]


def row(*buttons: Component) -> Component:
    return {"type": _ROW, "components": list(buttons)}


def button(
    ident: ButtonId | str, label: str, style: int = SECONDARY, *, emoji: str = ""
) -> Component:
    button: dict[str, Any] = {"type": _BUTTON, "style": style, "custom_id": str(ident)}
    if label:
        button["label"] = label
    if emoji:
        button["emoji"] = {"name": emoji}
    return button


def _encode(ident: str) -> str:
    """An id with its digits in base 62; a leading `@` or `!` stays, other words are escaped."""
    mark, digits = (ident[0], ident[1:]) if ident[:1] in "@!" else ("", ident)
    if not digits.isdecimal() or digits[0] == "0":
        return f"~{ident}"
    number, out = int(digits), ""
    while number:
        number, rest = divmod(number, 62)
        out = _DIGITS[rest] + out
    return mark + out


def _decode(text: str) -> str:
    if text[:1] == "~":
        return text[1:]
    mark, digits = (text[0], text[1:]) if text[:1] in "@!" else ("", text)
    number = 0
    for digit in digits:
        number = number * 62 + _DIGITS.index(digit)
    return f"{mark}{number}"
