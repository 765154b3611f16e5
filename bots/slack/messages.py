"""What people write: who is answered, and what becomes of edits and deletions."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

import structlog

from bots.follow_ups import speaks_to_bot
from bots.platform import Incoming, Status
from bots.slack import convert
from bots.slack.components import escaped
from bots.slack.context import Desk
from bots.slack.convert import Bot, Command, Said, Stopped
from bots.strings import failure, say
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


class Messages:
    """Listens to messages. Nothing here waits for a reply: a message is stored, and that is all."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._bot_turns: OrderedDict[ThreadKey, int] = OrderedDict()
        self._places = asyncio.Semaphore(AT_ONCE)
        self._called: OrderedDict[ThreadKey, str] = OrderedDict()
        """Thread -> the message that first named the bot there, as far as this process knows."""

    async def on_said(self, said: Said, bot: Bot, retry: int = 0) -> None:
        """Store a message; StoreUnavailable where that failed, so that Slack delivers it again."""
        try:
            await self.said(said, bot)
        except StoreUnavailable:
            if retry >= LAST_RETRY and (said.mentioned or said.direct):
                locale = await self._desk.people.locale(bot.team, said.user, said.text)
                sentence = failure("store_down", locale)
                self._desk.later(self._desk.whisper(said.key, said.user, sentence))
            raise

    async def said(self, said: Said, bot: Bot) -> None:
        """A message, new or seen late."""
        if not self._is_welcome(said):
            return
        addressed = await self._is_addressed(said)
        if addressed is None:
            return
        if addressed and self._is_stranger(said, bot):
            if self._desk.terms.strangers == "sentence" and self._first(said, "stranger"):
                self._desk.later(self._desk.tell(said.key, said.user, "stranger"))
            return
        if addressed and await self._obeyed(said, bot):
            return
        await self._submit(said, bot, addressed)

    def _first(self, said: Said, what: str) -> bool:
        return self._desk.first_time(said.key.channel, said.ts, what)

    # -- who is answered ------------------------------------------------------------------------

    def _is_welcome(self, said: Said) -> bool:
        """People are; other bots only where they are allowed, named us, and are not in a loop."""
        turns = self._bot_turns
        if said.bot_id is None:
            turns.pop(said.key, None)
            return True
        allowed = self._desk.terms.allowed_bots
        if not ({said.bot_id, said.user} & allowed and said.mentioned):
            return False
        turns[said.key] = turns.get(said.key, 0) + self._first(said, "bot")
        if len(turns) > KEPT_THREADS:
            turns.popitem(last=False)
        return turns[said.key] <= BOT_TURNS

    def _is_stranger(self, said: Said, bot: Bot) -> bool:
        return said.user_team != bot.team and self._desk.terms.strangers != "answer"

    async def _is_addressed(self, said: Said) -> bool | None:
        """Whether an answer is asked for; None where the message is nothing to the bot."""
        if said.direct or said.mentioned:
            self._called.setdefault(said.key, said.ts)
            if len(self._called) > KEPT_THREADS:
                self._called.popitem(last=False)
            return True
        if not said.inside or not await self._desk.history.takes_part(said.key):
            return None
        follow_ups = await self._desk.relay.follow_ups(said.key, self._desk.terms.follow_ups)
        if said.others or follow_ups == "mention":
            return False
        turns = [stored.turn for stored in await self._desk.history.turns(said.key)]
        if self._was_overtaken(said, turns):
            return None  # it is read with what was said before
        return follow_ups == "always" or speaks_to_bot(said.user, turns)

    def _was_overtaken(self, said: Said, turns: Sequence[Turn]) -> bool:
        """It was said before the bot was called into the thread, and its event came after that."""
        if said.key in self._called:
            return float(said.ts) < float(self._called[said.key])
        later = any(float(turn.id) > float(said.ts) for turn in turns if turn.role == "user")
        spoke = any(turn.at < float(said.ts) for turn in turns if turn.role == "assistant")
        return later and not spoke

    # -- what they want -------------------------------------------------------------------------

    async def _obeyed(self, said: Said, bot: Bot) -> bool:
        """Whether the message was not a question but a command, or nothing at all."""
        command = convert.command_in(said, bot)
        if command is not None:
            await self._obey(command, said, bot)
            return True
        if said.files and self._first(said, "files"):
            self._desk.later(self._desk.tell(said.key, said.user, "files_not_read"))
        if convert.plain(said.text, bot, {}):
            return False
        if not said.files and self._first(said, "nothing"):
            self._desk.later(self._desk.tell(said.key, said.user, "nothing_asked"))
        return True

    async def _obey(self, command: Command, said: Said, bot: Bot) -> None:
        if command == "reset":
            await self._reset(said)
        elif command == "stop":
            await self._stop(said.key, said.user)
        elif self._first(said, command):
            locale = await self._desk.people.locale(bot.team, said.user, said.text)
            sentence = self.sentence(command, locale, bot)
            self._desk.later(self._desk.whisper(said.key, said.user, sentence))

    def sentence(self, command: str, locale: str, bot: Bot) -> str:
        """What help, privacy and model answer."""
        terms = self._desk.terms
        key = "help_slack" if command == "help" else command
        return say(
            key,
            locale,
            name=bot.name,
            model=escaped(terms.model),
            mention=f"@{bot.name}",
            days=f"{terms.days:g}",
        )

    async def _reset(self, said: Said) -> None:
        turns = await self._desk.relay.reset(said.key, said.user)
        if self._first(said, "reset"):
            sentence = "reset_done" if turns else "reset_nothing"
            self._desk.later(self._desk.tell(said.key, said.user, sentence))

    async def _stop(self, key: ThreadKey, user: str, streams: tuple[str, ...] = ()) -> bool:
        """Whether a reply of the thread was stopped; the person is told why not."""
        found = await self._desk.job_in(key, streams)
        if found is None:
            self._desk.later(self._desk.tell(key, user, "too_late"))
            return False
        job, author = found
        if not await self._desk.may_govern(key, user, author):
            self._desk.later(self._desk.tell(key, user, "not_yours"))
            return False
        if not await self._desk.relay.stop(key, job):
            self._desk.later(self._desk.tell(key, user, "too_late"))
            return False
        return True

    async def on_session_stopped(self, stopped: Stopped) -> None:
        """Slack's Stop button has ended the stream already: the work must end, and the session.

        Where somebody else than who asked has pressed it, the reply goes on without a stream.
        """
        await self._stop(stopped.key, stopped.user, stopped.streams)
        self._desk.later(self._desk.platform.leave_session(stopped.key))

    # -- storing --------------------------------------------------------------------------------

    async def _submit(self, said: Said, bot: Bot, addressed: bool) -> None:
        people = self._desk.people
        names = await people.names(bot.team, convert.people_in(said))
        note = {"locale": await people.locale(bot.team, said.user, said.text)}
        if said.user_team != bot.team:
            note["team"] = said.user_team
        incoming = convert.incoming(said, bot, names, addressed=addressed, note=note)
        async with self._places:
            receipt = await self._desk.relay.submit(incoming)
        if receipt.outcome == "queued" and receipt.job:
            self._desk.later(self._say_at_once(incoming, receipt.job))
        log.info("message", outcome=receipt.outcome, job=receipt.job, position=receipt.position)

    async def _say_at_once(self, incoming: Incoming, job: str) -> None:
        """A first sign, before any core has looked at the message."""
        turn = incoming.turn
        delivery = Delivery(job, incoming.thread, turn.id, turn.author, token=1, note=incoming.note)
        await self._desk.platform.status(delivery, Status("thinking"))

    async def catch_up(self, message: convert.Json, key: ThreadKey, bot: Bot) -> None:
        """Take a message that was missed as if its event had come."""
        said = convert.happening({"event": {**message, "channel": key.channel}}, bot)
        if isinstance(said, Said):
            await self.said(said, bot)
