"""What was said before the bot came to a conversation, read from Discord."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import discord

from bots.discord import convert
from core.types import ThreadKey, Turn

MOST = 100
"""Messages that are read back: more than a model of today's context takes."""


def myself(client: discord.Client, guild: discord.Guild | None) -> convert.Self:
    """Who the bot is in a guild."""
    user = client.user.id if client.user else 0  # nobody, before the client has logged in
    if guild is None or guild.me is None:
        return convert.Self(user)
    return convert.Self(user, frozenset(role.id for role in guild.me.roles) - {guild.id})


async def earlier(
    client: discord.Client, thread: ThreadKey, before: str, after: float
) -> Sequence[Turn]:
    """The turns in a thread before a message and after a time, oldest first.

    A person's conversation in a channel has none: what others said there is not theirs.
    """
    if convert.is_personal(thread):
        return ()
    guild = None if thread.space == convert.DIRECT else client.get_guild(int(thread.space))
    me = myself(client, guild)
    turns: list[Turn] = []
    async for message in _messages(client, thread, guild, before, after):
        mine = message.author.id == me.user and message.type in convert.SPOKEN
        if (convert.is_spoken(message) or mine) and (turn := convert.turn_of(message, me)).text:
            turns.append(turn)
    return sorted(turns, key=lambda turn: int(turn.id))


async def _messages(
    client: discord.Client,
    thread: ThreadKey,
    guild: discord.Guild | None,
    before: str,
    after: float,
) -> AsyncIterator[discord.Message]:
    guild_id = guild.id if guild else None
    floor = datetime.fromtimestamp(after, UTC)
    until = discord.Object(int(before))
    place = client.get_partial_messageable(int(thread.thread), guild_id=guild_id)
    try:
        async for message in place.history(limit=MOST, before=until):
            if message.created_at > floor:
                yield message
    except (discord.NotFound, discord.Forbidden):
        return  # the thread is not open yet, or not to the bot
    if guild is not None and thread.thread != before:
        async for message in _starter(client, thread, guild.id, floor):
            yield message


async def _starter(
    client: discord.Client, thread: ThreadKey, guild: int, floor: datetime
) -> AsyncIterator[discord.Message]:
    """The message that a thread was made from: it has the thread's id, in the parent channel."""
    parent = client.get_partial_messageable(int(thread.channel), guild_id=guild)
    try:
        message = await parent.fetch_message(int(thread.thread))
    except (discord.NotFound, discord.Forbidden):
        return  # made without one, or a forum's post, whose first message is its own
    if message.created_at > floor:
        yield message
