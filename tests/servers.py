"""Redis servers beside the session's own: on a port, in a cluster, behind sentinels."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path

from redis import exceptions
from redis.asyncio import Redis

from storage.server import find_binary
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
    ports = [free_port() for _ in range(nodes)]
    async with AsyncExitStack() as stack:
        clients = []
        for port in ports:
            home = folder / str(port)
            home.mkdir()
            node = running(home, port, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
            clients.append(await stack.enter_async_context(node))
        bounds = [16384 * n // nodes for n in range(nodes + 1)]
        for client, (first, end) in zip(clients, pairwise(bounds), strict=True):
            await command(client, "CLUSTER", "ADDSLOTSRANGE", first, end - 1)
            await command(client, "CLUSTER", "MEET", "127.0.0.1", ports[0])
        for client in clients:
            await until(partial(serves, client))
        yield f"redis+cluster://127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}"


@asynccontextmanager
async def behind_sentinels(folder: Path) -> AsyncIterator[tuple[str, Redis]]:
    """The URL of a primary with a replica and three sentinels, and the primary itself."""
    primary, replica, *sentinels = (free_port() for _ in range(5))
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        first = await enter(running(folder, primary))
        second = await enter(running(folder, replica, "--replicaof", f"127.0.0.1 {primary}"))
        for port in sentinels:
            config = folder / f"{port}.conf"
            config.write_text(
                f"sentinel monitor henji 127.0.0.1 {primary} 2\n"
                "sentinel down-after-milliseconds henji 500\n"
                "sentinel failover-timeout henji 3000\n"
            )
            await enter(running(folder, port, str(config), "--sentinel"))
        await until(lambda: follows(second))
        watch = Redis(port=sentinels[0], decode_responses=True, socket_timeout=None)
        stack.push_async_callback(watch.aclose)
        await until(lambda: knows_all(watch))
        hosts = ",".join(f"127.0.0.1:{port}" for port in sentinels)
        yield f"redis+sentinel://{hosts}/henji", first


async def follows(replica: Redis) -> bool:
    return bool((await replica.info("replication"))["master_link_status"] == "up")


async def knows_all(sentinel: Redis) -> bool:
    """Whether a sentinel has heard of the replica and of the other two."""
    primary = await command(sentinel, "SENTINEL", "MASTER", "henji")
    known = primary if isinstance(primary, dict) else {}
    return (int(known["num-slaves"]), int(known["num-other-sentinels"])) == (1, 2)
