"""``report.html``: a comparison to look at, in one file that asks for nothing from elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import TypeAlias

from core.evaluation.comparison import (
    Comparison,
    Judged,
    Say,
    estimate,
    figure_rows,
    is_looping,
    judged_by,
    judged_rows,
    repeat_rows,
    sentences,
)
from core.evaluation.prompts import Answer, Language, Prompt
from core.evaluation.run_record import StoredVerdict
from core.evaluation.statistics import (
    SCORE,
    SIDES,
    Estimate,
    Pair,
    PairResult,
    Side,
    Winner,
    pair_up,
)

REPORT = "report.html"

BINS = 24
"""Of the histogram of lengths."""
_NEARLY_ALL = 0.95
"""The part of the answers that the histogram's bins but the last are for."""

_CLASSES: Mapping[PairResult, str] = {"win": "win", "tie": "even", "loss": "loss"}
_COLORS: Mapping[PairResult, str] = {"win": "a", "tie": "tie", "loss": "b"}


def report(say: Say, language: Language, comparison: Comparison) -> str:
    """The whole page."""
    a, b = comparison.names
    title = escape(say("compare_title", a=a, b=b))
    made_by = escape(say("compare_made_by", directory=comparison.record.directory.name))
    body = "".join(
        [
            f"<header><h1>{title}</h1></header>",
            *(_judge(say, comparison, judged) for judged in comparison.judged),
            _answers(say, comparison),
            _pairs(say, comparison),
            _rows_section(say("compare_repeat"), repeat_rows(say, comparison)),
            f"<footer>{made_by}</footer>",
        ]
    )
    return document(language, title, f"<main>{body}</main>", ("colors.css", "report.css"))


def document(language: Language, title: str, body: str, styles: Sequence[str]) -> str:
    """A page that neither runs nor fetches anything; `title` and `body` are HTML."""
    style = "".join(map(asset, styles))
    return (
        f'<!doctype html>\n<html lang="{language}"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{title}</title><style>{style}</style></head>'
        f"<body>{body}</body></html>\n"
    )


def asset(name: str) -> str:
    """A file of this package's ``assets/``."""
    return (files("core.evaluation") / "assets" / name).read_text(encoding="utf-8")


# -- one judge's table ---------------------------------------------------------------------------


def _judge(say: Say, comparison: Comparison, judged: Judged) -> str:
    told = "".join(f"<li>{escape(one)}</li>" for one in sentences(say, comparison, judged))
    return (
        f"<section><h2>{escape(judged_by(say, judged))}</h2>"
        f"{_outcomes(say, comparison, judged)}"
        f'<ul class="sentences">{told}</ul>{_rows(judged_rows(say, judged))}'
        f"{_scores(say, comparison, judged)}</section>"
    )


def _outcomes(say: Say, comparison: Comparison, judged: Judged) -> str:
    """Wins, ties and losses as bars, with the intervals of their shares."""
    table, shares = judged.count.whole.table, judged.count.shares
    if not shares:
        return ""
    numbers: Mapping[PairResult, int] = {
        "win": table.wins,
        "tie": table.ties,
        "loss": table.losses,
    }
    bars = "".join(
        f'<div class="row {_COLORS[outcome]}"><span class="key">{escape(label)}</span>'
        f'<div class="track">{_bar(shares[outcome])}</div><span class="value">'
        f"{numbers[outcome]} <small>{_percent(shares[outcome])}</small></span></div>"
        for outcome, label in _result_names(say, comparison).items()
    )
    return f'<div class="plot">{bars}</div>'


def _result_names(say: Say, comparison: Comparison) -> Mapping[PairResult, str]:
    a, b = comparison.names
    return {
        "win": say("compare_show_wins", name=a),
        "tie": say("compare_tie"),
        "loss": say("compare_show_wins", name=b),
    }


def _bar(share: Estimate) -> str:
    return f'<div class="bar" style="width:{100 * share.value:.1f}%"></div>{_whisker(share)}'


def _whisker(value: Estimate) -> str:
    left, width = 100 * value.low, 100 * (value.high - value.low)
    return f'<div class="whisker" style="left:{left:.1f}%;width:{width:.1f}%"></div>'


def _percent(share: Estimate) -> str:
    return f"{share.value:.0%} [{100 * share.low:.0f}, {100 * share.high:.0f}]"


def _scores(say: Say, comparison: Comparison, judged: Judged) -> str:
    """The score of all prompts and of each category, with intervals, on an axis from 0 to 1."""
    whole = judged.count.whole
    if whole.score is None:
        return ""
    rows = [(say("compare_whole"), whole.table.total, whole.score, "first")]
    rows += [
        (name, part.table.total, part.score, "")
        for name, part in judged.count.categories.items()
        if part.score is not None
    ]
    plotted = "".join(
        f'<div class="row {mark}"><span>{escape(name)} '
        f'<small class="quiet">({number})</small></span>'
        f'<div class="track scores">{_whisker(score)}{_dot(score)}</div>'
        f'<span class="value" title="{escape(estimate(say, score))}">'
        f"{score.value:.2f}</span></div>"
        for name, number, score, mark in rows
    )
    a, b = comparison.names
    ends = "".join(f"<span>{escape(say('compare_better_left', name=n))}</span>" for n in (b, a))
    axis = f'<div class="row"><span></span><div class="axis">{ends}</div><span></span></div>'
    return f'<h3>{escape(say("compare_categories"))}</h3><div class="plot">{plotted}{axis}</div>'


def _dot(score: Estimate) -> str:
    color = "a" if score.value > 0.5 else "b" if score.value < 0.5 else "tie"
    return f'<div class="dot {color}" style="left:{100 * score.value:.1f}%"></div>'


def _rows(rows: Sequence[tuple[str, str]]) -> str:
    cells = "".join(f"<dt>{escape(label)}</dt><dd>{escape(value)}</dd>" for label, value in rows)
    return f"<dl>{cells}</dl>" if cells else ""


def _rows_section(heading: str, rows: Sequence[tuple[str, str]]) -> str:
    return f"<section><h2>{escape(heading)}</h2>{_rows(rows)}</section>"


# -- the answers ---------------------------------------------------------------------------------


def _answers(say: Say, comparison: Comparison) -> str:
    a, b = map(escape, comparison.names)
    rows = "".join(
        f"<tr><th scope=row>{escape(label)}</th><td>{escape(one)}</td><td>{escape(two)}</td></tr>"
        for label, one, two in figure_rows(say, comparison)
    )
    return (
        f"<section><h2>{escape(say('compare_answers'))}</h2>"
        f'<table class="figures"><tr><th></th><th class="key a">{a}</th><th class="key b">{b}</th>'
        f"</tr>{rows}</table>{_lengths(say, comparison)}</section>"
    )


def _lengths(say: Say, comparison: Comparison) -> str:
    """Two histograms over the same bins, of which the last holds all that are longer."""
    answers = comparison.record.answers
    lengths = {
        side: [len(answers[prompt, side].text) for prompt in comparison.answered] for side in SIDES
    }
    everything = sorted(lengths["a"] + lengths["b"])
    if not everything or not everything[-1]:
        return ""
    width = max(1, -(-everything[int(_NEARLY_ALL * (len(everything) - 1))] // (BINS - 1)))
    counts = {side: Counter(min(n // width, BINS - 1) for n in lengths[side]) for side in SIDES}
    highest = max(number for side in SIDES for number in counts[side].values())
    columns = "".join(
        "<div>"
        + "".join(
            f'<i class="{side}" style="height:{100 * counts[side][place] / highest:.0f}%"></i>'
            for side in SIDES
        )
        + "</div>"
        for place in range(BINS)
    )
    ends = f"<span>0</span><span>{width * (BINS - 1)}+ {escape(say('compare_lengths_axis'))}</span>"
    return (
        f"<h3>{escape(say('compare_lengths'))}</h3>"
        f'<div class="histogram" aria-hidden="true">{columns}</div><div class="axis">{ends}</div>'
        f'<p class="legend">{_legend(comparison)}</p>'
    )


def _legend(comparison: Comparison) -> str:
    names = zip(SIDES, comparison.names, strict=True)
    return "".join(f'<span class="key {side}">{escape(name)}</span>' for side, name in names)


# -- the pairs -----------------------------------------------------------------------------------


def _pairs(say: Say, comparison: Comparison) -> str:
    answered, stored = set(comparison.answered), _verdicts_by_judge(comparison)
    articles = "".join(
        _article(say, comparison, place, prompt, stored)
        for place, prompt in enumerate(comparison.record.prompts, 1)
        if prompt.id in answered
    )
    filters = _filters(say, comparison) if comparison.judged else ""
    return f"<section><h2>{escape(say('compare_pairs'))}</h2>{filters}{articles}</section>"


def _filters(say: Say, comparison: Comparison) -> str:
    results = _result_names(say, comparison)
    labels = (
        ("all", say("compare_show_all")),
        ("win", results["win"]),
        ("tie", say("compare_show_ties")),
        ("loss", results["loss"]),
    )
    choices = "".join(
        f'<label><input type="radio" name="show" id="show-{key}"'
        f"{' checked' if key == 'all' else ''}>{escape(label)}</label>"
        for key, label in labels
    )
    return f'<fieldset class="filters">{choices}</fieldset>'


_VerdictsByJudge: TypeAlias = Mapping[tuple[str, str], Sequence[StoredVerdict]]
"""The stored verdicts, by judge and prompt."""


def _verdicts_by_judge(comparison: Comparison) -> _VerdictsByJudge:
    found: dict[tuple[str, str], list[StoredVerdict]] = {}
    for one in comparison.record.verdicts.values():
        found.setdefault((one.judge, one.verdict.prompt), []).append(one)
    return found


def _article(
    say: Say, comparison: Comparison, place: int, prompt: Prompt, by_judge: _VerdictsByJudge
) -> str:
    record = comparison.record
    names = [judged.config.name for judged in comparison.judged]
    stored = {name: by_judge.get((name, prompt.id), ()) for name in names}
    chips = "".join(
        _chip(say, comparison, judged, stored[judged.config.name]) for judged in comparison.judged
    )
    first = comparison.judged[0] if comparison.judged else None
    outcome = _outcome(_paired(first, stored[first.config.name])) if first else None
    category = f'<span class="quiet">{escape(prompt.category)}</span>' if prompt.category else ""
    answers = "".join(
        _answer(say, record.answers[prompt.id, side], side, name, prompt)
        for side, name in zip(SIDES, comparison.names, strict=True)
    )
    return (
        f'<article class="{_CLASSES[outcome] if outcome else ""}"><header>'
        f'<span class="quiet">{place}</span>{category}{chips}</header>'
        f'<div class="prompt said" lang="{prompt.language}">{escape(prompt.text)}</div>'
        f'<div class="pair">{answers}</div>'
        f"{''.join(_words(say, comparison, some) for some in stored.values())}</article>"
    )


def _answer(say: Say, answer: Answer, side: Side, name: str, prompt: Prompt) -> str:
    notes = [say("compare_characters", number=len(answer.text))]
    if answer.ending == "length":
        notes.append(say("compare_ending_length"))
    if is_looping(answer):
        notes.append(say("compare_ending_repetition"))
    text = escape(answer.text) or f"<em>{escape(say('page_empty_answer'))}</em>"
    return (
        f'<div class="answer {side}"><p><span class="named">{escape(name)}</span> · '
        f"{escape(' · '.join(notes))}</p>"
        f'<div class="said" lang="{prompt.language}">{text}</div></div>'
    )


def _paired(judged: Judged, stored: Sequence[StoredVerdict]) -> list[Pair]:
    return pair_up([one.verdict for one in stored], both_orders=judged.config.both_orders)


def _outcome(pairs: Sequence[Pair]) -> PairResult | None:
    """Of a prompt, over all who judged it."""
    scores = [SCORE[pair.outcome] for pair in pairs if pair.outcome is not None]
    if not scores:
        return None
    mean = sum(scores) / len(scores)
    return "win" if mean > 0.5 else "loss" if mean < 0.5 else "tie"


def _chip(say: Say, comparison: Comparison, judged: Judged, stored: Sequence[StoredVerdict]) -> str:
    pairs = _paired(judged, stored)
    outcome = _outcome(pairs)
    label = escape(judged_by(say, judged))
    color = _COLORS[outcome] if outcome else "tie"
    words = escape(_result(say, comparison, outcome, pairs, stored))
    return f'<span class="chip {color}">{label}: {words}</span>'


def _result(
    say: Say,
    comparison: Comparison,
    outcome: PairResult | None,
    pairs: Sequence[Pair],
    stored: Sequence[StoredVerdict],
) -> str:
    names = _result_names(say, comparison)
    if outcome is None:
        return say("compare_verdict_unreadable" if stored else "compare_no_verdict")
    if len(pairs) == 1:
        return say("compare_verdict_both_bad") if pairs[0].both_bad else names[outcome]
    counts = Counter(pair.outcome for pair in pairs)
    return ", ".join(f"{names[o]} {counts[o]}" for o in names if counts[o])


def _words(say: Say, comparison: Comparison, stored: Sequence[StoredVerdict]) -> str:
    """What a judge wrote, folded up."""
    return "".join(_one_verdict(say, comparison, one) for one in stored if one.text or one.scores)


def _one_verdict(say: Say, comparison: Comparison, stored: StoredVerdict) -> str:
    if stored.scores:
        a, b = stored.scores
        return f'<p class="quiet">{escape(stored.judge)}: {a:.4g} | {b:.4g}</p>'
    first = comparison.names[stored.verdict.first == "b"]
    heading = ", ".join(_heading(say, comparison, stored.verdict.winner, first))
    return (
        f"<details><summary>{escape(heading)}</summary>"
        f'<div class="said">{escape(stored.text)}</div></details>'
    )


def _heading(say: Say, comparison: Comparison, winner: Winner, first: str) -> Iterator[str]:
    results = _result_names(say, comparison)
    words: Mapping[Winner, str] = {
        "a": results["win"],
        "b": results["loss"],
        "tie": results["tie"],
        "both bad": say("compare_verdict_both_bad"),
        "unreadable": say("compare_verdict_unreadable"),
    }
    yield say("compare_order", name=first)
    yield words[winner]
