"""The base of the stores: connections, buckets and scripts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar

from redis import exceptions
from redis.asyncio import RedisCluster
from redis.exceptions import RedisClusterException, RedisError

from core.errors import StoreUnavailable
from core.queue_types import Place
from core.types import DIRECT, ThreadKey
from storage import keys
from storage.lua import NO_REPLICAS, Replication, Scripts

T = TypeVar("T")

REDIS_FAULTS = (RedisError, RedisClusterException, OSError)
NO_WRITES: Mapping[str, str] = {
    "OOM": "its memory is full (see maxmemory)",
    "MISCONF": "it cannot write its files: is its disk full?",
    "READONLY": "it is a replica",
    "NOREPLICAS": "it has too few replicas",
}
"""Reasons why Redis refuses to write, by the first word of its error."""


def sentence(error: BaseException, where: str = "Redis", remedy: str = "") -> str:
    """A sentence about an error of Redis; `remedy`: its end if Redis does not answer."""
    said = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    # redis-py takes the word OOM away
    code = "OOM" if isinstance(error, exceptions.OutOfMemoryError) else said.partition(" ")[0]
    code = "READONLY" if isinstance(error, exceptions.ReadOnlyError) else code
    if code in NO_WRITES:
        return f"{where} takes no writes: {NO_WRITES[code]}"
    if isinstance(error, (exceptions.ConnectionError, exceptions.TimeoutError, OSError)):
        return f"{where} does not answer: {said}{remedy}"
    return f"{where} refuses: {said}"


class Connection(Protocol):
    """Redis as `storage.connect` gives it; answers are text."""

    @property
    def client(self) -> Any:
        """For commands that return at once."""
        ...

    def blocking(self) -> Any:
        """For commands that block: each has its own connection."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """The most open jobs. Over a limit, a message is refused as busy."""

    all: int = 10_000
    channel: int = 1_000
    person: int = 100
    thread: int = 20
    mailbox: int = 500
    """The most unread turns of a thread."""


@dataclass(frozen=True)
class Store:
    """One Redis, with the limits and lifetimes in use. Times are in seconds."""

    connection: Connection
    buckets: int = 1
    lease: float = 15.0
    delivery_lease: float = 15.0
    deadline: float = 3600.0
    retention: float = 30.0 * keys.DAY
    audit: float = 365.0 * keys.DAY
    """How long the audit log is kept."""
    max_attempts: int = 3
    backoff: float = 1.0
    limits: Limits = Limits()
    answer_together: bool = True
    replication: Replication = NO_REPLICAS

    def bucket(self, thread: ThreadKey) -> int:
        return keys.bucket_of(thread, self.buckets)

    def all_buckets(self) -> Iterable[int]:
        return range(self.buckets)

    def buckets_of(self, place: Place) -> Iterable[int]:
        """The buckets of a place's threads: all of them for direct messages without a space."""
        if place.space == DIRECT and place.channel is None:
            return self.all_buckets()
        return [self.bucket(place.any_thread)]

    @cached_property
    def _scripts(self) -> Scripts:
        head = keys.preamble(self.retention, self.audit)
        return Scripts(self.connection.client, head, self.replication)

    async def run(self, script: str, bucket: int, **arguments: Any) -> Any:
        """Run one atomic step in one bucket. StoreUnavailable if Redis fails."""
        try:
            return await self._scripts.run(script, keys.base(bucket), arguments)
        except REDIS_FAULTS as error:
            raise StoreUnavailable(sentence(error)) from error

    async def each(
        self, buckets: Iterable[int], step: Callable[[int], Awaitable[T]]
    ) -> tuple[Mapping[int, T], StoreUnavailable | None]:
        """Run a step in several buckets at once. Returns the answers by bucket, and a fault if any.

        A server that is away does not delay the steps of other buckets, though all answers come
        together. StoreUnavailable if all servers are away.
        """
        asked = list(buckets)
        answers = await asyncio.gather(*map(step, asked), return_exceptions=True)
        done, fault = {}, None
        for bucket, answer in zip(asked, answers, strict=True):
            if isinstance(answer, StoreUnavailable):
                fault = answer
            elif isinstance(answer, BaseException):
                raise answer
            else:
                done[bucket] = answer
        if fault and not done:
            raise fault
        return done, fault

    async def rewrite_file(self, bucket: int) -> None:
        """Rewrite the append-only file, to remove deleted text from it.

        Not every Redis has such a file, or lets a client rewrite it.
        """
        client = self.connection.client
        with suppress(*REDIS_FAULTS):
            if isinstance(client, RedisCluster):
                node = client.get_node_from_key(keys.base(bucket))
                await client.execute_command("BGREWRITEAOF", target_nodes=node)
            else:
                await client.bgrewriteaof()

    async def command(self, name: str, *arguments: Any) -> Any:
        """One plain command. StoreUnavailable if Redis fails."""
        try:
            return await getattr(self.connection.client, name)(*arguments)
        except REDIS_FAULTS as error:
            raise StoreUnavailable(sentence(error)) from error
