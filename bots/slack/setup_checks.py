"""Checks before the start, each with what to click in Slack's settings where it fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import aiohttp
from slack_sdk.errors import SlackApiError, SlackRequestError
from slack_sdk.web.async_client import AsyncWebClient

from bots.platform import PlatformRefused
from bots.platforms import OpenSecrets
from bots.slack.api import error_code, web_client
from bots.slack.error_codes import bot_token_sentence, missing_scopes
from bots.slack.manifest import LATER_SCOPES, SCOPES
from bots.slack.oauth import ManyWorkspaces, many_workspaces
from bots.slack.settings import APP, SlackSettings
from core.errors import OperatorError

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

HELLO_SECONDS = 5.0

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


async def check_bot_token(client: AsyncWebClient) -> str:
    """OperatorError, one sentence, where the bot token is refused or lacks scopes.

    Returns a sentence where it lacks scopes that only some places need, else "".
    """
    try:
        answer = await client.auth_test()
    except UNREACHABLE as error:
        raise OperatorError(_unreachable(client, error)) from error
    except SlackApiError as error:
        name = error_code(error)
        say = _try_later if name in TRANSIENT else bot_token_sentence
        raise OperatorError(say(name)) from error
    missing = _not_granted(answer.headers)
    if set(missing) - LATER_SCOPES.keys():
        raise OperatorError(missing_scopes(missing))
    without = [LATER_SCOPES[scope] for scope in missing]
    return f"{' and '.join(without)}: {missing_scopes(missing)}" if missing else ""


def _not_granted(headers: Mapping[str, str]) -> Sequence[str]:
    granted = {scope.strip() for scope in headers.get("x-oauth-scopes", "").split(",")}
    return [scope for scope in SCOPES if scope not in granted] if granted != {""} else []


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


async def check_client(client: AsyncWebClient, settings: SlackSettings) -> None:
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
                "Information > App Credentials, and copy it again"
            ) from error


async def to_reinstall(workspaces: ManyWorkspaces) -> Sequence[str]:
    """A sentence for each workspace that uninstalled the app while it was not connected, or that
    installed it before it asked for all its scopes."""
    found = []
    for team in await workspaces.teams():
        try:
            answer = await (await workspaces.client(team)).auth_test()
            if missing := _not_granted(answer.headers):
                found.append(
                    f"the app lacks {', '.join(missing)} in the workspace {team}: an admin of it "
                    "installs it again at /slack/install of the bot's address"
                )
        except (SlackApiError, PlatformRefused) as error:
            name = error_code(error) if isinstance(error, SlackApiError) else str(error)
            if name not in TRANSIENT:
                found.append(
                    f"the app is not in the workspace {team} any more ({name}): an admin of it "
                    "installs it again at /slack/install of the bot's address"
                )
    return found


async def other_connections(client: AsyncWebClient, token: str) -> int:
    """How many processes are connected with the app token.

    This connects for a moment; an event that Slack sends here meanwhile is delivered again.
    """
    answer = await client.apps_connections_open(app_token=token)
    assert client.session is not None  # noqa: S101 -- `web_client` gave it one
    async with client.session.ws_connect(str(answer["url"])) as socket:
        hello = await socket.receive_json(timeout=HELLO_SECONDS)
    return int(hello.get("num_connections") or 1) - 1


async def _check_connections(settings: SlackSettings, client: AsyncWebClient) -> str:
    """How many processes are connected; OperatorError where they are more than the settings say."""
    if settings.slack_http_port is not None or settings.slack_app_token is None:
        return ""
    others = await other_connections(client, settings.slack_app_token.get_secret_value())
    if others > settings.slack_processes:
        raise OperatorError(
            f"{others} processes are connected with SLACK_APP_TOKEN, and HENJI_SLACK_PROCESSES is "
            f"{settings.slack_processes}: each gets only a part of the events; stop the others, or "
            "let all share one Redis and set their number"
        )
    return f"; {others} connected" if others else ""


async def examine(settings: SlackSettings, open_secrets: OpenSecrets) -> str:
    """A sentence about valid tokens; OperatorError, with what to do, where something is wrong."""
    async with web_client(settings) as client:
        better = await check(settings, client)
        if settings.slack_by_oauth:
            async with open_secrets() as secrets:
                many = many_workspaces(settings, secrets, client)
                if sentences := await to_reinstall(many):
                    raise OperatorError("; ".join(sentences))
        connected = await _check_connections(settings, client)
    valid = f"the tokens are good at {settings.slack_api_url}{connected}"
    return f"{valid}; {better}" if better else valid


async def check(settings: SlackSettings, client: AsyncWebClient) -> str:
    """Run every check, in the order of the setup. Returns what could be better, else ""."""
    settings.require()
    better = ""
    if settings.slack_http_port is not None and settings.slack_by_oauth:
        await check_client(client, settings)
    elif settings.slack_bot_token is not None:
        better = await check_bot_token(client)
    if settings.slack_http_port is None and settings.slack_app_token is not None:
        await check_app_token(client, settings.slack_app_token.get_secret_value())
    return better
