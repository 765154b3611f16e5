"""Which way a part of a reply goes to its people at a moment: decided purely.

A reply to a command goes through the interaction's token while it lives, and on as ordinary
messages after it. One that only its person may see goes to their direct messages then; where the
bot is installed for that person alone, there is no other way than the token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from bots.discord.api import ORIGINAL
from bots.discord.note import Note

ELSEWHERE = "/"
"""In a message's id: ``channel/message`` for one that is not in the delivery's own channel."""
MARGIN = 10.0
"""Seconds before a token's end from which on it is not relied upon."""


@dataclass(frozen=True, slots=True)
class ByToken:
    """Through the interaction; a follow-up where `message` is empty.

    A token reaches only the messages that were made by it, and the one that was pressed.
    """

    app: str
    token: str
    message: str = ""
    private: bool = False


@dataclass(frozen=True, slots=True)
class Plainly:
    """An ordinary message in a channel; a new one where `message` is empty."""

    channel: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Directly:
    """A new message to the person alone."""


@dataclass(frozen=True, slots=True)
class Nowhere:
    """There is no way left."""


Way: TypeAlias = ByToken | Plainly | Directly | Nowhere


def to_post(note: Note, index: int, now: float, *, moved: bool = False) -> Way:
    """The way of a new part; `moved`: the reply has left for the direct messages before."""
    alone = note.private or note.stranger
    if note.has_token(now, MARGIN) and not moved:
        if index == 0 and not note.original:
            return ByToken(note.app, note.token, ORIGINAL, note.private)
        if alone:
            return ByToken(note.app, note.token, private=note.private)
    return _without_token(note, alone=alone)


def to_edit(note: Note, index: int, message: str, now: float, *, moved: bool = False) -> Way:
    """The way to a message that stands already. `Directly` says that it cannot be reached."""
    if ELSEWHERE in message:
        return Plainly(*message.split(ELSEWHERE))
    alone = note.private or note.stranger
    if note.has_token(now, MARGIN) and not moved and (alone or index == 0):
        ident = ORIGINAL if index == 0 else "" if message == note.original else message
        return ByToken(note.app, note.token, ident, note.private)
    way = _without_token(note, alone=alone)
    return Plainly(way.channel, message) if isinstance(way, Plainly) else way


def _without_token(note: Note, *, alone: bool) -> Way:
    if note.stranger:
        return Nowhere()
    return Directly() if alone else Plainly(note.channel)
