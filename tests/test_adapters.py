"""LoRA adapters that others' tools made, merged into a model's weights as it is loaded."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from core.errors import ModelError
from core.models.catalogue import CATALOGUE, ModelSpec, find_named, is_downloaded
from core.models.files import weights_fingerprint
from core.models.manifest import Manifest, adapters_with, read_manifest
from core.models.weights import check_base, load_weights, merged, read_adapter
from core.settings import Settings
from tests import tiny_models

IDS = torch.tensor([[300, 12, 77, 401, 5, 263]])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.rinna(tmp_path_factory.mktemp("base"))


def spec_of(base: Path, adapter: Path | None = None) -> ModelSpec:
    rinna = CATALOGUE["rinna-ppo"]
    return replace(rinna, source=str(base), adapter=str(adapter) if adapter else None)


def load(spec: ModelSpec, dtype: str = "float32") -> PreTrainedModel:
    return load_weights(
        spec, Path(spec.source), dtype=dtype, device="cpu", progress=lambda line: None
    )


def trained(base: Path, directory: Path, **options: Any) -> peft.PeftModel:
    """An adapter of peft's own on the base, with random numbers in it, and saved."""
    torch.manual_seed(7)
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **options})
    model = peft.get_peft_model(load(spec_of(base)), config)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    model.save_pretrained(str(directory))
    return model


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(IDS).logits
    return found


def test_an_adapter_of_peft_changes_the_model_as_peft_would(base: Path, tmp_path: Path) -> None:
    theirs = trained(base, tmp_path)
    ours = load(spec_of(base, tmp_path))
    assert (logits(ours) - logits(load(spec_of(base)))).abs().max() > 0.1
    assert (logits(ours) - logits(theirs)).abs().max() < 1e-4
    assert torch.equal(logits(ours), logits(theirs.merge_and_unload()))


def test_the_sum_is_made_in_float32_and_rounded_once() -> None:
    weight = torch.full((1, 1), 1.0, dtype=torch.bfloat16)
    halves = torch.tensor([[0.001], [0.001]]).T, torch.ones(1, 2).T
    down, up = halves[0].T.contiguous(), halves[1].T.contiguous()
    # each thousandth alone is less than half a step of bfloat16 at 1, and eight of them are not
    assert merged(weight, down, up, 8.0).item() == torch.tensor(1.016).bfloat16().item()
    assert merged(weight, down, up, 0.5).item() == 1.0


def test_a_table_of_the_settings_names_the_adapter_and_the_list_shows_it(
    base: Path, tmp_path: Path
) -> None:
    trained(base, tmp_path)
    table = {"source": str(base), "format": "rinna", "adapter": str(tmp_path)}
    settings = Settings(models={"ours": table})
    spec = find_named("ours", settings)
    assert spec.adapter == str(tmp_path)
    assert is_downloaded(spec, settings)
    shutil.rmtree(tmp_path)
    assert not is_downloaded(spec, settings)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"use_dora": True}, "a DoRA adapter"),
        ({"use_rslora": True}, "a rank-stabilized adapter"),
        ({"modules_to_save": ["embed_out"]}, "whole modules"),
        ({"bias": "all"}, "with biases"),
        ({"rank_pattern": {"dense": 2}}, "a separate rank for some layers"),
    ],
)
def test_an_adapter_that_is_more_than_lora_is_refused(
    base: Path, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    trained(base, tmp_path, **options)
    with pytest.raises(ModelError, match=said):
        load(spec_of(base, tmp_path))


def test_a_folder_that_is_no_adapter_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no adapter"):
        load(spec_of(base, tmp_path))
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "IA3"}')
    with pytest.raises(ModelError, match="IA3"):
        load(spec_of(base, tmp_path))
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(ModelError, match="no rank"):
        read_adapter(tmp_path)


def test_an_adapter_of_another_shape_changes_nothing_and_is_refused(
    base: Path, tmp_path: Path
) -> None:
    trained(base, tmp_path)
    wider = tiny_models.rinna(tmp_path / "wider", hidden=64)
    with pytest.raises(ModelError, match=r"of \(32, 32\), and the model's is of \(64, 64\)"):
        load(spec_of(wider, tmp_path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda halves: halves.pop(next(iter(halves))), "one factor"),
        (lambda halves: halves.update(extra=torch.ones(1)), "no factor of a LoRA layer"),
        (lambda halves: halves.clear(), "changes no layer"),
    ],
)
def test_incomplete_weights_are_refused(base: Path, tmp_path: Path, change: Any, said: str) -> None:
    trained(base, tmp_path)
    halves = load_file(tmp_path / "adapter_model.safetensors")
    change(halves)
    save_file(halves, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=said):
        load(spec_of(base, tmp_path))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"cut short")
    with pytest.raises(ModelError, match="cannot be read"):
        load(spec_of(base, tmp_path))


def test_an_adapter_of_another_model_of_the_same_shape_is_refused(
    base: Path, tmp_path: Path
) -> None:
    trained(base, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "rinna/japanese-gpt-neox-3.6b-instruction-sft"
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    load(spec_of(base, tmp_path))  # a folder may be a copy of anything
    with pytest.raises(ModelError, match="was trained on rinna/japanese-gpt-neox-"):
        check_base(read_adapter(tmp_path), CATALOGUE["rinna-ppo"], base)


def test_a_manifest_tells_other_weights_under_the_same_name(base: Path, tmp_path: Path) -> None:
    trained(base, tmp_path)
    manifest = Manifest(
        method="dpo",
        model="ours",
        base=str(base),
        base_weights=weights_fingerprint(base),
        revision=None,
        fingerprint="f",
        data="d",
        examples=("e",),
        words=("hello", "there"),
    )
    manifest.write(tmp_path)
    assert read_manifest(tmp_path) == manifest
    load(spec_of(base, tmp_path))
    other = tiny_models.rinna(tmp_path / "other", seed=1)
    with pytest.raises(ModelError, match="trained on other weights"):
        load(spec_of(other, tmp_path))


def test_adapters_trained_on_a_text_are_found_by_its_digest(tmp_path: Path) -> None:
    for name, words in (("one", ("a", "b")), ("two", ("c",))):
        (tmp_path / name).mkdir()
        Manifest("dpo", "", "", "", None, "", "", (), words).write(tmp_path / name)
    (tmp_path / "foreign").mkdir()
    folders = [tmp_path / name for name in ("one", "two", "foreign")]
    assert list(adapters_with(folders, ["b", "x"])) == [tmp_path / "one"]
    assert list(adapters_with(folders, ["c", "a"])) == [tmp_path / "one", tmp_path / "two"]
