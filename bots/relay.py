"""Between a platform and the queue: messages become jobs, reply events become messages.

The relay knows no platform. There is one for each platform in each process. Processes share the
deliveries by leases, and take over the deliveries of a process that has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, tzinfo
from functools import partial
from typing import Literal

import structlog

from bots import attachments, duels, strings
from bots.access import Access, Admission
from bots.attachments import File
from bots.copies import MessageCopies
from bots.delivery import LeaseLost, ReplyDelivery
from bots.monitoring import InstrumentedPlatform
from bots.one_off_jobs import OneOffJobs
from bots.platform import Incoming, Platform, Status
from bots.quotes import Quote
from bots.reading import FileReader, QuoteReader, read_past, turn_to_read
from core.access_policy import Asker, Quota
from core.background import cancel, repeat_forever
from core.errors import StoreUnavailable
from core.observe import metrics
from core.observe.tracing import span
from core.place_rules import scopes
from core.ports import ConversationStores
from core.queue_types import (
    OPENED,
    Delivery,
    Receipt,
    Regeneration,
    Spent,
    Submission,
)
from core.types import Bounded, Job, ThreadKey

KEPT_NAMES = 10_000
NAMES_SECONDS = 3600.0
"""After so long the platform is asked for a place's name again."""
NAMING_SECONDS = 1.0
"""The longest that a message waits for the name of its channel."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """How a relay works. Times in seconds."""

    lane: str
    """Answers where the rules of a place name no other."""
    holder: str
    """The name under which this process leases deliveries."""
    access: Access
    """Access, and the rules of places."""
    lease: float = 15.0
    locale: str = "en"
    """The language for people whose language is unknown."""
    take_over: float = 1.0
    """Seconds between looks for deliveries that no process holds."""
    positions: float = 2.0
    """Between two updates of the position in the queue."""
    backfill_wait: float = 5.0
    """How long a thread new to the bot waits for its earlier messages."""
    zone: tzinfo = UTC
    """The time zone of times in sentences."""
    strangers: Literal["answer", "sentence", "ignore"] = "sentence"
    """How messages from another organisation are handled."""
    summary_prompts: Mapping[str, str] = field(default_factory=dict)
    """Lane -> the prompt that comes before the messages of a summary."""
    drain: float = 5.0
    model_host: str = ""
    """The host of the model's server in this process's settings; empty: none."""


class Relay:
    """Takes a platform's events from its adapter, and delivers its replies."""

    def __init__(
        self,
        platform: Platform,
        stores: ConversationStores,
        settings: RelaySettings,
    ) -> None:
        self._platform = InstrumentedPlatform(platform)
        self._queue = stores.queue
        self._history = stores.history
        self._deliveries = stores.deliveries
        self.settings = settings
        self.access = settings.access
        self._held: dict[str, ReplyDelivery] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._copies = MessageCopies(stores, settings.lane, settings.holder)
        self._files = FileReader(self._platform, stores, self._is_read)
        self._quotes = QuoteReader(stores, self._may_read)
        self.one_off_jobs = OneOffJobs(stores, settings.holder, settings.lease)
        self._named = Bounded[str, float](KEPT_NAMES)
        """Channel -> when its name was last asked for, by the monotonic clock."""

    async def model_hosts(self, place: ThreadKey) -> str:
        """Other hosts that people's words in a place are sent to; empty: none."""
        lane = await self.lane_of(place)
        cores = await self._queue.serving(lane)
        hosts = {core.partition("@")[2] for core in cores} | {self.settings.model_host}
        return ", ".join(sorted(filter(None, hosts)))

    def refusal(self, receipt: Receipt, locale: str) -> str:
        """The sentence for a person whose press or command is refused."""
        until, zone = receipt.until, self.settings.zone
        return strings.failure(receipt.code, locale, until, zone, receipt.position)

    async def lane_of(self, place: ThreadKey) -> str:
        """The lane that answers in a place."""
        return (await self.access.rulebook.rules(place)).model or self.settings.lane

    async def spent(self, thread: ThreadKey, person: str, quota: Quota) -> Spent:
        """The messages and tokens that a person and a channel have used today."""
        return await self._queue.spent(thread, person, quota)

    async def reads(self, lane: str) -> int:
        """The tokens that the model of a lane reads in one prompt; 0: not known."""
        return await self._queue.reads(lane)

    async def follow_ups(self, thread: ThreadKey, usual: str) -> str:
        """The follow-up rule of a thread: that of its place, else `usual`."""
        return (await self.access.rulebook.rules(thread)).follow_up or usual

    # -- incoming -------------------------------------------------------------------------------

    async def submit(self, incoming: Incoming) -> Receipt:
        """Store a message. Once this has returned, an addressed message will be answered."""
        asker = _asker_of(incoming)
        await self.access.remember_roles(asker)
        admission = await self.admission(asker)
        if admission.names_place:
            await self._remember_names(incoming.thread)
        submission, files = await self._submission(incoming, admission)
        with span(incoming.job, "submit", platform=self._platform.name):
            receipt = await self._queue.submit(submission, self.settings.holder)
        metrics.count_receipt(self._platform.name, receipt)
        log.info(
            "message",
            platform=self._platform.name,
            thread=str(incoming.thread),
            outcome=receipt.outcome,
            job=receipt.job,
            position=receipt.position,
        )
        await self._deliver_submitted(incoming, submission.note, receipt)
        if receipt.outcome == "kept" and attachments.to_read(files):
            self._spawn(self._files.read_kept(incoming.thread, incoming.turn.id, files))
        return receipt

    async def _submission(
        self, incoming: Incoming, admission: Admission
    ) -> tuple[Submission, Sequence[File]]:
        """A message for the queue, and the files of its turn."""
        said, quote = await self._quotes.separate(incoming)
        files, quoted = await self._quotes.files_of(incoming, quote)
        to_read = [*attachments.to_read(files), *attachments.to_read(quoted)]
        waits = bool(to_read) and incoming.addressed
        note = dict(incoming.note)
        if waits:
            note |= attachments.pack(files, quote.id if quote else "", quoted)
        ignored = admission.permit.refuse == "stranger" and self.settings.strangers == "ignore"
        rules, can_vote = admission.rules, incoming.can_vote
        return Submission(
            thread=incoming.thread,
            turn=attachments.with_files(said, attachments.unread(files)),
            quote=quote,
            addressed=incoming.addressed,
            lane=admission.lane,
            permit=admission.permit,
            event_ids=incoming.event_ids,
            revision=incoming.revision,
            backfill_wait=self.settings.backfill_wait if incoming.has_past else 0.0,
            alone=incoming.alone or waits,
            bulk=incoming.bulk,
            note=note,
            unread=waits,
            tell=not (incoming.interactive or ignored),
            duel=duels.settings_for(rules, incoming.job) if can_vote else None,
        ), files

    async def _deliver_submitted(
        self, incoming: Incoming, note: Mapping[str, str], receipt: Receipt
    ) -> None:
        """Deliver the reply that a message is owed, and read what was said before it."""
        job, thread, turn = incoming.job, incoming.thread, incoming.turn
        past = self._spawn(self._backfill(thread, turn.id)) if receipt.new_thread else None
        if receipt.job != job or receipt.outcome not in ("queued", "refused"):
            await self._deliver_opened(receipt, job, thread)
            return
        queued = receipt.outcome == "queued"
        position = max(1, receipt.position) if queued else 0
        opened = Delivery(
            job, thread, turn.id, turn.author, token=OPENED, position=position, note=note
        )
        self._deliver(opened, past, is_refusal=not queued)

    async def _remember_names(self, thread: ThreadKey) -> None:
        """Store the names of the channel and the bot, for the system prompt of their place."""
        scope, now = scopes(thread)[1], time.monotonic()
        if now - self._named.get(scope, -NAMES_SECONDS) < NAMES_SECONDS:
            return
        self._named[scope] = now
        try:
            async with asyncio.timeout(NAMING_SECONDS):
                names = await self._platform.names(thread)
        except Exception as error:
            log.info("a place's name is not known", thread=str(thread), error=repr(error))
        else:
            await self.access.rulebook.remember_names(thread, names.channel, names.bot)

    async def admission(self, asker: Asker) -> Admission:
        """Whether a person is answered now, and by which lane."""
        if asker.stranger and self.settings.strangers == "answer":
            asker = replace(asker, stranger=False)
        return await self.access.admit(asker, self.settings.lane)

    async def edited(
        self,
        asker: Asker,
        turn: str,
        text: str,
        revision: str,
        files: Sequence[File] = (),
        quote: Quote | None = None,
        *,
        addressed: bool = True,
    ) -> Receipt:
        """A person's message has a new text, or other files. It is forgotten if it is empty now, or
        if this person's messages are not read. `addressed`: it is, or was, for the bot."""
        thread, admission = asker.thread, await self.admission(asker)
        if not (text.strip() or files) or not admission.permit.read:
            await self._delete(thread, turn)
            return Receipt("ignored")
        words = quote.without(text) if quote else text
        await self._copies.edit_quotes(thread, turn, words, revision)
        if quote and quote.turn and not quote.without(text):  # the quote is what is asked about
            known = await self._quotes.known(thread, quote.id)
            files = files if known else (*files, *quote.files)
        text = await self._quotes.in_form_of(thread, quote, text)
        named = attachments.turn_of_files(turn, attachments.unread(files))
        await self._copies.edit_branches(thread, turn, text, revision, named)
        receipt = await self._queue.edit(
            thread,
            turn,
            text,
            revision,
            admission.lane,
            self.settings.holder,
            admission.permit,
            named,
            attachments.pack(files) or None,
            author=asker.person,
            expected=addressed,
        )
        metrics.count_receipt(self._platform.name, receipt)
        await self._deliver_opened(receipt, Job.id_for(thread, turn, revision), thread)
        if receipt.unread:
            job = receipt.job or ""
            read = self._files.read_edited(thread, turn, job, files, asker.person) if job else None
            self._spawn(read or self._files.read_kept(thread, turn, files))
        return receipt

    async def deleted(self, thread: ThreadKey, message: str) -> None:
        """A message of a person or of the bot was deleted."""
        found = await self._deliveries.locate(thread, message)
        place, turn = found or (thread, message)
        await self._delete(place, turn, message)

    async def thread_deleted(self, thread: ThreadKey, by: str) -> None:
        """A whole thread was deleted: its messages also leave the threads that are copies of it."""
        await self._copies.delete_thread(thread)
        await self.reset(thread, by)

    async def _delete(self, thread: ThreadKey, turn: str, message: str = "") -> None:
        """Delete a turn, and the copies of its message."""
        await self._queue.delete(thread, turn)
        await self._copies.delete(thread, turn, message or turn)

    async def regenerate(self, wanted: Regeneration, roles: tuple[str, ...] = ()) -> Receipt:
        """Regenerate a reply in its place. The lane and the permit are added here."""
        admission = await self.admission(Asker(wanted.thread, wanted.author, roles))
        wanted = replace(wanted, lane=admission.lane, permit=admission.permit)
        receipt = await self._queue.regenerate(wanted, self.settings.holder)
        metrics.count_receipt(self._platform.name, receipt)
        job = Job.id_for(wanted.thread, wanted.reply, wanted.revision)
        await self._deliver_opened(receipt, job, wanted.thread)
        return receipt

    async def stop(self, thread: ThreadKey, job: str) -> bool:
        """Stop a reply; False where it has ended already."""
        return await self._queue.cancel(thread, job)

    async def open_jobs(self, thread: ThreadKey) -> Mapping[str, str]:
        """The replies under way in a thread, of all processes: job id -> the asker, in order."""
        return await self._queue.open_jobs(thread)

    def delivers(self, job: str) -> bool:
        """Whether this process delivers that reply now."""
        return job in self._held

    async def reset(self, thread: ThreadKey, by: str) -> int:
        """Forget a thread; returns the number of turns."""
        return await self._history.reset(thread, by)

    async def _backfill(self, thread: ThreadKey, before: str) -> None:
        """Seed a thread with its earlier messages. If they cannot be read, seed it with none."""
        try:
            earlier = await self._platform.earlier(thread, before, 0.0)
            read = [message for message in earlier if await self._is_read(message)]
            said = [(await turn_to_read(one, self._history), one.files) for one in read]
            said = [(turn, files) for turn, files in said if turn.text or files]
            turns = await read_past(said, partial(self._platform.fetch, thread))
        except Exception as error:
            log.warning("could not read what was said before", error=repr(error))
            turns = []
        with contextlib.suppress(StoreUnavailable):
            await self._queue.seed(thread, turns)

    async def _is_read(self, message: Incoming) -> bool:
        """Whether a message may be remembered: it is the bot's, or its author is not denied."""
        return message.turn.role == "assistant" or await self._may_read(_asker_of(message))

    async def _may_read(self, asker: Asker) -> bool:
        return (await self.admission(asker)).permit.read

    # -- outgoing -------------------------------------------------------------------------------

    async def _deliver_opened(self, receipt: Receipt, job: str, thread: ThreadKey) -> None:
        """Deliver a reply that this process has opened, in this call or in an earlier one whose
        answer was lost."""
        if receipt.job != job or self.delivers(job):
            return
        if receipt.outcome in ("queued", "duplicate"):
            delivery = await self._deliveries.opened(thread, job, self.settings.holder)
            if delivery is not None:
                self._deliver(delivery)

    def _deliver(
        self,
        delivery: Delivery,
        past: asyncio.Task[None] | None = None,
        *,
        is_refusal: bool = False,
    ) -> None:
        if delivery.thread.is_one_off:  # of a process that ended: nobody waits for it
            self._spawn(self.one_off_jobs.remove(delivery))
            return
        if before := self._held.get(delivery.job):
            if before.delivery.token >= delivery.token:
                return
            before.lose()  # our own lease had ended
        held = ReplyDelivery(
            delivery,
            self._platform,
            self._deliveries,
            delivery.note.get("locale") or self.settings.locale,
            self.settings.lease,
            self.settings.zone,
            is_refusal=is_refusal,
        )
        if delivery.token == OPENED and not delivery.replaces:
            held.after = self._newest_in(delivery.thread)
        self._held[delivery.job] = held
        metrics.DELIVERIES_OPEN.labels(self._platform.name).inc()
        self._spawn(self._run_delivery(held))
        if attachments.NOTE in delivery.note and not is_refusal:
            self._spawn(self._files.read_asked(delivery, past, lambda: self.delivers(delivery.job)))

    def _newest_in(self, thread: ThreadKey) -> ReplyDelivery | None:
        """The newest other reply in a thread. Refusals do not count: nothing waits for them."""
        in_thread = [held for held in self._held.values() if held.delivery.thread == thread]
        return next((held for held in reversed(in_thread) if not held.is_refusal), None)

    async def _run_delivery(self, held: ReplyDelivery) -> None:
        job, ending = held.delivery.job, "failed"
        try:
            with span(job, "deliver", platform=self._platform.name):
                await held.run()
            if held.was_deleted:
                await self._forget(held.delivery)
            ending = type(held.view.end).__name__.lower()
        except LeaseLost:
            ending = "lost"
            log.info("another process delivers this reply", job=job)
        except Exception:
            log.exception("a delivery failed", job=job)
        finally:
            held.finished.set()
            if self._held.get(job) is held:
                del self._held[job]
            metrics.DELIVERIES_OPEN.labels(self._platform.name).dec()
            metrics.DELIVERIES.labels(self._platform.name, ending).inc()

    async def _forget(self, delivery: Delivery) -> None:
        """Forget a reply whose message was deleted, and the reply that it replaces."""
        for turn in filter(None, (delivery.job, delivery.replaces)):
            await self._delete(delivery.thread, turn)

    def _spawn(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- the process ----------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver, take over and renew until `stop` is set; then finish, or hand back."""
        background = [
            asyncio.create_task(repeat_forever(self._listen, self.settings.take_over)),
            asyncio.create_task(repeat_forever(self._take_over, self.settings.take_over)),
            asyncio.create_task(repeat_forever(self._renew, self.settings.lease / 4)),
            asyncio.create_task(repeat_forever(self._tell_positions, self.settings.positions)),
        ]
        try:
            await stop.wait()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=self.settings.drain)
        finally:
            left = [held.delivery for held in self._held.values()]
            await cancel(*background, *self._tasks)
            with contextlib.suppress(StoreUnavailable):
                await self._deliveries.hand_back(left)

    async def _listen(self) -> None:
        await self._deliveries.listen(self._platform.name)

    async def _take_over(self) -> None:
        # without a core, only this ends messages that are past their deadline
        metrics.TAKEOVERS.inc((await self._queue.sweep()).taken_over)
        for delivery in await self._deliveries.take_over(self._platform.name, self.settings.holder):
            self._deliver(delivery)

    async def _renew(self) -> None:
        deliveries = dict(self._held)
        began = asyncio.get_running_loop().time()
        still = await self._deliveries.renew([held.delivery for held in deliveries.values()])
        for job, holds in still.items():
            if holds:
                deliveries[job].confirmed = began
            else:
                deliveries[job].lose()

    async def _tell_positions(self) -> None:
        for job, held in list(self._held.items()):
            status = held.view.status
            if status is not None and status.kind == "queued":
                positions = await self._queue.positions(held.delivery.thread, [job])
                if positions[0]:
                    held.set_status(Status("queued", positions[0]))


def _asker_of(incoming: Incoming) -> Asker:
    return Asker(incoming.thread, incoming.turn.author, incoming.roles, incoming.stranger)
