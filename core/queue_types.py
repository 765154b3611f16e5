"""The data that passes through the core's ports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from core.access_policy import OPEN_PERMIT, DayCounts, Permit
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
    """The message that another replies to, and the other's text in each form."""

    id: str
    """The platform's id of the quoted message."""
    turn: Turn | None
    """The quoted message, which becomes a turn before the message if the thread lacks it; None: it
    stays in the message's text."""
    pointing: str
    """The message's text if the thread has the quoted message."""
    quoting: str
    """The message's text with the whole quote."""


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
    """Deliver a refusal to the person, once in a while in each place. False: the caller tells them,
    or nobody does."""
    quote: QuotedTurn | None = None
    """The message that it replies to, which is not in the turn's text."""
    unread: bool = False
    """Its files are not read yet: it is answered after `JobQueue.attach`."""
    counts_tokens: bool = False
    """Count the tokens of the texts in the turn instead of answering it."""
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
    """The person who wants it, who is charged. The asker of the question may still stop it."""
    resumes: bool = False
    """Continue from where the reply stopped, instead of answering again."""
    truncates: bool = False
    """`reply` refused a message as too long: answer the beginning that fits."""
    note: Mapping[str, str] | None = None
    """For the platform, instead of the note of the reply's delivery."""
    lane: str = ""
    permit: Permit = OPEN_PERMIT


@dataclass(frozen=True, slots=True)
class Receipt:
    """The result of a submission, an edit or a press of a button.

    ``queued``: a reply will come. ``kept``: stored, without an answer. ``ignored``: not stored, as
    the thread is not the bot's, or a press that came too late. ``duplicate``: it came before.
    ``refused``: the delivery ends at once with the sentence `code`.
    """

    outcome: Literal["queued", "kept", "ignored", "duplicate", "refused"]
    job: str | None = None
    """None if a refusal is not delivered: the person was just told, or the caller tells them."""
    position: int = 0
    """In the queue; for a refusal as ``busy``, the number of waiting messages."""
    code: str = ""
    new_thread: bool = False
    """It waits for its earlier messages (`JobQueue.seed`)."""
    until: float = 0.0
    """When a refused message can be sent again, in seconds since the epoch; 0: unknown."""
    unread: bool = False
    """The message has new files, which must be read (`JobQueue.attach`)."""


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
    """The window, if the store has read it already; only for `History.window`."""


@dataclass(frozen=True, slots=True)
class Load:
    """The waiting work, and the cores of a lane."""

    waiting: int
    """Threads of the lane that are ready."""
    outstanding: int
    """Replies that are not finished, in all lanes."""
    cores: int
    dead: int
    """Jobs that were given up."""


@dataclass(frozen=True, slots=True)
class Spent(DayCounts):
    """What was used today, counted as a `Quota` limits it."""

    until: float = 0.0
    """When the next day begins, in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class DailyTotal:
    """What one person, channel or model has used in one day."""

    day: str
    """As in ``2026-11-29``, in the time zone of the quotas."""
    who: str
    messages: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Sweep:
    """The result of one sweep over everything that is due."""

    taken_over: int
    """Expired leases."""
    due_in: float
    """Seconds until something is due; infinity: never."""


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
    """The times of its start and of this report."""
    state: str = ""
    """Why it cannot serve; empty: it can."""
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
    """A stored turn. `tokens`: counted by the tokenizer `fingerprint`, or None."""

    turn: Turn
    tokens: int | None = None
    fingerprint: str = ""
    answers: str | None = None
    """For a reply: the id of the turn that it answers."""
    finish_reason: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class PromptRoom:
    """The room for turns in a prompt of the model that gave a thread's newest reply."""

    room: int
    """Tokens of turns that fit into a prompt."""
    low: int
    """The tokens that are kept when not all fit."""
    fingerprint: str
    """Of the tokenizer that counts."""
    user_first: bool = False
    """A prompt begins with a turn of a user."""


@dataclass(frozen=True, slots=True)
class Window:
    """The turns for a thread's next prompt: the history, then the mailbox up to the job's turn.

    `history` is the store's copy. It is valid until the thread's window is read again.
    """

    history: Sequence[StoredTurn]
    mailbox: Sequence[StoredTurn]
    version: int = 0


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """The number of tokens of each text, and the model's context length."""

    tokens: tuple[int, ...]
    context: int


@dataclass(frozen=True, slots=True)
class Trace:
    """The record of a generation: its input and output, as turns and as ids."""

    turns: tuple[Turn, ...]
    text: str
    model: str
    system: str = ""
    prompt_ids: tuple[int, ...] = ()
    reply_ids: tuple[int, ...] = ()
    """With the end token, if there is one. Empty if the ids do not match the text."""
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
    """None if no text was shown."""
    fingerprint: str
    """Of the tokenizer that counted."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Turn id -> tokens, for turns whose count was missing or foreign."""
    version: int = 0
    """Of the window that was read: counts of turns that were edited since are dropped."""
    evict: Sequence[str] = ()
    """Old turns that are removed from the history."""
    counts_reply: bool = True
    """Whether the reply's tokens are its turn's: the tokens of a thought are not."""
    prompt_room: PromptRoom | None = None
    """Of the model in this place; None: unknown."""
    cut: Turn | None = None
    """The answered turn, if only this beginning of it was read."""
    model: str = ""
    """The model and its sampling: kept with the delivery."""
    sampling: Sampling | None = None
    trace: Trace | None = None
    """Set where votes are collected for training."""


@dataclass(frozen=True, slots=True)
class Branching:
    """What came of copying a thread. ``gone``: the turn is not remembered; ``full``: there are too
    many copies; ``duplicate``: it was done, or asked for, before."""

    outcome: Literal["ok", "duplicate", "gone", "full"]
    evicted: bool = False
    """Older turns had left the thread's memory before."""


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
        """A thread key for the rules of this place."""
        return ThreadKey(self.platform, self.space, self.channel or "-", "-")

    @property
    def whole_space(self) -> Place:
        return Place(self.platform, self.space)

    def __str__(self) -> str:
        return ":".join(str(self.any_thread).split(":")[: 3 if self.channel else 2])


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """An entry of the audit log."""

    at: float
    by: str
    """A person's id, or ``operator:`` and a user name."""
    act: str
    """``reset``, ``forget``, ``config``, ``read``, ``export``, ``requeue``."""
    place: str
    """A thread, a channel or a space, as they are written."""
    detail: str = ""


Rating: TypeAlias = Literal["good", "bad"]


@dataclass(frozen=True, slots=True)
class Sample:
    """A reply that people have judged, with the record of its generation."""

    thread: ThreadKey
    job: str
    asker: str
    authors: tuple[str, ...]
    """All people whose words are in it."""
    traces: tuple[Trace | None, ...]
    """One; or a duel's two answers."""
    votes: Mapping[str, str]
    """Person -> ``good`` or ``bad``; of a duel ``1``, ``2``, ``tie`` or ``bad``."""
    replaced: str = ""
    """The reply that was regenerated into this one."""


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
    """The model that wrote it; empty: no longer known."""
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
    """The fencing token of this holder."""
    messages: tuple[str, ...] = ()
    """The platform's ids of the messages of this reply, in order."""
    posting: int | None = None
    """The part that a process was about to post: it may have been posted. If it is among the
    messages, it may have been posted twice."""
    position: int = 0
    """Its position in the queue when this process opened it; 0: read its events from the stream."""
    note: Mapping[str, str] = field(default_factory=dict)
    """The platform's values; those named ``secret_…`` are deleted when the delivery is closed."""
    replaces: str | None = None
    """The reply whose messages this one takes over."""
    asker: str = ""
    """The person who asked the question, if not `author`, who is charged."""

    @property
    def owner(self) -> str:
        """The person who may stop and regenerate the reply; admins may too."""
        return self.asker or self.author
