"""The slash command, and the menu and shortcuts that replace it inside threads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import structlog
from slack_bolt.context.ack.async_ack import AsyncAck

from bots.platform import Incoming, PlatformRefused
from bots.slack import components, convert
from bots.slack.app_home import AppHome
from bots.slack.context import Context
from bots.slack.convert import (
    PLATFORM,
    QUESTION_METADATA,
    Bot,
    ModalSubmission,
    Press,
    SlashCommand,
)
from bots.slack.manifest import RESET_SHORTCUT
from bots.slack.messages import MessageHandler
from bots.slack.rate_limits import POST
from bots.strings import say
from core.queue_types import Place
from core.types import ThreadKey, Turn

ASKED = "henji_asked"
ANSWERS = ("help", "privacy", "model")
ADMINISTRATION = ("config", "audit")

log = structlog.get_logger()


class CommandHandler:
    """``/henji ask|reset|help|privacy|model``: a question begins a thread of its own."""

    def __init__(self, context: Context, messages: MessageHandler, home: AppHome) -> None:
        self._context = context
        self._messages = messages
        self._app_home = home

    async def on_command(self, told: SlashCommand, ack: AsyncAck) -> None:
        """Run a command; only the person sees the answer."""
        team, word = told.team, told.word.lower()
        locale = await self._context.users.locale(team, told.user, told.rest)
        if word == "ask" and told.rest:
            place = ThreadKey(PLATFORM, team, told.channel, "")
            refusal = await self._ask(place, told.user, told.rest, locale)
            await (ack(text=refusal) if refusal else ack())
        elif word == "reset":
            press = Press(
                "", "", told.user, team, told.trigger,
                channel=told.channel, response_url=told.response_url,
            )  # fmt: skip
            await self._app_home.ask(press, "channel", told.channel)
            await ack()
        elif word in ADMINISTRATION:
            await ack(text=await self._administer(told, word, locale))
        elif word in ANSWERS or not word:
            bot = await self._context.workspaces.bot(team)
            await ack(text=self._answer(word or "help", locale, bot, told.command))
        else:
            await ack(text=say("usage_command", locale, command=told.command))

    def _answer(self, word: str, locale: str, bot: Bot, command: str) -> str:
        sentence = self._messages.sentence(word, locale, bot)
        usage = say("help_command", locale, command=command)
        return f"{sentence}\n{usage}" if word == "help" else sentence

    async def _administer(self, told: SlashCommand, word: str, locale: str) -> str:
        """The answer to ``config`` and ``audit``."""
        actor, actions = self._context.actor(told.team, told.user), self._context.actions
        space = Place(PLATFORM, told.team)
        if word == "audit":
            return components.escape(await actions.audited(actor, space, locale))
        channel = replace(space, channel=told.channel)
        said = await actions.configure(actor, channel, told.rest, locale, convert.ids)
        return components.escape(said)

    async def _ask(self, place: ThreadKey, user: str, text: str, locale: str) -> str:
        """Post the question where all can see it, and submit it under that message's id.

        Returns the sentence for the person where that failed; empty where it was done.
        """
        try:
            shown = say("asked", locale, person=f"<@{user}>", text=components.escape(text))
            ts = await self._show(place, shown)
        except PlatformRefused as error:
            log.info("a question could not be shown", error=str(error))
            return say("cannot_post", locale, channel=say("scope_channel", locale))
        key = ThreadKey(PLATFORM, place.space, place.channel, place.thread or ts)
        names = await self._context.users.names(place.space, (user,))
        turn = Turn(ts, "user", user, text, float(ts), names.get(user, ""))
        note = {"locale": locale}
        has_past = bool(place.thread)
        await self._context.relay.submit(Incoming(key, turn, True, note=note, has_past=has_past))
        return ""

    async def _show(self, place: ThreadKey, text: str) -> str:
        client = await self._context.workspaces.client(place.space)
        answer: Any = await self._context.api.call(
            POST,
            place.space,
            place.channel,
            lambda: client.chat_postMessage(
                channel=place.channel,
                thread_ts=place.thread or None,
                text=text,
                metadata={"event_type": QUESTION_METADATA, "event_payload": {}},
                unfurl_links=False,
                unfurl_media=False,
            ),
        )
        return str(answer["ts"])

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
        view = components.modal(ASKED, title, locale, question, data=str(key))
        self._context.spawn(self._context.open_modal(press.team, press.trigger, view))

    async def on_asked(self, sent: ModalSubmission, ack: AsyncAck) -> None:
        """The question was submitted: close the modal, or show why it cannot be asked."""
        key = convert.thread_of(sent.data)
        text = sent.values.get("question", "")
        locale = await self._context.users.locale(key.space, sent.user, text)
        refusal = await self._ask(key, sent.user, text, locale)
        if refusal:
            await ack(response_action="errors", errors={"question": refusal})
        else:
            await ack()
