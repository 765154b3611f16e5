"""Sends one message through the queue and the model and back, for `henji doctor`."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from uuid import uuid4

from core.ports import Deliveries, History, JobQueue
from core.queue_types import OPENED, Delivery, Submission
from core.types import Cancelled, Delta, Done, Failed, Started, ThreadKey, Turn

PLATFORM = "doctor"
"""A platform of its own, which no bot serves."""

QUESTION = "Hello! / こんにちは"


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds from sending the message to each step; None if the step was not reached."""

    stored: float
    claimed: float | None = None
    first_text: float | None = None
    done: float | None = None
    fault: str = ""
    """Why there was no reply."""


@dataclass
class SmokeTest:
    """One test message, and the stores that it passes through."""

    queue: JobQueue
    history: History
    deliveries: Deliveries
    lane: str

    async def run(self, seconds: float) -> Times:
        """Send it, wait for the reply, and remove both."""
        thread = ThreadKey(PLATFORM, "local", "trial", uuid4().hex)
        began = time.monotonic()
        turn = Turn("1", "user", PLATFORM, QUESTION, time.time())
        submission = Submission(thread, turn, addressed=True, lane=self.lane, alone=True)
        receipt = await self.queue.submit(submission, PLATFORM)
        times = Times(time.monotonic() - began)
        delivery = Delivery(receipt.job or "", thread, turn.id, PLATFORM, token=OPENED)
        listening = asyncio.create_task(self.deliveries.listen(PLATFORM))
        try:
            async with asyncio.timeout(seconds):
                return await self._followed(delivery, times, began)
        except TimeoutError:
            return Times(times.stored, fault=f"no reply in {seconds:g} s")
        finally:
            listening.cancel()
            await self.history.discard(thread, turn, delivery.job)

    async def _followed(self, delivery: Delivery, times: Times, began: float) -> Times:
        claimed = first_text = None
        async for event in self.deliveries.follow(delivery):
            now = time.monotonic() - began
            match event:
                case Started():
                    claimed = claimed or now
                case Delta():
                    first_text = first_text or now
                case Done():
                    return Times(times.stored, claimed, first_text or now, now)
                case Failed(code, message):
                    return Times(times.stored, claimed, fault=message or code)
                case Cancelled(by):
                    return Times(times.stored, claimed, fault=f"it was ended by a {by}")
        raise AssertionError("a reply's events end with its end")
