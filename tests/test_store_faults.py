"""What the store says when Redis is full, or its replicas are behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from redis.asyncio import Redis

from core.errors import StoreUnavailable
from storage.connect import Connection, connect
from storage.scripting import Replication
from storage.store import Store
from tests.servers import follows, free_port, running
from tests.storehouse import LANE, Storehouse
from tests.waiting import until


@pytest.fixture
async def primary(tmp_path: Path) -> AsyncIterator[tuple[Connection, Redis, int]]:
    port = free_port()
    async with (
        running(tmp_path, port) as client,
        aclosing(await connect(f"redis://127.0.0.1:{port}")) as connection,
    ):
        yield connection, client, port


async def test_a_full_redis_takes_nothing_and_then_goes_on(
    primary: tuple[Connection, Redis, int],
) -> None:
    connection, client, _ = primary
    house = Storehouse(client, Store(connection))
    await house.queue.announce(LANE, "core", 60)
    await house.say("one", id="m1")
    claim = await house.claim()
    await client.config_set("maxmemory", "1mb")
    await client.config_set("maxmemory-policy", "noeviction")
    with pytest.raises(StoreUnavailable):
        await house.say("two", id="m2")
    with pytest.raises(StoreUnavailable):
        await house.reply(claim, "1")
    await client.config_set("maxmemory", "0")
    assert await house.reply(claim, "1") == "ok"
    assert (await house.say("two", id="m2")).outcome == "queued"
    assert await house.texts() == ["one", "1", "two"]


async def test_a_message_counts_only_when_a_replica_has_it(
    primary: tuple[Connection, Redis, int], tmp_path: Path
) -> None:
    connection, client, port = primary
    house = Storehouse(client, Store(connection, replication=Replication(1, 50)))
    await house.queue.announce(LANE, "core", 60)
    with pytest.raises(StoreUnavailable, match="only 0 replicas"):
        await house.say("one", id="m1")
    folder = tmp_path / "replica"
    folder.mkdir()
    async with running(folder, free_port(), "--replicaof", f"127.0.0.1 {port}") as replica:
        await until(lambda: follows(replica))
        assert (await house.say("one", id="m1")).outcome == "duplicate"
        assert (await house.say("two", id="m2")).outcome == "queued"
