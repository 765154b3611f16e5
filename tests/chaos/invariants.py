"""The invariants, checked on the platform's messages and on Redis."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC

from bots import duels, strings
from bots.platform import REFUSALS
from bots.view import View
from core.queue_types import StoredTurn
from core.types import Cancelled, Delta, Done, Duel, Failed, ReplyEvent, ThreadKey, Usage
from storage import codec
from storage.deliveries import RedisDeliveries
from storage.history import RedisHistory
from tests.chaos.prompts import ReadPrompt
from tests.chaos.schedule import (
    OTHER_WORD,
    Schedule,
    SentMessage,
    Vote,
    events_of,
    records_of,
)
from tests.chaos.terms import RETENTION
from tests.simulated_platform import Message

FINAL = ("done", "failed", "cancelled", "dead")


@dataclass(frozen=True, slots=True)
class Reply:
    """All that Redis knows of one reply."""

    id: str
    job: Mapping[str, str]
    delivery: Mapping[str, str]
    events: Sequence[ReplyEvent]
    duel: Mapping[str, str]

    @property
    def thread(self) -> ThreadKey:
        return ThreadKey.parse(self.job["thread"])

    @property
    def opened(self) -> bool:
        """Whether the question was taken in, and not refused at once."""
        return "arrival" in self.job

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

    @property
    def answers(self) -> Sequence[str]:
        """The texts of a duel's answers."""
        made = [codec.load(self.duel[number]) for number in ("1", "2") if number in self.duel]
        return [codec.decode_turn("", answer["record"]).turn.text for answer in made]

    @property
    def memorable_texts(self) -> Sequence[str]:
        """The text of the reply, and where it is a duel, of the answer that the asker wants: of
        either, where an edit of the question has ended the vote."""
        if picked := self.duel.get("picked"):
            return [self.answers[int(picked) - 1]]
        end = self.view.end
        duel = end.duel if isinstance(end, Done) else None
        return [duel.a, duel.b] if duel else [self.done_text]

    @property
    def votes(self) -> Mapping[str, str]:
        """By person."""
        pairs = ((field.partition(" "), verdict) for field, verdict in self.duel.items())
        return {person: verdict for (word, _, person), verdict in pairs if word == "vote"}


@dataclass(frozen=True, slots=True)
class Findings:
    schedule: Schedule
    replies: Mapping[str, Reply]
    remembered: Mapping[ThreadKey, Sequence[StoredTurn]]
    threads: Mapping[str, Mapping[str, str]]
    """Their numbers, as Redis has them."""
    used: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Day -> the part of their quotas that people and channels have used."""

    @property
    def tails(self) -> list[Reply]:
        """Replies whose messages no later one has taken over."""
        taken_over = {reply.after for reply in self.replies.values()}
        return [reply for id_, reply in self.replies.items() if id_ not in taken_over]

    def turns(self) -> Iterable[StoredTurn]:
        return (turn for turns in self.remembered.values() for turn in turns)


async def gather(schedule: Schedule) -> Findings:
    store = schedule.store
    # keys that living processes write repeatedly get new lifetimes
    await RedisDeliveries(store).take_over(schedule.platform, "the check")
    replies = {id_: await _reply(schedule, id_) for id_ in sorted(schedule.jobs)}
    history = RedisHistory(store)
    remembered = {thread: await history.turns(thread) for thread in schedule.threads}
    found = {id_: reply for id_, reply in replies.items() if reply.job}
    threads = {
        str(thread): await store.command("hgetall", f"henji:{{0}}:thread:{thread}")
        for thread in schedule.threads
    }
    days = {reply.job["day"] for reply in found.values() if "day" in reply.job}
    used = {day: await store.command("hgetall", f"henji:{{0}}:used:{day}") for day in sorted(days)}
    counts = {day: {who: int(n) for who, n in fields.items()} for day, fields in used.items()}
    return Findings(schedule, found, remembered, threads, counts)


async def _reply(schedule: Schedule, id_: str) -> Reply:
    store, kept = schedule.store, schedule.kept.get(id_, ({}, {}))
    now = await records_of(store, id_) or ({}, {})
    delivery = await store.command("hgetall", f"henji:{{0}}:delivery:{id_}")
    duel = await store.command("hgetall", f"henji:{{0}}:duel:{id_}")
    return Reply(
        id_, now[0] or kept[0], delivery or kept[1], await events_of(store, id_), duel
    )  # fmt: skip


def violations(found: Findings) -> list[str]:
    """Every sentence of the design that does not hold; none where all is well."""
    checks = (
        open_jobs, lost, doubled, shown, refused, quotas, duel, votes, order, forgotten, memory,
        prompts,
    )  # fmt: skip
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
    refused = {_asked_in(found, reply) for reply in first if _is_refused(reply)}
    for id_, said in found.schedule.said.items():
        wanted = int(said.addressed)
        told = (said.turn.author, said.thread.channel, said.day) in refused
        silent = not owed[id_] and (told or _edited_while_denied(found, said))
        if said.deleting is None and owed[id_] != wanted and not silent:
            yield f"{id_} has {owed[id_]} replies, not {wanted}"


def _is_refused(reply: Reply) -> bool:
    end = reply.view.end
    return isinstance(end, Failed) and end.code in ("no_core", *REFUSALS)


def _asked_in(found: Findings, reply: Reply) -> tuple[str, str, int]:
    """The person, the channel and the day."""
    day = found.schedule.said[reply.job["turn"]].day
    return reply.job["author"], reply.thread.channel, day


def doubled(found: Findings) -> Iterable[str]:
    """The board shows the messages that the last deliveries recorded, once and in order."""
    recorded = Counter(message for reply in found.tails for message in reply.messages)
    board = found.schedule.board.messages
    # A reply with a message that a person deleted stays as it is recorded.
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
    """The texts that it may show, without white space, and the sentences under them."""
    match reply.view.end:
        case Done(duel=Duel() as shown) as done:
            told = _with_dropped(duels.note(shown, "en"), done)
            return [(_squeezed("".join(duels.headed(shown))), told)]
        case Done(text, finish_reason, _) as done:
            note = strings.say("stopped", "en") if finish_reason == "cancelled" else ""
            alone = note or strings.say("nothing_said", "en")
            told = _with_dropped(note, done)
            return [(_squeezed(text), told) if text else (_squeezed(alone), "")]
        case Failed(code, detail, until):
            waiting = int(detail) if code == "busy" else 0
            return [(_squeezed(strings.failure(code, "en", until, UTC, waiting, detail)), "")]
        case Cancelled(by):
            return _expected_cancelled(found, reply, by)
    return []


def _with_dropped(note: str, done: Done) -> str:
    """The note, and the sentence that old messages no longer fit."""
    key = "turn_dropped" if done.dropped == 1 else "turns_dropped"
    said = strings.say(key, "en", turns=done.dropped) if done.dropped else ""
    return " · ".join(filter(None, (note, said)))


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


# -- refusals, quotas and votes ----------------------------------------------------------------


def refused(found: Findings) -> Iterable[str]:
    """A refused question reaches no core, and there is the reason that it is answered with."""
    claimed = {request.partition(".")[0] for request in found.schedule.prompts.asked}
    for id_, reply in found.replies.items():
        said, end = found.schedule.said[reply.job["turn"]], reply.view.end
        if not reply.opened and id_ in claimed:
            yield f"{id_} was refused, and read by a core"
        if isinstance(end, Failed) and not _is_reason(found, reply, said, end.code):
            yield f"{id_} was refused as {end.code}, without a reason"
        denied = found.schedule.changes.denies_for_good
        if denied(reply.job["author"], said.thread.channel, said.began) and reply.opened:
            yield f"{id_} of somebody who is denied was taken in"


def _is_reason(found: Findings, reply: Reply, said: SentMessage, code: str) -> bool:
    """Whether a reply may have ended with this code."""
    schedule, author, channel = found.schedule, reply.job["author"], reply.thread.channel
    match code:
        case "not_allowed":
            return schedule.changes.may_deny(author, channel, said.began, said.acknowledged)
        case "quota":
            theirs = (o for o in found.replies.values() if o.job["author"] == author)
            opened = sum(map(_most_messages, theirs))
            return _may_be_used_up(found, "person", channel, opened + schedule.restarts)
        case "quota_channel":
            there = (o for o in found.replies.values() if o.thread.channel == channel)
            opened = sum(map(_most_messages, there))
            return _may_be_used_up(found, "channel", channel, opened + schedule.restarts)
    return True


def _may_be_used_up(found: Findings, whose: str, channel: str, messages: int) -> bool:
    limits, terms = found.schedule.changes.limits, found.schedule.terms
    least = [most for most in limits(f"{whose}_messages", channel, terms) if most]
    tokens = any(limits(f"{whose}_tokens", channel, terms))
    return tokens or (bool(least) and messages >= min(least))


def _messages(reply: Reply) -> int:
    return int(reply.job.get("messages", reply.opened))


def _most_messages(reply: Reply) -> int:
    """The messages that a reply may have used: where an edit was refused, the job says none."""
    return max(_messages(reply), len(reply.prompts) if reply.opened else 0)


def quotas(found: Findings) -> Iterable[str]:
    """Quotas are charged for the answers, at least for the published text, within the limits."""
    exact = not found.schedule.restarts
    for day, who, replies in _charged(found):
        used = found.used[day]
        messages, tokens = used.get(f"messages {who}", 0), used.get(f"tokens {who}", 0)
        counted, charged = sum(map(_messages, replies)), sum(map(_charge, replies))
        if messages < counted or (exact and messages != counted):
            yield f"{who} has used {messages} messages, not {counted}"
        if tokens < charged or (exact and tokens != charged):
            yield f"{who} has used {tokens} tokens, not {charged}"
        most = _highest(found, f"{who.partition(' ')[0]}_messages", replies)
        if exact and most and messages > most:
            yield f"{who} has used {messages} messages of {most}"
    for id_, reply in found.replies.items():
        # a message that was deleted is no prompt of its job any more
        there = (said for said in found.schedule.said.values() if said.thread == reply.thread)
        restarted = any(map(_may_restart, there))
        if reply.opened and not restarted and _published(reply) > _charge(reply):
            yield f"{id_} published {_published(reply)} tokens, of which {_charge(reply)} count"


def _charged(found: Findings) -> Iterable[tuple[str, str, list[Reply]]]:
    """Day, person or channel, and the replies that are charged to them."""
    charged: dict[tuple[str, str], list[Reply]] = {}
    for reply in found.replies.values():
        if reply.opened:
            place = ":".join(reply.job["thread"].split(":")[:3])
            person = f"{place.rpartition(':')[0]}:{reply.job['author']}"
            for who in (f"person {person}", f"channel {place}"):
                paid = charged.setdefault((reply.job["day"], who), [])
                if reply.job["state"] not in ("failed", "dead"):
                    paid.append(reply)
    return [(day, who, replies) for (day, who), replies in charged.items()]


def _may_restart(said: SentMessage) -> bool:
    return bool(said.editing) or said.deleting is not None


def _charge(reply: Reply) -> int:
    return int(reply.job.get("charged", 0))


def _published(reply: Reply) -> int:
    """The tokens that a reply cost at the least."""
    end = reply.view.end
    if isinstance(end, Failed):
        return 0
    usage = end.usage if isinstance(end, Done) else Usage(0, 0)
    return max(len(reply.view.text), usage.prompt_tokens + usage.reply_tokens)


def _highest(found: Findings, name: str, replies: Sequence[Reply]) -> int:
    """The highest limit that may have held; 0: at some time there may have been none."""
    channels = {thread.channel for thread in found.schedule.threads}
    changes, terms = found.schedule.changes, found.schedule.terms
    limits = [most for channel in channels for most in changes.limits(name, channel, terms)]
    return 0 if 0 in limits else max(limits)


def duel(found: Findings) -> Iterable[str]:
    """Two answers to one question, of which nothing is shown before both are there."""
    for id_, reply in found.replies.items():
        if "duel" in reply.job and any(_is_words(event) for event in reply.events):
            yield f"{id_} is a duel, and was shown while it was written"
        end, state = reply.view.end, reply.duel.get("state")
        if not state:
            continue
        asked = {
            named[0].partition(" ")[2] for text in reply.answers if (named := _NAMED.match(text))
        }
        if len(reply.answers) != 2 or len(asked) != 1:
            yield f"the duel {id_} is {state}, with {reply.answers}"
        if not isinstance(end, Done) or end.duel is None:
            yield f"the duel {id_} is {state}, and shows {end}"
        elif {end.duel.a, end.duel.b} != set(reply.answers):
            yield f"the duel {id_} shows {end.duel}, not {reply.answers}"
        elif state != "over" and bool(end.duel.models) != (state == "revealed"):
            yield f"the duel {id_} is {state}, and names {end.duel.models}"


def _is_words(event: ReplyEvent) -> bool:
    return isinstance(event, Delta) and bool(event.text)


def votes(found: Findings) -> Iterable[str]:
    """Each vote counts once, and the asker's choice is remembered."""
    for id_, reply in found.replies.items():
        if not reply.duel:
            continue
        cast = [vote for vote in found.schedule.votes if vote.job == id_ and vote.counted]
        given = {vote.person: {v.verdict for v in cast if v.person == vote.person} for vote in cast}
        if given.keys() != reply.votes.keys():
            yield f"the duel {id_} has votes of {set(reply.votes)}, not of {set(given)}"
        elif wrong := {who for who, verdict in reply.votes.items() if verdict not in given[who]}:
            yield f"the duel {id_} has other votes of {wrong} than they gave"
        end, wanted = reply.view.end, int(reply.duel["wanted"])
        if len(given) >= wanted and reply.duel["state"] == "open":
            yield f"the duel {id_} has {len(given)} votes of {wanted}, and is open"
        told = end.duel.votes if isinstance(end, Done) and end.duel else ()
        if told and sum(told) != len(given):
            yield f"the duel {id_} tells {told}, of {len(given)} votes"
        chosen = [vote for vote in cast if vote.person == reply.duel["asker"]]
        if len(chosen) == 1 and not _is_remembered(found, reply, chosen[0]):
            yield f"{id_} remembers {reply.duel['picked']}, and its asker chose {chosen}"


def _is_remembered(found: Findings, reply: Reply, vote: Vote) -> bool:
    """Whether the asker's choice holds, or came when the thread may have gone on."""
    prompts = defaultdict[str, list[float]](list)
    for request, (_, at) in found.schedule.prompts.asked.items():
        prompts[request.partition(".")[0]].append(at)
    for id_, other in found.replies.items():
        if other.thread != reply.thread or int(other.job.get("starts", 0)) == 0:
            continue
        if int(other.job["arrival"]) > int(reply.job["arrival"]):
            known = len(prompts[id_]) == int(other.job["starts"])  # else a core died before one
            if not known or any(at < (vote.ended or at) for at in prompts[id_]):
                return True
    order = reply.duel["order"]
    chosen = {"a": order[0], "b": order[1]}.get(vote.verdict, reply.duel["drawn"])
    return reply.duel["picked"] == chosen


# -- a thread -----------------------------------------------------------------------------------


def order(found: Findings) -> Iterable[str]:
    """Turns are in the order of their arrival, each reply after its question."""
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
    """Messages and replies are remembered with their current text."""
    remembered = {stored.turn.id: stored.turn.text for stored in found.turns()}
    for id_, said in found.schedule.said.items():
        if id_ in remembered and said.texts and remembered[id_] != said.texts[said.edits]:
            yield f"{id_} is remembered as {remembered[id_]!r}, not {said.texts[said.edits]!r}"
        if id_ not in remembered and _must_be_remembered(found, said):
            yield f"{id_} is not remembered"
    for id_, reply in found.replies.items():
        if id_ in remembered and remembered[id_] not in reply.memorable_texts:
            yield f"the reply {id_} is remembered as {remembered[id_]!r}"
        for text in (reply.done_text, *reply.answers):
            if text and not _answers(found, reply, text):
                yield f"{id_} says {text!r}, which answers none of {reply.prompts}"


def _answers(found: Findings, reply: Reply, text: str) -> bool:
    asked = {text for p in reply.prompts for text in found.schedule.said[p].texts}
    return any(f"{word}: {one}".startswith(text) for one in asked for word in ("echo", OTHER_WORD))


def _must_be_remembered(found: Findings, said: SentMessage) -> bool:
    replies = [reply for reply in found.replies.values() if said.turn.id in reply.prompts]
    # one without a reply was refused: see `lost`
    refused = not replies or any(isinstance(reply.view.end, Failed) for reply in replies)
    reset = any(reset.covers(said.thread) for reset in found.schedule.resets)
    gone = said.deleting is not None or _edited_while_denied(found, said)
    return said.addressed and not (gone or refused or reset) and _outlives_nights(found, said)


def _edited_while_denied(found: Findings, said: SentMessage) -> bool:
    """Whether an edit may have taken the message away."""
    changes, place = found.schedule.changes, said.thread.channel
    return any(changes.may_deny(said.turn.author, place, at, None) for at in said.editing)


def _outlives_nights(found: Findings, said: SentMessage) -> bool:
    """Whether its thread was never quiet for so long that it may be forgotten."""
    dates, last = found.schedule.dates, found.schedule.dates[said.day]
    active = {
        found.schedule.said[reply.job["turn"]].day
        for reply in found.replies.values()
        if reply.job["thread"] == str(said.thread) and isinstance(reply.view.end, Done)
    }
    for day in range(said.day + 1, len(dates)):
        if dates[day] - last > RETENTION:
            return False
        last = dates[day] if day in active else last
    return True


# -- prompts ------------------------------------------------------------------------------------

_NAMED = re.compile(r"(echo: |oche: )?\d+\.([mp]\d+)(?:e(\d+))? ")
"""The name of the message that a turn's text begins with, and its revision."""


def prompts(found: Findings) -> Iterable[str]:
    """No prompt holds a turn that was forgotten, deleted or edited before its turns were read."""
    said = found.schedule.said | found.schedule.past
    for prompt in found.schedule.prompts.read:
        names = [(bool(n[1]), n[2]) for text in prompt.texts if (n := _NAMED.match(text))]
        if len(set(names)) != len(names):
            yield f"{prompt.job} in {prompt.thread} read a turn twice: {names}"
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
    if found.schedule.changes.denies_for_good(said.turn.author, said.thread.channel, said.began):
        yield "by somebody who is denied"
    if any(revision < number for at, number in said.edited_at if at < prompt.at):
        yield "which was edited since"
