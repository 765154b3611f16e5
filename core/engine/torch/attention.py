"""The attention that transformers' models call while they run inside the engine.

The model sees one row of ids, (1, tokens): the chunks of all sequences of the step, one after the
other. The `AttentionStep`, which travels through the model's keyword arguments, knows the sequence
of each id and the place of its keys and values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from core.errors import ModelError

_LIBRARY = cast("Any", torch.library.Library)("henji", "DEF")


def define(
    schema: str, compute: Callable[..., Tensor], shape: Callable[..., Tensor] | None = None
) -> None:
    """Add an operation to `torch.ops.henji`.

    `shape` gives the compiler an empty tensor like the result. The schema marks the arguments that
    the operation writes to.
    """
    _LIBRARY.define(schema)
    for device, function in (("CUDA", compute), ("CPU", compute), ("Meta", shape)):
        if function:
            _LIBRARY.impl(schema.partition("(")[0], function, device)


ATTENTION_NAME = "henji"


class AttentionStep(Protocol):
    """One step's keys and values, layer after layer."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Keep `key` and `value`, (1, key heads, tokens, size), and attend with `query`,
        (1, heads, tokens, size), to them and to all before them: (1, tokens, heads, size).
        """


@dataclass(frozen=True, slots=True)
class CacheShape:
    """The size of one id in the cache."""

    layers: int
    heads: int
    """Of keys and values."""
    size: int
    """Of one head."""
    dtype: torch.dtype

    @classmethod
    def of(cls, model: PreTrainedModel) -> CacheShape:
        config = model.config.get_text_config()
        heads = config.num_attention_heads
        return cls(
            layers=config.num_hidden_layers,
            heads=_key_heads(config) or heads,
            size=getattr(config, "head_dim", None) or config.hidden_size // heads,
            dtype=_cache_dtype(model),
        )

    @property
    def bytes_per_token(self) -> int:
        return 2 * self.layers * self.heads * self.size * self.dtype.itemsize


def _key_heads(config: PretrainedConfig) -> int | None:
    """Heads of keys and values; None: as many as of queries."""
    if getattr(config, "multi_query", False) and not getattr(config, "new_decoder_architecture", 0):
        return 1
    for name in ("num_key_value_heads", "num_kv_heads"):
        if found := getattr(config, name, None):
            return int(found)
    return None


def _cache_dtype(model: PreTrainedModel) -> torch.dtype:
    # the CPU kernel takes no float16
    slow = model.device.type == "cpu" and model.dtype == torch.float16
    return torch.float32 if slow else model.dtype


_ROTATIONS_BY_LENGTH = ("dynamic", "longrope")
"""Kinds of rotations that depend on the longest sequence of a step."""


def check_supported(model: PreTrainedModel, context_length: int) -> None:
    """Raise ModelError where a model's configuration asks for something that is not exact here."""
    if not model._supports_attention_backend:
        kind = type(model).__name__
        raise ModelError(f"{kind} cannot run in the torch engine: its attention is unknown")
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None)
    reads = min(context_length, config.max_position_embeddings)
    if kinds != {"full_attention"} or (window and window < reads):
        raise ModelError(f"{config.model_type} cannot run in the torch engine: its window slides")
    rotations = getattr(config, "rope_parameters", None) or {}
    original = rotations.get("original_max_position_embeddings") or config.max_position_embeddings
    if rotations.get("rope_type") in _ROTATIONS_BY_LENGTH and context_length > original:
        raise ModelError(
            f"{config.model_type} cannot run in the torch engine with {context_length} tokens: its "
            f"rotations depend on the longest text of a step. context_length = {original} is exact"
        )


def use_engine_attention(model: PreTrainedModel) -> None:
    """Make the model attend through the engine."""
    model.set_attn_implementation(ATTENTION_NAME)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    scaling: float,
    step: AttentionStep,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    for extra in ("softcap", "s_aux", "position_bias"):
        if kwargs.get(extra) is not None:
            raise ModelError(f"{type(module).__name__} asks for {extra}, which is not supported")
    return step.attend(cast("int", module.layer_idx), query, key, value, scaling), None


ALL_ATTENTION_FUNCTIONS.register(ATTENTION_NAME, _attend)
