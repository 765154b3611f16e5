"""Falcon's attention, which does not go through transformers' attention interface.

Falcon's layers pass only their cache on to their attention. So the engine passes its step in place
of the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.falcon import modeling_falcon

from core.engine.torch.attention import ATTENTION_NAME, Attention, AttentionStep

_rotate = cast("Any", modeling_falcon.apply_rotary_pos_emb)


@dataclass(frozen=True, slots=True)
class _StepAsCache:
    step: AttentionStep

    def get_seq_length(self) -> int:
        return 0


class _FalconAttention(modeling_falcon.FalconAttention):
    """Attends through the step in `layer_past`, and keeps each key head once."""

    def forward(  # type: ignore[override]  # its layers are the only callers
        self,
        hidden_states: Tensor,
        *,
        layer_past: _StepAsCache,
        position_embeddings: tuple[Tensor, Tensor],
        **_: Any,
    ) -> tuple[Tensor, None]:
        query, key, value = self._split_heads(self.query_key_value(hidden_states))
        # the newer architecture repeats each key head
        repeats = key.shape[2] // cast("int", self.num_kv_heads)
        query, key, value = (
            one.transpose(1, 2) for one in (query, key[:, :, ::repeats], value[:, :, ::repeats])
        )
        query, key = _rotate(query, key, *position_embeddings)
        attention = Attention(self.inv_norm_factor)
        out = layer_past.step.attend(self.layer_idx, query, key, value, attention)
        return self.dense(out.flatten(2)), None


def use_falcon_attention(model: PreTrainedModel) -> None:
    """Make a Falcon attend through the engine."""
    for module in list(model.modules()):
        if isinstance(module, modeling_falcon.FalconAttention):
            module.__class__ = _FalconAttention
        if type(module) is modeling_falcon.FalconLinear and module.bias is None:
            module.__class__ = nn.Linear  # it computes the same, and can be repacked
    model.config._attn_implementation = ATTENTION_NAME  # no mask is made
    model.register_forward_pre_hook(_pass_on, with_kwargs=True)


def _pass_on(
    model: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return inputs, {**named, "past_key_values": _StepAsCache(named.pop("step"))}
