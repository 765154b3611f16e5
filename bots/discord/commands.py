"""The slash commands and the message menu, in both languages."""

from __future__ import annotations

from typing import Any

import discord
import structlog
from discord import app_commands
from discord.app_commands import locale_str

from bots.discord import convert
from bots.discord.admin import admin_group
from bots.discord.desk import Asked, Desk, within
from bots.discord.privacy import Privacy
from bots.strings import say
from bots.strings.en import ENGLISH
from bots.strings.ja import JAPANESE
from core.errors import StoreUnavailable
from core.types import ThreadKey

log = structlog.get_logger()

ANYWHERE = app_commands.AppCommandContext(guild=True, dm_channel=True, private_channel=True)
ANYONE = app_commands.AppInstallationType(guild=True, user=True)
WHERE_THE_BOT_IS = app_commands.AppCommandContext(guild=True, dm_channel=True)
GUILDS = app_commands.AppInstallationType(guild=True)


class Languages(app_commands.Translator):
    """Names and descriptions from the shared sentences, by the key that each carries."""

    async def translate(
        self,
        string: locale_str,
        locale: discord.Locale,
        context: app_commands.TranslationContextTypes,
    ) -> str | None:
        key = string.extras.get("key")
        return JAPANESE[key] if key and locale is discord.Locale.japanese else None


def words(key: str) -> locale_str:
    """A name or a description: English, and translated by its key."""
    return locale_str(ENGLISH[key], key=key)


class Tree(app_commands.CommandTree[discord.Client]):
    """The commands; what goes wrong in one is told to its person, calmly."""

    def __init__(self, client: discord.Client, desk: Desk) -> None:
        super().__init__(client)
        self._desk = desk

    async def on_error(self, interaction: Asked, error: app_commands.AppCommandError, /) -> None:
        cause = getattr(error, "original", error)
        if isinstance(cause, discord.HTTPException):
            log.warning("an answer was refused", status=cause.status, code=cause.code)
            return
        key = "store_down" if isinstance(cause, StoreUnavailable) else "internal"
        if key == "internal":
            log.error("a command failed", error=repr(cause), exc_info=cause)
        if not interaction.response.is_done():
            await self._desk.tell(interaction, key)


class Commands:
    """What each command does."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @app_commands.rename(prompt=words("cmd_prompt"), private=words("cmd_private"))
    @app_commands.describe(prompt=words("cmd_prompt_about"), private=words("cmd_private_about"))
    async def ask(self, interaction: Asked, prompt: str, private: bool = False) -> None:
        await self._desk.ask(interaction, prompt, private=private)

    async def ask_about(self, interaction: Asked, message: discord.Message) -> None:
        me = convert.Self(interaction.application_id)
        text = convert.text_of(message, me)
        asked = f"{message.author.display_name}: {text}" if text else ""
        await self._desk.ask(interaction, asked)

    async def chat(self, interaction: Asked) -> None:
        channel, desk = interaction.channel, self._desk
        if interaction.guild_id is None or isinstance(channel, discord.Thread):
            await desk.tell(interaction, "chat_here")
        elif not isinstance(channel, discord.TextChannel) or not _may_open(interaction):
            await desk.tell(interaction, "chat_not_here")
        else:
            await self._open(interaction, channel)

    async def _open(self, interaction: Asked, channel: discord.TextChannel) -> None:
        person, locale = interaction.user.display_name, self._desk.locale_of(interaction)
        answer = await interaction.response.send_message(
            say("chat_opened", locale, person=person),
            allowed_mentions=discord.AllowedMentions.none(),
            suppress_embeds=True,
        )
        starter = str(answer.message_id)
        title = convert.title_of(person, "Henji")
        await self._desk.rest.open_thread(str(channel.id), starter, title)
        greeting = say("prompt_greeting", locale)
        await self._desk.rest.post(starter, greeting, nonce=f"chat.{interaction.id}")

    async def reset(self, interaction: Asked) -> None:
        forgotten = 0
        for thread in conversations(interaction):
            forgotten += await within(self._desk.relay.reset(thread, str(interaction.user.id)))
        await self._desk.tell(interaction, "reset_done" if forgotten else "reset_nothing")

    async def stop(self, interaction: Asked) -> None:
        person, stopped = str(interaction.user.id), False
        for thread in conversations(interaction):
            owed = await within(self._desk.queue.owed(thread))
            for job in [job for job, author in owed.items() if author == person]:
                stopped |= await within(self._desk.relay.stop(thread, job))
        await self._desk.tell(interaction, "stopping" if stopped else "nothing_to_stop")

    async def regenerate(self, interaction: Asked) -> None:
        thread = conversations(interaction)[0]
        turns = await within(self._desk.history.turns(thread))
        replies = [stored.turn.id for stored in turns if stored.turn.role == "assistant"]
        if not replies:
            await self._desk.tell(interaction, "nothing_to_regenerate")
            return
        author, revision = str(interaction.user.id), str(interaction.id)
        roles = convert.roles_of(interaction.user)
        receipt = await within(
            self._desk.relay.regenerate(thread, replies[-1], revision, author, roles=roles)
        )
        if receipt.outcome == "refused":
            locale = self._desk.locale_of(interaction)
            await self._desk.show(interaction, self._desk.relay.refusal(receipt, locale))
        else:
            await self._desk.tell(interaction, "regenerating")

    async def model(self, interaction: Asked) -> None:
        await self._desk.tell(interaction, "model", model=self._desk.terms.model)

    async def help(self, interaction: Asked) -> None:
        await self._desk.tell(interaction, "discord_help", model=self._desk.terms.model)


def conversations(interaction: Asked) -> list[ThreadKey]:
    """Where a person talks with the bot at this place: openly, and privately."""
    guild, channel, person = interaction.guild_id, interaction.channel, interaction.user.id
    return [
        convert.thread_in(guild, channel, person),
        convert.thread_in(guild, channel, person, private=True),
    ]


def add_commands(tree: Tree, desk: Desk) -> None:
    """Everything that people can choose from, before it is registered."""
    commands, privacy = Commands(desk), Privacy(desk)
    actions: dict[str, Any] = {
        "ask": commands.ask,
        "chat": commands.chat,
        "reset": commands.reset,
        "stop": commands.stop,
        "regenerate": commands.regenerate,
        "model": commands.model,
        "privacy": privacy.show,
        "help": commands.help,
    }
    for name, callback in actions.items():
        everywhere = name != "chat"
        command: app_commands.Command[Any, ..., None] = app_commands.Command(
            name=words(f"cmd_{name}"),
            description=words(f"cmd_{name}_about"),
            callback=callback,
            allowed_contexts=ANYWHERE if everywhere else WHERE_THE_BOT_IS,
            allowed_installs=ANYONE if everywhere else GUILDS,
        )
        tree.add_command(command)
    tree.add_command(
        app_commands.ContextMenu(
            name=words("cmd_menu_ask"),
            callback=commands.ask_about,
            allowed_contexts=ANYWHERE,
            allowed_installs=ANYONE,
        )
    )
    tree.add_command(admin_group(desk))


def _may_open(interaction: Asked) -> bool:
    mine = interaction.app_permissions
    return mine.create_public_threads and mine.send_messages_in_threads
