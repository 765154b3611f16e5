"""The actions of people on conversations, and their answers: decided once for all platforms.

An adapter reads who acts (`Actor`) and on what, calls one action, and renders the `Outcome`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo
from functools import partial
from typing import Literal, TypeAlias

import structlog

from bots import duels, strings
from bots.platform import Part
from bots.quotes import BOT_LABEL
from bots.relay import Relay
from core.access_policy import Asker
from core.ports import Stores
from core.queue_types import Delivery, Place, Rating, Receipt, Regeneration
from core.types import Done, Failed, ThreadKey, Turn, Verdict

log = structlog.get_logger()

ScopeKind: TypeAlias = Literal["thread", "channel", "user", "space", "mine"]


async def nobody() -> bool:
    """For platforms that know no admins."""
    return False


@dataclass(frozen=True, slots=True)
class Actor:
    """The person who acts, with the platform's facts about them in that place."""

    person: str
    roles: tuple[str, ...] = ()
    manages: Callable[[], Awaitable[bool]] = nobody
    """Whether the platform says they are an admin there; called only where it matters."""
    stranger: bool = False
    """From another organisation that shares the channel."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The scope of a reset."""

    kind: ScopeKind
    place: Place
    thread: ThreadKey | None = None
    person: str = ""
    own: bool = False
    """Only the actor and the bot are there."""

    @classmethod
    def of_thread(cls, thread: ThreadKey) -> Scope:
        place = Place(thread.platform, thread.space, thread.channel)
        return cls("thread", place, thread)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of an action, and its sentence."""

    key: str = ""
    """In `bots.strings`; empty: no sentence."""
    done: bool = False
    scope: ScopeKind | None = None
    turns: int = 0
    """How many turns were forgotten."""
    receipt: Receipt | None = None
    """The queue's answer, if there is one."""
    zone: tzinfo = UTC
    text: str = ""
    """The text of a file for the person."""

    def sentence(self, locale: str) -> str:
        """The sentence for the person; empty where there is none."""
        receipt = self.receipt
        if receipt is not None and receipt.outcome == "refused":
            return strings.failure(receipt.code, locale, receipt.until, self.zone, receipt.position)
        if not self.key:
            return ""
        scope = strings.say(f"scope_{self.scope}", locale) if self.scope else ""
        return strings.say(self.key, locale, scope=scope, turns=self.turns)


TOO_LATE = Outcome("too_late")
NOT_YOURS = Outcome("not_yours")
PROMPT_GONE = Outcome("prompt_gone")
DUEL_OVER = Outcome("duel_over")
FILE_GONE = Outcome("file_gone_by_now")

FILE_PARTS = 4
"""A reply of so many messages is also offered as one file."""
FILE_NAME = "reply.md"


def can_continue(end: Done) -> bool:
    """Whether a reply with this end can be continued: it has text or a thought, and was cut off."""
    words = bool(end.text or end.in_thought) and end.duel is None
    return words and end.finish_reason in ("length", "cancelled")


def offers_file(part: Part) -> bool:
    """Whether a finished reply, whose last part this is, is long enough to be offered as a file."""
    done = part.end
    return part.index + 1 >= FILE_PARTS and isinstance(done, Done) and done.duel is None


def can_truncate(end: object) -> bool:
    """Whether a message was refused as too long, and its beginning can be read."""
    return isinstance(end, Failed) and end.code == "too_long"


@dataclass(frozen=True, slots=True)
class Fork:
    """A turn of a thread, up to which another thread is to be a copy."""

    thread: ThreadKey
    turn: str
    evicted: bool = False
    """Older turns are not remembered any more."""


BRANCH_REFUSED: Mapping[str, Outcome] = {
    "gone": Outcome("branch_gone"),
    "full": Outcome("branch_full"),
}


class Actions:
    """Stop, regenerate, continue, rate, reset, configure: each checks the actor's rights."""

    def __init__(self, relay: Relay, stores: Stores) -> None:
        self._relay = relay
        self._history = stores.history
        self._deliveries = stores.deliveries
        self._feedback = stores.feedback
        self._preferences = stores.preferences

    # -- rights ---------------------------------------------------------------------------------

    async def refusal(self, actor: Actor, thread: ThreadKey) -> Outcome | None:
        """None for a person who may use the bot there; else the refusal, which may be silent.

        Adapters call it before they show or post anything. Each action calls it as well.
        """
        asker = Asker(thread, actor.person, actor.roles, actor.stranger)
        code = (await self._relay.admission(asker)).permit.refuse
        if code == "stranger" and self._relay.settings.strangers == "ignore":
            return Outcome()
        return Outcome(code) if code else None

    async def is_admin(self, actor: Actor, thread: ThreadKey) -> bool:
        """Whether the platform, or the list in the settings (people and roles), says so."""
        asker = Asker(thread, actor.person, actor.roles)
        access = self._relay.access
        return access.is_admin(asker, of_platform=False) or access.is_admin(
            asker, of_platform=await actor.manages()
        )

    async def _may_control(self, actor: Actor, thread: ThreadKey, asker: str) -> bool:
        """The person who asked, and admins, may stop a reply and regenerate it."""
        return actor.person == asker or await self.is_admin(actor, thread)

    # -- replies --------------------------------------------------------------------------------

    async def stop(self, actor: Actor, thread: ThreadKey, job: str) -> Outcome:
        """Stop the reply whose button was pressed."""
        if refusal := await self.refusal(actor, thread):
            return refusal
        asker = (await self._relay.open_jobs(thread)).get(job)
        if asker is None:
            return TOO_LATE
        if not await self._may_control(actor, thread, asker):
            return NOT_YOURS
        stopped = await self._relay.stop(thread, job)
        return Outcome("stopping", done=True) if stopped else TOO_LATE

    async def stop_here(
        self, actor: Actor, threads: Sequence[ThreadKey], messages: Sequence[str] = ()
    ) -> Outcome:
        """Stop replies under way in conversations: those that `messages` belong to.

        Without such messages, the actor's own replies; without any, the oldest reply, if the actor
        is an admin.
        """
        for thread in threads:
            if refusal := await self.refusal(actor, thread):
                return refusal
        open_jobs = {thread: await self._relay.open_jobs(thread) for thread in threads}
        if not any(open_jobs.values()):
            return Outcome("nothing_to_stop")
        meant = await self._located(open_jobs, messages) or _asked_by(actor.person, open_jobs)
        outcomes = [await self.stop(actor, *reply) for reply in meant or _oldest(open_jobs)]
        return next((outcome for outcome in outcomes if outcome.done), outcomes[0])

    async def _located(
        self, open_jobs: Mapping[ThreadKey, Mapping[str, str]], messages: Sequence[str]
    ) -> list[tuple[ThreadKey, str]]:
        """The replies under way that the platform's messages belong to."""
        found = [
            await self._deliveries.locate(thread, message)
            for thread in open_jobs
            for message in messages
        ]
        return [reply for reply in found if reply and reply[1] in open_jobs.get(reply[0], ())]

    async def regenerate(
        self,
        actor: Actor,
        thread: ThreadKey,
        reply: str,
        revision: str,
        *,
        resumes: bool = False,
        truncates: bool = False,
        note: Mapping[str, str] | None = None,
    ) -> Outcome:
        """Regenerate a reply in its place. `resumes`: continue it. `truncates`: answer the
        beginning of the message that it refused as too long.

        `revision` tells one press from another. The reply is charged to the actor; the person who
        asked the question may still stop and regenerate it.
        """
        if refusal := await self.refusal(actor, thread):
            return refusal
        before = await self._deliveries.get(thread, reply)
        if before is None:
            return PROMPT_GONE
        if not await self._may_control(actor, thread, before.owner):
            return NOT_YOURS
        wanted = Regeneration(
            thread, reply, revision, actor.person, resumes=resumes, truncates=truncates, note=note
        )
        receipt = await self._relay.regenerate(wanted, actor.roles)
        done = receipt.outcome in ("queued", "duplicate")
        return Outcome("regenerating", done, receipt=receipt, zone=self._relay.settings.zone)

    async def newest_reply(self, threads: Sequence[ThreadKey]) -> Delivery | None:
        """The reply in these conversations that was finished last; none that was copied there."""
        turns = [
            (stored.turn.at, thread, stored.turn.id)
            for thread in threads
            for stored in await self._history.turns(thread)
            if stored.turn.role == "assistant"
        ]
        if not turns:
            return None
        _, thread, job = max(turns, key=lambda turn: turn[0])
        found = await self._deliveries.get(thread, job)
        return found if found and found.thread == thread else None

    # -- branches -------------------------------------------------------------------------------

    async def fork(
        self, actor: Actor, place: ThreadKey, messages: Sequence[str], press: str
    ) -> Fork | Outcome:
        """The turn up to which a conversation is to be copied: that of the message with one of
        these ids. `press` tells one press from another. The caller has checked that the person may
        read there."""
        if refusal := await self.refusal(actor, place):
            return refusal
        found = [await self._deliveries.locate(place, message) for message in messages]
        thread, turn = next(filter(None, found), (place, messages[0]))
        looked = await self._history.may_branch(thread, turn, press)
        if looked.outcome != "ok":
            return Outcome() if looked.outcome == "duplicate" else BRANCH_REFUSED[looked.outcome]
        return Fork(thread, turn, evicted=looked.evicted)

    async def branch(self, actor: Actor, fork: Fork, into: ThreadKey) -> Outcome:
        """Begin a thread whose memory is another's up to a turn. That one stays as it is."""
        done = await self._history.branch(fork.thread, fork.turn, into)
        log.info("branch", by=actor.person, thread=str(fork.thread), into=str(into))
        key = "branch_evicted" if done.evicted else "branch_done"
        refused = BRANCH_REFUSED.get(done.outcome)
        return refused or Outcome(key, done=True)

    async def as_file(self, actor: Actor, thread: ThreadKey, reply: str) -> Outcome:
        """The whole text of a reply, for one file: only what is still remembered."""
        if refusal := await self.refusal(actor, thread):
            return refusal
        turns = {stored.turn.id: stored.turn for stored in await self._history.turns(thread)}
        text = turns[reply].text if reply in turns else ""
        return Outcome("file_is_there", done=True, text=text) if text else FILE_GONE

    async def rate(
        self, actor: Actor, thread: ThreadKey, reply: str, rating: Rating, reason: str = ""
    ) -> Outcome:
        """Store a person's rating of a reply."""
        if refusal := await self.refusal(actor, thread):
            return refusal
        collect = await self._collects(thread)
        await self._feedback.keep(thread, reply, actor.person, rating, reason, collect=collect)
        log.info("feedback", job=reply, by=actor.person, verdict=rating, reasoned=bool(reason))
        return Outcome("feedback_thanks", done=True)

    async def vote(self, actor: Actor, thread: ThreadKey, job: str, verdict: Verdict) -> Outcome:
        """Count a person's vote in a duel. Everybody who may ask there may vote."""
        if refusal := await self.refusal(actor, thread):
            return refusal
        collect = await self._collects(thread)
        counted = await self._feedback.vote(thread, job, actor.person, verdict, collect=collect)
        log.info("vote", job=job, by=actor.person, counted=counted)
        return Outcome(f"voted_{verdict}", done=True) if counted else DUEL_OVER

    async def _collects(self, thread: ThreadKey) -> bool:
        return bool((await self._relay.access.rulebook.rules(thread)).collect)

    # -- training -------------------------------------------------------------------------------

    def may_collect(self, platform: str) -> bool:
        """Whether the operator lets people's choices on a platform be kept to train a model."""
        return self._relay.access.permits_training(platform)

    async def has_opted_out(self, actor: Actor, places: Sequence[Place]) -> bool:
        found = [await self._preferences.has_opted_out(one, actor.person) for one in places]
        return all(found)

    async def kept_of(self, actor: Actor, places: Sequence[Place]) -> list[Mapping[str, object]]:
        """A person's data that is kept to train a model."""
        return [
            duels.kept_of(sample, actor.person)
            for place in places
            async for sample in self._preferences.of_person(place, actor.person)
        ]

    async def opt_out(self, actor: Actor, places: Sequence[Place], *, out: bool) -> Outcome:
        """Stop keeping a person's data to train a model, or allow it again.

        Everybody may, even without access to the bot: the data are their own.
        """
        for place in places:
            await self._preferences.opt_out(place, actor.person, out=out)
        log.info("opted out" if out else "opted in", by=actor.person)
        return Outcome("opted_out" if out else "opted_in", done=True)

    # -- forgetting -----------------------------------------------------------------------------

    async def reset(self, actor: Actor, scope: Scope) -> Outcome:
        """Forget a thread, a channel, a person or a space, if the actor may.

        Everybody may have their own words forgotten, even without access to the bot: privacy laws
        require it.
        """
        if scope.kind == "mine":
            turns = await self._history.forget(scope.place, actor.person)
            return Outcome("reset_scope_done", done=True, scope="mine", turns=turns)
        if refusal := await self.refusal(actor, scope.thread or scope.place.any_thread):
            return refusal
        if scope.thread is not None:
            return await self._reset_thread(actor, scope.thread)
        if not scope.own and not await self.is_admin(actor, scope.place.any_thread):
            return Outcome("reset_refused", scope=scope.kind)
        turns = await self._forget(actor, scope)
        log.info("reset", by=actor.person, scope=scope.kind, place=str(scope.place))
        return Outcome("reset_scope_done", done=True, scope=scope.kind, turns=turns)

    async def _reset_thread(self, actor: Actor, thread: ThreadKey) -> Outcome:
        """A reset needs the right to stop the replies under way, which it ends."""
        turns = await self._history.reset_own(thread, actor.person)
        if turns is None:
            if not await self.is_admin(actor, thread):
                return Outcome("reset_not_yours", scope="thread")
            turns = await self._history.reset(thread, actor.person)
        key = "reset_done" if turns else "reset_nothing"
        return Outcome(key, done=True, scope="thread", turns=turns)

    async def _forget(self, actor: Actor, scope: Scope) -> int:
        if scope.kind == "user":
            return await self._history.forget(scope.place, scope.person, actor.person)
        await self._history.reset_place(scope.place, actor.person)
        return 0

    # -- administration -------------------------------------------------------------------------

    async def configure(
        self, actor: Actor, place: Place, words: str, locale: str, ids: Callable[[str], str] = str
    ) -> str:
        """The answer to ``config …`` in a place: see `Access.configure`."""
        thread = place.any_thread
        if (refused := await self._admin_refusal(actor, thread, locale)) is not None:
            return refused
        lane = (await self._relay.access.rulebook.rules(thread)).model or self._relay.settings.lane
        count_tokens = partial(
            self._relay.one_off_jobs.try_to_count_tokens, thread, actor.person, lane
        )
        return await self._relay.access.configure(
            place, words, actor.person, locale, ids, count_tokens
        )

    async def audited(self, actor: Actor, place: Place, locale: str) -> str:
        """The newest entries of a place's audit log."""
        if (refused := await self._admin_refusal(actor, place.any_thread, locale)) is not None:
            return refused
        return await self._relay.access.audited(place, actor.person, locale)

    async def _admin_refusal(self, actor: Actor, thread: ThreadKey, locale: str) -> str | None:
        """None for an admin; else the refusal, which may be silent."""
        if refusal := await self.refusal(actor, thread):
            return refusal.sentence(locale)
        return None if await self.is_admin(actor, thread) else strings.say("admins_only", locale)


def _asked_by(
    person: str, open_jobs: Mapping[ThreadKey, Mapping[str, str]]
) -> list[tuple[ThreadKey, str]]:
    return [
        (thread, job)
        for thread, jobs in open_jobs.items()
        for job, asker in jobs.items()
        if asker == person
    ]


def _oldest(open_jobs: Mapping[ThreadKey, Mapping[str, str]]) -> list[tuple[ThreadKey, str]]:
    return [(thread, job) for thread, jobs in open_jobs.items() for job in jobs][:1]


def is_follow_up(rule: str, person: str, turns: Sequence[Turn], *, to_others: bool) -> bool:
    """Whether a message without a mention is answered in a thread that the bot takes part in.

    `rule` is ``always``, ``alone`` or ``mention``; `to_others`: the message names somebody else.
    """
    if to_others or rule == "mention":
        return False
    return rule == "always" or speaks_to_bot(person, turns)


def speaks_to_bot(person: str, turns: Sequence[Turn]) -> bool:
    """Whether nobody else writes in the thread, or the bot's last reply was to this person."""
    by_people = (t for t in turns if not (t.quoted or t.text.startswith(BOT_LABEL)))
    asked = [turn.author for turn in by_people if turn.role == "user"]
    if set(asked) <= {person}:
        return True
    return turns[-1].role == "assistant" and asked[-1] == person
