"""`henji compare`: two models, judges, a table and a report."""

from __future__ import annotations

import ast
import asyncio
import hashlib
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bots.cli.comparison import adapter_details
from bots.strings.en import ENGLISH
from core import evaluation
from core.alignment import Options, Work
from core.alignment.align import align as train
from core.evaluation import judges
from core.evaluation.run_record import Record
from core.models.manifest import (
    ADAPTER_WEIGHTS,
    Manifest,
    digest_of_words,
    read_manifest,
    weights_digest,
)
from core.settings import load_settings
from tests import tiny_models
from tests.comparisons import lines, prompt
from tests.optional import needs_answers, published_answers
from tests.processes import Here, finish, henji, start
from tests.test_alignment_training import pairs
from tests.test_engine_openai import Server, serving

ECHOES = """
[models.ten]
source = "echo"
max_new_tokens = 10
[models.twenty]
source = "echo"
max_new_tokens = 20
[models.twin]
source = "echo"
max_new_tokens = 10
"""

QUESTIONS: list[dict[str, Any]] = [
    {"id": "time", "category": "generic", "prompt": "時間管理能力を向上させるにはどうしますか?"},
    {"id": "mountain", "category": "facts", "prompt": "Which mountain in Japan is the highest?"},
    {"id": "short", "category": "facts", "prompt": "Why?"},
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command runs: with prompts, and models that repeat so much of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HENJI_CONFIG", str(tmp_path / "henji.toml"))
    (tmp_path / "henji.toml").write_text(ECHOES)
    lines(tmp_path / "q.jsonl", QUESTIONS)
    return tmp_path


@pytest.fixture
def compare(folder: Path, here: Here) -> Here:
    """Runs the command in this process."""
    return partial(here, "compare")


def answers_in(directory: Path) -> dict[tuple[str, str], str]:
    return {key: answer.text for key, answer in Record.read(directory).answers.items()}


# -- comparisons ---------------------------------------------------------------------------------


def test_two_models_answer_are_judged_and_a_table_is_printed(compare: Here, folder: Path) -> None:
    ran = compare("ten", "twenty", "--prompts", "q.jsonl", "--judge", "rule:shorter")
    assert ran.status == 0, ran.err
    assert "ten against twenty" in ran.out
    assert re.search(r"win \|  tie \| loss\n +2 \|    1 \|    0   of 3", ran.out)
    for line in ("sign test", "score at equal length", "median length", "cut off at the length"):
        assert line in ran.out
    directory = folder / "compare-ten-twenty"
    assert answers_in(directory)["time", "a"] == "echo: 時間管理"
    assert (directory / "report.html").is_file()


def test_the_table_says_all_that_is_needed_to_repeat_it(compare: Here, folder: Path) -> None:
    ran = compare("ten", "twenty", "--prompts", "q.jsonl", "--judge", "rule:shorter", "--seed", "9")
    repeat = ran.out.partition("To repeat it")[2]
    for told in ("3 from q.jsonl, SHA-256 ", "seed     9", "max_new_tokens 10", "temperature 0.0"):
        assert told in repeat


def test_recounting_gives_the_same_table(compare: Here, folder: Path) -> None:
    first = compare("ten", "twenty", "--prompts", "q.jsonl", "--judge", "rule:shorter")
    (folder / "compare-ten-twenty" / "report.html").unlink()
    (folder / "q.jsonl").unlink()
    again = compare("--recount", "compare-ten-twenty")
    assert (again.status, again.out) == (0, first.out)
    assert (folder / "compare-ten-twenty" / "report.html").is_file()


def test_another_judge_may_judge_existing_answers(compare: Here, folder: Path) -> None:
    compare("ten", "twenty", "--prompts", "q.jsonl", "--judge", "rule:shorter")
    before = answers_in(folder / "compare-ten-twenty")
    ran = compare("--out", "compare-ten-twenty", "--judge", "rule:longer")
    assert ran.status == 0, ran.err
    assert "Counted by the rule shorter" in ran.out
    assert "Counted by the rule longer" in ran.out
    assert answers_in(folder / "compare-ten-twenty") == before


def test_answers_that_are_there_are_not_generated(compare: Here, folder: Path) -> None:
    given = [{"id": row["id"], "answer": f"A to {row['id']}"} for row in QUESTIONS]
    lines(folder / "a.jsonl", given)
    ran = compare(
        "theirs", "ten", "--prompts", "q.jsonl", "--answers-a", "a.jsonl", "--out", "here"
    )
    assert ran.status == 0, ran.err
    assert answers_in(folder / "here")["short", "a"] == "A to short"
    assert "answers (file a.jsonl, sha256 " in ran.out
    assert re.search(r"cut off at the length limit +not known \| 2", ran.out)


def test_a_name_with_controls_in_it_does_not_act_on_the_terminal(
    compare: Here, folder: Path
) -> None:
    lines(folder / "a.jsonl", [{"id": row["id"], "answer": "?"} for row in QUESTIONS])
    ran = compare("x\x1b[2J", "ten", "--prompts", "q.jsonl", "--answers-a", "a.jsonl")
    assert ran.status == 0, ran.err
    assert "x\\x1b[2J against ten" in ran.out
    assert "\x1b" not in ran.out + ran.err


@needs_answers
def test_the_published_answers_are_compared_as_they_are(compare: Here, folder: Path) -> None:
    there = published_answers()
    ran = compare(
        *("ppo", "sft", "--prompts", str(there / "question.jsonl"), "--judge", "rule:longer"),
        *("--answers-a", str(there / "answers-ppo.jsonl")),
        *("--answers-b", str(there / "answers-sft-v2.jsonl")),
    )
    assert ran.status == 0, ran.err
    assert re.search(r"median length, characters +178 \| 134", ran.out)
    assert "of 80" in ran.out


# -- with our own engine -------------------------------------------------------------------------


def test_models_of_ones_own_answer_with_their_cards_sampling_and_go_on_as_they_began(
    compare: Here, folder: Path
) -> None:
    """Two tiny models of rinna's kind; answers that were lost come out the same."""
    for seed in (1, 2):
        tiny_models.rinna(folder / f"model-{seed}", seed=seed)
    table = '\n[models.{0}]\nsource = "{1}"\nformat = "rinna"\nmax_new_tokens = 12\n'
    with (folder / "henji.toml").open("a") as file:
        file.write(table.format("one", folder / "model-1"))
        file.write(table.format("two", folder / "model-2"))
    words = ("one", "two", "--prompts", "q.jsonl", "--judge", "rule:longer")
    assert (ran := compare(*words)).status == 0, ran.err
    whole = answers_in(folder / "compare-one-two")
    assert len(whole) == 6
    assert whole["time", "a"] != whole["time", "b"]
    record = Record.read(folder / "compare-one-two")
    assert {answer.ending for answer in record.answers.values()} <= {"stop", "length"}
    assert record.setup.a["weights"] != record.setup.b["weights"]

    kept = folder / "compare-one-two" / "answers.jsonl"
    kept.write_text("".join(kept.read_text().splitlines(keepends=True)[:4]) + '{"prompt": "sh')
    assert (ran := compare(*words)).status == 0, ran.err
    assert answers_in(folder / "compare-one-two") == whole


def test_a_reward_model_judges_but_not_a_model_that_was_trained_to_please_it(
    compare: Here, folder: Path
) -> None:
    taste = reward_model(folder)
    questions = [{"id": n, **pair} for n, pair in enumerate(pairs(20))]
    lines(folder / "q.jsonl", questions)
    for name, which in (("liked", "chosen"), ("disliked", "rejected")):
        answers = ({"id": q["id"], "answer": q[which][0]["content"]} for q in questions)
        lines(folder / f"{name}.jsonl", list(answers))
    ran = compare(
        *("liked", "disliked", "--prompts", "q.jsonl", "--judge", f"reward:{taste}"),
        *("--answers-a", "liked.jsonl", "--answers-b", "disliked.jsonl"),
    )
    assert ran.status == 0, ran.err
    assert "Judged by the reward model taste (" in ran.out
    assert "liked won more prompts than chance explains" in ran.out

    please(taste, folder / "pleaser")
    table = f'[models.pleaser]\nsource = "base"\nadapter = "{folder / "pleaser"}"\n'
    (folder / "henji.toml").write_text((folder / "henji.toml").read_text() + table)
    words = ("pleaser", "base", "--prompts", "q.jsonl", "--judge")
    ran = compare(*words, f"reward:{taste}")
    assert ran.status == 2
    assert "pleaser was trained to please the reward model" in ran.err
    ran = compare(*words, f"reward:{folder / 'base'}")
    assert ran.status == 1
    assert "is no reward model" in ran.err


def test_prompts_that_an_adapter_was_trained_on_are_known_by_its_manifest(folder: Path) -> None:
    taught, new = prompt("1", "時間とは?"), prompt("2", "What is time?")
    manifest = Manifest("dpo", "m", "m", "", None, "", "", (), (digest_of_words(taught.text),))
    manifest.write(folder)
    (folder / ADAPTER_WEIGHTS).write_bytes(b"weights")
    known = adapter_details(folder, [taught, new])
    assert known["trained_on"] == 1
    assert known["adapter_weights"] == hashlib.sha256(b"weights").hexdigest()


def reward_model(folder: Path) -> Path:
    """One that was trained on pairs, of a tiny model that the settings call ``base``."""
    tiny_models.rinna(folder / "base")
    with (folder / "henji.toml").open("a") as file:
        file.write(f'[models.base]\nsource = "{folder / "base"}"\nformat = "rinna"\n')
    data = lines(folder / "pairs.jsonl", pairs())
    options = Options("reward", steps=8, batch=16, micro=16, rate=1e-2, rank=4, alpha=8.0)
    train(Work("base", data, folder / "taste", options), load_settings(), print)
    return folder / "taste"


def please(taste: Path, policy: Path) -> None:
    """An adapter whose manifest says that it was trained against a reward model."""
    shutil.copytree(taste, policy)
    manifest = read_manifest(taste)
    assert manifest is not None
    replace(manifest, method="ppo", rewards=(weights_digest(taste),)).write(policy)


# -- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "two models are compared"),
        (("ten",), "name B, too"),
        (("ten", "twenty"), "--prompts names no file"),
        (("ten", "ten", "--prompts", "q.jsonl"), "A and B are both ten"),
        (("ten", "twin", "--prompts", "q.jsonl"), "ten and twin are the same model"),
        (("ten", "nobody", "--prompts", "q.jsonl"), "nobody, which is no model"),
        (("ten", "twenty", "--prompts", "no.jsonl"), "no.jsonl cannot be read"),
        (("ten", "twenty", "--prompts", "q.jsonl", "--judge", "god"), "--judge god is no judge"),
        (("ten", "twenty", "--prompts", "q.jsonl", "--judge", "rule:x"), "rule:x is no rule"),
        (("ten", "twenty", "--prompts", "q.jsonl", "--answers-a", "q.jsonl"), "it has no answer"),
        (("--out", "nowhere", "--judge", "people"), "nowhere holds no comparison"),
        (("--recount", "nowhere"), "nowhere holds no comparison"),
        (("--recount", "nowhere", "--judge", "people"), "it goes with no other option"),
        (("ten", "twenty", "--prompts", "q.jsonl", "--raters", "0"), "--raters"),
    ],
)
def test_a_comparison_that_cannot_be_made_is_refused_in_one_sentence(
    compare: Here, folder: Path, words: tuple[str, ...], sentence: str
) -> None:
    ran = compare(*words)
    assert ran.status == 2
    assert sentence in ran.err
    assert ran.err.count("\n") == 1
    assert not list(folder.glob("compare-*"))


def test_a_judge_that_is_away_is_told_before_the_models_answer(
    compare: Here, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judges, "_FIRST_PAUSE", 0.001)
    ran = compare("ten", "twenty", "--prompts", "q.jsonl", "--judge", "http://127.0.0.1:9/v1")
    assert ran.status == 1
    assert "the judge at http://127.0.0.1:9/v1" in ran.err
    assert not list(folder.glob("compare-*"))


def test_a_place_that_cannot_be_written_is_named(compare: Here, folder: Path) -> None:
    (folder / "here").write_text("a file")
    ran = compare("ten", "twenty", "--prompts", "q.jsonl", "--out", "here")
    assert (ran.status, ran.err.count("\n")) == (1, 1)
    assert "here cannot be written: File exists" in ran.err


def test_a_directory_of_another_comparison_is_left_alone(compare: Here, folder: Path) -> None:
    compare("ten", "twenty", "--prompts", "q.jsonl", "--out", "here")
    ran = compare("ten", "twenty", "--prompts", "q.jsonl", "--out", "here", "--seed", "8")
    assert ran.status == 2
    assert "here holds another comparison (its seed is 7, and 8 is asked for)" in ran.err


def test_a_judge_does_not_begin_before_all_have_answered(compare: Here, folder: Path) -> None:
    compare("ten", "twenty", "--prompts", "q.jsonl", "--out", "here")
    kept = folder / "here" / "answers.jsonl"
    kept.write_text("".join(kept.read_text().splitlines(keepends=True)[:4]))
    ran = compare("--out", "here", "--judge", "rule:shorter")
    assert (ran.status, ran.err.count("\n")) == (2, 1)
    assert "here lacks 2 answers" in ran.err


def remote_model(folder: Path) -> Path:
    """The files of a model that are needed here if a server has its weights."""
    tiny_models.tokenizer_files(folder / "remote")
    config = {"max_position_embeddings": 512, "model_type": "llama"}
    (folder / "remote" / "config.json").write_text(json.dumps(config))
    with (folder / "henji.toml").open("a") as file:
        for name in ("left", "right"):
            table = f'[models.{name}]\nsource = "{folder / "remote"}"\nadapter = "{name}-lora"\n'
            file.write(table)
        file.write(f'[models.bare]\nsource = "{folder / "remote"}"\n')
        file.write(f'[models.warm]\nsource = "{folder / "remote"}"\ntemperature = 0.9\n')
    return folder / "henji.toml"


async def test_two_adapters_of_one_server_answer_by_their_names(folder: Path) -> None:
    server = Server()
    async with serving(server) as url:
        ran = await henji(
            *("compare", "left", "right", "--prompts", "q.jsonl", "--judge", "rule:shorter"),
            HENJI_CONFIG=str(remote_model(folder)),
            HENJI_ENGINE="openai",
            HENJI_OPENAI_BASE_URL=url,
        )
    assert ran.status == 0, ran.err
    assert {request["model"] for request in server.requests} == {"left-lora", "right-lora"}
    assert re.search(r"0 \|    3 \|    0   of 3", ran.out)


def test_two_models_on_one_server_need_names_of_their_own(
    compare: Here, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote_model(folder)
    monkeypatch.setenv("HENJI_ENGINE", "openai")
    ran = compare("bare", "warm", "--prompts", "q.jsonl")
    assert ran.status == 2
    assert "the key adapter of [models.NAME]" in ran.err


# -- people --------------------------------------------------------------------------------------


async def vote_through(link: str, vote: str) -> None:
    """Judge all pairs of a link alike."""
    async with aiohttp.ClientSession() as http:
        async with http.get(link) as response:
            page = await response.text()
        while found := re.search(r'name="pair" value="(\d+)"', page):
            form = {"pair": found[1], "vote": vote}
            async with http.post(link + "vote", data=form) as response:
                page = await response.text()


async def links_of(process: asyncio.subprocess.Process, number: int) -> list[str]:
    assert process.stderr is not None
    links: list[str] = []
    while len(links) < number:
        line = (await asyncio.wait_for(process.stderr.readline(), 60)).decode()
        assert line, "it ended"
        links += re.findall(r"person \d+: (http://127\.0\.0\.1:\d+/\w+/)", line)
    return links


async def test_people_judge_on_a_page_until_ctrl_c_and_go_on_later(folder: Path) -> None:
    words = ("compare", "ten", "twenty", "--prompts", "q.jsonl", "--judge", "people")
    process = await start(*words, "--raters", "2", HENJI_CONFIG=str(folder / "henji.toml"))
    first, _ = await links_of(process, 2)
    await vote_through(first, "tie")
    process.send_signal(signal.SIGINT)
    ran = await finish(process)
    assert ran.status == 0, ran.err
    assert "0 |    3 |    0   of 3" in ran.out

    process = await start(*words, "--raters", "2", HENJI_CONFIG=str(folder / "henji.toml"))
    _, second = await links_of(process, 2)
    await vote_through(second, "both_bad")
    process.send_signal(signal.SIGTERM)
    ran = await finish(process)
    assert ran.status == 0, ran.err
    assert "0 |    6 |    0   of 6" in ran.out
    assert re.search(r"both bad \(counted as ties\) +3\n", ran.out)


# -- the house -----------------------------------------------------------------------------------


async def test_a_bot_s_process_does_not_load_the_evaluation() -> None:
    script = """
import sys
import bots.cli.commands, bots.cli.commands, bots.services, bots.slack.bot, bots.discord.bot
print([name for name in sys.modules if name.startswith("core.evaluation")])
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert out.decode().strip() == "[]"


ROOT = Path(__file__).parents[1]


def test_every_sentence_of_the_table_the_page_and_the_report_is_in_the_strings() -> None:
    folder = Path(evaluation.__file__).parent
    said = {key for path in folder.glob("*.py") for key in keys_in(path)}
    ours = {key for key in ENGLISH if key.startswith(("compare_", "page_"))}
    missing = {key for key in said if not any(re.fullmatch(key, known) for known in ours)}
    unsaid = {known for known in ours if not any(re.fullmatch(key, known) for key in said)}
    assert not missing
    assert not unsaid


def keys_in(path: Path) -> Iterator[str]:
    """Patterns of the keys in a file, with anything in place of the fields."""
    tree = ast.parse(path.read_text())
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
             for part in node.values}  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (str(p.value) if isinstance(p, ast.Constant) else ".+" for p in node.values)
            text = "".join(parts)
        elif isinstance(node, ast.Constant) and id(node) not in inner:
            text = str(node.value)
        else:
            continue
        if re.fullmatch(r"(?:compare|page)_[\w.+]+", text):
            yield text


def test_no_test_of_ours_leaves_a_comparison_in_the_project() -> None:
    assert not [name for name in os.listdir(ROOT) if name.startswith("compare-")]
