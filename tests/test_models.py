"""The catalogue, finding a model by its name, and reading its files."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.dialogue import Dialogue
from core.dialogue.tokenizers.huggingface import HuggingFaceTokenizer
from core.errors import ModelError, OperatorError, UsageError
from core.models.catalogue import (
    CATALOGUE,
    estimate_memory,
    find_model,
    is_downloaded,
    model_directory,
)
from core.models.files import (
    cache_values_per_token,
    context_length,
    read_limits,
    weight_files,
)
from core.settings import Settings
from core.types import Sampling
from tests import dialogues, tiny_models


def settings(tmp_path: Path, **given: Any) -> Settings:
    return Settings(data_dir=tmp_path, **given)


# -- the catalogue ------------------------------------------------------------------------------


def test_the_family_is_sampled_as_its_cards_say() -> None:
    told = {name: (spec.sampling, spec.max_new_tokens) for name, spec in CATALOGUE.items()}
    assert told["rinna-ppo"] == (Sampling(temperature=0.7, repetition_penalty=1.1, top_k=50), 128)
    assert told["rinna-sft-v2"] == (
        Sampling(temperature=0.7, repetition_penalty=1.1, top_k=50),
        128,
    )
    assert told["rinna-sft"] == (Sampling(temperature=0.7, top_k=50), 128)
    assert told["rinna"] == (Sampling(temperature=0.8, top_k=50), 100)
    assert told["smollm2"][0] == Sampling(temperature=0.2, top_p=0.9)


def test_the_pretrained_model_goes_on_and_the_tuned_ones_talk() -> None:
    formats = {name: spec.format for name, spec in CATALOGUE.items()}
    assert formats == {
        "rinna-ppo": "rinna",
        "rinna-sft-v2": "rinna",
        "rinna-sft": "rinna",
        "rinna": "plain",
        "smollm2": "chat-template",
        "echo": "echo",
    }


def test_the_memory_of_rinna_s_models_follows_from_their_shape() -> None:
    shape = CATALOGUE["rinna-ppo"].shape
    assert shape is not None
    need = estimate_memory(shape, 2048, "auto")
    assert need.weights == 2 * 3_607_245_312
    assert need.cache == 405_504 * 2048
    assert estimate_memory(shape, 2048, "float32").weights == 4 * 3_607_245_312


# -- settings over a model's files --------------------------------------------------------------


def test_settings_override_the_catalogue(tmp_path: Path) -> None:
    spec = find_model(
        settings(tmp_path, model="rinna-ppo", temperature=0.9, max_new_tokens=300, top_k=5)
    )
    assert spec == replace(
        CATALOGUE["rinna-ppo"],
        sampling=Sampling(temperature=0.9, repetition_penalty=1.1, top_k=5),
        max_new_tokens=300,
    )


def test_the_echo_engine_has_the_echo_model(tmp_path: Path) -> None:
    assert find_model(settings(tmp_path, engine="echo")).name == "echo"
    spec = find_model(settings(tmp_path, engine="echo", context_length=100_000))
    assert spec.context_length == 100_000


def test_a_short_context_leaves_room_for_a_prompt(tmp_path: Path) -> None:
    spec = find_model(settings(tmp_path, model="rinna-ppo", context_length=100))
    assert 0 < spec.max_new_tokens < 100


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"model": "gpt-9"}, "gpt-9"),
        ({"model": "rinna-ppo", "context_length": 4096}, "reads 2048 tokens at most"),
        ({"model": "rinna-ppo", "max_new_tokens": 2048}, "no room"),
        ({"model": "mine", "models": {"mine": {}}}, "no source"),
        ({"model": "mine", "models": {"mine": {"source": "/nowhere"}}}, "no directory"),
        ({"model": "mine", "models": {"mine": {"source": "rinna", "heat": 1}}}, "heat"),
        ({"model": "mine", "models": {"mine": {"source": "rinna", "top_k": "x"}}}, "wrong type"),
        ({"model": "mine", "models": {"mine": {"source": "rinna", "format": "x"}}}, "may be"),
        (
            {"model": "mine", "models": {"mine": {"source": "rinna", "context_length": 0}}},
            "at least 1",
        ),
        ({"model": "some/model"}, "henji models pull some/model"),
    ],
)
def test_an_invalid_model_is_refused_in_one_sentence(
    tmp_path: Path, given: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(OperatorError, match=complaint) as caught:
        find_model(settings(tmp_path, **given))
    assert isinstance(caught.value, UsageError | ModelError)
    assert "\n" not in str(caught.value)


# -- models of one's own ------------------------------------------------------------------------


@pytest.mark.parametrize("tables", [{}, {"n" * 300: {"source": "/srv/" + "n" * 300}}])
def test_a_path_that_the_system_refuses_is_one_sentence(
    tmp_path: Path, tables: dict[str, dict[str, str]]
) -> None:
    with pytest.raises(ModelError, match=r"nnn cannot be read: File name too long"):
        find_model(settings(tmp_path, model="n" * 300, models=tables))


def test_a_table_overrides_a_model_of_the_catalogue(tmp_path: Path) -> None:
    table = {"source": "rinna-ppo", "temperature": 0.9, "repetition_penalty": 1.0}
    spec = find_model(settings(tmp_path, model="warm", models={"warm": table}))
    assert spec == replace(
        CATALOGUE["rinna-ppo"], name="warm", sampling=Sampling(temperature=0.9, top_k=50)
    )


def test_a_table_names_the_format_of_files_that_do_not_say(tmp_path: Path) -> None:
    table = {"source": str(dialogues.rinna_files()), "format": "rinna", "max_new_tokens": 64}
    spec = find_model(settings(tmp_path, model="own", models={"own": table}))
    assert (spec.format, spec.tokenizer, spec.context_length) == ("rinna", "sentencepiece", 2048)
    assert spec.max_new_tokens == 64
    assert model_directory(spec, settings(tmp_path), print) == dialogues.rinna_files()


def test_a_directory_s_files_determine_its_model(tmp_path: Path) -> None:
    directory = tiny_models.llama(tmp_path / "llama", context_length=512)
    said = {"temperature": 0.6, "top_p": 0.95, "eos_token_id": [4, 2], "do_sample": True}
    (directory / "generation_config.json").write_text(json.dumps(said))
    spec = find_model(settings(tmp_path, model=str(directory)))
    assert (spec.format, spec.tokenizer) == ("chat-template", "transformers")
    assert spec.context_length == 512
    assert spec.sampling == Sampling(temperature=0.6, top_p=0.95, top_k=50)
    assert spec.shape is not None
    assert spec.shape.cache_values == 2 * 2 * 2 * 8  # layers, key-value heads, numbers a head
    assert spec.shape.parameters > 500 * 32
    assert is_downloaded(spec, settings(tmp_path))
    assert Dialogue.load(spec, directory).stop_ids >= {2, 4}


def test_of_a_vision_model_the_language_part_is_read(tmp_path: Path) -> None:
    directory = tiny_models.llama(tmp_path / "llama", context_length=512)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({"text_config": config}))
    spec = find_model(settings(tmp_path, model=str(directory)))
    assert spec.context_length == 512
    assert spec.shape is not None
    assert spec.shape.cache_values == 2 * 2 * 2 * 8


def test_pickled_weights_are_counted_in_the_precision_that_the_config_names(
    tmp_path: Path,
) -> None:
    directory = tiny_models.rinna(tmp_path / "model")
    config = json.loads((directory / "config.json").read_text())
    counted = {}
    for dtype in ("float16", "float32"):
        (directory / "config.json").write_text(json.dumps({**config, "torch_dtype": dtype}))
        shape = find_model(settings(tmp_path, model=str(directory))).shape
        counted[dtype] = shape.parameters if shape else 0
    assert 0 < counted["float32"] == counted["float16"] // 2


def test_a_directory_may_be_named_from_the_person_s_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tiny_models.rinna(tmp_path / "house")
    monkeypatch.setenv("HOME", str(tmp_path))
    spec = find_model(settings(tmp_path, model="~/house"))
    assert model_directory(spec, settings(tmp_path), print) == directory


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"max_position_embeddings": 0}, r"config\.json says max_position_embeddings = 0"),
        ({"max_position_embeddings": None}, "does not say how many tokens"),
    ],
)
def test_a_config_that_reads_nothing_is_named(
    tmp_path: Path, change: dict[str, Any], complaint: str
) -> None:
    directory = tiny_models.rinna(tmp_path / "model")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ModelError, match=complaint):
        find_model(settings(tmp_path, model=str(directory)))


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_config_that_is_broken_is_named(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"config\.json"):
        find_model(settings(tmp_path, model=str(tmp_path)))


def test_safetensors_that_are_no_safetensors_are_named(tmp_path: Path) -> None:
    directory = tiny_models.llama(tmp_path / "llama")
    (directory / "model.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(ModelError, match=r"model\.safetensors is not a whole"):
        find_model(settings(tmp_path, model=str(directory)))


def test_a_bot_s_process_can_find_models_without_torch() -> None:
    code = (
        "import sys; from core.models.catalogue import find_model; "
        "from core.settings import Settings; "
        "import bots.cli.models; find_model(Settings(model='rinna-ppo')); "
        "print([m for m in ('torch', 'transformers', 'sentencepiece') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": "hot"}, {"temperature": float("inf")}, {"top_k": 1.5}, {"top_k": -2},
        {"top_p": 0}, {"repetition_penalty": [1]}, {"repetition_penalty": float("nan")},
        {"temperature": 10**400}, {"repetition_penalty": 10**30},
    ],
)  # fmt: skip
def test_a_generation_config_with_values_that_cannot_be_meant_is_named(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    directory = tiny_models.llama(tmp_path / "llama")
    (directory / "generation_config.json").write_text(json.dumps(wrong))
    with pytest.raises(ModelError, match=r"generation_config\.json says \w+ = .*cannot be meant"):
        find_model(settings(tmp_path, model=str(directory)))


@pytest.mark.parametrize("top_k", [-1, 10**30])
def test_what_others_write_for_no_limit_and_no_end_is_understood(
    tmp_path: Path, top_k: int
) -> None:
    directory = tiny_models.llama(tmp_path / "llama")
    said = {"top_k": top_k, "eos_token_id": -1}
    (directory / "generation_config.json").write_text(json.dumps(said))
    spec = find_model(settings(tmp_path, model=str(directory)))
    assert spec.sampling.top_k == 0
    assert min(Dialogue.load(spec, directory).stop_ids) > 0


@pytest.mark.parametrize(
    "odd",
    [
        {"num_key_value_heads": "x"}, {"num_key_value_heads": [1]}, {"head_dim": float("nan")},
        {"num_attention_heads": 0, "head_dim": None}, {"head_dim": "16"},
    ],
)  # fmt: skip
def test_a_model_whose_cache_cannot_be_counted_has_no_size(odd: dict[str, Any]) -> None:
    known = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32, "head_dim": 16}
    assert cache_values_per_token(known) == 128
    assert cache_values_per_token({**known, **odd}) in (None, 0, 128)


def test_an_end_that_the_weights_have_no_row_for_is_named(tmp_path: Path) -> None:
    directory = tiny_models.llama(tmp_path / "llama")
    (directory / "generation_config.json").write_text('{"eos_token_id": [4, 9999]}')
    spec = find_model(settings(tmp_path, model=str(directory)))
    with pytest.raises(ModelError, match=r"config\.json says vocab_size = .* the id 9999 ends"):
        Dialogue.load(spec, directory)


def test_a_context_length_missing_from_all_files_comes_from_the_settings(tmp_path: Path) -> None:
    directory = tiny_models.llama(tmp_path / "llama")
    config = json.loads((directory / "config.json").read_text())
    del config["max_position_embeddings"]
    config["model_type"] = "unheard"
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="set context_length"):
        find_model(settings(tmp_path, model=str(directory)))
    assert (
        find_model(settings(tmp_path, model=str(directory), context_length=77)).context_length == 77
    )
    own = {"own": {"source": str(directory), "context_length": 99}}
    assert find_model(settings(tmp_path, model="own", models=own)).context_length == 99


@pytest.mark.parametrize(
    ("config", "length", "values"),
    [
        (
            {"model_type": "falcon", "hidden_size": 64, "num_attention_heads": 4},
            2048,
            2 * 32 * 16,
        ),
        ({"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4}, 1024, 2 * 2 * 64),
        (
            {
                "model_type": "gemma3",
                "text_config": {"model_type": "gemma3_text", "hidden_size": 64, "head_dim": 16},
            },
            131072,
            2 * 26 * 4 * 16,
        ),
    ],
    ids=["defaults", "other names", "nested"],
)
def test_limits_are_those_that_transformers_takes(
    tmp_path: Path, config: dict[str, Any], length: int, values: int
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert context_length(tmp_path) == length
    assert cache_values_per_token(read_limits(tmp_path)) == values
    if "text_config" not in config:
        assert context_length(tmp_path, known=77) == 77  # the settings know better than a default


def test_a_setting_helps_where_a_config_says_nonsense(tmp_path: Path) -> None:
    said = {"model_type": "llama", "max_position_embeddings": 1}
    (tmp_path / "config.json").write_text(json.dumps(said))
    assert context_length(tmp_path, known=77) == 77
    with pytest.raises(ModelError, match="reads nothing"):
        context_length(tmp_path)


def test_the_end_tokens_may_be_only_in_the_config(tmp_path: Path) -> None:
    directory = tiny_models.llama(tmp_path / "llama")
    (directory / "generation_config.json").unlink(missing_ok=True)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "eos_token_id": [7, 9]}))
    assert {7, 9} <= HuggingFaceTokenizer.load(directory).stop_ids
    (directory / "config.json").write_text(json.dumps({**config, "eos_token_id": "</s>"}))
    with pytest.raises(ModelError, match="eos_token_id"):
        HuggingFaceTokenizer.load(directory)


def test_a_stale_index_beside_a_whole_file_is_not_read(tmp_path: Path) -> None:
    directory = tiny_models.llama(tmp_path / "llama")
    index = {"weight_map": {"model.embed_tokens.weight": "model-00001-of-00002.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    assert weight_files(directory) == [directory / "model.safetensors"]
