"""Where the rooms meet: the store behind the queue, the model behind the core, a platform's relay.

Beside `bots/cli/commands.py`, the one place that knows both `bots` and `storage`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import platform as machine
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import structlog

from bots.access import Access
from bots.monitoring import monitored
from bots.platform import Platform
from bots.platforms import PlatformSettings
from bots.relay import Relay, RelaySettings
from bots.supervisor import supervise
from core.access_policy import Policy
from core.background import first_of
from core.dialogue import Dialogue
from core.engine import open_engine
from core.errors import ModelError, StoreUnavailable
from core.models.catalogue import ModelSpec, find_model, model_directory
from core.observe import metrics
from core.ports import Engine
from core.settings import Settings
from core.worker import Worker, WorkerSettings
from storage.audit import RedisAudit
from storage.connect import Connection, connect
from storage.deliveries import RedisDeliveries
from storage.embedded_server import embedded_server
from storage.feedback import RedisFeedback
from storage.history import RedisHistory
from storage.keys import DAY
from storage.leases import RedisLeases
from storage.lua import Replication
from storage.queue import RedisQueue
from storage.rules import RedisRules
from storage.secrets import RedisSecrets
from storage.store import Limits, Store

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Stores:
    """What Redis is to everything else."""

    queue: RedisQueue
    history: RedisHistory
    deliveries: RedisDeliveries
    leases: RedisLeases
    rulebook: RedisRules
    audit: RedisAudit
    vault: RedisSecrets
    feedback: RedisFeedback

    @classmethod
    def over(cls, store: Store, queue: RedisQueue, policy: Policy) -> Stores:
        return cls(
            queue,
            RedisHistory(store),
            RedisDeliveries(store),
            RedisLeases(store),
            RedisRules(store, policy),
            RedisAudit(store),
            RedisSecrets(store),
            RedisFeedback(store),
        )


@asynccontextmanager
async def open_connection(settings: Settings) -> AsyncIterator[Connection]:
    """To the Redis of ``REDIS_URL``, or the embedded one. StoreUnavailable where there is none."""
    async with AsyncExitStack() as stack:
        url = settings.redis_url
        if url is None:
            url = await stack.enter_async_context(embedded_server(settings.data_dir))
        yield await stack.enter_async_context(aclosing(await connect(url)))


@asynccontextmanager
async def open_stores(settings: Settings) -> AsyncIterator[Stores]:
    """What is remembered and owed, over that connection."""
    async with open_connection(settings) as connection:
        store = Store(
            connection,
            buckets=settings.buckets or (16 if connection.is_cluster else 1),
            lease=settings.lease_seconds,
            deadline=settings.job_deadline_seconds,
            retention=settings.retention_days * DAY,
            audit=settings.audit_days * DAY,
            max_attempts=settings.max_attempts,
            limits=Limits(
                all=settings.max_waiting,
                channel=settings.max_waiting_per_channel,
                person=settings.max_waiting_per_person,
                thread=settings.max_waiting_per_thread,
            ),
            answer_together=settings.answer_together,
            replication=Replication(settings.wait_replicas, settings.wait_milliseconds),
        )
        async with aclosing(RedisQueue(store)) as queue:
            yield Stores.over(store, queue, settings.policy)


@asynccontextmanager
async def open_relay(
    settings: Settings, memory: Stores, platform: Platform, locale: str
) -> AsyncIterator[Relay]:
    """A relay that delivers until it is left, and then finishes."""
    terms = relay_settings(settings, memory, locale)
    relay = Relay(platform, memory.queue, memory.history, memory.deliveries, terms)
    stop = asyncio.Event()
    running = asyncio.create_task(relay.run(stop))
    try:
        yield relay
    finally:
        stop.set()
        await running


def relay_settings(settings: Settings, memory: Stores, locale: str = "en") -> RelaySettings:
    """How this process's relay works; `locale` for people whose language is not known."""
    policy = settings.policy
    return RelaySettings(
        lane=settings.job_lane,
        holder=name_of_process(),
        locale=locale if settings.locale == "auto" else settings.locale,
        zone=policy.zone,
        access=Access(memory.rulebook, memory.audit, policy, memory.queue.cores),
    )


async def run_core(settings: Settings, stop: asyncio.Event) -> bool:
    """Load the model, then answer the jobs of its lane until `stop` is set.

    False where `stop` came first: then a thread of this process is still loading.
    """
    spec = find_model(settings)
    async with AsyncExitStack() as stack:
        memory = await stack.enter_async_context(open_stores(settings))
        watch = await stack.enter_async_context(
            monitored("core", settings, memory.queue, "the model is still loading")
        )
        mind = await _unless(stop, _load(settings, spec))
        if mind is None:
            return False
        stack.push_async_callback(mind.engine.close)
        # What loading brought stays. Python would look through it for garbage now and then, and
        # hold up every reply meanwhile: by 0.14 s with torch and transformers.
        gc.collect()
        gc.freeze()
        log.info("ready", model=spec.name, lane=settings.job_lane)
        terms = WorkerSettings(
            lane=settings.job_lane,
            name=name_of_process(),
            low_water=settings.low_water,
            lease=settings.lease_seconds,
            drain=settings.drain_seconds,
        )
        worker = Worker(
            memory.queue, memory.history, mind.engine, mind.dialogue, terms, memory.rulebook
        )
        watch.measure, watch.starting = partial(_measure, settings, worker), ""
        await worker.run(stop)
    return True


def _measure(settings: Settings, worker: Worker) -> None:
    worker.measure()
    if settings.engine == "torch":
        from core.engine.torch.cache_size import gpu_memory
        from core.models.weights import choose_device

        if memory := gpu_memory(choose_device(settings.device)):
            metrics.set_gpu_memory(*memory)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model, ready to answer."""

    engine: Engine
    dialogue: Dialogue


async def _load(settings: Settings, spec: ModelSpec) -> LoadedModel:
    directory = None
    if settings.engine != "echo":
        directory = await asyncio.to_thread(model_directory, spec, settings, log.info)
    log.info(f"starting {spec.name}")  # the libraries alone take seconds to load
    dialogue = await asyncio.to_thread(
        Dialogue.load,
        spec,
        directory,
        system_prompt=settings.system_prompt,
        speaker_names=settings.speaker_names,
    )
    engine = await open_engine(settings, spec, lambda: _weights(settings, spec, directory))
    return LoadedModel(engine, dialogue)


def _weights(settings: Settings, spec: ModelSpec, directory: Path | None) -> PreTrainedModel:
    from core.models.weights import load_weights

    if directory is None:
        raise ModelError(f"the model {spec.name} has no weights to load")
    return load_weights(
        spec, directory, dtype=settings.dtype, device=settings.device, progress=log.info
    )


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of `work`, or None where `stop` is set before there is one."""
    working = asyncio.ensure_future(work)
    first = await first_of(working, stop.wait())
    return working.result() if first is working else None


async def run_all(settings: Settings, platforms: Sequence[str], stop: asyncio.Event) -> None:
    """A process for each of these platforms, and one for the model, until `stop`.

    OperatorError where one of them cannot work.
    """
    async with open_stores(settings) as memory:
        serving = await memory.queue.serving(settings.job_lane)
        parts = parts_of(platforms, serving)
        if "core" not in parts:
            log.info("another host's core serves: none is started here", cores=list(serving))
        await supervise(
            parts,
            stop,
            settings.drain_seconds + 5.0,
            settings.metrics_port,
            {"core": partial(_unserved, memory.queue, settings.job_lane)},
        )


def parts_of(platforms: Sequence[str], serving: Sequence[str]) -> list[str]:
    """The parts that a host has, by the names of the cores that serve its lane now.

    One of this very host is not to be relied on: it may have been killed a moment ago, or belong to
    a chat in the terminal.
    """
    here = f"{machine.node()}-"
    elsewhere = any(not core.startswith(here) for core in serving)
    return [*platforms] if elsewhere else [*platforms, "core"]


async def _unserved(queue: RedisQueue, lane: str) -> None:
    """Wait until no core serves a lane."""
    told = False
    while True:
        with contextlib.suppress(StoreUnavailable):
            if not await queue.cores(lane):
                return
        if not told:
            log.info("a core of this host serves already: ours starts when it has gone", lane=lane)
        told = True
        await asyncio.sleep(0.5)


async def serve_platform(name: str, settings: PlatformSettings, stop: asyncio.Event) -> None:
    """Run a platform's bot until `stop` is set.

    The platform's `bot.py` has `serve(settings, stores, relay_settings, stop)`.
    """
    bot = import_module(f"bots.{name}.bot")
    async with open_stores(settings) as memory, monitored(name, settings, memory.queue):
        await bot.serve(settings, memory, relay_settings(settings, memory), stop)


def name_of_process() -> str:
    """This process among all that share a Redis."""
    return f"{machine.node()}-{os.getpid()}-{uuid4().hex[:6]}"
