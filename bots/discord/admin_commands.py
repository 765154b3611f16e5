"""/admin: for people who manage the server, and the admins in the settings.

It is apart from `commands.py` because it has a separate gate. Discord hides the group from people
who do not manage the server, but a server's settings can show it to others, so each command checks
again.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import discord
from discord import app_commands

from bots.actions import Scope
from bots.discord import PLATFORM, convert
from bots.discord.context import MESSAGE_SECONDS, Context, actor_of, localized, within
from bots.discord.convert import Interaction
from bots.discord.platform import MESSAGE_LENGTH
from core.queue_types import Place


class _WithMessages(app_commands.Transformer):
    """A channel option for channels that have messages or threads.

    discord.py's own offers media channels too, which Discord's published schema does not allow.
    """

    @property
    def type(self) -> discord.AppCommandOptionType:
        return discord.AppCommandOptionType.channel

    @property
    def channel_types(self) -> list[discord.ChannelType]:
        kinds = discord.ChannelType
        return [kinds.text, kinds.news, kinds.forum, kinds.voice, kinds.stage_voice]

    async def transform(self, interaction: Interaction, value: Any, /) -> Any:
        return value


ChannelOption: TypeAlias = app_commands.Transform[app_commands.AppCommandChannel, _WithMessages]


class AdminCommandHandler:
    """The commands of admins."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def reset_thread(self, interaction: Interaction) -> None:
        thread = convert.thread_in(interaction.guild_id, interaction.channel, interaction.user.id)
        if not await self._is_allowed(interaction):
            return
        if convert.is_personal(thread):
            await self._context.tell(interaction, "not_in_thread")
        else:
            await self._reset(interaction, Scope.of_thread(thread))

    @app_commands.rename(which=localized("cmd_which"))
    @app_commands.describe(which=localized("cmd_which_about"))
    async def reset_channel(
        self, interaction: Interaction, which: ChannelOption | None = None
    ) -> None:
        place = _place(interaction, str(which.id) if which else _channel_of(interaction))
        if await self._is_allowed(interaction):
            await self._reset(interaction, Scope("channel", place))

    @app_commands.rename(which=localized("cmd_user"))
    @app_commands.describe(which=localized("cmd_user_about"))
    async def reset_user(self, interaction: Interaction, which: discord.User) -> None:
        if await self._is_allowed(interaction):
            scope = Scope("user", _place(interaction), person=str(which.id))
            await self._reset(interaction, scope)

    async def reset_server(self, interaction: Interaction) -> None:
        if await self._is_allowed(interaction):
            await self._reset(interaction, Scope("space", _place(interaction)))

    async def status(self, interaction: Interaction) -> None:
        if not await self._is_allowed(interaction):
            return
        context = self._context
        load = await within(context.stores.queue.load(context.relay.settings.lane))
        threads = await within(self._count_threads(str(interaction.guild_id)), MESSAGE_SECONDS)
        await context.tell(
            interaction,
            "status_line",
            model=context.settings.job_lane,
            cores=load.cores,
            waiting=load.waiting,
            threads=threads,
        )

    async def _count_threads(self, guild: str) -> int:
        spaces = [
            summary.thread.space async for summary in self._context.stores.history.threads(PLATFORM)
        ]
        return spaces.count(guild)

    @app_commands.rename(rules=localized("cmd_rules"))
    @app_commands.describe(rules=localized("cmd_rules_about"))
    async def config(self, interaction: Interaction, rules: str = "") -> None:
        if not await self._is_allowed(interaction):
            return
        place, locale = _place(interaction, _channel_of(interaction)), self._locale(interaction)
        actor = actor_of(interaction)
        text = await self._context.actions.configure(actor, place, rules, locale, convert.ids)
        await self._context.answer_privately(interaction, text[:MESSAGE_LENGTH])

    async def audit(self, interaction: Interaction) -> None:
        if not await self._is_allowed(interaction):
            return
        place, locale = _place(interaction), self._locale(interaction)
        text = await self._context.actions.audited(actor_of(interaction), place, locale)
        await self._context.answer_privately(interaction, text[:MESSAGE_LENGTH])

    async def _is_allowed(self, interaction: Interaction) -> bool:
        """Defer the answer to an admin; refuse anybody else."""
        place = _place(interaction, _channel_of(interaction))
        if await self._context.actions.is_admin(actor_of(interaction), place.any_thread):
            await interaction.response.defer(ephemeral=True, thinking=True)
            return True
        await self._context.tell(interaction, "admins_only")
        return False

    async def _reset(self, interaction: Interaction, scope: Scope) -> None:
        outcome = await within(self._context.actions.reset(actor_of(interaction), scope))
        await self._context.tell_outcome(interaction, outcome)

    def _locale(self, interaction: Interaction) -> str:
        return self._context.locale_of(interaction)


def _place(interaction: Interaction, channel: str | None = None) -> Place:
    return Place(PLATFORM, str(interaction.guild_id), channel)


def _channel_of(interaction: Interaction) -> str:
    """The channel that a command was used in; a thread's is its parent."""
    here = interaction.channel
    return str(here.parent_id if isinstance(here, discord.Thread) else interaction.channel_id)


def admin_group(context: Context) -> app_commands.Group:
    """/admin with all its commands."""
    admin = AdminCommandHandler(context)
    group = app_commands.Group(
        name=localized("cmd_admin"),
        description=localized("cmd_admin_about"),
        guild_only=True,
        default_permissions=discord.Permissions(manage_guild=True),
    )
    resets = app_commands.Group(
        name=localized("cmd_admin_reset"),
        description=localized("cmd_admin_reset_about"),
        parent=group,
    )
    commands: dict[str, Any] = {
        "thread": admin.reset_thread,
        "channel": admin.reset_channel,
        "user": admin.reset_user,
        "server": admin.reset_server,
    }
    for name, callback in commands.items():
        resets.add_command(_command(name, callback))
    group.add_command(_command("status", admin.status))
    group.add_command(_command("audit", admin.audit))
    group.add_command(_command("config", admin.config))
    return group


def _command(name: str, callback: Any) -> app_commands.Command[Any, ..., None]:
    return app_commands.Command(
        name=localized(f"cmd_{name}"),
        description=localized(f"cmd_{name}_about"),
        callback=callback,
    )
