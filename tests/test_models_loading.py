"""Loading weights as they lie on the hub, and the card's own recipe beside ours."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from transformers import GPTNeoXForCausalLM

from core.dialogue import Dialogue
from core.errors import ModelError
from core.loading import choose_device, choose_dtype, load_weights
from core.models import CATALOGUE, model_directory
from core.settings import Settings
from tests import dialogues, tiny
from tests.dialogues import RINNA, said


def load(directory: Path, dtype: str = "float32") -> Any:
    return load_weights(RINNA, directory, dtype=dtype, device="cpu", progress=print)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A copy of the tiny rinna model's files, to be broken."""
    return Path(shutil.copytree(dialogues.rinna_files(), tmp_path / "model"))


# -- the old layout -----------------------------------------------------------------------------


def test_a_checkpoint_in_the_old_layout_loads_whole(files: Path) -> None:
    old = torch.load(files / "pytorch_model.bin")
    assert {"embed_out.weight", "gpt_neox.layers.0.attention.masked_bias"} <= set(old)
    model = load(files)
    assert isinstance(model, GPTNeoXForCausalLM)
    assert not model.training
    assert torch.equal(model.get_output_embeddings().weight, old["embed_out.weight"])
    assert torch.equal(model.get_input_embeddings().weight, old["gpt_neox.embed_in.weight"])
    for name, tensor in model.gpt_neox.layers[1].named_parameters():
        assert torch.equal(tensor, old[f"gpt_neox.layers.1.{name}"])


def test_it_computes_what_its_config_of_2023_says(files: Path) -> None:
    """Full rotary embeddings at base 10,000 and no parallel residual: the first layer by hand."""
    model, weights = load(files), torch.load(files / "pytorch_model.bin")
    ids = torch.tensor([[270, 280, 290, 300]])
    states = model(ids, output_hidden_states=True).hidden_states
    torch.testing.assert_close(states[1], _first_layer(weights, ids), rtol=1e-4, atol=1e-4)


def _first_layer(weights: dict[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
    """One GPT-NeoX block of two heads of 16, as the paper of rotary embeddings has it."""

    def part(name: str, x: torch.Tensor) -> torch.Tensor:
        block = f"gpt_neox.layers.0.{name}"
        return torch.nn.functional.linear(x, weights[f"{block}.weight"], weights[f"{block}.bias"])

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        block = f"gpt_neox.layers.0.{name}"
        return torch.nn.functional.layer_norm(
            x, (32,), weights[f"{block}.weight"], weights[f"{block}.bias"], 1e-5
        )

    x = weights["gpt_neox.embed_in.weight"][ids[0]]
    fused = part("attention.query_key_value", norm("input_layernorm", x))
    query, key, value = fused.view(4, 2, 3, 16).permute(2, 1, 0, 3)
    angles = torch.outer(torch.arange(4.0), 10000.0 ** -(torch.arange(0, 16, 2) / 16))
    turned = [_rotate(heads, angles) for heads in (query, key)]
    seen = torch.nn.functional.scaled_dot_product_attention(*turned, value, is_causal=True)
    x = x + part("attention.dense", seen.permute(1, 0, 2).reshape(4, 32))
    inner = torch.nn.functional.gelu(part("mlp.dense_h_to_4h", norm("post_attention_layernorm", x)))
    return (x + part("mlp.dense_4h_to_h", inner))[None]


def _rotate(heads: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Turn each pair (i, i + 8) of a head's 16 numbers by the position's angle."""
    left, right = heads[..., :8], heads[..., 8:]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


# -- the card's recipe --------------------------------------------------------------------------


def test_the_seed_recipe_is_the_card_s_script_to_the_token() -> None:
    """The card's own steps on the left, ours on the right, on the same tiny weights."""
    directory = dialogues.rinna_files()
    turns = said("日本の首都は?", "東京です。\nほかには?", "それは簡単ですか?")

    # the card: a list of speakers and texts, joined; ids without special tokens; generate
    speakers = {"user": "ユーザー", "assistant": "システム"}
    prompt = [f"{speakers[t.role]}: {t.text}".replace("\n", "<NL>") for t in turns]
    string = "<NL>".join(prompt) + "<NL>" + "システム: "
    # (the card's slow tokenizer is SentencePiece itself, with nothing added)
    card = sentencepiece.SentencePieceProcessor(model_file=str(directory / "spiece.model"))
    token_ids = torch.tensor([card.encode(string)])

    dialogue = Dialogue.load(RINNA, directory)
    ours = dialogue.prompt(turns, low_water=0.7).ids
    assert list(ours) == token_ids.tolist()[0]

    spec = CATALOGUE["rinna-ppo"]
    assert (spec.max_new_tokens, spec.context_length) == (128, 2048)
    assert spec.sampling == replace(spec.sampling, temperature=0.7, repetition_penalty=1.1)
    assert (spec.sampling.top_p, spec.sampling.top_k) == (1.0, 0)
    assert dialogue.stop_ids == {card.eos_id()}

    model = load(directory)
    common = {"max_new_tokens": 40, "pad_token_id": card.pad_id(), "eos_token_id": card.eos_id()}
    theirs = model.generate(
        token_ids, do_sample=False, repetition_penalty=1.1, bos_token_id=card.bos_id(), **common
    )
    reply = _greedy(model, ours, spec.sampling.repetition_penalty, dialogue.stop_ids, 40)
    assert reply == theirs[0, len(ours) :].tolist()
    unpenalized = _greedy(model, ours, 1.0, dialogue.stop_ids, 40)
    assert reply != unpenalized  # the penalty is felt on these weights

    # the card: output = tokenizer.decode(...), output.replace("<NL>", "\n")
    decoded = card.decode([i for i in reply if i not in dialogue.stop_ids]).replace("<NL>", "\n")
    written = dialogue.reply()
    shown = "".join(written.push([ident]) for ident in reply)
    text, _ = written.finish("length")
    if written.finish_reason is None:
        assert text == decoded.strip().rstrip("\ufffd")
    assert text.startswith(shown)


def _greedy(
    model: Any, prompt: tuple[int, ...], penalty: float, stop_ids: frozenset[int], most: int
) -> list[int]:
    """Greedy decoding from a prompt's ids with the repetition penalty over prompt and reply, as
    the engines are asked for it: a logit above 0 is divided, one below multiplied."""
    ids = list(prompt)
    while len(ids) < len(prompt) + most:
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1]
        seen = torch.tensor(sorted(set(ids)))
        logits[seen] = torch.where(logits[seen] > 0, logits[seen] / penalty, logits[seen] * penalty)
        best = logits.topk(2).values
        assert best[0] - best[1] > 1e-4, "a tie could flip this test"
        ids.append(int(logits.argmax()))
        if ids[-1] in stop_ids:
            break
    return ids[len(prompt) :]


# -- precision ----------------------------------------------------------------------------------


def test_precision_is_what_the_setting_says(files: Path) -> None:
    assert load(files, "bfloat16").dtype == torch.bfloat16
    assert load(files, "float16").dtype == torch.float16


def test_automatic_precision_is_what_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    for able, expected in (({"amx_bf16": True}, torch.bfloat16), ({}, torch.float32)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", able.copy)
        assert choose_dtype("auto", cpu) == expected
    for native, expected in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, _has=native, **__: _has)
        assert choose_dtype("auto", gpu) == expected


def test_a_device_that_does_not_exist_is_named() -> None:
    with pytest.raises(ModelError, match="toaster"):
        choose_device("toaster")


# -- files that are broken ----------------------------------------------------------------------


def test_weights_that_are_cut_short_are_named(files: Path) -> None:
    whole = (files / "pytorch_model.bin").read_bytes()
    for size in (0, 1000, len(whole) // 2, len(whole) - 100):
        (files / "pytorch_model.bin").write_bytes(whole[:size])
        with pytest.raises(ModelError, match=r"pytorch_model\.bin") as caught:
            load(files)
        assert "\n" not in str(caught.value)


def test_safetensors_that_are_cut_short_are_named(tmp_path: Path) -> None:
    directory = tiny.llama(tmp_path)
    whole = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        load(directory)


def test_weights_that_are_not_there_are_named(files: Path) -> None:
    (files / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match="has no weights"):
        load(files)


def test_a_shard_that_is_missing_is_named(files: Path) -> None:
    (files / "pytorch_model.bin").unlink()
    index = {"weight_map": {"embed_out.weight": "pytorch_model-00002-of-00002.bin"}}
    (files / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"pytorch_model-00002-of-00002\.bin is missing"):
        load(files)


def test_weights_that_lack_a_tensor_are_named(files: Path) -> None:
    weights = torch.load(files / "pytorch_model.bin")
    del weights["gpt_neox.layers.1.mlp.dense_h_to_4h.weight"]
    torch.save(weights, files / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"lack 1 tensors, such as .*dense_h_to_4h\.weight"):
        load(files)


def test_weights_of_another_vocabulary_are_named(files: Path) -> None:
    weights = torch.load(files / "pytorch_model.bin")
    weights["gpt_neox.embed_in.weight"] = weights["gpt_neox.embed_in.weight"][:-7]
    torch.save(weights, files / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin"):
        load(files)


def test_a_tokenizer_of_another_vocabulary_is_named(files: Path) -> None:
    config = json.loads((files / "config.json").read_text())
    for rows in (config["vocab_size"] - 1, config["vocab_size"] + 1000):
        (files / "config.json").write_text(json.dumps({**config, "vocab_size": rows}))
        with pytest.raises(ModelError, match=rf"config\.json says vocab_size = {rows}"):
            Dialogue.load(RINNA, files)


# -- the embedded model -------------------------------------------------------------------------


def test_the_embedded_model_is_converted_once_and_answers(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    spec, lines = CATALOGUE["smollm2"], list[str]()
    directory = model_directory(spec, settings, lines.append)
    assert len(lines) == 2
    assert model_directory(spec, settings, lines.append) == directory
    assert len(lines) == 2
    assert not list(directory.parent.glob("*.partial"))
    model = load_weights(spec, directory, dtype="float32", device="cpu", progress=lines.append)
    dialogue = Dialogue.load(spec, directory)
    turns = said("What is the capital of Japan?")
    ids = dialogue.prompt(turns, low_water=0.7).ids
    with torch.no_grad():
        made = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=20)
    reply = dialogue.reply()
    reply.push([i for i in made[0, len(ids) :].tolist() if i not in dialogue.stop_ids])
    assert "Tokyo" in reply.finish("stop")[0]
