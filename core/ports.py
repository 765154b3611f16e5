"""The ports of the core: the protocols of a store and of an engine.

`bots` and `storage` know these protocols and never import each other.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from core.access_policy import OPEN_PERMIT, Permit, Quota
from core.engine_types import Chunk, EngineStats, GenerationRequest
from core.place_rules import Choice, Rules, ThreadRules
from core.queue_types import (
    AuditEntry,
    Branching,
    Claim,
    Commit,
    DeadLetter,
    Delivery,
    FenceResult,
    Load,
    Opinion,
    Place,
    ProcessReport,
    PromptRoom,
    Rating,
    Receipt,
    Regeneration,
    Sample,
    ServerState,
    Spent,
    StoredTurn,
    Submission,
    Sweep,
    ThreadSummary,
    Window,
)
from core.types import (
    Delta,
    ReplyEvent,
    ThreadKey,
    Turn,
    Verdict,
)

# -- the engine ---------------------------------------------------------------------------------


class Engine(Protocol):
    """Token ids in, token ids out.

    Closing the generator that `generate` returned cancels the request at the next step. Raises
    `EngineRefused` for a request that can never run, `EngineError` for one that may on a retry.
    """

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]: ...

    def stats(self) -> EngineStats: ...

    async def close(self) -> None: ...


# -- the queue ----------------------------------------------------------------------------------


class JobQueue(Protocol):
    """The queue of replies to write, shared by all processes. Every method is one atomic step.

    Raises `StoreUnavailable` where Redis does not answer or does not take writes.
    """

    # The adapters' side

    async def submit(self, submission: Submission, holder: str) -> Receipt: ...

    async def seed(self, thread: ThreadKey, turns: Sequence[Turn]) -> None:
        """Insert the earlier messages of a thread at its beginning, and end the wait for them."""
        ...

    async def attach(self, thread: ThreadKey, turn: Turn, job: str = "") -> bool:
        """Put the text of a message's files into its turn, and start its job; False if the turn is
        not kept any more, has the text already, or has other files now."""
        ...

    async def turn_away(
        self,
        thread: ThreadKey,
        job: str,
        code: str,
        message: str,
        sources: Sequence[str] = (),
        quoted: str = "",
    ) -> bool:
        """End a job that waits for its files with the sentence `code`, and forget its message and
        the turn `quoted`; False if it does not wait, or waits for other files than `sources`."""
        ...

    async def edit(
        self,
        thread: ThreadKey,
        turn: str,
        text: str,
        revision: str,
        lane: str,
        holder: str,
        permit: Permit = OPEN_PERMIT,
        files: Turn | None = None,
        note: Mapping[str, str] | None = None,
        *,
        author: str = "",
        copied: bool = False,
        expected: bool = True,
    ) -> Receipt:
        """A message was edited by its `author`. `files`: a turn with its new files, not yet read;
        None: unchanged. `note`: the note for reading them (`Submission.note`); None: there are none
        to read. `copied`: the thread has a copy of the message, and nobody is answered. `expected`:
        the message may come later, in a thread without the bot, too."""
        ...

    async def delete(self, thread: ThreadKey, turn: str) -> Sequence[str]:
        """Forget a prompt with its reply, or a reply; the jobs that ended with it."""
        ...

    async def regenerate(self, wanted: Regeneration, holder: str) -> Receipt: ...

    async def cancel(self, thread: ThreadKey, job: str) -> bool:
        """Stop a reply; False where it has ended already."""
        ...

    async def open_jobs(self, thread: ThreadKey) -> Mapping[str, str]:
        """The open jobs of a thread, in order: job id -> the person who asked."""
        ...

    async def spent(self, thread: ThreadKey, person: str, quota: Quota) -> Spent:
        """What a person and a channel have used today, as quotas count it."""
        ...

    async def positions(self, thread: ThreadKey, jobs: Sequence[str]) -> Sequence[int]:
        """The position of each job in the queue; 0: it does not wait."""
        ...

    # The cores' side

    async def announce(self, lane: str, core: str, seconds: float, reads: int = 0) -> None:
        """`reads`: the tokens that the model reads in one prompt; 0: not known."""
        ...

    async def withdraw(self, lane: str, core: str) -> None: ...

    async def cores(self, lane: str) -> int: ...

    async def serving(self, lane: str) -> Sequence[str]:
        """The names of the cores that serve a lane. After an ``@``, the host of the model's
        server, if that is another one."""
        ...

    async def reads(self, lane: str) -> int:
        """The tokens that the model of a lane reads in one prompt; 0: not known."""
        ...

    async def load(self, lane: str) -> Load: ...

    async def claim(self, lane: str, core: str, most: int) -> Sequence[Claim]:
        """The next jobs of a lane, in fair order, under leases; none where none is ready."""
        ...

    async def wait(self, lane: str, seconds: float) -> None:
        """Return when there may be something to claim, or after `seconds`."""
        ...

    async def renew(self, claims: Sequence[Claim]) -> Mapping[str, FenceResult]:
        """Job id -> result, in one call a bucket; jobs of a bucket that failed are left out."""
        ...

    async def publish(self, claim: Claim, delta: Delta | None, spent: int = 0) -> FenceResult:
        """None for `delta` where only the cost is told. Of a duel's answers no words are shown.

        `spent`: the tokens of prompt and reply that this attempt has used until now."""
        ...

    async def commit(self, claim: Claim, commit: Commit) -> FenceResult: ...

    async def fail(
        self, claim: Claim, code: str, message: str, *, retry: bool, forget: bool = False
    ) -> FenceResult:
        """End an attempt: to be retried with back-off, or for good; `forget` drops its turn."""
        ...

    async def dead(self, most: int) -> Sequence[DeadLetter]:
        """Jobs that were given up, the newest first."""
        ...

    async def requeue(self, letter: DeadLetter, lane: str) -> Receipt:
        """Queue the job again; any process of its platform will deliver the reply."""
        ...

    async def check_writes(self) -> None:
        """StoreUnavailable, in a sentence, where nothing can be written: memory or disk is full."""
        ...

    async def sweep(self) -> Sweep:
        """Handle deadlines, delayed threads and expired leases."""
        ...

    async def release(self, claim: Claim) -> FenceResult:
        """Hand a job back, at the head of its thread, as if it had not been claimed."""
        ...


# -- what is remembered -------------------------------------------------------------------------


class History(Protocol):
    """The stored turns of the bot's threads."""

    async def window(self, claim: Claim) -> Window: ...

    async def turns(self, thread: ThreadKey) -> Sequence[StoredTurn]: ...

    async def prompt_room(self, thread: ThreadKey) -> PromptRoom | None:
        """The room in a prompt of the newest reply's model; None: unknown."""
        ...

    def threads(
        self, platform: str | None = None, since: float = 0.0
    ) -> AsyncIterator[ThreadSummary]:
        """A platform's threads, those of each bucket by their last activity, the newest first;
        none that has been quiet since the time `since`.
        """
        ...

    async def reset(self, thread: ThreadKey, by: str) -> int:
        """Forget a thread; the number of its turns."""
        ...

    async def discard(self, thread: ThreadKey, turn: Turn, job: str) -> None:
        """Remove a thread of one test message and its job; no mark of the removal is kept."""
        ...

    async def reset_own(self, thread: ThreadKey, by: str) -> int | None:
        """The same, unless a reply to another person is in progress: then None, and nothing is
        forgotten."""
        ...

    async def reset_place(self, place: Place, by: str) -> int:
        """Forget all threads of a channel or a space, and end their replies in progress; the number
        of turns."""
        ...

    async def forget(self, place: Place, person: str, by: str = "") -> int:
        """Forget a person's messages in a space, and the replies to them; the number of turns.

        `by`: the person who ordered it; by default that person.
        """
        ...

    def export(self, place: Place, person: str) -> AsyncIterator[tuple[ThreadKey, StoredTurn]]:
        """A person's messages in a space, and the replies to them."""
        ...

    async def marks(self, thread: ThreadKey) -> Mapping[str, float]:
        """The times of deletions, in seconds since the epoch, by ``thread …``, ``channel …``,
        ``space …`` and ``person …``, in the thread's bucket."""
        ...

    async def is_forgotten(self, thread: ThreadKey, author: str, at: float) -> bool:
        """Whether a person's messages in this thread from that time were reset or forgotten
        since."""
        ...

    async def takes_part(self, thread: ThreadKey) -> bool: ...

    async def may_branch(self, thread: ThreadKey, turn: str, press: str) -> Branching:
        """Whether a thread can begin as a copy of this one up to a turn; for each press once."""
        ...

    async def branch(self, thread: ThreadKey, turn: str, into: ThreadKey) -> Branching:
        """Begin the thread `into`, in the same channel, as a copy of this one up to a turn."""
        ...

    async def branches(self, thread: ThreadKey) -> Sequence[ThreadKey]:
        """The threads that began as copies of this one, or of such a copy."""
        ...


# -- access, and the audit log -----------------------------------------------------------------


class ReportBoard(Protocol):
    """The reports of all processes."""

    async def report(self, report: ProcessReport) -> None: ...

    async def withdraw(self, name: str) -> None:
        """Remove the report of a process that ended normally."""
        ...

    async def reports(self) -> Sequence[ProcessReport]:
        """The reports of the last hour, by part and name."""
        ...

    async def server(self) -> ServerState: ...


class RuleBook(Protocol):
    """The current rules of places."""

    async def rules(self, thread: ThreadKey) -> Rules:
        """The rules of a thread, with people's choices for it."""
        ...

    async def in_thread(self, thread: ThreadKey) -> ThreadRules:
        """The same, with the choices."""
        ...

    async def choose(self, thread: ThreadKey, choice: Choice) -> None:
        """Keep a choice for a thread, as long as the thread."""
        ...

    async def remember_names(self, thread: ThreadKey, channel: str, bot: str) -> None:
        """Keep the names of a channel and of the bot, for system prompts that use them."""
        ...

    async def set_here(self, place: Place) -> Rules:
        """The rules that admins have set for a channel or a space itself."""
        ...

    async def remember_roles(self, place: Place, person: str, roles: Collection[str]) -> None:
        """Keep a person's roles in a space: they also hold in direct messages."""
        ...

    async def roles_by_space(self, platform: str, person: str) -> Sequence[Collection[str]]:
        """The roles of a person in each space that is known."""
        ...

    async def change(self, place: Place, name: str, value: Any, by: str) -> None:
        """Set a rule, or remove it with None."""
        ...

    async def denied(self, thread: ThreadKey, people: Collection[str]) -> Collection[str]:
        """Those of these people whose messages may not be read there."""
        ...


class Audit(Protocol):
    """The log of changes to the history. It has its own lifetime."""

    async def append(self, place: Place, by: str, act: str, detail: str = "") -> None: ...

    async def entries(self, place: Place, most: int) -> Sequence[AuditEntry]:
        """The entries of a channel or a space, newest first."""
        ...


class Feedback(Protocol):
    """People's ratings of replies, for the operator."""

    async def keep(
        self,
        thread: ThreadKey,
        job: str,
        by: str,
        rating: Rating,
        reason: str = "",
        *,
        collect: bool = False,
    ) -> None:
        """Store a person's rating of a reply; it replaces an earlier one of theirs. `collect`: also
        keep how the reply was made, to train a model."""
        ...

    async def vote(
        self, thread: ThreadKey, job: str, by: str, verdict: Verdict, *, collect: bool = False
    ) -> bool:
        """Count a person's vote in a duel, in place of an earlier one; False where it is over."""
        ...

    async def opinions(self, place: Place, most: int) -> Sequence[Opinion]:
        """The ratings of replies in a channel or a space, newest first."""
        ...


class Preferences(Protocol):
    """Samples to train a model, and the people who opted out."""

    async def opt_out(self, place: Place, person: str, *, out: bool = True) -> None:
        """Keep nothing with a person's words or votes in a space any more, and drop what is kept;
        with `out` false, keep it again from now on."""
        ...

    async def has_opted_out(self, place: Place, person: str) -> bool: ...

    def of_person(self, place: Place, person: str) -> AsyncIterator[Sample]:
        """The samples in a space with a person's words or votes."""
        ...


# -- deliveries ---------------------------------------------------------------------------------


class Deliveries(Protocol):
    """Leases on deliveries, and the reply events that they follow."""

    async def take_over(self, platform: str, holder: str) -> Sequence[Delivery]:
        """Lease the open deliveries that no process holds to `holder`."""
        ...

    async def get(self, thread: ThreadKey, job: str) -> Delivery | None: ...

    async def opened(self, thread: ThreadKey, job: str, holder: str) -> Delivery | None:
        """A delivery that is open and has been held by `holder` alone, else None."""
        ...

    async def renew(self, held: Sequence[Delivery]) -> Mapping[str, bool]:
        """Job id -> whether it is still held; without those whose bucket is away."""
        ...

    async def hand_back(self, held: Sequence[Delivery]) -> None:
        """End the leases now, so that another process can continue."""
        ...

    async def record(
        self, delivery: Delivery, messages: Sequence[str], posting: int | None
    ) -> bool:
        """Record the posted messages, and the index of a part about to be posted.

        False if the lease was lost.
        """
        ...

    async def close(self, delivery: Delivery, messages: Sequence[str]) -> bool: ...

    async def reopen(self, delivery: Delivery) -> None:
        """Open the newest delivery to these messages again, so that they are written once more."""
        ...

    async def closed(self, thread: ThreadKey, job: str) -> bool:
        """Whether no process writes to the messages of this reply any more."""
        ...

    async def disown(self, delivery: Delivery, messages: Sequence[str]) -> None:
        """Record that the bot deletes these messages itself, so that their deletion does not forget
        the reply."""
        ...

    async def locate(self, place: ThreadKey, message: str) -> tuple[ThreadKey, str] | None:
        """The thread and turn of a platform's message; `place` says platform, space, channel."""
        ...

    async def quoting(self, place: ThreadKey, message: str) -> Sequence[ThreadKey]:
        """The other threads that have a platform's message as a quoted turn."""
        ...

    async def listen(self, platform: str) -> None:
        """Pass the platform's events on to the followers in this process, for ever."""
        ...

    def follow(self, delivery: Delivery) -> AsyncIterator[ReplyEvent]:
        """The events of a reply from its first on, until its end."""
        ...


class Leases(Protocol):
    """Named leases, each held by one process at a time, such as a shard's."""

    async def acquire(self, name: str, holder: str, seconds: float) -> bool:
        """Take or renew a lease; False if another process holds it."""
        ...

    async def give_up(self, name: str, holder: str) -> None: ...


class Outbox(Protocol):
    """Questions that a platform has accepted and not yet posted, for a quarter of an hour."""

    async def put(self, name: str, id_: str, text: str) -> bool:
        """Keep a text in the box `name`; False where the box is full."""
        ...

    async def entries(self, name: str) -> Mapping[str, str]: ...

    async def remove(self, name: str, id_: str) -> bool:
        """Remove a text; whether it was there."""
        ...


class Secrets(Protocol):
    """A platform's secrets, such as the tokens of its installations."""

    async def put(self, name: str, text: str, seconds: float = ...) -> None:
        """Keep a secret for so long; by default for as long as the store keeps secrets."""
        ...

    async def put_listed(
        self, name: str, text: str | None, list_: str, entry: str, was: str | None = None
    ) -> bool:
        """Keep a secret (None: delete it) and its entry in a list of secrets, in one step.

        With `was`: only if the secret is still that one. Returns whether it was done.
        """
        ...

    async def get(self, name: str) -> str | None: ...

    async def renew(self, name: str) -> None:
        """Keep a secret as long as if it had just been put."""
        ...

    async def pop(self, name: str) -> str | None:
        """Return a secret and delete it."""
        ...


@dataclass(frozen=True, slots=True)
class ConversationStores:
    """The stores that a conversation passes through."""

    queue: JobQueue
    history: History
    deliveries: Deliveries


@dataclass(frozen=True, slots=True)
class Stores(ConversationStores):
    """The stores of a platform's bot."""

    leases: Leases
    secrets: Secrets
    outbox: Outbox
    feedback: Feedback
    preferences: Preferences
