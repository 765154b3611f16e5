"""The unmodified bot in a simulated guild: people say things, and the bot answers."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, replace
from typing import Any

import discord
import simcord
from redis.asyncio import Redis

from bots.actions import Actions
from bots.discord.bot import new_context
from bots.discord.client import HenjiClient
from bots.discord.context import Context
from bots.discord.rate_limits import RateLimiter
from bots.guide import Guide
from bots.relay import Relay, RelaySettings
from bots.summaries import Summarizer
from tests.local_discord.deployment import LANE, DiscordDeployment, bot_settings
from tests.open_access import EVERYBODY
from tests.store_fixture import StoreFixture

SECONDS = 60
"""The time that a story waits for what must come."""
SAID = (
    discord.MessageType.default,
    discord.MessageType.reply,
    discord.MessageType.chat_input_command,
    discord.MessageType.context_menu_command,
)


@dataclass(frozen=True, slots=True)
class Story:
    """A guild with a channel, two people and the bot."""

    env: simcord.Env
    guild: Any
    general: Any
    alice: Any
    bob: Any
    context: Context

    @property
    def mention(self) -> str:
        assert self.env.bot.user is not None
        return self.env.bot.user.mention

    def said(self, channel: Any) -> list[str]:
        """The bot's public messages in a channel."""
        return [message.content for message in self.messages(channel)]

    def messages(self, channel: Any) -> list[discord.Message]:
        bot = self.env.bot.user
        spoken = [m for m in channel.history() if m.author == bot and m.type in SAID]
        return [message for message in spoken if not message.flags.ephemeral]

    async def hears(self, channel: Any, text: str) -> discord.Message:
        async with asyncio.timeout(SECONDS):
            while text not in self.said(channel):
                await self.env.settle()
        return next(m for m in self.messages(channel) if m.content == text)

    async def thread(self) -> Any:
        """The one thread of the channel, as soon as the bot has opened it."""
        async with asyncio.timeout(SECONDS):
            while not self.general.threads:
                await self.env.settle()
        [opened] = self.general.threads
        return opened

    async def commands(self) -> list[discord.app_commands.AppCommand]:
        assert isinstance(self.env.bot, HenjiClient)
        return await self.env.bot.tree.fetch_commands()

    async def finished(self, channel: Any) -> discord.Message:
        """The bot's one message in a channel, when its controls are those of a finished reply."""
        async with asyncio.timeout(SECONDS):
            while not any(button_of(message, "a") for message in self.messages(channel)):
                await self.env.settle()
        [message] = self.messages(channel)
        return message

    async def is_answered(self, used: Any, text: str) -> None:
        """The deferred answer to a command becomes this."""
        async with asyncio.timeout(SECONDS):
            while used.response is None or used.response.content != text:
                await self.env.settle()


def button_of(message: discord.Message, letter: str) -> str | None:
    """The custom id of the button with this verb's letter, if it is there."""
    rows = [row for row in message.components if isinstance(row, discord.ActionRow)]
    buttons = [button for row in rows for button in row.children]
    ids = [button.custom_id for button in buttons if isinstance(button, discord.Button)]
    return next((ident for ident in ids if ident and ident.split(".")[1] == letter), None)


class FreePace(RateLimiter):
    """Without limits, which simcord does not have either.

    While simcord moves its clock, no timeout of the bot's ends: a wait for the pace may never end.
    """

    async def acquire(self, key: str, *, final: bool) -> None:
        return None


class ApartRelay(Relay):
    """A relay whose deliveries live by the real clock, though the simulation's moves by itself.

    simcord waits for all that an event has started, and deliveries wait for a core that it does
    not know of.
    """

    def _spawn(self, work: Awaitable[None]) -> asyncio.Task[None]:
        return contextvars.Context().run(super()._spawn, work)


@contextlib.asynccontextmanager
async def a_story(
    redis: Redis, *, reads: bool = True, speed: float = 0.0, **options: Any
) -> AsyncIterator[Story]:
    """`reads`: the Message Content intent is granted; `speed`: of the core, in tokens a second."""
    deployment = DiscordDeployment(None, StoreFixture.over(redis))  # type: ignore[arg-type]  # nothing goes over a wire
    await deployment.start_core(speed)
    pace = FreePace()
    client = HenjiClient(pace, reads=reads)
    relay = RelaySettings(
        lane=LANE, holder="bot", take_over=0.05, positions=0.1, drain=1.0, access=EVERYBODY
    )
    stores = deployment.process_stores()
    envs: list[simcord.Env] = []
    settings = bot_settings(**options)
    context = new_context(
        client, pace, stores, settings, relay, lambda: envs[0].now().timestamp(), reads=reads
    )
    apart = ApartRelay(context.platform, stores, relay)
    actions = Actions(apart, stores)
    summarizer = Summarizer(apart, actions, stores.history)
    guide = Guide(apart, actions, settings.retention_days)
    more: dict[str, Any] = {"relay": apart, "actions": actions, "guide": guide}
    more["summarizer"] = summarizer
    context = replace(context, **more)
    client.serve(context)
    stop = asyncio.Event()
    intents = discord.Intents.all() if reads else discord.Intents.default()
    async with simcord.run(client, settle_timeout=10, approved_intents=intents) as env:
        envs.append(env)
        relaying = asyncio.create_task(context.relay.run(stop))
        guild = env.create_guild()
        people = [guild.add_member(env.create_user(name)) for name in ("alice", "bob")]
        try:
            general = guild.create_text_channel("general")
            yield Story(env, guild, general, people[0], people[1], context)
        finally:
            stop.set()
            await relaying
            await context.platform.close()
            await deployment.close()
