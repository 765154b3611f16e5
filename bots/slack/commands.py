"""The slash command, and the message shortcuts that stand in for it inside threads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from slack_bolt.context.ack.async_ack import AsyncAck

from bots.base import Incoming
from bots.slack import blocks, convert
from bots.slack.budget import POST
from bots.slack.convert import PLATFORM, Bot, Pressed
from bots.slack.desk import Desk
from bots.slack.home import Home, Scope
from bots.slack.messages import Messages
from bots.strings import say
from core.records import Place
from core.types import ThreadKey, Turn

ASK_SHORTCUT = "henji_ask"
RESET_SHORTCUT = "henji_reset_thread"
ASKED = "henji_asked"
ANSWERS = ("help", "privacy", "model")
ADMINISTRATION = ("config", "audit")


class Commands:
    """``/henji ask|reset|help|privacy|model``: a question begins a thread of its own."""

    def __init__(self, desk: Desk, messages: Messages, home: Home) -> None:
        self._desk = desk
        self._messages = messages
        self._home = home

    async def on_command(self, body: convert.Json, ack: AsyncAck) -> None:
        team, user, channel = body["team_id"], body["user_id"], body["channel_id"]
        word, _, rest = str(body.get("text", "")).strip().partition(" ")
        locale = await self._desk.people.locale(team, user, rest)
        bot = await self._desk.workspaces.bot(team)
        if word == "ask" and rest.strip():
            await self._ask(ThreadKey(PLATFORM, team, channel, ""), user, rest.strip(), locale)
            await ack()
        elif word == "reset":
            press = Pressed("", "", user, team, str(body["trigger_id"]), channel=channel)
            await self._home.ask(press, Scope("channel", channel))
            await ack()
        elif word in ADMINISTRATION:
            await ack(text=await self._administer(body, word, rest, locale))
        elif word in ANSWERS or not word:
            await ack(text=self._answer(word or "help", locale, bot, str(body["command"])))
        else:
            await ack(text=say("usage_command", locale, command=body["command"]))

    def _answer(self, word: str, locale: str, bot: Bot, command: str) -> str:
        sentence = self._messages.sentence(word, locale, bot)
        usage = say("help_command", locale, command=command)
        return f"{sentence}\n{usage}" if word == "help" else sentence

    async def _administer(self, body: convert.Json, word: str, rest: str, locale: str) -> str:
        """The answer to what only admins may ask: rules of this channel, and the audit log."""
        team, user = body["team_id"], body["user_id"]
        place, governance = Place(PLATFORM, team, body["channel_id"]), self._desk.relay.governance
        key = ThreadKey(PLATFORM, team, body["channel_id"], "")
        if governance is None or not await self._desk.is_admin(key, user):
            return say("admins_only", locale)
        if word == "config":
            return blocks.escaped(await governance.configure(place, rest, user, locale))
        return blocks.escaped(await governance.audited(replace(place, channel=None), user, locale))

    async def _ask(self, place: ThreadKey, user: str, text: str, locale: str) -> None:
        """Put the question where all can see it, and submit it under that message's id."""
        client = await self._desk.workspaces.client(place.space)
        shown = say("asked", locale, person=f"<@{user}>", text=blocks.escaped(text))
        answer: Any = await self._desk.caller.must(
            POST,
            place.space,
            place.channel,
            lambda: client.chat_postMessage(
                channel=place.channel,
                thread_ts=place.thread or None,
                text=shown,
                unfurl_links=False,
            ),
        )
        ts = str(answer["ts"])
        key = ThreadKey(PLATFORM, place.space, place.channel, place.thread or ts)
        names = await self._desk.people.names(place.space, (user,))
        turn = Turn(ts, "user", user, text, float(ts), names.get(user, ""))
        note = {"locale": locale}
        has_past = bool(place.thread)
        await self._desk.relay.submit(Incoming(key, turn, True, note=note, has_past=has_past))

    # -- shortcuts ------------------------------------------------------------------------------

    async def on_shortcut(self, press: Pressed) -> None:
        """A message's menu: ask about it, or reset the thread it stands in."""
        key = ThreadKey(PLATFORM, press.team, press.channel, press.thread)
        if press.action == RESET_SHORTCUT:
            await self._home.ask(press, Scope("thread", str(key)))
            return
        locale = await self._desk.people.locale(press.team, press.user)
        element = {"type": "plain_text_input", "multiline": True, "max_length": 3000}
        question = blocks.question("question", say("shortcut_ask", locale), element)
        title = say("shortcut_ask", locale)
        view = blocks.modal(ASKED, title, locale, question, data=str(key))
        self._desk.later(self._desk.open_modal(press.team, press.trigger, view))

    async def on_asked(self, user: str, view: convert.Json) -> None:
        key = ThreadKey.parse(str(view.get("private_metadata", "")))
        text = convert.submitted(view).get("question", "")
        locale = await self._desk.people.locale(key.space, user, text)
        await self._ask(key, user, text, locale)
