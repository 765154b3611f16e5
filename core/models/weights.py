"""Loading a model's weights, with a LoRA adapter merged into them; peft is not needed for it.

An adapter is a folder in peft's layout: ``adapter_config.json`` and ``adapter_model.safetensors``.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from core.errors import ModelError, in_brief
from core.models.catalogue import EMBEDDED, ModelSpec
from core.models.files import check_weights, is_hub_id, read_config, read_json, weights_fingerprint
from core.models.gguf import quiet_transformers
from core.models.manifest import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_manifest

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_LOADING_ERRORS = (
    OSError, EOFError, ImportError, ValueError, RuntimeError, KeyError, TypeError, AttributeError,
    pickle.UnpicklingError, SafetensorError,
)  # fmt: skip


def load_weights(
    spec: ModelSpec,
    directory: Path,
    *,
    dtype: str,
    device: str,
    progress: Callable[[str], None],
) -> PreTrainedModel:
    """A model ready to generate, on its device, in its precision, in evaluation mode.

    `dtype` and `device` are as in the settings, with ``auto``. Raises ModelError, one sentence that
    names the file, where the files are not whole or do not fit together.
    """
    place = choose_device(device)
    precision = choose_dtype(dtype, place)
    files = check_weights(directory)
    _check_precision(directory)
    size = sum(path.stat().st_size for path in files)
    progress(f"loading {spec.name} ({size / 1e9:.1f} GB) as {str(precision)[6:]} on {place}")
    model = _read(directory, files, precision)
    if spec.adapter:
        _merge_adapter(model, spec, directory)
        progress(f"the adapter {spec.adapter} is merged into it")
    progress(f"{spec.name} is loaded")
    model.to(place)  # type: ignore[arg-type]  # its stub lacks devices
    model.train(mode=False)
    return model


def _check_precision(directory: Path) -> None:
    """Raise ModelError for weights that need another library."""
    quantized = read_config(directory).get("quantization_config")
    if isinstance(quantized, dict):
        method = quantized.get("quant_method", "unknown")
        raise ModelError(
            f"{directory / 'config.json'} says that the weights are quantized ({method}), which "
            "the torch engine does not load; a vLLM server does, through HENJI_ENGINE=openai"
        )


def _merge_adapter(model: PreTrainedModel, spec: ModelSpec, directory: Path) -> None:
    adapter = read_adapter(Path(spec.adapter or "").expanduser())
    check_base(adapter, spec, directory)
    merge(model, adapter)


def _read(directory: Path, files: list[Path], precision: torch.dtype) -> PreTrainedModel:
    where = directory / ", ".join(path.name for path in files)
    try:
        with quiet_transformers():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                directory,
                dtype=precision,
                local_files_only=True,
                trust_remote_code=False,  # where it is not said, it asks on the terminal
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are told below
            )
    except _LOADING_ERRORS as error:
        raise ModelError(
            f"the weights {where} are cut short, or not such weights: {in_brief(error)}"
        ) from None
    model, info = loaded
    if mismatched := sorted(info["mismatched_keys"]):
        name, there, wanted = mismatched[0]
        raise ModelError(
            f"the weights {where} have {name} of {tuple(there)}, "
            f"where {directory / 'config.json'} says {tuple(wanted)}"
        )
    if missing := sorted(info["missing_keys"]):
        raise ModelError(f"the weights {where} lack {len(missing)} tensors, such as {missing[0]}")
    return cast("PreTrainedModel", model)


def choose_device(device: str) -> torch.device:
    """The device that a setting names; ``auto`` is the GPU where there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # unknown to torch, or not on this machine
        raise ModelError(
            f"the setting device is {device}, which fails: {in_brief(error)}"
        ) from None


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The precision that a setting names; ``auto`` is what is fast on the device and exact enough.

    bfloat16 on a GPU that has it, else float16, for GPUs without bfloat16 compute it slowly; on a
    CPU bfloat16 where it has instructions for it (AMX, AVX512-BF16), else float32.
    """
    if dtype != "auto":
        return _DTYPES[dtype]
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    able = torch.cpu.get_capabilities()
    return torch.bfloat16 if able.get("amx_bf16") or able.get("avx512_bf16") else torch.float32


# -- adapters -------------------------------------------------------------------------------------


_PREFIX = "base_model.model."
_MORE = {
    "use_dora": "a DoRA adapter",
    "use_rslora": "a rank-stabilized adapter",
    "modules_to_save": "an adapter with whole modules saved in it",
    "trainable_token_indices": "an adapter with token embeddings in it",
    "rank_pattern": "an adapter with a separate rank for some layers",
    "alpha_pattern": "an adapter with a separate alpha for some layers",
    "fan_in_fan_out": "an adapter for transposed weights",
    "lora_bias": "an adapter with biases",
    "layer_replication": "an adapter that repeats layers",
    "alora_invocation_tokens": "an activated adapter",
}
"""Keys of peft's configuration that need more than ``W + B A alpha / r`` -> their meaning."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter's configuration."""

    directory: Path
    base: str
    """The model it was trained on: a hub id, or what peft was given."""
    revision: str | None
    rank: int
    alpha: float

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


def read_adapter(directory: Path) -> Adapter:
    """The adapter in a folder; ModelError for one that cannot be merged."""
    if not (directory / ADAPTER_CONFIG).is_file():
        raise ModelError(f"{directory} is no adapter: it has no {ADAPTER_CONFIG}")
    config = read_json(directory / ADAPTER_CONFIG)
    if config.get("peft_type") != "LORA":
        raise ModelError(f"{directory} is a {config.get('peft_type')} adapter, and LoRA is known")
    more = [f"{kind} ({key})" for key, kind in _MORE.items() if config.get(key)]
    if config.get("bias", "none") != "none":
        more.append("an adapter with biases (bias)")
    if more:
        raise ModelError(f"{directory} is {more[0]}, which cannot be merged")
    try:
        rank, alpha = int(config["r"]), float(config["lora_alpha"])
    except (KeyError, TypeError, ValueError):
        rank, alpha = 0, 0.0
    if rank < 1:
        raise ModelError(f"{directory / ADAPTER_CONFIG} has no rank (r) or no lora_alpha")
    base = str(config.get("base_model_name_or_path") or "")
    return Adapter(directory, base, config.get("revision"), rank, alpha)


def check_base(adapter: Adapter, spec: ModelSpec, directory: Path) -> None:
    """ModelError if an adapter was trained on another model than `spec`, whose files are in
    `directory`.

    Names are compared if both are names; files, if the adapter's manifest has their digests.
    """
    if _is_name(adapter.base) and _is_name(spec.source) and adapter.base != spec.source:
        raise ModelError(
            f"the adapter {adapter.directory} was trained on {adapter.base}, "
            f"and {spec.name} is {spec.source}"
        )
    if adapter.revision and spec.revision and adapter.revision != spec.revision:
        raise ModelError(
            f"the adapter {adapter.directory} was trained on revision {adapter.revision} of "
            f"{adapter.base}, and {spec.name} is revision {spec.revision}"
        )
    manifest = read_manifest(adapter.directory)
    # the embedded model is converted on each machine: its files may differ, and its weights do not
    if manifest is None or spec.source == EMBEDDED:
        return
    if manifest.base_weights != weights_fingerprint(directory):
        raise ModelError(
            f"the adapter {adapter.directory} was trained on other weights of "
            f"{manifest.base or 'a model'} than those in {directory}"
        )


def _is_name(source: str) -> bool:
    return source == EMBEDDED or (is_hub_id(source) and not Path(source).is_dir())


@dataclass(frozen=True, slots=True)
class _Change:
    """An adapter's change of one layer."""

    layer: nn.Linear
    down: Tensor
    """(rank, in)"""
    up: Tensor
    """(out, rank)"""


@torch.no_grad()
def merge(model: nn.Module, adapter: Adapter) -> None:
    """Add an adapter to the weights of its base, in place. ModelError, before anything is changed,
    where they do not fit."""
    for change in list(_changes(model, adapter)):
        weight = change.layer.weight
        weight.copy_(merged(weight, change.down, change.up, adapter.scale))


def merged(weight: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """`weight` + `up` `down` `scale`, added in float32 and cast once."""
    delta = up.to(weight.device, torch.float32) @ down.to(weight.device, torch.float32)
    return (weight.detach().float() + delta * scale).to(weight.dtype)


def _changes(model: nn.Module, adapter: Adapter) -> Iterator[_Change]:
    halves = read_halves(adapter)
    modules = dict(model.named_modules())
    for name in sorted({key.rpartition(".lora_")[0] for key in halves}):
        down, up = _pair(adapter, halves, name)
        layer = modules.get(name)
        if not isinstance(layer, nn.Linear):
            raise ModelError(f"{adapter.directory} changes {name}, and the model has no such layer")
        there, wanted = (up.shape[0], down.shape[1]), tuple(layer.weight.shape)
        if there != wanted:
            raise ModelError(
                f"{adapter.directory} changes {name} of {there}, and the model's is of {wanted}"
            )
        yield _Change(layer, down, up)


def read_halves(adapter: Adapter) -> dict[str, Tensor]:
    """The two factors of each layer, as ``LAYER.lora_A.weight`` and ``LAYER.lora_B.weight``."""
    path = adapter.directory / ADAPTER_WEIGHTS
    try:
        with safe_open(path, framework="pt") as file:
            found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError) as error:
        raise ModelError(f"the adapter {path} cannot be read: {in_brief(error)}") from None
    if foreign := next((key for key in found if not _is_half(key)), None):
        raise ModelError(f"{path} holds {foreign}, which is no factor of a LoRA layer")
    if not found:
        raise ModelError(f"{path} changes no layer")
    return {key.removeprefix(_PREFIX): value for key, value in found.items()}


def _is_half(key: str) -> bool:
    return key.startswith(_PREFIX) and key.endswith((".lora_A.weight", ".lora_B.weight"))


def _pair(adapter: Adapter, halves: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    path = adapter.directory / ADAPTER_WEIGHTS
    try:
        down, up = halves[f"{name}.lora_A.weight"], halves[f"{name}.lora_B.weight"]
    except KeyError:
        raise ModelError(f"{path} holds one factor of {name} without the other") from None
    if down.ndim != 2 or up.ndim != 2 or not down.shape[0] == up.shape[1] == adapter.rank:
        raise ModelError(f"{path} changes {name} with another rank than {adapter.rank}")
    return down, up
