"""Having a program judge all pairs of a comparison, and keeping each verdict as it comes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from core.evaluation.counting import Side, Verdict, Winner
from core.evaluation.prompts import Answer, Prompt
from core.evaluation.run_record import JudgeConfig, Record, StoredVerdict
from core.evaluation.scores import Scorer, better
from core.evaluation.server_judge import Choice, ServerJudge, read_verdict

T = TypeVar("T")

AT_ONCE = 4
"""Questions to a server at a time."""

SIDES: tuple[Side, Side] = ("a", "b")


def winner_of(choice: Choice, first: Side) -> Winner:
    """The side whose answer was chosen; `first` is the side that was shown first."""
    if choice in ("tie", "unreadable"):
        return choice
    return first if choice == "first" else other(first)


def other(side: Side) -> Side:
    return "b" if side == "a" else "a"


async def judge_by_server(
    record: Record, config: JudgeConfig, judge: ServerJudge, progress: Callable[[int, int], None]
) -> None:
    """Have every pair judged in both orders; those that were judged before are left alone."""
    known = {(s.verdict.prompt, s.verdict.first) for s in record.verdicts_of(config.name)}
    asked = [
        (prompt, pair, first)
        for prompt, pair in answered(record)
        for first in SIDES
        if (prompt.id, first) not in known
    ]

    async def ask(question: tuple[Prompt, tuple[Answer, Answer], Side]) -> None:
        prompt, (a, b), first = question
        shown = (a.text, b.text) if first == "a" else (b.text, a.text)
        text = await judge.say(prompt, *shown)
        verdict = Verdict(prompt.id, winner_of(read_verdict(text), first), first)
        record.add_verdict(StoredVerdict(config.name, verdict, time.time(), text))
        progress(len(record.verdicts_of(config.name)), 2 * len(answered(record)))

    await _some_at_a_time(AT_ONCE, ask, asked)


def judge_by_score(
    record: Record, config: JudgeConfig, scorer: Scorer, progress: Callable[[int, int], None]
) -> None:
    """Have every pair judged by the numbers that its answers get."""
    known = {stored.verdict.prompt for stored in record.verdicts_of(config.name)}
    pairs = answered(record)
    for place, (prompt, (a, b)) in enumerate(pairs, 1):
        if prompt.id in known:
            continue
        scores = (float(scorer(prompt, a.text)), float(scorer(prompt, b.text)))
        verdict = Verdict(prompt.id, better(scores), None)
        kept = None if verdict.winner == "unreadable" else scores  # JSON has no such numbers
        record.add_verdict(StoredVerdict(config.name, verdict, time.time(), scores=kept))
        progress(place, len(pairs))


def answered(record: Record) -> list[tuple[Prompt, tuple[Answer, Answer]]]:
    """The prompts that both models answered, with the answers."""
    found = ((prompt, record.both_answers(prompt.id)) for prompt in record.prompts)
    return [(prompt, pair) for prompt, pair in found if pair is not None]


async def _some_at_a_time(
    most: int, work: Callable[[T], Awaitable[None]], items: Sequence[T]
) -> None:
    """Work on all items, `most` of them at once; the first fault ends it."""
    waiting: Iterable[T] = iter(items)

    async def go_on() -> None:
        for item in waiting:
            await work(item)

    workers = [asyncio.create_task(go_on()) for _ in range(most)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
