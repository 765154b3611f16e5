"""A platform that stands in for Slack and Discord: its servers, and an adapter's side of them.

A `Board` holds the messages of people and bots. Many `SimulatedPlatform`s, one a process, may share
it. Its help against double posts is a choice: with a `nonce`, a second post of the same part
returns the first one; with `search`, a post that nobody recorded is found.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol, TypeVar

from bots.attachments import File
from bots.platform import Incoming, MessageGone, Part, PlaceNames, PlatformRefused, Status
from bots.text import split
from core.queue_types import Delivery
from core.types import ThreadKey, Turn

T = TypeVar("T")


@dataclass
class Message:
    """One of the bot's messages, as people see it now."""

    id: str
    thread: ThreadKey
    job: str
    index: int
    part: Part
    gone: str = ""
    """Who took it away: the ``bot`` or a ``person``."""


@dataclass
class Board:
    """The platform's servers."""

    nonce: bool = True
    search: bool = True
    prefix: str = "b"
    messages: dict[str, Message] = field(default_factory=dict)
    statuses: list[tuple[str, Status]] = field(default_factory=list)
    paced: list[bool] = field(default_factory=list)
    """For each wait for the rate limits, whether it was for the end of a reply."""
    said: dict[ThreadKey, dict[str, Turn]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    """By address."""
    linked: dict[str, Incoming] = field(default_factory=dict)
    """Messages that may be read, by their link."""
    _numbers: Any = field(default_factory=lambda: count(1))

    # -- people ---------------------------------------------------------------------------------

    def say(self, thread: ThreadKey, id_: str, author: str, text: str) -> Turn:
        turn = Turn(id_, "user", author, text, at=time.time())
        self.said.setdefault(thread, {})[id_] = turn
        return turn

    def take_away(self, message: str) -> None:
        self.messages[message].gone = "person"

    # -- bots -----------------------------------------------------------------------------------

    def post(self, thread: ThreadKey, job: str, part: Part) -> str:
        if self.nonce and (known := self._posted(job, part.index)):
            return known
        id_ = f"{self.prefix}{next(self._numbers)}"
        self.messages[id_] = Message(id_, thread, job, part.index, part)
        return id_

    def edit(self, message: str, part: Part) -> None:
        """Raises MessageGone where the message is gone, as both platforms say it."""
        if self.messages[message].gone:
            raise MessageGone(f"{message} is gone")
        self.messages[message].part = part

    def remove(self, message: str) -> None:
        self.messages[message].gone = self.messages[message].gone or "bot"

    def find(self, job: str, index: int, known: Sequence[str]) -> str | None:
        return self._posted(job, index, known) if self.search else None

    def _posted(self, job: str, index: int, known: Sequence[str] = ()) -> str | None:
        for message in self.messages.values():
            fits = (message.job, message.index) == (job, index) and message.id not in known
            if fits and message.gone != "bot":
                return message.id
        return None

    def earlier(self, thread: ThreadKey, before: str, after: float) -> Sequence[Turn]:
        said = self.said.get(thread, {})
        limit = said[before].at if before in said else time.time()
        return [turn for turn in said.values() if after < turn.at < limit and turn.id != before]

    def shown(self, thread: ThreadKey | None = None) -> list[str]:
        """The text of the bot's messages that stand, with the bot's own sentences behind ``|``."""
        standing = [m for m in self.messages.values() if not m.gone]
        parts = [m.part for m in standing if thread in (None, m.thread)]
        return [f"{part.text} | {part.note}" if part.note else part.text for part in parts]


class Wire(Protocol):
    """How a call gets from a process to the board and back: where it may fail, or never end."""

    async def __call__(self, name: str, effect: Callable[[], Awaitable[T]]) -> T: ...


async def at_once(name: str, effect: Callable[[], Awaitable[T]]) -> T:
    """A wire without faults."""
    return await effect()


@dataclass
class SimulatedPlatform:
    """The adapter's side of the board in one process: `bots.platform.Platform`."""

    board: Board
    name: str = "stand-in"
    part_length: int = 100
    call_seconds: float = 0.1
    wire: Wire = at_once

    def split(self, delivery: Delivery, text: str, limit: int) -> Sequence[str]:
        return split(text, limit)

    async def pace(self, delivery: Delivery, *, final: bool) -> None:
        """As fast as anybody likes."""
        self.board.paced.append(final)

    async def status(self, delivery: Delivery, status: Status) -> None:
        async def effect() -> None:
            self.board.statuses.append((delivery.job, status))

        await self.wire("status", effect)

    async def post(self, delivery: Delivery, part: Part) -> str:
        async def effect() -> str:
            return self.board.post(delivery.thread, delivery.job, part)

        return await self.wire("post", effect)

    async def edit(self, delivery: Delivery, message: str, part: Part) -> None:
        async def effect() -> None:
            self.board.edit(message, part)

        await self.wire("edit", effect)

    async def remove(self, delivery: Delivery, message: str) -> None:
        async def effect() -> None:
            self.board.remove(message)

        await self.wire("remove", effect)

    async def find(self, delivery: Delivery, index: int) -> str | None:
        async def effect() -> str | None:
            return self.board.find(delivery.job, index, delivery.messages)

        return await self.wire("find", effect)

    async def fetch(self, thread: ThreadKey, file: File, most: int) -> bytes:
        async def effect() -> bytes:
            if file.address not in self.board.files:
                raise PlatformRefused("there is no such file")
            return self.board.files[file.address][: most + 1]

        return await self.wire("fetch", effect)

    async def names(self, thread: ThreadKey) -> PlaceNames:
        return PlaceNames("general", "henji")

    async def linked(self, thread: ThreadKey, address: str) -> Incoming | None:
        async def effect() -> Incoming | None:
            return self.board.linked.get(address)

        return await self.wire("linked", effect)

    async def earlier(self, thread: ThreadKey, before: str, after: float) -> Sequence[Incoming]:
        async def effect() -> Sequence[Incoming]:
            turns = self.board.earlier(thread, before, after)
            return [Incoming(thread, turn, addressed=False) for turn in turns]

        return await self.wire("earlier", effect)
