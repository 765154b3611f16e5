"""The cache on a processor attends as torch's own attention does over all that came before."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from core.engine.torch.attention import CacheShape
from core.engine.torch.rows import RowCache
from core.engine.torch.scheduler import Part
from core.engine.torch.sequence import Sequence
from core.records import GenerationRequest
from core.types import Sampling

LAYERS, HEADS, KEY_HEADS, SIZE = 2, 4, 2, 8
SCALE = SIZE**-0.5
NEAR = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


class Reference:
    """Every key and value that a sequence has had: (layers, key heads, ids, size) each."""

    def __init__(self) -> None:
        self.kept: dict[Sequence, Tensor] = {}

    def attend(self, sequence: Sequence, layer: int, query: Tensor) -> Tensor:
        keys, values = self.kept[sequence][:, layer].float()
        ids, known = query.shape[1], keys.shape[1]
        hidden = torch.arange(known) > torch.arange(known - ids, known)[:, None]
        mask = torch.zeros(ids, known).masked_fill_(hidden, -torch.inf)
        out = scaled_dot_product_attention(
            query.float()[None], keys[None], values[None], mask, scale=SCALE, enable_gqa=True
        )
        return out[0].transpose(0, 1)

    def keep(self, sequence: Sequence, new: Tensor) -> None:
        kept = self.kept.get(sequence)
        self.kept[sequence] = new if kept is None else torch.cat((kept, new), dim=3)


def begin(order: int, prompt: int) -> Sequence:
    request = GenerationRequest(str(order), [5] * prompt, Sampling(), 400, seed=0)
    return Sequence.begin(request, lambda _: None, order, 0.0)


def step(cache: RowCache, reference: Reference, wanted: list[Part], dtype: torch.dtype) -> float:
    """Run a step of random queries, keys and values; how far off the worst result was."""
    parts = cache.arrange(wanted)
    total = sum(part.count for part in parts)
    new = torch.randn(2, LAYERS, KEY_HEADS, total, SIZE).to(dtype)
    queries = torch.randn(LAYERS, HEADS, total, SIZE).to(dtype)
    attention = cache.begin(parts)
    outs = []
    for layer in range(LAYERS):
        key, value = new[:, layer, None]
        outs.append(attention.attend(layer, queries[layer][None], key, value, SCALE)[0])
    worst, at = 0.0, 0
    for part in parts:
        ids = slice(at, at + part.count)
        reference.keep(part.sequence, new[:, :, :, ids])
        for layer, out in enumerate(outs):
            expected = reference.attend(part.sequence, layer, queries[layer][:, ids])
            worst = max(worst, (out[ids].float() - expected).abs().max().item())
        part.sequence.computed += part.count
        part.sequence.length = max(part.sequence.length, part.sequence.computed + 1)
        at += part.count
    return worst


@pytest.mark.parametrize("dtype", NEAR, ids=str)
def test_rows_of_all_lengths_come_go_and_move(dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    shape = CacheShape(LAYERS, KEY_HEADS, SIZE, dtype)
    # Room for two rows of the smallest shelf at first: it must grow.
    cache, reference = RowCache(shape, blocks=8, places=2), Reference()
    running: list[Sequence] = []
    for turn in range(100):
        if turn % 10 == 0:
            running.append(begin(turn, prompt=1 + 23 * turn % 130))
        if turn % 25 == 24:
            cache.drop(running.pop(1))
        # now and then one sits a step out, and a prompt comes in two chunks
        parts = [
            Part(one, min(one.pending, 40)) for at, one in enumerate(running) if (turn + at) % 7
        ]
        if parts:
            assert step(cache, reference, parts, dtype) < NEAR[dtype]
    assert max(one.computed for one in running) > 128  # it has moved to a longer row
