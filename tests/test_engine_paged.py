"""The GPU's cache and kernel: on a GPU, or in Triton's interpreter where there is none."""

from __future__ import annotations

import asyncio
import os
from typing import Any, cast

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported
pytest.importorskip("triton", reason="Triton comes with torch for CUDA only: make kernel brings it")

from transformers import PreTrainedModel

from core.engine.torch import Limits, TorchEngine
from core.engine.torch.attention import CacheShape
from core.engine.torch.blocks import SIZE, Blocks
from core.engine.torch.paged import PagedCache
from core.engine.torch.runner import Runner
from core.engine.torch.scheduler import Scheduler
from tests.test_engine import alone, ids_of, prompts, reply, request_for, twins

__all__ = ["twins"]


class PagedEngine(TorchEngine):
    """The GPU's cache and kernel, without graphs where there is no GPU."""

    def _begin(self) -> None:
        if torch.cuda.is_available():
            super()._begin()
            return
        shape, limits = CacheShape.of(self._model), self._limits
        blocks = limits.cache_bytes // (SIZE * shape.bytes_per_token)
        self._cache = PagedCache(shape, blocks, torch.device("cpu"))
        self._runner = Runner(self._model, self._cache)
        self._scheduler = Scheduler(
            Blocks(blocks), places=limits.places, step_tokens=limits.step_tokens,
            left=self._cache.drop,
        )  # fmt: skip


async def test_pages_give_each_request_what_generate_gives_it_alone(
    twins: tuple[PreTrainedModel, PreTrainedModel],
) -> None:
    ours, theirs = twins
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ours = cast("Any", ours).to(device)
    asked = [prompt[:40] for prompt in prompts(4, seed=5)]
    limits = Limits(512, places=3, step_tokens=24, cache_bytes=8 << 20)
    engine = await PagedEngine.open(lambda: ours, lambda _: limits)
    try:
        requests = [request_for(prompt, max_new_tokens=6) for prompt in asked]
        replies = await asyncio.gather(*(reply(engine, one) for one in requests))
        again = await reply(engine, requests[0])
    finally:
        await engine.close()
    expected = [alone(theirs, prompt, 6, 1.1) for prompt in asked]
    assert [ids_of(chunks) for chunks in replies] == expected
    assert ids_of(again) == expected[0]
    assert again[0].cached_tokens == (len(asked[0]) + 5) // SIZE * SIZE or len(asked[0]) <= SIZE
