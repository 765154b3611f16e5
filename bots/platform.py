"""The interface of a platform: incoming messages, and the protocol for replies.

`relay` does everything that platforms share; a platform only translates. A new platform is a folder
with a `convert.py` (payload -> `Incoming`, pure) and a class that implements `Platform`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from bots import strings
from bots.attachments import File, is_question
from bots.quotes import Quote
from core.errors import HenjiError
from core.queue_types import Delivery
from core.types import Cancelled, Done, Failed, Job, ThreadKey, Turn


@dataclass(frozen=True, slots=True)
class PlaceNames:
    """The names of a channel and of the bot in it."""

    channel: str
    bot: str


@dataclass(frozen=True, slots=True)
class Incoming:
    """One message as it came from a platform."""

    thread: ThreadKey
    turn: Turn
    addressed: bool
    """The message asks for an answer: read from the text and the place, never from the kind of
    event."""
    event_ids: tuple[str, ...] = ()
    """Ids under which the same event may be delivered again."""
    revision: str = ""
    """The platform's stamp of this edit of the message; empty for its first form."""
    note: Mapping[str, str] = field(default_factory=dict)
    """The platform's values for the delivery. ``locale`` is the person's language. A value that can
    post, or must not be kept, has a name that begins with ``secret_``."""
    has_past: bool = False
    """The thread has earlier messages, which `Platform.earlier` can read."""
    alone: bool = False
    """Never answered together with other messages of this person."""
    bulk: bool = False
    """Sent by a script: it is queued as if several people had asked, so that people come first."""
    roles: tuple[str, ...] = ()
    """The platform's ids of the author's roles there, for access and quotas."""
    stranger: bool = False
    """From another organisation that shares the channel."""
    interactive: bool = False
    """The caller of `submit` tells the person about a refusal: none is delivered."""
    can_vote: bool = False
    """The reply can have lasting buttons: it may be a duel."""
    quote: Quote | None = None
    """The quoted message: it is put in front of the turn's text, and is shortened
    where the thread has it."""
    files: tuple[File, ...] = ()
    """The files of the message. Its turn names them; `Platform.fetch` reads them later."""

    @property
    def job(self) -> str:
        """The id of the job that answers this form of the message."""
        return Job.id_for(self.thread, self.turn.id, self.revision)

    @property
    def asks(self) -> bool:
        """Whether there is anything to answer: words or a file that is read, here or in a quote."""
        quote = self.quote
        if quote is None or quote.turn is None or quote.without(self.turn.text):
            return is_question(self.turn.text, self.files)
        return is_question(quote.turn.text, self.files_with_quoted)

    @property
    def files_with_quoted(self) -> tuple[File, ...]:
        """The files of the message and of what it quotes."""
        return (*self.files, *(self.quote.files if self.quote else ()))


REFUSALS = frozenset({"not_allowed", "stranger", "quota", "quota_channel", "busy"})
"""The codes of messages that are refused because of access or quotas."""


def is_refusal(end: object) -> bool:
    """Whether a reply ended because its message was refused."""
    return isinstance(end, Failed) and end.code in REFUSALS


@dataclass(frozen=True, slots=True)
class Part:
    """One message of a reply: its complete current text, in standard Markdown."""

    index: int
    """The first message of a reply has index 0."""
    text: str
    last: bool
    """Only the last part has buttons."""
    note: str = ""
    """The bot's sentence under the last part, set apart from the model's words."""
    end: Done | Failed | Cancelled | None = None
    """The end of the reply; None while more may come."""

    @property
    def private(self) -> bool:
        """A refusal, which only the person who asked should see."""
        return is_refusal(self.end)


@dataclass(frozen=True, slots=True)
class Status:
    """A sign of life before there is text."""

    kind: Literal["queued", "thinking"]
    position: int = 0
    seconds: int = 0
    """The time that the model has been thinking; 0: it is not thinking."""

    def sentence(self, locale: str) -> str:
        """The sentence for people."""
        key = "thinking_for" if self.seconds else self.kind
        return strings.say(key, locale, position=self.position, seconds=self.seconds)


class PlatformRefused(HenjiError):
    """The platform refuses for good: the channel is gone, for example."""


class MessageTooLong(PlatformRefused):
    """The message is too long for the platform; `limit` is the next length to try."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"a message is too long: parts of {limit} come next")
        self.limit = limit


class EditRefused(PlatformRefused):
    """This message can no longer be edited. A new message may be posted in its place."""


class MessageGone(PlatformRefused):
    """The message was deleted, and not by the bot."""


class Platform(Protocol):
    """The methods that `relay` calls. A method that raises is retried with back-off, unless it
    raised `PlatformRefused`.

    `post` and `edit` get the whole text of a part; a platform with native streaming finds and
    appends the new text. `pace` returns when the next update of a delivery may be sent, so that
    the newest text is sent. A `final` update never waits for intermediate updates of others.
    """

    name: str
    part_length: int
    """The longest message, as the platform counts."""
    call_seconds: float
    """The longest time that a call of the platform takes."""

    def split(self, delivery: Delivery, text: str, limit: int) -> Sequence[str]:
        """The texts of a reply's messages, each at most `limit` long, by `bots.text.split`.

        Markdown that the platform cannot show is replaced first.
        """
        ...

    async def pace(self, delivery: Delivery, *, final: bool) -> None: ...

    async def status(self, delivery: Delivery, status: Status) -> None: ...

    async def post(self, delivery: Delivery, part: Part) -> str:
        """Send a new message and return the platform's id of it."""
        ...

    async def edit(self, delivery: Delivery, message: str, part: Part) -> None: ...

    async def remove(self, delivery: Delivery, message: str) -> None:
        """Remove a message that the reply no longer needs."""
        ...

    async def find(self, delivery: Delivery, index: int) -> str | None:
        """A message of this part that was posted but is not in `delivery.messages`.

        Return only a message with our marker: a second copy of a recorded part is deleted.
        """
        ...

    async def fetch(self, thread: ThreadKey, file: File, most: int) -> bytes:
        """A file's content: at most `most` bytes, and one more if it is longer.

        Only from the platform's hosts. Raises `PlatformRefused` if the file is not available.
        """
        ...

    async def names(self, thread: ThreadKey) -> PlaceNames:
        """The names of the channel and the bot there, for system prompts."""

    async def linked(self, thread: ThreadKey, address: str) -> Incoming | None:
        """The message behind a link, if everyone who sees an answer in this thread may read it;
        else None. The platform is asked about the permissions."""
        ...

    async def earlier(self, thread: ThreadKey, before: str, after: float) -> Sequence[Incoming]:
        """The messages in the thread before the turn `before` and after the time `after`."""
        ...
