"""Duels: which questions are answered twice, and the texts around the answers."""

from __future__ import annotations

from bots.strings import say
from core.place_rules import DUEL_HOURS, DUEL_VOTES, Rules
from core.queue_types import DuelSettings, Sample
from core.types import VERDICTS, Duel

_DIGITS = 8
"""Of a job's id. It is a digest, so it serves as a repeatable random number."""


def settings_for(rules: Rules, job: str) -> DuelSettings | None:
    """The duel of a job's question, by the rules of its place; None: a single answer."""
    wanted = rules.duel_with()
    if wanted is None or int(job[:_DIGITS], 16) >= wanted[1] * 16**_DIGITS:
        return None
    hours = rules.duel_hours or DUEL_HOURS
    return DuelSettings(wanted[0], rules.duel_votes or DUEL_VOTES, 3600 * hours)


def headed(duel: Duel) -> tuple[str, str]:
    """The two answers as Markdown, each under its letter, with its model once that is revealed."""
    names = [f" · {name}" for name in duel.models] or ["", ""]
    return f"**A{names[0]}**\n\n{duel.a}", f"**B{names[1]}**\n\n{duel.b}"


def note(duel: Duel, locale: str) -> str:
    """The sentence under the answers: a question to people; at the end, the votes."""
    if not duel.models:
        return say("duel_asks", locale)
    counts = (f"{say(f'vote_{verdict}', locale)} {number}"
              for verdict, number in zip(VERDICTS, duel.votes, strict=True))  # fmt: skip
    return say("duel_votes", locale, votes=" · ".join(counts))


def kept_of(sample: Sample, person: str) -> dict[str, object]:
    """A person's data in a sample: their messages, the replies to them, and their vote."""
    turns = {turn.id: turn for trace in sample.traces if trace for turn in trace.turns}
    said = [turn.text for turn in turns.values() if turn.author == person]
    replies = [trace.text for trace in sample.traces if trace] if sample.asker == person else []
    return {
        "thread": str(sample.thread),
        "kept_for_training": said,
        "replies": replies,
        "vote": sample.votes.get(person, ""),
    }
