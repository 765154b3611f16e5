"""What is typed in a terminal, as an `Incoming`; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from bots.platform import Incoming
from core.types import ThreadKey, Turn

Command: TypeAlias = Literal["continue", "reset", "history", "help"]


@dataclass(frozen=True, slots=True)
class Seat:
    """Who sits at the terminal, and in which conversation."""

    user: str
    thread: str
    locale: str

    @property
    def key(self) -> ThreadKey:
        return ThreadKey("console", "local", self.user, self.thread)


def incoming(line: str, seat: Seat, id_: str, at: float, *, bulk: bool = False) -> Incoming:
    """A line, as a message to the bot: in a terminal every message is addressed."""
    turn = Turn(id_, "user", seat.user, line.strip(), at, name=seat.user)
    note = {"locale": seat.locale}
    return Incoming(seat.key, turn, addressed=True, note=note, alone=True, bulk=bulk)


def command(line: str) -> Command | None:
    """The command that a line is, if it is one; whatever else begins with a slash asks for help."""
    if not line.startswith("/"):
        return None
    word = line[1:].strip()
    return next((known for known in get_args(Command) if known == word), "help")
