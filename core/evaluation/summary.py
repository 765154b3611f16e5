"""The rows and sentences that a comparison's table and report share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from core.evaluation.comparison import Comparison, Figures, Judged
from core.evaluation.counting import Count, ScoredTable, reads_answers, seen_of_ten
from core.evaluation.statistics import ALPHA, Estimate, detectable

Say: TypeAlias = Callable[..., str]
"""The sentence of a key, with values filled in, in a reader's language."""

Row: TypeAlias = tuple[str, str]
"""A label and its value."""

_MUCH_LONGER = 1.2


def judged_by(say: Say, judged: Judged) -> str:
    """A heading for one judge's table."""
    kind = judged.config.kind
    if kind == "people":
        return say("compare_by_people")
    name = judged.config.name.removeprefix(f"{kind}:")
    return say(f"compare_by_{kind}", judge=name)


def judged_rows(say: Say, judged: Judged) -> list[Row]:
    """The rows under one judge's table."""
    counted = judged.count
    return [
        *_score_rows(say, counted),
        *_order_rows(say, judged),
        *_people_rows(say, counted),
    ]


def _score_rows(say: Say, counted: Count) -> Iterator[Row]:
    if counted.whole.score is None:
        return
    yield say("compare_score"), estimate(say, counted.whole.score)
    p = show_p(counted.p)
    won, lost = counted.prompts_won, counted.prompts_lost
    yield say("compare_sign_test"), say("compare_sign_test_value", p=p, won=won, lost=lost)
    if counted.equal_length is not None:
        yield say("compare_equal_length"), estimate(say, counted.equal_length)


def _order_rows(say: Say, judged: Judged) -> Iterator[Row]:
    counted = judged.count
    if judged.config.both_orders:
        told = say("compare_of_pairs", number=counted.contradictions, total=judged.pairs)
        yield say("compare_contradictions"), told
    if counted.ordered:
        told = say("compare_of_decisive", number=counted.first_won, total=counted.ordered)
        yield say("compare_first_place"), told
    if judged.config.kind == "server" or counted.unreadable:
        yield say("compare_unreadable"), str(counted.unreadable)


def _people_rows(say: Say, counted: Count) -> Iterator[Row]:
    if not counted.raters:
        return
    yield say("compare_both_bad"), str(counted.both_bad)
    yield (
        say("compare_raters"),
        say(
            "compare_raters_value",
            raters=counted.raters,
            alike=counted.rated_alike,
            together=counted.rated_together,
        ),
    )
    if counted.blind is not None:
        yield say("compare_not_blind"), _without(say, counted, counted.blind)


def _without(say: Say, counted: Count, blind: ScoredTable) -> str:
    table = blind.table
    return say(
        "compare_not_blind_value",
        number=counted.not_blind,
        wins=table.wins,
        ties=table.ties,
        losses=table.losses,
        score=f"{blind.score.value:.3f}" if blind.score else "–",
    )


def estimate(say: Say, value: Estimate) -> str:
    return say("compare_interval", value=value.value, low=value.low, high=value.high)


def show_p(p: float) -> str:
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"


def figure_rows(say: Say, comparison: Comparison) -> list[tuple[str, str, str]]:
    """Figures of the answers: a label, and A's and B's value."""
    a, b = comparison.figures

    def both(key: str, value: Callable[[Figures], object]) -> tuple[str, str, str]:
        return say(key), str(value(a)), str(value(b))

    unknown = say("compare_not_known")
    return [
        both("compare_median_length", lambda one: f"{one.median_length:g}"),
        both("compare_cut_off", lambda one: unknown if one.cut_off is None else one.cut_off),
        both("compare_looping", lambda one: one.looping),
        both("compare_empty", lambda one: one.empty),
    ]


# -- conclusions and their limits ---------------------------------------------------------------


def sentences(say: Say, comparison: Comparison, judged: Judged) -> list[str]:
    """The conclusions from one judge's table, and its limits."""
    return [
        *_on_completeness(say, comparison, judged),
        *_on_difference(say, comparison, judged.count),
        *_on_judge(say, judged),
        *_on_lengths(say, comparison, judged),
    ]


def _on_completeness(say: Say, comparison: Comparison, judged: Judged) -> Iterator[str]:
    total = len(comparison.answered)
    if not judged.pairs:
        yield say("compare_no_verdicts")
    elif judged.pairs < total:
        yield say("compare_unfinished", number=total - judged.pairs, total=total)
    setup = comparison.record.setup
    for side in (setup.a, setup.b):
        if number := side.get("trained_on"):
            told = {"name": side["name"], "number": number, "total": len(comparison.record.prompts)}
            yield say("compare_trained_on", **told)


def _on_difference(say: Say, comparison: Comparison, counted: Count) -> Iterator[str]:
    if not counted.whole.table.total:
        return
    name = comparison.names[counted.prompts_lost > counted.prompts_won]
    key = _difference(counted)
    yield say(
        f"compare_shows_{key}", p=show_p(counted.p), **({"name": name} if key == "better" else {})
    )
    decisive = counted.prompts_won + counted.prompts_lost
    seen, found = seen_of_ten(decisive, 0.6), detectable(decisive)
    if found is None:
        yield say("compare_little_power", decisive=decisive, seen=seen)
    else:
        yield say("compare_power", decisive=decisive, seen=seen, detectable=found)


def _difference(counted: Count) -> Literal["better", "mixed", "nothing"]:
    """Whether the sign test and the interval both find one, only one does, or none."""
    score = counted.whole.score
    found = counted.p < ALPHA, score is not None and not score.low <= 0.5 <= score.high
    return "better" if all(found) else "mixed" if any(found) else "nothing"


def _on_judge(say: Say, judged: Judged) -> Iterator[str]:
    agreed, opposed = judged.count.agreements, judged.count.contradictions
    if opposed and not reads_answers(judged.count):
        yield say("compare_judge_guesses", agreed=agreed, opposed=opposed)
    if judged.config.kind in ("server", "reward"):
        yield say("compare_judge_is_program")
    if judged.config.kind == "rule":
        yield say("compare_rule_is_gameable")


def _on_lengths(say: Say, comparison: Comparison, judged: Judged) -> Iterator[str]:
    lengths = [figures.median_length for figures in comparison.figures]
    longer, shorter = max(lengths), min(lengths)
    if _judged_by_taste(judged) and longer > _MUCH_LONGER * shorter:
        name = comparison.names[lengths[1] == longer]
        yield say("compare_lengths_differ", name=name, longer=f"{longer:g}", shorter=f"{shorter:g}")


def _judged_by_taste(judged: Judged) -> bool:
    return judged.config.kind != "rule" and judged.count.whole.table.total > 0


# -- how to repeat it ---------------------------------------------------------------------------


def repeat_rows(say: Say, comparison: Comparison) -> list[Row]:
    """Everything that is needed to get the same table again."""
    setup = comparison.record.setup
    number = len(comparison.record.prompts)
    rows = [
        (
            say("compare_prompts"),
            say(
                "compare_prompts_value",
                number=number,
                file=setup.prompts.name,
                sha256=setup.prompts.sha256,
            ),
        ),
        (say("compare_seed"), str(setup.seed)),
        (say("compare_model", side="A"), details(setup.a)),
        (say("compare_model", side="B"), details(setup.b)),
        *(
            (say("compare_judge"), f"{judged.config.name} {details(judged.config.details)}".strip())
            for judged in comparison.judged
        ),
        (say("compare_started"), comparison.record.started),
    ]
    if comparison.left_out:
        told = say("compare_left_out_value", number=comparison.left_out)
        rows.append((say("compare_left_out"), told))
    return rows


def details(values: Mapping[str, Any]) -> str:
    """Nested values on one line."""
    return ", ".join(
        f"{key} ({details(value)})" if isinstance(value, Mapping) else f"{key} {value}"
        for key, value in values.items()
        if value not in (None, "", {}, [])
    )


def table_lines(say: Say, comparison: Comparison) -> list[str]:
    """The whole comparison for a terminal."""
    a, b = comparison.names
    lines = [say("compare_title", a=a, b=b)]
    for judged in comparison.judged:
        lines += ["", judged_by(say, judged), "", *_card(say, judged), ""]
        lines += _aligned(judged_rows(say, judged))
        lines += ["", *sentences(say, comparison, judged)]
    figures = figure_rows(say, comparison)
    answers = [(label, f"{one} | {other}") for label, one, other in figures]
    lines += ["", say("compare_answers"), "", *_aligned([("", f"{a} | {b}"), *answers])]
    lines += ["", say("compare_repeat"), "", *_aligned(repeat_rows(say, comparison))]
    return lines


def _card(say: Say, judged: Judged) -> list[str]:
    """As on the model's card."""
    table = judged.count.whole.table
    words = [say("compare_win"), say("compare_tie"), say("compare_loss")]
    numbers = [str(table.wins), str(table.ties), str(table.losses)]
    wide = max(map(len, words + numbers))
    return [
        "  " + " | ".join(word.rjust(wide) for word in words),
        "  " + " | ".join(number.rjust(wide) for number in numbers)
        + "   " + say("compare_of", total=table.total),
    ]  # fmt: skip


def _aligned(rows: Sequence[Row]) -> list[str]:
    wide = max((len(label) for label, _ in rows), default=0)
    return [f"  {label.ljust(wide)}  {value}" for label, value in rows]
