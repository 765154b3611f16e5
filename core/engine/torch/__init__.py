"""The batching engine on PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from transformers import PreTrainedModel

from core.engine.torch.device_memory import cache_bytes
from core.engine.torch.engine import Limits, TorchEngine
from core.engine.torch.verification import record_path
from core.engine_types import LoadingStage
from core.models.catalogue import ModelSpec, model_directory
from core.models.files import weights_fingerprint
from core.models.manifest import weights_digest
from core.settings import Settings

__all__ = ["Limits", "TorchEngine", "open_torch_engine"]


async def open_torch_engine(
    settings: Settings,
    spec: ModelSpec,
    load: Callable[[], PreTrainedModel],
    progress: Callable[[LoadingStage], None],
) -> TorchEngine:
    """An engine for the model that `load` gives, within the settings' limits."""

    def limits_for(model: PreTrainedModel) -> Limits:
        gpu = model.device.type == "cuda"
        return Limits(
            context_length=settings.context_length or spec.context_length,
            slots=settings.places or (256 if gpu else 32),
            step_tokens=settings.step_tokens or (2048 if gpu else 256),
            cache_bytes=cache_bytes(model.device, settings.cache_gb),
            int8_weights=settings.int8_weights,
            kernels=settings.data_dir / "kernels",
        )

    def record_for(model: PreTrainedModel) -> Path:
        directory = model_directory(spec, settings, lambda _: None)
        limits = limits_for(model)
        # not the cache's size: it follows the free memory, which is another at each start
        computed = (limits.context_length, limits.slots, limits.step_tokens, limits.int8_weights)
        return record_path(
            settings.data_dir / "verified",
            model,
            weights=weights_fingerprint(directory),
            adapter=weights_digest(Path(spec.adapter)) if spec.adapter else None,
            limits=computed,
        )

    return await TorchEngine.open(load, limits_for, record_for, progress)
