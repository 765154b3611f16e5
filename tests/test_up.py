"""henji up: a process for every platform that has tokens."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from bots.platforms import load
from bots.processes import supervise
from bots.services import parts_of, process_name, run_all
from core.errors import UsageError
from tests.local_slack.deployment import slack_deployment
from tests.processes import environment_with, finish, henji, start
from tests.pseudo_terminal import terminal
from tests.store_fixture import StoreFixture
from tests.waiting import until


async def test_without_tokens_and_in_a_terminal_it_is_a_chat(redis_url: str, redis: Redis) -> None:
    async with terminal("up", REDIS_URL=redis_url) as screen:
        await screen.shows("ready.*>")
        screen.type("hello\r")
        await screen.shows("echo: hello")


async def test_without_tokens_and_without_a_terminal_it_is_an_error(
    redis_url: str, redis: Redis
) -> None:
    """Under systemd a chat would end at once, and load the model again and again."""
    ran = await henji("up", given="hello\n", REDIS_URL=redis_url)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("henji: there are no tokens for a platform (discord, slack)")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"SLACK_BOT_TOKEN": "xoxb-1"}, "SLACK_APP_TOKEN is not set"),
        ({"SLACK_APP_TOKEN": "xapp-1"}, "SLACK_BOT_TOKEN is not set"),
        ({"SLACK_BOT_TOKN": "x"}, "SLACK_BOT_TOKN is set: did you mean SLACK_BOT_TOKEN?"),
        ({"DISCORD_TOKEN": "x"}, "DISCORD_TOKEN is set: did you mean DISCORD_BOT_TOKEN?"),
        (
            {"SLACK_BOT_TOKEN": "x", "SLACK_AP_TOKEN": "x"},
            "SLACK_AP_TOKEN is set: did you mean SLACK_APP_TOKEN?",
        ),
        (
            {"SLACK_BOT_TOKEN": "x", "SLACK_APP_TOKEN": "x", "DISCORD_BOT_TOKE": "x"},
            "DISCORD_BOT_TOKE is set: did you mean DISCORD_BOT_TOKEN?",
        ),
    ],
)
async def test_incomplete_and_misspelt_tokens_are_errors(
    given: dict[str, str], sentence: str
) -> None:
    ran = await henji("up", **given)
    assert (ran.status, ran.out) == (2, "")
    assert sentence in ran.err
    assert ran.err.count("\n") == 1


async def test_secrets_of_other_programs_are_no_misspelt_tokens(
    redis_url: str, redis: Redis
) -> None:
    theirs = {"OPENAI_API_KEY": "sk-1", "SLACK_WEBHOOK_URL": "https://x", "REDIS_URI": "redis://"}
    ran = await henji("up", REDIS_URL=redis_url, **theirs)
    assert "did you mean" not in ran.err


async def test_with_tokens_it_answers_on_the_platform_until_it_is_stopped(
    tmp_path: Path, redis: Redis
) -> None:
    async with slack_deployment(redis) as deployment:
        up = await start(
            "up",
            HENJI_DATA_DIR=str(tmp_path),
            SLACK_BOT_TOKEN=deployment.slack.bot_token,
            SLACK_APP_TOKEN=deployment.slack.app_token,
            SLACK_API_URL=deployment.slack.api_url,
        )
        try:
            await deployment.slack.until(lambda: deployment.slack.delivery.sockets > 0)
            socket = tmp_path / "redis" / "valkey.sock"
            async with Redis.from_url(f"unix://{socket}", socket_timeout=None) as embedded:
                await until(lambda: a_core_serves(embedded))
            ts = await deployment.slack.say("C1", "U1", "<@U0HENJI> こんにちは")
            await deployment.answered("C1", ts, "echo: こんにちは")
            up.send_signal(signal.SIGTERM)
            ran = await finish(up)
        finally:
            if up.returncode is None:
                up.kill()
    assert ran.status == 0
    assert "こんにちは" not in ran.err
    for part in ("slack", "core"):
        assert f"part={part}" in ran.err
    assert re.search(r"message .* part=slack .*platform=slack .*thread=slack:T\w+:C1:", ran.err)
    assert deployment.slack.bot_token not in ran.err
    await until(lambda: asyncio.to_thread(lambda: not socket.exists()))


async def a_core_serves(redis: Redis) -> bool:
    return any([b"lane" in key async for key in redis.scan_iter()])


async def test_a_process_with_wrong_settings_ends_all_processes(
    redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("HENJI_ENGINE", "echo")
    monkeypatch.setenv("SLACK_APP_TOKEN", "xapp")
    with pytest.raises(UsageError, match="`henji slack` ended, with status 2"):
        await supervise(["core", "slack"], asyncio.Event(), stop_timeout=20)


async def test_a_core_starts_when_the_lease_of_a_killed_one_is_over(
    redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a crash of `henji up` itself, when it is started again at once."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("HENJI_ENGINE", "echo")
    stores, stop, killed = StoreFixture.over(redis), asyncio.Event(), process_name()
    await stores.queue.announce("echo", killed, 60)
    with capture_logs() as logs:

        async def waits() -> bool:
            return any("already serves" in line["event"] for line in logs)

        up = asyncio.create_task(run_all(load(), (), stop))
        await until(waits)
    try:
        await stores.queue.withdraw("echo", killed)
        await until(lambda: is_served(stores), 20)
    finally:
        stop.set()
        await up
    assert not await is_served(stores)


async def is_served(stores: StoreFixture) -> bool:
    return await stores.queue.cores("echo") > 0


def test_no_core_is_started_if_another_host_serves() -> None:
    mine, others = process_name(), "gpu-host-17-a1b2c3"
    assert parts_of(("slack",), []) == ["slack", "core"]
    assert parts_of(("slack",), [mine]) == ["slack", "core"]
    assert parts_of(("slack", "discord"), [mine, others]) == ["slack", "discord"]


async def test_too_few_metrics_ports_are_an_error_at_once() -> None:
    with pytest.raises(UsageError, match="HENJI_METRICS_PORT is 65535, and 2 processes need"):
        await supervise(["core", "slack"], asyncio.Event(), stop_timeout=20, metrics_port=65_535)


FROZEN = """
import asyncio, gc, sys
from types import SimpleNamespace
from bots import services
from bots.platforms import AllSettings

async def serve(*_):
    print(gc.get_freeze_count(), len(gc.get_objects()))

services.import_module = lambda name: SimpleNamespace(serve=serve)
asyncio.run(services.serve_platform("toy", AllSettings.load().core, asyncio.Event()))
"""


async def test_a_bot_takes_what_it_loaded_out_of_garbage_collection(redis_url: str) -> None:
    """A full collection would stop it for 0.06 s, in a rush of messages."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", FROZEN), stdout=PIPE, env=environment_with({"REDIS_URL": redis_url})
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    frozen, watched = out.split()
    assert int(frozen) > 3 * int(watched)
