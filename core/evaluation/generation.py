"""A model's answers to the prompts, from our own engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from core.dialogue import Dialogue
from core.engine_types import GenerationRequest
from core.errors import TurnTooLong
from core.evaluation.counting import Side
from core.evaluation.prompts import Answer, Prompt
from core.ports import Engine
from core.types import FinishReason, Job

_AHEAD = 2
"""Requests for each place of the engine, so that none is free while the next is prepared."""


async def answers(
    engine: Engine, dialogue: Dialogue, prompts: Sequence[Prompt], side: Side, seed: int
) -> AsyncGenerator[Answer, None]:
    """The answers as they come, each with a seed that follows from `seed` and its prompt's id.

    A prompt that does not fit the model has an empty answer that says so. Raises EngineError.
    """
    room = asyncio.Semaphore(_AHEAD * max(1, engine.stats().places))

    async def answer(prompt: Prompt) -> Answer:
        async with room:
            return await _answer(engine, dialogue, prompt, side, seed)

    tasks = [asyncio.create_task(answer(prompt)) for prompt in prompts]
    try:
        for done in asyncio.as_completed(tasks):
            yield await done
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def seed_of(prompt: str, seed: int) -> int:
    """The sampling seed of a prompt: the same for both models."""
    return Job.seed_for(f"{seed}\n{prompt}")


async def _answer(
    engine: Engine, dialogue: Dialogue, prompt: Prompt, side: Side, seed: int
) -> Answer:
    if prompt.system is not None:
        dialogue = dialogue.with_spec(dialogue.spec, prompt.system)
    own = seed_of(prompt.id, seed)
    try:
        ids = dialogue.prompt(prompt.turns, low_water=1.0).ids
    except TurnTooLong:
        return Answer(prompt.id, side, "", "too long", 0, own)
    request = GenerationRequest(
        id=f"{side}.{prompt.id}",
        prompt=ids,
        sampling=dialogue.spec.sampling,
        max_new_tokens=dialogue.spec.max_new_tokens,
        seed=own,
        stop_ids=dialogue.stop_ids,
        stop_sequences=dialogue.stop_sequences,
    )
    text, reason, tokens = await _reply(engine, dialogue, request)
    return Answer(prompt.id, side, text, "stop" if reason == "cancelled" else reason, tokens, own)


async def _reply(
    engine: Engine, dialogue: Dialogue, request: GenerationRequest
) -> tuple[str, FinishReason, int]:
    reply = dialogue.reply()
    reason: FinishReason = "stop"
    async with aclosing(engine.generate(request)) as chunks:
        async for chunk in chunks:
            reply.push(chunk.ids, chunk.text)
            if ended := reply.finish_reason or chunk.finish_reason:
                reason = ended
                break
    text, finish_reason = reply.finish(reason)
    return text, finish_reason, reply.tokens
