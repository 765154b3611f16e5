"""The buttons under a reply, as Discord's component dictionaries. Pure, and without state.

A button's custom id says what is meant, on which reply and in which thread, so that it works
after a restart and in every process. Discord takes 100 characters: ids are written in base 62.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from bots.strings import say
from core.types import ThreadKey

Verb: TypeAlias = Literal["stop", "again", "more", "good", "bad"]
"""Stop, regenerate, continue, and what the person thinks of the reply."""

Component: TypeAlias = Mapping[str, Any]

_VERBS: Mapping[str, Verb] = {"s": "stop", "a": "again", "m": "more", "g": "good", "b": "bad"}
_LETTERS: Mapping[Verb, str] = {verb: letter for letter, verb in _VERBS.items()}
_DIGITS = string.digits + string.ascii_letters
_VERSION = "h1"
_ROW, _BUTTON, _LABEL, _TEXT_INPUT = 1, 2, 18, 4
_SECONDARY, _DANGER = 2, 4
_PARAGRAPH = 2
REASON = "reason"
REASON_LENGTH = 500


@dataclass(frozen=True, slots=True)
class Press:
    """What a custom id says."""

    verb: Verb
    thread: ThreadKey
    job: str
    index: int = 0
    """Which part of the reply the button stands under."""

    def __str__(self) -> str:
        where = (_short(self.thread.space), _short(self.thread.channel), _short(self.thread.thread))
        return ".".join((_VERSION, _LETTERS[self.verb], self.job, str(self.index), *where))

    @classmethod
    def parse(cls, custom_id: str) -> Press | None:
        """The press that a custom id means; None where it is not one of ours."""
        match custom_id.split("."):
            case [version, letter, job, index, space, channel, thread] if (
                version == _VERSION and letter in _VERBS
            ):
                try:
                    key = ThreadKey("discord", _long(space), _long(channel), _long(thread))
                    return cls(_VERBS[letter], key, job, int(index))
                except ValueError:
                    return None
            case _:
                return None


@dataclass(frozen=True, slots=True)
class Labels:
    """The words on the buttons, in the person's language."""

    stop: str
    again: str
    more: str
    reason_title: str
    reason_label: str
    reason_hint: str
    """Who will read it."""


def labels(locale: str) -> Labels:
    """The words on the buttons."""
    return Labels(
        stop=say("stop", locale),
        again=say("regenerate", locale),
        more=say("continue", locale),
        reason_title=say("feedback_title", locale),
        reason_label=say("feedback_reason", locale),
        reason_hint=say("feedback_reason_hint", locale),
    )


def streaming(thread: ThreadKey, job: str, index: int, labels: Labels) -> Sequence[Component]:
    """While the reply is written: Stop."""
    return (_row(_button(Press("stop", thread, job, index), labels.stop, _DANGER)),)


def finished(
    thread: ThreadKey, job: str, index: int, labels: Labels, *, cut: bool
) -> Sequence[Component]:
    """Under the end of a reply; `cut`: it stopped for length, and can go on."""
    buttons = [_button(Press("again", thread, job, index), labels.again, _SECONDARY)]
    if cut:
        buttons.append(_button(Press("more", thread, job, index), labels.more, _SECONDARY))
    buttons.append(_button(Press("good", thread, job, index), "", _SECONDARY, emoji="👍"))
    buttons.append(_button(Press("bad", thread, job, index), "", _SECONDARY, emoji="👎"))
    return (_row(*buttons),)


def reason_modal(press: Press, labels: Labels) -> Mapping[str, Any]:
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
        "label": labels.reason_label,
        "description": labels.reason_hint,
        "component": box,
    }
    return {"custom_id": str(press), "title": labels.reason_title, "components": [label]}


def reason_in(components: Sequence[Mapping[str, Any]]) -> str:
    """The reason in a submitted modal's components, whichever way they are wrapped."""
    for component in components:
        if component.get("custom_id") == REASON:
            return str(component.get("value") or "").strip()
        inner = component.get("components") or [component.get("component")]
        if found := reason_in([part for part in inner if part]):
            return found
    return ""


def presses_in(components: Sequence[Mapping[str, Any]]) -> Sequence[Press]:
    """Every press that a message's components offer."""
    buttons = (button for row in components for button in row.get("components", ()))
    found = (Press.parse(str(button.get("custom_id", ""))) for button in buttons)
    return [press for press in found if press]


def _row(*buttons: Component) -> Component:
    return {"type": _ROW, "components": list(buttons)}


def _button(press: Press, label: str, style: int, *, emoji: str = "") -> Component:
    button: dict[str, Any] = {"type": _BUTTON, "style": style, "custom_id": str(press)}
    if label:
        button["label"] = label
    if emoji:
        button["emoji"] = {"name": emoji}
    return button


def _short(ident: str) -> str:
    """An id with its digits in base 62; `@` and `!` in front stay, other words are quoted."""
    mark, digits = (ident[0], ident[1:]) if ident[:1] in "@!" else ("", ident)
    if not digits.isdecimal() or digits[0] == "0":
        return f"~{ident}"
    number, out = int(digits), ""
    while number:
        number, rest = divmod(number, 62)
        out = _DIGITS[rest] + out
    return mark + out


def _long(text: str) -> str:
    if text[:1] == "~":
        return text[1:]
    mark, digits = (text[0], text[1:]) if text[:1] in "@!" else ("", text)
    number = 0
    for digit in digits:
        number = number * 62 + _DIGITS.index(digit)
    return f"{mark}{number}"
