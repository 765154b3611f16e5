"""The Discord process: everything wired together, until it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

import discord
import structlog

from bots.actions import Actions
from bots.discord.client import HenjiClient
from bots.discord.context import Behaviour, Context
from bots.discord.platform import DiscordPlatform
from bots.discord.rate_limits import RateLimiter
from bots.discord.settings import DiscordSettings
from bots.discord.setup_checks import (
    WRONG_TOKEN,
    Account,
    check_account,
    explained_errors,
    invitation,
    silence_logs,
    use_server,
)
from bots.discord.shards import ShardPlan, Shards
from bots.guide import Guide
from bots.relay import Relay, RelaySettings
from bots.summaries import Summarizer
from core.errors import OperatorError
from core.ports import Stores
from core.types import ThreadKey

log = structlog.get_logger()


def new_context(
    client: discord.Client,
    limiter: RateLimiter,
    stores: Stores,
    behaviour: Behaviour,
    relay_settings: RelaySettings,
    clock: Callable[[], float] = time.time,
) -> Context:
    """The context of one process. `client` sends the requests; tokens expire by `clock`."""

    async def stop(thread: ThreadKey, job: str) -> bool:
        return await stores.queue.cancel(thread, job)

    platform = DiscordPlatform(client, limiter, stop, stores.history.takes_part, clock)
    relay = Relay(platform, stores.queue, stores.history, stores.deliveries, relay_settings)
    actions = Actions(relay, stores)
    return Context(
        behaviour,
        relay,
        actions,
        platform,
        stores.queue,
        stores.history,
        stores.deliveries,
        platform.api,
        Summarizer(relay, actions, stores.history),
        Guide(relay, actions, behaviour.retention_days),
    )


async def serve(
    settings: DiscordSettings, stores: Stores, relay_settings: RelaySettings, stop: asyncio.Event
) -> None:
    """Serve Discord until `stop` is set; UsageError or OperatorError where Discord refuses."""
    token = settings.token()
    use_server(settings.discord_api_url, settings.discord_gateway_url)
    account = await check_account(token, settings.discord_message_content)
    log.info("discord", name=account.name, reads=account.reads, invite=invitation(account.app))
    if account.warning:
        log.warning(account.warning)
    plan = shard_plan(settings, account, relay_settings.holder)
    behaviour = behaviour_of(settings, account)
    await run(token, account, stores, behaviour, relay_settings, plan, stop)


def shard_plan(settings: DiscordSettings, account: Account, holder: str) -> ShardPlan:
    """As many shards as the settings say, or as Discord recommends."""
    count = settings.discord_shards or account.shards
    return ShardPlan(count, settings.discord_most_shards or count, holder)


def behaviour_of(settings: DiscordSettings, account: Account) -> Behaviour:
    """How the bot behaves, from the settings and from what Discord grants."""
    return Behaviour(
        model=settings.job_lane,
        answers=settings.discord_answers,
        followups=settings.discord_followups,
        reads=account.reads,
        locale=settings.locale,
        retention_days=settings.retention_days,
        roles=frozenset(map(int, settings.discord_roles)),
        guild=settings.discord_guild,
    )


async def run(
    token: str,
    account: Account,
    stores: Stores,
    behaviour: Behaviour,
    relay_settings: RelaySettings,
    plan: ShardPlan,
    stop: asyncio.Event,
) -> None:
    """Serve Discord until `stop` is set; OperatorError, one sentence, where Discord refuses."""
    silence_logs()
    limiter = RateLimiter()
    sender = HenjiClient(limiter, reads=account.reads)
    sender.registers = False
    context = new_context(sender, limiter, stores, behaviour, relay_settings)

    def connect(shard: int) -> HenjiClient:
        client = HenjiClient(limiter, reads=account.reads, shard=shard, shards=plan.count)
        client.serve(context)
        return client

    shards = Shards(plan, stores.leases, token, connect)
    try:
        with explained_errors():
            await sender.login(token)
        await _until(stop, context, shards)
    finally:
        await context.platform.close()
        await sender.close()


async def _until(stop: asyncio.Event, context: Context, shards: Shards) -> None:
    """Close the connections first, so that nothing new comes in, and drain the relay then."""
    delivered = asyncio.Event()
    relaying = asyncio.create_task(context.relay.run(delivered), name="relay")
    serving = asyncio.create_task(shards.run(), name="shards")
    told = asyncio.create_task(stop.wait(), name="until told to stop")
    revoked = asyncio.create_task(context.api.revoked.wait(), name="until the token is revoked")
    try:
        await asyncio.wait({relaying, serving, told, revoked}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        told.cancel()
        revoked.cancel()
        serving.cancel()
        ended = await asyncio.gather(serving, return_exceptions=True)
        delivered.set()
        with contextlib.suppress(asyncio.CancelledError):
            await relaying
    if context.api.revoked.is_set():
        raise OperatorError(WRONG_TOKEN)
    for error in ended:
        if isinstance(error, BaseExceptionGroup):
            raise error.exceptions[0]
