"""Loading a model's weights: the one file of the core, beside the engine, that needs torch."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel

from core.errors import ModelError, in_brief
from core.models.adapters import check_base, merge, read_adapter
from core.models.catalogue import ModelSpec
from core.models.embedded import quiet_transformers
from core.models.files import check_weights, read_config

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_LOADING_ERRORS = (
    OSError,
    EOFError,
    ImportError,
    ValueError,
    RuntimeError,
    KeyError,
    TypeError,
    AttributeError,
    pickle.UnpicklingError,
    SafetensorError,
)


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
