"""The interface of a platform: the messages that come in, and the protocol for replies.

`relay` does everything that platforms share; a platform only translates. A new platform is a folder
with a `convert.py` (payload -> `Incoming`, pure) and a class that implements `Platform`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from bots import strings
from bots.attachments import File
from bots.quotes import Quote
from core.errors import HenjiError
from core.queue_types import Delivery
from core.types import Cancelled, Done, Failed, ThreadKey, Turn


@dataclass(frozen=True, slots=True)
class PlaceNames:
    """What a channel and the bot are called there."""

    channel: str
    bot: str


@dataclass(frozen=True, slots=True)
class Incoming:
    """One message as it came from a platform."""

    thread: ThreadKey
    turn: Turn
    addressed: bool
    """The bot is asked for an answer: read from the text and the place, never from the kind of
    event."""
    event_ids: tuple[str, ...] = ()
    """Ids that this very event may come again under."""
    revision: str = ""
    """The platform's stamp of this edit of the message; empty for its first form."""
    note: Mapping[str, str] = field(default_factory=dict)
    """What this platform will want to know when it delivers. ``locale`` is the person's language;
    what can post or must not be kept has a name that begins with ``secret_``."""
    has_past: bool = False
    """Something was said in this thread before, which `Platform.earlier` can read."""
    alone: bool = False
    """Never answered together with other messages of this person."""
    bulk: bool = False
    """A script asks: it counts as several in the order in which people are answered."""
    roles: tuple[str, ...] = ()
    """The platform's ids of the author's roles there, for access and quotas."""
    stranger: bool = False
    """From another organisation that shares the channel."""
    interactive: bool = False
    """Who calls `submit` tells the person of a refusal at once: none is delivered."""
    can_vote: bool = False
    """The reply can have buttons that stay: it may be a duel."""
    quote: Quote | None = None
    """The quoted message: it is put in front of the turn's text, and is shortened
    where the thread has it."""
    files: tuple[File, ...] = ()
    """The files of the message. Its turn names them; `Platform.fetch` reads them later."""


REFUSALS = frozenset({"not_allowed", "stranger", "quota", "quota_channel", "busy"})
"""The codes of messages that are not taken because of who asks, or how much."""


def is_refusal(end: object) -> bool:
    """Whether a reply ended because its message was not taken."""
    return isinstance(end, Failed) and end.code in REFUSALS


@dataclass(frozen=True, slots=True)
class Part:
    """One message's worth of a reply: its text as it shall stand now, in standard Markdown."""

    index: int
    """The first message of a reply has index 0."""
    text: str
    last: bool
    """Controls stand under the last part only."""
    note: str = ""
    """A sentence of the bot's own, to stand apart from the model's words under the last part."""
    end: Done | Failed | Cancelled | None = None
    """How the reply ended; None while more may come."""

    @property
    def private(self) -> bool:
        """A refusal: only the person who asked sees it, where the platform can do so."""
        return is_refusal(self.end)


@dataclass(frozen=True, slots=True)
class Status:
    """A sign of life before there is text."""

    kind: Literal["queued", "thinking"]
    position: int = 0
    seconds: int = 0
    """For how long the model has been thinking; 0 where it has not begun."""

    def sentence(self, locale: str) -> str:
        """As people read it."""
        key = "thinking_for" if self.seconds else self.kind
        return strings.say(key, locale, position=self.position, seconds=self.seconds)


class PlatformRefused(HenjiError):
    """The platform will not do it, however often it is asked: the channel is gone, say."""


class MessageTooLong(PlatformRefused):
    """The platform takes no message of this length; `limit` is the next to try."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"a message is too long: parts of {limit} come next")
        self.limit = limit


class EditRefused(PlatformRefused):
    """This message can no longer be edited. A new message may be posted in its place."""


class MessageGone(PlatformRefused):
    """The message was deleted, by somebody else than the bot."""


class Platform(Protocol):
    """What `relay` asks of a platform. A method that raises is tried again, with back-off, unless
    it raised `PlatformRefused`.

    `post` and `edit` get the whole text of a part; a platform with native streaming appends what
    is new by itself. `pace` returns when the next update of a delivery may be sent, so that the
    text sent after it is the newest there is; `final` is never made to wait for other replies'
    intermediate updates.
    """

    name: str
    part_length: int
    """The most that one message holds, as the platform counts."""
    call_seconds: float
    """No call of the platform is under way for longer than this."""

    def split(self, delivery: Delivery, text: str, limit: int) -> Sequence[str]:
        """The messages that a reply becomes, each at most `limit` long, by `bots.text.split`.

        Markdown that the platform does not show is replaced before.
        """
        ...

    async def pace(self, delivery: Delivery, *, final: bool) -> None: ...

    async def status(self, delivery: Delivery, status: Status) -> None: ...

    async def post(self, delivery: Delivery, part: Part) -> str:
        """Send a new message and return the platform's id of it."""
        ...

    async def edit(self, delivery: Delivery, message: str, part: Part) -> None: ...

    async def remove(self, delivery: Delivery, message: str) -> None:
        """Take away a message that a shorter reply does not need any more."""
        ...

    async def find(self, delivery: Delivery, index: int) -> str | None:
        """The message of this part that was posted and not recorded: none of `delivery.messages`.

        Where the part has one among those, another is taken away: it must be no guess.
        """
        ...

    async def fetch(self, thread: ThreadKey, file: File, most: int) -> bytes:
        """A file's content: at most `most` bytes, and one more where there are more.

        Only from the platform's own hosts. Raises `PlatformRefused` where it is not to be had.
        """
        ...

    async def names(self, thread: ThreadKey) -> PlaceNames:
        """What the channel and the bot are called there: for system prompts that name them."""

    async def linked(self, thread: ThreadKey, address: str) -> Incoming | None:
        """The message that an address links to, where everyone who will see an answer in this
        thread may read it; None anywhere else. This asks the platform, and never guesses."""
        ...

    async def earlier(self, thread: ThreadKey, before: str, after: float) -> Sequence[Incoming]:
        """The messages in the thread before the turn `before` and after the time `after`."""
        ...
