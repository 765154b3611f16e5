"""One-off jobs: prompts outside of any conversation. Their text leaves Redis when they end.

Each job gets a new thread in its channel, so that the channel's rules, quotas and fair shares
apply. Its reply is never posted: a process that takes over its delivery removes the job.
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
from core.background import cancel, repeat_forever, retry_while_away
from core.errors import StoreUnavailable
from core.place_rules import Persona
from core.ports import ConversationStores
from core.queue_types import OPENED, Delivery, Receipt, Submission, TokenCounts
from core.types import ONE_OFF, Done, Failed, ReplyEvent, ThreadKey, Turn

COUNT_SECONDS = 10.0
GIVE_UP_SECONDS = 60.0
"""For removing a job while Redis is away. The process that takes it over tries again."""


@dataclass(frozen=True, slots=True)
class OneOffJob:
    """A prompt for a lane's model. `thread` is any thread of the channel."""

    thread: ThreadKey
    person: str
    text: str
    lane: str
    permit: Permit = OPEN_PERMIT
    persona: Persona | None = None
    counts_tokens: bool = False
    counts_as_message: bool = False
    """It counts against the person's quota of messages."""
    name: str = ""
    """Names the job's thread (`thread_of`), so that any process can find and stop it."""


class OneOffFailed(Exception):
    """There is no answer: `failed` says why."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.code)
        self.failed = failed


class OneOffJobs:
    """Submits one-off jobs, waits for their replies and removes them."""

    def __init__(self, stores: ConversationStores, holder: str, lease: float = 15.0) -> None:
        self._queue = stores.queue
        self._history = stores.history
        self._deliveries = stores.deliveries
        self._holder = holder
        self._lease = lease

    async def count_tokens(
        self,
        thread: ThreadKey,
        person: str,
        lane: str,
        texts: Sequence[str],
        permit: Permit = OPEN_PERMIT,
        name: str = "",
    ) -> TokenCounts:
        """The tokens of texts, by the tokenizer of a lane. OneOffFailed where it has no core, or by
        the permit: it costs no quota, but needs some left."""
        text = json.dumps(texts, ensure_ascii=False)
        done = await self.run(
            OneOffJob(thread, person, text, lane, permit, counts_tokens=True, name=name)
        )
        if done.finish_reason == "cancelled":
            raise OneOffFailed(Failed("stopped"))
        context, *counts = json.loads(done.text)
        return TokenCounts(tuple(counts), context)

    async def try_to_count_tokens(
        self, thread: ThreadKey, person: str, lane: str, text: str
    ) -> TokenCounts | None:
        """The tokens of one text; None where no core counts them soon."""
        try:
            async with asyncio.timeout(COUNT_SECONDS):
                return await self.count_tokens(thread, person, lane, [text])
        except (OneOffFailed, TimeoutError):
            return None

    async def run(self, job: OneOffJob) -> Done:
        """The model's reply. Cancelling the call ends the job at once.

        OneOffFailed where there is no answer, StoreUnavailable where Redis is away.
        """
        id_ = uuid4().hex
        thread = thread_of(job.thread, job.name or id_)
        turn = Turn(id_, "user", job.person, job.text, time.time())
        submission = Submission(
            thread,
            turn,
            addressed=True,
            lane=job.lane,
            bulk=True,
            alone=True,
            permit=job.permit,
            tell=False,
            counts_tokens=job.counts_tokens,
            persona=job.persona,
            counts_as_message=job.counts_as_message,
        )
        receipt = await self._submit(submission)
        if receipt.outcome != "queued" or receipt.job is None:
            waiting = str(receipt.position) if receipt.code == "busy" else ""
            raise OneOffFailed(Failed(receipt.code or "internal", waiting, receipt.until))
        delivery = Delivery(receipt.job, thread, turn.id, job.person, token=OPENED)
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
        """Submit; a call that is cancelled meanwhile leaves nothing behind."""
        submitting = asyncio.ensure_future(self._queue.submit(submission, self._holder))
        try:
            return await asyncio.shield(submitting)
        except asyncio.CancelledError:
            with suppress(StoreUnavailable):
                job, turn = (await submitting).job or "", submission.turn
                await self._history.discard(submission.thread, turn, job)
            raise

    async def _end(self, delivery: Delivery) -> ReplyEvent:
        async def last_event() -> ReplyEvent:
            events = [event async for event in self._deliveries.follow(delivery)]
            return events[-1]

        return await retry_while_away(last_event)

    async def remove(self, delivery: Delivery) -> None:
        """Remove a job and its text, at any stage."""
        turn = Turn(delivery.turn, "user", delivery.author, "", 0.0)
        until = time.monotonic() + GIVE_UP_SECONDS
        with suppress(StoreUnavailable):
            await retry_while_away(
                lambda: self._history.discard(delivery.thread, turn, delivery.job),
                lambda: time.monotonic() < until,
            )


def thread_of(thread: ThreadKey, name: str) -> ThreadKey:
    """The thread of a one-off job, in the channel of `thread`."""
    return replace(thread, thread=f"{ONE_OFF}{name}")


def _done(end: ReplyEvent) -> Done:
    match end:
        case Done() as done:
            return done
        case Failed() as failed:
            raise OneOffFailed(failed)
    raise OneOffFailed(Failed("ended_by_reset"))
