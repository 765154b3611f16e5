"""Comparisons for tests: prompts with answers of two models, in a directory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.evaluation.prompts import Answer, Prompt, Source
from core.evaluation.run_record import Record, Setup
from core.types import Turn

SETUP = Setup({"name": "rinna-ppo"}, {"name": "rinna-sft-v2"}, Source("q.jsonl", "ab12"), 7)


def prompt(id_: str, text: str, category: str = "") -> Prompt:
    return Prompt(id_, (Turn("0", "user", "", text, 0.0),), None, category)


def lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """A JSONL file."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


@contextmanager
def compared(
    directory: Path, pairs: Sequence[tuple[str, str, str]], setup: Setup = SETUP
) -> Iterator[Record]:
    """An open comparison of prompts with A's and B's answers; their ids count from 1."""
    prompts = [prompt(str(n), text) for n, (text, _, _) in enumerate(pairs, 1)]
    with Record.open(directory, setup, prompts) as record:
        for asked, (_, a, b) in zip(prompts, pairs, strict=True):
            if (asked.id, "a") not in record.answers:
                record.add_answer(Answer(asked.id, "a", a, "stop"))
                record.add_answer(Answer(asked.id, "b", b, "stop"))
        yield record


JAPANESE = [
    (
        "時間管理能力を向上させるにはどうしたらいいですか?",
        "まず、一日の目標を書き出してください。次に、重要なものから順に取り組みます。\n"
        "最後に、夜に振り返りをすると効果的です。",
        "時間は大切です。",
    ),
    ("日本で一番高い山は何ですか?", "富士山です。標高は3,776メートルです。", "富士山だよ!"),
    ("A < B & C > D は正しいですか?", "<b>はい</b>、条件によります。", ""),
]
