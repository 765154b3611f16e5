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
from safetensors.torch import save_file
from transformers import GPTNeoXForCausalLM

from core.dialogue import Dialogue
from core.engine.torch import Limits, TorchEngine
from core.engine_types import GenerationRequest
from core.errors import ModelError
from core.models.catalogue import CATALOGUE, find_model, model_directory, pull_model
from core.models.files import check_weights
from core.models.weights import choose_device, choose_dtype, load_weights
from core.settings import Settings
from core.types import Sampling
from tests import dialogues, tiny_models
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
    loaded = dict(model.named_parameters())
    loaded["embed_out.weight"] = loaded.pop("lm_head.weight")
    masks = {name for name in old if name.endswith(("attention.bias", "masked_bias", "inv_freq"))}
    assert set(loaded) == set(old) - masks
    assert all(torch.equal(tensor, old[name]) for name, tensor in loaded.items())


def test_safetensors_with_the_old_keys_load_whole(files: Path) -> None:
    old = torch.load(files / "pytorch_model.bin")
    (files / "pytorch_model.bin").unlink()
    save_file(old, files / "model.safetensors", metadata={"format": "pt"})
    loaded = dict(load(files).named_parameters())
    assert torch.equal(loaded["lm_head.weight"], old["embed_out.weight"])
    name = "gpt_neox.layers.1.attention.query_key_value.weight"
    assert torch.equal(loaded[name], old[name])


def test_the_model_computes_by_its_config_of_2023(files: Path) -> None:
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
    seen = torch.nn.functional.scaled_dot_product_attention(
        _rotate(query, angles), _rotate(key, angles), value, is_causal=True
    )
    x = x + part("attention.dense", seen.permute(1, 0, 2).reshape(4, 32))
    inner = torch.nn.functional.gelu(part("mlp.dense_h_to_4h", norm("post_attention_layernorm", x)))
    return (x + part("mlp.dense_4h_to_h", inner))[None]


def _rotate(heads: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Turn each pair (i, i + 8) of a head's 16 numbers by the position's angle."""
    left, right = heads[..., :8], heads[..., 8:]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


# -- the card's recipe --------------------------------------------------------------------------


async def test_the_seed_recipe_is_the_card_s_script_to_the_token() -> None:
    """The card's own steps, then ours through prompt and engine, on the same tiny weights."""
    directory, spec = dialogues.rinna_files(), CATALOGUE["rinna-ppo"]
    turns = said("日本の首都は?", "東京です。\nほかには?", "それは簡単ですか?")

    # the card's: speakers and texts joined, ids without special tokens, generate, decode, replace;
    # its slow tokenizer was SentencePiece with nothing added
    card = sentencepiece.SentencePieceProcessor(model_file=str(directory / "spiece.model"))
    speakers = {"user": "ユーザー", "assistant": "システム"}
    lines = [f"{speakers[turn.role]}: {turn.text}".replace("\n", "<NL>") for turn in turns]
    token_ids = torch.tensor([card.encode("<NL>".join(lines) + "<NL>" + "システム: ")])
    options = {
        "max_new_tokens": 128,
        "temperature": 0.7,
        "repetition_penalty": 1.1,
        "pad_token_id": card.pad_id(),
        "bos_token_id": card.bos_id(),
        "eos_token_id": card.eos_id(),
    }
    made = load(directory).generate(token_ids, **{**options, "temperature": None})
    card_ids = made[0, token_ids.shape[1] :].tolist()
    card_text = card.decode(card_ids).replace("<NL>", "\n")

    # ours
    dialogue = Dialogue.load(spec, directory)
    prompt = dialogue.prompt(turns, low_water=0.7).ids
    assert prompt == tuple(token_ids[0].tolist())
    assert dialogue.stop_ids == {options["eos_token_id"]}
    assert spec.max_new_tokens == options["max_new_tokens"]
    # `generate` itself adds top_k: 50 to the script's values
    assert spec.sampling == Sampling(temperature=0.7, repetition_penalty=1.1, top_k=50)
    greedy = replace(spec.sampling, temperature=0.0)
    ids = await _generated(load(directory), dialogue, prompt, greedy)
    ended = card_ids[:-1] if card_ids[-1] in dialogue.stop_ids else card_ids
    assert ids == ended
    assert ids != await _generated(
        load(directory), dialogue, prompt, replace(greedy, repetition_penalty=1.0)
    )  # the penalty has an effect with these weights
    assert dialogue.tokenizer.decode(ids).replace("<NL>", "\n") == card_text


async def _generated(
    model: Any, dialogue: Dialogue, prompt: tuple[int, ...], sampling: Sampling
) -> list[int]:
    """The engine's reply, as the worker asks for one."""
    limits = Limits(2048, slots=1, step_tokens=64, cache_bytes=1 << 24)
    engine = await TorchEngine.open(lambda: model, lambda _: limits)
    request = GenerationRequest(
        id="1",
        prompt=prompt,
        sampling=sampling,
        max_new_tokens=dialogue.spec.max_new_tokens,
        seed=0,
        stop_ids=dialogue.stop_ids,
        stop_sequences=dialogue.stop_sequences,
    )
    try:
        return [ident async for chunk in engine.generate(request) for ident in chunk.ids]
    finally:
        await engine.close()


# -- precision ----------------------------------------------------------------------------------


def test_the_setting_decides_the_precision(files: Path) -> None:
    assert load(files, "bfloat16").dtype == torch.bfloat16
    assert load(files, "float16").dtype == torch.float16


def test_automatic_precision_is_the_fast_one(monkeypatch: pytest.MonkeyPatch) -> None:
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
    directory = tiny_models.llama(tmp_path)
    whole = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        load(directory)


def test_a_truncated_file_is_found_without_reading_it(files: Path, tmp_path: Path) -> None:
    assert check_weights(files) == [files / "pytorch_model.bin"]
    whole = (files / "pytorch_model.bin").read_bytes()
    (files / "pytorch_model.bin").write_bytes(whole[:-100])
    with pytest.raises(ModelError, match=r"pytorch_model\.bin is cut short"):
        check_weights(files)
    llama = tiny_models.llama(tmp_path / "llama")
    assert check_weights(llama) == [llama / "model.safetensors"]
    whole = (llama / "model.safetensors").read_bytes()
    (llama / "model.safetensors").write_bytes(whole[:-1])
    with pytest.raises(ModelError, match=r"model\.safetensors is cut short"):
        check_weights(llama)


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
    with pytest.raises(ModelError, match=r"pytorch_model\.bin have .*embed_in.*config\.json says"):
        load(files)


def test_a_tokenizer_of_another_vocabulary_is_named(files: Path) -> None:
    config = json.loads((files / "config.json").read_text())
    for rows in (config["vocab_size"] - 1, config["vocab_size"] + 1000):
        (files / "config.json").write_text(json.dumps({**config, "vocab_size": rows}))
        with pytest.raises(ModelError, match=rf"config\.json says vocab_size = {rows}"):
            Dialogue.load(RINNA, files)


# -- the embedded model -------------------------------------------------------------------------


def test_the_embedded_model_is_converted_once_and_answers(home: Path) -> None:
    settings, spec, lines = Settings(data_dir=home), CATALOGUE["smollm2"], list[str]()
    directory = model_directory(spec, settings, print)
    assert model_directory(spec, settings, lines.append) == directory
    assert not lines
    assert not list(directory.parent.glob("*.partial"))
    model: Any = load_weights(spec, directory, dtype="float32", device="cpu", progress=print)
    dialogue = Dialogue.load(spec, directory)
    ids = dialogue.prompt(said("What is the capital of Japan?"), low_water=0.7).ids
    made = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=20)
    reply = dialogue.reply()
    reply.push([i for i in made[0, len(ids) :].tolist() if i not in dialogue.stop_ids])
    assert "Tokyo" in reply.finish("stop")[0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_named_with_its_setting() -> None:
    with pytest.raises(ModelError, match="the setting device is cuda, which fails"):
        choose_device("cuda")


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes"])
def test_quantized_weights_are_refused_with_what_would_serve_them(
    tmp_path: Path, method: str
) -> None:
    directory = tiny_models.llama(tmp_path / "llama")
    config = json.loads((directory / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method, "bits": 4}
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=rf"quantized \({method}\).*HENJI_ENGINE=openai"):
        load(directory)


def test_added_tokens_without_a_row_and_rows_without_a_token_are_no_fault(tmp_path: Path) -> None:
    """As Gemma 3 has the one, and GPT-OSS the other."""
    directory = tiny_models.llama(tmp_path / "llama")
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    last = max(
        [*tokenizer["model"]["vocab"].values(), *(t["id"] for t in tokenizer["added_tokens"])]
    )
    tokenizer["added_tokens"].append({
        "id": last + 1, "content": "<image>", "single_word": False, "lstrip": False,
        "rstrip": False, "normalized": False, "special": True,
    })  # fmt: skip
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = json.loads((directory / "config.json").read_text())
    for rows, fits in ((last + 1, True), (last + 1_000_000, True), (last - 100, False)):
        (directory / "config.json").write_text(json.dumps({**config, "vocab_size": rows}))
        spec = find_model(Settings(model=str(directory), data_dir=tmp_path))
        if fits:
            Dialogue.load(spec, directory)
        else:
            with pytest.raises(ModelError, match="vocab_size"):
                Dialogue.load(spec, directory)


# -- GGUF files -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "far"), [("F16", 1e-3), ("Q8_0", 0.02), ("Q4_0", 0.3)])
def test_a_gguf_file_is_served_once_it_is_converted(tmp_path: Path, kind: str, far: float) -> None:
    original = tiny_models.llama(tmp_path / "llama")
    path = tiny_models.gguf(original, tmp_path / f"tiny-{kind}.gguf", kind)
    settings = Settings(model=str(path), data_dir=tmp_path)
    with pytest.raises(ModelError, match=r"`henji models pull .*\.gguf` converts it first"):
        find_model(settings)
    converted = pull_model(str(path), settings, None, print)
    assert pull_model(str(path), settings, None, print) == converted
    spec = find_model(settings)
    assert spec.context_length == find_model(Settings(model=str(original))).context_length
    theirs = dict(
        load_weights(
            spec, original, dtype="float32", device="cpu", progress=print
        ).named_parameters()
    )
    ours = dict(
        load_weights(
            spec, converted, dtype="float32", device="cpu", progress=print
        ).named_parameters()
    )
    assert set(ours) == set(theirs)
    for name, weight in ours.items():
        assert (weight - theirs[name]).abs().max() <= far
    text = "The capital of Japan is Tokyo. 吾輩は猫である。"
    plain = replace(spec, format="plain")
    assert Dialogue.load(plain, converted).encode_text(text) == Dialogue.load(
        plain, original
    ).encode_text(text)


def test_a_file_that_is_no_gguf_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF and no more")
    settings = Settings(data_dir=tmp_path)
    with pytest.raises(ModelError, match=r"broken\.gguf cannot be converted: ") as caught:
        pull_model(str(path), settings, None, print)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.partial"))
