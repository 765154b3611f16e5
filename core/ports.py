"""The seams of the core: what it asks of a store and of an engine, as Protocols.

`bots` and `storage` never meet outside the wiring in `bots/cli.py`: both know these protocols.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from core.rules import FREE, Permit, Rules
from core.types import (
    Delta,
    Done,
    FinishReason,
    Job,
    ReplyEvent,
    Sampling,
    ThreadKey,
    Turn,
)

# -- the engine ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One reply to generate. `prompt` is the whole prompt, as token ids."""

    id: str
    prompt: Sequence[int]
    sampling: Sampling
    max_new_tokens: int
    seed: int
    stop_ids: frozenset[int] = frozenset()
    """Ids that end the reply: they are not part of it."""
    stop_sequences: tuple[tuple[int, ...], ...] = ()
    """Runs of ids that end the reply; the run itself has been yielded when it is noticed."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What came out of the engine since the last chunk. The last chunk has a finish reason."""

    ids: tuple[int, ...] = ()
    text: str | None = None
    """Only from a remote server that gives no ids."""
    finish_reason: FinishReason | None = None
    cached_tokens: int = 0
    """In the first chunk: how many prompt tokens were not computed again."""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What an engine says about itself at a moment, for admission and for metrics."""

    running: int = 0
    waiting: int = 0
    places: int = 1
    """How many more requests it would take now."""
    cache_used: float = 0.0
    """The part of the key-value cache in use, 0 to 1."""
    tokens_per_second: float = 0.0
    time_to_first_token: float = 0.0
    """Seconds, of late."""
    prefix_hit_rate: float = 0.0


class Engine(Protocol):
    """Token ids in, token ids out.

    Closing the generator that `generate` returned cancels the request at the next step. Raises
    `EngineRefused` for a request that can never run, `EngineError` for one that may on a retry.
    """

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]: ...

    def stats(self) -> EngineStats: ...

    async def close(self) -> None: ...


# -- the queue ----------------------------------------------------------------------------------

Verdict: TypeAlias = Literal["ok", "cancelled", "fenced"]
"""What a fenced script says: go on; stop, nobody wants it; or stop, the job is another's now."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A message on its way into the queue."""

    thread: ThreadKey
    turn: Turn
    addressed: bool
    lane: str
    event_ids: tuple[str, ...] = ()
    revision: str = ""
    hold: float = 0.0
    """Seconds that a thread new to the bot waits for what was said before; 0 where nothing was."""
    bulk: bool = False
    """Not waited for by a person: it counts as several in the order of things."""
    alone: bool = False
    """Never answered together with other messages."""
    note: Mapping[str, str] = field(default_factory=dict)
    """Kept in the delivery for the platform."""
    permit: Permit = FREE


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a submission, an edit or a press of a button.

    ``queued``: a reply is owed. ``kept``: a message nobody is asked to answer. ``ignored``: such a
    message in a thread the bot has no part in, or a press that came too late. ``duplicate``: it
    was here before. ``refused``: the delivery ends at once with the sentence `code`.
    """

    outcome: Literal["queued", "kept", "ignored", "duplicate", "refused"]
    job: str | None = None
    position: int = 0
    code: str = ""
    new_thread: bool = False
    """Held, and waiting to be seeded."""
    until: float = 0.0
    """When what was refused can be asked again, in seconds since the epoch; 0: not known."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that a core holds under a lease, fenced by the thread's `gen`."""

    job: Job
    gen: int
    attempt: int
    epoch: int
    waited: float = 0.0
    """Seconds since the message came in."""


@dataclass(frozen=True, slots=True)
class Load:
    """How much there is to do, and for how many."""

    waiting: int
    """Threads of the lane that are ready to be answered."""
    owed: int
    """Replies owed, in all lanes."""
    cores: int
    dead: int
    """Jobs that were given up."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A job that was given up."""

    id: str
    job: str
    thread: str
    """As it stands in the store: it may be what was wrong."""
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
class Window:
    """A thread as its next prompt needs it: the history, then the mailbox up to the job's turn.

    `history` is the store's own copy: it holds until the thread's window is asked for again.
    """

    history: Sequence[StoredTurn]
    mailbox: Sequence[StoredTurn]
    version: int = 0


@dataclass(frozen=True, slots=True)
class Commit:
    """What a finished job leaves behind."""

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


class JobQueue(Protocol):
    """Replies that are owed, across processes. Every method is one atomic step.

    Raises `StoreUnavailable` where Redis does not answer or does not take writes.
    """

    # The adapters' side

    async def submit(self, submission: Submission, holder: str) -> Receipt: ...

    async def seed(self, thread: ThreadKey, turns: Sequence[Turn]) -> None:
        """Put what was said before in front of a held thread, and let it go on."""
        ...

    async def edit(
        self,
        thread: ThreadKey,
        turn: str,
        text: str,
        revision: str,
        lane: str,
        holder: str,
        permit: Permit = FREE,
    ) -> Receipt: ...

    async def delete(self, thread: ThreadKey, turn: str) -> Sequence[str]:
        """Forget a prompt with its reply, or a reply; the jobs that ended with it."""
        ...

    async def regenerate(
        self,
        thread: ThreadKey,
        reply: str,
        revision: str,
        author: str,
        lane: str,
        holder: str,
        *,
        resumes: bool = False,
        note: Mapping[str, str] | None = None,
        permit: Permit = FREE,
    ) -> Receipt:
        """Write a reply anew; `note` takes the place of the one that its delivery had."""
        ...

    async def cancel(self, thread: ThreadKey, job: str) -> bool:
        """Stop a reply; False where it has ended already."""
        ...

    async def owed(self, thread: ThreadKey) -> Mapping[str, str]:
        """The replies that a thread is owed, in order: job id -> who asked."""
        ...

    async def positions(self, thread: ThreadKey, jobs: Sequence[str]) -> Sequence[int]:
        """Where each job stands among those that wait; 0 for one that does not."""
        ...

    # The cores' side

    async def announce(self, lane: str, core: str, seconds: float) -> None: ...

    async def withdraw(self, lane: str, core: str) -> None: ...

    async def cores(self, lane: str) -> int: ...

    async def load(self, lane: str) -> Load: ...

    async def claim(self, lane: str, core: str, most: int) -> Sequence[Claim]:
        """The next jobs of a lane, in fair order, under leases; none where none is ready."""
        ...

    async def wait(self, lane: str, seconds: float) -> None:
        """Return when there may be something to claim, or after `seconds`."""
        ...

    async def renew(self, claims: Sequence[Claim]) -> Mapping[str, Verdict]:
        """Job id -> verdict, in one call a bucket."""
        ...

    async def publish(self, claim: Claim, delta: Delta) -> Verdict: ...

    async def commit(self, claim: Claim, commit: Commit) -> Verdict: ...

    async def fail(
        self, claim: Claim, code: str, message: str, *, retry: bool, forget: bool = False
    ) -> Verdict:
        """End an attempt: to be retried with back-off, or for good; `forget` drops its turn."""
        ...

    async def dead(self, most: int) -> Sequence[DeadLetter]:
        """Jobs that were given up, the newest first."""
        ...

    async def requeue(self, letter: DeadLetter, lane: str) -> Receipt:
        """Owe the reply again; any adapter of its platform will deliver it."""
        ...

    async def sweep(self) -> int:
        """Do what time alone brings about; how many leases were found to have ended."""
        ...

    async def release(self, claim: Claim) -> Verdict:
        """Hand a job back, at the head of its thread, as if it had not been claimed."""
        ...


# -- what is remembered -------------------------------------------------------------------------


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
    """What a reset is about, beyond one thread: a channel, or with no channel a whole space."""

    platform: str
    space: str
    channel: str | None = None


class History(Protocol):
    """What the bot remembers of its threads."""

    async def window(self, claim: Claim) -> Window: ...

    async def turns(self, thread: ThreadKey) -> Sequence[StoredTurn]: ...

    def threads(self, platform: str | None = None) -> AsyncIterator[ThreadSummary]: ...

    async def reset(self, thread: ThreadKey, by: str) -> int:
        """Forget a thread; how many turns that were."""
        ...

    async def reset_place(self, place: Place, by: str) -> None:
        """Forget all threads of a channel or a space, and end what is under way there."""
        ...

    async def forget(self, place: Place, person: str, by: str = "") -> int:
        """Forget what a person wrote in a space, and the replies to it; how many turns.

        `by`: who wanted it; by default they themselves.
        """
        ...

    def export(self, place: Place, person: str) -> AsyncIterator[tuple[ThreadKey, StoredTurn]]:
        """What a person wrote in a space, and the replies to it."""
        ...

    async def takes_part(self, thread: ThreadKey) -> bool: ...


# -- who may, and who did ----------------------------------------------------------------------


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


class RuleBook(Protocol):
    """The rules of places, as they hold at this moment."""

    async def rules(self, thread: ThreadKey) -> Rules:
        """What holds in a thread."""
        ...

    async def set_here(self, place: Place) -> Rules:
        """What admins have set for a channel or a space itself."""
        ...

    async def change(self, place: Place, name: str, value: Any, by: str) -> None:
        """Set a rule, or with None go back to what holds without it."""
        ...


class Audit(Protocol):
    """The record of what was done to what is remembered. It has a lifetime of its own."""

    async def note(self, place: Place, by: str, act: str, detail: str = "") -> None: ...

    async def entries(self, place: Place, most: int) -> Sequence[AuditEntry]:
        """What was done in a channel or a space, the newest first."""
        ...


# -- deliveries ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Delivery:
    """A reply on its way to the people: who holds it, and which messages it has become."""

    job: str
    thread: ThreadKey
    turn: str
    author: str
    token: int
    """Fences this holder against the next."""
    messages: tuple[str, ...] = ()
    """The platform's ids of the messages of this reply, in order."""
    posting: int | None = None
    """The part that a process was about to post when it last wrote: it may be there."""
    note: Mapping[str, str] = field(default_factory=dict)
    """What the platform wanted to know; names that begin with ``secret_`` go at the close."""
    replaces: str | None = None
    """The reply whose messages this one takes over."""


class Deliveries(Protocol):
    """Leases on deliveries, and the reply events that they follow."""

    async def take(self, platform: str, holder: str) -> Sequence[Delivery]:
        """Those that nobody holds, now held by `holder`."""
        ...

    async def get(self, thread: ThreadKey, job: str) -> Delivery | None: ...

    async def renew(self, held: Sequence[Delivery]) -> Mapping[str, bool]: ...

    async def hand_back(self, held: Sequence[Delivery]) -> None:
        """End the leases now, for another process to go on."""
        ...

    async def record(
        self, delivery: Delivery, messages: Sequence[str], posting: int | None
    ) -> bool:
        """Write down what was posted, or is about to be; False where the lease was lost."""
        ...

    async def close(self, delivery: Delivery, messages: Sequence[str]) -> bool: ...

    async def reopen(self, delivery: Delivery) -> None:
        """Have the last reply that stands in these messages written again, by whoever takes it."""
        ...

    async def closed(self, thread: ThreadKey, job: str) -> bool:
        """Whether nobody writes to the messages of this reply any more."""
        ...

    async def locate(self, place: ThreadKey, message: str) -> tuple[ThreadKey, str] | None:
        """The thread and turn of a platform's message; `place` says platform, space, channel."""
        ...

    async def listen(self, platform: str) -> None:
        """Wake the followers of this process, for ever."""
        ...

    def follow(self, delivery: Delivery) -> AsyncIterator[ReplyEvent]:
        """The events of a reply from its first on, until its end."""
        ...


class Leases(Protocol):
    """Things that one process at a time may be: a shard's owner, say."""

    async def hold(self, name: str, holder: str, seconds: float) -> bool:
        """Take or renew; False where another holds it."""
        ...

    async def give_up(self, name: str, holder: str) -> None: ...


class Vault(Protocol):
    """What a platform keeps for itself, such as the tokens of its installations."""

    async def put(self, name: str, text: str, seconds: float | None = None) -> None: ...

    async def get(self, name: str) -> str | None: ...

    async def take(self, name: str) -> str | None:
        """What was kept, once: for whoever asks first."""
        ...
