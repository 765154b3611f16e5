"""The cache on a processor attends as torch's own attention does over all that came before."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from core.engine.torch.attention import CacheShape
from core.engine.torch.block_manager import SIZE as PAGE
from core.engine.torch.block_manager import BlockManager
from core.engine.torch.cpu import paged_attention
from core.engine.torch.cpu.paged_attention import CpuCache
from core.engine.torch.scheduler import ScheduledChunk
from core.engine.torch.sequence import Sequence
from core.engine_types import GenerationRequest
from core.types import Sampling

LAYERS, HEADS, KEY_HEADS, SIZE = 2, 6, 3, 8
SCALE = SIZE**-0.5
NEAR = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


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


def grow(sequence: Sequence, count: int, blocks: BlockManager) -> ScheduledChunk:
    """Give the sequence blocks for `count` more ids, in whatever order they lie."""
    while len(sequence.blocks) * PAGE < sequence.computed + count:
        sequence.blocks.append(blocks.allocate())
    return ScheduledChunk(sequence, count)


def step(
    cache: CpuCache, reference: Reference, parts: list[ScheduledChunk], dtype: torch.dtype
) -> float:
    """Run a step of random queries, keys and values; how far off the worst result was."""
    total = sum(part.count for part in parts)
    # As models give them: one id's heads side by side, and not only them.
    drawn = torch.randn(2, LAYERS, total, 2 * KEY_HEADS, SIZE).to(dtype)
    new = drawn[:, :, :, ::2].transpose(2, 3)
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
            assert out.dtype == dtype
            expected = reference.attend(part.sequence, layer, queries[layer][:, ids])
            worst = max(worst, (out[ids].float() - expected).abs().max().item())
        part.sequence.computed += part.count
        part.sequence.length = max(part.sequence.length, part.sequence.computed + 1)
        at += part.count
    return worst


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", NEAR, ids=str)
def test_sequences_of_all_lengths_come_and_go(
    dtype: torch.dtype, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(paged_attention, "_SCORES", 4000)  # so that pieces are taken apart too
    blocks = BlockManager(64)
    kept = torch.float32 if dtype == torch.float16 else dtype
    cache, reference = CpuCache(CacheShape(LAYERS, KEY_HEADS, SIZE, kept), 64), Reference()
    running: list[Sequence] = []
    for turn in range(100):
        if turn % 10 == 0:
            running.append(begin(turn, prompt=1 + 23 * turn % 130))
        if turn % 25 == 24:
            blocks.release(running.pop(1).blocks)
        # now and then one sits a step out, and a prompt comes in pieces, of one id too
        parts = [
            grow(one, min(one.pending, 40), blocks)
            for at, one in enumerate(running)
            if (turn + at) % 7
        ]
        if parts:
            assert step(cache, reference, parts, dtype) < NEAR[dtype]
    assert max(one.computed for one in running) > 128


def test_scores_far_apart_and_alike_are_weighed_as_torch_weighs_them() -> None:
    cache, blocks = CpuCache(CacheShape(1, 1, SIZE, torch.float32), 64), BlockManager(64)
    one = begin(0, prompt=1)
    scores = [0.0] * 20 + [-200.0, 300.0, -1e6, 300.0] + [299.0] * 20
    values = torch.randn(len(scores), SIZE)
    query = torch.zeros(SIZE)
    query[0] = 1.0
    for at, score in enumerate(scores):
        grow(one, 1, blocks)
        key = torch.zeros(SIZE)
        key[0] = score
        step_ = cache.begin([ScheduledChunk(one, 1)])
        out = step_.attend(
            0, query[None, None, None], key[None, None, None], values[at][None, None, None], 1.0
        )
        weights = torch.tensor(scores[: at + 1]).softmax(0)
        assert torch.allclose(out[0, 0, 0], weights @ values[: at + 1], atol=1e-5)
        one.computed += 1


def test_the_earlier_content_of_a_page_is_not_seen() -> None:
    cache, blocks = CpuCache(CacheShape(1, 1, SIZE, torch.float32), 64), BlockManager(64)
    cache.pages.fill_(torch.nan)
    reference, one = Reference(), begin(0, prompt=30)
    for count in (10, 9, 1, 1):
        part = grow(one, count, blocks)
        query, key, value = torch.randn(3, 1, 1, count, SIZE)
        out = cache.begin([part]).attend(0, query, key, value, SCALE)
        reference.keep(one, torch.stack((key, value)))
        assert torch.allclose(out[0], reference.attend(one, 0, query[0]), atol=1e-5)
        one.computed += count


def test_infinite_and_undefined_numbers_do_not_vanish() -> None:
    cache, blocks = CpuCache(CacheShape(1, 1, SIZE, torch.float32), 64), BlockManager(64)
    one = begin(0, prompt=1)
    grow(one, 1, blocks)
    broken = torch.full((1, 1, 1, SIZE), torch.nan)
    out = cache.begin([ScheduledChunk(one, 1)]).attend(0, broken, broken, broken, 1.0)
    assert out.isnan().all()


def test_a_cache_takes_memory_as_it_is_used() -> None:
    before = resident()
    cache = CpuCache(CacheShape(2, KEY_HEADS, 128, torch.float32), blocks=1 << 14)
    assert cache.pages.nbytes > 1e9
    assert resident() - before < 50e6


def resident() -> int:
    """Bytes of memory that this process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * mmap.PAGESIZE
