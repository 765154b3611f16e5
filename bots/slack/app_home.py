"""The app's home page, the resets that are begun there, and the first words in the agent pane."""

from __future__ import annotations

from dataclasses import dataclass

from bots.slack import components, convert
from bots.slack.components import Block
from bots.slack.context import Context
from bots.slack.convert import PLATFORM, Bot, ModalSubmission, Press
from bots.strings import say
from core.queue_types import Place
from core.types import ThreadKey

FORGET_ME = "henji_forget_me"
RESET_CHANNEL = "henji_reset_channel"
RESET_USER = "henji_reset_user"
RESET_SPACE = "henji_reset_space"
CONFIRM = "henji_confirm_reset"
PROMPTS = ("summary", "draft", "ideas")


@dataclass(frozen=True, slots=True)
class Scope:
    """What is to be forgotten. `what` is an id, where there is one."""

    kind: str
    what: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.what}"

    @classmethod
    def parse(cls, text: str) -> Scope:
        kind, _, what = text.partition(" ")
        return cls(kind, what)


class AppHome:
    """Pages and modals."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def on_opened(self, body: convert.Json, team: str) -> None:
        """Somebody opened the app: its home page, or the conversation with it."""
        opened = convert.parse_app_opened(body)
        if opened.tab == "home":
            self._context.spawn(self.publish(team, opened.user))
        elif opened.tab == "messages":
            self._context.spawn(self._set_suggested_prompts(team, opened.channel, opened.user))

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

    async def publish(self, team: str, user: str, notice: str = "") -> None:
        """Show a person their home page, with what they did there last."""
        locale = await self._context.users.locale(team, user)
        admin = await self._context.is_admin(ThreadKey(PLATFORM, team, "", ""), user)
        bot = await self._context.workspaces.bot(team)
        client = await self._context.workspaces.client(team)
        page = [*self._about(locale, bot), *([components.context_block(notice)] if notice else [])]
        page += [self._forget_button(locale)]
        if admin:
            page += self._admin(locale)
        await client.views_publish(user_id=user, view={"type": "home", "blocks": page})

    def _about(self, locale: str, bot: Bot) -> list[Block]:
        behaviour = self._context.behaviour
        facts = (
            say("home_what", locale),
            say("home_model", locale, model=components.escape(behaviour.model)),
            say("home_memory", locale, days=f"{behaviour.days:g}"),
            say("ai_notice", locale, model=components.escape(behaviour.model)),
        )
        return [
            components.header(say("home_title", locale, name=bot.name)),
            *(components.section(fact) for fact in facts),
        ]

    def _forget_button(self, locale: str) -> Block:
        ask = say("reset_confirm", locale, scope=say("scope_mine", locale))
        label = say("home_forget", locale)
        return components.actions(
            components.dangerous_button(FORGET_ME, label, "mine", ask, locale)
        )

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
        if press.action == FORGET_ME:
            await self._forget(press.team, press.user, Scope("mine"))
            self._context.spawn(self._publish_done(press.team, press.user, "mine"))
            return
        await self.ask(press, Scope(press.action.removeprefix("henji_reset_")))

    async def _publish_done(self, team: str, user: str, kind: str) -> None:
        locale = await self._context.users.locale(team, user)
        done = say("reset_scope_done", locale, scope=say(f"scope_{kind}", locale))
        await self.publish(team, user, done)

    async def ask(self, press: Press, scope: Scope) -> None:
        """The dialogue before a reset; what is to be reset is chosen there where it is open."""
        locale = await self._context.users.locale(press.team, press.user)
        named = say(f"scope_{scope.kind}", locale)
        inputs: list[Block] = [components.section(say("reset_confirm", locale, scope=named))]
        if not scope.what and scope.kind in ("channel", "user"):
            kind = "conversations_select" if scope.kind == "channel" else "users_select"
            label = say(f"reset_pick_{scope.kind}", locale)
            inputs.append(components.question("what", label, {"type": kind}))
        title = say("reset_title", locale)
        url = "" if press.action else press.response_url  # a command leaves it to answer by
        data = "\n".join((str(scope), f"{press.channel} {press.thread}", url))
        view = components.modal(CONFIRM, title, locale, *inputs, data=data, yes="reset_yes")
        self._context.spawn(self._context.open_modal(press.team, press.trigger, view))

    async def on_confirmed(self, team: str, sent: ModalSubmission) -> None:
        """The dialogue was sent: check again who it is, and forget."""
        first, place, url = [*sent.data.split("\n"), "", ""][:3]
        channel, _, thread = place.partition(" ")
        asked = Scope.parse(first)
        scope = Scope(asked.kind, asked.what or sent.values.get("what", ""))
        done = await self._forget(team, sent.user, scope)
        locale = await self._context.users.locale(team, sent.user)
        named = say(f"scope_{scope.kind}", locale)
        sentence = say("reset_scope_done" if done else "reset_refused", locale, scope=named)
        if url:
            self._context.spawn(self._context.respond(team, url, sentence))
        elif channel:
            key = ThreadKey(PLATFORM, team, channel, thread)
            self._context.spawn(self._context.send_privately(key, sent.user, sentence))
        else:
            self._context.spawn(self.publish(team, sent.user, sentence))

    async def _forget(self, team: str, user: str, scope: Scope) -> bool:
        """Whether the person was allowed to, and it was done."""
        own = scope.kind in ("mine", "thread") or scope.what.startswith("D")
        channel = scope.what if scope.kind == "channel" else ""
        key = ThreadKey(PLATFORM, team, channel, "")
        if not own and not await self._context.is_admin(key, user):
            return False
        history, space = self._context.history, Place(PLATFORM, team)
        match scope.kind:
            case "mine":
                await history.forget(space, user)
            case "user":
                await history.forget(space, scope.what, by=user)
            case "thread":
                await self._context.relay.reset(ThreadKey.parse(scope.what), user)
            case "channel":
                await history.reset_place(Place(PLATFORM, team, scope.what), user)
            case "space":
                await history.reset_place(space, user)
            case _:
                return False
        return True
