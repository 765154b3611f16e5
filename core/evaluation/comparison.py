"""A comparison's record, counted, and the rows and sentences of its table and report. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from core.dialogue.loop_detection import first_round_end
from core.evaluation.prompts import Answer
from core.evaluation.run_record import JudgeConfig, Record
from core.evaluation.statistics import (
    ALPHA,
    Count,
    Estimate,
    ScoredTable,
    Side,
    Verdict,
    count,
    detectable,
    median_length,
    reads_answers,
    seen_of_ten,
)


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of a model's answers that need no judge."""

    answers: int
    median_length: float
    """In characters."""
    cut_off: int | None
    """By the length limit; None: unknown."""
    looping: int
    empty: int


@dataclass(frozen=True, slots=True)
class Judged:
    """One judge's verdicts, counted."""

    config: JudgeConfig
    count: Count
    pairs: int
    """Pairs with a verdict, readable or not."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A counted comparison."""

    record: Record
    answered: Sequence[str]
    """The prompts that both models answered."""
    left_out: int
    """Prompts that were too long for a model."""
    named: frozenset[str]
    """Prompts with an answer that names its model."""
    figures: tuple[Figures, Figures]
    judged: Sequence[Judged]

    @property
    def names(self) -> tuple[str, str]:
        return self.record.names()


def recount(record: Record) -> Comparison:
    """Count the verdicts of a record."""
    pairs = {prompt.id: record.both_answers(prompt.id) for prompt in record.prompts}
    answered = [prompt for prompt, pair in pairs.items() if pair is not None]
    left_out = {prompt for (prompt, _), a in record.answers.items() if a.ending == "too long"}
    named = find_named(record)
    return Comparison(
        record=record,
        answered=answered,
        left_out=len(left_out),
        named=named,
        figures=(_figures(record, "a", answered), _figures(record, "b", answered)),
        judged=[_judged(record, config, answered, named) for config in record.judges.values()],
    )


def find_named(record: Record) -> frozenset[str]:
    """The prompts with an answer that names its model."""
    sides = (record.setup.a, record.setup.b)
    words = [str(side.get(key) or "") for side in sides for key in ("name", "source")]
    names = model_names(*words)
    found = set()
    for prompt in record.prompts:
        pair = record.both_answers(prompt.id)
        if pair and is_named((answer.text for answer in pair), prompt.text, names):
            found.add(prompt.id)
    return frozenset(found)


def _figures(record: Record, side: Side, answered: Sequence[str]) -> Figures:
    answers = [record.answers[prompt, side] for prompt in answered]
    endings = {answer.ending for answer in answers}
    return Figures(
        answers=len(answers),
        median_length=median_length(len(answer.text) for answer in answers),
        cut_off=None if None in endings else sum(a.ending == "length" for a in answers),
        looping=sum(map(is_looping, answers)),
        empty=sum(not answer.text for answer in answers),
    )


def is_looping(answer: Answer) -> bool:
    return answer.ending == "repetition" or first_round_end(answer.text) is not None


def _judged(
    record: Record, config: JudgeConfig, answered: Sequence[str], named: frozenset[str]
) -> Judged:
    verdicts = [stored.verdict for stored in record.verdicts_of(config.name)]
    known = [verdict for verdict in verdicts if verdict.prompt in set(answered)]
    counted = count(
        known,
        both_orders=config.both_orders,
        categories={prompt.id: prompt.category for prompt in record.prompts},
        lengths={prompt: _lengths(record, prompt) for prompt in answered},
        named=named if config.kind == "people" else (),
        seed=record.setup.seed,
    )
    return Judged(config, counted, _pairs(known, both_orders=config.both_orders))


def _lengths(record: Record, prompt: str) -> tuple[int, int]:
    return len(record.answers[prompt, "a"].text), len(record.answers[prompt, "b"].text)


def _pairs(verdicts: Sequence[Verdict], *, both_orders: bool) -> int:
    """The number of finished prompts."""
    seen: dict[str, set[Side | None]] = {}
    for verdict in verdicts:
        seen.setdefault(verdict.prompt, set()).add(verdict.first)
    return sum(len(orders) > both_orders for orders in seen.values())


FAMILIES = (
    "alibaba cloud", "anthropic", "chatgpt", "claude", "cyberagent", "deepseek", "elyza", "gemini",
    "gemma", "google bard", "gpt-3", "gpt-4", "gpt-5", "gpt-neox", "grok", "hugging face", "llama",
    "llm-jp", "microsoft copilot", "mistral", "openai", "plamo", "qwen", "rinna", "smollm",
    "stable lm", "stability ai", "vicuna", "りんな",
)  # fmt: skip
"""Names of models and makers that answers may use for themselves."""


def model_names(*words: str) -> frozenset[str]:
    """The names that an answer may use for a model with these names and sources.

    A plain word such as ``base`` is not a name: half of all answers might contain it.
    """
    parts = [part for word in words for part in re.split(r"/|--", _plain(word)) if part]
    return frozenset(part for part in parts if len(part) > 3 and re.search(r"[\d-]", part))


def is_named(texts: Iterable[str], prompt: str, names: Collection[str]) -> bool:
    """Whether an answer contains a model's name that is not in its prompt."""
    found = {name for text in texts for name in _names_in(text, names)}
    return bool(found - set(_names_in(prompt, names)))


def _names_in(text: str, names: Collection[str]) -> list[str]:
    words = _plain(text)
    return [name for name in (*FAMILIES, *names) if _pattern(name).search(words)]


def _pattern(name: str) -> re.Pattern[str]:
    if not name.isascii():
        return re.compile(re.escape(name))
    end = r"(?!\d)" if name[-1].isdigit() else r"(?![a-z])"  # gpt-4o is named, gemmata is not
    return re.compile(rf"(?<![a-z0-9]){re.escape(name)}{end}")


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


# -- the rows of the table and the report ---------------------------------------------------------


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
