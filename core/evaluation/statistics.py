"""Intervals, tests and the power of a comparison: pure arithmetic on numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb, exp, sqrt, tanh
from random import Random
from statistics import fmean

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
