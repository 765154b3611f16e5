"""Errands: jobs apart from any conversation, whose text leaves Redis when they end.

An errand has a thread of its own in the channel that it is for, so that rules, quotas and fair
shares count it. Nobody sees it: whoever takes over its delivery removes it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from uuid import uuid4

from core.access_policy import OPEN_PERMIT, Permit
from core.background import cancel, repeat_forever
from core.errors import StoreUnavailable
from core.place_rules import Persona
from core.ports import Deliveries, History, JobQueue
from core.queue_types import OPENED, Delivery, Measurement, Receipt, Submission
from core.types import ERRAND, Cancelled, Done, Failed, ReplyEvent, ThreadKey, Turn

MEASURE_SECONDS = 10.0
FAULT_SECONDS = 0.5
GIVE_UP_SECONDS = 60.0
"""Tries to remove an errand while Redis is away; then whoever takes it over does so."""


@dataclass(frozen=True, slots=True)
class Errand:
    """A text for a lane's model. `thread` names the channel, and any thread there."""

    thread: ThreadKey
    person: str
    text: str
    lane: str
    permit: Permit = OPEN_PERMIT
    terms: Persona | None = None
    measures: bool = False
    counted: bool = False
    """It is one of the messages that the person may ask."""
    name: str = ""
    """By which it can be found, and stopped, from any process: see `thread_of`."""


class ErrandFailed(Exception):
    """There is no answer: `failed` says why."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.code)
        self.failed = failed


class Errands:
    """Sends errands, and removes them at their end."""

    def __init__(
        self,
        queue: JobQueue,
        history: History,
        deliveries: Deliveries,
        holder: str,
        lease: float = 15.0,
    ) -> None:
        self._queue = queue
        self._history = history
        self._deliveries = deliveries
        self._holder = holder
        self._lease = lease

    async def measure(
        self, thread: ThreadKey, person: str, lane: str, texts: Sequence[str], name: str = ""
    ) -> Measurement:
        """The tokens of texts, by the tokenizer of a lane; ErrandFailed where it has no core."""
        text = json.dumps(texts, ensure_ascii=False)
        done = await self.run(Errand(thread, person, text, lane, measures=True, name=name))
        if done.finish_reason == "cancelled":
            raise ErrandFailed(Failed("stopped"))
        context, *counts = json.loads(done.text)
        return Measurement(tuple(counts), context)

    async def measured(
        self, thread: ThreadKey, person: str, lane: str, text: str
    ) -> Measurement | None:
        """The tokens of one text; None where no core counts them soon."""
        try:
            async with asyncio.timeout(MEASURE_SECONDS):
                return await self.measure(thread, person, lane, [text])
        except (ErrandFailed, TimeoutError):
            return None

    async def run(self, errand: Errand) -> Done:
        """Have the model answer. A call that is cancelled ends the errand at once.

        ErrandFailed where there is no answer, StoreUnavailable where Redis is away.
        """
        id_ = uuid4().hex
        thread = thread_of(errand.thread, errand.name or id_)
        turn = Turn(id_, "user", errand.person, errand.text, time.time())
        submission = Submission(
            thread,
            turn,
            addressed=True,
            lane=errand.lane,
            bulk=True,
            alone=True,
            permit=errand.permit,
            tell=False,
            measures=errand.measures,
            terms=errand.terms,
            counted=errand.counted,
        )
        receipt = await self._submit(submission)
        if receipt.outcome != "queued" or receipt.job is None:
            waiting = str(receipt.position) if receipt.code == "busy" else ""
            raise ErrandFailed(Failed(receipt.code or "internal", waiting, receipt.until))
        delivery = Delivery(receipt.job, thread, turn.id, errand.person, token=OPENED)
        renewing = asyncio.create_task(
            repeat_forever(partial(self._renew, delivery), self._lease / 4)
        )
        try:
            return _done(await self._end(delivery))
        finally:
            await cancel(renewing)
            await self.remove(delivery)

    async def _renew(self, delivery: Delivery) -> None:
        await self._deliveries.renew([delivery])

    async def _submit(self, submission: Submission) -> Receipt:
        """A call that is cancelled meanwhile leaves nothing behind."""
        submitting = asyncio.ensure_future(self._queue.submit(submission, self._holder))
        try:
            return await asyncio.shield(submitting)
        except asyncio.CancelledError:
            with suppress(StoreUnavailable):
                job, turn = (await submitting).job or "", submission.turn
                await self._history.discard(submission.thread, turn, job)
            raise

    async def _end(self, delivery: Delivery) -> ReplyEvent:
        while True:
            try:
                async for event in self._deliveries.follow(delivery):
                    if isinstance(event, Done | Failed | Cancelled):
                        return event
            except StoreUnavailable:
                await asyncio.sleep(FAULT_SECONDS)

    async def remove(self, delivery: Delivery) -> None:
        """Remove an errand's text and its job, at whatever stage it is."""
        turn = Turn(delivery.turn, "user", delivery.author, "", 0.0)
        until = time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < until:
            try:
                await self._history.discard(delivery.thread, turn, delivery.job)
            except StoreUnavailable:
                await asyncio.sleep(FAULT_SECONDS)
            else:
                return


def thread_of(thread: ThreadKey, name: str) -> ThreadKey:
    """The thread of an errand, in the channel of another."""
    return replace(thread, thread=f"{ERRAND}{name}")


def _done(end: ReplyEvent) -> Done:
    match end:
        case Done() as done:
            return done
        case Failed() as failed:
            raise ErrandFailed(failed)
    raise ErrandFailed(Failed("ended_by_reset"))
