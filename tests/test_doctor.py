"""henji doctor: its findings, and the remedies that it names."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from redis.asyncio import Redis

from bots.cli import doctor
from bots.platforms import AllSettings, load
from bots.services import open_stores
from core.settings import Settings
from tests.processes import finish, henji, start
from tests.pseudo_terminal import terminal
from tests.servers import command, free_port
from tests.store_fixture import LANE, StoreFixture
from tests.waiting import until

GOOD: dict[str, str | int] = {
    "redis_version": "7.2.4",
    "valkey_version": "9.1.2",
    "role": "master",
    "maxmemory_policy": "noeviction",
    "maxmemory": 1_000_000,
    "aof_enabled": 1,
}


async def test_a_healthy_machine_has_no_faults(redis_url: str, redis: Redis) -> None:
    ran = await henji("doctor", REDIS_URL=redis_url)
    assert ran.status == 0
    lines = ran.out.splitlines()
    assert [line.split()[1] for line in lines] == [
        "Python", "Redis", "model", "GPU", "answer", "Discord", "Slack",
    ]  # fmt: skip
    assert {line.split()[0] for line in lines} == {"ok", "WARN"}
    assert "WARN   answer   no core serves echo now: `henji up` starts one" in lines


async def test_a_running_core_is_tested_with_a_message(redis_url: str, redis: Redis) -> None:
    core = await start("core", REDIS_URL=redis_url)
    try:
        await until(lambda: _is_served(redis))
        ran = await henji("doctor", REDIS_URL=redis_url)
    finally:
        core.terminate()
        await finish(core)
    (line,) = [line for line in ran.out.splitlines() if "answer" in line]
    assert re.search(r"^ok +answer +echo answered in \d+\.\d\d s: stored after 0\.", line)
    assert not await traces_of_the_test(redis)


async def traces_of_the_test(redis: Redis) -> list[object]:
    """What is left of it, but for the events of the last minute and the order between channels."""
    traces: list[object] = []
    for pattern in ("*doctor*", "*:job:*", "*:events:*", "*:delivery:*"):
        traces += [
            key
            async for key in redis.scan_iter(pattern)
            if not {"news", "ready"} & {*key.split(":")}
        ]
    traces += await redis.xrange("henji:{0}:audit") or []
    traces += await redis.hkeys("henji:{0}:marks")
    traces += await redis.zrange("henji:{0}:threads", 0, -1)
    return traces


async def test_a_test_message_that_is_not_answered_leaves_nothing_behind(
    redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "ANSWER_SECONDS", 0.2)
    stores = StoreFixture.over(redis)
    await stores.queue.announce("echo", "a core that stands still", 60)
    await doctor.answer(load(redis_url=redis_url, engine="echo"), "all")
    assert not await traces_of_the_test(redis)
    assert not await stores.queue.claim("echo", "another core", 1)


async def test_a_bots_host_needs_no_model_but_a_core_somewhere(
    redis_url: str, redis: Redis
) -> None:
    ran = await henji("doctor", "--role", "bot", REDIS_URL=redis_url, HENJI_ENGINE="torch")
    assert [line.split()[1] for line in ran.out.splitlines()] == [
        "Python", "Redis", "answer", "Discord", "Slack",
    ]  # fmt: skip
    assert "FAULT  answer   no core serves smollm2: start `henji core` on its host" in ran.out
    assert ran.status == 1


async def test_the_role_of_a_host_follows_from_packages_and_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert doctor.role_of(AllSettings.load()) == "all"
    assert doctor.role_of(AllSettings.load(discord_bot_token="a.b.c")) == "all"
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    assert doctor.role_of(AllSettings.load(discord_bot_token="a.b.c")) == "bot"


async def test_waiting_people_make_a_missing_core_a_fault(redis_url: str, redis: Redis) -> None:
    stores = StoreFixture.over(redis)
    await stores.queue.announce(LANE, "a core that leaves", 60)
    await stores.say("hello")
    await stores.queue.withdraw(LANE, "a core that leaves")
    finding = await doctor.answer(load(redis_url=redis_url, engine="echo", lane=LANE), "all")
    assert (finding.state, "1 messages wait" in finding.what) == ("fault", True)


async def test_a_model_server_that_is_down_is_a_fault() -> None:
    nowhere = f"http://127.0.0.1:{free_port()}/v1"
    settings = load(engine="openai", openai_base_url=nowhere, openai_api_key="hidden")
    finding = await doctor.remote_engine(settings)
    assert finding.state == "fault"
    assert f"no model server answers at {nowhere}/models" in finding.what
    assert "hidden" not in finding.what


async def test_the_password_of_a_model_server_is_not_printed() -> None:
    port = free_port()
    settings = load(engine="openai", openai_base_url=f"http://me:hidden@127.0.0.1:{port}/v1")
    finding = await doctor.remote_engine(settings)
    assert f"no model server answers at http://127.0.0.1:{port}/v1/models" in finding.what
    twice = load(**{**settings.model_dump(exclude_unset=True), "openai_api_key": "hidden"})
    assert "unset one of them" in (await doctor.remote_engine(twice)).what


async def test_findings_are_json_for_machines(redis_url: str, redis: Redis) -> None:
    ran = await henji("doctor", "--json", REDIS_URL=redis_url)
    findings = [json.loads(line) for line in ran.out.splitlines()]
    assert [finding["state"] for finding in findings][:2] == ["ok", "ok"]
    assert findings[0]["about"] == "Python"


async def test_the_terminal_shows_the_check_in_progress(redis_url: str, redis: Redis) -> None:
    async with terminal("doctor", REDIS_URL=redis_url) as screen:
        await screen.shows("checking Redis …")
        await screen.shows("ok     Redis")


async def _is_served(redis: Redis) -> bool:
    return bool(await redis.exists("henji:{0}:lane:echo"))


async def test_faults_are_counted_and_fail_the_command() -> None:
    nowhere = f"redis://:hidden@127.0.0.1:{free_port()}"
    ran = await henji("doctor", REDIS_URL=nowhere, SLACK_BOT_TOKEN="xoxb-hidden")
    assert ran.status == 1
    assert ran.out.count("FAULT") == 2
    assert ran.err == "henji: 2 faults, named above\n"
    assert "hidden" not in ran.out


def test_an_old_python_is_a_fault() -> None:
    assert doctor.python((3, 10, 4)).what == "3.10.4 is too old: install Python 3.11 or newer"
    assert doctor.python((3, 12, 0)).state == "ok"


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        ({"redis_version": "6.0.16", "valkey_version": ""}, "6.2 is the oldest"),
        ({"role": "slave"}, "give REDIS_URL its primary"),
        ({"maxmemory_policy": "allkeys-lru"}, "set maxmemory-policy noeviction"),
        ({"maxmemory": 0}, "set maxmemory to 60 %"),
        ({"aof_enabled": 0}, "set appendonly yes"),
    ],
)
def test_a_redis_that_would_lose_replies_is_a_fault(fault: dict[str, str | int], what: str) -> None:
    finding = doctor.check_redis_info({**GOOD, **fault}, "at redis://here")
    assert finding.state == "fault"
    assert what in finding.what


async def test_a_redis_that_takes_no_writes_is_a_fault(redis_url: str, redis: Redis) -> None:
    await redis.config_set("maxmemory", "1")
    try:
        finding = await doctor.redis(load(redis_url=redis_url))
        status = await henji("admin", "status", REDIS_URL=redis_url)
    finally:
        await redis.config_set("maxmemory", "0")
    assert finding.state == "fault"
    assert "takes no writes" in finding.what
    assert "TAKES NO WRITES" in status.out


@pytest.mark.parametrize(
    ("denied", "state", "what"),
    [("info", "warning", "may not run INFO"), ("@scripting", "fault", "'evalsha' command")],
)
async def test_a_user_of_redis_who_may_not_do_all_is_told_what(
    redis_url: str, redis: Redis, denied: str, state: str, what: str
) -> None:
    rights = ("~*", "&*", "+@all", f"-{denied}")
    await command(redis, "ACL", "SETUSER", "limited", "on", ">pw", *rights)
    limited = redis_url.replace("unix://", "unix://limited:pw@")
    try:
        finding = await doctor.redis(load(redis_url=limited))
        if denied == "info":
            async with open_stores(load(redis_url=limited)) as stores:
                assert "INFO" in (await stores.reports.server()).name
    finally:
        await command(redis, "ACL", "DELUSER", "limited")
    assert finding.state == state
    assert what in finding.what


def test_a_healthy_redis_is_named() -> None:
    finding = doctor.check_redis_info(GOOD, "at redis://here")
    assert (finding.state, finding.what) == ("ok", "Valkey 9.1.2 at redis://here")


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"model": "rinna-ppo"}, "henji models pull rinna-ppo"),
        ({"model": "no such model"}, "the setting model is no such model"),
    ],
)
def test_a_model_that_is_not_downloaded_is_a_fault(
    settings: dict[str, str], what: str, tmp_path: Path
) -> None:
    finding = doctor.model(load(data_dir=tmp_path, **settings))
    assert finding.state == "fault"
    assert what in finding.what


def test_the_embedded_model_is_found_without_converting_it(tmp_path: Path) -> None:
    finding = doctor.model(load(data_dir=tmp_path))
    assert finding.state == "ok", finding.what
    assert not any(tmp_path.iterdir())


def test_a_requested_gpu_that_is_missing_is_a_fault() -> None:
    import torch

    finding = doctor.gpu(load(device="cuda"))
    assert (finding.state == "ok") == torch.cuda.is_available()
    assert doctor.gpu(load(engine="echo")).state == "ok"


def test_a_gpu_without_a_compiler_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    memory = SimpleNamespace(total_memory=80 << 30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H100")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: memory)
    monkeypatch.setattr(doctor, "which", {"gcc": "/usr/bin/gcc"}.get)
    assert doctor.gpu(Settings()).what.endswith("H100 with 80 GiB")
    monkeypatch.setattr(doctor, "which", {}.get)
    finding = doctor.gpu(Settings())
    assert finding.state == "fault"
    assert "install gcc" in finding.what


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    assert doctor.gpu(Settings()).what.endswith("[core]'")
    tokens = AllSettings.load(slack_bot_token="xoxb", discord_bot_token="a.b.c")
    for name, settings in tokens.platforms.items():
        finding = asyncio.run(doctor.platform(name, settings))
        assert finding.what.endswith(f"[{name}]'")


async def test_a_platform_that_cannot_be_reached_is_a_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("discord.http.Route.BASE", "unchanged")
    nowhere = f"http://127.0.0.1:{free_port()}"
    settings = AllSettings.load(
        slack_bot_token="xoxb-hidden",
        slack_app_token="xapp-hidden",
        slack_api_url=f"{nowhere}/api/",
        discord_bot_token="hidden.b.c",
        discord_api_url=f"{nowhere}/api/v10",
    )
    for name, own in settings.platforms.items():
        finding = await doctor.platform(name, own)
        assert finding.state == "fault"
        assert f"{finding.about} cannot be reached" in finding.what
        assert "hidden" not in finding.what
