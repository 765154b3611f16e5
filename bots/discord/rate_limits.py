"""When the bot may send, by Discord's rate-limit headers.

Only the newest text of a growing reply matters, so intermediate edits are never queued:
`RateLimiter.acquire` returns when one more request may go out, and the text is chosen then. Final
texts go first, and every bucket keeps room for them.

Before the first header, one request at a time is let through: its answer has the figures.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import itertools
import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace

import aiohttp

from core.observe import metrics

GLOBAL = ""
"""The key of the limit over all channels; interactions are exempt from it."""
GLOBAL_LIMIT = 40
"""Requests a second. Discord allows 50, and discord.py sends a few that are not counted here."""
RESERVED = 2
"""Requests of a bucket that intermediate edits leave: one for a final text, and one because
discord.py delays the request that took the last."""
DEFAULT_SECONDS = 1.0
"""The length of a bucket's window before the first header."""
MAX_BUCKETS = 4096


@dataclass(slots=True)
class Bucket:
    """One rate limit: `left` requests until it is full again at `resets`."""

    limit: int = 1
    seconds: float = DEFAULT_SECONDS
    left: int = 1
    resets: float = 0.0
    waiting: list[tuple[bool, int]] = field(default_factory=list)
    """A heap of tickets: final texts first, then in order of arrival."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def delay(self, now: float, *, final: bool) -> float:
        """Seconds until one more request may go out; 0: now."""
        if now >= self.resets:
            return 0.0
        reserve = 0 if final else min(RESERVED, self.limit - 1)
        return 0.0 if self.left > reserve else self.resets - now

    def spend(self, now: float) -> None:
        if now >= self.resets:
            self.left, self.resets = self.limit, now + self.seconds
        self.left -= 1


@dataclass(slots=True)
class RollingBucket(Bucket):
    """At most `limit` requests in any `seconds`, wherever Discord's own window begins."""

    taken: deque[float] = field(default_factory=deque)

    def delay(self, now: float, *, final: bool) -> float:
        if self.left == 0 and now < self.resets:  # after a 429
            return self.resets - now
        while self.taken and self.taken[0] <= now - self.seconds:
            self.taken.popleft()
        room = self.limit - (0 if final else self.limit // 4)
        return 0.0 if len(self.taken) < room else self.taken[-room] + self.seconds - now

    def spend(self, now: float) -> None:
        self.left = self.limit
        self.taken.append(now)


class RateLimiter:
    """The buckets of one bot in one process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tickets = itertools.count()
        self._buckets: dict[str, Bucket] = {}
        self._buckets[GLOBAL] = RollingBucket(GLOBAL_LIMIT, 1.0, GLOBAL_LIMIT)

    async def acquire(self, key: str, *, final: bool) -> None:
        """Wait until one more request of this bucket may go out, and count it."""
        bucket = self._bucket(key)
        ticket = (not final, next(self._tickets))
        heapq.heappush(bucket.waiting, ticket)
        try:
            while (delay := self._delay(bucket, ticket)) is None or delay > 0:
                bucket.changed.clear()
                await _wait(bucket.changed, delay)
            bucket.spend(self._clock())
        finally:
            bucket.waiting.remove(ticket)
            heapq.heapify(bucket.waiting)
            bucket.changed.set()

    def try_acquire(self, key: str) -> bool:
        """Count an optional request, if it may go out at once."""
        bucket = self._bucket(key)
        if bucket.waiting or bucket.delay(self._clock(), final=False) > 0:
            return False
        bucket.spend(self._clock())
        return True

    def observe(self, key: str, headers: Mapping[str, str], status: int) -> None:
        """Update a bucket by an answer's headers."""
        bucket, now = self._bucket(key), self._clock()
        if status == 429:
            metrics.RATE_LIMITED.labels("discord", key.partition(" ")[0]).inc()
            wait = float(headers.get("Retry-After", DEFAULT_SECONDS))
            bucket.left, bucket.resets = 0, now + wait
        elif "X-RateLimit-Remaining" in headers:
            self._adjust(bucket, headers, now)
        bucket.changed.set()

    def _adjust(self, bucket: Bucket, headers: Mapping[str, str], now: float) -> None:
        left = int(headers["X-RateLimit-Remaining"])
        after = float(headers.get("X-RateLimit-Reset-After", DEFAULT_SECONDS))
        # a late answer must not give back requests that others took since
        same = now < bucket.resets and bucket.limit > 1
        bucket.left = min(left, bucket.left) if same else left
        bucket.limit = int(headers.get("X-RateLimit-Limit", bucket.limit))
        bucket.seconds = max(bucket.seconds, after) if same else max(after, DEFAULT_SECONDS)
        bucket.resets = now + after

    def _delay(self, bucket: Bucket, ticket: tuple[bool, int]) -> float | None:
        """Seconds to wait; None: until the ticket ahead is done."""
        if bucket.waiting[0] != ticket:
            return None
        return bucket.delay(self._clock(), final=not ticket[0])

    def _bucket(self, key: str) -> Bucket:
        if key not in self._buckets:
            if len(self._buckets) >= MAX_BUCKETS:
                self._drop_stale()
            self._buckets[key] = Bucket()
        return self._buckets[key]

    def _drop_stale(self) -> None:
        now = self._clock()
        stale = [k for k, b in self._buckets.items() if k and not b.waiting and b.resets < now]
        for key in stale:
            del self._buckets[key]


async def _wait(event: asyncio.Event, seconds: float | None) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


# -- buckets by request -------------------------------------------------------------------------

_CHANNEL = re.compile(r"/channels/(\d+)/messages(?:/\d+)?$")
_THREADS = re.compile(r"/channels/(\d+)/messages/\d+/threads$")
_TYPING = re.compile(r"/channels/(\d+)/typing$")
_WEBHOOK = re.compile(r"/webhooks/\d+/([^/]+)")


def edit_key(channel: str) -> str:
    """The bucket of a channel's edits."""
    return f"PATCH {channel}"


def post_key(channel: str) -> str:
    """The bucket of a channel's new messages."""
    return f"POST {channel}"


def threads_key(channel: str) -> str:
    """The bucket of a channel's new threads."""
    return f"threads {channel}"


def typing_key(channel: str) -> str:
    """The bucket of a channel's typing indicator."""
    return f"typing {channel}"


def token_key(token: str) -> str:
    """The bucket of an interaction's messages, without the token itself."""
    return f"hook {hashlib.sha256(token.encode()).hexdigest()[:16]}"


def tracing(limiter: RateLimiter) -> aiohttp.TraceConfig:
    """Pass every answer's rate-limit headers to the limiter; for the client's HTTP session."""

    async def ended(
        session: aiohttp.ClientSession,
        context: SimpleNamespace,
        answer: aiohttp.TraceRequestEndParams,
    ) -> None:
        key = _key_of(answer.method, answer.url.path)
        if key:
            limiter.observe(key, answer.response.headers, answer.response.status)
        if answer.response.headers.get("X-RateLimit-Global"):
            limiter.observe(GLOBAL, answer.response.headers, answer.response.status)

    config = aiohttp.TraceConfig()
    config.on_request_end.append(ended)
    return config


def _key_of(method: str, path: str) -> str:
    if webhook := _WEBHOOK.search(path):
        return token_key(webhook[1])
    if parent := _THREADS.search(path):
        return threads_key(parent[1])
    if typed := _TYPING.search(path):
        return typing_key(typed[1])
    channel = _CHANNEL.search(path)
    return f"{method} {channel[1]}" if channel else ""
