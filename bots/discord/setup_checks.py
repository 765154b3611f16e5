"""Checks before the start, with instructions for the developer portal."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Literal

import aiohttp
import discord
import yarl
from discord.gateway import DiscordWebSocket
from discord.http import Route

from bots.discord.settings import PORTAL, DiscordSettings
from bots.platforms import OpenSecrets
from core.errors import OperatorError, UsageError

WRONG_TOKEN = (
    f"Discord refuses DISCORD_BOT_TOKEN: press Reset Token on the Bot page at {PORTAL}, and set "
    "the new token"
)
NO_INTENT = (
    f"the bot may not read messages: switch on Message Content Intent on the Bot page at {PORTAL}, "
    "or set HENJI_DISCORD_MESSAGE_CONTENT=off (people then mention the bot each time)"
)
"""An error with ``on``, a warning with ``auto``."""
CLOSE_CODES = {
    4004: WRONG_TOKEN,
    4010: "Discord refuses this shard: HENJI_DISCORD_SHARDS must be the same in every process",
    4011: "the bot is in too many servers for so few shards: unset HENJI_DISCORD_SHARDS",
    4012: "Discord no longer speaks this version of its gateway: install a newer henji",
    4013: "Discord does not know an intent that was asked for: install a newer henji",
    4014: NO_INTENT,
}
"""The gateway's close codes after which a retry cannot succeed."""

_SECRET = re.compile(r"(/(?:webhooks|interactions)/\d+/)[^/\s?]+")


@dataclass(frozen=True, slots=True)
class Account:
    """The bot's account on Discord."""

    app: int
    name: str
    reads: bool
    """The Message Content intent is granted."""
    shards: int
    """The number that Discord recommends."""
    warning: str = ""
    """A change that is advised; the bot can start without it."""


def invitation(app: int) -> str:
    """The address at which an admin invites the bot to a server, with the permissions it uses."""
    permissions = discord.Permissions(
        view_channel=True,
        send_messages=True,
        send_messages_in_threads=True,
        create_public_threads=True,
        read_message_history=True,
    )
    return (
        f"https://discord.com/oauth2/authorize?client_id={app}"
        f"&scope=bot+applications.commands&permissions={permissions.value}"
    )


async def examine(settings: DiscordSettings, _: OpenSecrets) -> str:
    """A sentence about a valid setup; OperatorError, with the remedy, for a wrong one."""
    use_server(settings.discord_api_url, settings.discord_gateway_url)
    token = settings.token()
    account = await check_account(token, settings.discord_message_content)
    warning = account.warning or await check_commands(token, settings.discord_guild)
    if warning:
        raise OperatorError(warning)
    return f"the token is that of {account.name}"


async def check_account(token: str, wanted: Literal["auto", "on", "off"] = "auto") -> Account:
    """Log in and read the account; UsageError or OperatorError, one sentence, where it fails."""
    async with logged_in(token) as client:
        try:
            shards, _, _ = await client.http.get_bot_gateway()
        except discord.GatewayNotFound as error:
            raise OperatorError("Discord's gateway cannot be found right now") from error
        app = client.application
        if app is None:
            raise OperatorError("Discord does not say which application the token belongs to")
        granted = app.flags.gateway_message_content or app.flags.gateway_message_content_limited
        if wanted == "on" and not granted:
            raise UsageError(NO_INTENT)
        warning = "" if granted or wanted == "off" else NO_INTENT
        return Account(app.id, app.name, granted and wanted != "off", shards, warning)


async def check_commands(token: str, guild: int | None) -> str:
    """A sentence on why the commands cannot be registered; empty if they can."""
    async with logged_in(token) as client:
        app = client.application_id or 0
        try:
            if guild is None:
                await client.http.get_global_commands(app)
            else:
                await client.http.get_guild_commands(app, guild)
        except discord.HTTPException:
            return commands_refused(app, guild)
    return ""


def commands_refused(app: int, guild: int | None) -> str:
    """Instructions for when the commands cannot be registered."""
    where = f" in the server HENJI_DISCORD_GUILD={guild}" if guild else ""
    also = ", or set the id of another server" if guild else ""
    return (
        f"the commands cannot be registered{where}: on the Installation page at {PORTAL}, allow "
        "Guild Install with the scopes bot and applications.commands, and invite the bot again at "
        f"{invitation(app)}{also}"
    )


@contextlib.asynccontextmanager
async def logged_in(token: str) -> AsyncIterator[discord.Client]:
    """A client for requests, without a gateway connection."""
    silence_logs()
    client = discord.Client(intents=discord.Intents(guilds=True))
    try:
        with explained_errors():
            await client.login(token)
        yield client
    finally:
        await client.close()


@contextlib.contextmanager
def explained_errors() -> Iterator[None]:
    """Turn discord.py's errors at the start into sentences for the operator."""
    try:
        yield
    except discord.LoginFailure as error:
        raise UsageError(WRONG_TOKEN) from error
    except discord.PrivilegedIntentsRequired as error:
        raise UsageError(NO_INTENT) from error
    except discord.ConnectionClosed as error:
        sentence = CLOSE_CODES.get(error.code, f"Discord closed the connection ({error.code})")
        raise OperatorError(sentence) from error
    except (discord.HTTPException, aiohttp.ClientError, OSError) as error:
        raise OperatorError(f"Discord cannot be reached at {Route.BASE}: {error}") from error


def use_server(api: str | None, gateway: str | None) -> None:
    """Use a proxy or a test server instead of Discord's own, in the whole process."""
    if api:
        Route.BASE = api.rstrip("/")
    if gateway:
        DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(gateway)


class TokenFilter(logging.Filter):
    """Removes interaction tokens, which are part of addresses, from discord.py's log."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = _SECRET.sub(r"\1…", record.getMessage()), ()
        return True


def silence_logs() -> None:
    """Keep content and tokens out of the log: discord.py logs both at level DEBUG."""
    above = logging.getLogger("discord")
    above.setLevel(max(above.getEffectiveLevel(), logging.INFO))
    discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False
    for name in ("discord.http", "discord.webhook.async_"):
        logger = logging.getLogger(name)
        if not any(isinstance(known, TokenFilter) for known in logger.filters):
            logger.addFilter(TokenFilter())
