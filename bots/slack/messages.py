"""What people write: who is answered, and what becomes of edits and deletions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from bots.follow_ups import speaks_to_bot
from bots.platform import Incoming, Status
from bots.slack import convert
from bots.slack.components import escape
from bots.slack.context import Context
from bots.slack.convert import Bot, MessagePosted, SessionStopped, TextCommand
from bots.strings import failure, say
from core.bounded import Bounded
from core.errors import StoreUnavailable
from core.queue_types import Delivery
from core.types import ThreadKey, Turn

LAST_RETRY = 3
"""Slack delivers an event four times in all."""
BOT_TURNS = 3
"""How often in a row other bots are answered in one thread before a person has to say something."""
KEPT_THREADS = 10_000
AT_ONCE = 16
"""How many messages are on their way to Redis: more would only be more connections."""

log = structlog.get_logger()


class MessageHandler:
    """Listens to messages. Nothing here waits for a reply: a message is stored, and that is all."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._bot_turns = Bounded[ThreadKey, int](KEPT_THREADS)
        self._places = asyncio.Semaphore(AT_ONCE)
        self._called = Bounded[ThreadKey, str](KEPT_THREADS)
        """Thread -> the message that first named the bot there, as far as this process knows."""

    async def on_posted(self, posted: MessagePosted, bot: Bot, retry: int = 0) -> None:
        """Store a message; StoreUnavailable where that failed, so that Slack delivers it again."""
        try:
            await self.handle(posted, bot)
        except StoreUnavailable:
            if retry >= LAST_RETRY and (posted.mentioned or posted.direct):
                locale = await self._context.users.locale(bot.team, posted.user, posted.text)
                sentence = failure("store_down", locale)
                self._context.spawn(self._context.send_privately(posted.key, posted.user, sentence))
            raise

    async def handle(self, posted: MessagePosted, bot: Bot) -> None:
        """A message, new or seen late."""
        if not self._may_be_answered(posted):
            return
        addressed = await self._is_addressed(posted)
        if addressed is None:
            return
        if addressed and self._is_stranger(posted, bot):
            if self._context.behaviour.strangers == "sentence" and self._first(posted, "stranger"):
                self._context.spawn(self._context.tell(posted.key, posted.user, "stranger"))
            return
        if addressed and await self._was_command(posted, bot):
            return
        await self._submit(posted, bot, addressed)

    def _first(self, posted: MessagePosted, what: str) -> bool:
        return self._context.is_first_time(posted.key.channel, posted.ts, what)

    # -- who is answered ------------------------------------------------------------------------

    def _may_be_answered(self, posted: MessagePosted) -> bool:
        """People are; other bots only where they are allowed, named us, and are not in a loop."""
        turns = self._bot_turns
        if posted.bot_id is None:
            turns.pop(posted.key, None)
            return True
        allowed = self._context.behaviour.allowed_bots
        if not ({posted.bot_id, posted.user} & allowed and posted.mentioned):
            return False
        turns[posted.key] = turns.get(posted.key, 0) + self._first(posted, "bot")
        return turns[posted.key] <= BOT_TURNS

    def _is_stranger(self, posted: MessagePosted, bot: Bot) -> bool:
        return posted.user_team != bot.team and self._context.behaviour.strangers != "answer"

    async def _is_addressed(self, posted: MessagePosted) -> bool | None:
        """Whether an answer is asked for; None where the message is nothing to the bot."""
        if posted.direct or posted.mentioned:
            self._called.setdefault(posted.key, posted.ts)
            return True
        if not posted.inside or not await self._context.history.takes_part(posted.key):
            return None
        follow_ups = await self._context.relay.follow_ups(
            posted.key, self._context.behaviour.follow_ups
        )
        if posted.others or follow_ups == "mention":
            return False
        turns = [stored.turn for stored in await self._context.history.turns(posted.key)]
        if self._was_overtaken(posted, turns):
            return None  # it is read with what was said before
        return follow_ups == "always" or speaks_to_bot(posted.user, turns)

    def _was_overtaken(self, posted: MessagePosted, turns: Sequence[Turn]) -> bool:
        """It was said before the bot was called into the thread, and its event came after that."""
        if posted.key in self._called:
            return float(posted.ts) < float(self._called[posted.key])
        later = any(float(turn.id) > float(posted.ts) for turn in turns if turn.role == "user")
        spoke = any(turn.at < float(posted.ts) for turn in turns if turn.role == "assistant")
        return later and not spoke

    # -- what they want -------------------------------------------------------------------------

    async def _was_command(self, posted: MessagePosted, bot: Bot) -> bool:
        """Whether the message was not a question but a command, or nothing at all."""
        command = convert.text_command(posted, bot)
        if command is not None:
            await self._run_command(command, posted, bot)
            return True
        if posted.files and self._first(posted, "files"):
            self._context.spawn(self._context.tell(posted.key, posted.user, "files_not_read"))
        if convert.readable(posted.text, bot, {}):
            return False
        if not posted.files and self._first(posted, "nothing"):
            self._context.spawn(self._context.tell(posted.key, posted.user, "nothing_asked"))
        return True

    async def _run_command(self, command: TextCommand, posted: MessagePosted, bot: Bot) -> None:
        if command == "reset":
            await self._reset(posted)
        elif command == "stop":
            await self._stop(posted.key, posted.user)
        elif self._first(posted, command):
            locale = await self._context.users.locale(bot.team, posted.user, posted.text)
            sentence = self.sentence(command, locale, bot)
            self._context.spawn(self._context.send_privately(posted.key, posted.user, sentence))

    def sentence(self, command: str, locale: str, bot: Bot) -> str:
        """What help, privacy and model answer."""
        behaviour = self._context.behaviour
        key = "help_slack" if command == "help" else command
        return say(
            key,
            locale,
            name=bot.name,
            model=escape(behaviour.model),
            mention=f"@{bot.name}",
            days=f"{behaviour.days:g}",
        )

    async def _reset(self, posted: MessagePosted) -> None:
        turns = await self._context.relay.reset(posted.key, posted.user)
        if self._first(posted, "reset"):
            sentence = "reset_done" if turns else "reset_nothing"
            self._context.spawn(self._context.tell(posted.key, posted.user, sentence))

    async def _stop(self, key: ThreadKey, user: str, streams: tuple[str, ...] = ()) -> bool:
        """Whether a reply of the thread was stopped; the person is told why not."""
        found = await self._context.job_in(key, streams)
        if found is None:
            self._context.spawn(self._context.tell(key, user, "too_late"))
            return False
        job, author = found
        if not await self._context.may_govern(key, user, author):
            self._context.spawn(self._context.tell(key, user, "not_yours"))
            return False
        if not await self._context.relay.stop(key, job):
            self._context.spawn(self._context.tell(key, user, "too_late"))
            return False
        return True

    async def on_session_stopped(self, stopped: SessionStopped) -> None:
        """Slack's Stop button has ended the stream already: the work must end, and the session.

        Where somebody else than who asked has pressed it, the reply goes on without a stream.
        """
        await self._stop(stopped.key, stopped.user, stopped.streams)
        self._context.spawn(self._context.platform.end_session(stopped.key))

    # -- storing --------------------------------------------------------------------------------

    async def _submit(self, posted: MessagePosted, bot: Bot, addressed: bool) -> None:
        users = self._context.users
        names = await users.names(bot.team, convert.user_ids_in(posted))
        note = {"locale": await users.locale(bot.team, posted.user, posted.text)}
        if posted.user_team != bot.team:
            note["team"] = posted.user_team
        incoming = convert.incoming(posted, bot, names, addressed=addressed, note=note)
        async with self._places:
            receipt = await self._context.relay.submit(incoming)
        if receipt.outcome == "queued" and receipt.job:
            self._context.spawn(self._say_at_once(incoming, receipt.job))
        log.info("message", outcome=receipt.outcome, job=receipt.job, position=receipt.position)

    async def _say_at_once(self, incoming: Incoming, job: str) -> None:
        """A first sign, before any core has looked at the message."""
        turn = incoming.turn
        delivery = Delivery(job, incoming.thread, turn.id, turn.author, token=1, note=incoming.note)
        await self._context.platform.status(delivery, Status("thinking"))

    async def catch_up(self, message: convert.Json, key: ThreadKey, bot: Bot) -> None:
        """Take a message that was missed as if its event had come."""
        posted = convert.parse_event({"event": {**message, "channel": key.channel}}, bot)
        if isinstance(posted, MessagePosted):
            await self.handle(posted, bot)
