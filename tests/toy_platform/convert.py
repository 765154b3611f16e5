"""A line that somebody sent, as an `Incoming`; pure."""

from __future__ import annotations

from bots.platform import Incoming
from core.types import ThreadKey, Turn


def incoming(line: str, person: str, id_: str, at: float) -> Incoming:
    """Every line is a question to the bot: nobody else listens."""
    turn = Turn(id_, "user", person, line.strip(), at, name=person)
    return Incoming(ThreadKey("toy", "shop", "counter", person), turn, addressed=True)
