"""The batching engine gives every request what `model.generate` alone would have given it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import torch
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from core.engine.torch import Limits, TorchEngine
from core.errors import EngineError, EngineRefused
from core.ports import Chunk, GenerationRequest
from core.types import Sampling

torch.set_num_threads(1)  # the models are tiny: a second thread would only wait for the first

VOCABULARY = 307
CONTEXT = 512
GREEDY = Sampling(temperature=0, repetition_penalty=1.1)
MARGIN = 1e-3
"""Two best scores nearer than this could change places through rounding alone."""


def _gpt_neox() -> PreTrainedModel:
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=CONTEXT,
        use_parallel_residual=False,
        initializer_range=0.3,
    )
    return GPTNeoXForCausalLM(config)


def _llama() -> PreTrainedModel:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=96,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


@pytest.fixture(params=[_gpt_neox, _llama], ids=["gpt-neox", "llama"])
def twins(request: pytest.FixtureRequest) -> tuple[PreTrainedModel, PreTrainedModel]:
    """One model twice, for the engine takes its own apart: the engine's, and one for `generate`."""
    torch.manual_seed(5)
    ours, theirs = request.param(), request.param()
    theirs.load_state_dict(ours.state_dict())
    return ours.float().eval(), theirs.float().eval()


@asynccontextmanager
async def engine_for(model: PreTrainedModel, **limits: Any) -> AsyncIterator[TorchEngine]:
    limits = {"cache_bytes": 32 << 20, "step_tokens": 64, "places": 8} | limits
    engine = TorchEngine(model, Limits(CONTEXT, **limits))
    try:
        yield engine
    finally:
        await engine.close()


def prompts(count: int, seed: int = 0) -> list[list[int]]:
    """Prompts of 1 to 150 ids."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 151, (count,), generator=draw).tolist()
    return [torch.randint(3, VOCABULARY, (n,), generator=draw).tolist() for n in lengths]


def request_for(prompt: list[int], sampling: Sampling = GREEDY, **more: Any) -> GenerationRequest:
    more = {"max_new_tokens": 24, "seed": 0} | more
    return GenerationRequest("r", prompt, sampling, **more)


async def reply(engine: TorchEngine, request: GenerationRequest) -> list[Chunk]:
    return [chunk async for chunk in engine.generate(request)]


def ids_of(chunks: Iterable[Chunk]) -> list[int]:
    return [id_ for chunk in chunks for id_ in chunk.ids]


def alone(model: PreTrainedModel, prompt: list[int], new: int, penalty: float) -> list[int]:
    """What `generate` gives, having seen to it that no score of it was a near tie."""
    out: Any = cast("Any", model).generate(
        torch.tensor([prompt]),
        max_new_tokens=new,
        do_sample=False,
        repetition_penalty=penalty,
        eos_token_id=None,
        pad_token_id=0,
        output_scores=True,
        return_dict_in_generate=True,
    )
    for scores in out.scores:
        best, second = scores[0].topk(2).values.tolist()
        assert best - second > MARGIN, "this seed makes a near tie: choose another"
    ids: list[int] = out.sequences[0, len(prompt) :].tolist()
    return ids


async def test_a_busy_mixed_batch_gives_each_request_what_generate_gives_it_alone(
    twins: tuple[PreTrainedModel, PreTrainedModel],
) -> None:
    ours, theirs = twins
    asked = prompts(12)
    penalties = [1.0, 1.1, 1.3] * 4
    expected = [alone(theirs, p, 24, r) for p, r in zip(asked, penalties, strict=True)]
    async with engine_for(ours) as engine:
        greedy = [Sampling(temperature=0, repetition_penalty=rate) for rate in penalties]
        requests = map(request_for, asked, greedy)
        replies = await asyncio.gather(*(reply(engine, one) for one in requests))
    assert [ids_of(chunks) for chunks in replies] == expected
    assert {chunks[-1].finish_reason for chunks in replies} == {"length"}


async def test_closing_the_iterator_frees_the_place_at_the_next_step(
    twins: tuple[PreTrainedModel, PreTrainedModel],
) -> None:
    async with engine_for(twins[0], places=1) as engine:
        stream = engine.generate(request_for([5] * 20, max_new_tokens=400))
        await anext(stream)
        assert engine.stats().places == 0
        waiting = asyncio.create_task(reply(engine, request_for([7, 8], max_new_tokens=3)))
        await stream.aclose()
        assert len(ids_of(await asyncio.wait_for(waiting, 20))) == 3
        assert engine.stats().tokens_per_second < 400


async def test_a_reply_ends_at_a_stop_id_that_is_not_part_of_it(
    twins: tuple[PreTrainedModel, PreTrainedModel],
) -> None:
    ours, theirs = twins
    prompt = prompts(1)[0]
    expected = alone(theirs, prompt, 24, 1.1)
    at = next(n for n in range(4, 24) if expected[n] not in expected[:n])
    async with engine_for(ours) as engine:
        by_id = await reply(engine, request_for(prompt, stop_ids=frozenset([expected[at]])))
        run = tuple(expected[at - 1 : at + 1])
        by_run = await reply(engine, request_for(prompt, stop_sequences=((0, 1), run)))
    assert ids_of(by_id) == expected[:at]
    assert ids_of(by_run) == expected[: at + 1]
    assert by_id[-1].finish_reason == by_run[-1].finish_reason == "stop"


async def test_a_request_that_can_never_run_is_refused(
    twins: tuple[PreTrainedModel, PreTrainedModel],
) -> None:
    async with engine_for(twins[0]) as engine:
        for prompt, new in (([], 5), ([VOCABULARY], 5), ([-1], 5), ([5] * 500, 13), ([5], 0)):
            with pytest.raises(EngineRefused):
                await reply(engine, request_for(prompt, max_new_tokens=new))
        assert len(ids_of(await reply(engine, request_for([5] * 500, max_new_tokens=12)))) == 12


async def test_closing_the_engine_fails_what_is_in_flight(
    twins: tuple[PreTrainedModel, PreTrainedModel],
) -> None:
    async with engine_for(twins[0]) as engine:
        stream = engine.generate(request_for([5], max_new_tokens=500))
        await anext(stream)
        await engine.close()
        with pytest.raises(EngineError):
            ids_of([chunk async for chunk in stream])
        with pytest.raises(EngineError):
            await reply(engine, request_for([5]))
