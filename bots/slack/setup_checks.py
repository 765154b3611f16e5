"""Checks before the start, each with what to click in Slack's settings where it fails."""

from __future__ import annotations

from collections.abc import Sequence

import aiohttp
from slack_sdk.errors import SlackApiError, SlackRequestError
from slack_sdk.web.async_client import AsyncWebClient

from bots.platform import PlatformRefused
from bots.slack.api import error_code
from bots.slack.error_codes import APP, bot_token_sentence, missing_scopes
from bots.slack.manifest import SCOPES
from bots.slack.oauth import ManyWorkspaces
from core.errors import OperatorError, UsageError
from core.settings import Settings

APP_TOKEN_FAULTS = {
    "invalid_auth": "is not a token that Slack knows",
    "not_authed": "is empty",
    "not_allowed_token_type": "is not an app-level token (those begin with xapp-)",
    "token_revoked": "was revoked",
    "missing_scope": "lacks the scope connections:write",
}

CLIENT_FAULTS = {
    "invalid_client_id": "HENJI_SLACK_CLIENT_ID",
    "bad_client_secret": "HENJI_SLACK_CLIENT_SECRET",
}

UNREACHABLE = (aiohttp.ClientError, TimeoutError, OSError, SlackRequestError)
TRANSIENT = frozenset(
    {"", "fatal_error", "internal_error", "ratelimited", "request_timeout", "service_unavailable"}
)
"""Errors on Slack's side; empty where the answer is no JSON."""


def _unreachable(client: AsyncWebClient, error: Exception) -> str:
    why = str(error) or type(error).__name__
    return f"Slack cannot be reached at {client.base_url} ({why}): see to the network, or a proxy"


def _try_later(error: str) -> str:
    return f"Slack does not answer as it should ({error or 'no JSON'}): try again in a while"


def required_tokens(settings: Settings) -> None:
    """UsageError where a setting is missing that this way of running needs."""
    _check_client_settings(settings)
    if settings.slack_http_port is not None:
        if settings.slack_signing_secret is None:
            raise UsageError(
                "SLACK_SIGNING_SECRET is not set: without it nobody can tell Slack's requests from "
                f"forged ones; {APP}: Basic Information > App Credentials > Signing Secret"
            )
        if settings.slack_by_oauth:
            return  # the tokens come with the installations
    elif settings.slack_app_token is None:
        raise UsageError(
            f"SLACK_APP_TOKEN is not set: {APP}: Basic Information > App-Level Tokens > Generate, "
            "with the scope connections:write"
        )
    if settings.slack_bot_token is None:
        raise UsageError(
            f"SLACK_BOT_TOKEN is not set: {APP}: Install App > Bot User OAuth Token (xoxb-)"
        )


def _check_client_settings(settings: Settings) -> None:
    """UsageError where an app for several workspaces is set up by half."""
    given = {
        "HENJI_SLACK_CLIENT_ID": settings.slack_client_id,
        "HENJI_SLACK_CLIENT_SECRET": settings.slack_client_secret,
    }
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == 1:
        raise UsageError(
            f"{missing[0]} is not set, and the other half is: {APP}: Basic Information > App "
            "Credentials"
        )
    if not missing and settings.slack_http_port is None:
        raise UsageError(
            "HENJI_SLACK_HTTP_PORT is not set: an app for several workspaces is reached by HTTP"
        )


async def check_bot_token(client: AsyncWebClient) -> None:
    """OperatorError, one sentence, where the bot token is refused or lacks scopes."""
    try:
        answer = await client.auth_test()
    except UNREACHABLE as error:
        raise OperatorError(_unreachable(client, error)) from error
    except SlackApiError as error:
        name = error_code(error)
        say = _try_later if name in TRANSIENT else bot_token_sentence
        raise OperatorError(say(name)) from error
    granted = {scope.strip() for scope in answer.headers.get("x-oauth-scopes", "").split(",")}
    missing = [scope for scope in SCOPES if scope not in granted]
    if missing and granted != {""}:
        raise OperatorError(missing_scopes(missing))


async def check_app_token(client: AsyncWebClient, token: str) -> None:
    """OperatorError where Socket Mode cannot be opened."""
    try:
        await client.apps_connections_open(app_token=token)
    except UNREACHABLE as error:
        raise OperatorError(_unreachable(client, error)) from error
    except SlackApiError as error:
        raise OperatorError(app_token_sentence(error_code(error))) from error


def app_token_sentence(error: str) -> str:
    """What to do where Slack refuses a Socket Mode connection."""
    if error in APP_TOKEN_FAULTS:
        return (
            f"SLACK_APP_TOKEN {APP_TOKEN_FAULTS[error]}: {APP}: Basic Information > "
            "App-Level Tokens > Generate, with the scope connections:write"
        )
    if error in TRANSIENT:
        return _try_later(error)
    return f"Socket Mode cannot be opened ({error}): {APP}: Socket Mode > Enable Socket Mode"


async def check_client(client: AsyncWebClient, settings: Settings) -> None:
    """OperatorError where the app's id or secret is wrong; asked with an invalid code."""
    secret = settings.slack_client_secret
    try:
        await client.oauth_v2_access(
            client_id=settings.slack_client_id or "",
            client_secret=secret.get_secret_value() if secret else "",
            code="-",
        )
    except UNREACHABLE as error:
        raise OperatorError(_unreachable(client, error)) from error
    except SlackApiError as error:
        name = error_code(error)
        if name in TRANSIENT:
            raise OperatorError(_try_later(name)) from error
        if name in CLIENT_FAULTS:
            raise OperatorError(
                f"{CLIENT_FAULTS[name]} is not that of an app that Slack knows: {APP}: Basic "
                "Information > App Credentials, and copy it anew"
            ) from error


async def revoked(workspaces: ManyWorkspaces) -> Sequence[str]:
    """A sentence for each workspace that uninstalled the app while it was not connected."""
    found = []
    for team in await workspaces.teams():
        try:
            await (await workspaces.client(team)).auth_test()
        except (SlackApiError, PlatformRefused) as error:
            name = error_code(error) if isinstance(error, SlackApiError) else str(error)
            if name not in TRANSIENT:
                found.append(
                    f"the app is not in the workspace {team} any more ({name}): an admin of it "
                    "installs it again at /slack/install of the bot's address"
                )
    return found


async def check(settings: Settings, client: AsyncWebClient) -> None:
    """Run every check, in the order of the setup."""
    required_tokens(settings)
    if settings.slack_http_port is not None and settings.slack_by_oauth:
        await check_client(client, settings)
    elif settings.slack_bot_token is not None:
        await check_bot_token(client)
    if settings.slack_http_port is None and settings.slack_app_token is not None:
        await check_app_token(client, settings.slack_app_token.get_secret_value())
