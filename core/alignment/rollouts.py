"""Replies of the policy as it is now, by our own batching engine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from core.alignment.examples import Encoded
from core.engine.torch import Limits, TorchEngine
from core.engine.torch.attention import CacheShape
from core.engine.torch.block_manager import SIZE
from core.engine_types import GenerationRequest
from core.types import Sampling

# PPO weighs what the policy itself would say: nothing may bend its distribution
ON_POLICY = Sampling(temperature=1.0)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What replies are generated for."""

    prompts: Sequence[tuple[int, ...]]
    longest: int
    """Tokens of a reply, without its end."""
    stop_ids: frozenset[int]
    end: int | None
    """What stands behind a reply that the model ended itself."""
    seed: int
    sampling: Sampling = ON_POLICY


def write(model: PreTrainedModel, wanted: Wanted) -> list[Encoded]:
    """A reply to each prompt. The engine takes the model for itself."""
    return asyncio.run(_write(model, wanted))


async def _write(model: PreTrainedModel, wanted: Wanted) -> list[Encoded]:
    engine = await TorchEngine.open(lambda: model, lambda model: _limits(model, wanted))
    try:
        return await asyncio.gather(
            *(_reply(engine, wanted, place) for place in range(len(wanted.prompts)))
        )
    finally:
        await engine.close()


def _limits(model: PreTrainedModel, wanted: Wanted) -> Limits:
    """Room for all of them at once."""
    lengths = [len(prompt) + wanted.longest for prompt in wanted.prompts]
    blocks = sum(-(-length // SIZE) + 1 for length in lengths)
    return Limits(
        context_length=max(lengths),
        places=len(lengths),
        step_tokens=256 if model.device.type == "cpu" else 2048,
        cache_bytes=blocks * SIZE * CacheShape.of(model).bytes_per_token,
    )


async def _reply(engine: TorchEngine, wanted: Wanted, place: int) -> Encoded:
    request = GenerationRequest(
        id=str(place),
        prompt=wanted.prompts[place],
        sampling=wanted.sampling,
        max_new_tokens=wanted.longest,
        seed=wanted.seed + place,
        stop_ids=wanted.stop_ids,
    )
    ids: list[int] = []
    async for chunk in engine.generate(request):
        ids += chunk.ids
        ended = chunk.finish_reason == "stop"
    if ended and wanted.end is not None:
        ids.append(wanted.end)
    return Encoded(wanted.prompts[place], tuple(ids))
