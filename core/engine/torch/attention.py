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
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from core.engine.torch.block_manager import ALL, SIZE
from core.errors import ModelError, in_brief
from core.models.files import HEADS, LAYER_NAMES, PARTIAL_LAYERS, key_heads, unserved_layers

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
FALCON = "falcon"
"""The only type that is served without transformers' attention interface."""


@dataclass(frozen=True, slots=True)
class Attention:
    """A layer's scale, cap and sinks of attention scores."""

    scale: float
    cap: float = 0.0
    """Scores are squashed to between -`cap` and `cap`; 0: no limit."""
    sinks: Tensor | None = None
    """(heads,): attention sinks: each head has one more score, without a value."""


class AttentionStep(Protocol):
    """One step's keys and values, layer after layer."""

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, attention: Attention
    ) -> Tensor:
        """Keep `key` and `value`, (1, key heads, tokens, size), and attend with `query`,
        (1, heads, tokens, size), to them and to those before them: (1, tokens, heads, size).

        The sizes of keys and of values may differ; the result has that of values.
        """


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """Layers that share the blocks of a sequence."""

    layers: tuple[int, ...]
    window: int
    """The most ids that each layer attends to. Blocks before them are given back."""


@dataclass(frozen=True, slots=True)
class CacheShape:
    """The size of one id in the cache, and how long each layer needs it."""

    layers: int
    heads: int
    """Key heads: as many as value heads."""
    size: int
    """Of one head: the larger of a key's and a value's."""
    dtype: torch.dtype
    windows: tuple[int, ...] = ()
    """The ids that each layer attends to, the newest included; none: all layers attend to all."""
    context_length: int = ALL

    @classmethod
    def of(cls, model: PreTrainedModel, context_length: int = ALL) -> CacheShape:
        config = model.config.get_text_config()
        heads = config.num_attention_heads
        return cls(
            layers=config.num_hidden_layers,
            heads=key_heads({name: getattr(config, name, None) for name in HEADS}) or heads,
            size=_head_size(config),
            dtype=_cache_dtype(model),
            windows=windows_of(config, context_length),
            context_length=context_length,
        )

    @property
    def groups(self) -> list[LayerGroup]:
        """The layers by their windows, divided so that a long sequence takes the least memory."""
        return _groups(self.windows or (ALL,) * self.layers, self.context_length)

    @property
    def depth(self) -> int:
        """The layers of a block. A group with fewer leaves the rest unused."""
        return _depth(self.groups)

    @property
    def places(self) -> list[tuple[int, int]]:
        """Of each layer, the number of its group, and its place in the group's blocks."""
        found = {
            layer: (number, place)
            for number, group in enumerate(self.groups)
            for place, layer in enumerate(group.layers)
        }
        return [found[layer] for layer in range(self.layers)]

    @property
    def bytes_per_token(self) -> int:
        """The bytes of an id in all groups."""
        return len(self.groups) * self.bytes_per_block // SIZE

    @property
    def bytes_per_block(self) -> int:
        return 2 * self.depth * self.heads * SIZE * self.size * self.dtype.itemsize


_MOST_GROUPS = 8


def _groups(windows: tuple[int, ...], context_length: int) -> list[LayerGroup]:
    divisions = [
        [LayerGroup(tuple(range(len(windows))), max(windows))],
        *(_divided(windows, depth) for depth in range(len(windows), 0, -1)),
    ]

    def memory(groups: list[LayerGroup]) -> int:
        return _depth(groups) * sum(min(one.window, context_length) for one in groups)

    return min((one for one in divisions if len(one) <= _MOST_GROUPS), key=memory)


def _divided(windows: tuple[int, ...], depth: int) -> list[LayerGroup]:
    """Groups of at most `depth` layers with the same window."""
    alike: dict[int, list[int]] = {}
    for layer, window in enumerate(windows):
        alike.setdefault(window, []).append(layer)
    return [
        LayerGroup(tuple(layers[at : at + depth]), window)
        for window, layers in alike.items()
        for at in range(0, len(layers), depth)
    ]


def _depth(groups: list[LayerGroup]) -> int:
    return max(len(group.layers) for group in groups)


def _head_size(config: PretrainedConfig) -> int:
    """Models with latent attention have keys and values of two sizes."""
    parts = (getattr(config, name, None) for name in ("qk_nope_head_dim", "qk_rope_head_dim"))
    if len(key := [int(part) for part in parts if part]) == 2:
        return max(sum(key), int(getattr(config, "v_head_dim", 0)))
    usual = config.hidden_size // config.num_attention_heads
    return int(getattr(config, "head_dim", None) or usual)


def _cache_dtype(model: PreTrainedModel) -> torch.dtype:
    # the CPU kernel takes no float16
    slow = model.device.type == "cpu" and model.dtype == torch.float16
    return torch.float32 if slow else model.dtype


def windows_of(config: PretrainedConfig, context_length: int) -> tuple[int, ...]:
    """See `CacheShape`. A window as long as the context in use does not count."""
    kinds = getattr(config, "layer_types", None)
    if not kinds:
        kinds = ["sliding_attention"] * config.num_hidden_layers
    lengths = (getattr(config, PARTIAL_LAYERS.get(kind, ""), None) for kind in kinds)
    windows = tuple(one if one and one < context_length else ALL for one in lengths)
    return windows if min(windows, default=ALL) < ALL else ()


def supported_shape(model: PreTrainedModel, context_length: int) -> CacheShape:
    """Check that the engine can compute a model exactly, fix its rotations, and return its shape in
    the cache.

    ModelError if its configuration needs another attention, or lacks sizes.
    """
    try:
        _check_supported(model, context_length)
        fix_rotations(model, context_length)
        return CacheShape.of(model, context_length)
    except ModelError:
        raise
    except Exception as error:  # configurations are of many kinds
        raise refused(model, f"its configuration is another ({in_brief(error)})") from error


def _check_supported(model: PreTrainedModel, context_length: int) -> None:
    config = model.config.get_text_config()
    if not (model._supports_attention_backend or config.model_type == FALCON):
        raise refused(model, "its attention cannot be replaced")
    layers = {name: getattr(config, name, None) for name in LAYER_NAMES}
    if reason := unserved_layers(layers, context_length):
        raise refused(model, reason)


def refused(model: PreTrainedModel, reason: str) -> ModelError:
    """The error for a model that the engine cannot compute exactly."""
    return ModelError(
        f"{type(model).__name__} cannot run in the torch engine: {reason}. "
        "A vLLM server would serve it, through HENJI_ENGINE=openai"
    )


# -- rotations ------------------------------------------------------------------------------------


def fix_rotations(model: PreTrainedModel, context_length: int) -> None:
    """Make rotations depend on the context in use, and not on the longest text of a step.

    transformers chooses the factors of `longrope` and `dynamic` at each call, so that a longer
    sequence in the batch would change the rotation of the others. vLLM fixes them the same way.
    """
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        if isinstance(kinds, str) and _is_by_length(kinds):
            _fix(module, kinds, None, "", context_length)
            module.rope_type = "fixed"  # type: ignore[assignment]  # no tensor
        elif isinstance(kinds, dict):
            for layers, kind in kinds.items():
                if _is_by_length(kind):
                    _fix(module, kind, layers, f"{layers}_", context_length)
                    kinds[layers] = "fixed"


def _is_by_length(kind: object) -> bool:
    return isinstance(kind, str) and (kind == "longrope" or "dynamic" in kind)


def _fix(
    module: nn.Module, kind: str, layers: str | None, prefix: str, context_length: int
) -> None:
    before = cast("Tensor", getattr(module, f"{prefix}inv_freq"))
    compute: Any = ROPE_INIT_FUNCTIONS[kind]
    fixed, _ = compute(module.config, before.device, seq_len=context_length, layer_type=layers)
    module.register_buffer(f"{prefix}inv_freq", fixed.to(before), persistent=False)


# -- in transformers ------------------------------------------------------------------------------


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
    step: AttentionStep | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    if step is None:
        raise ModelError("its layers do not pass the engine's step on to their attention")
    if kwargs.get("position_bias") is not None:
        raise ModelError(f"{type(module).__name__} asks for a position bias")
    attention = Attention(scaling, softcap or 0.0, s_aux)
    return step.attend(cast("int", module.layer_idx), query, key, value, attention), None


def fitted(
    heads: int, size: int, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value, padded with zeros to the cache's `size`; `heads`: its key heads.

    ModelError for shapes that would make a kernel read or write out of bounds.
    """
    for one in (key, value):
        if one.shape[1] != heads or one.shape[3] > size:
            raise ModelError(f"its keys or values are of {tuple(one.shape)}, not {(heads, size)}")
    if query.shape[3] != key.shape[3] or query.shape[1] % heads:
        raise ModelError(f"its queries are of {tuple(query.shape)}, beside {tuple(key.shape)}")
    return _padded(query, size), _padded(key, size), _padded(value, size)


def _padded(one: Tensor, size: int) -> Tensor:
    missing = size - one.shape[3]
    return nn.functional.pad(one, (0, missing)) if missing else one


ALL_ATTENTION_FUNCTIONS.register(ATTENTION_NAME, _attend)
