"""`henji doctor`: what this machine has and lacks, and what to do about each fault."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec

from pydantic import SecretStr

from bots.wiring import open_connection
from core import model_files
from core.errors import OperatorError
from core.models import EMBEDDED, find_model, model_directory
from core.settings import Settings

OLDEST_PYTHON = (3, 11)
OLDEST_REDIS = (6, 2)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    about: str
    well: bool
    what: str
    """How it is; where it is not well, also what to do."""

    def __str__(self) -> str:
        return f"{'ok   ' if self.well else 'FAULT'}  {self.about:8} {self.what}"


async def examine(settings: Settings) -> list[Finding]:
    """Everything that can be found out without asking anyone outside."""
    return [
        python(),
        await redis(settings),
        await asyncio.to_thread(model, settings),
        await asyncio.to_thread(gpu, settings),
        *slack(settings),
        *discord(settings),
    ]


def python(found: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    here = ".".join(map(str, found))
    if found[:2] < OLDEST_PYTHON:
        return Finding("Python", False, f"{here} is too old: install Python 3.11 or newer")
    return Finding("Python", True, here)


async def redis(settings: Settings) -> Finding:
    try:
        async with open_connection(settings) as connection:
            info = await connection.client.info()
            where = f"at {connection.address}"
    except OperatorError as error:
        return Finding("Redis", False, str(error))
    return judge_redis(info, where)


def judge_redis(info: dict[str, str | int], where: str) -> Finding:
    """By what ``INFO`` says of a server."""
    name = "Valkey" if "valkey_version" in info else "Redis"
    number = str(info.get("valkey_version") or info["redis_version"])
    here = f"{name} {number} {where}"
    if tuple(map(int, str(info["redis_version"]).split(".")[:2])) < OLDEST_REDIS:
        return Finding("Redis", False, f"{here} is too old: 6.2 is the oldest that serves")
    if info.get("role") == "slave":
        return Finding("Redis", False, f"{here} is a replica: give REDIS_URL its primary")
    if info.get("maxmemory_policy", "noeviction") != "noeviction":
        return Finding(
            "Redis", False, f"{here} may throw conversations away: set maxmemory-policy noeviction"
        )
    if not int(info.get("aof_enabled", 1)):
        return Finding("Redis", False, f"{here} forgets at a restart: set appendonly yes")
    return Finding("Redis", True, here)


def model(settings: Settings) -> Finding:
    """Whether the model's files are here; they are not read."""
    if settings.engine == "echo":
        return Finding("model", True, "the echo engine needs none")
    try:
        spec = find_model(settings)
        if spec.source == EMBEDDED:
            directory = model_files.embedded_gguf().parent
        else:
            directory = model_directory(spec, settings, lambda line: None)
            model_files.check_weights(directory)
    except OperatorError as error:
        return Finding("model", False, str(error))
    return Finding("model", True, f"{spec.name} in {directory}")


def gpu(settings: Settings) -> Finding:
    if settings.engine != "torch":
        return Finding("GPU", True, f"the {settings.engine} engine needs none here")
    if find_spec("torch") is None:
        return Finding("GPU", False, "torch is not installed: pip install 'henji[core]'")
    import torch

    here = f"torch {version('torch')}"
    if torch.cuda.is_available():
        name, memory = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0)
        return Finding("GPU", True, f"{here}, {name} with {memory.total_memory / 2**30:.0f} GiB")
    if settings.device.startswith("cuda"):
        return Finding("GPU", False, f"{here} sees no GPU: set HENJI_DEVICE=auto, or its driver up")
    return Finding("GPU", True, f"{here} sees none: small models run well on the processor")


def slack(settings: Settings) -> Iterator[Finding]:
    tokens = (
        ("SLACK_BOT_TOKEN", settings.slack_bot_token, "xoxb-"),
        ("SLACK_APP_TOKEN", settings.slack_app_token, "xapp-"),
    )
    if not any(token for _, token, _ in tokens):
        yield Finding("Slack", True, "no tokens, so no bot there")
        return
    yield from _installed("Slack", "slack_bolt", "slack")
    for name, token, prefix in tokens:
        yield _slack_token(name, token, prefix)


def _slack_token(name: str, token: SecretStr | None, prefix: str) -> Finding:
    if token is None:
        return Finding("Slack", False, f"{name} is missing: your app's pages at Slack show it")
    if not token.get_secret_value().startswith(prefix):
        return Finding("Slack", False, f"{name} does not begin with {prefix}: is it another token?")
    return Finding("Slack", True, f"{name} is set")


def discord(settings: Settings) -> Iterator[Finding]:
    token = settings.discord_bot_token
    if token is None:
        yield Finding("Discord", True, "no token, so no bot there")
        return
    yield from _installed("Discord", "discord", "discord")
    if token.get_secret_value().count(".") != 2:
        yield Finding(
            "Discord",
            False,
            "DISCORD_BOT_TOKEN is not of the form a.b.c: copy it from the Bot page",
        )
    else:
        yield Finding("Discord", True, "DISCORD_BOT_TOKEN is set")


def _installed(about: str, package: str, extra: str) -> Iterator[Finding]:
    if find_spec(package) is None:
        yield Finding(about, False, f"{package} is not installed: pip install 'henji[{extra}]'")
