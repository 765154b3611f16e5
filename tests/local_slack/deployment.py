"""Henji in the local Slack: adapters and a core with the echo engine, on a real Valkey."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from redis.asyncio import Redis

from bots.access import Access
from bots.relay import RelaySettings
from bots.slack.bot import serve
from bots.slack.rate_limits import RateLimiter
from bots.slack.settings import SlackSettings
from core.access_policy import Policy
from core.dialogue import Dialogue
from core.engine.echo import EchoEngine
from core.models.catalogue import CATALOGUE
from core.types import ThreadKey
from core.worker import Worker, WorkerSettings
from storage.rules import RedisAudit, RedisRules
from storage.store import Store
from tests.local_slack import LocalSlack, Message
from tests.processes import listens
from tests.store_fixture import StoreFixture, TestConnection
from tests.waiting import until

LANE = "echo"


@dataclass
class SlackDeployment:
    """The processes, as tasks that can be started, stopped and killed."""

    slack: LocalSlack
    redis: Redis
    settings: dict[str, Any] = field(default_factory=dict)
    lease: float = 15.0
    minute: float = 60.0
    policy: Policy = field(default_factory=Policy)
    """What henji.toml would say."""
    _processes: list[asyncio.subprocess.Process] = field(default_factory=list)
    _tasks: dict[str, tuple[asyncio.Task[None], asyncio.Event]] = field(default_factory=dict)

    def store(self) -> Store:
        return Store(TestConnection(self.redis), lease=self.lease, delivery_lease=self.lease)

    def stores(self) -> StoreFixture:
        return StoreFixture(self.redis, self.store())

    async def core(
        self,
        pace: float = 0.0,
        name: str = "core",
        tokens: int = 1024,
        model: str = LANE,
        thinking: float = 3.0,
    ) -> None:
        """Start a core for the lane of a model; `pace` in characters a second, 0 at once;
        `tokens` the longest reply."""
        stores, stop = self.stores(), asyncio.Event()
        worker = Worker(
            stores.queue,
            stores.history,
            EchoEngine(pace),
            Dialogue.load(
                replace(
                    CATALOGUE["echo"],
                    name=model,
                    max_new_tokens=tokens,
                    context_length=4096 + 2 * tokens,
                ),
                None,
            ),
            WorkerSettings(model, name, lease=self.lease, thinking=thinking),
            self.rulebook,
        )
        self._tasks[name] = (asyncio.create_task(worker.run(stop)), stop)
        await until(partial(self._serves, stores, model))

    async def _serves(self, stores: StoreFixture, lane: str) -> bool:
        return await stores.queue.cores(lane) > 0

    @property
    def rulebook(self) -> RedisRules:
        """The rules of places, as admins set them."""
        return RedisRules(self.store(), self.policy)

    async def adapter(self, name: str = "adapter") -> None:
        """Start an adapter, and wait for its socket."""
        sockets = self.slack.delivery.sockets
        task, stop = self._serve(name)
        self._tasks[name] = (task, stop)
        connected = asyncio.create_task(
            self.slack.until(lambda: self.slack.delivery.sockets > sockets)
        )
        await asyncio.wait({task, connected}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            connected.cancel()
            await task
        await connected

    def _settings(self) -> dict[str, Any]:
        return {
            "engine": "echo",
            "slack_bot_token": self.slack.bot_token,
            "slack_app_token": self.slack.app_token,
            "slack_api_url": self.slack.api_url,
            **self.settings,
        }

    async def stop(self, name: str) -> None:
        task, stop = self._tasks.pop(name)
        stop.set()
        await task

    async def http_adapter(self, name: str = "adapter") -> None:
        """Start an adapter that gets its events by HTTP, and wait until it listens."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.settings |= {
            "slack_http_port": port,
            "slack_signing_secret": self.slack.signing_secret,
        }
        self.slack.delivery.request_url = f"http://127.0.0.1:{port}/slack/events"
        self._tasks[name] = self._serve(name)
        await until(partial(listens, port))

    async def again(self) -> None:
        """Start another adapter with the same settings, and wait for its end."""
        task, _ = self._serve("again")
        await task

    def _serve(self, name: str) -> tuple[asyncio.Task[None], asyncio.Event]:
        stop = asyncio.Event()
        audit, cores = RedisAudit(self.store()), self.stores().queue.cores
        access = Access(self.rulebook, audit, self.policy, cores)
        process_settings = RelaySettings(
            LANE, name, lease=self.lease, take_over=0.1, positions=0.1, drain=0.5, access=access,
            zone=self.policy.zone,
        )  # fmt: skip
        settings, budget = SlackSettings(**self._settings()), RateLimiter(self.minute)
        return asyncio.create_task(
            serve(settings, self.stores().of_a_platform(), process_settings, stop, budget)
        ), stop

    async def adapter_process(self, redis_url: str) -> asyncio.subprocess.Process:
        """Start an adapter in a process that can be killed, and wait for its socket."""
        sockets = self.slack.delivery.sockets
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.slack_adapter",
            redis_url,
            str(self.lease),
            env=os.environ
            | {
                "SLACK_BOT_TOKEN": self.slack.bot_token,
                "SLACK_APP_TOKEN": self.slack.app_token,
                "SLACK_API_URL": self.slack.api_url,
                "HENJI_ENGINE": "echo",
            },
        )
        self._processes.append(process)
        await self.slack.until(lambda: self.slack.delivery.sockets > sockets)
        return process

    async def close(self) -> None:
        for process in self._processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
        for name in list(self._tasks):
            with contextlib.suppress(Exception):
                await self.stop(name)

    def key(self, channel: str, thread: str) -> ThreadKey:
        return ThreadKey("slack", self.slack.workspace.team, channel, thread)

    async def answered(self, channel: str, thread: str, text: str, within: float = 60) -> Message:
        """The reply with this text, once it is finished."""
        found = await self.slack.until(lambda: self.slack.finished(channel, thread, text), within)
        assert isinstance(found, Message)
        return found

    async def asks(self, text: str, user: str = "U1") -> str:
        """Somebody mentions the bot and is answered; the thread."""
        ts = await self.slack.say("C1", user, f"<@U0HENJI> {text}")
        await self.answered("C1", ts, f"echo: {text}")
        return ts

    async def settled(self) -> None:
        """Everything that was sent has been acknowledged, and a later message was answered."""
        async with asyncio.timeout(60):
            for envelope in list(self.slack.delivery.envelopes):
                await envelope.done.wait()
        ts = await self.slack.say("D9", "U1", "the last")
        await self.answered("D9", ts, "echo: the last")

    async def at_rest(self) -> None:
        """Wait until no status or session is left, and check that Slack had no objection."""
        await self.slack.until(lambda: not self.slack.standing())
        workspace = self.slack.workspace
        ours = (m for m in workspace.messages.values() if m.user == self.slack.bot_user)
        assert not any(m.unfurl for m in ours if m.streaming == "no" and not m.ephemeral_for)
        assert workspace.violations == []


@contextlib.asynccontextmanager
async def slack_deployment(redis: Redis, **settings: Any) -> AsyncIterator[SlackDeployment]:
    """A deployment with people in it, before anything is started."""
    minute = settings.pop("minute", 60.0)
    async with LocalSlack(minute) as slack:
        slack.person("U1", "花子")
        slack.person("U2", "Taro", locale="en-US")
        slack.person("UADMIN", "長谷川", admin=True)
        deployment = SlackDeployment(slack, redis, settings, minute=minute)
        try:
            yield deployment
        finally:
            await deployment.close()


@contextlib.asynccontextmanager
async def slack_at_work(redis: Redis) -> AsyncIterator[SlackDeployment]:
    """A deployment with a core and an adapter; in the end nothing may be in progress."""
    async with slack_deployment(redis) as deployment:
        await deployment.core()
        await deployment.adapter()
        yield deployment
        await deployment.at_rest()
