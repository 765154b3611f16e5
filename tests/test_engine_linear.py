"""Weights laid out for a processor."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from core.engine.torch import Limits, TorchEngine
from core.engine.torch.cpu.packed_linear import Int8Linear, PackedLinear
from tests.test_engine import gpt_neox, ids_of, prompts, reply, request_for


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 9, 70])
def test_a_packed_layer_gives_what_it_was_packed_from(rows: int, bias: bool) -> None:
    torch.manual_seed(1)
    linear, x = nn.Linear(48, 80, bias=bias), torch.randn(1, rows, 48)
    with torch.no_grad():
        expected = linear(x)
    torch.testing.assert_close(PackedLinear(linear)(x), expected, rtol=1e-5, atol=1e-5)
    rounded = Int8Linear(linear)(x)
    assert 0 < (rounded - expected).norm() / expected.norm() < 0.02


async def test_an_engine_with_int8_weights_answers() -> None:
    torch.manual_seed(5)
    limits = Limits(512, cache_bytes=8 << 20, int8_weights=True)
    engine = await TorchEngine.open(gpt_neox, lambda _: limits)
    try:
        first = await reply(engine, request_for(prompts(1)[0]))
        again = await reply(engine, request_for(prompts(1)[0]))
    finally:
        await engine.close()
    assert len(ids_of(first)) == 24
    assert again[0].cached_tokens > 0


def test_a_row_in_int8_does_not_depend_on_those_beside_it() -> None:
    torch.manual_seed(5)
    layer = Int8Linear(torch.nn.Linear(96, 64))
    rows = torch.randn(7, 96) * torch.logspace(-2, 3, 7)[:, None]
    together = layer(rows)
    for row, expected in zip(rows, together, strict=True):
        assert torch.equal(layer(row[None])[0], expected)
