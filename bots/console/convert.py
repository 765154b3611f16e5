"""A typed line, as an `Incoming` or a command; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from bots.platform import Incoming
from core.types import ThreadKey, Turn

Command: TypeAlias = Literal["continue", "beginning", "reset", "history", "usage", "help"]


@dataclass(frozen=True, slots=True)
class Conversation:
    """Who types, and in which conversation."""

    user: str
    thread: str
    locale: str

    @property
    def key(self) -> ThreadKey:
        return ThreadKey("console", "local", self.user, self.thread)


def incoming(
    line: str, conversation: Conversation, id_: str, at: float, *, bulk: bool = False
) -> Incoming:
    """A line, as a message to the bot. In a terminal every message is addressed."""
    turn = Turn(id_, "user", conversation.user, line.strip(), at, name=conversation.user)
    note = {"locale": conversation.locale}
    return Incoming(conversation.key, turn, addressed=True, note=note, alone=True, bulk=bulk)


def command(line: str) -> Command | None:
    """The command in a line, if it begins with a slash; an unknown one is ``help``."""
    if not line.startswith("/"):
        return None
    word = line[1:].strip()
    return next((known for known in get_args(Command) if known == word), "help")
