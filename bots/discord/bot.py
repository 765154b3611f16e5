"""The Discord adapter of one process: built here, and run until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import discord
import structlog

from bots.discord.api import Rest
from bots.discord.client import HenjiClient
from bots.discord.context import Desk, Terms
from bots.discord.platform import DiscordPlatform
from bots.discord.rate_limits import Pace
from bots.discord.settings import DiscordSettings
from bots.discord.setup_checks import (
    Portal,
    faults_told,
    hush,
    invitation,
    look,
    point_at,
)
from bots.discord.shards import Plan, Shards
from bots.relay import Relay, RelaySettings
from core.ports import Deliveries, Feedback, History, JobQueue, Leases
from core.types import ThreadKey

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Stores:
    """What the adapter remembers with."""

    queue: JobQueue
    history: History
    deliveries: Deliveries
    leases: Leases
    feedback: Feedback


def build(
    client: discord.Client,
    pace: Pace,
    stores: Stores,
    terms: Terms,
    relay_terms: RelaySettings,
    clock: Callable[[], float] = time.time,
) -> Desk:
    """Platform, relay and desk of one process; `client` is the one that speaks.

    `clock` is Discord's: by it, tokens end.
    """

    async def stop(thread: ThreadKey, job: str) -> bool:
        return await stores.queue.cancel(thread, job)

    platform = DiscordPlatform(client, pace, stop, clock)
    relay = Relay(platform, stores.queue, stores.history, stores.deliveries, relay_terms)
    return Desk(
        terms,
        relay,
        platform,
        stores.queue,
        stores.history,
        stores.deliveries,
        stores.feedback,
        Rest(client, pace),
    )


async def serve(
    settings: DiscordSettings, stores: Stores, terms: RelaySettings, stop: asyncio.Event
) -> None:
    """Serve Discord until `stop` is set; UsageError or OperatorError where it will not have us."""
    token = settings.token()
    point_at(settings.discord_api_url, settings.discord_gateway_url)
    portal = await look(token, settings.discord_message_content)
    log.info("discord", name=portal.name, reads=portal.reads, invite=invitation(portal.app))
    if portal.fault:
        log.warning(portal.fault)
    plan = plan_of(settings, portal, terms.holder)
    await run(token, portal, stores, terms_of(settings, portal), terms, plan, stop)


def plan_of(settings: DiscordSettings, portal: Portal, holder: str) -> Plan:
    """As many shards as the settings say, or as Discord recommends."""
    count = settings.discord_shards or portal.shards
    return Plan(count, settings.discord_most_shards or count, holder)


def terms_of(settings: DiscordSettings, portal: Portal) -> Terms:
    """How the bot behaves, from the settings and from what Discord grants."""
    return Terms(
        lane=settings.job_lane,
        model=settings.job_lane,
        answers=settings.discord_answers,
        followups=settings.discord_followups,
        reads=portal.reads,
        locale=settings.locale,
        retention_days=settings.retention_days,
        guild=settings.discord_guild,
    )


async def run(
    token: str,
    portal: Portal,
    stores: Stores,
    terms: Terms,
    relay_terms: RelaySettings,
    plan: Plan,
    stop: asyncio.Event,
) -> None:
    """Serve Discord until `stop` is set; OperatorError, one sentence, where it will not have us."""
    hush()
    pace = Pace()
    speaker = HenjiClient(pace, reads=portal.reads)
    speaker.registers = False
    desk = build(speaker, pace, stores, terms, relay_terms)

    def connect(shard: int) -> HenjiClient:
        client = HenjiClient(pace, reads=portal.reads, shard=shard, shards=plan.count)
        client.serve(desk)
        return client

    shards = Shards(plan, stores.leases, token, connect)
    try:
        with faults_told():
            await speaker.login(token)
        await _until(stop, desk, shards)
    finally:
        await desk.platform.close()
        await speaker.close()


async def _until(stop: asyncio.Event, desk: Desk, shards: Shards) -> None:
    """The connections end first, so that nothing new comes in; the relay drains then."""
    delivered = asyncio.Event()
    relaying = asyncio.create_task(desk.relay.run(delivered), name="relay")
    serving = asyncio.create_task(shards.run(), name="shards")
    told = asyncio.create_task(stop.wait(), name="until told to stop")
    try:
        await asyncio.wait({relaying, serving, told}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        told.cancel()
        serving.cancel()
        ended = await asyncio.gather(serving, return_exceptions=True)
        delivered.set()
        with contextlib.suppress(asyncio.CancelledError):
            await relaying
    for error in ended:
        if isinstance(error, BaseExceptionGroup):
            raise error.exceptions[0]
