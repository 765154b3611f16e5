"""The Discord adapter under load, against the local Discord that holds Discord's rate limits.

Conversations begin all at once, half by /ask and half by a mention that opens a thread, with the
echo engine writing at a model's pace. Core and adapter are processes of their own; Discord and all
its people are this one. The memory is that of the adapter's process, with one guild and with many.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from redis.asyncio import Redis

from bots.discord import bot, setup_checks
from bots.discord.shards import ShardPlan
from bots.processes import freeze_loaded
from bots.relay import RelaySettings
from bots.strings import say
from core.dialogue import Dialogue
from core.engine.echo import EchoEngine
from core.models.catalogue import CATALOGUE
from core.worker import Worker, WorkerSettings
from tests.benchmarks.server import plain_server
from tests.local_discord import payloads as p
from tests.local_discord.deployment import LANE, DiscordDeployment, bot_settings
from tests.local_discord.server import TOKEN, LocalDiscord
from tests.open_access import EVERYBODY, OPEN_RULES
from tests.store_fixture import StoreFixture

WORDS = "、".join(f"{number}番目の言葉" for number in range(20))
CLIENT: dict[str, Any] = {
    "decode_responses": True,
    "socket_timeout": None,
    "max_connections": 2_000,
}
CHANNELS_A_GUILD, ROLES_A_GUILD = 20, 10


@dataclass(frozen=True, slots=True)
class Load:
    """What came of one run. Times in seconds."""

    defers: Sequence[float]
    signs: Sequence[float]
    """Until something of a mention's reply was to be seen."""
    replies: Sequence[float]
    """Until the whole reply stood there."""
    edits: int
    throttled: int
    faults: int
    seconds: float


async def under_load(url: str, conversations: int, pace: float) -> Load:
    async with LocalDiscord() as discord:
        general = [discord.add_channel(discord.add_guild()) for _ in range(20)]
        core = await _process("--be-core", url, str(pace))
        bot = await _process("--be-adapter", discord.api_url, discord.gateway_url, url)
        try:
            await _warmed_up(discord, general)
            began = time.monotonic()
            talks = [
                _asks(discord, _person(number), general[number % 20])
                if number % 2
                else _mentions(discord, _person(number), general[number % 20])
                for number in range(conversations)
            ]
            results = await asyncio.gather(*talks)
            return _load(discord, results, time.monotonic() - began)
        finally:
            await _ended(core, bot)


async def _warmed_up(discord: LocalDiscord, channels: Sequence[str]) -> None:
    """One conversation has gone through before the clock starts."""
    await discord.until(lambda: discord.gateway.identified, seconds=60)
    said = await discord.says(_person(999), channels[0], "<@bot> hello")
    core_is_missing = say("no_core", "en")
    await discord.until(lambda: discord.replies(said["id"]), seconds=60)
    while core_is_missing in discord.replies(said["id"])[-1]["content"]:
        seen = len(discord.replies(said["id"]))
        # somebody else: a person is told only once in a while that there is no core
        await discord.says(_person(999 + seen), said["id"], "<@bot> hello")
        await discord.until(partial(_more_than, discord, said["id"], seen), seconds=60)


def _more_than(discord: LocalDiscord, channel: str, seen: int) -> bool:
    return len(discord.replies(channel)) > seen


async def _process(*words: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.benchmarks.discord", *words
    )


async def _ended(*processes: asyncio.subprocess.Process) -> None:
    for process in processes:
        process.terminate()
        await process.wait()


def _load(discord: LocalDiscord, results: Sequence[Any], seconds: float) -> Load:
    requests = discord.rest.requests
    return Load(
        defers=[first for kind, first, _ in results if kind == "ask"],
        signs=[first for kind, first, _ in results if kind == "mention"],
        replies=[whole for _, _, whole in results],
        edits=sum(r.method == "PATCH" and r.status == 200 for r in requests),
        throttled=len(discord.throttled()),
        faults=len(discord.faults),
        seconds=seconds,
    )


async def _asks(
    discord: LocalDiscord, person: p.Payload, channel: str, words: str = WORDS
) -> tuple[str, float, float]:
    began = time.monotonic()
    used = await discord.uses(person, channel, "ask", {"prompt": words})
    where = discord.world.messages.setdefault(channel, {})
    await discord.until(
        lambda: where.get(used.original, {}).get("content") == f"echo: {words}", seconds=120
    )
    return "ask", used.acknowledged_after, time.monotonic() - began


async def _mentions(
    discord: LocalDiscord, person: p.Payload, channel: str
) -> tuple[str, float, float]:
    began = time.monotonic()
    said = await discord.says(person, channel, f"<@bot> {WORDS}")
    await discord.until(lambda: discord.replies(said["id"]), seconds=120)
    first = time.monotonic() - began
    await discord.until(
        lambda: discord.replies(said["id"])[0]["content"] == f"echo: {WORDS}", seconds=120
    )
    return "mention", first, time.monotonic() - began


def _person(number: int) -> p.Payload:
    return p.user(str(700_000_000_000_000_000 + number), f"Person {number}")


# -- memory -------------------------------------------------------------------------------------


async def memory_with(url: str, guilds: int) -> float:
    """MiB that an adapter's process takes, connected and with this many guilds."""
    async with Redis.from_url(url) as redis:
        await redis.flushall()
    async with LocalDiscord() as discord:
        for _ in range(guilds):
            _a_guild(discord)
        process = await _process("--be-adapter", discord.api_url, discord.gateway_url, url)
        try:
            await discord.until(lambda: discord.gateway.identified, seconds=60)
            await _last_is_heard(discord)
            return await _resident(process.pid)
        finally:
            await _ended(process)


async def _resident(pid: int) -> float:
    """MiB of a process in memory, as `ps` says."""
    asked = await asyncio.create_subprocess_exec(
        "ps", "-o", "rss=", "-p", str(pid), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await asked.communicate()
    return int(said) / 1024


async def _last_is_heard(discord: LocalDiscord) -> None:
    """A message behind all guilds has been read: the guilds have, then."""
    direct = discord.add_direct(_person(0))
    await discord.says(_person(0), direct, "hello")
    await discord.until(lambda: discord.replies(direct), seconds=60)


def _a_guild(discord: LocalDiscord) -> None:
    guild = discord.add_guild()
    for number in range(CHANNELS_A_GUILD):
        discord.add_channel(guild, f"channel-{number}")
    roles = [p.role(p.snowflake(), f"role {number}") for number in range(ROLES_A_GUILD)]
    discord.world.guilds[guild]["roles"] = roles


async def be_adapter(api: str, gateway: str, url: str) -> None:
    """The adapter alone, for its memory to be measured."""
    setup_checks.use_server(api, gateway)
    seen = await setup_checks.check_account(TOKEN)
    async with Redis.from_url(url, **CLIENT) as redis:
        stores = DiscordDeployment(None, StoreFixture.over(redis)).process_stores()  # type: ignore[arg-type]  # no Discord
        plan, relay = (
            ShardPlan(1, 1, "bench"),
            RelaySettings(lane=LANE, holder="bench", access=EVERYBODY),
        )
        freeze_loaded()  # as `henji discord` does
        await bot.run(bot_settings(), seen, stores, relay, plan, asyncio.Event())


async def be_core(url: str, pace: float) -> None:
    """A core with the echo engine."""
    async with Redis.from_url(url, **CLIENT) as redis:
        stores = StoreFixture.over(redis)
        dialogue = Dialogue.load(CATALOGUE["echo"], None)
        process_settings = WorkerSettings(lane=LANE, name="bench")
        worker = Worker(
            stores.queue,
            stores.history,
            EchoEngine(pace),
            dialogue,
            process_settings,
            rulebook=OPEN_RULES,
        )
        await worker.run(asyncio.Event())


# -- the command --------------------------------------------------------------------------------


def percentile(values: Sequence[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def report(load: Load, conversations: int, empty: float, full: float, guilds: int) -> str:
    def line(name: str, values: Sequence[float]) -> str:
        figures = (percentile(values, part) for part in (0.5, 0.95, 0.99))
        return name.ljust(28) + "  ".join(f"{figure:7.3f}" for figure in figures)

    return "\n".join(
        [
            f"{conversations} conversations at once, {load.seconds:.1f} s in all",
            "seconds".ljust(28) + "      p50      p95      p99",
            line("/ask acknowledged", load.defers),
            line("a mention's first text", load.signs),
            line("the whole reply", load.replies),
            f"edits: {load.edits}, answers 429: {load.throttled}, rules broken: {load.faults}",
            f"memory: {empty:.0f} MiB with 1 guild, {full:.0f} MiB with {guilds} "
            f"({CHANNELS_A_GUILD} channels and {ROLES_A_GUILD} roles each)",
        ]
    )


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="henji bench discord", description=__doc__)
    parser.add_argument("--conversations", type=int, default=200)
    parser.add_argument("--tokens-per-second", type=float, default=30.0)
    parser.add_argument("--guilds", type=int, default=1000)
    parser.add_argument("--be-adapter", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--be-core", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    logging.getLogger("discord").setLevel(logging.ERROR)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    if options.be_adapter:
        asyncio.run(be_adapter(*options.be_adapter))
        return
    if options.be_core:
        url, pace = options.be_core
        asyncio.run(be_core(url, float(pace)))
        return
    with plain_server() as url:
        load = asyncio.run(under_load(url, options.conversations, options.tokens_per_second))
        empty, full = (asyncio.run(memory_with(url, guilds)) for guilds in (1, options.guilds))
    sys.stdout.write(report(load, options.conversations, empty, full, options.guilds) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
