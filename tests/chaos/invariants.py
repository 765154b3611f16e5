"""What always holds, read from what the platform shows and from what Redis holds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bots import strings
from bots.delivery import View
from bots.platform import REFUSALS
from core.queue_types import StoredTurn
from core.types import Cancelled, Done, Failed, ReplyEvent, ThreadKey
from storage import codec
from storage.deliveries import RedisDeliveries
from storage.history import RedisHistory
from tests.chaos.prompts import ReadPrompt
from tests.chaos.schedule import Schedule, SentMessage, events_of
from tests.simulated_platform import Message

FINAL = ("done", "failed", "cancelled", "dead")


@dataclass(frozen=True, slots=True)
class Reply:
    """All that Redis knows of one reply."""

    id: str
    job: Mapping[str, str]
    delivery: Mapping[str, str]
    events: Sequence[ReplyEvent]

    @property
    def prompts(self) -> set[str]:
        return {self.job["turn"], *self.job.get("covers", "").split()}

    @property
    def after(self) -> str:
        return self.delivery.get("after", "")

    @property
    def messages(self) -> list[str]:
        return list(codec.load(self.delivery.get("messages", "[]")))

    @property
    def view(self) -> View:
        view = View()
        for event in self.events:
            view = view.after(event)
        return view

    @property
    def done_text(self) -> str:
        end = self.view.end
        return end.text if isinstance(end, Done) else ""


@dataclass(frozen=True, slots=True)
class Findings:
    schedule: Schedule
    replies: Mapping[str, Reply]
    remembered: Mapping[ThreadKey, Sequence[StoredTurn]]
    threads: Mapping[str, Mapping[str, str]]
    """Their numbers, as Redis has them."""

    @property
    def tails(self) -> list[Reply]:
        """Replies whose messages no later one has taken over."""
        taken_over = {reply.after for reply in self.replies.values()}
        return [reply for id_, reply in self.replies.items() if id_ not in taken_over]

    def turns(self) -> Iterable[StoredTurn]:
        return (turn for turns in self.remembered.values() for turn in turns)


async def gather(schedule: Schedule) -> Findings:
    store = schedule.store
    # lifetimes of what is written all the time are renewed by what living processes repeat
    await RedisDeliveries(store).take_over(schedule.platform, "the check")
    replies = {id_: await _reply(schedule, id_) for id_ in sorted(schedule.jobs)}
    history = RedisHistory(store)
    remembered = {thread: await history.turns(thread) for thread in schedule.threads}
    found = {id_: reply for id_, reply in replies.items() if reply.job}
    threads = {
        str(thread): await store.command("hgetall", f"henji:{{0}}:thread:{thread}")
        for thread in schedule.threads
    }
    return Findings(schedule, found, remembered, threads)


async def _reply(schedule: Schedule, id_: str) -> Reply:
    store = schedule.store
    return Reply(
        id_,
        await store.command("hgetall", f"henji:{{0}}:job:{id_}"),
        await store.command("hgetall", f"henji:{{0}}:delivery:{id_}"),
        await events_of(store, id_),
    )


def violations(found: Findings) -> list[str]:
    """Every sentence of the design that does not hold; none where all is well."""
    checks = (open_jobs, lost, doubled, shown, order, forgotten, memory, prompts)
    return [f"{check.__name__}: {said}" for check in checks for said in check(found)]


# -- one reply ----------------------------------------------------------------------------------


def open_jobs(found: Findings) -> Iterable[str]:
    for id_, reply in found.replies.items():
        if reply.job["state"] not in FINAL:
            thread = found.threads[reply.job["thread"]]
            yield f"{id_} is {reply.job['state']}, in {thread}, before {found.schedule.stuck}"
        if "closed" not in reply.delivery:
            yield f"the delivery of {id_} is open"
        ends = [event for event in reply.events if isinstance(event, Done | Failed | Cancelled)]
        if len(ends) != 1:
            yield f"{id_} ended {len(ends)} times"


def lost(found: Findings) -> Iterable[str]:
    """Every addressed message has one reply, or was deleted. Of the refusals that a person gets in
    a channel for one reason, only the first is told."""
    first = [reply for reply in found.replies.values() if "replaces" not in reply.job]
    owed = Counter(prompt for reply in first for prompt in reply.prompts)
    refused = {_asked_in(reply) for reply in first if _is_refused(reply)}
    for id_, said in found.schedule.said.items():
        wanted = int(said.addressed)
        silent = not owed[id_] and (said.turn.author, said.thread.channel) in refused
        if said.deleting is None and owed[id_] != wanted and not silent:
            yield f"{id_} has {owed[id_]} replies, not {wanted}"


def _is_refused(reply: Reply) -> bool:
    end = reply.view.end
    return isinstance(end, Failed) and end.code in ("no_core", *REFUSALS)


def _asked_in(reply: Reply) -> tuple[str, str]:
    """The person and the channel."""
    return reply.job["author"], ThreadKey.parse(reply.job["thread"]).channel


def doubled(found: Findings) -> Iterable[str]:
    """What stands on the board is what the last deliveries recorded, once and in order."""
    recorded = Counter(message for reply in found.tails for message in reply.messages)
    board = found.schedule.board.messages
    # A reply of which a person deleted a message is let be as it is recorded.
    let_be = {
        message
        for reply in found.tails
        if any(board[other].gone == "person" for other in reply.messages if other in board)
        for message in reply.messages
    }
    for id_, message in board.items():
        expected = 0 if message.gone == "bot" else 1
        let_go = message.gone == "person" and not recorded[id_]
        if recorded[id_] != expected and not let_go and not (message.gone and id_ in let_be):
            yield f"{id_} ({message.part.text!r}, {message.gone}) is recorded {recorded[id_]} times"
    for id_ in recorded.keys() - board.keys():
        yield f"{id_} was recorded and never posted"


def shown(found: Findings) -> Iterable[str]:
    """The messages of a reply say how it ended."""
    board = found.schedule.board.messages
    for reply in found.tails:
        messages = [board[id_] for id_ in reply.messages if id_ in board]
        if any(message.gone == "person" for message in messages):
            continue
        told = _told(messages)
        if told not in (expected := _expected(found, reply)):
            yield f"{reply.id} ({reply.view.end}) shows {told!r}, not one of {expected!r}"


def _told(messages: Sequence[Message]) -> tuple[str, str]:
    text = "".join(message.part.text for message in messages)
    notes = "".join(message.part.note for message in messages)
    return _squeezed(text), notes


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _expected(found: Findings, reply: Reply) -> list[tuple[str, str]]:
    """What may stand there, without white space, and the sentence under it."""
    match reply.view.end:
        case Done(text, finish_reason, _):
            note = strings.say("stopped", "en") if finish_reason == "cancelled" else ""
            alone = note or strings.say("nothing_said", "en")
            return [(_squeezed(text), note) if text else (_squeezed(alone), "")]
        case Failed(code):
            return [(_squeezed(strings.failure(code, "en")), "")]
        case Cancelled(by):
            return _expected_cancelled(found, reply, by)
    return []


def _expected_cancelled(found: Findings, reply: Reply, by: str) -> list[tuple[str, str]]:
    sentence = strings.say("stopped" if by == "person" else f"ended_by_{by}", "en")
    if text := reply.view.text:
        return [(_squeezed(text), sentence)]
    may = [] if by == "delete" and not reply.messages else [(_squeezed(sentence), "")]
    if by == "delete":
        may.append(("", ""))
    if reply.after in found.replies:  # what was there before stays
        may += _expected(found, found.replies[reply.after])
    return may


# -- a thread -----------------------------------------------------------------------------------


def order(found: Findings) -> Iterable[str]:
    """Turns stand in the order they came, each reply behind what it answers."""
    for thread, turns in found.remembered.items():
        ids = [stored.turn.id for stored in turns]
        if len(set(ids)) != len(ids):
            yield f"{thread} remembers a turn twice: {ids}"
        for before, stored in zip([None, *turns], turns, strict=False):
            if stored.turn.role == "assistant":
                answered = before.turn.id if before else None
                if stored.answers != answered and stored.answers in ids:
                    yield f"{stored.turn.id} stands behind {answered}, not {stored.answers}"


def forgotten(found: Findings) -> Iterable[str]:
    """Nothing deleted, and nothing from before a reset."""
    said = found.schedule.said | found.schedule.past
    for thread, turns in found.remembered.items():
        resets = [reset.began for reset in found.schedule.resets if reset.covers(thread)]
        last = max(resets, default=0.0)
        for stored in turns:
            prompt = said.get(stored.answers or stored.turn.id)
            if prompt is None:
                continue
            if prompt.deleted is not None and stored.turn.id == prompt.turn.id:
                yield f"{prompt.turn.id} was deleted, and {stored.turn.id} is there"
            if prompt.acknowledged is not None and prompt.acknowledged < last:
                yield f"{stored.turn.id} is from before a reset"


def memory(found: Findings) -> Iterable[str]:
    """What was said is remembered as it reads now, and so is what was answered."""
    remembered = {stored.turn.id: stored.turn.text for stored in found.turns()}
    for id_, said in found.schedule.said.items():
        if id_ in remembered and said.texts and remembered[id_] != said.texts[said.edits]:
            yield f"{id_} is remembered as {remembered[id_]!r}, not {said.texts[said.edits]!r}"
        if id_ not in remembered and _must_be_remembered(found, said):
            yield f"{id_} is not remembered"
    for id_, reply in found.replies.items():
        if id_ in remembered and remembered[id_] != reply.done_text:
            yield f"the reply {id_} is remembered as {remembered[id_]!r}"
        texts = {text for p in reply.prompts for text in found.schedule.said[p].texts}
        whole = {f"echo: {text}" for text in texts}
        if reply.done_text and not any(text.startswith(reply.done_text) for text in whole):
            yield f"{id_} says {reply.done_text!r}, which answers none of {reply.prompts}"


def _must_be_remembered(found: Findings, said: SentMessage) -> bool:
    replies = [reply for reply in found.replies.values() if said.turn.id in reply.prompts]
    # one without a reply was refused: see `lost`
    refused = not replies or any(isinstance(reply.view.end, Failed) for reply in replies)
    reset = any(reset.covers(said.thread) for reset in found.schedule.resets)
    return said.addressed and said.deleting is None and not refused and not reset


# -- what the model read ------------------------------------------------------------------------

_NAMED = re.compile(r"(echo: )?\d+\.([mp]\d+)(?:e(\d+))? ")
"""The name of the message that a turn's text begins with, and its revision."""


def prompts(found: Findings) -> Iterable[str]:
    """No prompt holds a turn that was forgotten, deleted or edited before its turns were read."""
    said = found.schedule.said | found.schedule.past
    for prompt in found.schedule.prompts.read:
        for text in prompt.texts:
            if named := _NAMED.match(text):
                reply, id_, revision = named.groups()
                for fault in _faults(found, prompt, said[id_], bool(reply), int(revision or 0)):
                    yield f"{prompt.job} in {prompt.thread} read {text[:40]!r}, {fault}"


def _faults(
    found: Findings, prompt: ReadPrompt, said: SentMessage, is_reply: bool, revision: int
) -> Iterable[str]:
    if said.thread != prompt.thread:
        yield f"which is of {said.thread}"
    for reset in found.schedule.resets:
        over = reset.ended is not None and reset.ended < prompt.at
        before = said.acknowledged is not None and said.acknowledged < reset.began
        if over and before and reset.covers(said.thread):
            yield "from before a reset"
    if is_reply:
        return
    if said.deleted is not None and said.deleted < prompt.at:
        yield "which was deleted"
    if any(revision < number for at, number in said.edited_at if at < prompt.at):
        yield "which was edited since"
