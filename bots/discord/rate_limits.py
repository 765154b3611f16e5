"""How fast the bot may speak: what Discord's rate-limit headers allow, and no faster.

A reply's intermediate edits are worth nothing once a newer text is there, so nobody queues them:
`Pace.turn` returns when one more request may go out, and the text is chosen after that. Finished
texts go first, and a place in every window is kept for them.

Without a header yet, one request at a time is let through: its answer brings the figures.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from core.observe import metrics

EVERYWHERE = ""
"""The key of the limit over all channels; interactions are exempt from it."""
EVERYWHERE_LIMIT = 40
"""Requests a second: Discord allows 50, and discord.py sends a few that are not counted here."""
KEPT_FREE = 2
"""Places in a window that intermediate updates leave: one for a final text, and one because
discord.py holds back whoever took the last."""
GUESS_SECONDS = 1.0
"""How long a window lasts before a header has said so."""
MOST_WINDOWS = 4096


@dataclass(slots=True)
class Window:
    """One bucket: so many requests until it is full again at `resets`."""

    limit: int = 1
    seconds: float = GUESS_SECONDS
    left: int = 1
    resets: float = 0.0
    waiting: list[tuple[bool, int]] = field(default_factory=list)
    """Tickets, finished texts first and then in order."""
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def delay(self, now: float, *, final: bool) -> float:
        """Seconds until one more request may go out; 0: now."""
        if now >= self.resets:
            return 0.0
        keep = 0 if final else min(KEPT_FREE, self.limit - 1)
        return 0.0 if self.left > keep else self.resets - now

    def take(self, now: float) -> None:
        if now >= self.resets:
            self.left, self.resets = self.limit, now + self.seconds
        self.left -= 1


@dataclass(slots=True)
class Rolling(Window):
    """No more than so many requests in any `seconds`, wherever Discord's own window begins."""

    taken: deque[float] = field(default_factory=deque)

    def delay(self, now: float, *, final: bool) -> float:
        if self.left == 0 and now < self.resets:  # refused
            return self.resets - now
        while self.taken and self.taken[0] <= now - self.seconds:
            self.taken.popleft()
        room = self.limit - (0 if final else self.limit // 4)
        return 0.0 if len(self.taken) < room else self.taken[-room] + self.seconds - now

    def take(self, now: float) -> None:
        self.left = self.limit
        self.taken.append(now)


class Pace:
    """The windows of one bot, in one process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tickets = itertools.count()
        self._windows: dict[str, Window] = {}
        self._windows[EVERYWHERE] = Rolling(EVERYWHERE_LIMIT, 1.0, EVERYWHERE_LIMIT)

    async def turn(self, key: str, *, final: bool) -> None:
        """Wait until one more request may go out in this window, and count it."""
        window = self._window(key)
        ticket = (not final, next(self._tickets))
        heapq.heappush(window.waiting, ticket)
        try:
            while (delay := self._delay(window, ticket)) is None or delay > 0:
                window.news.clear()
                await _until(window.news, delay)
            window.take(self._clock())
        finally:
            window.waiting.remove(ticket)
            heapq.heapify(window.waiting)
            window.news.set()

    def has_room(self, key: str) -> bool:
        """Whether an unimportant request would be let through at once; counted if so."""
        window = self._window(key)
        if window.waiting or window.delay(self._clock(), final=False) > 0:
            return False
        window.take(self._clock())
        return True

    def observe(self, key: str, headers: Mapping[str, str], status: int) -> None:
        """Take over what an answer's headers say about its window."""
        window, now = self._window(key), self._clock()
        if status == 429:
            metrics.RATE_LIMITED.labels("discord", key.partition(" ")[0]).inc()
            window.left, window.resets = 0, now + float(headers.get("Retry-After", GUESS_SECONDS))
        elif "X-RateLimit-Remaining" in headers:
            self._adjust(window, headers, now)
        window.news.set()

    def _adjust(self, window: Window, headers: Mapping[str, str], now: float) -> None:
        left = int(headers["X-RateLimit-Remaining"])
        after = float(headers.get("X-RateLimit-Reset-After", GUESS_SECONDS))
        # an answer that was overtaken must not give back what others took since
        same = now < window.resets and window.limit > 1
        window.left = min(left, window.left) if same else left
        window.limit = int(headers.get("X-RateLimit-Limit", window.limit))
        window.seconds = max(window.seconds, after) if same else max(after, GUESS_SECONDS)
        window.resets = now + after

    def _delay(self, window: Window, ticket: tuple[bool, int]) -> float | None:
        """Seconds to wait; None: until someone in front has gone."""
        if window.waiting[0] != ticket:
            return None
        return window.delay(self._clock(), final=not ticket[0])

    def _window(self, key: str) -> Window:
        if key not in self._windows:
            if len(self._windows) >= MOST_WINDOWS:
                self._forget_old()
            self._windows[key] = Window()
        return self._windows[key]

    def _forget_old(self) -> None:
        now = self._clock()
        stale = [k for k, w in self._windows.items() if k and not w.waiting and w.resets < now]
        for key in stale:
            del self._windows[key]


async def _until(news: asyncio.Event, seconds: float | None) -> None:
    try:
        async with asyncio.timeout(seconds):
            await news.wait()
    except TimeoutError:
        return
