"""`henji doctor`: checks of this machine, and what to do about each fault."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from shutil import which
from typing import Literal, TypeAlias
from uuid import uuid4

from redis.exceptions import NoPermissionError

from bots.platforms import AllSettings, PlatformSettings
from bots.services import Stores, open_connection, open_stores
from core.engine import open_remote_engine
from core.errors import OperatorError, StoreUnavailable, install_command
from core.models import files
from core.models.catalogue import EMBEDDED, find_model, model_directory
from core.models.gguf import embedded_gguf
from core.ports import ConversationStores, Secrets
from core.queue_types import OPENED, Delivery, Submission
from core.settings import Settings
from core.types import Cancelled, Delta, Done, Failed, Started, ThreadKey, Turn
from storage.connect import Connection
from storage.store import REDIS_FAULTS, sentence

OLDEST_PYTHON = (3, 11)
OLDEST_REDIS = (6, 2)
ANSWER_SECONDS = 60.0


State: TypeAlias = Literal["ok", "warning", "fault"]
Role: TypeAlias = Literal["core", "bot", "all"]
"""The processes of a host: a core, bots, or both."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    about: str
    state: State
    what: str
    """For a warning or a fault, also what to do."""

    def __str__(self) -> str:
        shown = {"ok": "ok", "warning": "WARN", "fault": "FAULT"}[self.state]
        return f"{shown:5}  {self.about:8} {self.what}"


@dataclass(frozen=True, slots=True)
class Check:
    """One check, and the name of its subject."""

    about: str
    run: Callable[[], Awaitable[Finding]]


def role_of(every: AllSettings) -> Role:
    """The role of this host, by its installed packages and its settings."""
    has_core = every.core.engine != "torch" or find_spec("torch") is not None
    has_bots = any(settings.has_tokens for settings in every.platforms.values())
    return "bot" if has_bots and not has_core else "all"


def checks(every: AllSettings, role: Role) -> list[Check]:
    """The checks of a host, in the order in which to fix their faults."""
    settings = every.core
    found = [Check("Python", _async(python)), Check("Redis", partial(redis, settings))]
    if role != "bot":
        found += [
            Check("model", partial(asyncio.to_thread, model, settings)),
            Check("GPU", partial(asyncio.to_thread, gpu, settings)),
        ]
        if settings.engine == "openai":
            found.append(Check("engine", partial(remote_engine, settings)))
    found.append(Check("answer", partial(answer, settings, role)))
    if role != "core":
        found += [
            Check(own.title, partial(platform, name, own)) for name, own in every.platforms.items()
        ]
    return found


def _async(check: Callable[[], Finding]) -> Callable[[], Awaitable[Finding]]:
    async def run() -> Finding:
        return check()

    return run


def python(found: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    here = ".".join(map(str, found))
    if found[:2] < OLDEST_PYTHON:
        return Finding("Python", "fault", f"{here} is too old: install Python 3.11 or newer")
    return Finding("Python", "ok", here)


async def redis(settings: Settings) -> Finding:
    try:
        async with open_connection(settings) as connection:
            finding = await _redis_by_info(connection)
        if finding.state != "fault":
            async with open_stores(settings) as stores:
                await stores.queue.check_writes()
                # a script, which a user may lack the right to run
                await stores.queue.positions(ThreadKey(PLATFORM, "local", "trial", "-"), ())
    except OperatorError as error:
        return Finding("Redis", "fault", str(error))
    return finding


async def _redis_by_info(connection: Connection) -> Finding:
    where = f"at {connection.address}"
    try:
        info = await connection.client.info()
    except NoPermissionError:
        what = f"{where}: its user may not run INFO, so the version and the limits are not checked"
        return Finding("Redis", "warning", what)
    except REDIS_FAULTS as error:
        raise StoreUnavailable(sentence(error, f"Redis {where}")) from None
    return check_redis_info(info, where)


def check_redis_info(info: dict[str, str | int], where: str) -> Finding:
    """Check a server by its ``INFO``."""
    name = "Valkey" if "valkey_version" in info else "Redis"
    number = str(info.get("valkey_version") or info["redis_version"])
    here = f"{name} {number} {where}"
    if tuple(map(int, str(info["redis_version"]).split(".")[:2])) < OLDEST_REDIS:
        return Finding("Redis", "fault", f"{here} is too old: 6.2 is the oldest that works")
    if info.get("role") == "slave":
        return Finding("Redis", "fault", f"{here} is a replica: give REDIS_URL its primary")
    if info.get("maxmemory_policy", "noeviction") != "noeviction":
        return Finding(
            "Redis", "fault", f"{here} may evict conversations: set maxmemory-policy noeviction"
        )
    if not int(info.get("maxmemory", 1)):
        return Finding(
            "Redis",
            "fault",
            f"{here} has no memory limit, so the system kills it when memory runs out: set "
            "maxmemory to 60 % of the memory it may use",
        )
    if not int(info.get("aof_enabled", 1)):
        return Finding("Redis", "fault", f"{here} forgets at a restart: set appendonly yes")
    return Finding("Redis", "ok", here)


async def remote_engine(settings: Settings) -> Finding:
    """Have the model server generate one token."""
    try:
        engine = await open_remote_engine(settings, find_model(settings))
        await engine.close()
    except OperatorError as error:
        return Finding("engine", "fault", str(error))
    told = f"{settings.openai_base_url} answers: {settings.model_host} is sent people's words"
    if settings.openai_api == "chat":
        told += "; prompts are counted in characters, and the server decides what is text"
    return Finding("engine", "ok", told)


async def answer(settings: Settings, role: Role) -> Finding:
    """Send a message through the queue and the model and back, if a core serves."""
    lane = settings.job_lane
    try:
        async with open_stores(settings) as stores:
            if not await stores.queue.cores(lane):
                return await _without_core(stores, lane, role)
            test = SmokeTest(stores, lane)
            times = await test.run(ANSWER_SECONDS)
    except OperatorError:
        return Finding("answer", "warning", "not tried: Redis is down")
    if times.done is None:
        return Finding("answer", "fault", f"{lane}: {times.fault}; its core's log says more")
    return Finding(
        "answer",
        "ok",
        f"{lane} answered in {times.done:.2f} s: stored after {times.stored:.3f} s, claimed after "
        f"{times.claimed or 0:.3f} s, first text after {times.first_text or 0:.2f} s",
    )


async def _without_core(stores: Stores, lane: str, role: Role) -> Finding:
    """A missing core is a fault where bots run or messages wait."""
    waiting = (await stores.queue.load(lane)).waiting
    if role == "bot" or waiting:
        waits = f", and {waiting} messages wait" if waiting else ""
        return Finding(
            "answer", "fault", f"no core serves {lane}{waits}: start `henji core` on its host"
        )
    return Finding("answer", "warning", f"no core serves {lane} now: `henji up` starts one")


def model(settings: Settings) -> Finding:
    """Whether the model's files exist here. They are not read."""
    if settings.engine == "echo":
        return Finding("model", "ok", "the echo engine needs none")
    try:
        spec = find_model(settings)
        if spec.format == "messages":
            return Finding("model", "ok", f"{spec.name}: the server has it")
        if spec.source == EMBEDDED:
            directory = embedded_gguf().parent
        else:
            directory = model_directory(spec, settings, lambda line: None)
            files.check_weights(directory)
    except OperatorError as error:
        return Finding("model", "fault", str(error))
    return Finding("model", "ok", f"{spec.name} in {directory}")


def gpu(settings: Settings) -> Finding:
    if settings.engine != "torch":
        return Finding("GPU", "ok", f"the {settings.engine} engine needs none here")
    if find_spec("torch") is None:
        return _not_installed("GPU", "torch", "core")
    import torch

    here = f"torch {version('torch')}"
    if torch.cuda.is_available():
        name, memory = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0)
        if not any(map(which, (os.environ.get("CC", ""), "gcc", "clang"))):
            return Finding("GPU", "fault", f"{name} needs a C compiler for Triton: install gcc")
        return Finding("GPU", "ok", f"{here}, {name} with {memory.total_memory / 2**30:.0f} GiB")
    if settings.device.startswith("cuda"):
        return Finding(
            "GPU", "fault", f"{here} sees no GPU: set HENJI_DEVICE=auto, or update its driver"
        )
    return Finding("GPU", "ok", f"{here} sees none: small models run well on the processor")


async def platform(name: str, settings: PlatformSettings) -> Finding:
    """Check a platform that has tokens, by `examine` of its `setup_checks.py`."""
    if not settings.has_tokens:
        return Finding(settings.title, "ok", "no tokens, so no bot there")
    if missing := [package for package in settings.packages if find_spec(package) is None]:
        return _not_installed(settings.title, missing[0], name)
    try:
        setup_checks = import_module(f"bots.{name}.setup_checks")
        sentence = await setup_checks.examine(settings, partial(_open_secrets, settings))
    except OperatorError as error:
        return Finding(settings.title, "fault", str(error))
    return Finding(settings.title, "ok", sentence)


@asynccontextmanager
async def _open_secrets(settings: Settings) -> AsyncIterator[Secrets]:
    async with open_stores(settings) as stores:
        yield stores.secrets


def _not_installed(about: str, package: str, extra: str) -> Finding:
    return Finding(about, "fault", f"{package} is not installed: {install_command(extra)}")


PLATFORM = "doctor"
"""A platform name that no bot serves."""

QUESTION = "Hello! / こんにちは"


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds from sending the message to each step; None if the step was not reached."""

    stored: float
    claimed: float | None = None
    first_text: float | None = None
    done: float | None = None
    fault: str = ""
    """Why no reply came."""


@dataclass
class SmokeTest:
    """One test message, and the stores that it passes through."""

    stores: ConversationStores
    lane: str

    async def run(self, seconds: float) -> Times:
        """Send it, wait for the reply, and remove both."""
        thread = ThreadKey(PLATFORM, "local", "trial", uuid4().hex)
        began = time.monotonic()
        turn = Turn("1", "user", PLATFORM, QUESTION, time.time())
        submission = Submission(thread, turn, addressed=True, lane=self.lane, alone=True)
        receipt = await self.stores.queue.submit(submission, PLATFORM)
        times = Times(time.monotonic() - began)
        delivery = Delivery(receipt.job or "", thread, turn.id, PLATFORM, token=OPENED)
        listening = asyncio.create_task(self.stores.deliveries.listen(PLATFORM))
        try:
            async with asyncio.timeout(seconds):
                return await self._followed(delivery, times, began)
        except TimeoutError:
            return Times(times.stored, fault=f"no reply in {seconds:g} s")
        finally:
            listening.cancel()
            await self.stores.history.discard(thread, turn, delivery.job)

    async def _followed(self, delivery: Delivery, times: Times, began: float) -> Times:
        claimed = first_text = None
        async for event in self.stores.deliveries.follow(delivery):
            now = time.monotonic() - began
            match event:
                case Started():
                    claimed = claimed or now
                case Delta():
                    first_text = first_text or now
                case Done():
                    return Times(times.stored, claimed, first_text or now, now)
                case Failed(code, message):
                    return Times(times.stored, claimed, fault=message or code)
                case Cancelled(by):
                    return Times(times.stored, claimed, fault=f"it was ended by a {by}")
        raise AssertionError("a reply's events end with its end")
