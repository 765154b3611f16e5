"""Intervals, tests and power, and the table of wins, ties and losses. Pure.

The score is FastChat's adjusted win rate, (wins + ties / 2) / verdicts. Where a judge saw both
orders of a pair, the pair is won only if both verdicts agree, and a tie otherwise, as FastChat
counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb, exp, sqrt, tanh
from random import Random
from statistics import fmean, median
from typing import Literal, TypeAlias

RESAMPLES = 2000
"""Of a bootstrap."""
ALPHA = 0.05
"""Intervals hold 95 %, and a test finds something below 5 %."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and the 95 % interval around it."""

    value: float
    low: float
    high: float


def mean(values: Sequence[float], seed: int = 0) -> Estimate:
    """The mean of independent values, with the interval of a bootstrap over them.

    If all are the same, a bootstrap has no information: then the values are taken to be between 0
    and 1, and the interval is the exact one for an unobserved share. ValueError for no values.
    """
    if len(set(values)) == 1:
        return _of_the_same(values[0], len(values))
    draw = Random(seed)  # noqa: S311 -- statistics, no secret
    means = [fmean(draw.choices(values, k=len(values))) for _ in range(RESAMPLES)]
    return _estimate(fmean(values), means)


def mean_of_ratings(ratings: Mapping[tuple[str, str], float], seed: int = 0) -> Estimate:
    """The mean of ratings by (prompt, rater), with the interval of a bootstrap over both.

    With one rater this is `mean`. With several, a rating counts as often as its prompt was drawn
    times its rater was drawn: both prompts and people are samples.
    """
    raters = sorted({rater for _, rater in ratings})
    if len(raters) < 2:
        return mean(list(ratings.values()), seed)
    by_prompt: dict[str, dict[str, float]] = {}
    for (prompt, rater), value in ratings.items():
        by_prompt.setdefault(prompt, {})[rater] = value
    if len(set(ratings.values())) == 1:
        return _of_the_same(next(iter(ratings.values())), len(by_prompt))
    draw, rows = Random(seed), list(by_prompt.values())  # noqa: S311 -- statistics, no secret
    means = []
    for _ in range(RESAMPLES):
        people = draw.choices(raters, k=len(raters))
        drawn = [row[p] for row in draw.choices(rows, k=len(rows)) for p in people if p in row]
        means += [fmean(drawn)] if drawn else []
    return _estimate(fmean(ratings.values()), means)


def _of_the_same(value: float, number: int) -> Estimate:
    """The estimate for so many equal values, with the largest share that others may have."""
    unseen = 1 - (ALPHA / 2) ** (1 / number)
    return Estimate(value, value * (1 - unseen), value + (1 - value) * unseen)


def _estimate(value: float, resampled: Sequence[float]) -> Estimate:
    ordered = sorted(resampled)
    tail = int(ALPHA / 2 * len(ordered))
    return Estimate(value, ordered[tail], ordered[-1 - tail])


# -- the sign test, and what it can find ---------------------------------------------------------


def sign_test(wins: int, losses: int) -> float:
    """The two-sided p of a split of wins and losses, if both are equally likely."""
    return min(1.0, 2 * _tail(max(wins, losses), wins + losses, 0.5))


def power(decisive: int, share: float) -> float:
    """The power of the sign test at 5 %, with so many decisive verdicts and a true win rate of
    `share`."""
    fewest = next((k for k in range(decisive // 2, decisive + 1) if _found(k, decisive)), None)
    if fewest is None:
        return 0.0
    return _tail(fewest, decisive, share) + _tail(fewest, decisive, 1 - share)


def detectable(decisive: int) -> int | None:
    """The lowest true win rate, in per cent, that is found in 8 of 10 cases; None: not even 99."""
    return next((n for n in range(51, 100) if power(decisive, n / 100) >= 0.8), None)


def _found(wins: int, decisive: int) -> bool:
    return sign_test(wins, decisive - wins) < ALPHA


def _tail(least: int, tries: int, share: float) -> float:
    """The probability of at least so many successes."""
    if tries > 1000:  # the exact terms leave what a float can hold
        return _normal_tail((least - 0.5 - tries * share) / sqrt(tries * share * (1 - share)))
    terms = (
        comb(tries, k) * share**k * (1 - share) ** (tries - k) for k in range(least, tries + 1)
    )
    return min(1.0, sum(terms))


def _normal_tail(deviations: float) -> float:
    from math import erfc

    return erfc(deviations / sqrt(2)) / 2


# -- the score at equal length -------------------------------------------------------------------


_FITS = 200
_WORK = 100_000
"""The resamples of a fit, and the most prompts that they go through."""


def at_equal_length(
    scores: Sequence[float], differences: Sequence[float], seed: int = 0
) -> Estimate:
    """The score that a logistic regression gives for answers of the same length, with the interval
    of a bootstrap over prompts.

    `scores`: 1, 0.5 or 0 by prompt; `differences`: the first model's length less the second's, in
    any unit. As in AlpacaEval 2, the length enters as the tanh of its difference in standard
    deviations. A weak normal prior on both coefficients keeps them finite. ValueError where there
    are no prompts.
    """
    spread = sqrt(fmean(d * d for d in differences))
    lengths = [tanh(d / spread) if spread else 0.0 for d in differences]
    prompts = list(zip(scores, lengths, strict=True))
    draw = Random(seed)  # noqa: S311 -- statistics, no secret
    fits = max(40, min(_FITS, _WORK // len(prompts)))
    resampled = [_level(draw.choices(prompts, k=len(prompts))) for _ in range(fits)]
    return _estimate(_level(prompts), resampled)


def _level(prompts: Sequence[tuple[float, float]]) -> float:
    """The score at a length of 0, of (score, length) by prompt."""
    level, slope = 0.0, 0.0
    for _ in range(25):
        step = _newton_step(prompts, level, slope)
        level, slope = level + step[0], slope + step[1]
        if max(map(abs, step)) < 1e-9:
            break
    return _logistic(level)


_PRIOR_LEVEL = 0.01
_PRIOR_SLOPE = 0.25
"""The precisions of the priors: standard deviations of 10 and of 2, in log-odds."""


def _newton_step(
    prompts: Sequence[tuple[float, float]], level: float, slope: float
) -> tuple[float, float]:
    """One step of Newton's method on the penalised log-likelihood of two coefficients."""
    g0, g1 = -_PRIOR_LEVEL * level, -_PRIOR_SLOPE * slope
    h00, h01, h11 = _PRIOR_LEVEL, 0.0, _PRIOR_SLOPE
    for score, length in prompts:
        guess = _logistic(level + slope * length)
        weight = guess * (1 - guess)
        g0, g1 = g0 + score - guess, g1 + (score - guess) * length
        h00, h01, h11 = h00 + weight, h01 + weight * length, h11 + weight * length * length
    determinant = h00 * h11 - h01 * h01
    return (h11 * g0 - h01 * g1) / determinant, (h00 * g1 - h01 * g0) / determinant


def _logistic(x: float) -> float:
    return 1 / (1 + exp(-x)) if x >= 0 else exp(x) / (1 + exp(x))


# -- verdicts -------------------------------------------------------------------------------------


Side: TypeAlias = Literal["a", "b"]
SIDES: tuple[Side, Side] = ("a", "b")
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
