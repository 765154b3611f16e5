"""The delivery of one reply: its events become a `View`, which is written to the platform.

Events are read as fast as they come. Writing follows the platform's rate limits and always takes
the newest view. Each new message is recorded before and after it is posted, so that another process
can continue.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, tzinfo
from functools import partial
from itertools import chain, repeat
from typing import TypeVar

import structlog

from bots import duels, text
from bots.platform import (
    EditRefused,
    MessageGone,
    MessageTooLong,
    Part,
    Platform,
    PlatformRefused,
    Status,
    is_refusal,
)
from bots.view import View
from core.background import first_of, retry_while_away
from core.errors import StoreUnavailable
from core.ports import Deliveries
from core.queue_types import OPENED, Delivery
from core.types import Cancelled, Done, Failed

T = TypeVar("T")

RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds between tries of a platform call; the last value repeats."""

GIVE_UP_SECONDS = 3600.0
"""When calls have failed for this long, the reply stays as it is."""

NOTE_LENGTH = 120
"""Characters of a note that fit under a part of full length on every platform."""

log = structlog.get_logger()


def pauses() -> Iterator[float]:
    """The seconds between tries, until the delivery gives up."""
    end = time.monotonic() + GIVE_UP_SECONDS
    for seconds in chain(RETRY_SECONDS, repeat(RETRY_SECONDS[-1])):
        if time.monotonic() + seconds > end:
            return
        yield seconds


class LeaseLost(Exception):
    """Another process has taken over the delivery."""


@dataclass
class ReplyDelivery:
    """A delivery that this process has leased."""

    delivery: Delivery
    platform: Platform
    deliveries: Deliveries
    locale: str
    lease: float
    zone: tzinfo = UTC
    """The time zone of times in sentences."""
    after: ReplyDelivery | None = None
    """The thread's earlier reply, which must be posted first."""
    is_refusal: bool = False
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    view: View = field(default_factory=View)
    confirmed: float = field(default_factory=time.monotonic)
    """When the lease was last confirmed, by this process's clock."""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _ended: asyncio.Event = field(default_factory=asyncio.Event)
    _messages: list[str] = field(default_factory=list)
    _written: dict[int, Part] = field(default_factory=dict)
    _status: Status | None = None
    _lost: bool = False
    _has_written: bool = False
    """A part of this reply may have been posted."""
    _uncertain_from: int | None = None
    """The first part that an earlier process may have posted a second time."""
    _removed: list[str] = field(default_factory=list)
    """The messages of this reply that were removed."""
    _part_length: int = 0
    _reposted: set[int] = field(default_factory=set)
    """The parts whose message could not be edited and was posted again."""
    was_deleted: bool = False
    """Somebody deleted a message of the reply: it is stopped, and its turn is forgotten."""

    async def run(self) -> None:
        """Deliver the whole reply. LeaseLost if another process has taken over."""
        began = time.monotonic()
        reading = asyncio.create_task(self._read())
        try:
            await self._write(began)
        except PlatformRefused as error:
            log.warning("the platform refused a reply", job=self.delivery.job, error=str(error))
        finally:
            reading.cancel()
        if not await retry_while_away(lambda: self.deliveries.close(self.delivery, self._messages)):
            raise LeaseLost  # a message that is gone may be one that the next holder removed

    def lose(self) -> None:
        """Another process has taken over: write nothing more."""
        self._lost = True
        self._changed.set()

    def set_status(self, status: Status) -> None:
        """Show a new status, such as a new position in the queue."""
        if self.view.end is None and not self.view.text:
            self._set_view(replace(self.view, status=status))

    # -- reading --------------------------------------------------------------------------------

    async def _read(self) -> None:
        delivery = self.delivery
        while True:
            try:
                async for event in self.deliveries.follow(delivery):
                    self._set_view(self.view.after(event))
            except StoreUnavailable:
                await asyncio.sleep(0.5)
                delivery = replace(delivery, position=0)  # read all events again
            except Exception:
                log.exception("cannot follow a reply", job=self.delivery.job)
                self._set_view(replace(self.view, end=Failed("internal")))
                return
            else:
                return

    def _set_view(self, view: View) -> None:
        self.view = view
        self._changed.set()
        if view.end is not None:
            self._ended.set()

    # -- writing --------------------------------------------------------------------------------

    async def _write(self, began: float) -> None:
        try:
            await self._load_messages()
            await self._write_until_end()
            await self._repeat_end(began)
        except MessageGone:
            log.info("a reply was deleted while it was written", job=self.delivery.job)
            self.was_deleted = True
            await self._remove_second_posts(began)

    async def _load_messages(self) -> None:
        """Find messages that exist already, from an earlier process or from the replaced reply."""
        self._messages = list(self.delivery.messages)
        self._has_written = bool(self._messages)
        if self.delivery.replaces and not self._messages:
            self._messages = list(await self._predecessor(self.delivery.replaces))
        self._uncertain_from = self.delivery.posting
        if self._uncertain_from is not None:
            await self._find_unrecorded(len(self._messages))

    async def _find_unrecorded(self, index: int) -> None:
        """Look for a message that an earlier process was posting. It may still arrive."""
        began = time.monotonic()
        found = await self._call(lambda: self._find(index))
        if not found:
            await asyncio.sleep(began + self.platform.call_seconds - time.monotonic())
            found = await self._call(lambda: self._find(index))
        if found:
            self._messages.append(found)
            self._has_written = True
            await self._record(posting=None)

    async def _find(self, index: int) -> str | None:
        known = replace(self.delivery, messages=(*self._messages, *self._removed))
        return await self.platform.find(known, index)

    async def _predecessor(self, job: str) -> Sequence[str]:
        """The messages of the replaced reply, once no process writes to them."""
        thread = self.delivery.thread
        while not await retry_while_away(lambda: self.deliveries.closed(thread, job)):
            await asyncio.sleep(0.1)
            await self._confirm()
        before = await retry_while_away(lambda: self.deliveries.get(thread, job))
        return before.messages if before else ()

    async def _write_until_end(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._wait_for_turn()
            if self._lost:
                raise LeaseLost
            await self._pace()
            view = self.view
            await self._show_status(view)
            await self._show(view)
            if view.end is not None:
                return

    async def _wait_for_turn(self) -> None:
        """Wait until the thread's earlier reply is written: its posts may be failing."""
        while self.after is not None and not self._lost:
            if self.after.finished.is_set() or self._messages or is_refusal(self.view.end):
                self.after = None  # no longer needed
                return
            await self._show_status(self.view)
            await first_of(self.after.finished.wait(), self._changed.wait())
            self._changed.clear()

    async def _pace(self) -> None:
        """Wait for the rate limits, but not longer than until the reply ends."""
        if not self._ended.is_set() and not self.view.text:
            return  # a status has its own rate limit
        if is_refusal(self.view.end):
            return  # a refusal must not use up a reply's rate limit
        if not self._ended.is_set():
            await first_of(self.platform.pace(self.delivery, final=False), self._ended.wait())
        if self._ended.is_set():
            await self.platform.pace(self.delivery, final=True)

    async def _show_status(self, view: View) -> None:
        status = view.status
        if status is None or status == self._status or view.end is not None:
            return
        self._status = status
        await self._confirm()
        try:
            await self.platform.status(self.delivery, status)
        except Exception as error:  # the reply matters more than its status
            log.info("no status", job=self.delivery.job, error=repr(error))

    async def _show(self, view: View) -> None:
        """Write the view into the messages, in smaller parts if they are too long."""
        while True:
            try:
                return await self._show_parts(self._parts(view), view)
            except MessageTooLong as error:
                if not text.SHORTEST_LIMIT <= error.limit < self._limit:
                    raise
                log.info("a message was too long", job=self.delivery.job, limit=error.limit)
                self._part_length = error.limit

    @property
    def _limit(self) -> int:
        return self._part_length or self.platform.part_length

    async def _show_parts(self, parts: Sequence[Part], view: View) -> None:
        for part in parts:
            if part.index < len(self._messages):
                await self._edit(part)
            else:
                await self._post(part)
        if view.end is not None and parts:
            await self._remove_messages(self._messages[len(parts) :])
            del self._messages[len(parts) :]

    def _parts(self, view: View) -> list[Part]:
        words, note = view.words(self.locale, self.zone)
        if not words or self._needs_no_words(view):
            return []
        texts = self._texts(view.end, words)
        if (over := len(note) - NOTE_LENGTH) > 0:
            room = max(self._limit - over, text.SHORTEST_LIMIT)
            texts[-1:] = text.split(texts[-1], room)
        last = len(texts) - 1
        return [
            Part(at, words, at == last, note if at == last else "", view.end)
            for at, words in enumerate(texts)
        ]

    def _texts(self, end: object, words: str) -> list[str]:
        """The text of each message. A duel's answers share a message only if both fit into it."""
        texts = list(self.platform.split(self.delivery, words, self._limit))
        if not isinstance(end, Done) or end.duel is None or len(texts) == 1:
            return texts
        answers = duels.headed(end.duel)
        return [
            text
            for answer in answers
            for text in self.platform.split(self.delivery, answer, self._limit)
        ]

    def _needs_no_words(self, view: View) -> bool:
        """Whether nobody waits for the end of a reply, or the reply that it replaces stays."""
        if self._has_written or view.text or not isinstance(view.end, Cancelled):
            return False
        return view.end.by == "delete" or bool(self._messages)

    async def _post_part(self, part: Part) -> str:
        async def post() -> str:
            return await self.platform.post(self.delivery, part)

        async def post_again() -> str:
            return await self._find(part.index) or await post()

        return await self._call(post, post_again)

    async def _post(self, part: Part) -> None:
        await self._record(posting=part.index)
        message = await self._post_part(part)
        self._messages.append(message)
        self._has_written = True
        self._written[part.index] = part
        try:
            await self._record(posting=None)
        except LeaseLost:
            await self._withdraw(part.index, message)
            raise

    async def _withdraw(self, index: int, message: str) -> None:
        """Remove a message if the delivery's next holder has posted that part as well."""
        thread, job = self.delivery.thread, self.delivery.job
        while True:
            over = await retry_while_away(lambda: self.deliveries.closed(thread, job))
            now = await retry_while_away(lambda: self.deliveries.get(thread, job))
            if now is not None and message in now.messages:
                return
            if now is None or over or len(now.messages) > index:
                await self._without_lease(lambda: self.platform.remove(self.delivery, message))
                return
            await asyncio.sleep(0.1)

    async def _without_lease(self, call: Callable[[], Awaitable[None]]) -> None:
        for seconds in pauses():
            try:
                await call()
            except PlatformRefused:
                return
            except Exception as error:
                log.warning("a platform call failed", job=self.delivery.job, error=repr(error))
                await asyncio.sleep(seconds)
            else:
                return

    async def _edit(self, part: Part) -> None:
        if self._written.get(part.index) == part:
            return
        message = self._messages[part.index]
        if not self._has_written:  # so that a takeover knows these messages
            await self._record(posting=None)
            self._has_written = True
        try:
            await self._call(lambda: self.platform.edit(self.delivery, message, part))
        except EditRefused as refusal:
            await self._repost(part, refusal)
        self._written[part.index] = part

    async def _repost(self, part: Part, refusal: EditRefused) -> None:
        """Post a part again, once, and remove the message that can no longer be edited.

        The later parts are removed as well, and posted again below it.
        """
        if part.index in self._reposted:
            raise refusal
        log.info("a message is posted anew", job=self.delivery.job, why=str(refusal))
        self._reposted.add(part.index)
        await self._record(posting=part.index)
        new = await self._post_part(part)
        old = self._messages[part.index :]
        self._messages[part.index :] = [new]
        await self._record(posting=None)
        for message in old:
            await self._remove_if_possible(message)

    async def _remove_if_possible(self, message: str) -> None:
        try:
            await self._remove_messages([message])
        except PlatformRefused as error:
            log.info("an old message stays", job=self.delivery.job, error=str(error))
            self._removed.append(message)  # `find` must ignore it

    async def _remove_messages(self, messages: Sequence[str]) -> None:
        """Remove messages that the reply no longer needs.

        They are disowned first, because the platform reports the removal like a deletion by a
        person.
        """
        if messages:
            await retry_while_away(lambda: self.deliveries.disown(self.delivery, messages))
        for message in messages:
            await self._call(partial(self.platform.remove, self.delivery, message))
        self._removed += messages

    async def _repeat_end(self, began: float) -> None:
        """Write the end again after a takeover: a late call of the earlier process may overwrite
        it."""
        if self.delivery.token == OPENED:
            return
        await self._until_calls_are_over(began)
        self._written.clear()
        await self._show(self.view)
        await self._remove_second_posts(began)

    async def _until_calls_are_over(self, began: float) -> None:
        """Wait for the late calls of a process that may not know yet that it lost its lease."""
        unaware = self.lease / 2
        await asyncio.sleep(began + unaware + self.platform.call_seconds - time.monotonic())

    async def _remove_second_posts(self, began: float) -> None:
        if self._uncertain_from is None:
            return
        await self._until_calls_are_over(began)
        for index in range(self._uncertain_from, len(self._messages) + len(self._removed)):
            await self._remove_duplicates(index)

    async def _remove_duplicates(self, index: int) -> None:
        """Remove second copies of a part, which a dead process cannot remove."""
        while double := await self._call(partial(self._find, index)):
            await self._without_lease(partial(self.platform.remove, self.delivery, double))
            self._removed.append(double)

    # -- the lease, and calls -------------------------------------------------------------------

    async def _record(self, posting: int | None) -> None:
        began = time.monotonic()
        messages = list(self._messages)
        if self._uncertain_from is not None:  # a next process must look for duplicates, too
            posting = self._uncertain_from
        if not await retry_while_away(
            lambda: self.deliveries.record(self.delivery, messages, posting)
        ):
            raise LeaseLost
        self.confirmed = began

    async def _confirm(self) -> None:
        """Renew the lease if half of it has passed: this process may have been paused."""
        began = time.monotonic()
        if began - self.confirmed < self.lease / 2:
            return
        held = await retry_while_away(lambda: self.deliveries.renew([self.delivery]))
        if not held[self.delivery.job]:
            raise LeaseLost
        self.confirmed = began

    async def _call(
        self,
        call: Callable[[], Awaitable[T]],
        again: Callable[[], Awaitable[T]] | None = None,
    ) -> T:
        """Call the platform while the lease is ours. A retry calls `again`: the call may have
        worked."""
        waits = pauses()
        while True:
            await self._confirm()
            try:
                return await self._checked(call)
            except (PlatformRefused, LeaseLost):
                raise
            except Exception as error:
                seconds = next(waits, None)
                if seconds is None:
                    raise PlatformRefused(f"given up after {error!r}") from error
                log.warning("a platform call failed", job=self.delivery.job, error=repr(error))
                await asyncio.sleep(seconds)
            call = again or call

    async def _checked(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call. If the lease ended meanwhile and another process took over, the call may
        have overwritten newer text: reopen the delivery, so that its holder writes again."""
        done = await call()
        if time.monotonic() - self.confirmed >= self.lease:
            held = await retry_while_away(lambda: self.deliveries.renew([self.delivery]))
            if not held[self.delivery.job]:
                await retry_while_away(lambda: self.deliveries.reopen(self.delivery))
        return done
