"""How fast an engine has been of late."""

from __future__ import annotations

from collections import deque

_WINDOW = 10.0
"""Seconds that tokens a second are counted over."""
_NEWEST_WEIGHT = 0.2
"""The weight of the newest value in a mean of late."""


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
