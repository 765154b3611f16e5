"""Redis servers beside the session's own: on a port, in a cluster, behind sentinels."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path

from redis import exceptions
from redis.asyncio import Redis

from storage.embedded_server import find_binary
from tests.waiting import until


def free_port() -> int:
    """A port whose cluster bus, 10000 above it, is a port too."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            if port < 55_000:
                return port


@asynccontextmanager
async def running(folder: Path, port: int, *words: str) -> AsyncIterator[Redis]:
    """A server on loopback, from when it answers until it is left."""
    process = await asyncio.create_subprocess_exec(
        str(find_binary()),
        *words,
        *("--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""),
        *() if "--sentinel" in words else ("--repl-diskless-sync-delay", "0"),
        stdout=asyncio.subprocess.DEVNULL,
        restore_signals=False,  # a file over its limit is an error, as a full disk is: see below
    )
    client = Redis(port=port, decode_responses=True, socket_timeout=None)
    try:
        await until(lambda: answers(client))
        yield client
    finally:
        await client.aclose()
        with suppress(ProcessLookupError):  # a test may have stopped it
            process.kill()
        await process.wait()


async def answers(client: Redis) -> bool:
    try:
        return bool(await client.ping())
    except exceptions.RedisError:
        return False


async def serves(node: Redis) -> bool:
    return "cluster_state:ok" in str(await command(node, "CLUSTER", "INFO"))


async def command(client: Redis, *words: str | int) -> object:
    return await client.execute_command(*words)  # type: ignore[no-untyped-call]  # as redis-py is


@asynccontextmanager
async def running_cluster(folder: Path, nodes: int) -> AsyncIterator[str]:
    """The URL of a cluster whose nodes share the slots, once each of them serves all."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(cluster_node(folder)) for _ in range(nodes)]
        await share_slots(clients)
        yield url_of(clients)


@asynccontextmanager
async def running_cluster_with_a_spare(folder: Path, key: str) -> AsyncIterator[tuple[str, Redis]]:
    """The URL of a cluster of three, and the node that has `key`, which has a replica."""
    async with AsyncExitStack() as stack:
        *clients, spare = [await stack.enter_async_context(cluster_node(folder)) for _ in range(4)]
        await share_slots(clients)
        owner = clients[int(str(await command(spare, "CLUSTER", "KEYSLOT", key))) * 3 // 16384]
        name = str(await command(owner, "CLUSTER", "MYID"))
        await command(spare, "CLUSTER", "MEET", "127.0.0.1", port_of(owner))
        await until(lambda: replicates(spare, name))
        await until(lambda: follows(spare))
        yield url_of(clients), owner


@asynccontextmanager
async def cluster_node(folder: Path) -> AsyncIterator[Redis]:
    port = free_port()
    home = folder / str(port)
    home.mkdir()
    words = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1500")
    async with running(home, port, *words) as client:
        yield client


async def share_slots(nodes: Sequence[Redis]) -> None:
    bounds = [16384 * n // len(nodes) for n in range(len(nodes) + 1)]
    for node, (first, end) in zip(nodes, pairwise(bounds), strict=True):
        await command(node, "CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        await command(node, "CLUSTER", "MEET", "127.0.0.1", port_of(nodes[0]))
    for node in nodes:
        await until(partial(serves, node))


async def replicates(node: Redis, of: str) -> bool:
    """Have `node` be a replica, as soon as it has heard of that other one."""
    try:
        await command(node, "CLUSTER", "REPLICATE", of)
    except exceptions.ResponseError:
        return False
    return True


def port_of(node: Redis) -> int:
    return int(node.connection_pool.connection_kwargs["port"])


def url_of(nodes: Sequence[Redis]) -> str:
    return "redis+cluster://" + ",".join(f"127.0.0.1:{port_of(node)}" for node in nodes[:2])


@asynccontextmanager
async def silent(*servers: Redis) -> AsyncIterator[None]:
    """Servers that answer nothing and close nothing, as when their host has lost its power."""
    pids = [(await server.info("server"))["process_id"] for server in servers]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def full_disk(server: Redis) -> AsyncIterator[None]:
    """A server whose files may not grow, until this is left. It needs no rights and no disk."""
    pid = int((await server.info("server"))["process_id"])
    usual = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, usual[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, usual)


@asynccontextmanager
async def behind_sentinels(folder: Path) -> AsyncIterator[tuple[str, Redis, Redis]]:
    """The URL of a primary with a replica and three sentinels, the primary, the first sentinel."""
    primary, replica, *sentinels = (free_port() for _ in range(5))
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        first = await enter(running(folder, primary))
        second = await enter(running(folder, replica, "--replicaof", f"127.0.0.1 {primary}"))
        asked = []
        for port in sentinels:
            config = folder / f"{port}.conf"
            config.write_text(
                f"sentinel monitor henji 127.0.0.1 {primary} 2\n"
                "sentinel down-after-milliseconds henji 500\n"
                "sentinel failover-timeout henji 3000\n"
            )
            asked.append(await enter(running(folder, port, str(config), "--sentinel")))
        await until(lambda: follows(second))
        await until(lambda: knows_all(asked[0]))
        hosts = ",".join(f"127.0.0.1:{port}" for port in sentinels)
        yield f"redis+sentinel://{hosts}/henji", first, asked[0]


async def follows(replica: Redis) -> bool:
    return bool((await replica.info("replication"))["master_link_status"] == "up")


async def knows_all(sentinel: Redis) -> bool:
    """Whether a sentinel has heard of the replica and of the other two."""
    primary = await command(sentinel, "SENTINEL", "MASTER", "henji")
    known = primary if isinstance(primary, dict) else {}
    return (int(known["num-slaves"]), int(known["num-other-sentinels"])) == (1, 2)
