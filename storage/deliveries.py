"""Replies on their way to people: `core.ports.Deliveries`.

Each reply has a stream of events, kept for a day. One reader per bucket follows the
platform's news stream, which has every event but the first, and passes each to the follower of its
reply in this process. A follower that missed one, or started late, reads the reply's own stream.
"""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any, cast

import structlog

from core.place_rules import scopes
from core.queue_types import OPENED, Delivery
from core.types import Cancelled, Done, Failed, Queued, ReplyEvent, ThreadKey
from storage import codec, keys
from storage.connect import BLOCKING_SECONDS
from storage.store import REDIS_FAULTS, Store

log = structlog.get_logger()

LOOK_AGAIN = 2.0
"""Seconds after which a follower reads the reply's stream: the news stream may miss events."""

FIRST_LOOK = 0.25
"""The same for a reply that may have events from before it was followed."""

NEWS_AT_ONCE = 1000

SECRET = "secret_"  # noqa: S105 -- the prefix of the notes that are not kept


@dataclass(frozen=True, slots=True)
class News:
    """One event from the news stream: its index in the reply, and its id in the reply's stream."""

    number: int
    entry: str
    event: ReplyEvent


class RedisDeliveries:
    """Leases on deliveries, and the reply events that they follow."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._followed: dict[str, asyncio.Queue[News]] = {}

    # -- leases ---------------------------------------------------------------------------------

    async def take_over(self, platform: str, holder: str, most: int = 100) -> Sequence[Delivery]:
        def step(bucket: int) -> Awaitable[Any]:
            return self._run("take_deliveries", bucket, platform=platform, holder=holder, most=most)

        answers, _ = await self._store.each(self._store.all_buckets(), step)
        taken: list[Delivery] = []
        for id_, flat in chain.from_iterable(answers.values()):
            try:
                taken.append(codec.decode_delivery(id_, codec.flatten(flat)))
            except codec.Undecodable as error:
                log.warning("a delivery is poisoned", job=id_, error=str(error))
        return taken

    async def get(self, thread: ThreadKey, job: str) -> Delivery | None:
        fields = await self._fields(thread, job)
        return codec.decode_delivery(job, fields) if fields else None

    async def opened(self, thread: ThreadKey, job: str, holder: str) -> Delivery | None:
        fields = await self._fields(thread, job)
        if fields.get("holder") != holder or "closed" in fields:
            return None
        delivery = codec.decode_delivery(job, fields)
        return delivery if delivery.token == OPENED else None

    async def _fields(self, thread: ThreadKey, job: str) -> Mapping[str, str]:
        name = self._name("delivery", thread, job)
        return cast("Mapping[str, str]", await self._store.command("hgetall", name))

    async def renew(self, held: Sequence[Delivery]) -> Mapping[str, bool]:
        return await self._set_lease(held, self._store.delivery_lease)

    async def hand_back(self, held: Sequence[Delivery]) -> None:
        await self._set_lease(held, 0)

    async def _set_lease(self, held: Sequence[Delivery], seconds: float) -> Mapping[str, bool]:
        by_bucket: dict[int, list[Delivery]] = defaultdict(list)
        for delivery in held:
            by_bucket[self._store.bucket(delivery.thread)].append(delivery)

        def step(bucket: int) -> Awaitable[Sequence[int]]:
            mine = by_bucket[bucket]
            rows = [{"job": d.job, "token": d.token} for d in mine]
            platform, lease = mine[0].thread.platform, round(seconds * 1000)
            return self._store.run(
                "renew_deliveries", bucket, platform=platform, held=rows, delivery_ms=lease
            )

        answers, _ = await self._store.each(by_bucket, step)
        return {
            delivery.job: bool(holds)
            for bucket, still in answers.items()
            for delivery, holds in zip(by_bucket[bucket], still, strict=True)
        }

    async def record(
        self, delivery: Delivery, messages: Sequence[str], posting: int | None
    ) -> bool:
        return await self._record(delivery, messages, posting, close=False)

    async def close(self, delivery: Delivery, messages: Sequence[str]) -> bool:
        return await self._record(delivery, messages, None, close=True)

    async def _record(
        self, delivery: Delivery, messages: Sequence[str], posting: int | None, *, close: bool
    ) -> bool:
        kept = {name: text for name, text in delivery.note.items() if not name.startswith(SECRET)}
        answer = await self._run(
            "record_messages",
            self._store.bucket(delivery.thread),
            job=delivery.job,
            token=delivery.token,
            messages=codec.dump(list(messages)),
            posting="" if posting is None else posting,
            close=close,
            note=codec.dump(kept),
        )
        return bool(answer)

    async def reopen(self, delivery: Delivery) -> None:
        await self._run("reopen", self._store.bucket(delivery.thread), job=delivery.job)

    async def closed(self, thread: ThreadKey, job: str) -> bool:
        """Whether no process writes to the messages of this reply any more."""
        name = self._name("delivery", thread, job)
        return await self._store.command("hget", name, "closed") is not None or not (
            await self._store.command("exists", name)
        )

    async def disown(self, delivery: Delivery, messages: Sequence[str]) -> None:
        names = [self._of_message(delivery.thread, message) for message in messages]
        await self._store.command("delete", *names)

    async def locate(self, place: ThreadKey, message: str) -> tuple[ThreadKey, str] | None:
        """The thread and turn of a platform's message; `place` names platform, space, channel."""
        found = await self._store.command("get", self._of_message(place, message))
        if not found:
            return None
        thread, turn = found.split("\n")
        return ThreadKey.parse(thread), turn

    async def quoting(self, place: ThreadKey, message: str) -> Sequence[ThreadKey]:
        name = self._name("quoted", place, scopes(place)[1], message)
        return [ThreadKey.parse(text) for text in await self._store.command("smembers", name)]

    # -- events ---------------------------------------------------------------------------------

    async def follow(self, delivery: Delivery) -> AsyncIterator[ReplyEvent]:
        """The events of a reply from its first on, until its end."""
        async with aclosing(self._events(delivery)) as events:
            async for event in events:
                yield event
                if isinstance(event, Done | Failed | Cancelled):
                    return

    async def _events(self, delivery: Delivery) -> AsyncGenerator[ReplyEvent, None]:
        bucket, job = self._store.bucket(delivery.thread), delivery.job
        news = self._followed[job] = asyncio.Queue()
        number, last, wait = 0, "-", 0.0
        try:
            if delivery.position:
                number, wait = 1, FIRST_LOOK
                yield Queued(delivery.position)
            while True:
                while (new := await _next(news, wait)) and new.number <= number + 1:
                    if new.number == number + 1:
                        number, last = new.number, f"({new.entry}"
                        yield new.event
                missed = await self._store.run("events", bucket, job=job, after=last)
                known = number if last == "-" else 0  # they are among the events read
                for entry, text in list(codec.flatten(missed).items())[known:]:
                    number, last = number + 1, f"({entry}"
                    yield codec.decode_event(text, entry)
                wait = LOOK_AGAIN
        finally:
            if self._followed.get(job) is news:
                del self._followed[job]

    async def listen(self, platform: str) -> None:
        """Pass the platform's events on to the followers in this process, for ever."""
        async with asyncio.TaskGroup() as group:
            for bucket in self._store.all_buckets():
                group.create_task(self._listen(platform, bucket))

    async def _listen(self, platform: str, bucket: int) -> None:
        # from the oldest entry on: nothing between two reads may be missed
        name, last = keys.key("news", bucket, platform), "0"
        milliseconds = round(1000 * BLOCKING_SECONDS)
        while True:
            try:
                answer = await self._store.connection.blocking().xread(
                    {name: last}, count=NEWS_AT_ONCE, block=milliseconds
                )
            except REDIS_FAULTS:
                await asyncio.sleep(0.5)  # the followers read the streams meanwhile
                continue
            for entry, fields in _entries(answer):
                last = entry
                with suppress(codec.Undecodable):  # its follower reads it in the reply's stream
                    self._pass_on(fields)

    def _pass_on(self, fields: Mapping[str, str]) -> None:
        if news := self._followed.get(fields["j"]):
            if not fields["e"]:  # of a one-off job: its stream has the text
                news.put_nowait(News(sys.maxsize, fields["i"], Queued(0)))
                return
            event = codec.decode_event(fields["e"], fields["i"])
            news.put_nowait(News(int(fields["n"]), fields["i"], event))

    # -- between here and Redis -----------------------------------------------------------------

    def _of_message(self, place: ThreadKey, message: str) -> str:
        return self._name("message", place, scopes(place)[1], message)

    def _name(self, name: str, thread: ThreadKey, *parts: str) -> str:
        return keys.key(name, self._store.bucket(thread), *parts)

    async def _run(self, script: str, bucket: int, **arguments: Any) -> Any:
        lease = round(self._store.delivery_lease * 1000)
        return await self._store.run(script, bucket, delivery_ms=lease, **arguments)


def _entries(answer: Any) -> Sequence[tuple[str, Mapping[str, str]]]:
    """The entries of an XREAD over one stream, in RESP2's form or RESP3's."""
    if not answer:
        return ()
    rows = answer.values() if isinstance(answer, dict) else [rows for _, rows in answer]
    return [entry for batch in rows for entry in (batch[0] if isinstance(answer, dict) else batch)]


async def _next(news: asyncio.Queue[News], seconds: float) -> News | None:
    """The next of the news, or None after a while."""
    try:
        async with asyncio.timeout(seconds):
            return await news.get()
    except TimeoutError:
        return None
