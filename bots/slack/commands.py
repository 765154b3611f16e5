"""The slash command, and the menu and shortcuts that replace it inside threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import structlog

from bots.actions import Fork
from bots.choices import KINDS
from bots.platform import PlatformRefused
from bots.slack import components, convert
from bots.slack.app_home import AppHome
from bots.slack.context import Context
from bots.slack.convert import PLATFORM, ModalSubmission, Press, SlashCommand, link_to
from bots.slack.manifest import BRANCH_SHORTCUT, RESET_SHORTCUT, SHORTCUTS, SUMMARY_SHORTCUT
from bots.slack.markdown import escaped
from bots.slack.questions import Question, Questions
from bots.strings import say
from bots.summaries import Offer, Summarizer
from bots.text import split
from core.queue_types import Place
from core.types import ThreadKey

log = structlog.get_logger()

ASKED = "henji_asked"
CHOSEN = "henji_chosen"
ANSWERS = ("help", "privacy", "usage")
ADMINISTRATION = ("config", "audit")

SLASH = "/henji"
DESCRIBED = {
    "ask …": "cmd_ask_about",
    "catchup …": "cmd_catchup_about",
    "usage": "cmd_usage_about",
    "reset": "cmd_channel_about",
    "model": "slack_model_about",
    "persona": "slack_persona_about",
    "privacy": "slack_privacy_about",
    "help": "cmd_help_about",
    "config …": "cmd_config_about",
    "audit": "cmd_audit_about",
}
"""The words after the slash command, and the keys of their descriptions."""


def described() -> Sequence[tuple[str, str, str]]:
    """Every command and every shortcut, for the page about them."""
    commands = [
        (f"`{SLASH} {word}`", f"`{SLASH} {word}`", say(key, "en"))
        for word, key in DESCRIBED.items()
    ]
    menus = [
        (f"message menu: *{say(key, 'en')}*", f"*{say(key, 'ja')}*", say(f"{key}_about", "en"))
        for key in SHORTCUTS.values()
    ]
    return [*commands, *menus]


RESPONSES = 5
"""Messages that Slack takes by one response_url, within half an hour."""
UPDATES = 3
"""Of them, for progress before the summary."""
SUMMARY_LENGTH = 9_000
"""Characters of one response: all Markdown of a message has 12,000."""


class ResponseScreen:
    """A `bots.summaries.Screen`: an ephemeral message by a response_url."""

    def __init__(self, context: Context, team: str, url: str, locale: str) -> None:
        self._context = context
        self._team = team
        self._url = url
        self._locale = locale
        self._sent = 0

    async def show(
        self, text: str, *, offer: Offer | None = None, stops: ThreadKey | None = None
    ) -> None:
        if stops is not None and self._sent >= UPDATES:
            return
        for part in split(text, SUMMARY_LENGTH)[: RESPONSES - self._sent]:
            blocks = components.summary(part, self._locale, offer, stops)
            replace_ = self._sent > 0 or bool(stops)
            self._sent += 1
            await self._context.respond(self._team, self._url, part, blocks, replace=replace_)


class CommandHandler:
    """The words after the slash command: a question begins a new thread."""

    def __init__(self, context: Context, home: AppHome, questions: Questions) -> None:
        self._context = context
        self._app_home = home
        self._questions = questions
        self._summarizer = Summarizer(context.relay, context.actions, context.history)

    async def on_command(self, told: SlashCommand) -> None:
        """Accept a command; only the person sees the answer, which comes by its response_url."""
        word = told.word.lower()
        if word == "ask" and told.rest:
            question = Question(
                told.trigger, told.team, told.channel, "", told.user, told.rest, told.response_url
            )
            await self._questions.accept(question)
        elif word == "catchup":
            channel = ThreadKey(PLATFORM, told.team, told.channel, "")
            await self._summarise(_press_of(told), channel, told.rest)
        elif word == "reset":
            press = _press_of(told)
            await self._app_home.ask(press, "channel", told.channel)
        else:
            self._context.spawn(self._respond(told, word))

    # -- summaries ------------------------------------------------------------------------------

    async def _summarise(
        self, press: Press, place: ThreadKey, words: str = "", offer: Offer | None = None
    ) -> None:
        """Summarise a place for the person; `offer`: the offer that they accepted."""
        locale = await self._context.users.locale(press.team, press.user)
        actor = await self._context.actor(press.team, press.user, press.user_team)
        screen = ResponseScreen(self._context, press.team, press.response_url, locale)
        backfill = self._context.backfill
        if offer is None:
            work = self._summarizer.ask(actor, place, words, locale, screen, backfill)
        else:
            work = self._summarizer.go_on(actor, offer, locale, screen, backfill)
        self._context.spawn(work)

    async def on_summary(self, press: Press) -> None:
        """A button of a summary: continue, or stop."""
        if press.action == components.SUMMARISE:
            offer = components.offer_in(press.value)
            if (offer.place.space, offer.place.channel) == (press.team, press.channel):
                await self._summarise(press, offer.place, offer=offer)
            return
        actor = await self._context.actor(press.team, press.user, press.user_team)
        if not await self._summarizer.stop(actor, components.place_in(press.value)):
            locale = await self._context.users.locale(press.team, press.user)
            said = say("catchup_stop_late", locale)
            self._context.spawn(self._context.respond(press.team, press.response_url, said))

    async def _respond(self, told: SlashCommand, word: str) -> None:
        locale = await self._context.users.locale(told.team, told.user, told.rest)
        answer = await self._response(told, word, locale)
        await self._context.respond(told.team, told.response_url, answer)

    async def _response(self, told: SlashCommand, word: str, locale: str) -> str:
        if word in ADMINISTRATION:
            return await self._administer(told, word, locale)
        if word in ANSWERS or not word:
            return await self._answer(word or "help", locale, told)
        if word in KINDS:
            channel = ThreadKey(PLATFORM, told.team, told.channel, "-")
            said = await self._context.guide.choices.shown(channel, word, locale)
            return escaped(f"{said}\n{say('choice_where', locale)}")
        return say("usage_command", locale, command=told.command)

    async def _answer(self, word: str, locale: str, told: SlashCommand) -> str:
        place = Place(PLATFORM, told.team, told.channel).any_thread
        sentence = await self._context.sentence(word, locale, told.user, place)
        usage = say("help_command", locale, command=told.command)
        return f"{sentence}\n{usage}" if word == "help" else sentence

    async def _administer(self, told: SlashCommand, word: str, locale: str) -> str:
        """The answer to ``config`` and ``audit``."""
        actor, actions = await self._context.actor(told.team, told.user), self._context.actions
        space = Place(PLATFORM, told.team)
        if word == "audit":
            return escaped(await actions.audited(actor, space, locale))
        channel = replace(space, channel=told.channel)
        said = await actions.configure(actor, channel, told.rest, locale, convert.ids)
        return escaped(said)

    async def on_menu(self, press: Press) -> None:
        """The menu under a reply: the commands, for threads."""
        key = ThreadKey(PLATFORM, press.team, press.channel, press.thread)
        if press.value == "reset":
            await self._app_home.ask(press, "thread", str(key))
        elif press.value == "model":
            await self._choose(press, key)
        elif press.value in ANSWERS:
            locale = await self._context.users.locale(press.team, press.user)
            sentence = await self._context.sentence(press.value, locale, press.user, key)
            self._context.spawn(self._context.send_privately(key, press.user, sentence))

    async def _choose(self, press: Press, key: ThreadKey) -> None:
        """Open the pickers of the model and the persona; where nothing is offered, say what is."""
        locale = await self._context.users.locale(press.team, press.user)
        offered = {
            kind: await self._context.guide.choices.offered(
                key, kind, locale, most=components.MOST_OPTIONS
            )
            for kind in KINDS
        }
        inputs = [
            components.picker(kind, say(f"choice_{kind}", locale), options)
            for kind, options in offered.items()
            if len(options) > 1
        ]
        if inputs:
            title = say("choice_title", locale)
            view = components.modal(CHOSEN, title, locale, *inputs, data=str(key))
            self._context.spawn(self._context.open_modal(press.team, press.trigger, view))
        else:
            said = await self._context.guide.choices.shown(key, "model", locale)
            told = self._context.send_privately(key, press.user, escaped(said))
            self._context.spawn(told)

    async def on_chosen(self, sent: ModalSubmission) -> None:
        """The pickers were submitted: store the new choices."""
        key = convert.thread_of(sent.data)
        actor = await self._context.actor(key.space, sent.user, sent.user_team)
        locale = await self._context.users.locale(key.space, sent.user)
        said = [
            await self._context.guide.choices.choose(actor, (key,), kind, sent.values[kind], locale)
            for kind in KINDS
            if kind in sent.values
        ]
        text = escaped("\n".join(dict.fromkeys(said)))
        self._context.spawn(self._context.send_privately(key, sent.user, text))

    # -- shortcuts ------------------------------------------------------------------------------

    async def on_shortcut(self, press: Press) -> None:
        """A message shortcut: ask about the message, or reset its thread."""
        key = ThreadKey(PLATFORM, press.team, press.channel, press.thread)
        if press.action == RESET_SHORTCUT:
            await self._app_home.ask(press, "thread", str(key))
            return
        if press.action == SUMMARY_SHORTCUT:
            await self._summarise(press, key, "all")
            return
        if press.action == BRANCH_SHORTCUT:
            self._context.spawn(self._branch(press, key))
            return
        locale = await self._context.users.locale(press.team, press.user)
        element = {"type": "plain_text_input", "multiline": True, "max_length": 3000}
        question = components.question("question", say("shortcut_ask", locale), element)
        title = say("shortcut_ask", locale)
        data = f"{key}\n{press.response_url}"
        view = components.modal(ASKED, title, locale, question, data=data)
        self._context.spawn(self._context.open_modal(press.team, press.trigger, view))

    async def _branch(self, press: Press, place: ThreadKey) -> None:
        """Continue from a message: in a new thread of its channel, which the same people read."""
        locale = await self._context.users.locale(press.team, press.user)
        try:
            said = await self._branched(press, place, locale)
        except PlatformRefused as error:
            log.info("a conversation could not be continued", error=str(error))
            said = say("catchup_no_access", locale)
        if said:
            await self._context.respond(press.team, press.response_url, said)

    async def _branched(self, press: Press, place: ThreadKey, locale: str) -> str:
        """The sentence for the person; empty if there is none."""
        if not await self._context.backfill.may_read(place, press.user):
            return say("catchup_no_access", locale)
        actions, message = self._context.actions, press.message
        actor = await self._context.actor(press.team, press.user, press.user_team)
        fork = await actions.fork(actor, place, [message], press.trigger)
        if not isinstance(fork, Fork):
            return fork.sentence(locale)
        bot = await self._context.workspaces.bot(press.team)
        link = (
            f"<{link_to(bot, place.channel, message, place.thread)}|{say('branch_link', locale)}>"
        )
        opened = say("branch_opened", locale, person=f"<@{press.user}>", link=link)
        root = await self._context.post_notice(replace(place, thread=""), opened)
        branch = replace(place, thread=root)
        outcome = await actions.branch(actor, fork, branch)
        said = outcome.sentence(locale)
        if outcome.done and not place.channel.startswith("D"):
            said = f"{said} {say('branch_how', locale, mention=f'@{bot.name}')}"
        await self._context.post_notice(branch, said)
        return say("branch_told", locale, link=link_to(bot, place.channel, root))

    async def on_asked(self, sent: ModalSubmission) -> None:
        """The question of the shortcut's modal was submitted."""
        thread, _, url = sent.data.partition("\n")
        key, text = convert.thread_of(thread), sent.values.get("question", "")
        question = Question(sent.id, key.space, key.channel, key.thread, sent.user, text, url)
        await self._questions.accept(question)


def _press_of(told: SlashCommand) -> Press:
    """A command as a press: without a message."""
    return Press(
        "", "", told.user, told.team, told.trigger,
        channel=told.channel, response_url=told.response_url, user_team=told.team,
    )  # fmt: skip
