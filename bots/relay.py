"""Between a platform and the queue: messages become jobs, reply events become messages.

Knows no platform. One relay serves one platform in one process; several processes share the work
through leases, and each takes over what another has left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo
from typing import Literal

import structlog

from bots import strings
from bots.access import EVERYBODY, Access, Admission
from bots.delivery import LeaseLost, ReplyDelivery
from bots.instrumented import InstrumentedPlatform
from bots.platform import Incoming, Platform, Status
from core.access_policy import Asker
from core.background import cancel, repeat_forever
from core.errors import StoreUnavailable
from core.observe import metrics
from core.observe.tracing import span
from core.ports import Deliveries, History, JobQueue
from core.queue_types import OPENED, Delivery, Receipt, Regeneration, Submission
from core.types import Job, ThreadKey

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """How a relay works. Times in seconds."""

    lane: str
    holder: str
    """This process's name, as the holder of deliveries."""
    lease: float = 15.0
    locale: str = "en"
    """For people whose language is not known."""
    take: float = 1.0
    """Seconds between looks for deliveries that no process holds."""
    positions: float = 2.0
    hold: float = 5.0
    """How long a thread new to the bot waits for its past."""
    zone: tzinfo = UTC
    """The time zone of times in sentences."""
    access: Access = EVERYBODY
    """Who may ask, and the rules of places."""
    strangers: Literal["answer", "sentence", "ignore"] = "sentence"
    """What becomes of messages from another organisation."""
    drain: float = 5.0


class Relay:
    """Takes a platform's events from its adapter, and delivers its replies."""

    def __init__(
        self,
        platform: Platform,
        queue: JobQueue,
        history: History,
        deliveries: Deliveries,
        settings: RelaySettings,
    ) -> None:
        self._platform = InstrumentedPlatform(platform)
        self._queue = queue
        self._history = history
        self._deliveries = deliveries
        self._settings = settings
        self._outgoing: dict[str, ReplyDelivery] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def access(self) -> Access:
        """Who may ask, and the rules of places."""
        return self._settings.access

    @property
    def zone(self) -> tzinfo:
        """The time zone in which people are told times."""
        return self._settings.zone

    @property
    def ignores_strangers(self) -> bool:
        return self._settings.strangers == "ignore"

    def refusal(self, receipt: Receipt, locale: str) -> str:
        """The sentence for a person whose press or command is refused."""
        until, zone = receipt.until, self._settings.zone
        return strings.failure(receipt.code, locale, until, zone, receipt.position)

    async def follow_ups(self, thread: ThreadKey, usual: str) -> str:
        """The follow-up rule of a thread: that of its place, else `usual`."""
        return (await self.access.rules(thread)).follow_up or usual

    # -- what comes in --------------------------------------------------------------------------

    async def submit(self, incoming: Incoming) -> Receipt:
        """Store a message. Once this has returned, an addressed one will be answered."""
        asker = _asker_of(incoming)
        await self.access.remember_roles(asker)
        admission = await self.admission(asker)
        ignored = admission.permit.refuse == "stranger" and self.ignores_strangers
        submission = Submission(
            thread=incoming.thread,
            turn=incoming.turn,
            addressed=incoming.addressed,
            lane=admission.lane,
            permit=admission.permit,
            event_ids=incoming.event_ids,
            revision=incoming.revision,
            hold=self._settings.hold if incoming.has_past else 0.0,
            alone=incoming.alone,
            bulk=incoming.bulk,
            note=incoming.note,
            tell=not (incoming.interactive or ignored),
        )
        job = Job.id_for(incoming.thread, incoming.turn.id, incoming.revision)
        with span(job, "submit", platform=self._platform.name):
            receipt = await self._queue.submit(submission, self._settings.holder)
        metrics.count_receipt(self._platform.name, receipt)
        log.info(
            "message",
            platform=self._platform.name,
            thread=str(incoming.thread),
            outcome=receipt.outcome,
            job=receipt.job,
            position=receipt.position,
        )
        thread, turn, note = incoming.thread, incoming.turn, incoming.note
        if receipt.job == job and receipt.outcome in ("queued", "refused"):
            position = max(1, receipt.position) if receipt.outcome == "queued" else 0
            self._deliver(
                Delivery(
                    job, thread, turn.id, turn.author, token=OPENED, position=position, note=note
                )
            )
        else:
            await self._deliver_opened(receipt, job, thread)
        if receipt.new_thread:
            self._spawn(self._backfill(incoming.thread, turn.id))
        return receipt

    async def admission(self, asker: Asker) -> Admission:
        """Whether a person is answered now, and by which lane."""
        if asker.stranger and self._settings.strangers == "answer":
            asker = replace(asker, stranger=False)
        return await self.access.admit(asker, self._settings.lane)

    async def edited(self, asker: Asker, turn: str, text: str, revision: str) -> Receipt:
        """A person's message has a new text. It leaves the memory where no text is left, and where
        nothing of this person is read."""
        thread, admission = asker.thread, await self.admission(asker)
        if not text.strip() or not admission.permit.read:
            await self._queue.delete(thread, turn)
            return Receipt("ignored")
        receipt = await self._queue.edit(
            thread, turn, text, revision, admission.lane, self._settings.holder, admission.permit
        )
        metrics.count_receipt(self._platform.name, receipt)
        await self._deliver_opened(receipt, Job.id_for(thread, turn, revision), thread)
        return receipt

    async def deleted(self, thread: ThreadKey, message: str) -> None:
        """A message of a person's, or of the bot's own, is gone."""
        found = await self._deliveries.locate(thread, message)
        place, turn = found or (thread, message)
        await self._queue.delete(place, turn)

    async def regenerate(self, wanted: Regeneration, roles: tuple[str, ...] = ()) -> Receipt:
        """Write a reply anew in its place; its lane and its permit are found here."""
        admission = await self.admission(Asker(wanted.thread, wanted.author, roles))
        wanted = replace(wanted, lane=admission.lane, permit=admission.permit)
        receipt = await self._queue.regenerate(wanted, self._settings.holder)
        metrics.count_receipt(self._platform.name, receipt)
        job = Job.id_for(wanted.thread, wanted.reply, wanted.revision)
        await self._deliver_opened(receipt, job, wanted.thread)
        return receipt

    async def stop(self, thread: ThreadKey, job: str) -> bool:
        """Stop a reply; False where it has ended already."""
        return await self._queue.cancel(thread, job)

    async def owed(self, thread: ThreadKey) -> Mapping[str, str]:
        """The replies under way in a thread, by any process: job id -> whose question it answers,
        in order."""
        return await self._queue.owed(thread)

    def delivers(self, job: str) -> bool:
        """Whether this process brings that reply out now."""
        return job in self._outgoing

    async def reset(self, thread: ThreadKey, by: str) -> int:
        """Forget a thread; how many turns that were."""
        return await self._history.reset(thread, by)

    async def _backfill(self, thread: ThreadKey, before: str) -> None:
        """Seed a thread's past and end its hold, even if the past cannot be read."""
        try:
            earlier = await self._platform.earlier(thread, before, 0.0)
            turns = [message.turn for message in earlier if await self._is_read(message)]
        except Exception as error:
            log.warning("could not read what was said before", error=repr(error))
            turns = []
        with contextlib.suppress(StoreUnavailable):
            await self._queue.seed(thread, turns)

    async def _is_read(self, message: Incoming) -> bool:
        """Whether a message may be remembered: the bot's own, or of a person who is not denied."""
        if message.turn.role == "assistant":
            return True
        return (await self.admission(_asker_of(message))).permit.read

    # -- what goes out --------------------------------------------------------------------------

    async def _deliver_opened(self, receipt: Receipt, job: str, thread: ThreadKey) -> None:
        """Bring out a reply that this process has opened: just now, or in a call that it says again
        because the answer was lost."""
        if receipt.job != job or self.delivers(job):
            return
        if receipt.outcome in ("queued", "duplicate"):
            delivery = await self._deliveries.opened(thread, job, self._settings.holder)
            if delivery is not None:
                self._deliver(delivery)

    def _deliver(self, delivery: Delivery) -> None:
        if before := self._outgoing.get(delivery.job):
            if before.delivery.token >= delivery.token:
                return
            before.lose()  # our own lease had ended
        outgoing = ReplyDelivery(
            delivery,
            self._platform,
            self._deliveries,
            delivery.note.get("locale") or self._settings.locale,
            self._settings.lease,
            self._settings.zone,
        )
        if delivery.token == OPENED and not delivery.replaces:
            in_thread = (o for o in self._outgoing.values() if o.delivery.thread == delivery.thread)
            outgoing.after = next(reversed(list(in_thread)), None)
        self._outgoing[delivery.job] = outgoing
        metrics.DELIVERIES_OPEN.labels(self._platform.name).inc()
        self._spawn(self._bring_out(outgoing))

    async def _bring_out(self, outgoing: ReplyDelivery) -> None:
        job, cancel = outgoing.delivery.job, "failed"
        try:
            with span(job, "deliver", platform=self._platform.name):
                await outgoing.run()
            if outgoing.was_deleted:
                await self._forget(outgoing.delivery)
            cancel = type(outgoing.view.end).__name__.lower()
        except LeaseLost:
            cancel = "lost"
            log.info("another process delivers this reply", job=job)
        except Exception:
            log.exception("a delivery failed", job=job)
        finally:
            outgoing.finished.set()
            if self._outgoing.get(job) is outgoing:
                del self._outgoing[job]
            metrics.DELIVERIES_OPEN.labels(self._platform.name).dec()
            metrics.DELIVERIES.labels(self._platform.name, cancel).inc()

    async def _forget(self, delivery: Delivery) -> None:
        """Forget the reply whose message was deleted, and the one that it was to replace."""
        for turn in filter(None, (delivery.job, delivery.replaces)):
            await self._queue.delete(delivery.thread, turn)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- the process ----------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver, take over, renew, until `stop` is set; then finish, or leave it to others."""
        chores = [
            asyncio.create_task(repeat_forever(self._listen, self._settings.take)),
            asyncio.create_task(repeat_forever(self._take, self._settings.take)),
            asyncio.create_task(repeat_forever(self._renew, self._settings.lease / 4)),
            asyncio.create_task(repeat_forever(self._tell_positions, self._settings.positions)),
        ]
        try:
            await stop.wait()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=self._settings.drain)
        finally:
            left = [outgoing.delivery for outgoing in self._outgoing.values()]
            await cancel(*chores, *self._tasks)
            with contextlib.suppress(StoreUnavailable):
                await self._deliveries.hand_back(left)

    async def _listen(self) -> None:
        await self._deliveries.listen(self._platform.name)

    async def _take(self) -> None:
        # without a core, nobody else ends what waits past its deadline
        metrics.TAKEOVERS.inc(await self._queue.sweep())
        for delivery in await self._deliveries.take(self._platform.name, self._settings.holder):
            self._deliver(delivery)

    async def _renew(self) -> None:
        held = dict(self._outgoing)
        began = asyncio.get_running_loop().time()
        still = await self._deliveries.renew([outgoing.delivery for outgoing in held.values()])
        for job, holds in still.items():
            if holds:
                held[job].confirmed = began
            else:
                held[job].lose()

    async def _tell_positions(self) -> None:
        for job, outgoing in list(self._outgoing.items()):
            status = outgoing.view.status
            if status is not None and status.kind == "queued":
                positions = await self._queue.positions(outgoing.delivery.thread, [job])
                if positions[0]:
                    outgoing.set_status(Status("queued", positions[0]))


def _asker_of(incoming: Incoming) -> Asker:
    return Asker(incoming.thread, incoming.turn.author, incoming.roles, incoming.stranger)
