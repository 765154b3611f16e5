"""A local Discord with everything behind it: a real store, a core, and adapters of the bot."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

from discord.gateway import DiscordWebSocket
from discord.http import Route
from pydantic import SecretStr
from redis.asyncio import Redis

from bots.access import Access
from bots.discord import bot, setup_checks
from bots.discord.settings import DiscordSettings
from bots.discord.shards import ShardPlan
from bots.relay import RelaySettings
from core.access_policy import Policy
from core.dialogue import Dialogue
from core.engine.echo import EchoEngine
from core.models.catalogue import CATALOGUE
from core.ports import Stores
from core.worker import Worker, WorkerSettings
from storage.rules import RedisAudit, RedisRules
from tests.local_discord import payloads as p
from tests.local_discord.server import TOKEN, LocalDiscord
from tests.open_access import EVERYBODY
from tests.store_fixture import StoreFixture

LANE = "echo"
ALICE = p.user("700000000000000001", "Alice")
BOB = p.user("700000000000000002", "Bob")


def bot_settings(**changes: Any) -> DiscordSettings:
    """The settings of the bot's process."""
    return DiscordSettings(lane=LANE, discord_bot_token=SecretStr(TOKEN), **changes)


def words(count: int) -> str:
    """A text without repetition, for a reply that takes a while."""
    return " ".join(f"word{number}" for number in range(count))


@dataclass
class DiscordDeployment:
    """People, the bot, and its stores."""

    discord: LocalDiscord
    stores: StoreFixture
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)
    stops: list[asyncio.Event] = field(default_factory=list)
    bots: list[Bot] = field(default_factory=list)

    @property
    def rulebook(self) -> RedisRules:
        """The rules that admins have set."""
        return RedisRules(self.stores.store, Policy())

    def process_stores(self) -> Stores:
        """New stores, as each process has them, on the shared Redis."""
        return StoreFixture.over(self.stores.redis).of_a_platform()

    async def start_core(
        self,
        tokens_per_second: float = 0.0,
        context_length: int = 16_384,
        lane: str = LANE,
        policy: Policy | None = None,
        thinking: float = 3.0,
    ) -> asyncio.Task[None]:
        stores = StoreFixture.over(self.stores.redis)
        name = f"core {len(self.tasks)}"
        process_settings = WorkerSettings(lane=lane, name=name, drain=0.0, thinking=thinking)
        length = context_length
        spec = replace(
            CATALOGUE["echo"], name=lane, context_length=length, max_new_tokens=length // 2
        )
        engine, dialogue = EchoEngine(tokens_per_second), Dialogue.load(spec, None)
        stop = asyncio.Event()
        self.stops.append(stop)
        rulebook = RedisRules(stores.store, policy) if policy else self.rulebook
        worker = Worker(stores.queue, stores.history, engine, dialogue, process_settings, rulebook)
        task = asyncio.create_task(worker.run(stop), name=name)
        self.tasks.append(task)
        await self.stores.queue.announce(lane, "the first", 60)
        return task

    def _access(self, policy: Policy) -> Access:
        audit, cores = RedisAudit(self.stores.store), self.stores.queue.cores
        return Access(RedisRules(self.stores.store, policy), audit, policy, cores)

    async def start_bot(self, name: str = "bot", **changes: Any) -> Bot:
        """One adapter process, connected; `changes` are of its settings, or its `policy`."""
        plan = changes.pop("plan", ShardPlan(1, 1, name, lease=1.0, identify=0.05))
        ready = self.discord.gateway.identified + changes.pop("connections", plan.maximum)
        policy = changes.pop("policy", None)
        seen = await setup_checks.check_account(TOKEN)
        settings = bot_settings(**changes)
        access = self._access(policy) if policy else EVERYBODY
        relay = RelaySettings(
            lane=LANE, holder=name, take_over=0.05, positions=0.1, drain=1.0, access=access
        )
        stop = asyncio.Event()
        running = bot.run(settings, seen, self.process_stores(), relay, plan, stop)
        started = Bot(asyncio.create_task(running, name=name), stop)
        started.task.add_done_callback(lambda _: self.discord.look_again())
        self.tasks.append(started.task)
        self.bots.append(started)
        await self.discord.until(
            lambda: started.task.done() or self.discord.gateway.identified >= ready
        )
        if started.task.done():
            await started.task
        return started

    async def ready(self, tokens_per_second: float = 0.0) -> str:
        """A channel of a guild that the bot is in, connected and with a core."""
        channel = self.discord.add_channel(self.discord.add_guild())
        await self.start_core(tokens_per_second)
        await self.start_bot()
        return channel

    async def nothing_owed(self) -> bool:
        """Whether no reply is being written, and no delivery is open."""
        load = await self.stores.queue.load(LANE)
        is_open = await self.stores.redis.exists("henji:{0}:deliveries:discord")
        return load.outstanding == 0 and not is_open

    async def close(self) -> None:
        for stop in self.stops:
            stop.set()
        for task in self.tasks:
            if not task.get_name().startswith("core"):
                task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class Bot:
    """A running adapter."""

    task: asyncio.Task[None]
    stop: asyncio.Event

    async def end(self) -> None:
        """Stop it, and return when it has ended."""
        self.stop.set()
        await asyncio.wait_for(self.task, 10)

    async def kill(self) -> None:
        """End it as a crash would: its leases last until they expire."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@contextlib.asynccontextmanager
async def discord_deployment(redis: Redis, **discord: Any) -> AsyncIterator[DiscordDeployment]:
    """A deployment without a core or a bot yet."""
    before = Route.BASE, DiscordWebSocket.DEFAULT_GATEWAY
    async with LocalDiscord(**discord) as local:
        setup_checks.use_server(local.api_url, local.gateway_url)
        deployment = DiscordDeployment(local, StoreFixture.over(redis))
        try:
            yield deployment
        finally:
            await deployment.close()
            Route.BASE, DiscordWebSocket.DEFAULT_GATEWAY = before
