"""The GPU's cache and kernel: on a GPU, or in Triton's interpreter where there is none."""

from __future__ import annotations

import asyncio
import os
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, cast
from unittest.mock import patch

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported
pytest.importorskip("triton", reason="Triton comes with torch for CUDA only: make kernel brings it")

from transformers import PreTrainedModel

from core.engine.torch import Limits, TorchEngine
from core.engine.torch.attention import CacheShape
from core.engine.torch.block_manager import SIZE
from core.engine.torch.gpu import gemv_linear, paged_attention
from core.engine.torch.gpu.cuda_graphs import compile_blocks, compiling
from core.engine.torch.gpu.paged_attention import PagedCache
from core.engine.torch.gpu.step_inputs import DecodeStep, MixedStep, only_decodes
from core.engine.torch.model_runner import Ints, LaunchedStep, Runner
from core.engine.torch.scheduler import ScheduledChunk, Scheduler
from core.engine.torch.sequence import Sequence
from core.types import FinishReason, Sampling
from tests.test_engine import CONTEXT, alone, engine_for, ids_of, prompts, reply, request_for, twins
from tests.test_engine_models import LONG
from tests.tiny_models import ARCHITECTURES, architecture

__all__ = ["twins"]


class _Uncaptured(Runner):
    """What is captured on a GPU, run as it is."""

    runs_ahead = True

    def __init__(self, model: PreTrainedModel, cache: PagedCache, limits: Limits) -> None:
        compile_blocks(model)
        self.windows, self.groups = cache.windows, len(cache.groups)
        slots, most = limits.slots, max(limits.step_tokens, limits.slots)
        columns = cache.columns(CONTEXT, most)
        self._decoding = DecodeStep(model, cache, slots, columns)
        self._mixed = MixedStep(model, cache, most, slots, columns)

    def _logits(
        self, parts: list[ScheduledChunk], ids: Ints | torch.Tensor, positions: Ints, wanted: Ints
    ) -> torch.Tensor:
        step = self._decoding if only_decodes(parts, ids, wanted) else self._mixed
        step.stage(parts, ids, positions, wanted)
        with compiling():
            return step.run()[: len(wanted)]


class PagedEngine(TorchEngine):
    """The GPU's cache and kernels, without graphs where there is no GPU."""

    def _prepare(self, model: PreTrainedModel, limits: Limits) -> None:
        with patch("core.engine.torch.engine.pack_linears"):  # its result cannot be compiled
            super()._prepare(model, limits)

    def _runner_for(self, shape: CacheShape, blocks: int) -> Runner:
        if torch.cuda.is_available():
            return super()._runner_for(shape, blocks)
        cache = PagedCache(shape, blocks, torch.device("cpu"))
        return _Uncaptured(self._model, cache, self._limits)


@pytest.fixture(autouse=True)
def fewer_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter takes a millisecond for each."""
    if not torch.cuda.is_available():
        monkeypatch.setattr(paged_attention, "_MOST_SPLITS", 2)
        monkeypatch.setattr(gemv_linear, "_OUTPUTS", 64)


def _engine_for(model: PreTrainedModel, **limits: Any) -> AbstractAsyncContextManager[TorchEngine]:
    model = cast("Any", model).to("cuda" if torch.cuda.is_available() else "cpu")
    return engine_for(model, PagedEngine, **({"cache_bytes": 8 << 20} | limits))


async def test_pages_give_each_request_what_generate_gives_it_alone(
    twins: tuple[PreTrainedModel, PreTrainedModel],
) -> None:
    ours, theirs = twins
    asked = [prompt[:40] for prompt in prompts(4, seed=5)]
    async with _engine_for(ours, slots=3, step_tokens=24) as engine:
        requests = [request_for(prompt, max_new_tokens=6) for prompt in asked]
        replies = await asyncio.gather(*(reply(engine, one) for one in requests))
        again = await reply(engine, requests[0])
    expected = [alone(theirs, prompt, 6, 1.1) for prompt in asked]
    assert [ids_of(chunks) for chunks in replies] == expected
    assert ids_of(again) == expected[0]
    assert again[0].cached_tokens == (len(asked[0]) + 5) // SIZE * SIZE or len(asked[0]) <= SIZE


async def test_a_preempted_request_goes_on_from_fresh_pages(
    twins: tuple[PreTrainedModel, PreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = twins
    preempted, preempt = [], Scheduler._preempt

    def watched(scheduler: Scheduler, sequence: Sequence) -> None:
        preempted.append(sequence)
        preempt(scheduler, sequence)

    monkeypatch.setattr(Scheduler, "_preempt", watched)
    asked = [prompt[:24] for prompt in prompts(3, seed=8)]
    shape = CacheShape.of(ours)
    room = 5 * SIZE * shape.bytes_per_token
    async with _engine_for(ours, slots=3, step_tokens=64, cache_bytes=room) as engine:
        requests = [request_for(prompt, max_new_tokens=10) for prompt in asked]
        replies = await asyncio.gather(*(reply(engine, one) for one in requests))
    assert preempted
    expected = [alone(theirs, prompt, 10, 1.1) for prompt in asked]
    assert [ids_of(chunks) for chunks in replies] == expected


async def test_a_reply_may_end_while_the_next_step_is_under_way(
    twins: tuple[PreTrainedModel, PreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = twins
    ahead, follow = 0, Runner.follow

    def sometimes_failing(
        runner: Runner, flight: LaunchedStep, parts: list[ScheduledChunk]
    ) -> LaunchedStep:
        nonlocal ahead
        ahead += 1
        if ahead == 2:
            raise RuntimeError("no memory")
        return follow(runner, flight, parts)

    ended, append = set[int](), Sequence.append

    def once_ended(sequence: Sequence, token: int) -> FinishReason | None:
        assert sequence.order not in ended, "it takes a token after its last"
        reason = append(sequence, token)
        if reason:
            ended.add(sequence.order)
        return reason

    monkeypatch.setattr(Runner, "follow", sometimes_failing)
    monkeypatch.setattr(Sequence, "append", once_ended)
    asked = [prompt[:20] for prompt in prompts(3, seed=5)]
    expected = [alone(theirs, prompt, 9, 1.1) for prompt in asked]
    last = expected[0].index(expected[0][5])
    async with _engine_for(ours, slots=3, step_tokens=64) as engine:
        requests = [request_for(prompt, max_new_tokens=9) for prompt in asked]
        stopped = replace(requests[0], stop_ids=frozenset({expected[0][last]}))
        replies = await asyncio.gather(*(reply(engine, one) for one in (stopped, *requests[1:])))
        again = await reply(engine, requests[0])
    assert ahead > 4
    assert [ids_of(chunks) for chunks in replies] == [expected[0][:last], *expected[1:]]
    assert ids_of(again) == expected[0]


async def test_a_seed_draws_the_same_reply_alone_and_among_others(
    twins: tuple[PreTrainedModel, PreTrainedModel],
) -> None:
    ours, _ = twins
    drawn = Sampling(temperature=0.8, top_p=0.95, repetition_penalty=1.1)
    asked = [prompt[:16] for prompt in prompts(4, seed=9)]
    requests = [
        request_for(prompt, drawn, seed=n, max_new_tokens=5) for n, prompt in enumerate(asked)
    ]
    async with _engine_for(ours, slots=4, step_tokens=64) as engine:
        together = await asyncio.gather(*(reply(engine, one) for one in requests))
        alone_ = [await reply(engine, one) for one in requests]
    assert [ids_of(chunks) for chunks in together] == [ids_of(chunks) for chunks in alone_]


@pytest.mark.parametrize("name", ARCHITECTURES)
async def test_what_people_run_is_computed_exactly(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not torch.cuda.is_available():  # torch's compiler takes half a minute for each
        monkeypatch.setitem(globals(), "compile_blocks", lambda _: None)
    # it is compared with the model's own attention before it is ready
    async with _engine_for(architecture(name), slots=2, step_tokens=32) as engine:
        assert not engine.stats().running


@pytest.mark.parametrize("name", ["gemma 3", "gpt-oss", "mistral 0.1"])
async def test_long_texts_whose_tables_go_round(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        monkeypatch.setitem(globals(), "compile_blocks", lambda _: None)
    asked = [LONG[:130], LONG[40:150], LONG[:12]]
    async with _engine_for(architecture(name), slots=3, step_tokens=16) as engine:
        requests = [request_for(one, max_new_tokens=5) for one in asked]
        replies = await asyncio.gather(*(reply(engine, one) for one in requests))
        again = await reply(engine, request_for([*asked[0], *ids_of(replies[0])], max_new_tokens=3))
    expected = [alone(architecture(name), one, 8, 1.1) for one in asked]
    assert [ids_of(chunks) for chunks in replies] == [one[:5] for one in expected]
    assert again[0].cached_tokens == 128
    assert ids_of(again) == expected[0][5:]
