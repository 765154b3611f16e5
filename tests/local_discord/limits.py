"""Rate limits, as Discord tells them in headers.

The shape is documented (developers/docs, topics/rate-limits): a bucket a route and major
parameter, ``X-RateLimit-*`` on every answer, 429 with ``retry_after``, 50 requests a second over
all. The figures are not: the bucket sizes here are what clients have observed, and a guess.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Limit:
    """So many requests a window of so many seconds."""

    requests: int
    seconds: float


LIMITS: Mapping[str, Limit] = {
    "post": Limit(5, 5.0),
    "edit": Limit(5, 5.0),
    "remove": Limit(5, 5.0),
    "typing": Limit(5, 5.0),
    "history": Limit(5, 5.0),
    "thread": Limit(10, 10.0),
    "webhook": Limit(5, 2.0),
}
"""Kind of route -> limit for each channel, or token."""
GLOBAL = Limit(50, 1.0)


@dataclass(slots=True)
class Bucket:
    """One bucket's window: it opens with the first request in it."""

    limit: Limit
    opened: float = 0.0
    used: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of the rate limits to one request."""

    headers: Mapping[str, str]
    retry_after: float = 0.0
    everywhere: bool = False


@dataclass(slots=True)
class Limits:
    """All buckets of one local Discord."""

    limits: Mapping[str, Limit] = field(default_factory=lambda: dict(LIMITS))
    overall: Limit = GLOBAL
    _buckets: dict[tuple[str, str], Bucket] = field(default_factory=dict)

    def ask(self, kind: str, major: str) -> Verdict:
        """Count one request of this kind for this channel or token."""
        if kind not in self.limits:
            return Verdict({})
        if kind != "webhook" and (wait := self._take("", "", self.overall)[1]):
            return Verdict({"X-RateLimit-Global": "true"}, wait, everywhere=True)
        bucket, wait = self._take(kind, major, self.limits[kind])
        return Verdict(_headers(kind, bucket), wait)

    def _take(self, kind: str, major: str, limit: Limit) -> tuple[Bucket, float]:
        now = time.monotonic()
        bucket = self._buckets.setdefault((kind, major), Bucket(limit))
        if now >= bucket.opened + limit.seconds:
            bucket.opened, bucket.used = now, 0
        if bucket.used >= limit.requests:
            return bucket, bucket.opened + limit.seconds - now
        bucket.used += 1
        return bucket, 0.0


def _headers(kind: str, bucket: Bucket) -> Mapping[str, str]:
    left = max(0.0, bucket.opened + bucket.limit.seconds - time.monotonic())
    return {
        "X-RateLimit-Limit": str(bucket.limit.requests),
        "X-RateLimit-Remaining": str(bucket.limit.requests - bucket.used),
        "X-RateLimit-Reset": f"{time.time() + left:.3f}",
        "X-RateLimit-Reset-After": f"{left:.3f}",
        "X-RateLimit-Bucket": f"bucket-{kind}",
    }
