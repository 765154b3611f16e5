"""The slash commands and the message menu, in both languages."""

from __future__ import annotations

from typing import Any

import discord
import structlog
from discord import app_commands
from discord.app_commands import locale_str

from bots.discord import convert
from bots.discord.admin_commands import admin_group
from bots.discord.context import Asked, Desk, conversations, within
from bots.discord.permissions import is_shut_out
from bots.discord.privacy import Privacy
from bots.discord.replies import Note
from bots.strings import say
from bots.strings.en import ENGLISH
from bots.strings.ja import JAPANESE
from core.queue_types import Delivery, Receipt, Regeneration

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
        await self._desk.sorry(interaction, getattr(error, "original", error))


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
        if not text:
            await self._desk.tell(interaction, "no_text_there")
            return
        await self._desk.ask(interaction, f"{message.author.display_name}: {text}")

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
        try:
            await self._desk.rest.open_thread(str(channel.id), starter, title)
            greeting = self._greeting(interaction, locale)
            await self._desk.rest.post(starter, greeting, nonce=f"chat.{interaction.id}")
        except discord.HTTPException as error:
            log.warning("a thread could not be opened", channel=channel.id, code=error.code)
            await interaction.edit_original_response(content=say("chat_not_here", locale))

    def _greeting(self, interaction: Asked, locale: str) -> str:
        """The first words in a thread; how to go on there, where the bot reads only mentions."""
        if self._desk.terms.reads:
            return say("prompt_greeting", locale)
        me = interaction.client.user
        return say("chat_mention", locale, mention=f"@{me.display_name if me else 'Henji'}")

    async def reset(self, interaction: Asked) -> None:
        forgotten = await within(self._forgotten(interaction))
        await self._desk.tell(interaction, "reset_done" if forgotten else "reset_nothing")

    async def _forgotten(self, interaction: Asked) -> int:
        person = str(interaction.user.id)
        return sum([await self._desk.relay.reset(t, person) for t in conversations(interaction)])

    async def stop(self, interaction: Asked) -> None:
        stopped = await within(self._stopped(interaction))
        await self._desk.tell(interaction, "stopping" if stopped else "nothing_to_stop")

    async def _stopped(self, interaction: Asked) -> bool:
        """Stop what the bot writes for this person here; whether there was something."""
        person, stopped = str(interaction.user.id), False
        for thread in conversations(interaction):
            owed = await self._desk.queue.owed(thread)
            for job in [job for job, author in owed.items() if author == person]:
                stopped |= await self._desk.relay.stop(thread, job)
        return stopped

    async def model(self, interaction: Asked) -> None:
        await self._desk.tell(interaction, "model", model=self._desk.terms.model)

    async def help(self, interaction: Asked) -> None:
        await self._desk.tell(interaction, "discord_help", model=self._desk.terms.model)


class Again:
    """In its place, where the bot can write there; else as the answer to the command."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def newest(self, interaction: Asked) -> None:
        found = await within(self._find(interaction))
        if isinstance(found, str):
            await self._desk.tell(interaction, found)
        elif Note.unpack(found.note).private or is_shut_out(interaction):
            await self._by_token(interaction, found)
        elif not await self._is_refused(interaction, await self._again(interaction, found)):
            await self._desk.tell(interaction, "regenerating")

    async def _find(self, interaction: Asked) -> Delivery | str:
        """The newest reply here, open or private; the sentence that says why not."""
        turns = [
            (stored.turn.at, thread, stored.turn.id)
            for thread in conversations(interaction)
            for stored in await self._desk.history.turns(thread)
            if stored.turn.role == "assistant"
        ]
        if not turns:
            return "nothing_to_regenerate"
        _, thread, job = max(turns, key=lambda turn: turn[0])
        reply = await self._desk.deliveries.get(thread, job)
        if reply is None:
            return "prompt_gone"
        allowed = await self._desk.may_touch(interaction, thread, reply.author, reply.turn)
        return reply if allowed else "not_yours"

    async def _by_token(self, interaction: Asked, reply: Delivery) -> None:
        """What stands there can be reached no more: the new reply is this command's own."""
        locale, private = self._desk.locale_of(interaction), Note.unpack(reply.note).private
        shut_out = is_shut_out(interaction)
        note = convert.token_note(interaction, locale, private=private, shut_out=shut_out)
        with self._desk.platform.tokens.acknowledging(interaction.token) as acknowledgement:
            receipt = await self._again(interaction, reply, note)
            if receipt.outcome == "queued":
                await interaction.response.defer(ephemeral=private, thinking=True)
                acknowledgement.given = True
            elif not await self._is_refused(interaction, receipt):
                await self._desk.tell(interaction, "regenerating")

    async def _again(
        self, interaction: Asked, reply: Delivery, note: Note | None = None
    ) -> Receipt:
        wanted = Regeneration(
            reply.thread,
            reply.job,
            str(interaction.id),
            str(interaction.user.id),
            note=note.pack() if note else None,
        )
        roles = convert.roles_of(interaction.user)
        return await within(self._desk.relay.regenerate(wanted, roles))

    async def _is_refused(self, interaction: Asked, receipt: Receipt) -> bool:
        """Whether it is not to be, which the person is told then."""
        if receipt.outcome != "refused":
            return False
        locale = self._desk.locale_of(interaction)
        await self._desk.show(interaction, self._desk.relay.refusal(receipt, locale))
        return True


def add_commands(tree: Tree, desk: Desk) -> None:
    """Everything that people can choose from, before it is registered."""
    commands, again, privacy = Commands(desk), Again(desk), Privacy(desk)
    actions: dict[str, Any] = {
        "ask": commands.ask,
        "chat": commands.chat,
        "reset": commands.reset,
        "stop": commands.stop,
        "regenerate": again.newest,
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
