"""What every dialogue format does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from core.types import Role, Turn


@dataclass(frozen=True, slots=True)
class Message:
    """A turn, or several of one role joined: its text is fit to stand in a prompt as it is."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class ReplySyntax:
    """How what a model writes is read."""

    stop_ids: frozenset[int]
    """Ids that end a reply."""
    end: int | None = None
    """The one of them that the format has behind a reply; None: a reply has no end of its own."""
    newline: str = ""
    """What the model writes for a line end, where that is not a line end."""
    marks: tuple[str, ...] = ()
    """What begins the next speaker's line: it ends the reply, and is never shown."""
    marks_begin_lines: bool = True
    """Whether a mark means something at the beginning of a line alone."""
    strip: bool = True
    """Whether white space around a reply is no part of it."""


class Format(Protocol):
    """Turns to a string. Pure: the same turns give the same string."""

    reply_syntax: ReplySyntax
    alternates: bool
    """Turns of one role are joined."""
    user_first: bool
    """The first turn is a user's."""
    append_only: bool
    """A prompt is `first`, any number of `following`, and `tail`, put side by side."""

    def message(self, turn: Turn) -> Message:
        """A turn as it stands in a prompt: whatever in its text would mean something to the format
        is broken."""
        ...

    def first(self, message: Message) -> str:
        """The beginning of a prompt: the system prompt, if there is one, and the first message."""
        ...

    def following(self, message: Message) -> str:
        """Any later message."""
        ...

    def tail(self, reply: str) -> str:
        """The end of a prompt, up to where the model goes on; `reply` is what it wrote so far."""
        ...

    def whole(self, messages: Sequence[Message], reply: str) -> str:
        """A prompt."""
        ...
