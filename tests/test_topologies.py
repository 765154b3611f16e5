"""The store on a Redis Cluster and behind Sentinels, with real servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from redis.asyncio import Redis

from core.engine.echo import EchoEngine
from core.errors import StoreUnavailable
from core.queue_types import Receipt
from core.types import Done, ThreadKey
from storage.connect import Connection, connect
from storage.store import Store
from tests.servers import (
    behind_sentinels,
    running_cluster,
    running_cluster_with_a_spare,
    silent,
)
from tests.store_fixture import THREAD, StoreFixture, at_work


@asynccontextmanager
async def answering(stores: StoreFixture) -> AsyncIterator[None]:
    """A core that answers by echo, until it is left."""
    async with aclosing(stores.queue), at_work(stores, EchoEngine(), retry=0.05):
        yield


def stores_over(connection: Connection, buckets: int = 1) -> StoreFixture:
    store = Store(connection, buckets=buckets, lease=1.0)
    return StoreFixture(connection.client, store)


async def said(stores: StoreFixture, text: str, thread: ThreadKey) -> Receipt:
    """A message that is sent again until it is taken in, as an adapter's platform would."""
    while True:
        try:
            receipt = await stores.say(text, thread=thread, id=f"{thread.thread} {text}")
        except StoreUnavailable:
            await asyncio.sleep(0.05)
        else:
            if receipt.code != "no_core":
                return receipt
            await asyncio.sleep(0.05)
            text += "!"


async def reply_of(stores: StoreFixture, receipt: Receipt, thread: ThreadKey) -> str:
    delivery = await stores.delivery(receipt.job, thread)
    async for event in stores.deliveries.follow(delivery):
        if isinstance(event, Done):
            return event.text
    raise AssertionError("the reply did not end")


async def test_a_cluster_serves_conversations_in_many_buckets(tmp_path: Path) -> None:
    async with running_cluster(tmp_path, 3) as url, aclosing(await connect(url)) as connection:
        stores = stores_over(connection, buckets=16)
        threads = [replace(THREAD, space=f"T{n % 8}", thread=str(n)) for n in range(24)]
        async with answering(stores), asyncio.timeout(60):
            receipts = [await said(stores, "hello", thread) for thread in threads]
            for receipt, thread in zip(receipts, threads, strict=True):
                assert (await reply_of(stores, receipt, thread)).startswith("echo: hello")
                assert len(await stores.texts(thread)) >= 2
        assert len({stores.store.bucket(thread) for thread in threads}) > 3


async def goes_on_without(stores: StoreFixture, primary: Redis, *beside: Redis) -> None:
    """A conversation whose Redis stops answering, and the servers."""
    async with answering(stores), asyncio.timeout(40):
        before = await said(stores, "one", THREAD)
        assert (await reply_of(stores, before, THREAD)).startswith("echo: one")
        await primary.wait(1, 2000)  # a failover may lose writes that are not replicated yet
        async with silent(primary, *beside):
            after = await said(stores, "two", THREAD)
            assert (await reply_of(stores, after, THREAD)).startswith("echo: two")
            texts = await stores.texts()
    assert texts[0].startswith("one")
    assert texts[1].startswith("echo: one")
    assert texts[-1].startswith("echo: two")


async def test_after_a_fail_over_the_conversation_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host of the primary, and of the sentinel that is asked first, loses its power."""
    monkeypatch.setattr("storage.connect.COMMAND_SECONDS", 1.0)
    monkeypatch.setattr("storage.connect.SENTINEL_SECONDS", 0.3)
    async with (
        behind_sentinels(tmp_path) as (url, primary, sentinel),
        aclosing(await connect(url)) as connection,
    ):
        await goes_on_without(stores_over(connection), primary, sentinel)


async def test_a_cluster_whose_node_falls_silent_goes_on_with_its_replica(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.connect.COMMAND_SECONDS", 1.0)
    async with (
        running_cluster_with_a_spare(tmp_path, "henji:{0}") as (url, owner),
        aclosing(await connect(url)) as connection,
    ):
        await goes_on_without(stores_over(connection), owner)
