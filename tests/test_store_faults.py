"""The store when Redis or its disk is full, or its replicas lag."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from core.engine.echo import EchoEngine
from core.errors import StoreUnavailable
from core.types import Done, Started
from storage.connect import Connection, connect
from storage.shared import RedisLeases
from storage.store import Replication, Store
from tests.processes import henji
from tests.servers import follows, free_port, full_disk, running
from tests.store_fixture import LANE, THREAD, StoreFixture, at_work, ends, shows
from tests.waiting import until


@pytest.fixture
async def primary(tmp_path: Path) -> AsyncIterator[tuple[Connection, Redis, int]]:
    port = free_port()
    async with (
        running(tmp_path, port) as client,
        aclosing(await connect(f"redis://127.0.0.1:{port}")) as connection,
    ):
        yield connection, client, port


async def test_a_full_redis_refuses_writes_and_recovers(
    primary: tuple[Connection, Redis, int],
) -> None:
    connection, client, _ = primary
    stores = StoreFixture(client, Store(connection))
    await stores.queue.announce(LANE, "core", 60)
    await stores.say("one", id="m1")
    claim = await stores.claim()
    await client.config_set("maxmemory", "1mb")
    await client.config_set("maxmemory-policy", "noeviction")
    with pytest.raises(StoreUnavailable):
        await stores.say("two", id="m2")
    with pytest.raises(StoreUnavailable):
        await stores.reply(claim, "1")
    await client.config_set("maxmemory", "0")
    assert await stores.reply(claim, "1") == "ok"
    assert (await stores.say("two", id="m2")).outcome == "queued"
    assert await stores.texts() == ["one", "1", "two"]


async def test_a_bucket_that_redis_refuses_keeps_no_other_from_being_served(
    primary: tuple[Connection, Redis, int],
) -> None:
    connection, client, _ = primary
    stores = StoreFixture(client, Store(connection, buckets=2, lease=0.5, backoff=0.05))
    threads = [replace(THREAD, space=f"T{n}") for n in range(8)]
    refused, served = (
        next(thread for thread in threads if stores.store.bucket(thread) == bucket)
        for bucket in range(2)
    )
    async with (
        aclosing(stores.queue),
        at_work(stores, EchoEngine(10), announced_for=0.5, retry=0.02),
    ):
        await until(lambda: served_by(stores))
        held = [await stores.say("it goes on for long", thread=one) for one in (refused, served)]
        for receipt, thread in zip(held, (refused, served), strict=True):
            await until(partial(shows, stores, receipt.job, thread))
        await client.acl_setuser("default", enabled=True, reset_keys=True, keys=["henji:{1}:*"])
        # longer than a lease, and than a core is counted on
        assert isinstance(await ends(stores, held[1].job, served), Done)
        after = await stores.say("still there?", thread=served)
        assert after.outcome == "queued"
        assert isinstance(await ends(stores, after.job, served), Done)
        await client.acl_setuser("default", enabled=True, keys=["*"])
        assert isinstance(await ends(stores, held[0].job, refused), Done)
    for job in (held[1].job, after.job):
        events = await stores.events(job, served)
        assert [event.attempt for event in events if isinstance(event, Started)] == [1]


async def served_by(stores: StoreFixture) -> bool:
    """Whether a core is counted on."""
    return bool(await stores.queue.cores(LANE))


async def test_a_reply_written_while_redis_is_full_is_stored_later(
    primary: tuple[Connection, Redis, int],
) -> None:
    connection, client, _ = primary
    stores = StoreFixture(client, Store(connection))
    await stores.queue.announce(LANE, "another core", 60)
    async with aclosing(stores.queue), at_work(stores, EchoEngine(100), retry=0.02):
        receipt = await stores.say("hello, is there room?")
        await until(lambda: shows(stores, receipt.job))
        await client.config_set("maxmemory", "1mb")
        with pytest.raises(StoreUnavailable):  # as an adapter hears it, and tells the person
            await stores.say("and for me?", id="m2", thread=replace(THREAD, thread="2.0"))
        await until(lambda: refused(client))
        await client.config_set("maxmemory", "0")
        end = await ends(stores, receipt.job)
    assert isinstance(end, Done)
    assert end.text == "echo: hello, is there room?"


async def refused(client: Redis, code: str = "OOM") -> bool:
    """Whether the core, too, has been refused."""
    errors = await client.info("errorstats")
    return int(errors.get(f"errorstat_{code}", {"count": 0})["count"]) > 5


@pytest.fixture
async def on_disk(tmp_path: Path) -> AsyncIterator[tuple[Redis, str]]:
    """A server with an append-only file, as people run it, and its URL."""
    port = free_port()
    words = ("--appendonly", "yes", "--appendfsync", "everysec")
    async with running(tmp_path, port, *words) as client:
        yield client, f"redis://127.0.0.1:{port}"


async def refuses(client: Redis) -> bool:
    """Whether the server has seen that its disk is full: it takes one more write before."""
    try:
        await client.set("probe", 1, px=1)
    except RedisError as error:
        return "MISCONF" in str(error)
    return False


async def test_a_full_disk_refuses_writes_and_recovers(on_disk: tuple[Redis, str]) -> None:
    client, url = on_disk
    async with aclosing(await connect(url)) as connection:
        stores = StoreFixture(client, Store(connection))
        await stores.queue.announce(LANE, "another core", 60)
        async with aclosing(stores.queue), at_work(stores, EchoEngine(100), retry=0.02):
            receipt = await stores.say("hello, is there room?")
            await until(lambda: shows(stores, receipt.job))
            async with full_disk(client):
                await until(lambda: refuses(client))
                with pytest.raises(StoreUnavailable):
                    await stores.say("and for me?", id="m2", thread=replace(THREAD, thread="2.0"))
                await until(lambda: refused(client, "MISCONF"))
            end = await ends(stores, receipt.job)
    assert isinstance(end, Done)
    assert end.text == "echo: hello, is there room?"


async def test_a_chat_says_within_seconds_that_the_disk_is_full_and_then_answers(
    on_disk: tuple[Redis, str],
) -> None:
    client, url = on_disk
    words = ("chat", "--once", "hello")
    async with full_disk(client):
        await until(lambda: refuses(client))
        async with asyncio.timeout(120):  # most of it is the start of the process
            ran = await henji(*words, REDIS_URL=url, HENJI_ENGINE="echo")
    assert ran.status == 1
    assert "disk" in ran.err
    assert len(ran.err.strip().splitlines()) == 1

    async def answered() -> bool:
        return "echo: hello" in (await henji(*words, REDIS_URL=url, HENJI_ENGINE="echo")).out

    await until(answered)


async def test_a_message_counts_only_when_a_replica_has_it(
    primary: tuple[Connection, Redis, int], tmp_path: Path
) -> None:
    connection, client, port = primary
    stores = StoreFixture(client, Store(connection, replication=Replication(1, 50)))
    await stores.queue.announce(LANE, "core", 60)
    with pytest.raises(StoreUnavailable, match="only 0 replicas"):
        await stores.say("one", id="m1")
    folder = tmp_path / "replica"
    folder.mkdir()
    async with running(folder, free_port(), "--replicaof", f"127.0.0.1 {port}") as replica:
        await until(lambda: follows(replica))
        assert (await stores.say("one", id="m1")).outcome == "duplicate"
        assert (await stores.say("two", id="m2")).outcome == "queued"


async def test_only_the_holder_may_renew_a_lease(redis: Redis) -> None:
    leases = RedisLeases(StoreFixture.over(redis).store)
    assert await leases.acquire("shard 0", "a", 10)
    assert await leases.acquire("shard 0", "a", 10)
    assert not await leases.acquire("shard 0", "b", 10)
    assert await leases.acquire("shard 1", "b", 10)


async def test_a_lease_that_is_given_up_is_the_next_ones_at_once(redis: Redis) -> None:
    leases = RedisLeases(StoreFixture.over(redis).store)
    await leases.acquire("shard 0", "a", 10)
    await leases.give_up("shard 0", "b")
    assert not await leases.acquire("shard 0", "b", 10)
    await leases.give_up("shard 0", "a")
    assert await leases.acquire("shard 0", "b", 10)


async def test_the_lease_of_a_dead_holder_expires(redis: Redis) -> None:
    leases = RedisLeases(StoreFixture.over(redis).store)
    await leases.acquire("shard 0", "a", 0.05)
    async with asyncio.timeout(5):
        while not await leases.acquire("shard 0", "b", 10):
            pass
