"""The cache on a processor attends as torch's own attention does over all that came before."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from core.engine.torch.attention import CacheShape
from core.engine.torch.blocks import SIZE as BLOCK
from core.engine.torch.memory import Untouched
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


def test_rows_that_nobody_uses_give_way_to_those_of_other_lengths() -> None:
    shape, blocks, places = CacheShape(LAYERS, KEY_HEADS, 128, torch.float32), 1024, 128
    cache, most = RowCache(shape, blocks, places), 2 * blocks * BLOCK * shape.bytes_per_token
    before = resident()
    for length in (128, 256, 512, 1024):  # each wave fills all that the blocks allow
        wave = [begin(n, prompt=length) for n in range(blocks * BLOCK // length)]
        key, value = torch.ones(2, 1, KEY_HEADS, length, 128)
        query = torch.ones(1, HEADS, length, 128)
        for one in wave:
            attention = cache.begin(cache.arrange([Part(one, length)]))
            for layer in range(LAYERS):
                out = attention.attend(layer, query, key, value, SCALE)
                assert torch.allclose(out, torch.ones(()))
        for one in wave:
            cache.drop(one)
    assert resident() - before < 1.3 * most


def test_memory_is_given_back_and_is_zeros_again() -> None:
    memory = Untouched((4, 4 << 20), torch.float32)
    memory.tensor.fill_(1)
    before = resident()
    memory.forget(memory.tensor[1:3])
    assert before - resident() > 30e6
    assert memory.tensor.sum(1).tolist() == [4 << 20, 0, 0, 4 << 20]
    memory.forget(memory.tensor[0, 3:5])  # less than a page: nothing beside it may go
    assert memory.tensor[0].sum() == 4 << 20


def resident() -> int:
    """Bytes of memory that this process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * mmap.PAGESIZE
