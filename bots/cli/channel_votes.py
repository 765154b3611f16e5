"""``henji compare A B --from-channel PLACE``: the votes of a channel's duels, as a comparison."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bots.cli.comparison import show
from bots.services import Stores, open_stores
from core.errors import OperatorError, UsageError
from core.evaluation.prompts import Answer, Prompt, Source
from core.evaluation.run_record import JudgeConfig, Record, Setup, StoredVerdict
from core.evaluation.statistics import Side, Verdict, Winner
from core.queue_types import Place, StoredDuel
from core.settings import Settings
from core.types import Turn

FORGOTTEN = "(not remembered any more)"


@dataclass(frozen=True, slots=True)
class VotedDuel:
    """A duel of the two models, with its question, and its voters' pseudonyms."""

    duel: StoredDuel
    question: Turn
    raters: dict[str, str]


def compare_votes(
    settings: Settings, names: tuple[str, str], place: Place, by: str, seed: int, out: Path | None
) -> None:
    """Write the votes of a place as a comparison's directory, and print its table."""
    found = asyncio.run(_read(settings, names, place, by))
    told = hashlib.sha256(repr([(one.duel.job, one.raters) for one in found]).encode())
    told.update(repr([sorted(one.duel.votes.items()) for one in found]).encode())
    source = Source(f"duels in {place}", told.hexdigest())
    directory = out or Path(f"votes-{names[0]}-{names[1]}".replace("/", "-"))
    setup = Setup({"name": names[0]}, {"name": names[1]}, source, seed)
    prompts = [Prompt(one.duel.job, (one.question,)) for one in found]
    with Record.open(directory, setup, prompts) as record:
        if not record.verdicts:
            _fill(record, names[0], place, found)
    show(settings, directory)


async def _read(
    settings: Settings, names: tuple[str, str], place: Place, by: str
) -> Sequence[VotedDuel]:
    """The duels of the two models that have votes. OperatorError where there are none."""
    async with open_stores(settings) as stores:
        await stores.audit.append(place, by, "read", "votes")
        every = [duel async for duel in stores.preferences.duels(place)]
        voted = [duel for duel in every if duel.votes and _models(duel) == sorted(names)]
        found = [await _with_question(stores, place, duel) for duel in voted]
    if found:
        return found
    pairs = sorted({" and ".join(_models(duel)) for duel in every if duel.votes})
    there = f"there are votes on {'; '.join(pairs)}" if pairs else "nobody has voted there"
    raise OperatorError(f"{place} has no votes on {names[0]} and {names[1]}: {there}")


def _models(duel: StoredDuel) -> list[str]:
    return sorted(answer.model for answer in duel.answers)


async def _with_question(stores: Stores, place: Place, duel: StoredDuel) -> VotedDuel:
    turns = [stored.turn for stored in await stores.history.turns(duel.thread)]
    known = next((turn.text for turn in turns if turn.id == duel.question), FORGOTTEN)
    raters = {person: (await stores.preferences.digest(place, person))[:8] for person in duel.votes}
    return VotedDuel(duel, Turn("1", "user", "", known, 0.0), raters)


def _fill(record: Record, first: str, place: Place, found: Sequence[VotedDuel]) -> None:
    config = JudgeConfig(f"people:{place}", "people", both_orders=False)
    record.begin_judge(config)
    for one in found:
        sides = _sides(one.duel, first)
        for side, answer in zip(sides, one.duel.answers, strict=True):
            record.add_answer(Answer(one.duel.job, side, answer.text))
        for person, rater in one.raters.items():
            winner = _winner(one.duel, person, sides)
            verdict = Verdict(one.duel.job, winner, sides[0], rater)
            record.add_verdict(StoredVerdict(config.name, verdict))


def _sides(duel: StoredDuel, first: str) -> tuple[Side, Side]:
    """The sides whose answers were shown as A and as B."""
    return ("a", "b") if duel.answers[0].model == first else ("b", "a")


def _winner(duel: StoredDuel, person: str, sides: tuple[Side, Side]) -> Winner:
    match duel.votes[person]:
        case "a":
            return sides[0]
        case "b":
            return sides[1]
        case "tie":
            return "tie"
    return "both bad"


def check_names(a: str | None, b: str | None) -> tuple[str, str]:
    """UsageError unless they are two different models."""
    if a is None or b is None:
        raise UsageError("two models are compared: name A and B")
    if a == b:
        raise UsageError(f"A and B are both {a}: two samples of one model have no table")
    return a, b
