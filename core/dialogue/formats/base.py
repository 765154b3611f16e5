"""The protocol of the dialogue formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from core.dialogue.thoughts import ThoughtSyntax
from core.types import Role, Turn


@dataclass(frozen=True, slots=True)
class Message:
    """One turn, or several of one role joined, with its marks broken: ready for a prompt."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class ReplySyntax:
    """How to read the text of a model."""

    stop_ids: frozenset[int]
    """Ids that end a reply."""
    end: int | None = None
    """The one of them that the format has behind a reply; None: a reply has no end of its own."""
    newline: str = ""
    """The model's way to write a line end, where it is not a line end."""
    marks: tuple[str, ...] = ()
    """The beginnings of the next speaker's line: they end the reply and are never shown."""
    marks_begin_lines: bool = True
    """Whether a mark counts at the beginning of a line alone."""
    thoughts: ThoughtSyntax | None = None
    """How the model writes its thoughts; None: it has none."""
    thought_ids: Mapping[int, str] = field(default_factory=dict)
    """Ids of the control tokens around thoughts -> the characters that stand for them."""
    strip: bool = True
    """Whether white space around a reply is removed."""


class Format(Protocol):
    """Turns to a string. Pure: the same turns give the same string."""

    reply_syntax: ReplySyntax
    alternates: bool
    """Turns of one role are joined."""
    user_first: bool
    """The first turn is a user's."""
    append_only: bool
    """A prompt is the concatenation of `first`, any number of `following`, and `tail`."""

    dated: bool
    """A prompt may have today's date in it."""

    def message(self, turn: Turn) -> Message:
        """A turn with the format's marks in its text broken."""
        ...

    def first(self, message: Message) -> str:
        """The beginning of a prompt: the system prompt, if there is one, and the first message."""
        ...

    def following(self, message: Message) -> str:
        """Any later message."""
        ...

    def tail(self, reply: str) -> str:
        """The end of a prompt, up to where the model continues; `reply` is its text so far."""
        ...

    def whole(self, messages: Sequence[Message], reply: str) -> str:
        """The whole prompt."""
        ...
