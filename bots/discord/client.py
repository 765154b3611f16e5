"""One connection to Discord's gateway: its intents, and the handlers of its events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import discord
import structlog
from discord import app_commands

from bots.discord import PLATFORM
from bots.discord.button_handlers import ButtonHandlers
from bots.discord.catchup import CatchUp
from bots.discord.commands import CommandTranslator, CommandTree, add_commands
from bots.discord.context import Context
from bots.discord.convert import Interaction
from bots.discord.edits import EditHandler
from bots.discord.messages import MessageHandler
from bots.discord.privacy import Privacy, is_of_privacy
from bots.discord.rate_limits import RateLimiter, tracing
from bots.discord.setup_checks import commands_refused
from core.observe import metrics

log = structlog.get_logger()


SESSION_EVENTS = frozenset(("READY", "RESUMED"))
"""Without them there is no session: a failure to parse one opens a new connection."""


CHECKED_GUILDS, CHECK_SECONDS = 100, 2.0
"""How many guilds are checked for commands that were registered there while trying the bot."""


def intents_for(*, reads: bool) -> discord.Intents:
    """Guilds, messages in them and direct messages; their content where it is granted."""
    intents = discord.Intents.none()
    intents.guilds = intents.guild_messages = intents.dm_messages = True
    intents.message_content = reads
    return intents


def _is_of_unknown_guild(message: discord.Message) -> bool:
    """Whether a message is of a guild that Discord has not told of: it looks like a direct one."""
    return message.guild is None and not isinstance(message.channel, discord.DMChannel)


class HenjiClient(discord.Client):
    """A connection without a cache of messages or members: the store has them."""

    def __init__(
        self, limiter: RateLimiter, *, reads: bool, shard: int = 0, shards: int = 1
    ) -> None:
        super().__init__(
            intents=intents_for(reads=reads),
            max_messages=None,
            member_cache_flags=discord.MemberCacheFlags.none(),
            chunk_guilds_at_startup=False,
            allowed_mentions=discord.AllowedMentions.none(),
            http_trace=tracing(limiter),
            shard_id=shard,
            shard_count=shards,
        )
        self.registers = shard == 0
        """Whether this connection registers the commands."""
        self.connected = False
        """Whether there is a session that receives events."""
        self.before_session: Callable[[], Awaitable[None]] | None = None
        """Awaited before a session is opened."""
        self._began = time.time()
        """When the newest session was opened, in seconds since the epoch."""

        self._removed_guild_commands = False
        self._unreadable: set[str] = set()
        """Types of events that could not be parsed."""
        parsers = self._connection.parsers
        for event, parse in parsers.items():
            if event not in SESSION_EVENTS:
                parsers[event] = partial(self._parse, event, parse)

    def _parse(self, event: str, parse: Callable[[Any], None], data: Any) -> None:
        """Parse an event. discord.py would end the connection over one that it cannot parse."""
        try:
            parse(data)
        except Exception as error:
            metrics.count_gateway_event(PLATFORM, "unreadable")
            if event not in self._unreadable:
                self._unreadable.add(event)
                name = type(error).__name__
                log.warning("an event cannot be parsed; it is ignored", type=event, error=name)

    def dispatch(self, event: str, /, *args: Any, **kwargs: Any) -> None:
        """Nothing after the end: discord.py says that it is ready up to two seconds late."""
        if not self.is_closed():
            super().dispatch(event, *args, **kwargs)

    def serve(self, context: Context) -> None:
        """Make the handlers of this connection's events."""
        self._context = context
        self._messages = MessageHandler(context, self)
        self._edits = EditHandler(context, self, self._messages)
        self._buttons, self._privacy = ButtonHandlers(context), Privacy(context)
        self._catch_up = CatchUp(context, self, self._messages)
        self.tree = CommandTree(self, context)
        add_commands(self.tree, context)

    async def setup_hook(self) -> None:
        """Register the commands. Mentions are answered even where Discord refuses it."""
        if not self.registers:
            return
        guild = self._context.settings.discord_guild
        where = discord.Object(guild) if guild else None
        try:
            await self.tree.set_translator(CommandTranslator())
            if where is not None:
                self.tree.copy_global_to(guild=where)
            await self.tree.sync(guild=where)
        except (discord.HTTPException, app_commands.AppCommandError) as error:
            log.warning(commands_refused(self.application_id or 0, guild), error=repr(error))

    async def _remove_guild_commands(self, guilds: Sequence[discord.abc.Snowflake]) -> None:
        """Remove commands that were registered in one guild while the bot was tried there: people
        would see each of them twice.
        """
        if self._context.settings.discord_guild is not None or self._removed_guild_commands:
            return
        self._removed_guild_commands = True
        app = self.application_id or 0
        for guild in guilds:
            try:
                if await self.http.get_guild_commands(app, guild.id):
                    await self.http.bulk_upsert_guild_commands(app, guild.id, [])
                    log.info("removed the commands of one server", guild=guild.id)
            except discord.HTTPException as error:
                log.info("a server's commands were not looked at", guild=guild.id, code=error.code)
            await asyncio.sleep(CHECK_SECONDS)  # people's questions come first

    async def before_identify_hook(self, shard_id: int | None, *, initial: bool = False) -> None:
        """Wait for a turn to open a session: this bot may have other processes."""
        if self.before_session is not None:
            await self.before_session()
        self._began = time.time()

    # -- events ---------------------------------------------------------------------------------

    async def on_ready(self) -> None:
        """A new session: Discord does not send the messages since the last one."""
        self.connected = True
        metrics.count_gateway_event(PLATFORM, "ready")
        log.info("connected to discord", guilds=len(self.guilds), shard=self.shard_id)
        await self._catch_up.run(self._began)
        await self._remove_guild_commands(list(self.guilds)[:CHECKED_GUILDS])

    async def on_resumed(self) -> None:
        self.connected = True
        metrics.count_gateway_event(PLATFORM, "resumed")

    async def on_disconnect(self) -> None:
        self.connected = False
        metrics.count_gateway_event(PLATFORM, "disconnected")

    async def on_message(self, message: discord.Message) -> None:
        if not _is_of_unknown_guild(message):
            await self._messages.on_message(message)

    async def on_raw_message_edit(self, event: discord.RawMessageUpdateEvent) -> None:
        if not _is_of_unknown_guild(event.message):
            await self._edits.on_edited(event)

    async def on_raw_message_delete(self, event: discord.RawMessageDeleteEvent) -> None:
        await self._edits.on_deleted(event.channel_id, event.guild_id, [event.message_id])

    async def on_raw_bulk_message_delete(self, event: discord.RawBulkMessageDeleteEvent) -> None:
        await self._edits.on_deleted(event.channel_id, event.guild_id, event.message_ids)

    async def on_thread_create(self, thread: discord.Thread) -> None:
        await self._messages.on_thread(thread)

    async def on_raw_thread_delete(self, event: discord.RawThreadDeleteEvent) -> None:
        await self._edits.on_thread_deleted(event)

    async def on_guild_channel_delete(self, channel: discord.abc.GuildChannel) -> None:
        await self._edits.on_channel_deleted(channel)

    async def on_guild_remove(self, guild: discord.Guild) -> None:
        await self._edits.on_removed_from(guild)

    async def on_interaction(self, interaction: Interaction) -> None:
        """Buttons and modals; the command tree handles commands."""
        if interaction.type in (
            discord.InteractionType.component,
            discord.InteractionType.modal_submit,
        ):
            try:
                if is_of_privacy(interaction):
                    await self._privacy.on_press(interaction)
                elif await self._context.may_use(interaction):
                    await self._buttons.on_press(interaction)
            except Exception as error:
                await self._context.report_failure(interaction, error)

    async def on_error(self, event_method: str, /, *args: Any, **kwargs: Any) -> None:
        """An event's handler failed; the event's content is not logged."""
        log.exception("an event of discord's was not handled", event_name=event_method)
