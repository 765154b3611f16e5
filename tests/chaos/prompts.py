"""Every prompt that a core of the chaos gives to its engine, and the moment that it was read."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from core.dialogue.echo import END, CodepointTokenizer
from core.engine.echo import EchoEngine
from core.engine_types import Chunk, GenerationRequest
from core.ports import History, JobQueue
from core.queue_types import Claim, Window
from core.types import ThreadKey

_TEXT = CodepointTokenizer()


@dataclass(frozen=True, slots=True)
class ReadPrompt:
    """The turns of one prompt, as texts, oldest first."""

    job: str
    thread: ThreadKey
    at: float
    """When its turns were asked for: later changes may be missing, earlier ones may not."""
    texts: Sequence[str]


@dataclass
class Prompts:
    """All prompts of a schedule, by whichever core."""

    read: list[ReadPrompt] = field(default_factory=list)
    asked: dict[str, tuple[ThreadKey, float]] = field(default_factory=dict)
    """By the engine's request id: when a claim's turns were asked for."""

    def ask(self, claim: Claim, at: float) -> None:
        self.asked[f"{claim.job.id}.{claim.gen}"] = (claim.job.thread, at)

    def give(self, request: GenerationRequest) -> None:
        thread, at = self.asked[request.id]
        turns = _turns(request.prompt)
        self.read.append(ReadPrompt(request.id, thread, at, turns))


def _turns(prompt: Sequence[int]) -> list[str]:
    """The texts of the turns that a prompt holds whole."""
    texts, start = [], 0
    for at, id_ in enumerate(prompt):
        if id_ == END:
            texts.append(_TEXT.decode(prompt[start:at]))
            start = at + 1
    return texts


class RecordingEngine(EchoEngine):
    """The echo engine, which also keeps each prompt, and begins each reply with its own word."""

    def __init__(self, tokens_per_second: float, prompts: Prompts, word: str = "echo") -> None:
        super().__init__(tokens_per_second)
        self._prompts, self._word = prompts, tuple(map(ord, word))

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        self._prompts.give(request)
        at = 0
        async for chunk in super().generate(request):
            word = self._word[at : at + len(chunk.ids)]
            at += len(chunk.ids)
            yield replace(chunk, ids=word + chunk.ids[len(word) :])


def recorded(prompts: Prompts, queue: JobQueue, history: History) -> tuple[JobQueue, History]:
    """The same ports, which tell `prompts` when a core asks for a job's turns."""
    return (
        cast("JobQueue", _Recorded(queue, "claim", prompts)),
        cast("History", _Recorded(history, "window", prompts)),
    )


class _Recorded:
    def __init__(self, port: object, name: str, prompts: Prompts) -> None:
        self._port, self._name, self._prompts = port, name, prompts

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)
        if name != self._name:
            return method
        return self._claim(method) if name == "claim" else self._window(method)

    def _claim(self, method: Callable[..., Awaitable[Sequence[Claim]]]) -> Any:
        async def claim(*arguments: Any, **options: Any) -> Sequence[Claim]:
            at = time.monotonic()
            claims = await method(*arguments, **options)
            for found in claims:
                self._prompts.ask(found, at)
            return claims

        return claim

    def _window(self, method: Callable[[Claim], Awaitable[Window]]) -> Any:
        async def window(claim: Claim) -> Window:
            if claim.window is None:
                self._prompts.ask(claim, time.monotonic())
            return await method(claim)

        return window
