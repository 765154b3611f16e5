"""What a comparison reads and writes: prompts, answers, and the record of a run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.errors import OperatorError, UsageError
from core.evaluation.comparison import is_named, model_names
from core.evaluation.prompts import Answer, main_language, read_answers, read_prompts
from core.evaluation.run_record import JudgeConfig, Record, StoredVerdict
from core.evaluation.statistics import Verdict
from tests.comparisons import JAPANESE, SETUP, compared, lines, prompt
from tests.optional import needs_answers, published_answers

RULE = JudgeConfig("rule:shorter", "rule", both_orders=False)
PEOPLE = JudgeConfig("people", "people", both_orders=False)


def said(
    winner: Any, id_: str = "1", rater: str = "", judge: str = "rule:shorter"
) -> StoredVerdict:
    return StoredVerdict(judge, Verdict(id_, winner, None, rater), 1.5, scores=(1.0, 2.0))


# -- prompts -------------------------------------------------------------------------------------


def test_prompts_are_read_in_every_form_that_others_write(tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "And?"},
    ]
    file = lines(
        tmp_path / "q.jsonl",
        [
            {"question_id": 7, "category": "generic", "turns": ["時間とは?"]},
            {"prompt": "What is time?"},
            {"id": "talk", "prompt": messages},
            {"messages": messages[1:]},
        ],
    )
    prompts, source = read_prompts(file)
    assert [asked.id for asked in prompts] == ["7", "2", "talk", "4"]
    assert (prompts[0].category, prompts[0].language, prompts[1].language) == (
        "generic",
        "ja",
        "en",
    )
    assert prompts[2].system == "Be brief."
    assert prompts[2].text == "user: Hi.\n\nassistant: Hello.\n\nuser: And?"
    assert source.name == "q.jsonl"
    assert len(source.sha256) == 64
    assert main_language(prompts) == "en"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "line 2: it is not JSON"),
        (r'{"id": "\ud800", "prompt": "x"}', "line 2: it holds half of a character"),
        (r'{"category": "\ud800", "prompt": "x"}', "line 2: it holds half of a character"),
        ("[]", "line 2: it is not a JSON object"),
        ("[" * 100_000, "line 2: it is"),
        ("{}", "line 2: one of prompt, messages and turns"),
        ('{"prompt": "x", "turns": ["x"]}', "line 2: one of prompt, messages and turns"),
        ('{"prompt": "  "}', "line 2: its text is empty"),
        ('{"prompt": 5}', "line 2: its prompt is neither"),
        ('{"prompt": []}', "line 2: its prompt is neither"),
        ('{"prompt": ["x"]}', "line 2: a message is not"),
        ('{"turns": ["x", "y"]}', "line 2: it has several turns"),
        ('{"messages": [{"role": "user"}]}', "line 2: a message is not"),
        ('{"messages": [{"role": "system", "content": "x"}]}', "line 2: its last message"),
        ('{"messages": [{"role": "assistant", "content": "x"}]}', "line 2: its last message"),
        ('{"messages": [{"role": "tool", "content": "x"}]}', "line 2: a role is 'tool'"),
        ('{"id": true, "prompt": "x"}', "line 2: its id is neither"),
        ('{"id": "", "prompt": "x"}', "line 2: its id is neither"),
        ('{"id": 1, "prompt": "x"}', "line 2: its id 1 is that of line 1 too"),
        ('{"category": 3, "prompt": "x"}', "line 2: its category is not text"),
        ('{"prompt": "\\ud800"}', "line 2: it holds half of a character"),
    ],
)
def test_an_odd_line_is_named_in_one_sentence(tmp_path: Path, line: str, complaint: str) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text('{"prompt": "fine"}\n' + line + "\n")
    with pytest.raises(UsageError) as caught:
        read_prompts(file)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_blank_lines_and_a_byte_order_mark_are_nothing(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_bytes('\ufeff{"prompt": "a\u2028b"}\r\n\n  \n'.encode())
    assert [asked.text for asked in read_prompts(file)[0]] == ["a\u2028b"]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\xfe{}"])
def test_a_file_without_prompts_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "q.jsonl"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=r"has no prompts|UTF-8"):
        read_prompts(file)
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_prompts(tmp_path / "missing.jsonl")


# -- answers -------------------------------------------------------------------------------------


def test_answers_are_matched_to_their_prompts_by_id(tmp_path: Path) -> None:
    file = lines(
        tmp_path / "a.jsonl",
        [
            {"question_id": 2, "choices": [{"index": 0, "turns": ["\n\ntwo"]}]},
            {"id": "1", "answer": "one", "finish_reason": "length"},
            {"id": "elsewhere", "text": "three"},
        ],
    )
    answers, _ = read_answers(file, "b", [prompt("1", "?"), prompt("2", "?")])
    assert answers == [Answer("1", "b", "one", "length"), Answer("2", "b", "two")]


def test_missing_and_odd_answers_are_named(tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", [{"id": 1, "answer": "one"}])
    with pytest.raises(UsageError, match="lacks answers to 2 of 3 prompts"):
        read_answers(file, "a", [prompt(str(n), "?") for n in (1, 2, 3)])
    for row in ({"id": 1}, {"id": 1, "answer": 3}, {"id": 1, "choices": [{"turns": ["x", "y"]}]}):
        with pytest.raises(UsageError, match="line 1: it has no answer"):
            read_answers(lines(file, [row]), "a", [prompt("1", "?")])
    row = {"id": 1, "answer": "x", "finish_reason": "tired"}
    with pytest.raises(UsageError, match="line 1: its finish_reason is 'tired'"):
        read_answers(lines(file, [row]), "a", [prompt("1", "?")])


@needs_answers
def test_published_questions_and_answers_are_read_as_they_are() -> None:
    prompts, _ = read_prompts(published_answers() / "question.jsonl")
    assert (len(prompts), main_language(prompts)) == (80, "ja")
    for model in ("ppo", "sft-v2"):
        file = published_answers() / f"answers-{model}.jsonl"
        answers, _ = read_answers(file, "a", prompts)
        names = model_names("rinna--japanese-gpt-neox-3.6b-instruction-ppo")
        assert len(answers) == 80
        assert not any(is_named([a.text], "", names) for a in answers)


# -- answers that name their model ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        ("私はＣｈａｔＧＰＴです。", True),
        ("I am GPT-4o.", True),
        ("rinna株式会社の言語モデルです", True),
        ("I am our-model-7b.", True),
        ("I am team/our-model-7b-chat", True),
        ("東京です。", False),
        ("A base of instruction.", False),
        ("The corinna is a flower; so are some gemmata.", False),
    ],
)
def test_an_answer_names_its_model_where_it_says_one_of_its_names(
    answer: str, *, named: bool
) -> None:
    names = model_names("base", "team/our-model-7b")
    assert is_named(["fine", answer], "Who are you?", names) == named


def test_a_name_that_the_prompt_brought_up_gives_nothing_away() -> None:
    assert not is_named(["Llama is a model."], "What is Llama?", ())
    assert is_named(["Llama is unlike Qwen, which I am."], "What is Llama?", ())


# -- the record ----------------------------------------------------------------------------------


def test_a_comparison_comes_back_from_its_directory_as_it_was(tmp_path: Path) -> None:
    with compared(tmp_path, JAPANESE) as record:
        record.begin_judge(RULE)
        record.add_verdict(said("a"))
        record.add_verdict(said("tie", "2"))
    read = Record.read(tmp_path)
    assert (read.prompts, read.answers, read.verdicts) == (
        record.prompts,
        record.answers,
        record.verdicts,
    )
    assert (read.setup, read.judges, read.secret) == (SETUP, record.judges, record.secret)


def test_an_incomplete_line_is_ignored_and_the_next_one_is_read(tmp_path: Path) -> None:
    with compared(tmp_path, JAPANESE) as record:
        record.begin_judge(RULE)
        record.add_verdict(said("a"))
    with (tmp_path / "verdicts.jsonl").open("a") as file:
        file.write('{"judge": "rule:shorter", "prom')
    with compared(tmp_path, JAPANESE) as record:
        assert len(record.verdicts) == 1
        record.add_verdict(said("b", "2"))
    assert [s.verdict.winner for s in Record.read(tmp_path).verdicts.values()] == ["a", "b"]


def test_an_interrupted_start_is_repeated(tmp_path: Path) -> None:
    with compared(tmp_path, JAPANESE):
        pass
    (tmp_path / "run.json").unlink()
    with compared(tmp_path, JAPANESE[:2]) as record:
        assert len(record.prompts) == 2
        assert len(record.answers) == 4


def test_a_withdrawn_verdict_is_gone_and_may_be_given_again(tmp_path: Path) -> None:
    one, two = said("a", "1", "P1", "people"), said("b", "2", "P1", "people")
    with compared(tmp_path, JAPANESE) as record:
        record.begin_judge(PEOPLE)
        record.add_verdict(one)
        record.add_verdict(two)
        record.withdraw(one)
        assert record.verdicts_of("people") == [two]
        record.add_verdict(one)
    newest_last = [s.verdict.prompt for s in Record.read(tmp_path).verdicts_of("people")]
    assert newest_last == ["2", "1"]


@pytest.mark.parametrize(
    ("setup", "difference"),
    [
        (replace(SETUP, seed=8), "its seed is 7, and 8 is asked for"),
        (replace(SETUP, a={"name": "x"}), "its a.name is rinna-ppo, and x is asked for"),
        (replace(SETUP, b={"name": "rinna-sft-v2", "top_k": 1}), "its b.top_k is None, and 1"),
    ],
)
def test_another_comparison_does_not_go_into_the_same_directory(
    tmp_path: Path, setup: Any, difference: str
) -> None:
    with compared(tmp_path, JAPANESE):
        pass
    with pytest.raises(UsageError) as caught, compared(tmp_path, JAPANESE, setup):
        pass
    assert difference in str(caught.value)
    assert "--out" in str(caught.value)


def test_two_processes_do_not_write_into_one_directory(tmp_path: Path) -> None:
    with (
        compared(tmp_path, JAPANESE),
        pytest.raises(OperatorError, match="another henji compare works in"),
        compared(tmp_path, JAPANESE),
    ):
        pass


def test_only_its_owner_can_read_the_secret(tmp_path: Path) -> None:
    with compared(tmp_path, JAPANESE):
        pass
    assert (tmp_path / "run.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"version": 99}', '{"version": 1}', "[" * 100_000]
)
def test_a_directory_that_is_no_comparison_is_told_in_a_sentence(
    tmp_path: Path, content: str
) -> None:
    with pytest.raises(UsageError, match=r"holds no comparison: it has no run\.json"):
        Record.read(tmp_path)
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(OperatorError):
        Record.read(tmp_path)


def test_each_line_of_the_file_is_json(tmp_path: Path) -> None:
    with compared(tmp_path, JAPANESE) as record:
        record.add_verdict(said("a"))
    for name in ("prompts", "answers", "verdicts"):
        for line in (tmp_path / f"{name}.jsonl").read_text().splitlines():
            assert isinstance(json.loads(line), dict)
