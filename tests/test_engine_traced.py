"""A trace of the model stands in for it on a processor, and only where it gives the same."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from core.engine.torch.cpu.paged_attention import CpuCache
from core.errors import EngineError, ModelError
from tests.test_engine import (
    CONTEXT,
    alone,
    engine_for,
    gpt_neox,
    ids_of,
    llama,
    prompts,
    reply,
    request_for,
)

UNTRACED = "the model is not traced"


@pytest.mark.parametrize("int8", [False, True], ids=["as it is", "int8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("model_of", [gpt_neox, llama])
async def test_models_are_traced_in_every_precision(
    model_of: Callable[[], PreTrainedModel],
    dtype: torch.dtype,
    int8: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        async with engine_for(cast("Any", model_of()).to(dtype), int8_weights=int8) as engine:
            assert len(ids_of(await reply(engine, request_for([5, 6, 7])))) == 24
    assert UNTRACED not in caplog.text


async def test_a_model_that_looks_at_its_positions_is_not_traced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its rotations are others once a sequence is longer than those that it was trained with."""

    def model(known: int) -> PreTrainedModel:
        torch.manual_seed(5)
        config = cast("LlamaConfig", llama().config)
        config.max_position_embeddings = known
        config.rope_parameters = {"rope_type": "dynamic", "factor": 8.0, "rope_theta": 10000.0}
        return LlamaForCausalLM(config)

    asked = prompts(1)[0][:20]
    with caplog.at_level(logging.INFO):
        async with engine_for(model(CONTEXT)) as engine:
            given = ids_of(await reply(engine, request_for(asked)))
    assert UNTRACED in caplog.text
    assert given == alone(model(CONTEXT), asked, len(given), 1.1)
    with pytest.raises(ModelError, match="context_length = 32 is exact"):
        async with engine_for(model(32)):
            pass


async def test_a_model_whose_trace_gives_something_else_is_not_traced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Counting(GPTNeoXForCausalLM):  # type: ignore[no-untyped-call]
        """Its numbers grow a little with each call; a trace would always give the first."""

        asked = 0

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            self.asked += 1
            out = super().forward(*args, **kwargs)
            out.logits = out.logits * (1 + self.asked / 10_000)
            return out

    torch.manual_seed(5)
    model = Counting(cast("GPTNeoXConfig", gpt_neox().config))
    with caplog.at_level(logging.INFO):
        async with engine_for(model) as engine:
            assert ids_of(await reply(engine, request_for([5, 6, 7])))
    assert f"{UNTRACED}, and takes longer for a step: a trace of it gives something" in caplog.text


async def test_a_traced_step_that_fails_says_why_in_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    attend = CpuCache.attend_piece

    def choke(self: CpuCache, mask: Tensor, *others: Any) -> None:
        if len(mask) == 7:
            raise MemoryError("no room for seven")
        attend(self, mask, *others)

    monkeypatch.setattr(CpuCache, "attend_piece", choke)
    torch.manual_seed(5)
    with caplog.at_level(logging.INFO):
        async with engine_for(gpt_neox()) as engine:
            others = [asyncio.create_task(reply(engine, request_for(one))) for one in prompts(3)]
            with pytest.raises(EngineError) as failure:
                await reply(engine, request_for([9] * 7))
            assert all(ids_of(chunks) for chunks in await asyncio.gather(*others))
    assert UNTRACED not in caplog.text
    assert str(failure.value) == "a step failed: RuntimeError: MemoryError: no room for seven"
