"""Data sets in TRL's formats, and their ids: exactly those that the model is served."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.alignment import Method
from core.alignment.datasets import digest, encode, read_examples
from core.dialogue import Dialogue
from core.errors import OperatorError
from core.models.catalogue import CATALOGUE, find_named
from core.settings import Settings
from core.types import Turn
from tests import tiny_models


def said(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


ASKED = [said("user", "日本の首都は?")]
PAIR = {
    "prompt": ASKED,
    "chosen": [said("assistant", "それは東京です。\nとても良い質問ですね。")],
    "rejected": [said("assistant", "分かりません。")],
}
RATED = {"prompt": ASKED, "completion": PAIR["chosen"], "label": True}


def written(directory: Path, *rows: Any) -> Path:
    path = directory / "data.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture(scope="module")
def rinna(tmp_path_factory: pytest.TempPathFactory) -> Dialogue:
    directory = tiny_models.rinna(tmp_path_factory.mktemp("rinna"))
    return Dialogue.load(replace(CATALOGUE["rinna-ppo"], source=str(directory)), directory)


def dialogue_of(directory: Path) -> Dialogue:
    return Dialogue.load(find_named(str(directory), Settings()), directory)


def quiet(line: str) -> None:
    raise AssertionError(line)


def test_a_pairs_ids_are_the_prompt_that_is_served_and_each_reply_to_its_end(
    rinna: Dialogue, tmp_path: Path
) -> None:
    (item,) = encode(read_examples(written(tmp_path, PAIR), "dpo"), rinna, longest=2048, tell=quiet)
    turn = Turn("1", "user", "", "日本の首都は?", 0.0)
    assert item.prompt == rinna.prompt([turn], low_water=0.7).ids
    chosen, rejected = (reply.reply for reply in item.replies)
    assert chosen[-1] == rejected[-1] == 3  # </s>
    written_out = rinna.tokenizer.decode(chosen[:-1])
    assert written_out == "それは東京です。<NL>とても良い質問ですね。"


def test_the_prompts_last_piece_is_not_joined_to_the_reply(rinna: Dialogue, tmp_path: Path) -> None:
    """The ids of the whole string would hold a piece that no model is served."""
    pieces = rinna.tokenizer.pieces(range(rinna.tokenizer.size))
    joined = next(piece for piece in pieces if piece[:1] == "▁" and piece[1:2].isalpha())
    text = joined[1:] + "です。"
    row = {**PAIR, "chosen": [said("assistant", text)]}
    (item,) = encode(read_examples(written(tmp_path, row), "dpo"), rinna, longest=99, tell=quiet)
    reply = item.replies[0]
    together = rinna.tokenizer.encode(f"ユーザー: 日本の首都は?<NL>システム: {text}")
    assert joined in rinna.tokenizer.pieces(together)
    assert rinna.tokenizer.pieces(reply.prompt)[-1] == "▁"
    assert joined not in rinna.tokenizer.pieces(reply.prompt + reply.reply)


TOKENIZERS = (None, tiny_models.bpe_with_spaces(), tiny_models.unigram())


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_a_reply_has_the_ids_of_a_text_behind_another(
    tokenizer: str | None, tmp_path: Path
) -> None:
    """Some tokenizers put a space in front of a text, and a model writes none there."""
    tiny_models.llama(tmp_path)
    if tokenizer:
        tiny_models.tokenizer_files(tmp_path, tokenizer=tokenizer)
        (tmp_path / "config.json").unlink()  # its vocabulary is of another size
    directory = tmp_path
    spec = replace(CATALOGUE["smollm2"], source=str(directory))
    dialogue = Dialogue.load(spec, directory)
    *ids, end = dialogue.encode_reply("hello there")
    reply = dialogue.reply()
    assert reply.push(ids) == "hello there"
    assert end == dialogue.tokenizer.controls["<|im_end|>"]
    detokenizer = dialogue.tokenizer.detokenizer(inside=True)
    assert detokenizer.push(ids) == "hello there"


def test_ids_that_were_generated_are_taken_as_they_are(rinna: Dialogue, tmp_path: Path) -> None:
    tokens = {"fingerprint": rinna.fingerprint, "prompt": [300, 301], "completion": [302, 3]}
    path = written(tmp_path, {**RATED, "tokens": tokens})
    (item,) = encode(read_examples(path, "kto"), rinna, longest=2048, tell=quiet)
    assert (item.replies[0].prompt, item.replies[0].reply) == ((300, 301), (302, 3))


def test_ids_of_another_tokenizer_are_refused(rinna: Dialogue, tmp_path: Path) -> None:
    tokens = {"fingerprint": "another", "prompt": [300], "completion": [302, 3]}
    examples = read_examples(written(tmp_path, {**RATED, "tokens": tokens}), "kto")
    with pytest.raises(OperatorError, match="ids are of another tokenizer than rinna-ppo's"):
        encode(examples, rinna, longest=2048, tell=quiet)
    tokens = {"fingerprint": rinna.fingerprint, "prompt": [300], "completion": [10**6]}
    examples = read_examples(written(tmp_path, {**RATED, "tokens": tokens}), "kto")
    with pytest.raises(OperatorError, match="does not have"):
        encode(examples, rinna, longest=2048, tell=quiet)


def test_a_system_message_is_the_system_prompt(rinna: Dialogue, tmp_path: Path) -> None:
    row = {**PAIR, "prompt": [said("system", "簡単に。"), *ASKED]}
    (item,) = encode(read_examples(written(tmp_path, row), "ppo"), rinna, longest=99, tell=quiet)
    adapted = rinna.with_spec(rinna.spec, "簡単に。")
    turn = Turn("1", "user", "", "日本の首都は?", 0.0)
    assert item.prompt == adapted.prompt([turn], low_water=1.0).ids


def test_examples_that_do_not_fit_are_left_out_and_counted(rinna: Dialogue, tmp_path: Path) -> None:
    long = {**PAIR, "chosen": [said("assistant", "長い。" * 500)]}
    told: list[str] = []
    path = written(tmp_path, PAIR, long)
    items = encode(read_examples(path, "dpo"), rinna, longest=200, tell=told.append)
    assert len(items) == 1
    assert told == ["1 of 2 examples take more than 200 tokens: left out"]
    with pytest.raises(OperatorError, match="every example takes more than 5 tokens"):
        encode(read_examples(path, "dpo"), rinna, longest=5, tell=told.append)
    hopeless = {**PAIR, "prompt": [said("user", "長い。" * 5000)]}
    with pytest.raises(OperatorError, match="every example"):
        encode(read_examples(written(tmp_path, hopeless), "ppo"), rinna, longest=99, tell=quiet)


def test_sft_reads_better_replies_and_leaves_the_disliked_ones(tmp_path: Path) -> None:
    path = written(tmp_path, RATED, {**RATED, "label": False}, PAIR)
    examples = read_examples(path, "sft")
    assert [example.replies for example in examples] == [
        ("それは東京です。\nとても良い質問ですね。",)
    ] * 2


@pytest.mark.parametrize(
    ("method", "row", "sentence"),
    [
        ("dpo", RATED, "has no chosen and no rejected: dpo reads prompt, chosen, rejected"),
        ("kto", PAIR, "has no completion and no label"),
        ("dpo", {"text": "hello"}, "and the line has text"),
        ("dpo", {**PAIR, "prompt": "a string"}, "prompt that is no list"),
        ("dpo", {**PAIR, "prompt": []}, "prompt that is no list"),
        ("dpo", {**PAIR, "prompt": [said("user", "a"), said("tool", "b")]}, "has a tool where"),
        ("dpo", {**PAIR, "prompt": [said("system", "a")]}, "does not end with what a user said"),
        ("dpo", {**PAIR, "chosen": ASKED}, "chosen that is not one message of an assistant"),
        ("kto", {**RATED, "label": "good"}, "neither true nor false"),
        ("kto", {**RATED, "tokens": [1]}, "tokens that are no fingerprint"),
        ("kto", {**RATED, "tokens": {"fingerprint": "f", "prompt": [1]}}, "tokens that are no"),
        ("dpo", [1], "is no JSON object"),
    ],
)
def test_a_line_that_is_not_of_the_format_is_named(
    method: Method, row: Any, sentence: str, tmp_path: Path
) -> None:
    path = written(tmp_path, row)
    with pytest.raises(OperatorError, match=f"line 1, .*{sentence}"):
        read_examples(path, method)


def test_a_file_that_is_no_data_set_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    with pytest.raises(OperatorError, match="cannot be read"):
        read_examples(path, "dpo")
    path.write_text("\n \n")
    with pytest.raises(OperatorError, match="holds no example for dpo"):
        read_examples(path, "dpo")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(OperatorError, match="not UTF-8"):
        read_examples(path, "dpo")
    path.write_text(json.dumps(PAIR) + "\n{cut sh")
    with pytest.raises(OperatorError, match="line 2, is not JSON"):
        read_examples(path, "dpo")
    path.write_text("[" * 100_000)
    with pytest.raises(OperatorError, match="line 1, is not JSON"):
        read_examples(path, "dpo")
    path.write_text(json.dumps({**PAIR, "rejected": [said("assistant", "\ud800")]}))
    with pytest.raises(OperatorError, match="line 1, holds half of a character"):
        read_examples(path, "dpo")
    path.write_text("\ufeff" + json.dumps(PAIR) + "\r\n")
    assert len(read_examples(path, "dpo")) == 1
    written(tmp_path, {**RATED, "label": False})
    with pytest.raises(OperatorError, match="holds no example for sft"):
        read_examples(path, "sft")


def test_a_line_is_known_by_its_conversation_alone() -> None:
    turned = dict(reversed(PAIR.items()))
    assert digest(turned) == digest(PAIR) == digest({**PAIR, "tokens": {}, "note": 1})
    assert digest({**PAIR, "rejected": PAIR["chosen"]}) != digest(PAIR)
