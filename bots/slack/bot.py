"""The Slack process: its parts, wired together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial

import structlog
from slack_bolt.async_app import AsyncApp
from slack_bolt.oauth.async_oauth_flow import AsyncOAuthFlow
from slack_bolt.oauth.async_oauth_settings import AsyncOAuthSettings
from slack_sdk.web.async_client import AsyncWebClient

from bots.actions import Actions
from bots.guide import Guide
from bots.relay import Relay, RelaySettings
from bots.slack import setup_checks
from bots.slack.api import OneWorkspace, SlackApi, Workspaces, identify, web_client
from bots.slack.backfill import Backfill
from bots.slack.catchup import CatchUp
from bots.slack.context import Context
from bots.slack.http_mode import web_server
from bots.slack.listeners import Listeners, new_app
from bots.slack.manifest import SCOPES
from bots.slack.oauth import States, client_credentials, many_workspaces
from bots.slack.platform import SlackPlatform
from bots.slack.rate_limits import RateLimiter
from bots.slack.settings import SlackSettings
from bots.slack.socket_mode import socket_mode_connection
from bots.slack.users import Users
from core.background import cancel, repeat_forever
from core.ports import Stores

REFRESH_SECONDS = 2.0
"""How often the statuses in threads are refreshed."""
RECOVER_SECONDS = 20.0
"""How often questions of processes that ended are looked for."""


log = structlog.get_logger()


async def serve(
    settings: SlackSettings,
    stores: Stores,
    relay_settings: RelaySettings,
    stop: asyncio.Event,
    limiter: RateLimiter | None = None,
) -> None:
    """Serve Slack until `stop`. OperatorError, one sentence, where Slack refuses the tokens."""
    settings.require()
    async with web_client(settings) as client:
        if better := await setup_checks.check(settings, client):
            log.warning(better)
        flow, workspaces = await _installed(settings, stores, client)
        limiter = limiter or RateLimiter(share=1 / settings.slack_processes)
        context = new_context(settings, stores, relay_settings, workspaces, limiter)
        await _run(settings, stores, context, client, flow, stop)


async def _installed(
    settings: SlackSettings, stores: Stores, client: AsyncWebClient
) -> tuple[AsyncOAuthFlow | None, Workspaces]:
    """One workspace, by the token in the settings; or all that install the app."""
    if settings.slack_http_port is None or not settings.slack_by_oauth:
        return None, OneWorkspace(client, await identify(client))
    many = many_workspaces(settings, stores.secrets, client)
    for sentence in await setup_checks.to_reinstall(many):
        log.error(sentence)
    client_id, client_secret = client_credentials(settings)
    oauth = AsyncOAuthSettings(
        client_id=client_id,
        client_secret=client_secret,
        scopes=SCOPES,
        installation_store=many.installations,
        installation_store_bot_only=True,
        state_store=States(stores.secrets),
    )
    return AsyncOAuthFlow(client=client, settings=oauth), many


def new_context(
    settings: SlackSettings,
    stores: Stores,
    relay_settings: RelaySettings,
    workspaces: Workspaces,
    limiter: RateLimiter,
) -> Context:
    """The objects that the handlers share, with the relay and its platform."""
    api = SlackApi(workspaces, limiter)
    users = Users(workspaces, limiter, settings.locale, settings.slack_admins)
    backfill = Backfill(workspaces, api, users)
    platform = SlackPlatform(
        api, backfill, stores.history, settings.job_lane, streaming=settings.slack_streaming
    )
    relay_settings = replace(relay_settings, strangers=settings.slack_strangers)
    relay = Relay(platform, stores, relay_settings)
    actions = Actions(relay, stores)
    return Context(
        relay=relay,
        actions=actions,
        history=stores.history,
        workspaces=workspaces,
        platform=platform,
        users=users,
        api=api,
        backfill=backfill,
        settings=settings,
        guide=Guide(relay, actions, settings.retention_days),
        second=limiter.minute / 60,
    )


async def _run(
    settings: SlackSettings,
    stores: Stores,
    context: Context,
    client: AsyncWebClient,
    flow: AsyncOAuthFlow | None,
    stop: asyncio.Event,
) -> None:
    secret = settings.slack_signing_secret
    app = new_app(context, client, secret.get_secret_value() if secret else None)
    listeners = Listeners(context, stores.outbox)
    listeners.register(app)
    catch_up = CatchUp(context, listeners.messages, listeners.edits)
    drained = asyncio.Event()
    relay = asyncio.create_task(context.relay.run(drained))
    refresh_statuses = partial(context.platform.refresh_statuses, context.relay.delivers)
    second = context.second
    tending = [
        asyncio.create_task(repeat_forever(refresh_statuses, REFRESH_SECONDS * second)),
        asyncio.create_task(repeat_forever(listeners.questions.recover, RECOVER_SECONDS * second)),
    ]
    try:
        async with _transport(settings, app, flow, catch_up, second):
            log.info("connected to slack", **await context.workspaces.summary())
            context.spawn(catch_up.run())
            await stop.wait()
        await context.close()
    finally:
        drained.set()  # replies under way are finished or handed back
        await relay
        await cancel(*tending)


@contextlib.asynccontextmanager
async def _transport(
    settings: SlackSettings,
    app: AsyncApp,
    flow: AsyncOAuthFlow | None,
    catch_up: CatchUp,
    second: float,
) -> AsyncIterator[None]:
    port, secret = settings.slack_http_port, settings.slack_signing_secret
    if port is not None:
        assert secret is not None  # noqa: S101 -- checked at the door
        async with web_server(app, flow, secret.get_secret_value(), settings.slack_http_host, port):
            yield
        return
    token = settings.slack_app_token
    assert token is not None  # noqa: S101 -- checked at the door
    async with socket_mode_connection(
        app, token.get_secret_value(), catch_up.soon, settings.slack_processes, second
    ):
        yield
