"""How a reply reaches its person: in a channel, by the interaction's token, or directly.

A reply to a command goes through the interaction's token while that is valid, and continues as
ordinary messages afterwards. A reply that only its person may see continues in their direct
messages. Where the bot is installed for that person alone, the token is the only way.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TypeAlias

import discord
import structlog

from bots.discord.api import ORIGINAL, hook_key
from core.queue_types import Delivery
from core.types import ThreadKey

log = structlog.get_logger()

_TOKEN = "secret_token"  # noqa: S105 -- a name, and `secret_` is the store's word for such


@dataclass(frozen=True, slots=True)
class Note:
    """One reply's address."""

    channel: str = ""
    """Where ordinary messages go: a channel, a thread or a direct channel."""
    reply_to: str = ""
    """The message that the first part is a reply to."""
    opens: str = ""
    """The name of the thread that the reply opens under `reply_to`."""
    app: str = ""
    token: str = field(default="", repr=False)
    """The interaction's token, good until `until` (seconds since the epoch)."""
    until: float = 0.0
    original: str = ""
    """The message that the pressed control stands under: ``@original`` to the token."""
    private: bool = False
    """Only the person who asked may see the reply."""
    stranger: bool = False
    """The bot is installed for the person alone, or may not write there: it can only speak
    through the token."""
    locale: str = ""

    def pack(self) -> Mapping[str, str]:
        """As strings, without what is at its default."""
        values = ((f.name, getattr(self, f.name), f.default) for f in fields(self))
        packed = {name: _text(value) for name, value, default in values if value != default}
        if token := packed.pop("token", ""):
            packed[_TOKEN] = token
        return packed

    @classmethod
    def unpack(cls, note: Mapping[str, str]) -> Note:
        """The note that `pack` made; names of other versions are passed over."""
        return cls(
            channel=note.get("channel", ""),
            reply_to=note.get("reply_to", ""),
            opens=note.get("opens", ""),
            app=note.get("app", ""),
            token=note.get(_TOKEN, ""),
            until=float(note.get("until", "0")),
            original=note.get("original", ""),
            private=note.get("private") == "1",
            stranger=note.get("stranger") == "1",
            locale=note.get("locale", ""),
        )

    def has_token(self, now: float, margin: float = 0.0) -> bool:
        """Whether the token will still serve in `margin` seconds."""
        return bool(self.token) and now + margin < self.until


def _text(value: object) -> str:
    return "1" if value is True else str(value)


# -- the way of one message ---------------------------------------------------------------------

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


# -- tokens -------------------------------------------------------------------------------------

MOST_DEAD = 1024
YIELD_SECONDS = 0.5
"""For no longer than this does a reply's message make way."""


@dataclass(slots=True)
class Acknowledgement:
    """Whether an interaction has been acknowledged."""

    given: bool = False


class Tokens:
    """What this process knows of the tokens in its deliveries; never the tokens themselves."""

    def __init__(self) -> None:
        self._pending: dict[str, asyncio.Future[None]] = {}
        self._dead: dict[str, None] = {}

    @contextlib.contextmanager
    def acknowledging(self, token: str) -> Iterator[Acknowledgement]:
        """Hold what goes by this token back until the acknowledgement is given, or failed."""
        key, outcome = hook_key(token), Acknowledgement()
        self._pending[key] = asyncio.get_running_loop().create_future()
        try:
            yield outcome
        finally:
            if not outcome.given:
                self.bury(token)
            self._pending.pop(key).set_result(None)

    async def quiet(self) -> None:
        """Let those go first who are acknowledged now: it is due in 3 s, a reply is not."""
        if self._pending:
            await asyncio.wait(list(self._pending.values()), timeout=YIELD_SECONDS)

    def bury(self, token: str) -> None:
        """Discord does not take this token, and will not."""
        self._dead[hook_key(token)] = None
        while len(self._dead) > MOST_DEAD:
            del self._dead[next(iter(self._dead))]

    async def note(self, delivery: Delivery) -> Note:
        """A delivery's note, once its token is known; without it if it is good for nothing."""
        note = Note.unpack(delivery.note)
        if not note.token:
            return note
        key = hook_key(note.token)
        if (pending := self._pending.get(key)) is not None:
            await asyncio.shield(pending)
        return replace(note, token="") if key in self._dead else note


BEFORE_THE_END = 60.0
"""Seconds before a token's end at which a reply that cannot do without it is cut or moved."""


class Alarms:
    """One for each reply that needs its token: what only one person may see moves to their direct
    messages; what the bot can bring to nobody without the token is stopped, and says so.
    """

    def __init__(
        self,
        stop: Callable[[ThreadKey, str], Awaitable[object]],
        move: Callable[[Delivery, Note], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        self._stop = stop
        self._move = move
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def set(self, delivery: Delivery, note: Note) -> None:
        """See to a reply in time; a second call changes nothing."""
        seconds = note.until - BEFORE_THE_END - self._clock()
        needs_it = note.token and (note.private or note.stranger)
        if needs_it and delivery.job not in self._tasks and seconds > -BEFORE_THE_END:
            ringing = self._ring(delivery, note, max(seconds, 0.0))
            self._tasks[delivery.job] = asyncio.create_task(ringing, name=f"alarm {delivery.job}")

    def clear(self, job: str) -> None:
        """The reply has ended."""
        if task := self._tasks.pop(job, None):
            task.cancel()

    def close(self) -> None:
        for job in list(self._tasks):
            self.clear(job)

    async def _ring(self, delivery: Delivery, note: Note, seconds: float) -> None:
        await asyncio.sleep(seconds)
        try:
            if note.stranger:
                await self._stop(delivery.thread, delivery.job)
            else:
                await self._move(delivery, note)
        except discord.Forbidden:  # the person takes no direct messages: it ends here
            await self._stop(delivery.thread, delivery.job)
        except Exception as error:  # what is written after the token's end tries it again
            log.warning("a reply was not moved in time", job=delivery.job, error=repr(error))
