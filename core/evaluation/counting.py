"""From verdicts to the table of wins, ties and losses, with its statistics. Pure.

The score is FastChat's adjusted win rate, (wins + ties / 2) / verdicts. Where a judge saw both
orders of a pair, the pair is won only if both verdicts agree, and a tie otherwise, as FastChat
counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Literal, TypeAlias

from core.evaluation.statistics import (
    Estimate,
    at_equal_length,
    mean_of_ratings,
    power,
    sign_test,
)

Side: TypeAlias = Literal["a", "b"]
Winner: TypeAlias = Literal["a", "b", "tie", "both bad", "unreadable"]
PairResult: TypeAlias = Literal["win", "tie", "loss"]
"""A's result against B."""

SCORE: Mapping[PairResult, float] = {"win": 1.0, "tie": 0.5, "loss": 0.0}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement of the two answers to one prompt."""

    prompt: str
    winner: Winner
    first: Side | None
    """The side that was shown first; None: the judge sees no order."""
    rater: str = ""
    """The person who judged; empty for a judge that is a program."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The outcome of one prompt, by one rater."""

    prompt: str
    rater: str
    outcome: PairResult | None
    """None: a verdict could not be read."""
    contradicts: bool = False
    """Each order has another winner."""
    both_bad: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """The card's table, of A against B."""

    wins: int
    ties: int
    losses: int

    @classmethod
    def of(cls, outcomes: Iterable[PairResult | None]) -> Table:
        counts = Counter(outcomes)
        return cls(counts["win"], counts["tie"], counts["loss"])

    @property
    def total(self) -> int:
        return self.wins + self.ties + self.losses

    @property
    def decisive(self) -> int:
        return self.wins + self.losses


@dataclass(frozen=True, slots=True)
class ScoredTable:
    """A table of some of the prompts, with its score; None: nothing was counted."""

    table: Table
    score: Estimate | None


@dataclass(frozen=True, slots=True)
class Count:
    """All counts of one judge's verdicts."""

    whole: ScoredTable
    shares: Mapping[PairResult, Estimate]
    """The shares of wins, ties and losses; empty: nothing was counted."""
    p: float
    """Of the sign test over prompts."""
    prompts_won: int
    prompts_lost: int
    """A prompt that several people judged is won if their average score is over a half."""
    categories: Mapping[str, ScoredTable]
    contradictions: int
    """Pairs whose two orders have different winners."""
    agreements: int
    """Pairs whose two orders have the same winner."""
    first_won: int
    ordered: int
    """Decisive verdicts of a judge that saw an order, and those in which the first place won."""
    unreadable: int
    """Verdicts that could not be read."""
    both_bad: int
    raters: int
    rated_together: int
    rated_alike: int
    """Pairs of people who judged the same prompt, and those with the same outcome."""
    equal_length: Estimate | None
    """The score at equal length; None: lengths are unknown."""
    not_blind: int
    """Prompts where an answer names its model."""
    blind: ScoredTable | None
    """The table without those; None: there are none."""


def count(
    verdicts: Sequence[Verdict],
    *,
    both_orders: bool,
    categories: Mapping[str, str] | None = None,
    lengths: Mapping[str, tuple[int, int]] | None = None,
    named: Collection[str] = (),
    seed: int = 0,
) -> Count:
    """Count verdicts. A later one by the same rater in the same order replaces an earlier one.

    `both_orders`: the judge sees each pair in both orders, and a pair seen in only one is not
    counted. By prompt: `categories`, `lengths` (of A's and of B's answer, in characters) and
    `named`, the prompts with an answer that names its model.
    """
    standing = _standing(verdicts)
    pairs = pair_up(standing, both_orders=both_orders)
    by_prompt = _scores_by_prompt(pairs)
    won = sum(score > 0.5 for score in by_prompt.values())
    lost = sum(score < 0.5 for score in by_prompt.values())
    together, alike = _agreement(pairs)
    decisive = [v for v in standing if v.winner in ("a", "b")]
    ordered = [v for v in decisive if v.first is not None]
    return Count(
        whole=_scored_table(pairs, seed),
        shares=_shares(pairs, seed),
        p=sign_test(won, lost),
        prompts_won=won,
        prompts_lost=lost,
        categories=_by_category(pairs, categories or {}, seed),
        contradictions=sum(pair.contradicts for pair in pairs),
        agreements=_agreements(decisive) if both_orders else 0,
        first_won=sum(v.winner == v.first for v in ordered),
        ordered=len(ordered),
        unreadable=sum(v.winner == "unreadable" for v in standing),
        both_bad=sum(pair.both_bad for pair in pairs),
        raters=len({pair.rater for pair in pairs if pair.rater}),
        rated_together=together,
        rated_alike=alike,
        equal_length=_equal_length(by_prompt, lengths or {}, seed),
        not_blind=len({pair.prompt for pair in pairs} & set(named)),
        blind=_scored_table([p for p in pairs if p.prompt not in named], seed) if named else None,
    )


def _standing(verdicts: Iterable[Verdict]) -> list[Verdict]:
    return list({(v.prompt, v.rater, v.first): v for v in verdicts}.values())


def pair_up(verdicts: Iterable[Verdict], *, both_orders: bool) -> list[Pair]:
    """One outcome for each prompt and rater."""
    groups: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in verdicts:
        groups.setdefault((verdict.prompt, verdict.rater), []).append(verdict)
    whole = (group for group in groups.values() if len(group) == 2 or not both_orders)
    return [_pair(group) for group in whole]


def _pair(group: Sequence[Verdict]) -> Pair:
    prompt, rater = group[0].prompt, group[0].rater
    winners = {verdict.winner for verdict in group}
    if "unreadable" in winners:
        return Pair(prompt, rater, None)
    if winners == {"a"} or winners == {"b"}:
        return Pair(prompt, rater, "win" if "a" in winners else "loss")
    return Pair(prompt, rater, "tie", winners == {"a", "b"}, winners == {"both bad"})


def _shares(pairs: Iterable[Pair], seed: int) -> Mapping[PairResult, Estimate]:
    known = _outcomes(pairs)
    if not known:
        return {}
    return {
        outcome: mean_of_ratings({key: float(o == outcome) for key, o in known.items()}, seed)
        for outcome in SCORE
    }


def _outcomes(pairs: Iterable[Pair]) -> dict[tuple[str, str], PairResult]:
    return {(p.prompt, p.rater): p.outcome for p in pairs if p.outcome is not None}


def _scored_table(pairs: Iterable[Pair], seed: int) -> ScoredTable:
    known = _outcomes(pairs)
    ratings = {key: SCORE[outcome] for key, outcome in known.items()}
    return ScoredTable(
        Table.of(known.values()), mean_of_ratings(ratings, seed) if ratings else None
    )


def _scores_by_prompt(pairs: Iterable[Pair]) -> dict[str, float]:
    scores: dict[str, list[float]] = {}
    for pair in pairs:
        if pair.outcome is not None:
            scores.setdefault(pair.prompt, []).append(SCORE[pair.outcome])
    return {prompt: sum(values) / len(values) for prompt, values in scores.items()}


def _by_category(
    pairs: Sequence[Pair], categories: Mapping[str, str], seed: int
) -> Mapping[str, ScoredTable]:
    found: dict[str, list[Pair]] = {name: [] for name in categories.values() if name}
    for pair in pairs:
        found.get(categories.get(pair.prompt, ""), []).append(pair)
    return {name: _scored_table(some, seed) for name, some in found.items() if some}


def _agreements(decisive: Iterable[Verdict]) -> int:
    wins = Counter((v.prompt, v.rater, v.winner) for v in decisive)
    return sum(number == 2 for number in wins.values())


def _agreement(pairs: Iterable[Pair]) -> tuple[int, int]:
    by_prompt: dict[str, list[PairResult]] = {}
    for pair in pairs:
        if pair.outcome is not None:
            by_prompt.setdefault(pair.prompt, []).append(pair.outcome)
    couples = [two for outcomes in by_prompt.values() for two in combinations(outcomes, 2)]
    return len(couples), sum(one == other for one, other in couples)


def _equal_length(
    scores: Mapping[str, float], lengths: Mapping[str, tuple[int, int]], seed: int
) -> Estimate | None:
    known = [prompt for prompt in scores if prompt in lengths]
    if not known:
        return None
    differences = [float(lengths[prompt][0] - lengths[prompt][1]) for prompt in known]
    return at_equal_length([scores[prompt] for prompt in known], differences, seed)


def median_length(lengths: Iterable[int]) -> float:
    """The median length; 0 for none."""
    found = list(lengths)
    return float(median(found)) if found else 0.0


# -- what a table can show -----------------------------------------------------------------------


def reads_answers(counted: Count) -> bool:
    """Whether a judge of both orders follows the answers rather than their places.

    Its two verdicts on a pair would agree as often as not if it guessed or looked at the place:
    False where as few agreements would come about by chance in 5 % of cases.
    """
    agreed, opposed = counted.agreements, counted.contradictions
    return agreed > opposed and sign_test(agreed, opposed) < 0.05


def seen_of_ten(decisive: int, share: float) -> int:
    """The number of cases in ten in which so many decisive verdicts show a win rate of `share`."""
    return round(10 * power(decisive, share))
