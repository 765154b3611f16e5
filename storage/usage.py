"""What people, channels and models have used, day by day: the counts of the quotas."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

from core.access_policy import DayCounts, Quota
from core.queue_types import DailyTotal, Place, Spent
from core.types import ThreadKey
from storage import keys
from storage.store import Store

UsedBy: TypeAlias = Literal["person", "channel", "model"]

DAY_MS = 1000 * keys.DAY
KINDS = ("messages", "tokens")
COUNTS = tuple(field.name for field in fields(DayCounts))


class RedisUsage:
    """Reads the counts. Scripts write them: see scripts/lib/quotas.lua."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def today(self, thread: ThreadKey, person: str, quota: Quota) -> Spent:
        """What a person has used in this space and in all, and all people in this channel."""
        day = _today(quota.offset_ms)
        space = Place(thread.platform, thread.space)
        whole = (
            f"person {space}:{person}",
            f"channel {Place(thread.platform, thread.space, thread.channel)}",
            _everywhere(thread, person),
        )
        counts = await self._sum(self._store.all_buckets(), day, whole)
        until = ((day + 1) * DAY_MS - quota.offset_ms) / 1000
        return Spent(**dict(zip(COUNTS, counts, strict=True)), until=until)

    async def elsewhere(self, quota: Quota, thread: ThreadKey, person: str) -> Mapping[str, int]:
        """Messages and tokens of today in the buckets that the script of `thread` cannot read."""
        own = self._store.bucket(thread)
        others = [bucket for bucket in self._store.all_buckets() if bucket != own]
        day = _today(quota.offset_ms)
        messages, tokens = await self._sum(others, day, (_everywhere(thread, person),))
        return {"elsewhere_messages": messages, "elsewhere_tokens": tokens}

    async def _sum(self, buckets: Iterable[int], day: int, whole: Sequence[str]) -> Sequence[int]:
        """Messages and tokens of each, in buckets that are there."""
        names = [f"{kind} {who}" for who in whole for kind in KINDS]

        async def step(bucket: int) -> Sequence[int]:
            used, kept = [
                await self._store.command("hmget", keys.key(name, bucket, str(day)), *names)
                for name in ("used", "spent")
            ]
            both = zip(used, kept, strict=True)
            return [max(0, int(one or 0) + int(other or 0)) for one, other in both]

        answers, _ = await self._store.each(buckets, step)
        return [sum(column) for column in zip(*answers.values(), strict=True)]

    async def totals(self, by: UsedBy, days: int, offset_ms: int) -> Sequence[DailyTotal]:
        """What each has used on each of the newest days, the oldest day first."""
        newest = _today(offset_ms)
        found: list[DailyTotal] = []
        for day in range(newest - days + 1, newest + 1):
            counts: dict[str, list[int]] = {}
            for bucket in self._store.all_buckets():
                name = keys.key("used", bucket, str(day))
                _add(counts, await self._store.command("hgetall", name), by)
            date = datetime.fromtimestamp(day * keys.DAY, UTC).date().isoformat()
            used = [(who, numbers) for who, numbers in sorted(counts.items()) if any(numbers)]
            found += [DailyTotal(date, who, *numbers) for who, numbers in used]
        return found


def _add(counts: dict[str, list[int]], stored: Mapping[str, Any], by: UsedBy) -> None:
    """Add one bucket's counts of a day. One below zero is of a message that was given back after
    its person had been forgotten."""
    for field, count in stored.items():
        kind, whose, who = [*field.split(" ", 2), "", ""][:3]
        if whose == by and kind in KINDS:
            counts.setdefault(who, [0, 0])[KINDS.index(kind)] += max(0, int(count))


def _everywhere(thread: ThreadKey, person: str) -> str:
    return f"everywhere {thread.platform}:{person}"


def _today(offset_ms: int) -> int:
    """The number of the day that it is now, where the clock is so far ahead of UTC."""
    return int((time.time() * 1000 + offset_ms) // DAY_MS)
