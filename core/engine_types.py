"""A request to an engine, the chunks that come back, and the engine's state and speed."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from core.types import FinishReason, Sampling, Thinking, Usage

LoadingStage: TypeAlias = Literal["files", "libraries", "weights", "kernels", "trace", "comparison"]
"""The stages of loading a model, with the torch engine."""
LOADING_STAGES: Sequence[LoadingStage] = get_args(LoadingStage)
"""In their order."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One reply to generate. `prompt` is the whole prompt, as token ids."""

    id: str
    prompt: Sequence[int]
    sampling: Sampling
    max_new_tokens: int
    seed: int
    stop_ids: frozenset[int] = frozenset()
    """Ids that end the reply: they are not part of it."""
    stop_sequences: tuple[tuple[int, ...], ...] = ()
    """Runs of ids that end the reply; the run itself has been yielded when it is noticed."""
    thinking: Thinking = "default"
    """For a server that writes the prompt itself: elsewhere it is in the prompt."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """The engine's output since the last chunk. The last chunk has a finish reason."""

    ids: tuple[int, ...] = ()
    text: str | None = None
    """Only from a remote server that gives no ids."""
    finish_reason: FinishReason | None = None
    cached_tokens: int = 0
    """In the first chunk: the number of prompt tokens that were in the cache."""
    usage: Usage | None = None
    """The cost of the reply so far, as a remote server counts it; in the last chunk, of all."""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """The state of an engine, for admission and metrics."""

    running: int = 0
    waiting: int = 0
    slots: int = 1
    """The number of requests that it would take now."""
    cache_used: float = 0.0
    """The part of the key-value cache in use, 0 to 1."""
    tokens_per_second: float = 0.0
    time_to_first_token: float = 0.0
    """Seconds; a moving average."""
    prefix_hit_rate: float = 0.0


_WINDOW = 10.0
"""Seconds that tokens a second are counted over."""
_NEWEST_WEIGHT = 0.2
"""The weight of the newest value in a moving average."""


class Throughput:
    """Figures for `EngineStats`. Times are seconds of one clock."""

    def __init__(self) -> None:
        self.first_token = 0.0
        """Seconds from a request's arrival to its first token."""
        self.request_tokens = 0.0
        """Tokens that a finished request had, prompt and reply."""
        self._tokens: deque[tuple[float, int]] = deque()

    def started(self, seconds: float) -> None:
        """A request has its first token, so long after it arrived."""
        self.first_token = _moving_average(self.first_token, seconds)

    def finished(self, tokens: int) -> None:
        """A request has ended with so many tokens."""
        self.request_tokens = _moving_average(self.request_tokens, tokens)

    def sampled(self, tokens: int, now: float) -> None:
        self._tokens.append((now, tokens))
        while self._tokens[0][0] < now - _WINDOW:
            self._tokens.popleft()

    def tokens_per_second(self, now: float) -> float:
        """Over the window, or over the time since its first token if that is less."""
        recent = [(at, tokens) for at, tokens in self._tokens.copy() if at >= now - _WINDOW]
        if not recent:
            return 0.0
        return sum(tokens for _, tokens in recent) / max(now - recent[0][0], 0.1)


def _moving_average(of_late: float, newest: float) -> float:
    return of_late + (newest - of_late) * _NEWEST_WEIGHT if of_late else newest
