"""From REDIS_URL to clients that answer, and sentences where they cannot."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from redis import exceptions
from redis.asyncio import Redis

from core.errors import StoreUnavailable, UsageError
from storage.connect import Address, Connection, connect
from storage.store import Store
from tests.servers import command, free_port, running, serves, silent
from tests.waiting import until


async def blocked(client: Redis) -> bool:
    return bool((await client.info("clients"))["blocked_clients"])


async def test_a_unix_socket_gives_text_back_as_text(redis_url: str, redis: Redis) -> None:
    await redis.set("word", "返事")
    async with aclosing(await connect(redis_url)) as connection:
        assert await connection.client.get("word") == "返事"


async def test_a_blocking_read_outlasts_the_time_a_command_may_take(
    redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.connect.COMMAND_SECONDS", 0.05)
    async with aclosing(await connect(redis_url)) as connection:
        waiting = asyncio.ensure_future(connection.blocking().blpop(["list"], timeout=30))
        await until(lambda: blocked(redis))
        await asyncio.wait({waiting}, timeout=0.2)
        assert not waiting.done()
        await redis.rpush("list", "x")
        assert list(await asyncio.wait_for(waiting, 5) or ()) == ["list", "x"]


async def test_a_cancelled_command_ends_and_leaves_no_answer_for_the_next(redis_url: str) -> None:
    async with aclosing(await connect(redis_url)) as connection:
        for turn in range(100):
            asked = asyncio.ensure_future(connection.client.echo(f"old {turn}"))
            for _ in range(turn % 10):
                await asyncio.sleep(0)
            if asked.cancel():
                await asyncio.wait({asked})
                assert asked.cancelled()
            assert await connection.client.echo(f"new {turn}") == f"new {turn}"


async def test_a_server_that_falls_silent_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.connect.COMMAND_SECONDS", 0.3)
    port = free_port()
    async with running(tmp_path, port), aclosing(await connect(f"redis://:@127.0.0.1:{port}")) as c:
        pid = (await c.client.info("server"))["process_id"]
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(exceptions.TimeoutError, match=r"no answer in 0\.3 s"):
            await c.client.ping()
        os.kill(pid, signal.SIGCONT)
        assert await c.client.echo("here again") == "here again"


@pytest.fixture
async def silenced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Silenced]:
    """A server that stopped under its client, as when its host has lost its power."""
    monkeypatch.setattr("storage.connect.COMMAND_SECONDS", 0.3)
    monkeypatch.setattr("storage.connect.BLOCKING_SECONDS", 0.2)
    port = free_port()
    async with running(tmp_path, port), aclosing(await connect(f"redis://127.0.0.1:{port}")) as c:
        pid = (await c.client.info("server"))["process_id"]
        yield Silenced(c, partial(os.kill, pid))
        os.kill(pid, signal.SIGCONT)


@dataclass
class Silenced:
    connection: Connection
    signal: Callable[[int], None]


async def test_steps_that_go_together_do_not_wait_for_a_silent_server(silenced: Silenced) -> None:
    store = Store(silenced.connection)
    silenced.signal(signal.SIGSTOP)
    asked = [store.run("lease", 0, name=str(n), holder="me", for_ms=1000) for n in range(3)]
    async with asyncio.timeout(60):
        answers = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(answer) for answer in answers} == {StoreUnavailable}
    silenced.signal(signal.SIGCONT)
    assert await store.run("lease", 0, name="9", holder="me", for_ms=1000) == 1


async def test_a_blocking_read_of_a_silent_server_ends_too(silenced: Silenced) -> None:
    await silenced.connection.blocking().ping()
    silenced.signal(signal.SIGSTOP)
    with pytest.raises(exceptions.TimeoutError):
        async with asyncio.timeout(60):
            await silenced.connection.blocking().blpop(["list"], timeout=0.2)


async def test_a_server_that_is_not_there_is_one_sentence_without_its_password() -> None:
    url = f"redis://someone:hidden@127.0.0.1:{free_port()}/0"
    with pytest.raises(StoreUnavailable, match=r"^Redis at redis://127\.0\.0\.1:\d+/0 does") as it:
        await connect(url)
    assert "hidden" not in str(it.value)
    assert "\n" not in str(it.value)


@pytest.mark.parametrize("user", ["", ":wrong@", "someone:sesame@"])
async def test_a_password_that_is_missing_or_wrong_is_one_sentence(
    tmp_path: Path, user: str
) -> None:
    port = free_port()
    async with running(tmp_path, port) as server:
        await server.config_set("requirepass", "sesame")
        with pytest.raises(StoreUnavailable, match=r"/1 refuses the password, or wants one: corr"):
            await connect(f"redis://{user}127.0.0.1:{port}/1")


async def test_a_password_in_a_query_is_not_printed_either(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable) as it:
        await connect(f"unix://{tmp_path}/none.sock?password=hidden")
    assert "hidden" not in str(it.value)
    assert "hidden" not in repr(Address.parse("redis://:hidden@somewhere"))


async def test_a_sentinel_leads_to_its_primary(tmp_path: Path) -> None:
    port, sentinel = free_port(), free_port()
    config = tmp_path / "sentinel.conf"
    config.write_text(f"sentinel monitor henji 127.0.0.1 {port} 1\n")
    url = f"redis+sentinel://127.0.0.1:{sentinel},127.0.0.1:{free_port()}/henji/2"
    async with (
        running(tmp_path, port) as server,
        running(tmp_path, sentinel, str(config), "--sentinel"),
        aclosing(await connect(url)) as connection,
    ):
        await connection.client.set("word", "kept")
        assert await connection.blocking().get("word") == "kept"
        assert (await server.info("keyspace"))["db2"]["keys"] == 1


async def test_a_silent_sentinel_is_passed_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.connect.SENTINEL_SECONDS", 0.3)
    port, stopped, sentinel = free_port(), free_port(), free_port()
    config = tmp_path / "sentinel.conf"
    config.write_text(f"sentinel monitor henji 127.0.0.1 {port} 1\n")
    url = f"redis+sentinel://127.0.0.1:{stopped},127.0.0.1:{sentinel}/henji"
    (tmp_path / "silent").mkdir()
    async with (
        running(tmp_path, port),
        running(tmp_path, sentinel, str(config), "--sentinel"),
        running(tmp_path / "silent", stopped) as first,
        silent(first),
        asyncio.timeout(60),
        aclosing(await connect(url)) as connection,
    ):
        await connection.client.set("word", "kept")
        assert await connection.blocking().get("word") == "kept"


async def test_a_question_to_a_sentinel_ends_wherever_a_cancellation_meets_it(
    tmp_path: Path,
) -> None:
    port, sentinel = free_port(), free_port()
    config = tmp_path / "sentinel.conf"
    config.write_text(f"sentinel monitor henji 127.0.0.1 {port} 1\n")
    async with running(tmp_path, port), running(tmp_path, sentinel, str(config), "--sentinel"):
        for steps in range(0, 40, 2):
            connection = Connection(f"redis+sentinel://127.0.0.1:{sentinel}/henji")
            asking = asyncio.ensure_future(connection.client.ping())
            for _ in range(steps):
                await asyncio.sleep(0)
            if asking.cancel():
                await asyncio.wait({asking})
                assert asking.cancelled(), f"swallowed after {steps} steps"
            await connection.aclose()


async def test_a_sentinel_that_knows_no_such_primary_is_one_sentence(tmp_path: Path) -> None:
    sentinel = free_port()
    config = tmp_path / "sentinel.conf"
    config.write_text("")
    async with running(tmp_path, sentinel, str(config), "--sentinel"):
        with pytest.raises(StoreUnavailable, match="henji"):
            await connect(f"redis+sentinel://127.0.0.1:{sentinel}/henji")


async def test_a_cluster_serves_commands_and_blocking_reads(tmp_path: Path) -> None:
    port = free_port()
    async with running(tmp_path, port, "--cluster-enabled", "yes") as node:
        await command(node, "CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        await until(lambda: serves(node))
        url = f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{port}"
        async with aclosing(await connect(url)) as connection:
            await connection.client.rpush("{0}list", "x")
            popped = await connection.blocking().blpop(["{0}list"], timeout=5)
            assert list(popped or ()) == ["{0}list", "x"]


async def test_a_cluster_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(StoreUnavailable, match=r"redis\+cluster://127"):
        await connect(f"redis+cluster://:hidden@127.0.0.1:{free_port()}")


@pytest.mark.parametrize(
    "url",
    [
        "localhost:6379",
        "http://:hidden@localhost",
        "redis://:hidden@localhost:port",
        "redis://:hidden@localhost/memory",
        "redis://:hidden@localhost/0/1",
        "redis://:hidden@localhost/０",
        "redis://:hidden@localhost?databse=1",
        "rediss://:hidden@localhost?ssl_cert_reqs=maybe",
        "redis+sentinel://:hidden@host1/name?db=3",
        "redis+cluster://:hidden@host?ssl_cert_reqs=none",
        "redis+sentinel://:hidden@host1,host2",
        "redis+sentinel://:hidden@host1:x/name",
        "redis+cluster://:hidden@host/0",
        "redis+cluster://",
    ],
)
async def test_a_url_that_cannot_be_meant_is_a_usage_error_that_names_the_setting(
    url: str,
) -> None:
    with pytest.raises(UsageError, match="REDIS_URL") as it:
        Connection(url)
    assert "hidden" not in str(it.value)


def test_a_password_with_signs_in_it_is_decoded() -> None:
    address = Address.parse("redis+cluster://me:p%40ss%3A@one,two:7000")
    assert (address.username, address.password) == ("me", "p@ss:")
    assert address.hosts == (("one", 6379), ("two", 7000))
