"""When the next update of a reply may be sent, and by which way a reply may begin."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from bots.slack.rate_limits import POST, Budget
from core.queue_types import Delivery

FIRST_PAUSE = 0.5
"""A reply that is ready so soon is posted once, whole."""
PAUSE = 1.0
"""Seconds between updates of one reply, however much room there is."""
ENDINGS = {"chat.startStream": "chat.stopStream", POST: "chat.update"}
"""What begins a reply -> what ends it."""


@dataclass(slots=True)
class Live:
    """A reply that this process is writing."""

    began: float = field(default_factory=time.monotonic)
    updated: float = 0.0
    streams: set[str] = field(default_factory=set)
    """The messages that are open streams."""
    shown: dict[str, str] = field(default_factory=dict)
    """Message -> the text that it has, as far as Slack has confirmed it."""
    status: str = ""
    """The sign of life that stands in the thread; empty: none."""
    status_at: float = 0.0
    session: bool = False
    """Slack was told that work is under way there, and not yet that it is over."""
    ended: bool = False
    """Its end is known here: nobody else will write it."""
    order: asyncio.Lock = field(default_factory=asyncio.Lock)
    """A status that came behind the reply would stand for minutes."""


class Pace:
    """Asks the budget on behalf of replies."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget

    async def leave(self, delivery: Delivery, live: Live, *, can_stream: bool) -> None:
        """Wait for room for an intermediate update; a reply that begins is promised its end."""
        while seconds := self._wait(delivery, live, can_stream):  # noqa: ASYNC110 -- it is time
            await asyncio.sleep(min(seconds, 2.0))
        if not live.shown and not delivery.messages:
            # before anybody else is let in: what is begun can be ended
            ending = ENDINGS[self._beginnings(delivery, can_stream)[0]]
            self._budget.promise(ending, delivery.thread.space, delivery.job)

    def _wait(self, delivery: Delivery, live: Live, can_stream: bool) -> float:
        now, second = time.monotonic(), self._budget.minute / 60
        last, pause = (live.updated, PAUSE) if live.updated else (live.began, FIRST_PAUSE)
        if last + pause * second > now:
            return last + pause * second - now
        if live.shown or delivery.messages:
            return self.room("chat.appendStream" if live.streams else "chat.update", delivery)
        return self.room(self._beginnings(delivery, can_stream)[0], delivery)

    def _beginnings(self, delivery: Delivery, can_stream: bool) -> Sequence[str]:
        """How the reply may begin, what has room now first."""
        if not can_stream:
            return (POST,)
        return sorted(("chat.startStream", POST), key=lambda way: self.room(way, delivery))

    def room(self, method: str, delivery: Delivery) -> float:
        """Seconds until `method` may begin or go on with a reply that can also be ended."""
        team, channel = delivery.thread.space, delivery.thread.channel
        ending = ENDINGS.get(method)
        seconds = self._budget.wait(method, team, channel)
        if ending is None or self._budget.has_promised(ending, team, delivery.job):
            return seconds
        return max(seconds, self._budget.wait(ending, team, channel))
