"""A person's permissions, and the bot's own, read from an interaction."""

from __future__ import annotations

import discord

from bots.discord.convert import Interaction


def may_manage(interaction: Interaction) -> bool:
    """Whether the person may manage the server. A server can show hidden commands to others, so
    each command checks again.
    """
    return interaction.guild_id is not None and interaction.permissions.manage_guild


def is_user_installed(interaction: Interaction) -> bool:
    """Whether the bot is installed for the person alone, and is not where it was used."""
    if interaction.guild_id is not None:
        return interaction.is_user_integration() and not interaction.is_guild_integration()
    return interaction.context.private_channel is True


def needs_token(interaction: Interaction) -> bool:
    """Whether the bot can write there only with the interaction's token."""
    if is_user_installed(interaction):
        return True
    if interaction.guild_id is None:
        return False
    bot = interaction.app_permissions
    in_thread = isinstance(interaction.channel, discord.Thread)
    may_send = bot.send_messages_in_threads if in_thread else bot.send_messages
    return not (bot.view_channel and may_send) or is_locked(interaction.channel, bot)


def is_locked(channel: object, bot: discord.Permissions) -> bool:
    """Whether a channel is a locked thread, in which the bot cannot write."""
    return isinstance(channel, discord.Thread) and channel.locked and not bot.manage_threads
