"""The embedded server: started once, taken up again, stopped by its last user."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from core.errors import StoreUnavailable
from storage import embedded_server as server_module
from storage.embedded_server import embedded_server
from tests.waiting import until

USER = """
import asyncio, sys
from pathlib import Path
from storage.embedded_server import embedded_server

async def main():
    async with embedded_server(Path(sys.argv[1])) as url:
        print(url, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

asyncio.run(main())
"""


async def another_user(data_dir: Path) -> asyncio.subprocess.Process:
    """A process that uses the server until its standard input ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", USER, str(data_dir)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert (await asyncio.wait_for(process.stdout.readline(), 90)).startswith(b"unix://")
    return process


async def ended(process: asyncio.subprocess.Process) -> int:
    assert process.stdin is not None
    process.stdin.close()
    return await asyncio.wait_for(process.wait(), 90)


async def process_id(url: str) -> int:
    async with Redis.from_url(url, socket_timeout=None) as client:
        return int((await client.info("server"))["process_id"])


def runs(data_dir: Path) -> bool:
    return (data_dir / "redis" / "valkey.sock").exists()


async def test_written_data_is_there_at_the_next_start(tmp_path: Path) -> None:
    async with embedded_server(tmp_path) as url, Redis.from_url(url) as client:
        await client.set("word", "返事")
    assert not runs(tmp_path)
    async with embedded_server(tmp_path) as url, Redis.from_url(url) as client:
        assert await client.get("word") == "返事".encode()


async def test_the_server_is_durable_private_and_refuses_rather_than_forgets(
    tmp_path: Path,
) -> None:
    async with embedded_server(tmp_path) as url, Redis.from_url(url) as client:
        names = ("appendonly", "appendfsync", "maxmemory-policy", "port")
        settings = {name: (await client.config_get(name))[name] for name in names}
        folder = tmp_path / "redis"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "valkey.sock").stat().st_mode) == 0o700
    assert settings == {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "port": "0",
    }


async def test_processes_that_start_at_once_share_one_server(tmp_path: Path) -> None:
    users = await asyncio.gather(*(another_user(tmp_path) for _ in range(3)))
    async with embedded_server(tmp_path) as url:
        first = await process_id(url)
        assert [await ended(user) for user in users] == [0, 0, 0]
        assert await process_id(url) == first
    assert not runs(tmp_path)


async def test_the_server_outlives_its_killed_starter_and_is_stopped_by_the_next_user(
    tmp_path: Path,
) -> None:
    starter = await another_user(tmp_path)
    before = await process_id(f"unix://{tmp_path}/redis/valkey.sock")
    starter.kill()
    await starter.wait()
    async with embedded_server(tmp_path) as url:
        assert await process_id(url) == before
    assert not runs(tmp_path)


async def test_an_interrupt_of_one_users_group_does_not_reach_the_server(tmp_path: Path) -> None:
    async with embedded_server(tmp_path) as url:
        assert os.getpgid(await process_id(url)) != os.getpgid(0)
        assert os.getsid(await process_id(url)) != os.getsid(0)


async def test_a_killed_server_is_restarted_with_its_data(tmp_path: Path) -> None:
    async with embedded_server(tmp_path) as url:
        async with Redis.from_url(url) as client:
            await client.set("word", "kept")
            await client.waitaof(1, 0, 5000)
        killed = await process_id(url)
        os.kill(killed, signal.SIGKILL)
        async with embedded_server(tmp_path) as again, Redis.from_url(again) as client:
            assert await client.get("word") == b"kept"
            assert await process_id(again) != killed


async def test_a_server_that_dies_under_its_user_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "WATCH_SECONDS", 0.01)

    async def another_answers() -> bool:
        try:
            return await process_id(url) != killed
        except RedisError:
            return False

    async with embedded_server(tmp_path) as url:
        killed = await process_id(url)
        os.kill(killed, signal.SIGKILL)
        await until(another_answers)
    assert not runs(tmp_path)


async def test_a_look_at_the_server_ends_wherever_a_cancellation_meets_it(tmp_path: Path) -> None:
    async with embedded_server(tmp_path):
        for steps in range(30):
            looking = asyncio.ensure_future(
                server_module._answers(tmp_path / "redis" / "valkey.sock")
            )
            for _ in range(steps):
                await asyncio.sleep(0)
            if looking.cancel():
                await asyncio.wait({looking})
                assert looking.cancelled(), f"swallowed after {steps} steps"


async def test_a_server_that_cannot_be_reached_is_not_started_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "START_SECONDS", 0.1)
    async with embedded_server(tmp_path):
        socket = tmp_path / "redis" / "valkey.sock"
        hidden = socket.rename(socket.with_name("hidden"))
        with pytest.raises(StoreUnavailable, match="does not answer"):
            async with embedded_server(tmp_path):
                pass
        hidden.rename(socket)


async def test_a_path_too_long_for_a_socket_is_reached_through_a_short_link(
    tmp_path: Path,
) -> None:
    deep = tmp_path / ("d" * 120)
    async with embedded_server(deep) as url, Redis.from_url(url) as client:
        assert len(url.removeprefix("unix://")) <= server_module.SOCKET_PATH_LIMIT
        assert await client.ping()
        assert runs(deep)
    assert not runs(deep)


async def test_a_broken_file_and_a_full_disk_are_named_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with embedded_server(tmp_path):
        pass
    manifest = tmp_path / "redis" / "appendonlydir" / "appendonly.aof.manifest"
    manifest.write_text("nonsense\n")
    with pytest.raises(StoreUnavailable, match=r"does not answer: .*manifest"):
        async with embedded_server(tmp_path):
            pass
    monkeypatch.setattr(server_module, "NO_ROOM", 1 << 62)
    with pytest.raises(StoreUnavailable, match=r"does not answer: the disk of .*redis is full"):
        async with embedded_server(tmp_path):
            pass


async def test_a_folder_that_cannot_be_made_is_named_with_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match=r"file/data/redis.*HENJI_DATA_DIR"):
        async with embedded_server(tmp_path / "file" / "data"):
            pass


def test_a_server_on_the_path_serves_where_the_wheel_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    program = tmp_path / "redis-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert server_module.find_binary() == program


def test_a_machine_without_any_server_gets_instructions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StoreUnavailable, match="set REDIS_URL"):
        server_module.find_binary()


async def test_the_server_refuses_writes_before_the_machine_runs_out_of_memory(
    tmp_path: Path,
) -> None:
    async with embedded_server(tmp_path) as url, Redis.from_url(url) as client:
        found = await client.config_get("maxmemory")
        assert int(found["maxmemory"] or 0) == round(0.6 * server_module.memory_limit())


def test_a_container_s_limit_counts_instead_of_the_machine_s(tmp_path: Path) -> None:
    whole = server_module.memory_limit(tmp_path)
    assert whole > 2**28
    (tmp_path / "memory.max").write_text("max\n")
    assert server_module.memory_limit(tmp_path) == whole
    (tmp_path / "memory.max").write_text("268435456\n")
    assert server_module.memory_limit(tmp_path) == 268435456
