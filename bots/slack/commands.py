"""The slash command, and the menu and shortcuts that replace it inside threads."""

from __future__ import annotations

from dataclasses import replace

from bots.slack import components, convert
from bots.slack.app_home import AppHome
from bots.slack.context import Context
from bots.slack.convert import (
    PLATFORM,
    Bot,
    ModalSubmission,
    Press,
    SlashCommand,
)
from bots.slack.manifest import RESET_SHORTCUT
from bots.slack.messages import MessageHandler
from bots.slack.questions import Question, Questions
from bots.strings import say
from core.queue_types import Place
from core.types import ThreadKey

ASKED = "henji_asked"
ANSWERS = ("help", "privacy", "model")
ADMINISTRATION = ("config", "audit")


class CommandHandler:
    """``/henji ask|reset|help|privacy|model``: a question begins a thread of its own."""

    def __init__(
        self, context: Context, messages: MessageHandler, home: AppHome, questions: Questions
    ) -> None:
        self._context = context
        self._messages = messages
        self._app_home = home
        self._questions = questions

    async def on_command(self, told: SlashCommand) -> None:
        """Accept a command; only the person sees the answer, which comes by its response_url."""
        word = told.word.lower()
        if word == "ask" and told.rest:
            question = Question(
                told.trigger, told.team, told.channel, "", told.user, told.rest, told.response_url
            )
            await self._questions.accept(question)
        elif word == "reset":
            press = Press(
                "", "", told.user, told.team, told.trigger,
                channel=told.channel, response_url=told.response_url,
            )  # fmt: skip
            await self._app_home.ask(press, "channel", told.channel)
        else:
            self._context.spawn(self._respond(told, word))

    async def _respond(self, told: SlashCommand, word: str) -> None:
        locale = await self._context.users.locale(told.team, told.user, told.rest)
        answer = await self._response(told, word, locale)
        await self._context.respond(told.team, told.response_url, answer)

    async def _response(self, told: SlashCommand, word: str, locale: str) -> str:
        if word in ADMINISTRATION:
            return await self._administer(told, word, locale)
        if word in ANSWERS or not word:
            bot = await self._context.workspaces.bot(told.team)
            return self._answer(word or "help", locale, bot, told.command)
        return say("usage_command", locale, command=told.command)

    def _answer(self, word: str, locale: str, bot: Bot, command: str) -> str:
        sentence = self._messages.sentence(word, locale, bot)
        usage = say("help_command", locale, command=command)
        return f"{sentence}\n{usage}" if word == "help" else sentence

    async def _administer(self, told: SlashCommand, word: str, locale: str) -> str:
        """The answer to ``config`` and ``audit``."""
        actor, actions = await self._context.actor(told.team, told.user), self._context.actions
        space = Place(PLATFORM, told.team)
        if word == "audit":
            return components.escape(await actions.audited(actor, space, locale))
        channel = replace(space, channel=told.channel)
        said = await actions.configure(actor, channel, told.rest, locale, convert.ids)
        return components.escape(said)

    async def on_menu(self, press: Press) -> None:
        """The menu under a reply: the commands, for threads."""
        key = ThreadKey(PLATFORM, press.team, press.channel, press.thread)
        if press.value == "reset":
            await self._app_home.ask(press, "thread", str(key))
        elif press.value in ANSWERS:
            locale = await self._context.users.locale(press.team, press.user)
            bot = await self._context.workspaces.bot(press.team)
            sentence = self._messages.sentence(press.value, locale, bot)
            self._context.spawn(self._context.send_privately(key, press.user, sentence))

    # -- shortcuts ------------------------------------------------------------------------------

    async def on_shortcut(self, press: Press) -> None:
        """A message shortcut: ask about the message, or reset its thread."""
        key = ThreadKey(PLATFORM, press.team, press.channel, press.thread)
        if press.action == RESET_SHORTCUT:
            await self._app_home.ask(press, "thread", str(key))
            return
        locale = await self._context.users.locale(press.team, press.user)
        element = {"type": "plain_text_input", "multiline": True, "max_length": 3000}
        question = components.question("question", say("shortcut_ask", locale), element)
        title = say("shortcut_ask", locale)
        data = f"{key}\n{press.response_url}"
        view = components.modal(ASKED, title, locale, question, data=data)
        self._context.spawn(self._context.open_modal(press.team, press.trigger, view))

    async def on_asked(self, sent: ModalSubmission) -> None:
        """The question of the shortcut's modal was submitted."""
        thread, _, url = sent.data.partition("\n")
        key, text = convert.thread_of(thread), sent.values.get("question", "")
        question = Question(sent.id, key.space, key.channel, key.thread, sent.user, text, url)
        await self._questions.accept(question)
