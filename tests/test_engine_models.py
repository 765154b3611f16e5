"""Models of many architectures, tiny and random: computed exactly, or refused by a sentence."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from core.engine.torch import engine as torch_engine
from core.engine.torch import open_torch_engine, verification
from core.errors import ModelError
from core.models.catalogue import ModelSpec, find_model
from core.models.weights import load_weights
from core.settings import Settings
from tests import tiny_models
from tests.test_engine import CONTEXT, VOCABULARY, alone, engine_for, ids_of, reply, request_for

SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.3,
    "pad_token_id": 3,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2 = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT, "n_inner": 96}

SERVED: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {"use_sliding_window": False},
    "qwen3": {},
    "mistral": {"sliding_window": None},
    "smollm3": {},
    "olmo2": {},
    "granite": {},
    "phi3": {"sliding_window": None},
    "gpt_neox": {"num_key_value_heads": None},
    "gpt2": {**GPT2, "num_key_value_heads": None},
    "starcoder2": {"sliding_window": None},
    "gpt_bigcode": {**GPT2, "multi_query": True},
}
REFUSED: dict[str, dict[str, Any]] = {
    "gemma2": {"sliding_window": 64},
    "gpt_oss": {"num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": 64},
    "diffllama": {},
    "phi3": {
        "sliding_window": None,
        "original_max_position_embeddings": 64,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "original_max_position_embeddings": 64,
            "short_factor": [1.0] * 8,
            "long_factor": [4.0] * 8,
        },
    },
}


def tiny(kind: str, more: dict[str, Any]) -> PreTrainedModel:
    torch.manual_seed(5)
    config = AutoConfig.for_model(kind, **{**SMALL, **more})
    model: Any = cast("Any", AutoModelForCausalLM).from_config(config)
    return cast("PreTrainedModel", model.float().eval())


async def both(model: PreTrainedModel) -> list[list[int]]:
    """The replies to two prompts of different length at once."""
    asked = ([5, 9, 200, 31], list(range(10, 90)))
    async with engine_for(model) as engine:
        replies = await asyncio.gather(*(reply(engine, request_for(one)) for one in asked))
    return [ids_of(chunks) for chunks in replies]


@pytest.mark.parametrize("kind", SERVED)
async def test_a_model_is_computed_exactly(kind: str) -> None:
    theirs = tiny(kind, SERVED[kind])
    given = await both(tiny(kind, SERVED[kind]))
    expected = [alone(theirs, one, 24, 1.1) for one in ([5, 9, 200, 31], list(range(10, 90)))]
    assert given == expected


@pytest.mark.parametrize("kind", REFUSED)
async def test_a_model_that_would_be_computed_wrong_is_refused(kind: str) -> None:
    with pytest.raises(ModelError, match="cannot run in the torch engine") as caught:
        await both(tiny(kind, REFUSED[kind]))
    assert "\n" not in str(caught.value)


# -- the comparison at the start ------------------------------------------------------------------


async def start(settings: Settings, spec: ModelSpec) -> None:
    def load() -> PreTrainedModel:
        where = Path(spec.source)
        return load_weights(spec, where, dtype="float32", device="cpu", progress=print)

    await (await open_torch_engine(settings, spec, load, print)).close()


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models whose own attention was computed, one for each start."""
    seen, reference_of = list[str](), verification.reference_of

    def watched(model: PreTrainedModel) -> verification.Reference:
        seen.append(model.config.model_type)
        return reference_of(model)

    monkeypatch.setattr(torch_engine, "reference_of", watched)
    return seen


def tiny_settings(tmp_path: Path, **more: Any) -> Settings:
    files = tiny_models.llama(tmp_path / "model")
    return Settings(model=str(files), data_dir=tmp_path / "data", cache_gb=0.01, **more)


async def test_a_model_is_compared_at_its_first_start_alone(
    tmp_path: Path, compared: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny_settings(tmp_path)
    spec = find_model(settings)
    for _ in range(3):
        await start(settings, spec)
    assert len(compared) == 1
    await start(settings, replace(spec, context_length=256))
    assert len(compared) == 2
    tiny_models.llama(tmp_path / "model", seed=1)  # other weights
    await start(settings, spec)
    assert len(compared) == 3
    monkeypatch.setattr(verification, "version", lambda name: f"{name} of tomorrow")
    await start(settings, spec)
    assert len(compared) == 4


async def test_a_refused_model_is_refused_again(tmp_path: Path, compared: list[str]) -> None:
    settings = tiny_settings(tmp_path)
    files = Path(settings.model)
    tiny("diffllama", {}).save_pretrained(files)
    for _ in range(2):
        with pytest.raises(ModelError, match="cannot run in the torch engine"):
            await start(settings, find_model(settings))
    assert len(compared) == 2


async def test_a_model_starts_where_the_comparison_cannot_be_kept(
    tmp_path: Path, compared: list[str]
) -> None:
    settings = tiny_settings(tmp_path)
    settings.data_dir.mkdir()
    (settings.data_dir / "verified").write_text("a file where a folder should be")
    for _ in range(2):
        await start(settings, find_model(settings))
    assert len(compared) == 2
