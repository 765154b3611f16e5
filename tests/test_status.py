"""henji admin status: the whole system at a glance."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import structlog
from redis.asyncio import Redis

from bots.cli.status import SystemState, lines_of
from bots.monitoring import Monitor
from bots.platforms import load
from core.observe.logs import set_up_logging
from core.queue_types import Load, ProcessReport, ServerState
from storage import shared
from storage.shared import NAMELESS_SERVER, RedisReports
from tests.processes import finish, henji, start
from tests.pseudo_terminal import terminal
from tests.store_fixture import LANE, StoreFixture
from tests.waiting import until


async def test_a_running_core_and_its_replies_are_shown(redis_url: str, redis: Redis) -> None:
    core = await start("core", REDIS_URL=redis_url)
    try:
        await until(lambda: reported(redis))
        await henji("chat", "--once", "hello", REDIS_URL=redis_url)
        table = (await henji("admin", "status", REDIS_URL=redis_url)).out
        state = json.loads((await henji("admin", "status", "--json", REDIS_URL=redis_url)).out)
    finally:
        core.terminate()
        await finish(core)
    assert "lane       echo: 1 core, 0 waiting" in table
    assert "owed       0; 0 given up" in table
    assert state["processes"][0]["part"] == "core"
    assert state["lanes"]["echo"]["cores"] == 1
    assert state["lanes"]["echo"]["owed"] == 0
    assert state["redis"]["memory"] > 0
    after = (await henji("admin", "status", REDIS_URL=redis_url)).out
    assert "lane       echo: NO CORE" in after
    assert "no process has reported in the last hour" in after


async def reported(redis: Redis) -> bool:
    return bool(await redis.exists("henji:{0}:reports"))


async def test_a_killed_process_stays_listed_as_silent(redis_url: str, redis: Redis) -> None:
    stores = StoreFixture.over(redis)
    reports = RedisReports(stores.store)
    report = ProcessReport("host-1-abc", "slack", LANE, "0", since=0.0, at=0.0)
    now = (await redis.time())[0]
    await reports.report(replace(report, at=now - 100.0, since=now - 7300.0, error="it broke",
                                 error_at=now - 200.0))  # fmt: skip
    await reports.report(replace(report, name="host-2", at=now - 4000.0))  # long gone
    ran = await henji("admin", "status", REDIS_URL=redis_url)
    (line,) = [line for line in ran.out.splitlines() if line.startswith("slack")]
    assert "host-1-abc" in line
    assert "SILENT for 10" in line
    assert line.endswith("3 min ago: it broke")


async def test_a_report_from_a_host_whose_clock_is_wrong_is_not_old(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = RedisReports(StoreFixture.over(redis).store)
    slow = time.time() - 7200
    with monkeypatch.context() as there:
        there.setattr(shared, "time", SimpleNamespace(time=lambda: slow))
        report = ProcessReport("me", "slack", LANE, "0", since=slow - 60, at=slow, error_at=slow)
        await reports.report(report)
    (found,) = await reports.reports()
    now = [time.time()] * 3
    assert [found.at, found.since + 60, found.error_at] == pytest.approx(now, abs=30)


async def test_the_oldest_message_that_waits_is_timed(redis: Redis) -> None:
    stores = StoreFixture.over(redis)
    await stores.queue.announce(LANE, "a core", 60)
    receipt = await stores.say("hello")
    await redis.hincrby(f"henji:{{0}}:job:{receipt.job}", "at", -90_000)
    assert await RedisReports(stores.store).oldest_wait() == pytest.approx(90, abs=5)


async def test_a_process_reports_its_newest_error_without_secrets(redis: Redis) -> None:
    stores, settings = StoreFixture.over(redis), load(lane=LANE, openai_api_key="hidden")
    set_up_logging(settings)
    monitor = Monitor(settings, stores.queue, RedisReports(stores.store))
    structlog.get_logger("bots").error("the platform refused", error="hidden\x1b[2J and more")
    structlog.get_logger("bots").warning("not an error")
    report = await monitor.report("me", "slack")
    assert report.error == r"the platform refused: [secret]\x1b[2J and more"
    assert report.state == ""
    monitor.starting = "still loading"
    assert (await monitor.report("me", "slack")).state == "still loading"
    monitor.starting, monitor.fault = "", lambda: "it says hidden\n\x1b[2J" + "x" * 1000
    state = (await monitor.report("me", "slack")).state
    assert state.startswith(r"it says [secret]\n\x1b[2Jxxx")
    assert len(state) < 400


def test_trouble_is_in_capitals() -> None:
    unknown = SystemState(0.0, NAMELESS_SERVER, {"rinna": Load(0, 0, 1, 0)}, 0, 0, ())
    assert next(lines_of(unknown)) == "Redis      Redis, whose user may not run INFO"
    redis = ServerState("Valkey 9", 2**20, 2**30, evicted=3, file_ok=False)
    load = Load(waiting=4, outstanding=5, cores=0, dead=1)
    state = SystemState(0.0, redis, {"rinna": load}, oldest_wait=90, replies=0, processes=())
    assert list(lines_of(state))[:3] == [
        "Redis      Valkey 9, 1 MiB of 1.0 GiB, CANNOT WRITE ITS FILE, 3 KEYS EVICTED",
        "lane       rinna: NO CORE, 4 waiting",
        "owed       5, the oldest for 90 s; 1 given up",
    ]


async def test_watching_refreshes_the_terminal(redis_url: str, redis: Redis) -> None:
    async with terminal("admin", "status", "--watch", REDIS_URL=redis_url) as screen:
        await screen.shows("no process has reported.*Redis .*no process has reported")
        screen.process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(screen.process.wait(), 60) == 0
