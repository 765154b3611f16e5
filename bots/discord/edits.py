"""Edited and deleted messages, threads, channels and servers: the store follows Discord."""

from __future__ import annotations

from collections.abc import Iterable

import discord
import structlog

from bots.discord import PLATFORM, convert
from bots.discord.context import Context
from bots.discord.messages import MessageHandler
from bots.discord.replies import ELSEWHERE
from core.access_policy import Asker
from core.queue_types import Place
from core.types import ThreadKey

log = structlog.get_logger()

ANSWERED_SECONDS = 900.0
"""For how long a message that is edited to mention the bot is answered like a new one."""


class EditHandler:
    """Edits and deletes what the store has."""

    def __init__(self, context: Context, client: discord.Client, messages: MessageHandler) -> None:
        self._context = context
        self._client = client
        self._messages = messages

    async def on_edited(self, event: discord.RawMessageUpdateEvent) -> None:
        """A message has other words or files; a link preview that appears in it is no edit."""
        message = event.message
        revision = convert.revision_of(message)
        bot = convert.bot_in(self._client, message.guild, self._context.roles)
        if not revision or message.author.id == bot.user:
            return
        thread = convert.thread_of(message, self._messages.answers_in(message))
        found = await self._context.stores.deliveries.locate(thread, str(message.id))
        known = found is not None or convert.may_be_known(message, bot)
        if not known and not await self._context.stores.deliveries.quoting(thread, str(message.id)):
            return
        where, ident = found[0] if found else thread, str(message.id)
        author = self._messages.author_of(message)
        automatic = None if author is message.author else False
        text = convert.text_of(message, bot, automatic=automatic)
        files = convert.pointed_at(message)
        if not text and not files:  # nothing is left of it, or the bot may not read the rest
            await self._forget(where, ident)
            return
        asker = Asker(where, str(author.id), convert.roles_of(author))
        quote = convert.quote_in(message, bot)
        addressed = convert.is_addressed(message, bot)
        receipt = await self._context.relay.edited(
            asker, ident, text, revision, files, quote, addressed=addressed
        )
        mentions_now = _is_recent(message) and addressed
        if receipt.outcome == "ignored" and mentions_now:
            await self._messages.handle(message)

    async def on_deleted(self, channel: int, guild: int | None, messages: Iterable[int]) -> None:
        """Messages of people, or of the bot, were deleted."""
        place = await self._place(channel, guild)
        if place is None:
            return
        for message in messages:
            if convert.is_personal(place):
                await self._deleted_in_channel(place, str(message))
            else:
                await self._forget(place, str(message))
            await self._messages.on_deleted(message)

    async def _deleted_in_channel(self, place: ThreadKey, message: str) -> None:
        """A question, the thread that it may have opened, or a reply that found no thread."""
        thread = ThreadKey(place.platform, place.space, place.channel, message)
        beside = f"{place.channel}{ELSEWHERE}{message}"
        found = await self._context.stores.deliveries.locate(thread, beside)
        await self._forget(thread, beside if found else message)

    async def _forget(self, thread: ThreadKey, message: str) -> None:
        found = await self._context.stores.deliveries.locate(thread, message)
        await self._context.relay.deleted(thread, message)
        if found:
            open_jobs = await self._context.stores.queue.open_jobs(found[0])
            await self._context.platform.withdraw(found[0], found[1], open_jobs)

    async def on_thread_deleted(self, event: discord.RawThreadDeleteEvent) -> None:
        guild, parent, ident = str(event.guild_id), str(event.parent_id), str(event.thread_id)
        thread = ThreadKey(PLATFORM, guild, parent, ident)
        if await self._context.stores.history.takes_part(thread):
            await self._context.relay.thread_deleted(thread, "discord")

    async def on_channel_deleted(self, channel: discord.abc.GuildChannel) -> None:
        place = Place(PLATFORM, str(channel.guild.id), str(channel.id))
        await self._context.stores.history.reset_place(place, "discord")

    async def on_removed_from(self, guild: discord.Guild) -> None:
        """The bot was removed from a guild, or the guild was deleted."""
        await self._context.stores.history.reset_place(Place(PLATFORM, str(guild.id)), "discord")

    async def _place(self, channel: int, guild: int | None) -> ThreadKey | None:
        """The thread of a channel's id; for an ordinary channel, nobody's (``@0``)."""
        found = self._client.get_channel(channel)
        if found is None:
            try:
                found = await self._client.fetch_channel(channel)
            except discord.HTTPException:
                log.info("messages were deleted in a channel that is gone", channel=channel)
                return None
        if isinstance(found, discord.DMChannel):
            person = found.recipient.id if found.recipient else 0
            return convert.thread_in(None, found, person)
        return convert.thread_in(guild, found, 0)


def _is_recent(message: discord.Message) -> bool:
    return (discord.utils.utcnow() - message.created_at).total_seconds() < ANSWERED_SECONDS
