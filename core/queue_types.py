"""The data that passes through the core's ports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from core.access_policy import OPEN_PERMIT, Permit
from core.place_rules import Persona
from core.types import (
    Done,
    FinishReason,
    Job,
    Sampling,
    ThreadKey,
    Turn,
    Verdict,
)

FenceResult: TypeAlias = Literal["ok", "cancelled", "fenced"]
"""The result of a fenced script: go on; the job was cancelled; another core has taken over."""


@dataclass(frozen=True, slots=True)
class QuotedTurn:
    """What a message is a reply to, and how the message reads with it."""

    id: str
    """The platform's id of the quoted message."""
    turn: Turn | None
    """The quoted message, as a turn before the message where the thread does not have it; None: it
    stands among the words."""
    pointing: str
    """The message's text where the thread has what it quotes."""
    quoting: str
    """The message's text with the quote among its words."""


@dataclass(frozen=True, slots=True)
class DuelSettings:
    """A question is answered twice, and people vote."""

    lane: str
    """Of the second answer."""
    votes: int
    """The models are named after so many votes,"""
    seconds: float
    """or after this time."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A message on its way into the queue."""

    thread: ThreadKey
    turn: Turn
    addressed: bool
    lane: str
    event_ids: tuple[str, ...] = ()
    revision: str = ""
    backfill_wait: float = 0.0
    """Seconds that a thread new to the bot waits for its earlier messages; 0: it has none."""
    bulk: bool = False
    """Sent by a script: it is queued as if several people had asked, so that people come first."""
    alone: bool = False
    """Never answered together with other messages."""
    note: Mapping[str, str] = field(default_factory=dict)
    """Kept in the delivery for the platform."""
    permit: Permit = OPEN_PERMIT
    tell: bool = True
    """A refusal is delivered to the person, once in a place and a while. False: the caller tells
    it, or nobody does."""
    quote: QuotedTurn | None = None
    """What it is a reply to; the turn's text is without it."""
    unread: bool = False
    """Its files are still to be read: it is answered once they are there (`JobQueue.attach`)."""
    counts_tokens: bool = False
    """Count the tokens of the texts in the turn, rather than answer it."""
    persona: Persona | None = None
    """For this reply alone, over the rules of the place."""
    counts_as_message: bool = True
    """It counts against the author's quota of messages. Its tokens always count."""
    duel: DuelSettings | None = None
    """None: one answer."""


@dataclass(frozen=True, slots=True)
class Regeneration:
    """The regeneration of a reply in its place, or its continuation."""

    thread: ThreadKey
    reply: str
    revision: str
    """Tells one press of the button from another."""
    author: str
    """Who wants it: it counts against their share. Who asked the question governs it."""
    resumes: bool = False
    """Continue from where the reply stopped, instead of answering again."""
    truncates: bool = False
    """`reply` refused a message as too long: answer the beginning that fits."""
    note: Mapping[str, str] | None = None
    """For the platform, in place of the note that the reply's delivery had."""
    lane: str = ""
    permit: Permit = OPEN_PERMIT


@dataclass(frozen=True, slots=True)
class Receipt:
    """The result of a submission, an edit or a press of a button.

    ``queued``: a reply is owed. ``kept``: a message nobody is asked to answer. ``ignored``: such a
    message in a thread the bot has no part in, or a press that came too late. ``duplicate``: it
    was here before. ``refused``: the delivery ends at once with the sentence `code`.
    """

    outcome: Literal["queued", "kept", "ignored", "duplicate", "refused"]
    job: str | None = None
    """None where a refusal is not delivered: it was told a moment ago, or the caller tells it."""
    position: int = 0
    """Among those that wait; where that is refused as ``busy``, how many wait already."""
    code: str = ""
    new_thread: bool = False
    """It waits for its earlier messages (`JobQueue.seed`)."""
    until: float = 0.0
    """When what was refused can be asked again, in seconds since the epoch; 0: not known."""
    unread: bool = False
    """The message has other files now, which are to be read (`JobQueue.attach`)."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A job leased by a core, fenced by the thread's `gen`."""

    job: Job
    gen: int
    attempt: int
    epoch: int
    waited: float = 0.0
    """Seconds since the message came in."""
    window: Any = field(default=None, compare=False, repr=False)
    """What the store has read for it already, for `History.window` alone; None: nothing."""


@dataclass(frozen=True, slots=True)
class Load:
    """The work that waits, and the cores that do it."""

    waiting: int
    """Threads of the lane that are ready to be answered."""
    outstanding: int
    """Replies that are not finished, in all lanes."""
    cores: int
    dead: int
    """Jobs that were given up."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """The result of one look at everything that falls due."""

    taken_over: int
    """Expired leases."""
    due_in: float
    """Seconds until something falls due; infinity for never."""


@dataclass(frozen=True, slots=True)
class ProcessReport:
    """A process's report about itself, written every few seconds."""

    name: str
    """Unique among the processes of a Redis."""
    part: str
    """``core``, or the platform."""
    lane: str
    version: str
    since: float
    at: float
    """When it started, and when it said this."""
    state: str = ""
    """Why it cannot serve; empty if it can."""
    replies: int = 0
    """Replies that a core committed in the last minute."""
    error: str = ""
    error_at: float = 0.0
    """The newest error that it logged."""


@dataclass(frozen=True, slots=True)
class ServerState:
    """The state of the Redis server."""

    name: str
    memory: int
    """Bytes."""
    limit: int
    """Bytes; 0: none."""
    evicted: int
    """Keys that were evicted for lack of memory."""
    file_ok: bool
    """The last write to the append-only file and the last snapshot worked."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A job that was given up."""

    id: str
    job: str
    thread: str
    """As it is stored: it may be malformed."""
    turn: str
    author: str
    attempts: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class StoredTurn:
    """A turn as the store has it: `tokens` counted by the tokenizer `fingerprint`, or None."""

    turn: Turn
    tokens: int | None = None
    fingerprint: str = ""
    answers: str | None = None
    """For a reply: the id of the turn that it answers."""
    finish_reason: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class Reach:
    """How far back the model of a thread's newest reply reads."""

    room: int
    """Tokens of turns that fit into a prompt."""
    low: int
    """Those that stay where not all fit."""
    fingerprint: str
    """Of the tokenizer that counts."""
    user_first: bool = False
    """A prompt begins with a turn of a user."""


@dataclass(frozen=True, slots=True)
class Window:
    """A thread as its next prompt needs it: the history, then the mailbox up to the job's turn.

    `history` is the store's own copy: it holds until the thread's window is asked for again.
    """

    history: Sequence[StoredTurn]
    mailbox: Sequence[StoredTurn]
    version: int = 0


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """The tokens of texts, and of what the model reads and writes at most."""

    tokens: tuple[int, ...]
    context: int


@dataclass(frozen=True, slots=True)
class Trace:
    """How a reply was made: what was read and written, as turns and as ids."""

    turns: tuple[Turn, ...]
    text: str
    model: str
    system: str = ""
    prompt_ids: tuple[int, ...] = ()
    reply_ids: tuple[int, ...] = ()
    """With the reply's end, if it has one. Empty where the ids are not the text's."""
    revision: str = ""
    adapter: str = ""
    fingerprint: str = ""
    """Of the dialogue that made the ids."""
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Commit:
    """The results of a finished job."""

    done: Done
    reply: Turn | None
    """None where nothing was shown."""
    fingerprint: str
    """Of the tokenizer that counted."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Turn id -> tokens, for turns whose count was missing or foreign."""
    version: int = 0
    """Of the window that was read: a count of a turn edited since then is not written."""
    evict: Sequence[str] = ()
    """Old turns that fall from the history."""
    counts_reply: bool = True
    """Whether the reply's tokens are those of its turn: a thought before it is none of them."""
    reach: Reach | None = None
    """Of the model in this place; None: not known."""
    cut: Turn | None = None
    """The answered turn, where only this beginning of it was read."""
    model: str = ""
    """The model and its sampling: kept with the delivery."""
    sampling: Sampling | None = None
    trace: Trace | None = None
    """Where what people vote on is collected."""


@dataclass(frozen=True, slots=True)
class ThreadSummary:
    thread: ThreadKey
    turns: int
    tokens: int
    waiting: int
    epoch: int
    last_at: float


@dataclass(frozen=True, slots=True)
class Place:
    """A channel, or with no channel a whole space. Prints as ``slack:T024:C123``."""

    platform: str
    space: str
    channel: str | None = None

    @property
    def any_thread(self) -> ThreadKey:
        """A thread that lies there, for what holds in all of them."""
        return ThreadKey(self.platform, self.space, self.channel or "-", "-")

    def __str__(self) -> str:
        return ":".join(str(self.any_thread).split(":")[: 3 if self.channel else 2])


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who did what, where, when."""

    at: float
    by: str
    """A person's id, or ``operator:`` and the name of who ran a command."""
    act: str
    """``reset``, ``forget``, ``config``, ``read``, ``export``, ``requeue``."""
    place: str
    """A thread, a channel or a space, as they are written."""
    detail: str = ""


Rating: TypeAlias = Literal["good", "bad"]


@dataclass(frozen=True, slots=True)
class Sample:
    """A reply that people have judged, with how it was made."""

    thread: ThreadKey
    job: str
    asker: str
    authors: tuple[str, ...]
    """Everybody whose words are in it."""
    traces: tuple[Trace | None, ...]
    """One; or a duel's two answers."""
    votes: Mapping[str, str]
    """Person -> ``good`` or ``bad``; of a duel ``1``, ``2``, ``tie`` or ``bad``."""
    replaced: str = ""
    """The reply that somebody had written anew, and this is the result."""


@dataclass(frozen=True, slots=True)
class DuelAnswer:
    """One of the two answers of a duel."""

    model: str
    text: str


@dataclass(frozen=True, slots=True)
class StoredDuel:
    """A duel and its votes."""

    thread: ThreadKey
    job: str
    asker: str
    question: str
    """The id of its turn."""
    answers: tuple[DuelAnswer, DuelAnswer]
    """In the order in which they are shown: A and B."""
    votes: Mapping[str, Verdict]
    """By person."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """A person's rating of a reply."""

    at: float
    by: str
    rating: Rating
    reason: str
    thread: ThreadKey
    job: str
    """The reply's id."""
    model: str
    """Which model wrote it; empty where that is not known any more."""
    sampling: Sampling | None
    seed: int | None


OPENED = 1
"""The token of a new delivery: with another one, another process has taken over."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A reply on its way to the platform: its holder and its messages."""

    job: str
    thread: ThreadKey
    turn: str
    author: str
    token: int
    """Fences this holder against the next."""
    messages: tuple[str, ...] = ()
    """The platform's ids of the messages of this reply, in order."""
    posting: int | None = None
    """The part that a process was about to post when it last wrote: it may be there. Where that
    part is among the messages, it may be there twice."""
    position: int = 0
    """Its place in the queue when this process opened it; 0: read its events so far."""
    note: Mapping[str, str] = field(default_factory=dict)
    """The platform's own values; those named ``secret_…`` are deleted at the close."""
    replaces: str | None = None
    """The reply whose messages this one takes over."""
    asker: str = ""
    """Whose question is answered, where that is not `author`, whom the reply is charged to."""

    @property
    def owner(self) -> str:
        """The person who may stop and regenerate the reply; admins may too."""
        return self.asker or self.author
