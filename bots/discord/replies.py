"""Where a reply is posted: in a channel, by the interaction's token, or in direct messages.

A reply to a command uses the interaction's token while that is valid, and continues as ordinary
messages afterwards. A reply that only its person may see continues in their direct messages. Where
the bot is installed for that person alone, the token is the only way.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TypeAlias

import discord
import structlog

from bots.discord import DIRECT, PLATFORM
from bots.discord.api import ORIGINAL, DiscordApi
from bots.discord.error_codes import CLOSED_CHANNEL, sentence_for
from bots.discord.rate_limits import token_key
from bots.strings import say
from core.errors import StoreUnavailable
from core.observe import metrics
from core.queue_types import Delivery
from core.types import Bounded, ThreadKey

log = structlog.get_logger()

PLAIN_TITLE = "Henji"
"""Of a thread whose first message gives it no name."""

_PACKED_NAMES = {"token": "secret_token", "opens": "secret_opens", "token_only": "stranger"}
"""Field -> its name in a packed address, where they differ. The store drops `secret_` fields when
the delivery is closed."""


@dataclass(frozen=True, slots=True)
class ReplyAddress:
    """Where one reply goes, and with which token.

    It is kept packed in the delivery's `note`, so that another process can continue the reply. The
    interaction's token is a secret that can post: it is stored nowhere else, and never logged.
    """

    channel: str = ""
    """The channel, thread or direct channel of ordinary messages."""
    reply_to: str = ""
    """The message that the first part is a reply to."""
    opens: str = ""
    """The name of the thread that the reply opens under `reply_to`."""
    app: str = ""
    token: str = field(default="", repr=False)
    """The interaction's token, valid until `until` (seconds since the epoch)."""
    until: float = 0.0
    original: str = ""
    """The message of the pressed button: ``@original`` to the token."""
    private: bool = False
    """Only the person who asked may see the reply."""
    token_only: bool = False
    """The bot is installed for the person alone, or may not write there."""
    limited: bool = False
    """The bot is installed for the person alone: the token makes few messages."""
    locale: str = ""

    def pack(self) -> Mapping[str, str]:
        """The fields that are not at their default, as strings.

        A thread's name is the person's words: only a plain one is kept for longer than the
        delivery, which a reset does not delete.
        """
        values = ((f.name, getattr(self, f.name), f.default) for f in fields(self))
        packed = {
            _PACKED_NAMES.get(name, name): _text(value)
            for name, value, default in values
            if value != default
        }
        return packed | ({"opens": PLAIN_TITLE} if self.opens else {})

    @classmethod
    def unpack(cls, packed: Mapping[str, str]) -> ReplyAddress:
        """The address that `pack` made; unknown names, of other versions, are ignored."""
        return cls(
            channel=packed.get("channel", ""),
            reply_to=packed.get("reply_to", ""),
            opens=packed.get("secret_opens", packed.get("opens", "")),
            app=packed.get("app", ""),
            token=packed.get("secret_token", ""),
            until=float(packed.get("until", "0")),
            original=packed.get("original", ""),
            private=packed.get("private") == "1",
            token_only=packed.get("stranger") == "1",
            limited=packed.get("limited") == "1",
            locale=packed.get("locale", ""),
        )

    def has_token(self, now: float, margin: float = 0.0) -> bool:
        """Whether the token is still valid in `margin` seconds."""
        return bool(self.token) and now + margin < self.until


def _text(value: object) -> str:
    return "1" if value is True else str(value)


# -- the destination of one message -------------------------------------------------------------

ELSEWHERE = "/"
"""In a message's id: ``channel/message`` for one outside the delivery's own channel."""
MARGIN = 10.0
"""Seconds before its end at which a token no longer counts as valid."""


@dataclass(frozen=True, slots=True)
class ByToken:
    """By the interaction's token; a follow-up where `message` is empty.

    A token reaches the messages that were made with it, and the one whose button was pressed.
    """

    app: str
    token: str
    message: str = ""
    private: bool = False


@dataclass(frozen=True, slots=True)
class InChannel:
    """An ordinary message in a channel; a new one where `message` is empty."""

    channel: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class ByDirectMessage:
    """A new message to the person alone."""


@dataclass(frozen=True, slots=True)
class Unreachable:
    """The message cannot be sent."""


Destination: TypeAlias = ByToken | InChannel | ByDirectMessage | Unreachable


def where_to_post(
    address: ReplyAddress, index: int, now: float, *, moved: bool = False
) -> Destination:
    """The destination of a new part; `moved`: the reply continues in direct messages."""
    alone = address.private or address.token_only
    if address.has_token(now, MARGIN) and not moved:
        if index == 0 and not address.original:
            return ByToken(address.app, address.token, ORIGINAL, address.private)
        if alone:
            return ByToken(address.app, address.token, private=address.private)
    return _without_token(address, alone=alone)


def where_to_edit(
    address: ReplyAddress, index: int, message: str, now: float, *, moved: bool = False
) -> Destination:
    """The way to edit an existing message. `ByDirectMessage`: it cannot be edited, send a new
    one."""
    if ELSEWHERE in message:
        return InChannel(*message.split(ELSEWHERE))
    alone = address.private or address.token_only
    if address.has_token(now, MARGIN) and not moved and (alone or index == 0):
        ident = ORIGINAL if index == 0 else "" if message == address.original else message
        return ByToken(address.app, address.token, ident, address.private)
    way = _without_token(address, alone=alone)
    return InChannel(way.channel, message) if isinstance(way, InChannel) else way


def _without_token(address: ReplyAddress, *, alone: bool) -> Destination:
    if address.token_only:
        return Unreachable()
    return ByDirectMessage() if alone else InChannel(address.channel)


# -- tokens -------------------------------------------------------------------------------------

MAX_INVALID = 1024
YIELD_SECONDS = 0.5
"""The longest that a reply's message waits for acknowledgements."""
EXPIRY_MARGIN = 60.0
"""Seconds before a token's end at which a reply that depends on it is stopped or moved."""


@dataclass(slots=True)
class Acknowledgement:
    """Whether an interaction has been acknowledged."""

    given: bool = False


class InteractionTokens:
    """The tokens being acknowledged, and the invalid ones; by hash, never the token itself.

    A reply can be ready before its interaction is acknowledged, and Discord does not know the token
    until then. A token that was never acknowledged stays unknown.
    """

    def __init__(self) -> None:
        self._pending: dict[str, asyncio.Future[None]] = {}
        self._invalid = Bounded[str, None](MAX_INVALID)

    @contextlib.contextmanager
    def acknowledging(self, token: str) -> Iterator[Acknowledgement]:
        """Delay messages by this token until it is acknowledged; failing that, it is invalid."""
        key, outcome = token_key(token), Acknowledgement()
        self._pending[key] = asyncio.get_running_loop().create_future()
        try:
            yield outcome
        finally:
            if not outcome.given:
                self.mark_invalid(token)
            self._pending.pop(key).set_result(None)

    async def wait_for_acknowledgements(self) -> None:
        """Let pending acknowledgements go first: they are due in 3 s, a reply is not."""
        if self._pending:
            await asyncio.wait(list(self._pending.values()), timeout=YIELD_SECONDS)

    def mark_invalid(self, token: str) -> None:
        """Discord does not accept this token, now or later."""
        self._invalid[token_key(token)] = None

    async def address_of(self, delivery: Delivery) -> ReplyAddress:
        """A delivery's address, once its token is acknowledged; without the token if invalid."""
        address = ReplyAddress.unpack(delivery.note)
        if not address.token:
            return address
        key = token_key(address.token)
        if (pending := self._pending.get(key)) is not None:
            await asyncio.shield(pending)
        return replace(address, token="") if key in self._invalid else address


class TokenExpiry:
    """A timer for each reply that depends on its token.

    Before the token ends, a private reply moves to direct messages, and a reply that has no other
    way is stopped with a sentence.
    """

    def __init__(
        self,
        stop: Callable[[ThreadKey, str], Awaitable[object]],
        move: Callable[[Delivery, ReplyAddress], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        self._stop = stop
        self._move = move
        self._clock = clock
        self._timers: dict[str, asyncio.Task[None]] = {}

    def watch(self, delivery: Delivery, address: ReplyAddress) -> None:
        """Start a reply's timer, if it needs one; a second call changes nothing."""
        seconds = address.until - EXPIRY_MARGIN - self._clock()
        depends = address.token and (address.private or address.token_only)
        if depends and delivery.job not in self._timers and seconds > -EXPIRY_MARGIN:
            timer = self._expire(delivery, address, max(seconds, 0.0))
            self._timers[delivery.job] = asyncio.create_task(timer, name=f"token {delivery.job}")

    def cancel(self, job: str) -> None:
        """The reply has ended."""
        if timer := self._timers.pop(job, None):
            timer.cancel()

    def close(self) -> None:
        for job in list(self._timers):
            self.cancel(job)

    async def _expire(self, delivery: Delivery, address: ReplyAddress, seconds: float) -> None:
        await asyncio.sleep(seconds)
        try:
            if address.token_only:
                await self._stop(delivery.thread, delivery.job)
            else:
                await self._move(delivery, address)
        except discord.Forbidden:  # the person accepts no direct messages
            await self._stop(delivery.thread, delivery.job)
        except Exception as error:  # the next write, after the token's end, tries again
            log.warning("a reply was not moved in time", job=delivery.job, error=repr(error))


# -- when no reply comes ------------------------------------------------------------------------


class RefusalNotices:
    """Tells a person that Discord refuses their reply, by the first way that works.

    These are the interaction's token, the channel where only this reply is refused, and a direct
    message where the person has written to the bot directly before.
    """

    def __init__(
        self,
        api: DiscordApi,
        takes_part: Callable[[ThreadKey], Awaitable[bool]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self.takes_part = takes_part
        self._clock = clock

    async def send(self, person: str, address: ReplyAddress, code: int, nonce: str) -> None:
        """`address`: where the reply was to go; `code`: what Discord answered."""
        metrics.REFUSALS.labels(PLATFORM, str(code)).inc()
        text = say(sentence_for(code), address.locale, channel=f"<#{address.channel}>")
        try:
            if await self._by_token(address, text):
                return
            if code not in CLOSED_CHANNEL and await self._in_channel(address, text, nonce):
                return
            await self._directly(person, text, nonce)
        except (discord.HTTPException, StoreUnavailable) as error:
            log.info("nobody could be told of a refused reply", error=repr(error))

    async def _by_token(self, address: ReplyAddress, text: str) -> bool:
        if not address.has_token(self._clock()):
            return False
        with contextlib.suppress(discord.HTTPException):
            await self._api.follow_up(address.app, address.token, text, private=True)
            return True
        return False

    async def _in_channel(self, address: ReplyAddress, text: str, nonce: str) -> bool:
        if address.private or address.token_only:
            return False
        with contextlib.suppress(discord.HTTPException):
            await self._api.post(address.channel, text, nonce=nonce, notice=True)
            return True
        return False

    async def _directly(self, person: str, text: str, nonce: str) -> None:
        channel = await self._api.direct_channel(person, notice=True)
        if await self.takes_part(ThreadKey(PLATFORM, DIRECT, person, channel)):
            await self._api.post(channel, text, nonce=nonce, notice=True)
