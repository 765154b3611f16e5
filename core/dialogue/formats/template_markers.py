"""The strings that a chat template writes around messages, read off a small dialogue."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from core.errors import ModelError

Render: TypeAlias = Callable[[Sequence[Mapping[str, str]], bool], str]
"""Messages to the template's string; True: with the beginning of a reply. May raise ModelError."""

_SYSTEM, _QUESTION, _ANSWER, _NEXT_QUESTION = "Xs9", "Xq0", "Xa1", "Xq2"
_BRACKETED = re.compile(r"<+[^<>\s]+>+|\[[^\[\]\s]+\]")


@dataclass(frozen=True, slots=True)
class TemplateMarkers:
    """A template's strings between turns."""

    before_reply: str
    after_reply: str
    tail: str
    """The end of a prompt, where a reply begins."""
    around_system: str
    """Around a system message; empty where the template takes none."""

    def marks(self) -> Iterator[str]:
        """The strings that no text may contain: they could end a turn or begin another."""
        for marker in (self.before_reply, self.after_reply, self.tail, self.around_system):
            yield from _BRACKETED.findall(marker)
            yield from (line.strip() for line in _label_lines(marker))

    def next_speaker(self) -> tuple[str, ...]:
        """The strings with which a model runs on past its turn: the turn's end or a label.

        A label that the template puts on a line of its own counts only there.
        """
        bracketed = _BRACKETED.findall(self.after_reply)
        labels = [*_label_lines(self.after_reply), *_label_lines(self.before_reply)]
        spoken = (label.rstrip() for label in labels if re.search(r"\w", label))
        return tuple(dict.fromkeys([*bracketed, *spoken]))


def find_markers(render: Render, file: object) -> TemplateMarkers:
    """The markers of the template in `file`; ModelError where the template drops a message."""
    dialogue = [
        _message("user", _QUESTION),
        _message("assistant", _ANSWER),
        _message("user", _NEXT_QUESTION),
    ]
    open_end, rendered = render(dialogue, False), render(dialogue, True)
    found = re.search(f"{_QUESTION}(.*?){_ANSWER}(.*?){_NEXT_QUESTION}", rendered, re.DOTALL)
    if found is None:
        raise ModelError(f"the chat template in {file} leaves out what was said")
    last = rendered.rpartition(_NEXT_QUESTION)[2]
    tail = rendered.removeprefix(open_end) if rendered.startswith(open_end) else last
    return TemplateMarkers(found[1], found[2], tail, _around_system(render))


def _around_system(render: Render) -> str:
    try:
        rendered = render([_message("system", _SYSTEM), _message("user", _QUESTION)], True)
    except ModelError:
        return ""
    found = re.search(f"([^\n]*\\s*){_SYSTEM}(.*?){_QUESTION}", rendered, re.DOTALL)
    return f"{found[1]}\n{found[2]}" if found else ""


def _message(role: str, text: str) -> Mapping[str, str]:
    return {"role": role, "content": text}


def _label_lines(marker: str) -> Iterator[str]:
    """The label lines of a marker, without anything in brackets. A label on a line of its own keeps
    the line end before it. A bare word, such as a role, means nothing by itself."""
    for number, line in enumerate(_BRACKETED.sub("", marker).split("\n")):
        label = line.strip()
        if label and not label.isalnum():
            yield ("\n" if number else "") + label
