"""From ``REDIS_URL`` to clients: a server, a Sentinel's primary, or a Cluster.

redis://[user:password@]host[:port][/db]      rediss:// the same over TLS
unix:///path/to/socket[?db=0]
redis+sentinel://[user:password@]host1[:port],host2[:port]/name[/db]
redis+cluster://[user:password@]host1[:port],host2[:port]
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

from redis import exceptions
from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.client import Pipeline
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import EqualJitterBackoff, NoBackoff

from core.errors import StoreUnavailable, UsageError
from storage.store import sentence

Client: TypeAlias = Redis | RedisCluster

COMMAND_SECONDS = 5.0
"""All our commands are fast: a server that is silent for this long is away."""

CONNECT_SECONDS = 2.0
"""For connecting; shorter than for a command, so that another server can be tried in time."""

SENTINEL_SECONDS = 1.0
"""For a sentinel: if it is silent, the next one is asked within a command's time."""

BLOCKING_SECONDS = 5.0
"""The longest wait of a blocking read."""

SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "redis+cluster")
SENTINEL_PORT = 26379
REDIS_PORT = 6379


async def _timed(answer: Awaitable[Any], seconds: float) -> Any:
    """Await a whole command with a timeout, instead of each use of the socket.

    redis-py applies `socket_timeout` to the sending with asyncio.wait_for, which up to Python 3.11
    can swallow a cancellation at the end of the sending: a loop would then not stop.
    """
    try:
        async with asyncio.timeout(seconds):
            return await answer
    except TimeoutError:
        raise exceptions.TimeoutError(f"no answer in {seconds:g} s") from None


class TimedRedis(Redis):
    """A client with a timeout for each whole command, which can always be cancelled."""

    def command_timeout(self) -> float:
        """Seconds that a command may take."""
        return COMMAND_SECONDS

    async def execute_command(self, *words: Any, **options: Any) -> Any:
        answer = super().execute_command(*words, **options)  # type: ignore[no-untyped-call]  # theirs
        return await _timed(answer, self.command_timeout())

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        return _TimedPipeline(
            self.connection_pool, self.response_callbacks, transaction, shard_hint
        )


class _TimedPipeline(Pipeline):
    """One timeout for all commands of a pipeline."""

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        answers: list[Any] = await _timed(super().execute(raise_on_error), COMMAND_SECONDS)
        return answers


class _BlockingRedis(TimedRedis):
    """For blocking reads: a longer timeout, so that a silent server is not waited for forever."""

    def command_timeout(self) -> float:
        return BLOCKING_SECONDS + COMMAND_SECONDS


class _SentinelClient(TimedRedis):
    def command_timeout(self) -> float:
        return SENTINEL_SECONDS


class _TimedCluster(RedisCluster):
    def command_timeout(self) -> float:
        return COMMAND_SECONDS

    async def execute_command(self, *words: Any, **options: Any) -> Any:
        try:
            return await _timed(super().execute_command(*words, **options), self.command_timeout())
        except exceptions.TimeoutError:
            # make redis-py read the cluster's layout again, as it does after its own errors
            self._initialize = True
            raise


class _BlockingCluster(_TimedCluster):
    def command_timeout(self) -> float:
        return BLOCKING_SECONDS + COMMAND_SECONDS


class Connection:
    """The clients of one store. Text comes back as `str`.

    A command whose answer was lost is retried a few times with back-off, so it may run twice.
    """

    def __init__(self, url: str) -> None:
        """UsageError for an invalid `url`; nothing is sent yet."""
        self.address = Address.parse(url)
        self.client: Client = _client(self.address, TimedRedis, _TimedCluster)
        self._blocking: Client = _client(self.address, _BlockingRedis, _BlockingCluster)

    @property
    def is_cluster(self) -> bool:
        return self.address.scheme == "redis+cluster"

    def blocking(self) -> Client:
        """The client for BLPOP and XREAD of up to BLOCKING_SECONDS: it waits as long as they do,
        each call on its own connection."""
        return self._blocking

    async def aclose(self) -> None:
        for client in (self.client, self._blocking):
            await client.aclose()
            pool = getattr(client, "connection_pool", None)
            if isinstance(pool, SentinelConnectionPool):
                await pool.sentinel_manager.aclose()


async def connect(url: str) -> Connection:
    """A connection that has answered; else StoreUnavailable, one sentence."""
    connection = Connection(url)
    try:
        await connection.client.ping()
    except (exceptions.RedisError, exceptions.RedisClusterException, OSError) as error:
        await connection.aclose()
        where, remedy = f"Redis at {connection.address}", "; start it, or correct REDIS_URL"
        raise StoreUnavailable(sentence(error, where, remedy)) from None
    return connection


@dataclass(frozen=True, slots=True)
class Address:
    """A URL taken apart. Prints without its password."""

    scheme: str
    hosts: tuple[tuple[str, int], ...]
    path: str
    url: str
    username: str | None = None
    password: str | None = None

    def __str__(self) -> str:
        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"{self.scheme}://{hosts}{self.path}"

    def __repr__(self) -> str:
        return f"Address({self})"

    @classmethod
    def parse(cls, url: str) -> Address:
        """UsageError if `url` has none of the five forms."""
        parts = urlsplit(url)
        if parts.scheme not in SCHEMES:
            raise UsageError(
                "REDIS_URL must start with redis://, rediss://, unix://, redis+sentinel:// or "
                "redis+cluster://"
            )
        if "@" in url.removeprefix(f"{parts.scheme}://{parts.netloc}") and parts.netloc:
            raise UsageError(
                "REDIS_URL has a /, ? or # in its password: write it as %2F, %3F or %23"
            )
        if parts.scheme in ("redis", "rediss") and not re.fullmatch("/?|/[0-9]+", parts.path):
            # redis-py would take database 0
            raise UsageError(f"REDIS_URL ends with {parts.path}: a database's number is expected")
        if parts.scheme.startswith("redis+") and parts.query:
            raise UsageError(f"REDIS_URL has options, which {parts.scheme}:// does not take")
        credentials, _, hosts = parts.netloc.rpartition("@")
        username, _, password = credentials.partition(":")
        port = SENTINEL_PORT if parts.scheme == "redis+sentinel" else REDIS_PORT
        return cls(
            scheme=parts.scheme,
            hosts=tuple(_host(host, port) for host in hosts.split(",") if host),
            path=parts.path,
            url=url,
            username=unquote(username) or None,
            password=unquote(password) or None,
        )


def _host(text: str, default_port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    try:
        return parts.hostname or "localhost", parts.port or default_port
    except ValueError:
        raise UsageError(f"REDIS_URL names {text!r}, which is not host:port") from None


def _client(address: Address, plain: type[Redis], cluster: type[RedisCluster]) -> Client:
    if address.scheme == "redis+cluster":
        return _of_cluster(address, cluster)
    if address.scheme == "redis+sentinel":
        return _behind_sentinels(address, plain)
    try:
        client = plain.from_url(address.url, **_options())
        client.connection_pool.connection_class(**client.connection_pool.connection_kwargs)
    except (ValueError, TypeError, exceptions.RedisError) as error:
        raise UsageError(f"REDIS_URL {address} is wrong: {error}") from None
    return client


def _options() -> dict[str, Any]:
    return {
        "decode_responses": True,
        "socket_timeout": None,
        "socket_connect_timeout": CONNECT_SECONDS,
        "retry": Retry(EqualJitterBackoff(base=0.05, cap=1.0), retries=3),
        "max_connections": 10_000,
    }


def _behind_sentinels(address: Address, plain: type[Redis]) -> Client:
    name, _, db = address.path.strip("/").partition("/")
    if not (name and address.hosts and (db or "0").isdecimal()):
        raise UsageError("REDIS_URL must read redis+sentinel://host1,host2/name[/db]")
    sentinel = Sentinel(  # type: ignore[no-untyped-call]  # redis-py has no types here
        (),
        username=address.username,
        password=address.password,
        db=int(db or 0),
        **_options(),
    )
    once = Retry(NoBackoff(), retries=0)  # rather ask the next sentinel than the same one again
    sentinel.sentinels = [
        _SentinelClient(host=host, port=port, socket_timeout=None, retry=once)
        for host, port in address.hosts
    ]
    primary: Redis = sentinel.master_for(name, redis_class=plain)
    return primary


def _of_cluster(address: Address, cluster: type[RedisCluster]) -> Client:
    if not address.hosts or address.path.strip("/"):
        raise UsageError("REDIS_URL must read redis+cluster://host1,host2")
    return cluster(
        startup_nodes=[ClusterNode(host, port) for host, port in address.hosts],
        username=address.username,
        password=address.password,
        **_options(),
    )
