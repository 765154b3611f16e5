"""Who may do what, and where the bot itself may: read from an interaction."""

from __future__ import annotations

import discord


def may_manage(interaction: discord.Interaction[discord.Client]) -> bool:
    """By Discord: its own hiding of commands can be overridden, so each is checked again."""
    return interaction.guild_id is not None and interaction.permissions.manage_guild


def is_stranger(interaction: discord.Interaction[discord.Client]) -> bool:
    """Whether the bot is not where it was used: installed for the person alone."""
    if interaction.guild_id is not None:
        return interaction.is_user_integration() and not interaction.is_guild_integration()
    return interaction.context.private_channel is True


def is_shut_out(interaction: discord.Interaction[discord.Client]) -> bool:
    """Whether the bot cannot write there by itself: only the interaction's token can."""
    if is_stranger(interaction):
        return True
    if interaction.guild_id is None:
        return False
    mine = interaction.app_permissions
    inside = isinstance(interaction.channel, discord.Thread)
    return not mine.view_channel or not (
        mine.send_messages_in_threads if inside else mine.send_messages
    )
