"""Fixtures for every test: above all a real Valkey, started and stopped by the session."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings
from redis.asyncio import Redis

from bots.cli import commands
from storage import keys
from tests import optional  # noqa: F401 - it reads the environment before it is emptied
from tests.local_discord import openapi  # noqa: F401 - as does this
from tests.processes import Here, Ran

pytest_plugins = ["tests.local_discord.fixtures"]

FOREIGN = ("HENJI_", "SLACK_", "DISCORD_", "REDIS_URL")

# No test may see the developer's own token, henji.toml or Redis with conversations: they are
# removed before any test reads the environment.
for name in list(os.environ):
    if name.startswith(FOREIGN):
        del os.environ[name]
os.environ["HENJI_CONFIG"] = os.devnull

PATTERNS = "|".join(
    entry.pattern.replace("%s", ".+", 1).replace("%s", ".*") for entry in keys.TABLE
)
NAMES = re.compile(rf"henji:\{{\d+}}:({PATTERNS})", re.DOTALL)
"""The names that keys of ours may have."""
SWEPT = re.compile(
    r"henji:\{\d+\}:(leases|delayed|deadlines|open|arrivals|threads|resets|marks|dead|purges|duels"
    r"|optouts|salt|news:.+|deliveries:.+)"
)
"""Keys whose lifetime is renewed by the sweep and by the platforms' calls for work alone."""

# The processes of a test run share Numba's cache, so that each kernel is compiled once.
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "numba"))

# Drawing a traceback with all its locals takes a second, and some tests log dozens.
structlog.dev.ConsoleRenderer.get_active().exception_formatter = structlog.dev.plain_traceback

# The time of an example means nothing on a machine with other work.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


def pytest_addoption(parser: pytest.Parser) -> None:
    """How much chaos, and which seed to play again."""
    group = parser.getgroup("chaos")
    group.addoption("--schedules", type=int, help="how many chaos schedules to run, of each kind")
    group.addoption("--seed", type=int, help="begin with this chaos schedule")


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    """A data directory of the session's own, also that of the processes it starts."""
    with tempfile.TemporaryDirectory(prefix="henji-tests-", ignore_cleanup_errors=True) as folder:
        os.environ["HENJI_DATA_DIR"] = folder
        yield Path(folder)


@pytest.fixture(scope="session")
def redis_url(home: Path) -> Iterator[str]:
    """The URL of the session's server, for processes that a test starts."""
    if url := os.environ.get("MUTANTS_REDIS_URL"):  # a fork holds it, at less cost
        yield url
        return
    with subprocess.Popen(
        [sys.executable, "-m", "tests.session_server", str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
        start_new_session=True,  # Ctrl-C ends the session first
    ) as holder:
        assert holder.stdout is not None
        url = holder.stdout.readline().strip()
        assert url, "the session's server does not start"
        yield url
        holder.communicate()


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client of the session's server, which is empty: text comes back as `str`."""
    async with Redis.from_url(redis_url, decode_responses=True, socket_timeout=None) as client:
        await client.flushall()
        usual = await client.config_get("maxmemory")
        yield client
        await client.config_set("maxmemory", usual["maxmemory"] or "0")  # a test may fill it
        names = [name async for name in client.scan_iter("henji:*", count=1000)]
        assert all(map(NAMES.fullmatch, names)), "a key lacks a part of its name"
        async with client.pipeline(transaction=False) as calls:
            for name in names:
                calls.ttl(name)
            lives = await calls.execute()
        endless = [name for name, life in zip(names, lives, strict=True) if life == -1]
        assert all(map(SWEPT.fullmatch, endless)), "a key has no lifetime"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """Runs a henji command in this process: for commands that end early."""

    def run(*words: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["henji", *words])
        status = commands.run()
        captured = capsys.readouterr()
        return Ran(status, captured.out, captured.err)

    return run


@pytest.fixture(autouse=True)
def unchanged_logging() -> Iterator[None]:
    """A command that a test runs in this process sets up logging for itself alone."""
    loggers = [logging.getLogger(package) for package in ("core", "storage", "bots")]
    levels = [logger.level for logger in loggers]
    root = logging.getLogger()
    before = root.handlers[:], root.level, logging.raiseExceptions
    yield
    root.handlers[:], root.level, logging.raiseExceptions = before
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    structlog.reset_defaults()
