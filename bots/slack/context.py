"""What every listener works with, and how it speaks to one person."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal

import structlog
from slack_sdk.webhook.async_client import AsyncWebhookClient

from bots.relay import Relay
from bots.slack.api import SlackApi, Workspaces
from bots.slack.backfill import Backfill
from bots.slack.components import Block
from bots.slack.platform import SlackPlatform
from bots.slack.rate_limits import POST
from bots.slack.users import Users
from bots.strings import say
from core.access_policy import Asker
from core.bounded import Bounded
from core.ports import Deliveries, Feedback, History
from core.types import ThreadKey

KEPT = 10_000

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How the bot behaves in Slack."""

    model: str
    """How the model is called before people."""
    days: float
    """How long a quiet conversation is remembered."""
    follow_ups: Literal["always", "alone", "mention"] = "alone"
    strangers: Literal["answer", "sentence", "ignore"] = "sentence"
    allowed_bots: frozenset[str] = frozenset()


@dataclass(slots=True)
class Context:
    """The listeners' tools."""

    relay: Relay
    history: History
    deliveries: Deliveries
    feedback: Feedback
    workspaces: Workspaces
    platform: SlackPlatform
    users: Users
    api: SlackApi
    backfill: Backfill
    behaviour: Behaviour
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _told: Bounded[tuple[str, ...], None] = field(default_factory=lambda: Bounded(KEPT))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that no acknowledgement has to wait for."""
        task = asyncio.create_task(self._log_failure(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _log_failure(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            log.warning("could not tell a person", error=type(error).__name__)

    async def close(self) -> None:
        """Finish what was begun."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)

    def is_first_time(self, *what: str) -> bool:
        """Whether this was not done before by this process: events come again."""
        if what in self._told:
            return False
        self._told[what] = None
        return True

    async def send_privately(self, key: ThreadKey, user: str, text: str) -> None:
        """Tell one person, where they are: nobody else sees it, nor does the history."""
        client = await self.workspaces.client(key.space)
        if key.channel.startswith("D"):
            await self.api.call(
                POST,
                key.space,
                key.channel,
                lambda: client.chat_postMessage(
                    channel=key.channel,
                    thread_ts=key.thread or None,
                    text=text,
                    unfurl_links=False,
                    unfurl_media=False,
                ),
            )
            return
        await self.api.call(
            "chat.postEphemeral",
            key.space,
            key.channel,
            lambda: client.chat_postEphemeral(
                channel=key.channel, user=user, text=text, thread_ts=key.thread or None
            ),
        )

    async def respond(self, team: str, url: str, text: str) -> None:
        """Answer a command by the address that came with it: that works where the bot is no
        member, too."""
        client = await self.workspaces.client(team)
        webhook = AsyncWebhookClient(url, session=client.session, logger=client.logger)
        await webhook.send(text=text, response_type="ephemeral")

    async def tell(self, key: ThreadKey, user: str, sentence: str, **values: object) -> None:
        """Whisper one of the bot's sentences, in the person's language."""
        locale = await self.users.locale(key.space, user)
        await self.send_privately(key, user, say(sentence, locale, **values))

    async def open_modal(self, team: str, trigger: str, view: Block) -> None:
        client = await self.workspaces.client(team)
        await client.views_open(trigger_id=trigger, view=view)

    async def may_govern(self, key: ThreadKey, user: str, author: str) -> bool:
        """Whether a person may stop or redo what `author` asked for."""
        return user == author or await self.is_admin(key, user)

    async def job_in(
        self, key: ThreadKey, messages: tuple[str, ...] = ()
    ) -> tuple[str, str] | None:
        """The reply under way in a thread and who asked for it, whichever process brings it out;
        `messages` may belong to it."""
        owed = await self.relay.owed(key)
        for message in messages:
            found = await self.deliveries.locate(key, message)
            if found is not None and found[1] in owed:
                return found[1], owed[found[1]]
        return next(iter(owed.items()), None)

    async def is_admin(self, key: ThreadKey, user: str) -> bool:
        """By the workspace, by the settings, or by the rules of the place."""
        of_platform = await self.users.is_admin(key.space, user)
        access = self.relay.access
        return access.is_admin(Asker(key, user), of_platform=of_platform)
