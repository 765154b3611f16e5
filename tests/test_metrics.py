"""Every metric moves when its event happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import pytest
import torch
from redis.asyncio import Redis

from bots.monitoring import Monitor
from bots.platform import Incoming
from bots.relay import Relay, RelaySettings
from core.dialogue import Dialogue
from core.engine.echo import EchoEngine
from core.engine_types import GenerationRequest
from core.errors import StoreUnavailable
from core.models.catalogue import CATALOGUE
from core.observe import metrics
from core.settings import load_settings
from core.types import ThreadKey
from core.worker import Worker, WorkerSettings
from storage import keys
from storage.shared import RedisReports
from tests.local_discord.deployment import ALICE, discord_deployment, words
from tests.local_slack.deployment import slack_deployment
from tests.open_access import EVERYBODY, OPEN_RULES
from tests.simulated_platform import Board, SimulatedPlatform, Wire, at_once
from tests.store_fixture import LANE, StoreFixture
from tests.test_engine import GREEDY, engine_for, gpt_neox
from tests.test_health import sample
from tests.waiting import until

T = TypeVar("T")

THREAD = ThreadKey("stand-in", "T1", "C1", "1.0")


def now(name: str, **labels: str) -> float:
    """A metric's value; 0 where nothing was counted yet."""
    return metrics.REGISTRY.get_sample_value(f"henji_{name}", labels) or 0.0


@dataclass
class Since:
    """How much each metric has grown since this was made."""

    before: dict[tuple[str, tuple[tuple[str, str], ...]], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for family in metrics.REGISTRY.collect():
            for found in family.samples:
                self.before[found.name, tuple(sorted(found.labels.items()))] = found.value

    def __call__(self, name: str, **labels: str) -> float:
        key = f"henji_{name}", tuple(sorted(labels.items()))
        return now(name, **labels) - self.before.get(key, 0.0)


@asynccontextmanager
async def a_relay(stores: StoreFixture, wire: Wire = at_once) -> AsyncIterator[tuple[Relay, Board]]:
    board, stop = Board(), asyncio.Event()
    process_settings = RelaySettings(LANE, "bot", take_over=0.05, drain=0.05, access=EVERYBODY)
    relay = Relay(
        SimulatedPlatform(board, wire=wire),
        stores.of_a_platform(),
        process_settings,
    )
    work = asyncio.create_task(relay.run(stop))
    try:
        yield relay, board
    finally:
        stop.set()
        await work


@asynccontextmanager
async def a_core(stores: StoreFixture, engine: EchoEngine) -> AsyncIterator[Worker]:
    stop, dialogue = asyncio.Event(), Dialogue.load(CATALOGUE["echo"], None)
    process_settings = WorkerSettings(LANE, "core", drain=0, renew=0.02)
    worker = Worker(
        stores.queue, stores.history, engine, dialogue, process_settings, rulebook=OPEN_RULES
    )
    working = asyncio.create_task(worker.run(stop))
    try:
        yield worker
    finally:
        stop.set()
        await working


async def say(relay: Relay, board: Board, text: str, id_: str) -> None:
    await relay.submit(Incoming(THREAD, board.say(THREAD, id_, "U1", text), addressed=True))


async def test_messages_and_calls_of_the_platform_are_counted(redis: Redis) -> None:
    stores, since, calls = StoreFixture.over(redis), Since(), {"post": 0}

    async def wire(name: str, effect: Callable[[], Awaitable[T]]) -> T:
        if name == "post" and not calls["post"]:
            calls["post"] += 1
            raise OSError("the line is cut")
        return await effect()

    async with a_relay(stores, wire) as (relay, board):
        await say(relay, board, "nobody is there", "m0")
        await stores.queue.announce(LANE, "core", 60)
        await say(relay, board, "hello", "m1")
        await say(relay, board, "hello", "m1")
        await stores.reply(await stores.claim(), "hi")
        await until(lambda: _closed(stores))
    events = {"queued": 1, "duplicate": 1, "refused": 1}
    for outcome, number in events.items():
        assert since("events_total", platform="stand-in", outcome=outcome) == number
    assert since("refusals_total", platform="stand-in", code="no_core") == 1
    posts = {"platform": "stand-in", "call": "post"}
    assert since("platform_calls_total", **posts, outcome="failed") == 1
    assert since("platform_calls_total", **posts, outcome="ok") == 2
    assert since("platform_call_seconds_count", **posts) == 3
    assert since("deliveries_total", platform="stand-in", end="done") == 1
    assert since("deliveries_total", platform="stand-in", end="failed") == 1
    assert now("deliveries_open", platform="stand-in") == 0


async def _closed(stores: StoreFixture) -> bool:
    return not await stores.redis.exists(keys.key("deliveries", 0, "stand-in"))


async def test_edits_are_counted_as_edits(redis: Redis) -> None:
    stores, since = StoreFixture.over(redis), Since()
    async with a_relay(stores) as (relay, board), a_core(stores, EchoEngine(40)):
        await until(lambda: _served(stores))
        await say(relay, board, "a text of some words", "m1")
        await until(lambda: _closed(stores))
    edits = since("platform_calls_total", platform="stand-in", call="edit", outcome="ok")
    assert edits >= 1
    assert since("platform_call_seconds_count", platform="stand-in", call="edit") == edits


async def _served(stores: StoreFixture) -> bool:
    return await stores.queue.cores(LANE) > 0


@pytest.mark.parametrize("finder", ["bot", "core"])
async def test_a_takeover_is_counted_by_the_process_that_finds_the_expired_lease(
    redis: Redis, finder: str
) -> None:
    stores, since = StoreFixture.over(redis), Since()
    await stores.queue.announce(LANE, "a core that dies", 60)
    await stores.say("hello")
    await stores.claim()
    process = a_relay(stores) if finder == "bot" else a_core(stores, EchoEngine())
    async with process:
        await redis.zadd(keys.key("leases", 0), {"slack:T1:C1:1.0": 1})
        await until(lambda: _counted(since, "takeovers_total"))
    assert since("takeovers_total") == 1


async def _counted(since: Since, name: str, **labels: str) -> bool:
    return since(name, **labels) > 0


async def test_a_core_that_lost_its_job_counts_the_step_that_was_fenced(redis: Redis) -> None:
    stores, since = StoreFixture.over(redis), Since()
    async with a_core(stores, EchoEngine(20)) as worker:
        await until(lambda: _served(stores))
        await stores.say("a long text that takes its time")
        await until(lambda: _runs(worker))
        assert now("jobs_running", lane=LANE) == 1
        assert now("engine_running") == 1
        await redis.hincrby(keys.key("thread", 0, "slack:T1:C1:1.0"), "gen", 1)
        await until(lambda: _counted(since, "jobs_total", lane=LANE, outcome="fenced"))
        worker.measure()
    steps = sum(since("fenced_total", step=step) for step in ("renew", "publish", "commit"))
    assert steps >= 1  # several may be under way
    assert now("jobs_running", lane=LANE) == 0


async def _runs(worker: Worker) -> bool:
    worker.measure()
    return now("engine_running") > 0


async def test_waiting_open_and_dead_jobs_are_looked_up(redis: Redis) -> None:
    stores = StoreFixture.over(redis, max_attempts=1)
    watch = Monitor(load_settings(lane=LANE), stores.queue, RedisReports(stores.store))
    await stores.queue.announce(LANE, "core", 60)
    for number in range(3):
        await stores.say("hello", ThreadKey("slack", "T1", "C1", f"{number}.0"))
    await stores.queue.fail(await stores.claim(), "internal", "boom", retry=True)
    await stores.claim()
    await watch.refresh()
    assert now("jobs_waiting", lane=LANE) == 1
    assert now("replies_owed") == 2
    assert now("dead_letters") == 1
    assert now("cores", lane=LANE) == 1
    assert now("redis_up") == 1


async def test_slacks_429s_and_streams_that_end_are_counted(redis: Redis) -> None:
    since = Since()
    async with slack_deployment(redis, minute=30.0) as stores:
        await stores.core(pace=100)
        await stores.adapter()
        assert now("gateway_up", platform="slack", shard="0") == 1
        assert metrics.gateways_down() == []
        slack, text = stores.slack, words(15)
        slack.limits.refuse_next("chat.update", 1)
        ts = await slack.say("C1", "U1", f"<@U0HENJI> {text}")
        await slack.until(lambda: slack.replies("C1", ts))
        slack.expire_streams()
        await stores.answered("C1", ts, f"echo: {text}")
    assert since("gateway_events_total", platform="slack", event="hello") == 1
    assert since("stream_fallbacks_total", platform="slack", reason="ended") == 1
    assert since("rate_limited_total", platform="slack", method="chat.update") == 1
    assert metrics.REGISTRY.get_sample_value("henji_gateway_up", {"platform": "slack"}) is None


async def test_a_socket_that_is_lost_is_seen_as_down(redis: Redis) -> None:
    async with slack_deployment(redis) as stores:
        await stores.adapter()
        await stores.slack.delivery.drop()
        await until(_down)
    assert metrics.gateways_down() == []


async def _none_down() -> bool:
    return metrics.gateways_down() == []


async def _down() -> bool:
    return metrics.gateways_down() == ["slack"]


async def test_discords_connection_and_its_429s_are_counted(redis: Redis) -> None:
    since = Since()
    async with discord_deployment(redis) as deployment:
        channel = deployment.discord.add_channel(deployment.discord.add_guild())
        await deployment.start_core()
        bot = await deployment.start_bot()
        assert metrics.gateways_down() == ["discord"]
        await until(_none_down, 10)
        assert since("gateway_events_total", platform="discord", event="ready") == 1
        deployment.discord.make_trouble("post", retry_after=0.05)
        asked = await deployment.discord.says(ALICE, channel, "<@bot> hello")
        await deployment.discord.until(lambda: deployment.discord.replies(str(asked["id"])))
        bot.stop.set()
        await bot.task
    assert since("rate_limited_total", platform="discord", method="POST") == 1
    assert metrics.gateways_down() == []


async def test_the_engines_cache_metrics_are_shown() -> None:
    twice = [GenerationRequest(id_, range(3, 99), GREEDY, 4, seed=1) for id_ in ("a", "b")]
    torch.manual_seed(0)
    async with engine_for(gpt_neox()) as engine:
        held: set[float] = set()
        for request in twice:
            async for _ in engine.generate(request):
                metrics.set_engine(engine.stats())
                held.add(now("cache_used_ratio"))
        metrics.set_engine(engine.stats())
    assert 0 < max(held) < 1
    assert now("cache_used_ratio") == 0
    assert now("prefix_hit_ratio") == pytest.approx(80 / 192, abs=0.1)
    assert now("engine_tokens_per_second") > 0
    assert now("engine_places") >= 1
    metrics.set_gpu_memory(3, 4)
    assert (now("gpu_memory_bytes", kind="used"), now("gpu_memory_bytes", kind="total")) == (3, 4)


def test_a_scrape_has_them_all() -> None:
    text = metrics.render().decode()
    assert sample(text, "henji_takeovers_total") >= 0
    for name in metrics.names():
        assert name.removesuffix("_total").removesuffix("_bucket") in text


async def test_a_process_is_not_ready_while_redis_takes_no_writes(redis: Redis) -> None:
    stores = StoreFixture.over(redis)
    monitor = Monitor(load_settings(lane=LANE), stores.queue, RedisReports(stores.store))
    assert await monitor.ready() == ""
    await redis.config_set("maxmemory", "1")
    try:
        assert (await monitor.ready()).startswith("Redis takes no writes: ")
        with pytest.raises(StoreUnavailable):
            await monitor.refresh()
        assert now("redis_up") == 0
        assert now("redis_memory_bytes", kind="limit") == 1
    finally:
        await redis.config_set("maxmemory", "0")
    await monitor.refresh()
    assert now("redis_memory_bytes", kind="limit") == 0
    assert now("redis_memory_bytes", kind="used") > 100_000
    assert (now("redis_file_ok"), now("redis_evicted_keys")) == (1, 0)
    assert now("redis_up") == 1
