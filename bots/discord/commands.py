"""The slash commands and the message menu, in both languages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import discord
import structlog
from discord import app_commands
from discord.app_commands import locale_str

from bots.actions import Fork, Outcome, Scope
from bots.attachments import clean_name, is_question
from bots.choices import ChoiceKind
from bots.discord import convert
from bots.discord.admin_commands import admin_group
from bots.discord.context import Context, actor_of, conversations, localized, within
from bots.discord.convert import Interaction
from bots.discord.extract import file_of_attachment, files_of
from bots.discord.platform import MESSAGE_LENGTH
from bots.discord.privacy import Privacy, is_of_privacy
from bots.discord.replies import ELSEWHERE, ReplyAddress
from bots.discord.summaries import InteractionSource, SummaryHandler
from bots.markdown import title_of
from bots.strings import say
from bots.strings.ja import JAPANESE
from core.queue_types import Delivery

log = structlog.get_logger()

PickerChoice: TypeAlias = app_commands.Choice[str]

ANYWHERE = app_commands.AppCommandContext(guild=True, dm_channel=True, private_channel=True)
ANYONE = app_commands.AppInstallationType(guild=True, user=True)
WHERE_THE_BOT_IS = app_commands.AppCommandContext(guild=True, dm_channel=True)
GUILDS = app_commands.AppInstallationType(guild=True)


class CommandTranslator(app_commands.Translator):
    """Translates names and descriptions, by the key that each carries."""

    async def translate(
        self,
        string: locale_str,
        locale: discord.Locale,
        context: app_commands.TranslationContextTypes,
    ) -> str | None:
        key = string.extras.get("key")
        return JAPANESE[key] if key and locale is discord.Locale.japanese else None


class CommandTree(app_commands.CommandTree[discord.Client]):
    """All commands. A command that fails says so to its person."""

    def __init__(self, client: discord.Client, context: Context) -> None:
        super().__init__(client)
        self._context = context

    async def interaction_check(self, interaction: Interaction, /) -> bool:
        """Before every command: False keeps it from running."""
        return is_of_privacy(interaction) or await self._context.may_use(interaction)

    async def on_error(
        self, interaction: Interaction, error: app_commands.AppCommandError, /
    ) -> None:
        await self._context.report_failure(interaction, getattr(error, "original", error))


class CommandHandler:
    """The commands of people."""

    def __init__(self, context: Context) -> None:
        self._context = context

    @app_commands.rename(
        prompt=localized("cmd_prompt"),
        private=localized("cmd_private"),
        file=localized("cmd_file"),
    )
    @app_commands.describe(
        prompt=localized("cmd_prompt_about"),
        private=localized("cmd_private_about"),
        file=localized("cmd_file_about"),
    )
    async def ask(
        self,
        interaction: Interaction,
        prompt: str,
        private: bool = False,
        file: discord.Attachment | None = None,
    ) -> None:
        files = (file_of_attachment(file),) if file else ()
        await self._context.ask(interaction, prompt, private=private, files=files)

    async def ask_about(self, interaction: Interaction, message: discord.Message) -> None:
        text = convert.text_of(message, convert.bot_in(interaction.client, interaction.guild))
        files = files_of(message)
        if not is_question(text, files):
            await self._context.tell(interaction, "no_text_there")
            return
        said = f"{clean_name(message.author.display_name)}: {text}".rstrip()
        await self._context.ask(interaction, said, files=files)

    # -- continue from here -----------------------------------------------------------------------

    async def branch(self, interaction: Interaction, message: discord.Message) -> None:
        """Continue from a message: in a new thread of its channel, which the same people read."""
        parent = _parent_of(interaction)
        person = str(interaction.user.id)
        source = InteractionSource(self._context, interaction)
        here = conversations(interaction)[0]
        if parent is None or convert.needs_token(interaction):
            await self._context.tell(interaction, "branch_not_here")
        elif isinstance(interaction.channel, discord.Thread) and interaction.channel.is_private():
            await self._context.tell(interaction, "branch_private")
        elif not await source.may_read(here, person):
            await self._context.tell(interaction, "catchup_no_access")
        else:
            await self._branch(interaction, message, parent)

    async def _branch(
        self, interaction: Interaction, message: discord.Message, parent: discord.TextChannel
    ) -> None:
        actor, place = actor_of(interaction), conversations(interaction)[0]
        ids = (str(message.id), f"{place.channel}{ELSEWHERE}{message.id}")
        fork = await within(self._context.actions.fork(actor, place, ids, str(interaction.id)))
        if not isinstance(fork, Fork):
            if fork.key:  # else Discord has sent the same interaction again
                await self._context.tell_outcome(interaction, fork)
        elif fork.thread.thread.startswith("!"):
            await self._context.tell(interaction, "branch_private")
        else:
            await interaction.response.defer(ephemeral=True, thinking=True)
            await self._open_branch(interaction, message, parent, fork)

    async def _open_branch(
        self,
        interaction: Interaction,
        message: discord.Message,
        parent: discord.TextChannel,
        fork: Fork,
    ) -> None:
        """Open a thread in the channel, and let it remember the conversation."""
        api, locale = self._context.api, self._context.locale_of(interaction)
        link = f"[{say('branch_link', locale)}]({message.jump_url})"
        person = discord.utils.escape_markdown(interaction.user.display_name)
        opened = say("branch_opened", locale, person=person, link=link)
        bot = convert.bot_in(interaction.client, interaction.guild)
        name = title_of(convert.text_of(message, bot), "Henji")
        try:
            nonce = f"branch.{interaction.id}"[:25]
            sent = await api.post(str(parent.id), opened, nonce=nonce, notice=True)
            root = str(sent["id"])
            await api.open_thread(str(parent.id), root, name, notice=True)
            branch = replace(fork.thread, thread=root)
            outcome = await self._context.actions.branch(actor_of(interaction), fork, branch)
            said = self._said_in_branch(interaction, outcome, locale)
            await api.post(root, said, nonce=f"begin.{interaction.id}"[:25], notice=True)
        except discord.HTTPException as error:
            log.warning("a thread could not be opened", channel=parent.id, code=error.code)
            await self._context.tell(interaction, "branch_not_here")
        else:
            await self._context.tell(interaction, "branch_told", link=f"<#{root}>")

    def _said_in_branch(self, interaction: Interaction, outcome: Outcome, locale: str) -> str:
        said = outcome.sentence(locale)
        if not outcome.done or self._context.reads:
            return said
        mention = f"@{convert.name_of_bot(interaction.client)}"
        return f"{said} {say('branch_how', locale, mention=mention)}"

    async def help(self, interaction: Interaction) -> None:
        locale, thread = self._context.locale_of(interaction), conversations(interaction)[0]
        said = await within(self._context.help(actor_of(interaction), thread, locale))
        await self._context.answer_privately(interaction, said)

    async def usage(self, interaction: Interaction) -> None:
        locale, thread = self._context.locale_of(interaction), conversations(interaction)[0]
        work = self._context.guide.usage(actor_of(interaction), thread, locale)
        await self._context.answer_privately(interaction, await within(work))

    # -- /model, /persona -------------------------------------------------------------------------

    @app_commands.rename(name=localized("cmd_choice"))
    @app_commands.describe(name=localized("cmd_choice_about"))
    async def model(self, interaction: Interaction, name: str = "") -> None:
        await self._choose(interaction, "model", name)

    @app_commands.rename(name=localized("cmd_choice"))
    @app_commands.describe(name=localized("cmd_choice_about"))
    async def persona(self, interaction: Interaction, name: str = "") -> None:
        await self._choose(interaction, "persona", name)

    async def _choose(self, interaction: Interaction, kind: ChoiceKind, name: str) -> None:
        """Show or change the model or persona of the person's conversations here."""
        threads, locale = conversations(interaction), self._context.locale_of(interaction)
        if name:
            actor = actor_of(interaction)
            work = self._context.guide.choices.choose(actor, threads, kind, name.strip(), locale)
        else:
            work = self._context.guide.choices.shown(threads[0], kind, locale)
        await self._context.answer_privately(interaction, (await within(work))[:MESSAGE_LENGTH])

    async def complete_model(self, interaction: Interaction, typed: str) -> list[PickerChoice]:
        return await self._completed(interaction, "model", typed)

    async def complete_persona(self, interaction: Interaction, typed: str) -> list[PickerChoice]:
        return await self._completed(interaction, "persona", typed)

    async def _completed(
        self, interaction: Interaction, kind: ChoiceKind, typed: str
    ) -> list[PickerChoice]:
        thread, locale = conversations(interaction)[0], self._context.locale_of(interaction)
        offered = await within(self._context.guide.choices.offered(thread, kind, locale, typed))
        return [app_commands.Choice(name=o.label, value=o.value) for o in offered]

    # -- /chat ----------------------------------------------------------------------------------

    async def chat(self, interaction: Interaction) -> None:
        channel = interaction.channel
        if interaction.guild_id is None or isinstance(channel, discord.Thread):
            await self._context.tell(interaction, "chat_here")
        elif not isinstance(channel, discord.TextChannel) or not _may_open_thread(interaction):
            await self._context.tell(interaction, "chat_not_here")
        else:
            await self._open_thread(interaction, channel)

    async def _open_thread(self, interaction: Interaction, channel: discord.TextChannel) -> None:
        person, locale = interaction.user.display_name, self._context.locale_of(interaction)
        answer = await interaction.response.send_message(
            say("chat_opened", locale, person=discord.utils.escape_markdown(person)),
            allowed_mentions=discord.AllowedMentions.none(),
            suppress_embeds=True,
        )
        starter = str(answer.message_id)
        name = title_of(person, "Henji")
        try:
            await self._context.api.open_thread(str(channel.id), starter, name, notice=True)
            greeting, nonce = self._greeting(interaction, locale), f"chat.{interaction.id}"
            await self._context.api.post(starter, greeting, nonce=nonce, notice=True)
        except discord.HTTPException as error:
            log.warning("a thread could not be opened", channel=channel.id, code=error.code)
            await interaction.edit_original_response(content=say("chat_not_here", locale))

    def _greeting(self, interaction: Interaction, locale: str) -> str:
        """The first message in a thread: how to continue, where the bot reads only mentions."""
        if self._context.reads:
            return say("prompt_greeting", locale)
        return say("chat_mention", locale, mention=f"@{convert.name_of_bot(interaction.client)}")

    # -- /reset, /stop, /regenerate ---------------------------------------------------------------

    async def reset(self, interaction: Interaction) -> None:
        """Forget the person's conversations here, the open one and the private one."""
        actor, actions = actor_of(interaction), self._context.actions
        threads = conversations(interaction)
        outcomes = [await within(actions.reset(actor, Scope.of_thread(t))) for t in threads]
        refused = [outcome for outcome in outcomes if not outcome.done]
        told = refused or sorted(outcomes, key=lambda outcome: -outcome.turns)
        await self._context.tell_outcome(interaction, told[0])

    async def stop(self, interaction: Interaction) -> None:
        threads = conversations(interaction)
        outcome = await within(self._context.actions.stop_here(actor_of(interaction), threads))
        await self._context.tell_outcome(interaction, outcome)

    async def regenerate(self, interaction: Interaction) -> None:
        """Regenerate the newest reply in its place, or as the answer to the command if the bot
        cannot write there.
        """
        threads = conversations(interaction)
        reply = await within(self._context.actions.newest_reply(threads))
        if reply is None:
            await self._context.tell(interaction, "nothing_to_regenerate")
        elif ReplyAddress.unpack(reply.note).private or convert.needs_token(interaction):
            await self._regenerate_by_token(interaction, reply)
        else:
            outcome = await within(
                self._context.actions.regenerate(
                    actor_of(interaction), reply.thread, reply.job, str(interaction.id)
                )
            )
            await self._context.tell_outcome(interaction, outcome)

    async def _regenerate_by_token(self, interaction: Interaction, reply: Delivery) -> None:
        """Regenerate as this command's answer: the old message is out of reach."""
        private = ReplyAddress.unpack(reply.note).private
        locale = self._context.locale_of(interaction)
        address = convert.token_address(interaction, locale, private=private)
        tokens = self._context.platform.tokens
        with tokens.acknowledging(interaction.token) as acknowledgement:
            work = self._context.actions.regenerate(
                actor_of(interaction),
                reply.thread,
                reply.job,
                str(interaction.id),
                note=address.pack(),
            )
            outcome = await within(work)
            if outcome.receipt is not None and outcome.receipt.outcome == "queued":
                await interaction.response.defer(ephemeral=private, thinking=True)
                acknowledgement.given = True
            else:
                await self._context.tell_outcome(interaction, outcome)


def described() -> Sequence[tuple[str, str, str]]:
    """Every command and every entry of a menu, for the page about them."""
    no_context: Any = None  # the commands are listed, not run
    tree = CommandTree(discord.Client(intents=discord.Intents.none()), no_context)
    add_commands(tree, no_context)
    commands = [c for c in tree.walk_commands() if isinstance(c, app_commands.Command)]
    menus = tree.get_commands(type=discord.AppCommandType.message)
    return [
        *(_row(command) for command in commands),
        *(
            (f"message menu: *{menu.name}*", f"*{_japanese(menu)}*", _about_menu(menu))
            for menu in menus
        ),
    ]


def _row(command: app_commands.Command[Any, ..., Any]) -> tuple[str, str, str]:
    path: list[Any] = [command]
    while path[0].parent is not None:
        path.insert(0, path[0].parent)
    names = " ".join(part.name for part in path)
    return f"`/{names}`", f"/{' '.join(map(_japanese, path))}", command.description


def _japanese(command: Any) -> str:
    return JAPANESE[command._locale_name.extras["key"]]


def _about_menu(menu: Any) -> str:
    return say(f"{menu._locale_name.extras['key']}_about", "en")


def add_commands(tree: CommandTree, context: Context) -> None:
    """Add everything that people can choose from to the tree."""
    handler, privacy, summaries = CommandHandler(context), Privacy(context), SummaryHandler(context)
    commands: dict[str, Any] = {
        "ask": handler.ask,
        "chat": handler.chat,
        "reset": handler.reset,
        "stop": handler.stop,
        "regenerate": handler.regenerate,
        "model": handler.model,
        "persona": handler.persona,
        "catchup": summaries.catchup,
        "usage": handler.usage,
        "privacy": privacy.show,
        "help": handler.help,
    }
    completions = {"model": handler.complete_model, "persona": handler.complete_persona}
    for name, callback in commands.items():
        everywhere = name != "chat"
        command: app_commands.Command[Any, ..., None] = app_commands.Command(
            name=localized(f"cmd_{name}"),
            description=localized(f"cmd_{name}_about"),
            callback=callback,
            allowed_contexts=ANYWHERE if everywhere else WHERE_THE_BOT_IS,
            allowed_installs=ANYONE if everywhere else GUILDS,
        )
        if name in completions:
            command.autocomplete("name")(completions[name])
        tree.add_command(command)
    menus: dict[str, Any] = {
        "cmd_menu_ask": handler.ask_about,
        "cmd_menu_summary": summaries.of_thread,
        "cmd_menu_branch": handler.branch,
    }
    for key, menu in menus.items():
        tree.add_command(
            app_commands.ContextMenu(
                name=localized(key),
                callback=menu,
                allowed_contexts=ANYWHERE,
                allowed_installs=ANYONE,
            )
        )
    tree.add_command(admin_group(context))


def _parent_of(interaction: Interaction) -> discord.TextChannel | None:
    """The channel where the bot can open a thread beside the conversation at hand."""
    channel, guild = interaction.channel, interaction.guild
    if isinstance(channel, discord.Thread):
        channel = channel.parent
    if guild is None or guild.me is None or not isinstance(channel, discord.TextChannel):
        return None
    bot = channel.permissions_for(guild.me)
    may = bot.send_messages and bot.create_public_threads and bot.send_messages_in_threads
    return channel if may else None


def _may_open_thread(interaction: Interaction) -> bool:
    bot = interaction.app_permissions
    return bot.create_public_threads and bot.send_messages_in_threads
