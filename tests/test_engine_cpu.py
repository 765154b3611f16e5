"""The cache on a processor attends as torch's own attention does over all that came before."""

from __future__ import annotations

import asyncio
import logging
import mmap
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numba
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    PreTrainedModel,
)

from core.engine.torch import Limits, TorchEngine
from core.engine.torch.attention import Attention, CacheShape, use_engine_attention
from core.engine.torch.block_manager import SIZE as PAGE
from core.engine.torch.block_manager import BlockManager
from core.engine.torch.cpu import numba_kernels, paged_attention, traced_runner
from core.engine.torch.cpu.packed_linear import Int8Linear, PackedLinear, pack_linears
from core.engine.torch.cpu.paged_attention import CpuCache
from core.engine.torch.cpu.traced_runner import TracedRunner, rows_for
from core.engine.torch.model_runner import inputs_of
from core.engine.torch.scheduler import ScheduledChunk
from core.engine.torch.sequence import Sequence
from core.engine_types import GenerationRequest
from core.errors import EngineError
from core.types import Sampling
from tests.test_engine import (
    CONTEXT,
    engine_for,
    gpt_neox,
    ids_of,
    llama,
    prompts,
    reply,
    request_for,
)

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
    sequence.tables = sequence.tables or [array("i")]
    while len(sequence.tables[0]) * PAGE < sequence.computed + count:
        sequence.tables[0].append(blocks.allocate())
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
        outs.append(attention.attend(layer, queries[layer][None], key, value, Attention(SCALE))[0])
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
            blocks.release(running.pop(1).tables[0])
        # sometimes a sequence skips a step, and prompts come in pieces, even of one id
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
            0,
            query[None, None, None],
            key[None, None, None],
            values[at][None, None, None],
            Attention(1.0),
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
        out = cache.begin([part]).attend(0, query, key, value, Attention(SCALE))
        reference.keep(one, torch.stack((key, value)))
        assert torch.allclose(out[0], reference.attend(one, 0, query[0]), atol=1e-5)
        one.computed += count


def test_infinite_and_undefined_numbers_do_not_vanish() -> None:
    cache, blocks = CpuCache(CacheShape(1, 1, SIZE, torch.float32), 64), BlockManager(64)
    one = begin(0, prompt=1)
    grow(one, 1, blocks)
    broken = torch.full((1, 1, 1, SIZE), torch.nan)
    out = cache.begin([ScheduledChunk(one, 1)]).attend(0, broken, broken, broken, Attention(1.0))
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


def test_steps_are_padded_to_a_few_numbers_of_rows() -> None:
    rows = {ids: rows_for(ids) for ids in range(1, 257)}
    assert [rows[ids] for ids in range(1, 17)] == list(range(1, 17))
    assert (rows[32], rows[256]) == (32, 256)
    assert all(ids <= wanted <= ids * 9 / 8 for ids, wanted in rows.items())
    assert len(set(rows.values())) == 48


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@torch.inference_mode()
def test_padding_changes_no_result_and_no_page(dtype: torch.dtype) -> None:
    torch.manual_seed(5)
    model = cast("Any", gpt_neox()).to(dtype)
    use_engine_attention(model)

    def computed(more: int) -> tuple[Tensor, Tensor]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(traced_runner, "rows_for", lambda ids: ids + more)
            cache = CpuCache(CacheShape.of(model), 8)
            runner, sequence, other = TracedRunner(model, cache), begin(0, 19), begin(1, 2)
            sequence.tables = [array("i", (5, 6))]
            other.tables = [array("i", [3])]
            chunks = [ScheduledChunk(other, 1), ScheduledChunk(sequence, 19)]
            ids, positions, last = inputs_of(chunks)
            return runner._logits(chunks, ids, positions, last), cache.pages

    exact, padded = computed(0), computed(7)
    assert exact[0].isfinite().all()
    torch.testing.assert_close(padded[0], exact[0], rtol=0, atol=NEAR[dtype])
    torch.testing.assert_close(padded[1], exact[1], rtol=0, atol=NEAR[dtype])
    assert not padded[1][:, [1, 2, 4, 7]].any()  # the trace was made in page 0


@torch.inference_mode()
@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    reason="oneDNN computes no bfloat16 on this processor, which has no AVX-512",
)
def test_prompts_of_about_the_same_size_share_what_is_compiled(
    capfd: pytest.CaptureFixture[str],
) -> None:
    model = cast("Any", gpt_neox()).to(torch.bfloat16)
    use_engine_attention(model)
    pack_linears(model)
    runner, sequence = TracedRunner(model, CpuCache(CacheShape.of(model), 8)), begin(0, 60)
    sequence.tables = [array("i", range(1, 5))]

    def compute(first: int, count: int) -> None:
        sequence.computed = first
        chunks = [ScheduledChunk(sequence, count)]
        runner._logits(chunks, *inputs_of(chunks))

    for first in (0, 17):
        compute(first, 26)
    mkldnn: Any = torch.backends.mkldnn
    with mkldnn.verbose(mkldnn.VERBOSE_ON_CREATION):
        for first, count in ((0, 25), (17, 25), (9, 26), (30, 25)):
            compute(first, count)
    said = capfd.readouterr().out
    assert said.count("create:cache_hit") > 10
    assert "create:cache_miss" not in said


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


async def test_a_model_whose_trace_gives_something_else_is_not_traced(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    class Counting(GPTNeoXForCausalLM):  # type: ignore[no-untyped-call]
        """Its numbers grow a little with each call; a trace would always give the first."""

        asked = 0

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            self.asked += 1
            out = super().forward(*args, **kwargs)
            out.logits = out.logits * (1 + self.asked / 10_000)
            return out

    def load() -> PreTrainedModel:
        torch.manual_seed(5)
        return Counting(cast("GPTNeoXConfig", gpt_neox().config))

    for _ in range(2):  # a second start must not trust the first
        caplog.clear()
        with caplog.at_level(logging.INFO):
            engine = await TorchEngine.open(
                load,
                lambda _: Limits(CONTEXT, cache_bytes=32 << 20),
                lambda _: tmp_path / "verified",
            )
            assert ids_of(await reply(engine, request_for([5, 6, 7])))
            await engine.close()
        why = "and takes longer for a step: a trace of it gives something"
        assert f"{UNTRACED}, {why}" in caplog.text


async def test_a_traced_step_that_fails_says_why_in_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    attend = CpuCache.attend_piece

    def choke(self: CpuCache, mask: Tensor, query: Tensor, *others: Any) -> None:
        if query.shape[1] == 7:
            raise MemoryError("no room for seven")
        attend(self, mask, query, *others)

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


def kept_files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.suffix in {".nbi", ".nbc"}]


@pytest.fixture
def fresh_kernels() -> Iterator[None]:
    """Compile again in this test, and leave no directory to the others."""
    numba_kernels.keep_paged_for.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numba.config, "CACHE_DIR", "")
        yield
    numba_kernels.keep_paged_for.cache_clear()


@pytest.mark.usefixtures("fresh_kernels")
def test_a_compiled_kernel_is_kept_and_loaded_and_a_broken_one_is_compiled_again(
    tmp_path: Path,
) -> None:
    numba_kernels.keep_compiled(tmp_path)
    compiled = numba_kernels.keep_paged_for(torch.float32)
    assert {path.suffix for path in kept_files(tmp_path)} == {".nbi", ".nbc"}
    numba_kernels.keep_paged_for.cache_clear()
    loaded: Any = numba_kernels.keep_paged_for(torch.float32)
    assert loaded is not compiled
    assert sum(loaded.stats.cache_hits.values()) == 1

    for path in kept_files(tmp_path):
        path.write_bytes(b"")
    numba_kernels.keep_paged_for.cache_clear()
    numba_kernels.keep_paged_for(torch.float32)
    assert not kept_files(tmp_path)  # the next start writes them again


@pytest.mark.usefixtures("fresh_kernels")
def test_kernels_compile_where_nothing_can_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    numba_kernels.keep_compiled(tmp_path / "file")
    kernel: Any = numba_kernels.keep_paged_for(torch.float32)
    assert kernel.signatures
