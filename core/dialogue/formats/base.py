"""The protocol of the dialogue formats, the names of speakers in the text, and the plain format."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from core.dialogue.sanitize import MarkBreaker, clean, skeleton
from core.dialogue.thoughts import ThoughtSyntax
from core.dialogue.tokenizers.base import Tokenizer
from core.types import Role, Turn


@dataclass(frozen=True, slots=True)
class Message:
    """One turn, or several of one role joined, with its marks broken: ready for a prompt."""

    role: Role
    text: str
    thought: str = ""
    """Of a reply, for a format that wants it back."""


class NotAppendable(Exception):
    """A message changes the string of those before it: the prompt must be rendered whole."""


@dataclass(frozen=True, slots=True)
class ReplySyntax:
    """How to read a model's output."""

    stop_ids: frozenset[int]
    """Ids that end a reply."""
    end: int | None = None
    """The one that the format puts after a reply; None: the format has no end of reply."""
    newline: str = ""
    """The model's way to write a line end, where it is not a line end."""
    marks: tuple[str, ...] = ()
    """The beginnings of the next speaker's line: they end the reply and are never shown."""
    marks_begin_lines: bool = True
    """Whether a mark counts at the beginning of a line alone."""
    thoughts: ThoughtSyntax | None = None
    """How the model writes its thoughts; None: it has none."""
    thought_ids: Mapping[int, str] = field(default_factory=dict)
    """Ids of the control tokens around thoughts -> their placeholder characters."""
    strip: bool = True
    """Whether white space around a reply is removed."""


class Format(Protocol):
    """Turns to a string. Pure: the same turns give the same string."""

    reply_syntax: ReplySyntax
    alternates: bool = False
    """Turns of one role are joined."""
    user_first: bool = False
    """The first turn is a user's."""
    append_only: bool = True
    """A prompt is the concatenation of `first`, any number of `following`, and `tail`."""

    thinking_switch: bool = False
    """Whether the setting `thinking` changes the prompt."""
    keeps_thoughts: bool = False
    """Whether the thoughts of earlier replies are a part of the prompt."""

    def message(self, turn: Turn) -> Message:
        """A turn with the format's marks in its text broken."""
        ...

    def first(self, message: Message) -> str:
        """The beginning of a prompt: the system prompt, if there is one, and the first message."""
        ...

    def following(self, message: Message) -> str:
        """Any later message. NotAppendable where this one is no such string."""
        ...

    def tail(self, reply: str, thought: str = "") -> str:
        """The end of a prompt, up to where the model continues; `reply` is its text so far, and
        `thought` the unfinished thought that it goes on with."""
        ...

    def whole(self, messages: Sequence[Message], reply: str, thought: str = "") -> str:
        """The whole prompt."""
        following = "".join(map(self.following, messages[1:]))
        return self.first(messages[0]) + following + self.tail(reply, thought)

    def refresh(self) -> bool:
        """Write the current date from now on; whether the beginnings of prompts have changed."""
        return False


_OPEN, _CLOSE = "【", "】"
_BRACKETS = re.compile(r"[【︻]([^】︼]*)[】︼]?")
"""U+FE3B and U+FE3C are the same brackets for vertical writing, which normalization turns."""
_OTHER_BRACKETS = str.maketrans("【︻】︼", "〔〔〕〕")


def with_name(turn: Turn, normalized: Callable[[str], str]) -> Turn:
    """A user's turn with the name in front, as in ``【田中】こんにちは``.

    Only this function writes such a label at the beginning of a line: one that a person typed, as
    a reader or the tokenizer sees the line, gets other brackets. A name is one line without such
    brackets. Replies have no name.
    """
    if turn.role != "user":
        return turn
    text = "\n".join(_without_label(line, normalized) for line in clean(turn.text).split("\n"))
    name = re.sub(r"[【】︻︼\s]+", " ", clean(turn.name or turn.author)).strip()
    return replace(turn, text=f"{_OPEN}{name}{_CLOSE}{text}")


def _without_label(line: str, normalized: Callable[[str], str]) -> str:
    if not _begins_with_label(line, normalized):
        return line
    other = _BRACKETS.sub(r"〔\1〕", line, count=1)
    if _begins_with_label(other, normalized):  # another pair was the first that is seen
        return line.translate(_OTHER_BRACKETS)
    return other


def _begins_with_label(line: str, normalized: Callable[[str], str]) -> bool:
    if not _BRACKETS.search(line):
        return False
    return any(skeleton(seen).startswith(_OPEN) for seen in (line, normalized(line)))


class PlainFormat(Format):
    """A user's text, the model's continuation, a line end, the next user's text, and so on.

    Text stays text: there are no speakers to forge, and a typed control token gets a space before
    its last character. A system prompt is the first line.
    """

    def __init__(
        self, tokenizer: Tokenizer, stop_ids: frozenset[int], system_prompt: str, opening: str = ""
    ) -> None:
        self._break_marks = MarkBreaker(tokenizer.reserved, tokenizer.normalized)
        system = self._break_marks(clean(system_prompt))
        self._opening = opening + (system + "\n" if system else "")
        self.reply_syntax = ReplySyntax(
            stop_ids=stop_ids, end=min(stop_ids, default=None), strip=False
        )

    def message(self, turn: Turn) -> Message:
        return Message(turn.role, self._break_marks(clean(turn.text)))

    def first(self, message: Message) -> str:
        return self._opening + message.text

    def following(self, message: Message) -> str:
        return message.text if message.role == "assistant" else "\n" + message.text

    def tail(self, reply: str, thought: str = "") -> str:
        return self._break_marks(clean(reply))
