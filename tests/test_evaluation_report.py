"""The report of a comparison: one file, looked at in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.evaluation.comparison import recount, sentences, table_lines
from core.evaluation.prompts import Language
from core.evaluation.report import report
from core.evaluation.run_record import JudgeConfig, Record, StoredVerdict
from core.evaluation.statistics import Side, Verdict, Winner
from tests.chromium import browsing, needs_chromium
from tests.comparisons import JAPANESE, SETUP, compared
from tests.test_evaluation_people import FAINT, words

SERVER = JudgeConfig("server:judge-70b", "server", both_orders=True)
PEOPLE = JudgeConfig("people", "people", both_orders=False)


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    """Three pairs: a server judged each twice, and two people the first."""
    with compared(tmp_path, JAPANESE) as opened:
        opened.begin_judge(SERVER)
        opened.begin_judge(PEOPLE)
        by_server: list[tuple[str, Winner, Winner]] = [
            ("1", "a", "a"), ("2", "a", "b"), ("3", "b", "b"),
        ]  # fmt: skip
        for prompt, one, other in by_server:
            opened.add_verdict(said(prompt, one, "a"))
            opened.add_verdict(said(prompt, other, "b"))
        for rater, winner in (("1", "a"), ("2", "both bad")):
            verdict = Verdict("1", winner, "b", rater)  # type: ignore[arg-type]  # literals
            opened.add_verdict(StoredVerdict("people", verdict))
        yield opened


def said(prompt: str, winner: Winner, first: Side) -> StoredVerdict:
    text = f"<script>alert(1)</script> [[{winner}]]"
    return StoredVerdict(SERVER.name, Verdict(prompt, winner, first), text=text)


def page(record: Record, language: Language = "en") -> str:
    return report(words(language), language, recount(record))


# -- in a real browser ---------------------------------------------------------------------------


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
async def test_the_report_fits_the_screen_and_can_be_read(
    record: Record, tmp_path: Path, width: int, scheme: Any
) -> None:
    file = tmp_path / "report.html"
    file.write_text(page(record, "ja"))
    async with browsing() as browser:
        await browser.look(width, 900, scheme)
        await browser.open(file.as_uri())
        assert await browser.run("document.documentElement.scrollWidth") <= width
        assert await browser.run(FAINT) == []
        assert browser.complaints == []
        assert browser.requests[1:] in ([], ["data:,"])


@needs_chromium
async def test_the_pairs_can_be_filtered_by_the_winner(record: Record, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(page(record))
    seen = """[...document.querySelectorAll("article")]
        .filter(one => one.getClientRects().length)
        .map(one => one.querySelector("header span").textContent)"""
    async with browsing() as browser:
        await browser.open(file.as_uri())
        found = {}
        for choice in ("all", "win", "tie", "loss"):
            await browser.run(f"document.querySelector('#show-{choice}').click()")
            found[choice] = await browser.run(seen)
    assert found == {"all": ["1", "2", "3"], "win": ["1"], "tie": ["2"], "loss": ["3"]}


@needs_chromium
async def test_the_bars_are_as_long_as_their_shares(record: Record, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(page(record))
    parts = """[...document.querySelectorAll("section")[0].querySelectorAll(".bar")].map(bar =>
        bar.getBoundingClientRect().width / bar.parentElement.getBoundingClientRect().width)"""
    async with browsing() as browser:
        await browser.look(1400, 900, "light")
        await browser.open(file.as_uri())
        assert await browser.run(parts) == pytest.approx([1 / 3, 1 / 3, 1 / 3], abs=0.01)


# -- the text ------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_report_is_one_file_that_asks_for_nothing(record: Record, language: Language) -> None:
    text = page(record, language)
    assert f'<html lang="{language}">' in text
    assert not re.search(r"""(?:src|href)=["'](?!data:)|url\(|@import|<script""", text)


def test_texts_of_models_and_judges_are_only_text(record: Record) -> None:
    text = page(record)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "&lt;b&gt;はい&lt;/b&gt;" in text
    assert "<b>" not in text


def test_every_pair_shows_its_verdicts(record: Record) -> None:
    articles = re.findall(r"<article.*?</article>", page(record), re.DOTALL)
    assert "Judged by judge-70b: rinna-ppo won" in articles[0]
    assert "Judged by people: rinna-ppo won 1, tie 1" in articles[0]
    assert "Judged by judge-70b: tie" in articles[1]
    assert "Judged by people: no verdict" in articles[1]
    assert "rinna-ppo first, rinna-sft-v2 won" in articles[2]


def test_a_comparison_that_nobody_judged_has_a_report_and_a_table(tmp_path: Path) -> None:
    with compared(tmp_path, JAPANESE) as bare:
        assert "rinna-ppo" in page(bare)
        bare.begin_judge(SERVER)
        assert "Nothing was judged yet." in page(bare)
        assert "Nothing was judged yet." in "\n".join(table_lines(words("en"), recount(bare)))


# -- the notes of the table ----------------------------------------------------------------------


A: list[Winner] = ["a"]
TIE: list[Winner] = ["tie"]
B: list[Winner] = ["b"]


def told(record: Record) -> str:
    comparison = recount(record)
    return " ".join(sentences(words("en"), comparison, comparison.judged[0]))


def judged(
    directory: Path, config: JudgeConfig, winners: Sequence[Winner], answers: int = 0
) -> str:
    """What is said of a table whose prompts were won so."""
    number = answers or len(winners)
    pairs = [(f"Question {n}?", "an answer of A", "an answer of B") for n in range(number)]
    with compared(directory, pairs) as record:
        record.begin_judge(config)
        for place, winner in enumerate(winners, 1):
            for first in ("a", "b")[: 1 + config.both_orders]:
                verdict = Verdict(str(place), winner, first, "")  # type: ignore[arg-type]  # literal
                record.add_verdict(StoredVerdict(config.name, verdict))
        return told(record)


def test_the_table_states_its_limits(tmp_path: Path) -> None:
    said = judged(tmp_path / "1", PEOPLE, A * 47 + TIE * 30 + B * 23)
    assert "rinna-ppo won more prompts than chance explains (p = 0.006)." in said
    assert (
        "With 70 decided prompts, a true win rate of 60 % is found in 4 of 10 cases, and one"
        in said
    )
    said = judged(tmp_path / "2", PEOPLE, A * 40 + B * 40)
    assert "does not show which model is better (p = 1.000)" in said
    assert "With 80 decided prompts, a true win rate of 60 % is found in 4 of 10 cases" in said
    said = judged(tmp_path / "3", PEOPLE, B * 30)
    assert "rinna-sft-v2 won more prompts" in said
    said = judged(tmp_path / "4", PEOPLE, A + B, answers=5)
    assert "3 of 5 pairs are not judged yet." in said
    assert "too few to find any difference reliably" in said


def test_a_judge_that_contradicts_itself_is_told_to_say_nothing(tmp_path: Path) -> None:
    pairs = [(f"Question {n}?", "an answer", "another") for n in range(20)]
    with compared(tmp_path, pairs) as record:
        record.begin_judge(SERVER)
        for n in range(1, 21):
            record.add_verdict(said(str(n), "a", "a"))
            record.add_verdict(said(str(n), "b", "b"))
        assert "(0 agree, 20 contradict): its table says nothing about" in told(record)
    assert "says nothing" not in judged(tmp_path / "sure", SERVER, A * 20)
    assert "says nothing" not in judged(tmp_path / "few", SERVER, A * 2)


def test_a_rule_is_said_to_be_no_judge_of_quality(tmp_path: Path) -> None:
    rule = JudgeConfig("rule:shorter", "rule", both_orders=False)
    assert "A rule counts one thing" in judged(tmp_path, rule, A * 3)


def test_longer_answers_are_told_where_a_judge_may_like_them(record: Record) -> None:
    assert "rinna-ppo writes longer answers (median 21 characters against 6)" in told(record)


def test_a_model_that_was_trained_on_the_prompts_is_told(tmp_path: Path) -> None:
    setup = replace(SETUP, b={"name": "new", "trained_on": 2})
    with compared(tmp_path, JAPANESE, setup) as record:
        record.begin_judge(SERVER)
        assert "new was trained on 2 of the 3 prompts" in told(record)
