"""One connection to Discord's gateway: what it asks for, and where its events go."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import discord
import structlog
from discord import app_commands

from bots.discord.api import tracing
from bots.discord.button_handlers import Presses
from bots.discord.catchup import CatchUp
from bots.discord.commands import Languages, Tree, add_commands
from bots.discord.context import Asked, Desk
from bots.discord.edits import Memory
from bots.discord.messages import Listener
from bots.discord.privacy import Privacy
from bots.discord.rate_limits import Pace
from bots.discord.setup_checks import commands_refused
from core.observe import metrics

log = structlog.get_logger()


def intents_for(*, reads: bool) -> discord.Intents:
    """Guilds, and messages in them and in direct channels; their content where it is granted."""
    intents = discord.Intents.none()
    intents.guilds = intents.guild_messages = intents.dm_messages = True
    intents.message_content = reads
    return intents


class HenjiClient(discord.Client):
    """A connection without a cache of messages or members: the store is the memory."""

    def __init__(self, pace: Pace, *, reads: bool, shard: int = 0, shards: int = 1) -> None:
        super().__init__(
            intents=intents_for(reads=reads),
            max_messages=None,
            member_cache_flags=discord.MemberCacheFlags.none(),
            chunk_guilds_at_startup=False,
            allowed_mentions=discord.AllowedMentions.none(),
            http_trace=tracing(pace),
            shard_id=shard,
            shard_count=shards,
        )
        self.registers = shard == 0
        """Whether this connection registers the commands."""
        self.standing = False
        """Whether there is a session, and events come."""
        self.before_session: Callable[[], Awaitable[None]] | None = None
        """What must come to pass before a session is opened."""
        self._began = time.time()
        """When the newest session was opened."""

    def serve(self, desk: Desk) -> None:
        """Hand what happens to the desk."""
        self._desk = desk
        self._listener = Listener(desk, self)
        self._memory = Memory(desk, self, self._listener)
        self._presses, self._privacy = Presses(desk), Privacy(desk)
        self._catch_up = CatchUp(desk, self, self._listener)
        self.tree = Tree(self, desk)
        add_commands(self.tree, desk)

    async def setup_hook(self) -> None:
        """Register the commands; the bot answers mentions even where it may not."""
        if not self.registers:
            return
        guild = self._desk.terms.guild
        where = discord.Object(guild) if guild else None
        try:
            await self.tree.set_translator(Languages())
            if where is not None:
                self.tree.copy_global_to(guild=where)
            await self.tree.sync(guild=where)
        except (discord.HTTPException, app_commands.AppCommandError) as error:
            log.warning(commands_refused(self.application_id or 0, guild), error=repr(error))

    async def before_identify_hook(self, shard_id: int | None, *, initial: bool = False) -> None:
        """Wait for this bot's turn to open a session; it may have other processes."""
        if self.before_session is not None:
            await self.before_session()
        self._began = time.time()

    # -- what happens ---------------------------------------------------------------------------

    async def on_ready(self) -> None:
        """A new session: what was written since the last one was not sent, and never will be."""
        self.standing = True
        metrics.count_gateway_event("discord", "ready")
        log.info("connected to discord", guilds=len(self.guilds), shard=self.shard_id)
        await self._catch_up.run(self._began)

    async def on_resumed(self) -> None:
        self.standing = True
        metrics.count_gateway_event("discord", "resumed")

    async def on_disconnect(self) -> None:
        self.standing = False
        metrics.count_gateway_event("discord", "disconnected")

    async def on_message(self, message: discord.Message) -> None:
        await self._listener.heard(message)

    async def on_raw_message_edit(self, event: discord.RawMessageUpdateEvent) -> None:
        await self._memory.edited(event)

    async def on_raw_message_delete(self, event: discord.RawMessageDeleteEvent) -> None:
        await self._memory.deleted(event.channel_id, event.guild_id, [event.message_id])

    async def on_raw_bulk_message_delete(self, event: discord.RawBulkMessageDeleteEvent) -> None:
        await self._memory.deleted(event.channel_id, event.guild_id, event.message_ids)

    async def on_raw_thread_delete(self, event: discord.RawThreadDeleteEvent) -> None:
        await self._memory.thread_deleted(event)

    async def on_guild_channel_delete(self, channel: discord.abc.GuildChannel) -> None:
        await self._memory.channel_deleted(channel)

    async def on_guild_remove(self, guild: discord.Guild) -> None:
        await self._memory.left(guild)

    async def on_interaction(self, interaction: Asked) -> None:
        """Commands are the tree's; buttons and modals are read from their ids."""
        if interaction.type in (
            discord.InteractionType.component,
            discord.InteractionType.modal_submit,
        ):
            try:
                await self._presses.interacted(interaction)
                await self._privacy.pressed(interaction)
            except Exception as error:
                await self._desk.sorry(interaction, error)

    async def on_error(self, event_method: str, /, *args: Any, **kwargs: Any) -> None:
        """One event went wrong; its content is not logged."""
        log.exception("an event of discord's was not handled", event_name=event_method)
