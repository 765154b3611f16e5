"""Connects the parts: Redis with the queue, the model with the core, a platform with its relay.

Apart from `bots/cli`, the only module that imports both `bots` and `storage`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform as machine
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
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
from bots.processes import freeze_loaded, supervise, without_collection
from bots.relay import Relay, RelaySettings
from core import ports
from core.access_policy import Policy
from core.background import first_of
from core.dialogue import Dialogue
from core.engine import open_engine
from core.engine_types import LOADING_STAGES, LoadingStage
from core.errors import ModelError, StoreUnavailable
from core.models.catalogue import ModelSpec, find_model, model_directory
from core.observe import metrics
from core.ports import Engine
from core.settings import Settings
from core.worker import Worker, WorkerSettings
from storage.connect import Connection, connect
from storage.deliveries import RedisDeliveries
from storage.embedded_server import embedded_server
from storage.feedback import RedisFeedback, RedisPreferences
from storage.history import RedisHistory
from storage.keys import DAY
from storage.queue import RedisQueue
from storage.rules import RedisAudit, RedisRules
from storage.shared import RedisLeases, RedisOutbox, RedisReports, RedisSecrets
from storage.store import Limits, Replication, Store
from storage.usage import RedisUsage

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Stores(ports.Stores):
    """Everything that is stored in Redis."""

    queue: RedisQueue
    history: RedisHistory
    deliveries: RedisDeliveries
    feedback: RedisFeedback
    preferences: RedisPreferences
    rulebook: RedisRules
    audit: RedisAudit
    reports: RedisReports
    usage: RedisUsage

    @classmethod
    def over(cls, store: Store, queue: RedisQueue, policy: Policy) -> Stores:
        rulebook = RedisRules(store, policy)
        return cls(
            queue=queue,
            history=RedisHistory(store),
            deliveries=RedisDeliveries(store),
            leases=RedisLeases(store),
            secrets=RedisSecrets(store),
            outbox=RedisOutbox(store),
            feedback=RedisFeedback(store),
            preferences=RedisPreferences(store, rulebook),
            rulebook=rulebook,
            audit=RedisAudit(store),
            reports=RedisReports(store),
            usage=RedisUsage(store),
        )


@asynccontextmanager
async def open_connection(settings: Settings) -> AsyncIterator[Connection]:
    """A connection to the Redis of ``REDIS_URL``, or to the embedded one; or StoreUnavailable."""
    async with AsyncExitStack() as stack:
        url = settings.redis_url
        if url is None:
            url = await stack.enter_async_context(embedded_server(settings.data_dir))
        yield await stack.enter_async_context(aclosing(await connect(url)))


@asynccontextmanager
async def open_stores(settings: Settings) -> AsyncIterator[Stores]:
    """The stores, on a new connection."""
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
    settings: Settings, stores: Stores, platform: Platform, locale: str
) -> AsyncIterator[Relay]:
    """A relay that delivers while the context is open, and finishes its deliveries on leaving."""
    options = relay_settings(settings, stores, locale)
    relay = Relay(platform, stores, options)
    stop = asyncio.Event()
    running = asyncio.create_task(relay.run(stop))
    try:
        yield relay
    finally:
        stop.set()
        await running


def relay_settings(
    settings: Settings, stores: Stores, locale: str = "en", holder: str = ""
) -> RelaySettings:
    """The settings of this process's relay. `locale` is for people whose language is unknown."""
    policy = settings.policy
    return RelaySettings(
        lane=settings.job_lane,
        holder=holder or process_name(),
        locale=locale if settings.locale == "auto" else settings.locale,
        zone=policy.zone,
        summary_prompts=settings.summary_prompts,
        access=Access(stores.rulebook, stores.audit, policy, stores.queue.cores),
        model_host=settings.model_host,
    )


async def run_core(settings: Settings, stop: asyncio.Event) -> bool:
    """Load the model, then answer the jobs of its lane until `stop` is set.

    Returns False if `stop` came first: a thread of this process is then still loading.
    """
    spec, name = find_model(settings), process_name()
    async with AsyncExitStack() as stack:
        stores = await stack.enter_async_context(open_stores(settings))
        monitor = await stack.enter_async_context(
            monitored(
                "core", name, settings, stores.queue, stores.reports, "the model is still loading"
            )
        )
        model = await _unless(stop, load_model(settings, spec))
        if model is None:
            return False
        stack.push_async_callback(model.engine.close)
        freeze_loaded()
        log.info("ready", model=spec.name, lane=settings.job_lane)
        options = WorkerSettings(
            lane=settings.job_lane,
            name=f"{name}@{settings.model_host}" if settings.model_host else name,
            low_water=settings.low_water,
            lease=settings.lease_seconds,
            drain=settings.drain_seconds,
        )
        worker = Worker(
            stores.queue, stores.history, model.engine, model.dialogue, options, stores.rulebook
        )
        monitor.measure, monitor.starting = partial(_measure, settings, worker), ""
        monitor.fault = lambda: worker.fault
        await worker.run(stop)
    return True


def _measure(settings: Settings, worker: Worker) -> None:
    worker.measure()
    if settings.engine == "torch":
        from core.engine.torch.device_memory import gpu_memory
        from core.models.weights import choose_device

        if memory := gpu_memory(choose_device(settings.device)):
            metrics.set_gpu_memory(*memory)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A loaded model: its engine, and its prompts."""

    engine: Engine
    dialogue: Dialogue


async def load_model(settings: Settings, spec: ModelSpec) -> LoadedModel:
    """A model's files, its dialogue and its engine. ModelError where they do not go together."""
    directory = None
    if settings.engine == "torch":
        _report("files")
    if spec.tokenizer != "codepoints":
        directory = await asyncio.to_thread(model_directory, spec, settings, log.info)
    log.info(f"starting {spec.name}")
    if settings.engine == "torch":
        _report("libraries")
        await asyncio.to_thread(_import_libraries)
    dialogue = await asyncio.to_thread(
        Dialogue.load,
        spec,
        directory,
        system_prompt=settings.system_prompt,
        speaker_names=settings.speaker_names,
    )
    if dialogue.ignores_thinking:
        log.warning("the model's chat template has no switch for thinking", wanted=spec.thinking)
    engine = await open_engine(settings, spec, lambda: _weights(settings, spec, directory), _report)
    return LoadedModel(engine, dialogue)


def _import_libraries() -> None:
    with without_collection():
        import core.engine.torch
        import core.models.weights  # noqa: F401 - what follows imports them again, in no time


STAGES: Mapping[LoadingStage, str] = {
    "files": "looking for the model's files",
    "libraries": "reading the libraries",
    "weights": "reading the weights",
    "kernels": "compiling the kernels",
    "trace": "tracing the model",
    "comparison": "comparing the steps with the model's own",
}


def _report(stage: LoadingStage) -> None:
    """Log that a stage begins, with its number: a terminal shows a bar."""
    log.info(STAGES[stage], stage=LOADING_STAGES.index(stage), stages=len(LOADING_STAGES))


def _weights(settings: Settings, spec: ModelSpec, directory: Path | None) -> PreTrainedModel:
    from core.models.weights import load_weights

    if directory is None:
        raise ModelError(f"the model {spec.name} has no weights to load")
    _report("weights")
    return load_weights(
        spec, directory, dtype=settings.dtype, device=settings.device, progress=log.info
    )


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of `work`, or None if `stop` is set first."""
    working = asyncio.ensure_future(work)
    first = await first_of(working, stop.wait())
    return working.result() if first is working else None


async def run_all(settings: Settings, platforms: Sequence[str], stop: asyncio.Event) -> None:
    """Run a process for each of these platforms, and a core, until `stop`.

    OperatorError if one of them cannot start.
    """
    async with open_stores(settings) as stores:
        serving = await stores.queue.serving(settings.job_lane)
        parts = parts_of(platforms, serving)
        if "core" not in parts:
            log.info("a core of another host serves: none is started here", cores=list(serving))
        await supervise(
            parts,
            stop,
            settings.drain_seconds + 5.0,
            settings.metrics_port,
            {"core": partial(_wait_until_unserved, stores.queue, settings.job_lane)},
        )


def parts_of(platforms: Sequence[str], serving: Sequence[str]) -> list[str]:
    """The processes to start, given the names of the cores that serve the lane now.

    A core of this host does not count: it may have just been killed, or belong to a terminal chat.
    """
    here = f"{machine.node()}-"
    elsewhere = any(not core.startswith(here) for core in serving)
    return [*platforms] if elsewhere else [*platforms, "core"]


async def _wait_until_unserved(queue: RedisQueue, lane: str) -> None:
    """Return when no core serves the lane."""
    told = False
    while True:
        with contextlib.suppress(StoreUnavailable):
            if not await queue.cores(lane):
                return
        if not told:
            log.info("a core of this host already serves; ours starts when it ends", lane=lane)
        told = True
        await asyncio.sleep(0.5)


async def serve_platform(name: str, settings: PlatformSettings, stop: asyncio.Event) -> None:
    """Run a platform's bot until `stop` is set.

    The platform's `bot.py` has `serve(settings, stores, relay_settings, stop)`.
    """
    bot, process = import_module(f"bots.{name}.bot"), process_name()
    freeze_loaded()
    async with (
        open_stores(settings) as stores,
        monitored(name, process, settings, stores.queue, stores.reports),
    ):
        await bot.serve(settings, stores, relay_settings(settings, stores, holder=process), stop)


def process_name() -> str:
    """A name that no other process of the same Redis has."""
    return f"{machine.node()}-{os.getpid()}-{uuid4().hex[:6]}"
