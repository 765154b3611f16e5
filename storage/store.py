"""What the queue, the history and the deliveries stand on: connections, buckets, and scripts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from typing import Any, Protocol

from redis.exceptions import NoScriptError, RedisClusterException, RedisError

from core.errors import StoreUnavailable
from core.types import ThreadKey
from storage import keys
from storage.codec import dump

REDIS_FAULTS = (RedisError, RedisClusterException, OSError)

SCRIPTS = resources.files("storage") / "scripts"


class Connection(Protocol):
    """Redis as `storage.connect` gives it; answers are text."""

    @property
    def client(self) -> Any:
        """For commands that return at once."""
        ...

    def blocking(self) -> Any:
        """A client of its own, without a time-out, for one reader that blocks."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """How many replies may be owed at once before a person is told to come back."""

    all: int = 10_000
    channel: int = 1_000
    person: int = 100
    thread: int = 20
    mailbox: int = 500
    """Turns that a thread keeps unread."""


@dataclass(frozen=True)
class Store:
    """One Redis, and the terms on which it is used. Times are in seconds."""

    connection: Connection
    buckets: int = 1
    lease: float = 15.0
    delivery_lease: float = 15.0
    deadline: float = 3600.0
    retention: float = 30.0 * keys.DAY
    max_attempts: int = 3
    backoff: float = 1.0
    limits: Limits = Limits()
    answer_together: bool = True

    def bucket(self, thread: ThreadKey) -> int:
        return keys.bucket_of(thread, self.buckets)

    def all_buckets(self) -> Iterable[int]:
        return range(self.buckets)

    @cached_property
    def _scripts(self) -> dict[str, tuple[str, str]]:
        """Name -> (sha, text): each file behind the table of keys and what all scripts share."""
        head = keys.preamble(self.retention) + (SCRIPTS / "lib.lua").read_text()
        scripts = {}
        for file in SCRIPTS.iterdir():
            if file.name.endswith(".lua") and file.name != "lib.lua":
                text = f"{head}\n{file.read_text()}"
                sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
                scripts[file.name.removesuffix(".lua")] = (sha, text)
        return scripts

    async def run(self, script: str, bucket: int, **arguments: Any) -> Any:
        """Run one atomic step in one bucket. StoreUnavailable where Redis will not."""
        sha, text = self._scripts[script]
        base, packed = keys.base(bucket), dump(arguments)
        try:
            try:
                return await self.connection.client.evalsha(sha, 1, base, packed)
            except NoScriptError:
                return await self.connection.client.eval(text, 1, base, packed)
        except REDIS_FAULTS as error:
            raise StoreUnavailable(f"Redis did not do {script!r}: {error}") from error

    async def command(self, name: str, *arguments: Any) -> Any:
        """One plain command. StoreUnavailable where Redis will not."""
        try:
            return await getattr(self.connection.client, name)(*arguments)
        except REDIS_FAULTS as error:
            raise StoreUnavailable(f"Redis did not do {name!r}: {error}") from error
