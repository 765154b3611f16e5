"""Models of many architectures, tiny and random: computed exactly, or refused by a sentence."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from core.engine.torch import TorchEngine, open_torch_engine, verification
from core.engine.torch import engine as torch_engine
from core.engine.torch.attention import CacheShape, fitted
from core.engine.torch.block_manager import (
    ALL,
    GIVEN_BACK,
    SIZE,
    BlockManager,
    blocks_for,
    blocks_held,
)
from core.engine.torch.cpu.traced_runner import TracedRunner
from core.engine.torch.scheduler import ScheduledChunk, Scheduler
from core.engine.torch.sequence import Sequence
from core.engine_types import LoadingStage
from core.errors import EngineRefused, ModelError
from core.models.catalogue import ModelSpec, find_model
from core.models.files import ARCHITECTURES as ARCHITECTURES_FILE
from core.models.files import engine_verdict
from core.models.weights import load_weights
from core.settings import Settings
from tests import tiny_models
from tests.architectures import PAGE, Found, examine, kinds, page, usual_of
from tests.test_engine import alone, engine_for, ids_of, reply, request_for
from tests.tiny_models import ARCHITECTURES, architecture

ASKED = ([5, 9, 200, 31], list(range(10, 90)))

REFUSED: dict[str, dict[str, Any]] = {
    "diffllama": {},
    "llama4_text": {"attention_chunk_size": 64},
    "bloom": {},
    "nemotron": {},
    "falcon": {"head_dim": None, "alibi": True},
    "bert": {"is_decoder": False, "num_key_value_heads": None},
    "electra": {"is_decoder": False, "num_key_value_heads": None},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
}


async def both(model: PreTrainedModel) -> list[list[int]]:
    """The replies to two prompts of different length at once."""
    async with engine_for(model) as engine:
        replies = await asyncio.gather(*(reply(engine, request_for(one)) for one in ASKED))
    return [ids_of(chunks) for chunks in replies]


@pytest.mark.parametrize("name", ARCHITECTURES)
async def test_a_model_is_computed_exactly(name: str) -> None:
    given = await both(architecture(name))
    expected = [alone(architecture(name), one, 24, 1.1) for one in ASKED]
    assert given == expected


@pytest.mark.parametrize("kind", REFUSED)
async def test_a_model_that_would_be_computed_wrong_is_refused(kind: str, tmp_path: Path) -> None:
    model = tiny_models.causal(kind, **REFUSED[kind])
    with pytest.raises(ModelError, match="cannot run in the torch engine") as caught:
        await both(model)
    assert "\n" not in str(caught.value)
    model.config.save_pretrained(tmp_path)
    assert f"the torch engine refuses the type {kind}" in engine_verdict(tmp_path)


def test_shapes_that_the_cache_cannot_hold_are_refused() -> None:
    query, key, value = (torch.ones(1, heads, 3, 16) for heads in (4, 2, 2))
    assert [one.shape[3] for one in fitted(2, 24, query, key, value[..., :8])] == [24] * 3
    for heads, size, three in (
        (1, 16, (query, key, value)),
        (2, 8, (query, key, value)),
        (2, 16, (query[..., :8], key, value)),
        (2, 16, (query[:, :3], key, value)),
        (2, 16, (query, key, value[:, :1])),
    ):
        with pytest.raises(ModelError, match=r"its (keys or values|queries) are of"):
            fitted(heads, size, *three)


async def test_int8_weights_are_refused_where_the_exact_ones_are() -> None:
    with pytest.raises(ModelError, match="parts that are unknown here"):
        async with engine_for(tiny_models.causal("diffllama"), int8_weights=True):
            pass


# -- the table of all types -----------------------------------------------------------------------

TABLE = json.loads(ARCHITECTURES_FILE.read_text())
SAMPLE = random.Random(7).sample(
    sorted(set(TABLE) - {kind for kind, _ in ARCHITECTURES.values()}), 4
)


def test_every_causal_type_of_transformers_is_in_the_table_and_none_is_wrong() -> None:
    assert set(TABLE) == set(kinds())
    assert {one["verdict"] for one in TABLE.values()} <= {"exact", "refused", "not built"}
    assert all(TABLE[kind]["verdict"] != "refused" for kind, _ in ARCHITECTURES.values())
    assert PAGE.read_text() == page({kind: Found(**one) for kind, one in TABLE.items()})


@pytest.mark.parametrize("kind", SAMPLE)
def test_a_type_is_what_the_table_says(kind: str) -> None:
    assert examine(kind).verdict == TABLE[kind]["verdict"]


@pytest.mark.parametrize("kind", ["bert", "gpt_neox", "llama4"])
def test_what_decides_in_a_configuration_is_what_the_table_says(kind: str) -> None:
    assert usual_of(kind) == TABLE[kind]["usual"]


# -- rotations ------------------------------------------------------------------------------------

DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
BY_LENGTH: dict[str, tuple[str, dict[str, Any]]] = {
    "longrope": ("phi3", {"sliding_window": None, "rope_parameters": tiny_models.LONGROPE}),
    "dynamic": ("llama", {"max_position_embeddings": 64, "rope_parameters": DYNAMIC}),
}


@pytest.mark.parametrize("name", BY_LENGTH)
async def test_a_short_text_is_rotated_alike_beside_a_long_one(name: str) -> None:
    kind, more = BY_LENGTH[name]
    model = tiny_models.causal(kind, **more)
    async with engine_for(model) as engine:
        alone_ = [ids_of(await reply(engine, request_for(one))) for one in ASKED]
        both_ = await asyncio.gather(*(reply(engine, request_for(one)) for one in ASKED))
    assert [ids_of(chunks) for chunks in both_] == alone_
    if name == "longrope":  # its factors are those of every long text
        long = ASKED[1]
        assert alone_[1] == alone(tiny_models.causal(kind, **more), long, 24, 1.1)


@pytest.mark.parametrize("name", BY_LENGTH)
async def test_a_context_as_it_was_trained_has_the_rotations_of_short_texts(name: str) -> None:
    kind, more = BY_LENGTH[name]
    model = tiny_models.causal(kind, **more)
    async with engine_for(model, context_length=64) as engine:
        given = ids_of(await reply(engine, request_for(ASKED[0])))
    assert given == alone(tiny_models.causal(kind, **more), ASKED[0], 24, 1.1)


# -- windows --------------------------------------------------------------------------------------

SLIDING = ["mistral 0.1", "phi 3 mini", "starcoder 2"]
LONG = [5 + 7 * n % 290 for n in range(300)]


@pytest.mark.parametrize("name", SLIDING)
async def test_a_long_text_takes_no_more_blocks_than_its_window(name: str) -> None:
    room = 6 * SIZE * CacheShape.of(architecture(name)).bytes_per_token
    async with engine_for(architecture(name), cache_bytes=room, step_tokens=32) as engine:
        given = ids_of(await reply(engine, request_for(LONG)))
        scheduler = engine._scheduler
        assert scheduler.blocks.idle == scheduler.blocks.count == 6
    assert given == alone(architecture(name), LONG, 24, 1.1)


async def test_a_text_whose_window_does_not_fit_is_refused_by_a_sentence() -> None:
    room = 2 * SIZE * CacheShape.of(architecture("mistral 0.1")).bytes_per_token
    async with engine_for(architecture("mistral 0.1"), cache_bytes=room) as engine:
        with pytest.raises(EngineRefused, match="32 is the most"):
            await reply(engine, request_for(LONG))


HALF_SLIDING = {"gemma 2": 1, "gemma 3": 1, "gpt-oss": 1, "gemma 3 27b": 6}
"""Their groups of layers that have a window, beside one that has none."""
WINDOW, STEP = 24, 32


@pytest.mark.parametrize("name", HALF_SLIDING)
async def test_layers_with_a_window_hold_no_more_than_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, computed = list[tuple[bool, int]](), Scheduler.computed

    def watched(scheduler: Scheduler, chunk: ScheduledChunk) -> None:
        held.append((chunk.count > 1, scheduler.blocks.count - scheduler.blocks.idle))
        computed(scheduler, chunk)

    monkeypatch.setattr(Scheduler, "computed", watched)
    sliding, whole = HALF_SLIDING[name], blocks_for(len(LONG) + 24)
    count = whole + sliding * blocks_held(len(LONG) + 24, WINDOW, STEP)
    room = count * CacheShape.of(architecture(name)).bytes_per_block
    async with engine_for(architecture(name), cache_bytes=room, step_tokens=STEP) as engine:
        given = ids_of(await reply(engine, request_for(LONG)))
        assert engine.stats().cache_used == 0
        with pytest.raises(EngineRefused, match=f"{whole * SIZE} is the most"):
            await reply(engine, request_for(LONG, max_new_tokens=24 + SIZE))
    assert given == alone(architecture(name), LONG, 24, 1.1)
    reading, answering = ([n for piece, n in held if piece is wanted] for wanted in (True, False))
    assert max(reading) <= whole + sliding * (blocks_for(WINDOW + STEP) + 1)
    assert max(answering) <= whole + sliding * (blocks_for(WINDOW) + 1)


@pytest.mark.parametrize("name", ["gemma 3 27b", "gpt-oss"])
async def test_long_and_short_texts_of_a_window_model_preempt_each_other(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    preempted, preempt = list[int](), Scheduler._preempt

    def watched(scheduler: Scheduler, sequence: Sequence) -> None:
        preempted.append(sequence.computed)
        preempt(scheduler, sequence)

    monkeypatch.setattr(Scheduler, "_preempt", watched)
    asked = [LONG[:length] for length in (120, 3, 70, 33, 100)]
    count = blocks_for(144) + HALF_SLIDING[name] * blocks_held(144, WINDOW, STEP)
    room = count * CacheShape.of(architecture(name)).bytes_per_block
    async with engine_for(architecture(name), cache_bytes=room, step_tokens=STEP) as engine:
        requests = [request_for(one) for one in asked]
        replies = await asyncio.gather(*(reply(engine, one) for one in requests))
        assert engine.stats().cache_used == 0
    assert preempted
    expected = [alone(architecture(name), one, 24, 1.1) for one in asked]
    assert [ids_of(chunks) for chunks in replies] == expected


@pytest.mark.parametrize(
    ("layers", "context_length", "groups", "depth"),
    [
        ({ALL: 36}, 8192, 1, 36),  # rinna
        ({4096: 32}, 8192, 1, 32),  # Mistral 0.1
        ({4096: 21, ALL: 21}, 8192, 2, 21),  # Gemma 2 9B
        ({1024: 52, ALL: 10}, 131072, 7, 10),  # Gemma 3 27B
        ({128: 18, ALL: 18}, 131072, 2, 18),  # GPT-OSS 120B
        ({4096: 24, ALL: 8}, 8192, 4, 8),  # Cohere 2
        ({4096: 1, ALL: 31}, 4097, 1, 32),  # it is not worth another group
    ],
)
def test_layers_are_grouped_so_that_a_long_text_takes_the_least_memory(
    layers: dict[int, int], context_length: int, groups: int, depth: int
) -> None:
    windows = tuple(window for window, count in layers.items() for _ in range(count))
    shape = CacheShape(len(windows), 1, 1, torch.float32, windows, context_length)
    assert (len(shape.groups), shape.depth) == (groups, depth)
    assert len(set(shape.places)) == shape.layers
    for layer, (group, place) in enumerate(shape.places):
        assert shape.groups[group].layers[place] == layer
        assert shape.groups[group].window >= windows[layer]


@pytest.mark.parametrize("name", ["mistral 0.1", "gemma 3"])
async def test_conversations_of_a_window_model_go_on_from_their_kept_beginnings(name: str) -> None:
    """Several at once, in a cache too small for all, with turns that share beginnings."""
    theirs = architecture(name)
    room = 24 * SIZE * CacheShape.of(theirs).bytes_per_token
    known = [LONG[start : start + 60] for start in (0, 0, 90, 7)]
    known[1] = [*known[1][:40], 9, 9, 9]
    async with engine_for(architecture(name), cache_bytes=room, step_tokens=24) as engine:
        cached = 0
        for turn in range(4):
            asked = [request_for(one, max_new_tokens=10) for one in known]
            replies = await asyncio.gather(*(reply(engine, one) for one in asked))
            for one, chunks in zip(known, replies, strict=True):
                assert ids_of(chunks) == alone(theirs, one, 10, 1.1)
                one += [*ids_of(chunks), 11 + turn, 12, 13]
                cached += chunks[0].cached_tokens
        assert cached > 200
        assert engine._scheduler.blocks.idle == engine._scheduler.blocks.count


def test_a_prefix_is_found_where_its_window_alone_is_kept() -> None:
    blocks = BlockManager(8)
    content = [bytes([n]) for n in range(6)]
    for digest in content:
        block = blocks.allocate()
        blocks.keep(block, (0, digest))

    def found(needed: int, *digests: bytes) -> list[int]:
        return [*blocks.match(digests or content, [needed])[0]]

    assert found(ALL) == [0, 1, 2, 3, 4, 5]
    assert found(2) == [GIVEN_BACK] * 4 + [4, 5]
    blocks.forget([(0, content[1])])
    assert found(ALL) == [0]
    assert found(2) == [GIVEN_BACK] * 4 + [4, 5]
    blocks.forget([(0, content[4])])
    assert found(2) == [GIVEN_BACK, GIVEN_BACK, 2, 3]
    blocks.forget([(0, content[3])])
    assert found(2) == [0]
    assert found(2, b"other") == []


def test_a_prefix_is_one_that_every_group_has_kept() -> None:
    blocks = BlockManager(16)
    content = [bytes([n]) for n in range(6)]
    for group in (0, 1):
        for digest in content:
            blocks.keep(blocks.allocate(), (group, digest))

    def found() -> list[list[int]]:
        return [[*table] for table in blocks.match(content, [ALL, 2])]

    assert found() == [[0, 1, 2, 3, 4, 5], [GIVEN_BACK] * 4 + [10, 11]]
    blocks.forget([(1, content[4])])
    assert found() == [[0, 1, 2, 3], [GIVEN_BACK, GIVEN_BACK, 8, 9]]
    blocks.forget([(0, content[3])])
    assert found() == [[0, 1, 2], [GIVEN_BACK, 7, 8]]
    blocks.forget([(0, content[0])])
    assert found() == [[], []]


# -- the comparison at the start ------------------------------------------------------------------


async def start(settings: Settings, spec: ModelSpec) -> list[str]:
    """Start an engine and end it: its stages."""
    stages: list[str] = []

    async with started(settings, spec, stages.append):
        return stages


@asynccontextmanager
async def started(
    settings: Settings, spec: ModelSpec, progress: Callable[[LoadingStage], None]
) -> AsyncIterator[TorchEngine]:
    def load() -> PreTrainedModel:
        where = Path(spec.source)
        return load_weights(spec, where, dtype="float32", device="cpu", progress=print)

    engine = await open_torch_engine(settings, spec, load, progress)
    try:
        yield engine
    finally:
        await engine.close()


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models whose own attention was computed, one for each start."""
    seen, reference_of = list[str](), verification.reference_of

    def watched(model: PreTrainedModel, shape: CacheShape) -> verification.Reference:
        seen.append(model.config.model_type)
        return reference_of(model, shape)

    monkeypatch.setattr(torch_engine, "reference_of", watched)
    return seen


def tiny_settings(tmp_path: Path, **more: Any) -> Settings:
    files = tiny_models.llama(tmp_path / "model")
    return Settings(model=str(files), data_dir=tmp_path / "data", cache_gb=0.01, **more)


async def test_a_model_is_compared_at_its_first_start_alone(
    tmp_path: Path, compared: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny_settings(tmp_path)
    spec = find_model(settings)
    for start_number in range(3):  # the free memory, and so the cache, is another each time
        cache = 0.01 + start_number / 1000
        await start(settings.model_copy(update={"cache_gb": cache}), spec)
    assert len(compared) == 1
    await start(settings, replace(spec, context_length=256))
    assert len(compared) == 2
    tiny_models.llama(tmp_path / "model", seed=1)  # other weights
    await start(settings, spec)
    assert len(compared) == 3
    monkeypatch.setattr(verification, "version", lambda name: f"{name} of tomorrow")
    await start(settings, spec)
    assert len(compared) == 4


async def test_int8_weights_are_traced_once_where_the_model_was_compared(tmp_path: Path) -> None:
    settings = tiny_settings(tmp_path, int8_weights=True)
    first, second = [await start(settings, find_model(settings)) for _ in range(2)]
    assert first.count("trace") == 2  # exact, and rounded
    assert second == ["kernels"]


async def test_a_compared_model_answers_first_and_is_traced_in_a_quiet_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch_engine, "_QUIET", 0.05)
    settings = tiny_settings(tmp_path)
    spec, traced = find_model(settings), asyncio.Event()
    loop, request = asyncio.get_running_loop(), request_for([*range(5, 60)])
    trace = TracedRunner._trace

    def watched(self: TracedRunner, *, compare: bool) -> None:
        trace(self, compare=compare)
        loop.call_soon_threadsafe(traced.set)

    async with started(settings, spec, print) as engine:
        expected = ids_of(await reply(engine, request))
    monkeypatch.setattr(TracedRunner, "_trace", watched)
    with caplog.at_level(logging.INFO):
        async with started(settings, spec, print) as engine:
            runner = engine._runner
            assert isinstance(runner, TracedRunner)
            assert ids_of(await reply(engine, request)) == expected
            await traced.wait()
            assert isinstance(runner._compute, torch.jit.ScriptModule)
            again = await reply(engine, request)
    assert again[0].cached_tokens == 48  # the trace gave the first page back
    assert ids_of(again) == expected
    assert "not traced" not in caplog.text


async def test_a_refused_model_is_refused_again(tmp_path: Path, compared: list[str]) -> None:
    settings = tiny_settings(tmp_path)
    files = Path(settings.model)
    tiny_models.causal("diffllama").save_pretrained(files)
    for _ in range(2):
        with pytest.raises(ModelError, match="cannot run in the torch engine"):
            await start(settings, find_model(settings))
    assert len(compared) == 2


async def test_a_model_starts_where_the_comparison_cannot_be_kept(
    tmp_path: Path, compared: list[str]
) -> None:
    settings = tiny_settings(tmp_path)
    settings.data_dir.mkdir()
    (settings.data_dir / "verified").write_text("a file where a folder should be")
    for _ in range(2):
        await start(settings, find_model(settings))
    assert len(compared) == 2
