"""The batching engine on PyTorch."""

from __future__ import annotations

from collections.abc import Callable

from transformers import PreTrainedModel

from core.engine.torch.cache_size import cache_bytes
from core.engine.torch.engine import Limits, TorchEngine
from core.models.catalogue import ModelSpec
from core.settings import Settings

__all__ = ["Limits", "TorchEngine", "open_torch_engine"]


async def open_torch_engine(
    settings: Settings, spec: ModelSpec, load: Callable[[], PreTrainedModel]
) -> TorchEngine:
    """An engine for the model that `load` gives, within the settings' limits."""

    def limits_for(model: PreTrainedModel) -> Limits:
        gpu = model.device.type == "cuda"
        return Limits(
            context_length=settings.context_length or spec.context_length,
            places=settings.places or (256 if gpu else 32),
            step_tokens=settings.step_tokens or (2048 if gpu else 256),
            cache_bytes=cache_bytes(model.device, settings.cache_gb),
            int8_weights=settings.int8_weights,
        )

    return await TorchEngine.open(load, limits_for)
