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
from core.engine.torch.attention import CacheShape
from core.engine.torch.block_manager import SIZE
from core.engine.torch.scheduler import Scheduler
from core.engine.torch.sequence import Sequence
from core.engine_types import LOADING_STAGES, Chunk, GenerationRequest, LoadingStage
from core.errors import EngineError, EngineRefused, ModelError
from core.types import Sampling

torch.set_num_threads(1)  # the models are tiny: a second thread would only wait for the first

VOCABULARY = 307
CONTEXT = 512
GREEDY = Sampling(temperature=0, repetition_penalty=1.1)
MARGIN = 1e-4
"""Two best scores nearer than this could change places through rounding alone."""


def gpt_neox() -> PreTrainedModel:
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=CONTEXT,
        pad_token_id=3,
        use_parallel_residual=False,
        initializer_range=0.3,
    )
    return GPTNeoXForCausalLM(config)


def llama() -> PreTrainedModel:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=96,
        max_position_embeddings=CONTEXT,
        pad_token_id=3,
        initializer_range=0.3,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


@pytest.fixture(params=[gpt_neox, llama], ids=["gpt-neox", "llama"])
def twins(request: pytest.FixtureRequest) -> tuple[PreTrainedModel, PreTrainedModel]:
    """One model twice, for the engine takes its own apart: the engine's, and one for `generate`."""
    torch.manual_seed(5)
    ours, theirs = request.param(), request.param()
    theirs.load_state_dict(ours.state_dict())
    return ours.float().eval(), theirs.float().eval()


@asynccontextmanager
async def engine_for(
    model: PreTrainedModel, kind: type[TorchEngine] = TorchEngine, **limits: Any
) -> AsyncIterator[TorchEngine]:
    usual = {"context_length": CONTEXT, "cache_bytes": 32 << 20, "step_tokens": 64, "slots": 8}
    engine = await kind.open(lambda: model, lambda _: Limits(**(usual | limits)))
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


async def test_the_stages_of_a_start_are_told_in_order() -> None:
    stages: list[LoadingStage] = []
    limits = Limits(CONTEXT, slots=2, step_tokens=64, cache_bytes=1 << 22)
    engine = await TorchEngine.open(gpt_neox, lambda _: limits, progress=stages.append)
    await engine.close()
    assert stages == ["kernels", "trace", "comparison"]
    assert tuple(stages) == LOADING_STAGES[-3:]


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
    async with engine_for(twins[0], slots=1) as engine:
        stream = engine.generate(request_for([5] * 20, max_new_tokens=400))
        await anext(stream)
        assert engine.stats().slots == 0
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


async def test_a_cache_that_does_not_fit_is_refused_with_a_sentence() -> None:
    with pytest.raises(ModelError, match=r"a cache of 1,125,899.9 GB: lower HENJI_CACHE_GB"):
        async with engine_for(gpt_neox(), cache_bytes=1 << 50):
            pass


async def test_closing_the_engine_fails_requests_in_flight(
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


async def test_the_next_turn_computes_only_new_tokens(
    twins: tuple[PreTrainedModel, PreTrainedModel],
) -> None:
    ours, theirs = twins
    prompt = prompts(4)[2]
    async with engine_for(ours) as engine:
        first = ids_of(await reply(engine, request_for(prompt)))
        second = [*prompt, *first, *prompts(1, seed=9)[0]]
        chunks = await reply(engine, request_for(second))
        again = await reply(engine, request_for(second))
    assert first == alone(theirs, prompt, 24, 1.1)
    assert ids_of(chunks) == ids_of(again) == alone(theirs, second, 24, 1.1)
    # Whole blocks are kept, and the newest reply's last token was never computed.
    assert len(prompt) + len(first) - 1 - SIZE < chunks[0].cached_tokens <= len(second)
    assert chunks[0].cached_tokens < again[0].cached_tokens < len(second)
    assert [chunk.cached_tokens for chunk in again[1:]] == [0] * 23


async def test_two_conversations_share_their_system_prompt_while_both_run(
    twins: tuple[PreTrainedModel, PreTrainedModel],
) -> None:
    ours, theirs = twins
    system = prompts(4)[2]
    ends = [[11, 12, 13], [21, 22]]
    async with engine_for(ours) as engine:
        await reply(engine, request_for(system, max_new_tokens=1))
        pair = [request_for([*system, *end]) for end in ends]
        replies = await asyncio.gather(*(reply(engine, one) for one in pair))
    for end, chunks in zip(ends, replies, strict=True):
        assert ids_of(chunks) == alone(theirs, [*system, *end], 24, 1.1)
        assert chunks[0].cached_tokens == len(system) // SIZE * SIZE


async def test_a_preempted_reply_goes_on_without_losing_or_changing_a_token(
    twins: tuple[PreTrainedModel, PreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = twins
    asked = [prompt[:60] for prompt in prompts(6, seed=3)]
    preempted = []
    preempt = Scheduler._preempt

    def watched(scheduler: Scheduler, sequence: Sequence) -> None:
        preempted.append(sequence.reply_length)
        preempt(scheduler, sequence)

    monkeypatch.setattr(Scheduler, "_preempt", watched)
    # Room for 16 blocks: each of the six needs up to 7, so that not even three fit to their ends.
    async with engine_for(ours, cache_bytes=_blocks(ours, 16)) as engine:
        requests = [request_for(prompt, max_new_tokens=48) for prompt in asked]
        replies = await asyncio.gather(*(reply(engine, one) for one in requests))
        assert engine.stats().cache_used == 0
    assert any(preempted), "nothing was preempted while it streamed"
    expected = [alone(theirs, prompt, 48, 1.1) for prompt in asked]
    assert [ids_of(chunks) for chunks in replies] == expected


async def test_a_small_step_gives_the_same_as_a_large_one(
    twins: tuple[PreTrainedModel, PreTrainedModel],
) -> None:
    ours, theirs = twins
    asked = prompts(5, seed=4)
    async with engine_for(ours, step_tokens=16, slots=3) as engine:
        replies = await asyncio.gather(*(reply(engine, request_for(one)) for one in asked))
    assert [ids_of(chunks) for chunks in replies] == [alone(theirs, one, 24, 1.1) for one in asked]


async def test_blocks_that_are_needed_elsewhere_are_computed_again(
    twins: tuple[PreTrainedModel, PreTrainedModel],
) -> None:
    ours, theirs = twins
    first, *others = [prompt * 9 for prompt in prompts(4, seed=6)]
    first, *others = [prompt[:90] for prompt in (first, *others)]
    async with engine_for(ours, cache_bytes=_blocks(ours, 9)) as engine:
        await reply(engine, request_for(first))
        kept = await reply(engine, request_for(first))
        for other in others:
            await reply(engine, request_for(other))
        evicted = await reply(engine, request_for(first))
    assert kept[0].cached_tokens == 80
    assert evicted[0].cached_tokens == 0
    assert ids_of(kept) == ids_of(evicted) == alone(theirs, first, 24, 1.1)


def _blocks(model: PreTrainedModel, count: int) -> int:
    return count * SIZE * CacheShape.of(model).bytes_per_token


async def test_a_seeded_reply_is_the_same_in_any_batch(
    twins: tuple[PreTrainedModel, PreTrainedModel],
) -> None:
    ours, _ = twins
    wishes = [
        Sampling(temperature=0.7, repetition_penalty=1.1),
        Sampling(temperature=0.9, top_p=0.9),
        Sampling(temperature=1.2, top_k=20),
        Sampling(temperature=1.0, top_k=40, top_p=0.8, repetition_penalty=1.2),
    ]
    asked = prompts(4, seed=8)
    requests = [
        request_for(p, w, seed=n) for n, (p, w) in enumerate(zip(asked, wishes, strict=True))
    ]
    async with engine_for(ours) as engine:
        by_themselves = [ids_of(await reply(engine, one)) for one in requests]
        crowd = [request_for(one, Sampling(), seed=99) for one in prompts(4, seed=10)]
        together = await asyncio.gather(*(reply(engine, one) for one in [*crowd, *requests]))
        other = ids_of(await reply(engine, request_for(asked[0], wishes[0], seed=77)))
    assert [ids_of(chunks) for chunks in together[4:]] == by_themselves
    assert other != by_themselves[0]


async def test_a_step_that_fails_costs_only_the_request_that_makes_it_fail(
    twins: tuple[PreTrainedModel, PreTrainedModel],
) -> None:
    ours, theirs = twins
    poison = 3

    def choke(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if (inputs[0] == poison).any():
            raise torch.OutOfMemoryError("not enough memory for this one")

    ours.get_input_embeddings().register_forward_pre_hook(choke)
    asked = [[id_ for id_ in prompt if id_ != poison] for prompt in prompts(6, seed=2)]
    async with engine_for(ours) as engine:
        tasks = [asyncio.create_task(reply(engine, request_for(one))) for one in asked]
        with pytest.raises(EngineError, match="not enough memory"):
            await reply(engine, request_for([9, poison, 9]))
        replies = await asyncio.gather(*tasks)
        assert engine.stats().running == engine.stats().waiting == 0
    assert [ids_of(chunks) for chunks in replies] == [alone(theirs, one, 24, 1.1) for one in asked]


async def test_numbers_that_are_not_finite_cost_only_the_request_that_has_them(
    twins: tuple[PreTrainedModel, PreTrainedModel],
) -> None:
    ours, theirs = twins
    poison = VOCABULARY - 1

    def choke(module: torch.nn.Module, inputs: Any, embedded: torch.Tensor) -> torch.Tensor:
        return embedded.masked_fill((inputs[0] == poison)[..., None], torch.nan)

    ours.get_input_embeddings().register_forward_hook(choke)
    asked = [[id_ for id_ in prompt if id_ != poison] for prompt in prompts(6, seed=2)]
    beginning = list(range(5, 5 + 2 * SIZE))
    async with engine_for(ours) as engine:
        tasks = [asyncio.create_task(reply(engine, request_for(one))) for one in asked]
        for sampling in (GREEDY, Sampling(1.0), Sampling(1.0, top_k=5)):
            with pytest.raises(EngineError, match="not finite"):
                await reply(engine, request_for([*beginning, poison, 9], sampling))
        replies = await asyncio.gather(*tasks)
        after = await reply(engine, request_for([*beginning, 9]))
    assert [ids_of(chunks) for chunks in replies] == [alone(theirs, one, 24, 1.1) for one in asked]
    assert ids_of(after) == alone(theirs, [*beginning, 9], 24, 1.1)


async def test_an_engine_tells_how_much_more_it_takes(
    twins: tuple[PreTrainedModel, PreTrainedModel],
) -> None:
    async with engine_for(twins[0], slots=3) as engine:
        assert engine.stats().slots == 3
        streams = [engine.generate(request_for([5] * 40, max_new_tokens=400)) for _ in range(2)]
        for stream in streams:
            await anext(stream)
        busy = engine.stats()
        assert (busy.running, busy.waiting, busy.slots) == (2, 0, 1)
        assert 0 < busy.cache_used < 1
        assert busy.tokens_per_second > 0 < busy.time_to_first_token
        for stream in streams:
            await stream.aclose()
