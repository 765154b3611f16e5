"""The engine that needs no model: it answers `echo: ` and the text of the newest turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from core.dialogue.echo import ASSISTANT, USER
from core.engine_types import Chunk, EngineStats, GenerationRequest
from core.errors import EngineRefused
from core.types import FinishReason

SLOTS = 1_000
_CHUNK = 64
"""Code points a chunk, at unlimited speed."""


class EchoEngine:
    """Streams `echo: TEXT`, a code point a token; prompts are those of the `echo` dialogue."""

    def __init__(self, tokens_per_second: float = 0.0) -> None:
        """`tokens_per_second` 0: at once, in a few chunks."""
        self._pace = tokens_per_second
        self._running = 0

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        reply = _reply_to(request.prompt)
        wanted = reply[: request.max_new_tokens]
        reason: FinishReason = "stop" if len(wanted) == len(reply) else "length"
        self._running += 1
        try:
            async for ids in self._paced(wanted):
                yield Chunk(ids=ids)
            yield Chunk(finish_reason=reason)
        finally:
            self._running -= 1

    def stats(self) -> EngineStats:
        slots = max(0, SLOTS - self._running)
        return EngineStats(running=self._running, slots=slots, tokens_per_second=self._pace)

    async def close(self) -> None:
        """Do nothing: there are no resources."""

    async def _paced(self, ids: tuple[int, ...]) -> AsyncIterator[tuple[int, ...]]:
        clock = asyncio.get_running_loop()
        start, size = clock.time(), 1 if self._pace else _CHUNK
        for at in range(0, len(ids), size):
            if self._pace:
                # Against the start, so that a late wake-up does not slow the whole reply.
                due = start + (at + 1) / self._pace
                await asyncio.sleep(max(0.0, due - clock.time()))
            yield ids[at : at + size]


def _reply_to(prompt: Sequence[int]) -> tuple[int, ...]:
    """The reply, without the part that the prompt has already."""
    whole = (*map(ord, "echo: "), *_newest_user_turn(prompt))
    last = max(at for at, id_ in enumerate(prompt) if id_ >= USER)
    said = tuple(prompt[last + 1 :]) if prompt[last] == ASSISTANT else ()
    return whole[len(said) :] if whole[: len(said)] == said else whole


def _newest_user_turn(prompt: Sequence[int]) -> Sequence[int]:
    """The code points between the last USER control and the control that follows it."""
    users = [at for at, id_ in enumerate(prompt) if id_ == USER]
    if not users:
        raise EngineRefused("the prompt holds no user turn for the echo engine to repeat")
    start = users[-1] + 1
    end = next((at for at in range(start, len(prompt)) if prompt[at] >= ASSISTANT), len(prompt))
    return prompt[start:end]
