"""Counts a comparison's record, for the table and the report. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from core.dialogue.loop_detection import first_round_end
from core.evaluation.counting import Count, Side, Verdict, count, median_length
from core.evaluation.prompts import Answer
from core.evaluation.run_record import JudgeConfig, Record


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
    words = [str(side.get(key) or "") for side in _sides(record) for key in ("name", "source")]
    names = model_names(*words)
    found = set()
    for prompt in record.prompts:
        pair = record.both_answers(prompt.id)
        if pair and is_named((answer.text for answer in pair), prompt.text, names):
            found.add(prompt.id)
    return frozenset(found)


def _sides(record: Record) -> tuple[Any, Any]:
    return record.setup.a, record.setup.b


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
