"""/admin: for those who may manage the server, and those whom the settings list.

Discord hides it from all who may not manage the server, unless its own settings say otherwise; who
may is checked with each command.
"""

from __future__ import annotations

from typing import Any

import discord
import structlog
from discord import app_commands
from discord.app_commands import locale_str

from bots.discord import convert
from bots.discord.context import PATIENCE, Asked, Desk, within
from bots.strings import say
from bots.strings.en import ENGLISH
from core.queue_types import Place

log = structlog.get_logger()

DISCORD = "discord"
MOST = 2000
"""Characters of a message."""


def _words(key: str) -> locale_str:
    return locale_str(ENGLISH[key], key=key)


class Admin:
    """What an admin may do."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def reset_thread(self, interaction: Asked) -> None:
        if not await self._allows(interaction):
            return
        thread = convert.thread_in(interaction.guild_id, interaction.channel, interaction.user.id)
        if convert.is_personal(thread):
            await self._desk.tell(interaction, "not_in_thread")
            return
        await within(self._desk.relay.reset(thread, str(interaction.user.id)))
        await self._done(interaction, "scope_thread", str(thread))

    @app_commands.rename(which=_words("cmd_which"))
    @app_commands.describe(which=_words("cmd_which_about"))
    async def reset_channel(
        self, interaction: Asked, which: app_commands.AppCommandChannel | None = None
    ) -> None:
        if not await self._allows(interaction):
            return
        here = interaction.channel
        inside = here.parent_id if isinstance(here, discord.Thread) else interaction.channel_id
        channel = str(which.id if which else inside)
        place = Place(DISCORD, str(interaction.guild_id), channel)
        await within(self._desk.history.reset_place(place, str(interaction.user.id)))
        await self._done(interaction, "scope_channel", channel)

    @app_commands.rename(which=_words("cmd_user"))
    @app_commands.describe(which=_words("cmd_user_about"))
    async def reset_user(self, interaction: Asked, which: discord.User) -> None:
        if not await self._allows(interaction):
            return
        place = Place(DISCORD, str(interaction.guild_id))
        await self._desk.history.forget(place, str(which.id), str(interaction.user.id))
        await self._done(interaction, "scope_user", str(which.id))

    async def reset_server(self, interaction: Asked) -> None:
        if not await self._allows(interaction):
            return
        place = Place(DISCORD, str(interaction.guild_id))
        await within(self._desk.history.reset_place(place, str(interaction.user.id)))
        await self._done(interaction, "scope_space", str(interaction.guild_id))

    async def status(self, interaction: Asked) -> None:
        if not await self._allows(interaction):
            return
        load = await within(self._desk.queue.load(self._desk.terms.lane))
        threads = await within(self._threads_in(str(interaction.guild_id)), PATIENCE)
        await self._desk.tell(
            interaction,
            "status_line",
            model=self._desk.terms.model,
            cores=load.cores,
            waiting=load.waiting,
            threads=threads,
        )

    async def _threads_in(self, guild: str) -> int:
        spaces = [summary.thread.space async for summary in self._desk.history.threads(DISCORD)]
        return spaces.count(guild)

    @app_commands.rename(rules=_words("cmd_rules"))
    @app_commands.describe(rules=_words("cmd_rules_about"))
    async def config(self, interaction: Asked, rules: str = "") -> None:
        access = self._desk.relay.access
        if not await self._allows(interaction):
            return
        here = interaction.channel
        inside = here.parent_id if isinstance(here, discord.Thread) else interaction.channel_id
        place = Place(DISCORD, str(interaction.guild_id), str(inside))
        locale = self._desk.locale_of(interaction)
        said = await access.configure(place, rules, str(interaction.user.id), locale, convert.ids)
        await self._desk.show(interaction, said[:MOST])

    async def audit(self, interaction: Asked) -> None:
        access = self._desk.relay.access
        if not await self._allows(interaction):
            return
        place = Place(DISCORD, str(interaction.guild_id))
        locale = self._desk.locale_of(interaction)
        said = await access.audited(place, str(interaction.user.id), locale)
        await self._desk.show(interaction, said[:MOST])

    async def _allows(self, interaction: Asked) -> bool:
        if self._desk.is_admin(interaction):
            await interaction.response.defer(ephemeral=True, thinking=True)
            return True
        await self._desk.tell(interaction, "admins_only")
        return False

    async def _done(self, interaction: Asked, scope: str, what: str) -> None:
        person = str(interaction.user.id)
        log.info("reset", by=person, scope=scope, what=what, guild=interaction.guild_id)
        named = say(scope, self._desk.locale_of(interaction))
        await self._desk.tell(interaction, "reset_scope_done", scope=named)


def admin_group(desk: Desk) -> app_commands.Group:
    """The whole of /admin."""
    admin = Admin(desk)
    group = app_commands.Group(
        name=_words("cmd_admin"),
        description=_words("cmd_admin_about"),
        guild_only=True,
        default_permissions=discord.Permissions(manage_guild=True),
    )
    resets = app_commands.Group(
        name=_words("cmd_admin_reset"), description=_words("cmd_admin_reset_about"), parent=group
    )
    actions: dict[str, Any] = {
        "thread": admin.reset_thread,
        "channel": admin.reset_channel,
        "user": admin.reset_user,
        "server": admin.reset_server,
    }
    for name, callback in actions.items():
        resets.add_command(_command(name, callback))
    group.add_command(_command("status", admin.status))
    group.add_command(_command("audit", admin.audit))
    group.add_command(_command("config", admin.config))
    return group


def _command(name: str, callback: Any) -> app_commands.Command[Any, ..., None]:
    return app_commands.Command(
        name=_words(f"cmd_{name}"), description=_words(f"cmd_{name}_about"), callback=callback
    )
