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
from bots.discord.context import Context
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

log = structlog.get_logger()


def new_context(
    client: discord.Client,
    limiter: RateLimiter,
    stores: Stores,
    settings: DiscordSettings,
    relay_settings: RelaySettings,
    clock: Callable[[], float] = time.time,
    *,
    reads: bool,
) -> Context:
    """The context of one process. `client` sends the requests; tokens expire by `clock`; `reads`:
    the Message Content intent is granted."""
    stop, takes_part = stores.queue.cancel, stores.history.takes_part
    platform = DiscordPlatform(client, limiter, stop, takes_part, clock)
    relay = Relay(platform, stores, relay_settings)
    actions = Actions(relay, stores)
    return Context(
        settings,
        reads,
        relay,
        actions,
        platform,
        stores,
        platform.api,
        Summarizer(relay, actions, stores.history),
        Guide(relay, actions, settings.retention_days),
    )


async def serve(
    settings: DiscordSettings, stores: Stores, relay_settings: RelaySettings, stop: asyncio.Event
) -> None:
    """Serve Discord until `stop` is set; UsageError or OperatorError where Discord refuses."""
    use_server(settings.discord_api_url, settings.discord_gateway_url)
    account = await check_account(settings.token(), settings.discord_message_content)
    log.info("discord", name=account.name, reads=account.reads, invite=invitation(account.app))
    if account.warning:
        log.warning(account.warning)
    plan = shard_plan(settings, account, relay_settings.holder)
    await run(settings, account, stores, relay_settings, plan, stop)


def shard_plan(settings: DiscordSettings, account: Account, holder: str) -> ShardPlan:
    """As many shards as the settings say, or as Discord recommends."""
    count = settings.discord_shards or account.shards
    return ShardPlan(count, settings.discord_most_shards or count, holder)


async def run(
    settings: DiscordSettings,
    account: Account,
    stores: Stores,
    relay_settings: RelaySettings,
    plan: ShardPlan,
    stop: asyncio.Event,
) -> None:
    """Serve Discord until `stop` is set; OperatorError, one sentence, where Discord refuses."""
    silence_logs()
    token = settings.token()
    limiter = RateLimiter()
    sender = HenjiClient(limiter, reads=account.reads)
    sender.registers = False
    context = new_context(sender, limiter, stores, settings, relay_settings, reads=account.reads)

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
