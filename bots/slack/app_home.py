"""The app's home page, the confirmation of resets, and the suggested prompts."""

from __future__ import annotations

from dataclasses import replace

from bots.actions import Actor, Outcome, Scope
from bots.slack import components, convert
from bots.slack.components import Block
from bots.slack.context import Context
from bots.slack.convert import PLATFORM, Bot, Malformed, ModalSubmission, Press, thread_of
from bots.slack.manifest import PROMPTS
from bots.slack.markdown import escaped
from bots.strings import say
from core.queue_types import Place
from core.types import ThreadKey

FORGET_ME = "henji_forget_me"
OPT_OUT, OPT_IN = "henji_opt_out", "henji_opt_in"
RESET_CHANNEL = "henji_reset_channel"
RESET_USER = "henji_reset_user"
RESET_SPACE = "henji_reset_space"
CONFIRM = "henji_confirm_reset"


class AppHome:
    """The home page and its modals."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def on_opened(self, body: convert.Json, team: str) -> None:
        """A user opened the home page, or the conversation with the bot."""
        opened = convert.parse_app_opened(body)
        place = ThreadKey(PLATFORM, team, opened.channel or "-", "-")
        refusal = await self._context.refusal(place, opened.user)
        if refusal is not None:
            self._context.spawn(self.publish_refusal(team, opened.user, refusal))
        elif opened.tab == "home":
            self._context.spawn(self.publish(team, opened.user))
        elif opened.tab == "messages":
            self._context.spawn(self._set_suggested_prompts(team, opened.channel, opened.user))
            if self._context.is_first_time(team, opened.user, "greeted"):
                self._context.spawn(self._greet(replace(place, thread=""), opened.user))

    async def _greet(self, place: ThreadKey, user: str) -> None:
        """The first words in a direct message, where nothing has been said yet."""
        if await self._context.backfill.is_empty(place):
            locale = await self._context.users.locale(place.space, user)
            here = replace(place, thread="-")
            said = await self._context.sentence("help", locale, user, here)
            await self._context.send_privately(place, user, said)

    async def _set_suggested_prompts(self, team: str, channel: str, user: str) -> None:
        locale = await self._context.users.locale(team, user)
        client = await self._context.workspaces.client(team)
        prompts = [
            {"title": say(f"prompt_{name}_title", locale), "message": say(f"prompt_{name}", locale)}
            for name in PROMPTS
        ]
        title = say("prompt_greeting", locale)
        await client.assistant_threads_setSuggestedPrompts(
            channel_id=channel, title=title, prompts=prompts
        )

    async def publish_refusal(self, team: str, user: str, refusal: str, notice: str = "") -> None:
        """The home page of a person who may not use the bot: what they may do all the same."""
        locale = await self._context.users.locale(team, user)
        actor = await self._context.actor(team, user)
        client = await self._context.workspaces.client(team)
        blocks = [components.section(refusal)] if refusal else []
        blocks += [components.context_block(notice)] if notice else []
        blocks += await self._own_data(actor, team, locale)
        await client.views_publish(user_id=user, view={"type": "home", "blocks": blocks})

    async def publish(self, team: str, user: str, notice: str = "") -> None:
        """Show a person their home page, with a notice about their last action."""
        locale = await self._context.users.locale(team, user)
        actor = await self._context.actor(team, user)
        admin = await self._context.actions.is_admin(actor, Place(PLATFORM, team).any_thread)
        bot = await self._context.workspaces.bot(team)
        client = await self._context.workspaces.client(team)
        page = [
            *await self._about(actor, team, locale, bot),
            *([components.context_block(notice)] if notice else []),
        ]
        page += await self._own_data(actor, team, locale)
        if admin:
            page += self._admin(locale)
        await client.views_publish(user_id=user, view={"type": "home", "blocks": page})

    async def _about(self, actor: Actor, team: str, locale: str, bot: Bot) -> list[Block]:
        here, guide = Place(PLATFORM, team).any_thread, self._context.guide
        hosts = await self._context.relay.model_hosts(here)
        model = escaped(await guide.model(here))
        sent = [say("home_host", locale, host=escaped(hosts))] if hosts else []
        facts = (
            say("home_what", locale),
            say("home_model", locale, model=model),
            *sent,
            escaped("\n".join(await guide.help(actor, here, locale))),
            say("ai_notice", locale, model=model),
        )
        return [
            components.header(say("home_title", locale, name=bot.name)),
            *(components.section(fact) for fact in facts),
        ]

    async def _own_data(self, actor: Actor, team: str, locale: str) -> list[Block]:
        """To forget one's words, and to opt out of training."""
        blocks = [self._forget_button(locale)]
        if self._context.actions.may_collect(PLATFORM):
            out = await self._context.actions.has_opted_out(actor, [Place(PLATFORM, team)])
            blocks += self._training(locale, out=out)
        return blocks

    def _forget_button(self, locale: str) -> Block:
        ask = say("reset_confirm", locale, scope=say("scope_mine", locale))
        label = say("home_forget", locale)
        return components.actions(
            components.dangerous_button(FORGET_ME, label, "mine", ask, locale)
        )

    def _training(self, locale: str, *, out: bool) -> list[Block]:
        """The section about training data, with the button to opt out or in."""
        key = "opt_in" if out else "opt_out"
        button = components.button(f"henji_{key}", say(key, locale), key)
        return [components.section(say("privacy_training", locale)), components.actions(button)]

    def _admin(self, locale: str) -> list[Block]:
        buttons = (
            components.button(action, say(f"home_reset_{name}", locale), name)
            for action, name in (
                (RESET_CHANNEL, "channel"),
                (RESET_USER, "user"),
                (RESET_SPACE, "space"),
            )
        )
        return [components.header(say("home_admin", locale)), components.actions(*buttons)]

    # -- resets ---------------------------------------------------------------------------------

    async def on_press(self, press: Press) -> None:
        """A button of the home page."""
        actions, place = self._context.actions, Place(PLATFORM, press.team)
        actor = await self._context.actor(press.team, press.user, press.user_team)
        if press.action == FORGET_ME:
            outcome = await actions.reset(actor, Scope("mine", place))
        elif press.action in (OPT_OUT, OPT_IN):
            outcome = await actions.opt_out(actor, [place], out=press.action == OPT_OUT)
        else:
            await self.ask(press, press.action.removeprefix("henji_reset_"))
            return
        self._context.spawn(self._publish_outcome(press, outcome))

    async def _publish_outcome(self, press: Press, outcome: Outcome) -> None:
        team, user = press.team, press.user
        notice = outcome.sentence(await self._context.users.locale(team, user))
        place = Place(PLATFORM, team).any_thread
        refusal = await self._context.refusal(place, user, press.user_team)
        if refusal is None:
            await self.publish(team, user, notice)
        else:
            await self.publish_refusal(team, user, refusal, notice)

    async def ask(self, press: Press, kind: str, what: str = "") -> None:
        """Open the confirmation of a reset; without `what`, a channel or user is chosen there."""
        locale = await self._context.users.locale(press.team, press.user)
        named = say(f"scope_{kind}", locale)
        inputs: list[Block] = [components.section(say("reset_confirm", locale, scope=named))]
        if not what and kind in ("channel", "user"):
            select = "conversations_select" if kind == "channel" else "users_select"
            label = say(f"reset_pick_{kind}", locale)
            inputs.append(components.question("what", label, {"type": select}))
        title = say("reset_title", locale)
        url = "" if press.action else press.response_url  # a command leaves it for the answer
        data = "\n".join((f"{kind} {what}", f"{press.channel} {press.thread}", url))
        view = components.modal(CONFIRM, title, locale, *inputs, data=data, yes="reset_yes")
        self._context.spawn(self._context.open_modal(press.team, press.trigger, view))

    async def on_confirmed(self, team: str, sent: ModalSubmission) -> None:
        """The confirmation was submitted: reset, and tell the person the result."""
        first, place, url = [*sent.data.split("\n"), "", ""][:3]
        kind, _, what = first.partition(" ")
        meant = scope(team, kind, what or sent.values.get("what", ""))
        actor = await self._context.actor(team, sent.user, sent.user_team)
        outcome = await self._context.actions.reset(actor, meant)
        sentence = outcome.sentence(await self._context.users.locale(team, sent.user))
        channel, _, thread = place.partition(" ")
        if url:
            self._context.spawn(self._context.respond(team, url, sentence))
        elif channel:
            key = ThreadKey(PLATFORM, team, channel, thread)
            self._context.spawn(self._context.send_privately(key, sent.user, sentence))
        else:
            self._context.spawn(self.publish(team, sent.user, sentence))


def scope(team: str, kind: str, what: str) -> Scope:
    """The scope of a reset; `what` is the id of its thread, channel or user."""
    space = Place(PLATFORM, team)
    match kind:
        case "thread":
            return Scope("thread", space, thread_of(what))
        case "channel" if what:
            return Scope("channel", Place(PLATFORM, team, what), own=what.startswith("D"))
        case "user" if what:
            return Scope("user", space, person=what)
        case "space":
            return Scope("space", space)
    raise Malformed("private_metadata")
