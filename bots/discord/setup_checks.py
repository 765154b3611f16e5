"""What can be wrong with a bot's account, and where in the developer portal to put it right."""

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
from bots.platforms import OpenVault
from core.errors import OperatorError, UsageError

WRONG_TOKEN = (
    f"Discord refuses DISCORD_BOT_TOKEN: press Reset Token on the Bot page at {PORTAL}, and set "
    "the new token"
)
NO_INTENT = (
    f"the bot may not read messages: switch on Message Content Intent on the Bot page at {PORTAL}, "
    "or set HENJI_DISCORD_MESSAGE_CONTENT=off (people then mention the bot each time)"
)
"""With ``on`` the bot does not start so; with ``auto`` it does, and says it."""
CLOSED = {
    4004: WRONG_TOKEN,
    4010: "Discord refuses this shard: HENJI_DISCORD_SHARDS must be the same in every process",
    4011: "the bot is in too many servers for so few shards: unset HENJI_DISCORD_SHARDS",
    4012: "Discord no longer speaks this version of its gateway: install a newer henji",
    4013: "Discord does not know an intent that was asked for: install a newer henji",
    4014: NO_INTENT,
}
"""The gateway's close codes after which no second try will do."""

_SECRET = re.compile(r"(/(?:webhooks|interactions)/\d+/)[^/\s?]+")


@dataclass(frozen=True, slots=True)
class Portal:
    """What Discord says about the bot's account."""

    app: int
    name: str
    reads: bool
    """The Message Content intent is granted."""
    shards: int
    """How many Discord recommends."""
    fault: str = ""
    """What to change, where the bot can do without."""


def invitation(app: int) -> str:
    """The address at which an admin brings the bot into a server, with the rights that it uses."""
    rights = discord.Permissions(
        view_channel=True,
        send_messages=True,
        send_messages_in_threads=True,
        create_public_threads=True,
        read_message_history=True,
    )
    return (
        f"https://discord.com/oauth2/authorize?client_id={app}"
        f"&scope=bot+applications.commands&permissions={rights.value}"
    )


async def examine(settings: DiscordSettings, _: OpenVault) -> str:
    """What is well about the token; OperatorError, with what to do, where something is wrong."""
    point_at(settings.discord_api_url, settings.discord_gateway_url)
    token = settings.token()
    found = await look(token, settings.discord_message_content)
    fault = found.fault or await look_at_commands(token, settings.discord_guild)
    if fault:
        raise OperatorError(fault)
    return f"the token is that of {found.name}"


async def look(token: str, wish: Literal["auto", "on", "off"] = "auto") -> Portal:
    """Log in and ask; UsageError or OperatorError, one sentence, where something is wrong."""
    async with logged_in(token) as client:
        try:
            shards, _, _ = await client.http.get_bot_gateway()
        except discord.GatewayNotFound as error:
            raise OperatorError("Discord's gateway cannot be found right now") from error
        app = client.application
        if app is None:
            raise OperatorError("Discord does not say which application the token belongs to")
        granted = app.flags.gateway_message_content or app.flags.gateway_message_content_limited
        if wish == "on" and not granted:
            raise UsageError(NO_INTENT)
        fault = "" if granted or wish == "off" else NO_INTENT
        return Portal(app.id, app.name, granted and wish != "off", shards, fault)


async def look_at_commands(token: str, guild: int | None) -> str:
    """The sentence that says why the commands cannot be registered, or none."""
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
    """What to do where the commands cannot be registered."""
    where = f" in the server HENJI_DISCORD_GUILD={guild}" if guild else ""
    also = ", or set the id of another server" if guild else ""
    return (
        f"the commands cannot be registered{where}: on the Installation page at {PORTAL}, allow "
        "Guild Install with the scopes bot and applications.commands, and invite the bot again at "
        f"{invitation(app)}{also}"
    )


@contextlib.asynccontextmanager
async def logged_in(token: str) -> AsyncIterator[discord.Client]:
    """A client that can ask, and hears nothing."""
    hush()
    client = discord.Client(intents=discord.Intents(guilds=True))
    try:
        with faults_told():
            await client.login(token)
        yield client
    finally:
        await client.close()


@contextlib.contextmanager
def faults_told() -> Iterator[None]:
    """discord.py's ways to fail at the door, as sentences for whoever runs the bot."""
    try:
        yield
    except discord.LoginFailure as error:
        raise UsageError(WRONG_TOKEN) from error
    except discord.PrivilegedIntentsRequired as error:
        raise UsageError(NO_INTENT) from error
    except discord.ConnectionClosed as error:
        sentence = CLOSED.get(error.code, f"Discord closed the connection ({error.code})")
        raise OperatorError(sentence) from error
    except (discord.HTTPException, aiohttp.ClientError, OSError) as error:
        raise OperatorError(f"Discord cannot be reached at {Route.BASE}: {error}") from error


def point_at(api: str | None, gateway: str | None) -> None:
    """Use another server than Discord's own: a proxy, or a stand-in. For the whole process."""
    if api:
        Route.BASE = api.rstrip("/")
    if gateway:
        DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(gateway)


class WithoutSecrets(logging.Filter):
    """Takes interaction tokens, which are part of addresses, out of what discord.py logs."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = _SECRET.sub(r"\1…", record.getMessage()), ()
        return True


def hush() -> None:
    """Keep content and tokens out of the log: discord.py writes both at level DEBUG."""
    above = logging.getLogger("discord")
    above.setLevel(max(above.getEffectiveLevel(), logging.INFO))
    discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False
    for name in ("discord.http", "discord.webhook.async_"):
        logger = logging.getLogger(name)
        if not any(isinstance(known, WithoutSecrets) for known in logger.filters):
            logger.addFilter(WithoutSecrets())
