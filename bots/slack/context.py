"""Shared by the handlers: stores, Slack's API, and private messages to one person."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import structlog
from slack_sdk.webhook.async_client import AsyncWebhookClient

from bots.actions import FILE_NAME, Actions, Actor, Outcome
from bots.guide import Guide
from bots.platform import PlatformRefused
from bots.relay import Relay
from bots.slack.api import WITHOUT_PREVIEWS, SlackApi, Workspaces
from bots.slack.backfill import Backfill
from bots.slack.components import Block, shortened
from bots.slack.convert import NOTICE_METADATA
from bots.slack.markdown import escaped
from bots.slack.platform import SlackPlatform
from bots.slack.rate_limits import POST, Bucket
from bots.slack.settings import SlackSettings
from bots.slack.users import Users
from bots.strings import about, say
from core.ports import History
from core.types import Bounded, ThreadKey

KEPT = 10_000
PRIVATELY = 20
"""Private messages to one person in a minute: all people of a workspace share Slack's limit."""

log = structlog.get_logger()


@dataclass(slots=True)
class Context:
    """The objects that the handlers share."""

    relay: Relay
    actions: Actions
    history: History
    workspaces: Workspaces
    platform: SlackPlatform
    users: Users
    api: SlackApi
    backfill: Backfill
    settings: SlackSettings
    guide: Guide
    second: float = 1.0
    """Shorter in tests."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _told: Bounded[tuple[str, ...], None] = field(default_factory=lambda: Bounded(KEPT))
    _private: Bounded[tuple[str, str], Bucket] = field(default_factory=lambda: Bounded(KEPT))
    """Person -> the private messages to them."""

    async def actor(self, team: str, user: str, user_team: str = "") -> Actor:
        """The person, for `Actions`; `user_team` is their own, where Slack says it."""
        bot = await self.workspaces.bot(team)
        stranger = await self.users.is_stranger(bot, user, user_team)
        return Actor(user, manages=partial(self.users.is_admin, team, user), stranger=stranger)

    async def sentence(self, command: str, locale: str, user: str, place: ThreadKey) -> str:
        """The answer to help, privacy and usage for a person."""
        actor = await self.actor(place.space, user)
        if command == "usage":
            return escaped(await self.guide.usage(actor, place, locale))
        bot = await self.workspaces.bot(place.space)
        said = about(
            "help_slack" if command == "help" else command,
            locale,
            escaped(await self.relay.model_hosts(place)),
            name=bot.name,
            model=escaped(await self.guide.model(place)),
            mention=f"@{bot.name}",
            days=f"{self.settings.retention_days:g}",
        )
        if command != "help":
            return said
        admins = say("help_admins", locale, commands="`config`, `audit`")
        lines = await self.guide.help(actor, place, locale, admins)
        return "\n".join((said, *map(escaped, lines)))

    async def refusal(self, key: ThreadKey, user: str, user_team: str = "") -> str | None:
        """None for a person who may use the bot there; else the refusal, perhaps empty."""
        actor = await self.actor(key.space, user, user_team)
        refusal = await self.actions.refusal(actor, key)
        if refusal is None:
            return None
        return refusal.sentence(await self.users.locale(key.space, user))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something after the acknowledgement."""
        task = asyncio.create_task(self._log_failure(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _log_failure(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            log.warning("could not tell a person", error=type(error).__name__)

    async def close(self) -> None:
        """Wait for the background work, at most five seconds."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)

    def is_first_time(self, *what: str) -> bool:
        """Whether this process has not done this before: events may be redelivered."""
        if what in self._told:
            return False
        self._told[what] = None
        return True

    async def send_privately(self, key: ThreadKey, user: str, text: str) -> None:
        """Send a message that only one person sees and that no history keeps. A flood of one
        person's presses and commands gets no more than PRIVATELY."""
        limiter = self.api.limiter
        sent = self._private.setdefault((key.space, user), Bucket(PRIVATELY, limiter.minute))
        if not sent.try_acquire():
            log.info("a person is told nothing more for now", user=user)
            return
        await self.api.post_privately(key, user, shortened(text))

    async def respond(
        self, team: str, url: str, text: str, blocks: Sequence[Block] = (), *, replace: bool = False
    ) -> None:
        """Answer by a command's response_url: it works where the bot is not a member too."""
        client = await self.workspaces.client(team)
        webhook = AsyncWebhookClient(url, session=client.session, logger=client.logger)
        await webhook.send(
            text=shortened(text),
            blocks=blocks or None,
            response_type="ephemeral",
            replace_original=replace or None,
        )

    async def tell(self, key: ThreadKey, user: str, sentence: str, **values: object) -> None:
        """Send one of the bot's sentences privately, in the person's language."""
        locale = await self.users.locale(key.space, user)
        await self.send_privately(key, user, say(sentence, locale, **values))

    def report(self, key: ThreadKey, user: str, outcome: Outcome) -> None:
        """Tell a person the result of an action, in the background."""
        self.spawn(self._report(key, user, outcome))

    async def _report(self, key: ThreadKey, user: str, outcome: Outcome) -> None:
        sentence = outcome.sentence(await self.users.locale(key.space, user))
        if sentence:
            await self.send_privately(key, user, sentence)

    async def send_file(self, key: ThreadKey, user: str, outcome: Outcome) -> None:
        """Send what came of an action as a file, where only the person sees it: Slack shows a file
        to everybody in a channel, so it goes to their direct messages."""
        locale = await self.users.locale(key.space, user)
        is_private, said = key.channel.startswith("D"), outcome.sentence(locale)
        try:
            direct = key if is_private else await self._say_directly(key, user, said)
            await self.api.send_file(direct, FILE_NAME, outcome.text.encode())
        except PlatformRefused as refusal:
            await self.send_privately(key, user, say("file_refused", locale, reason=refusal))
        else:
            if not is_private:
                await self.send_privately(key, user, say("file_is_sent", locale))

    async def _say_directly(self, key: ThreadKey, user: str, text: str) -> ThreadKey:
        """Write to a person directly: the place where that is."""
        posted = await self._post(replace(key, channel=user, thread=""), text)
        return replace(key, channel=str(posted["channel"]), thread="")

    async def post_notice(self, key: ThreadKey, text: str) -> str:
        """Say something of the bot's own in a channel, or in a thread; the message's ts."""
        return str((await self._post(key, text))["ts"])

    async def _post(self, place: ThreadKey, text: str) -> Any:
        thread = place.thread or None
        content: dict[str, Any] = {"channel": place.channel, "thread_ts": thread, "text": text}
        notice = {"event_type": NOTICE_METADATA, "event_payload": {}}
        return await self.api.call(
            POST, place, notice=True, metadata=notice, **WITHOUT_PREVIEWS, **content
        )

    async def open_modal(self, team: str, trigger: str, view: Block) -> None:
        client = await self.workspaces.client(team)
        await client.views_open(trigger_id=trigger, view=view)
