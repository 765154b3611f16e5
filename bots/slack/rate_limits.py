"""Slack's rate limits: per method and workspace, and per channel for posts.

Slack's tiers are "at least so many a minute"; the bot uses nine tenths of each. The last update of
every reply under way is reserved; intermediate updates share the rest.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from core.queue_types import Delivery
from core.types import Bounded

PER_MINUTE = {
    "chat.startStream": 20,
    "chat.stopStream": 20,
    "chat.update": 50,
    "chat.delete": 50,
    "agents.sessions.setStatus": 50,
    "conversations.history": 50,
    "conversations.info": 50,
    "conversations.members": 100,
    "conversations.replies": 50,
    "users.list": 20,
    "chat.appendStream": 100,
    "chat.postEphemeral": 100,
    "files.completeUploadExternal": 100,
    "files.getUploadURLExternal": 100,
    "users.info": 100,
    "assistant.threads.setStatus": 600,
}
POST = "chat.postMessage"
EPHEMERAL = "chat.postEphemeral"
POSTS_PER_MINUTE = 60
"""One a second in each channel."""
KEPT_CHANNELS = 10_000
MARGIN = 0.9
PROMISE_SECONDS = 900.0
"""A reservation expires after this time: another process may have taken over the reply."""
FIRST_PAUSE = 0.5
"""A reply that finishes within this time is posted once."""
PAUSE = 1.0
"""The least seconds between updates of one reply."""
YIELDING = 0.5
"""For how many seconds a notice leaves room unused."""
ENDINGS = {"chat.startStream": "chat.stopStream", POST: "chat.update"}
"""The method that begins a reply -> the method that ends it."""


@dataclass(slots=True)
class Bucket:
    """At most `most` calls in any `seconds`."""

    most: int
    seconds: float
    calls: deque[float] = field(default_factory=deque)
    blocked_until: float = 0.0
    queue: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Calls that wait for room, in order."""
    notices: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Calls that let all others go first: one of them at a time looks for room."""

    def wait(self, now: float, reserve: int = 0) -> float:
        """Seconds until a call may pass and leave room for `reserve` more; 0: now."""
        while self.calls and self.calls[0] <= now - self.seconds:
            self.calls.popleft()
        blocked = self.blocked_until - now
        over = len(self.calls) + reserve - self.most
        if over < 0:
            return max(blocked, 0.0)
        nth = self.calls[min(over, len(self.calls) - 1)] if self.calls else now
        return max(nth + self.seconds - now, blocked, 0.01)

    def try_acquire(self) -> bool:
        """Count a call, if one may pass now."""
        if self.wait(_now()) > 0:
            return False
        self.calls.append(_now())
        return True


class RateLimiter:
    """Limits the calls of this process. `share`: its part, where several processes share."""

    def __init__(self, minute: float = 60.0, share: float = 1.0) -> None:
        self.minute = minute
        self._share = share
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._posts = Bounded[tuple[str, str], Bucket](KEPT_CHANNELS)
        self._promised: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
        """Method and workspace -> the replies that have a call reserved, and since when."""

    def reserve(self, method: str, team: str, reply: str) -> None:
        """Reserve a call for the end of this reply."""
        promised = self._promised[method, team]
        promised[reply] = _now()
        for other in [r for r, since in promised.items() if since < _now() - PROMISE_SECONDS]:
            del promised[other]

    def has_reserved(self, method: str, team: str, reply: str) -> bool:
        return reply in self._promised[method, team]

    def release(self, reply: str) -> None:
        """Drop the reservations of a reply that has ended or moved to another process."""
        for promised in self._promised.values():
            promised.pop(reply, None)

    def wait(self, method: str, team: str, channel: str, spare: float = 0.0) -> float:
        """Seconds until an intermediate call may pass; `spare`: the share to leave free."""
        bucket = self._bucket(method, team, channel)
        if bucket.queue.locked():
            return max(bucket.wait(_now()), 0.05)
        reserve = len(self._promised[method, team]) + int(bucket.most * spare)
        return bucket.wait(_now(), reserve)

    def try_acquire(self, method: str, team: str, channel: str) -> bool:
        """Count an intermediate call, if one may pass now."""
        if self.wait(method, team, channel) > 0:
            return False
        self._bucket(method, team, channel).calls.append(_now())
        return True

    async def acquire(self, method: str, team: str, channel: str) -> None:
        """Wait for room and count a call, ahead of intermediate ones."""
        bucket = self._bucket(method, team, channel)
        async with bucket.queue:
            while seconds := bucket.wait(_now()):  # noqa: ASYNC110 -- only time helps
                await asyncio.sleep(seconds)
            bucket.calls.append(_now())

    async def acquire_last(self, method: str, team: str, channel: str) -> None:
        """The same for a call that lets replies go first: those that wait for room too, and those
        that look for it the moment there is some."""
        bucket = self._bucket(method, team, channel)
        async with bucket.notices:
            while seconds := self.wait(method, team, channel):  # noqa: ASYNC110 -- only time helps
                await asyncio.sleep(seconds + YIELDING * self.minute / 60)
            bucket.calls.append(_now())

    def block(self, method: str, team: str, channel: str, seconds: float) -> None:
        """Let nothing pass for the seconds of a 429."""
        bucket = self._bucket(method, team, channel)
        bucket.blocked_until = max(bucket.blocked_until, _now() + seconds)

    def _bucket(self, method: str, team: str, channel: str) -> Bucket:
        if method == POST:
            second = self.minute / POSTS_PER_MINUTE / self._share
            return self._posts.setdefault((team, channel), Bucket(1, second))
        if (method, team) not in self._buckets:
            most = int(PER_MINUTE.get(method, 100) * MARGIN * self._share)
            self._buckets[method, team] = Bucket(max(most, 1), self.minute)
        return self._buckets[method, team]


@dataclass(slots=True)
class LiveReply:
    """A reply that this process is writing."""

    began: float = field(default_factory=time.monotonic)
    updated: float = 0.0
    streams: dict[str, str] = field(default_factory=dict)
    """The messages that are open streams, with their Markdown."""
    shown: dict[str, str] = field(default_factory=dict)
    """Message -> the text that Slack has confirmed."""
    status: str = ""
    """The status shown in the thread; empty: none."""
    status_at: float = 0.0
    steps: list[tuple[str, float]] = field(default_factory=list)
    """The reply's statuses so far, and when each began."""
    session: bool = False
    """The thread's agent session is in ``processing``."""
    ended_by_refusal: bool = False
    plain: bool = False
    """Slack refused its blocks: it is written as text alone."""
    ended: bool = False
    """This process has received the end of the reply."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Prevents that a status is set after the reply, where it would stay for minutes."""


class ReplyPacer:
    """Decides when a reply may be updated, and by which method it begins."""

    def __init__(self, limiter: RateLimiter) -> None:
        self._limiter = limiter

    async def wait_for_update(
        self, delivery: Delivery, live: LiveReply, *, can_stream: bool
    ) -> None:
        """Wait for room for an intermediate update; reserve the end of a reply that begins."""
        while seconds := self._wait(delivery, live, can_stream):  # noqa: ASYNC110 -- only time helps
            await asyncio.sleep(min(seconds, 2.0))
        if not live.shown and not delivery.messages:
            # before another reply takes the room
            ending = ENDINGS[self._ways_to_begin(delivery, can_stream)[0]]
            self._limiter.reserve(ending, delivery.thread.space, delivery.job)

    def _wait(self, delivery: Delivery, live: LiveReply, can_stream: bool) -> float:
        now, second = time.monotonic(), self._limiter.minute / 60
        last, pause = (live.updated, PAUSE) if live.updated else (live.began, FIRST_PAUSE)
        if last + pause * second > now:
            return last + pause * second - now
        if live.shown or delivery.messages:
            return self.room("chat.appendStream" if live.streams else "chat.update", delivery)
        return self.room(self._ways_to_begin(delivery, can_stream)[0], delivery)

    def _ways_to_begin(self, delivery: Delivery, can_stream: bool) -> Sequence[str]:
        """The methods that may begin the reply, the one with room first."""
        if not can_stream:
            return (POST,)
        return sorted(("chat.startStream", POST), key=lambda way: self.room(way, delivery))

    def room(self, method: str, delivery: Delivery) -> float:
        """Seconds until `method` may be called and the end of the reply still has room."""
        team, channel = delivery.thread.space, delivery.thread.channel
        ending = ENDINGS.get(method)
        seconds = self._limiter.wait(method, team, channel)
        if ending is None or self._limiter.has_reserved(ending, team, delivery.job):
            return seconds
        return max(seconds, self._limiter.wait(ending, team, channel))


def _now() -> float:
    return time.monotonic()
