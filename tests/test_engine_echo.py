"""The echo engine: a reply without a model."""

from __future__ import annotations

import asyncio
import time

import pytest

from core.dialogue.echo import ASSISTANT, END, USER
from core.engine.echo import EchoEngine
from core.engine_types import Chunk, GenerationRequest
from core.errors import EngineRefused
from core.types import Sampling


def _prompt(*turns: str) -> list[int]:
    ids: list[int] = []
    for number, text in enumerate(turns):
        ids += [ASSISTANT if number % 2 else USER, *map(ord, text), END]
    return [*ids, ASSISTANT]


def _request(prompt: list[int], max_new_tokens: int = 1_000) -> GenerationRequest:
    return GenerationRequest("r", prompt, Sampling(), max_new_tokens, seed=0)


async def _chunks(engine: EchoEngine, request: GenerationRequest) -> list[Chunk]:
    return [chunk async for chunk in engine.generate(request)]


def _text(chunks: list[Chunk]) -> str:
    return "".join(chr(id_) for chunk in chunks for id_ in chunk.ids)


async def test_the_newest_users_turn_comes_back_at_once() -> None:
    chunks = await _chunks(EchoEngine(), _request(_prompt("古い", "echo: 古い", "新しい 🙂")))
    assert _text(chunks) == "echo: 新しい 🙂"
    assert [chunk.finish_reason for chunk in chunks][-1] == "stop"
    assert len(chunks) == 2


async def test_a_reply_stops_at_the_longest_length_asked_for() -> None:
    chunks = await _chunks(EchoEngine(), _request(_prompt("hello"), max_new_tokens=8))
    assert _text(chunks) == "echo: he"
    assert chunks[-1].finish_reason == "length"


async def test_a_pace_is_kept_one_code_point_at_a_time() -> None:
    start = time.monotonic()
    chunks = await _chunks(EchoEngine(tokens_per_second=100), _request(_prompt("abcd")))
    assert all(len(chunk.ids) == 1 for chunk in chunks[:-1])
    assert time.monotonic() - start >= 0.09


async def test_closing_the_iterator_gives_the_place_back() -> None:
    engine = EchoEngine(tokens_per_second=1_000)
    stream = engine.generate(_request(_prompt("a long story")))
    await anext(stream)
    assert engine.stats().running == 1
    await stream.aclose()
    assert engine.stats().running == 0


async def test_a_prompt_without_a_user_is_refused() -> None:
    with pytest.raises(EngineRefused):
        await asyncio.wait_for(_chunks(EchoEngine(), _request([ASSISTANT])), 5)
