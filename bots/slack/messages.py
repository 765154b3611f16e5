"""Messages: which are answered, which are text commands, and how they are stored."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

from bots.actions import Scope, is_follow_up
from bots.attachments import is_question, names_of
from bots.choices import KINDS
from bots.markdown import title_of
from bots.platform import Incoming, Status
from bots.slack import convert
from bots.slack.context import Context
from bots.slack.convert import PLATFORM, Bot, MessagePosted, SessionStopped, TextCommand
from bots.slack.markdown import escaped
from bots.strings import failure, say
from core.errors import StoreUnavailable
from core.queue_types import OPENED, Delivery, Place
from core.types import Bounded, ThreadKey, Turn

LAST_RETRY = 3
"""Slack delivers an event at most four times."""
BOT_TURNS = 3
"""At most this many messages of other bots are answered in a row; then a person must write."""
KEPT_THREADS = 10_000
SEARCHED_THREADS = 500
CONVERSATION_SECONDS = 86_400.0
"""How far back replies under way in a direct channel are looked for."""
AT_ONCE = 16
"""Messages stored at the same time: more would only use more connections."""


class MessageHandler:
    """Stores messages. Nothing here waits for a reply."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._bot_turns = Bounded[ThreadKey, int](KEPT_THREADS)
        self._places = asyncio.Semaphore(AT_ONCE)
        self._called = Bounded[ThreadKey, str](KEPT_THREADS)
        """Thread -> the message that first named the bot there, as seen by this process."""

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
        """Handle a message, new or caught up."""
        if posted.inside:
            self._context.backfill.note(posted.key, posted.ts)
        if not self._may_be_answered(posted):
            await self._keep(posted, bot)
            return
        addressed = await self._is_addressed(posted)
        if addressed is None:
            return
        is_special = addressed and not _is_plain_question(posted, bot)
        if is_special and await self._may_use(posted) and await self._was_command(posted, bot):
            return
        await self._submit(posted, bot, addressed)

    async def _keep(self, posted: MessagePosted, bot: Bot) -> None:
        """Store another bot's post for the thread's next question, without an answer."""
        if posted.inside and await self._context.history.takes_part(posted.key):
            await self._submit(posted, bot, addressed=False)

    def _first(self, posted: MessagePosted, what: str) -> bool:
        return self._context.is_first_time(posted.key.channel, posted.ts, what)

    # -- which messages are answered ------------------------------------------------------------

    def _may_be_answered(self, posted: MessagePosted) -> bool:
        """People yes; other bots only if allowed, with a mention, and not in a loop."""
        turns = self._bot_turns
        if posted.bot_id is None:
            turns.pop(posted.key, None)
            return True
        allowed = self._context.settings.slack_allowed_bots
        if not ({posted.bot_id, posted.user} & allowed and posted.mentioned):
            return False
        turns[posted.key] = turns.get(posted.key, 0) + self._first(posted, "bot")
        return turns[posted.key] <= BOT_TURNS

    async def _may_use(self, posted: MessagePosted) -> bool:
        """False: the message is still submitted, and refused there."""
        actor = await self._context.actor(posted.key.space, posted.user, posted.user_team)
        return await self._context.actions.refusal(actor, posted.key) is None

    async def _is_addressed(self, posted: MessagePosted) -> bool | None:
        """Whether an answer is asked for; None where the bot ignores the message."""
        if posted.direct or posted.mentioned:
            self._called.setdefault(posted.key, posted.ts)
            return True
        if not posted.inside or not await self._context.history.takes_part(posted.key):
            return None
        turns = [stored.turn for stored in await self._context.history.turns(posted.key)]
        if self._was_overtaken(posted, turns):
            return None  # the backfill reads it
        usual = self._context.settings.slack_follow_ups
        rule = await self._context.relay.follow_ups(posted.key, usual)
        return is_follow_up(rule, posted.user, turns, to_others=posted.to_others)

    def _was_overtaken(self, posted: MessagePosted, turns: Sequence[Turn]) -> bool:
        """Whether the message is older than the mention that called the bot, but arrived later."""
        if posted.key in self._called:
            return float(posted.ts) < float(self._called[posted.key])
        later = any(float(turn.id) > float(posted.ts) for turn in turns if turn.role == "user")
        spoke = any(turn.at < float(posted.ts) for turn in turns if turn.role == "assistant")
        return later and not spoke

    # -- text commands -------------------------------------------------------------------------

    async def _was_command(self, posted: MessagePosted, bot: Bot) -> bool:
        """Whether the message was no question but a command, or empty."""
        command = convert.text_command(posted, bot)
        if command is not None:
            await self._run_command(command, posted, bot)
            return True
        if is_question(convert.whole_text(posted, bot, {}), posted.files):
            return False
        if self._first(posted, "nothing"):
            key = "files_not_read" if posted.files else "nothing_asked"
            named = escaped(names_of(posted.files))
            self._context.spawn(self._context.tell(posted.key, posted.user, key, files=named))
        return True

    async def _run_command(self, command: TextCommand, posted: MessagePosted, bot: Bot) -> None:
        if command == "reset":
            await self._reset(posted)
        elif command == "stop":
            await self._stop_here(posted)
        elif self._first(posted, command):
            locale = await self._context.users.locale(bot.team, posted.user, posted.text)
            sentence = await self._said(command, posted, locale)
            self._context.spawn(self._context.send_privately(posted.key, posted.user, sentence))

    async def _said(self, command: str, posted: MessagePosted, locale: str) -> str:
        if command not in KINDS:
            return await self._context.sentence(command, locale, posted.user, posted.key)
        shown = await self._context.guide.choices.shown(posted.key, command, locale)
        return escaped(f"{shown}\n{say('choice_where', locale)}")

    async def _reset(self, posted: MessagePosted) -> None:
        actor = await self._context.actor(posted.key.space, posted.user, posted.user_team)
        outcome = await self._context.actions.reset(actor, _reset_scope(posted))
        if self._first(posted, "reset"):
            self._context.report(posted.key, posted.user, outcome)

    async def _conversations(self, posted: MessagePosted) -> Sequence[ThreadKey]:
        """The conversations of a command: its thread, or all threads at the top of a direct
        channel."""
        if not _is_at_the_top(posted):
            return (posted.key,)
        found, seen = [posted.key], 0
        since = time.time() - CONVERSATION_SECONDS
        async for summary in self._context.history.threads(PLATFORM, since):
            seen += 1
            key = summary.thread
            if (key.space, key.channel) == (posted.key.space, posted.key.channel):
                found.append(key)
            if seen == SEARCHED_THREADS:
                break
        return found

    async def _stop_here(self, posted: MessagePosted) -> None:
        actor = await self._context.actor(posted.key.space, posted.user, posted.user_team)
        conversations = await self._conversations(posted)
        outcome = await self._context.actions.stop_here(actor, conversations)
        if self._first(posted, "stop") and not outcome.done:  # a mention comes as two events
            self._context.report(posted.key, posted.user, outcome)

    async def on_session_stopped(self, stopped: SessionStopped) -> None:
        """Stop the reply and end the session: Slack's Stop button has only ended the stream.

        If the person may not stop the reply, it continues without a stream.
        """
        actor = await self._context.actor(stopped.key.space, stopped.user)
        key, streams = stopped.key, stopped.streams
        outcome = await self._context.actions.stop_here(actor, (key,), streams)
        if not outcome.done:
            self._context.report(stopped.key, stopped.user, outcome)
        self._context.spawn(self._context.platform.end_session(stopped.key))

    # -- storing --------------------------------------------------------------------------------

    async def _submit(self, posted: MessagePosted, bot: Bot, addressed: bool) -> None:
        users = self._context.users
        names = await users.names(bot.team, convert.user_ids_in(posted))
        note: dict[str, str] = {}
        if addressed:
            note["locale"] = await users.locale(bot.team, posted.user, posted.text)
        if posted.user_team != bot.team:
            is_team = posted.user_team.startswith("T")
            note["team"] = posted.user_team if is_team else posted.context_team
        stranger = await users.is_stranger(bot, posted.user, posted.user_team)
        incoming = convert.incoming(
            posted, bot, names, addressed=addressed, stranger=stranger, note=note
        )
        async with self._places:
            receipt = await self._context.relay.submit(incoming)
        if receipt.outcome == "queued" and receipt.job:
            self._context.spawn(self._say_at_once(incoming, receipt.job))

    async def _say_at_once(self, incoming: Incoming, job: str) -> None:
        """Show a status before a core has claimed the message."""
        turn = incoming.turn
        delivery = Delivery(
            job, incoming.thread, turn.id, turn.author, token=OPENED, note=incoming.note
        )
        await self._context.platform.status(delivery, Status("thinking"))
        if incoming.thread.channel.startswith("D") and not incoming.has_past:
            await self._context.platform.begin_session(delivery, title_of(turn.text))


def _is_plain_question(posted: MessagePosted, bot: Bot) -> bool:
    """Whether a message is a question without files, like most messages."""
    is_command = convert.text_command(posted, bot) is not None
    return not (is_command or posted.files) and bool(convert.readable(posted.text, bot, {}))


def _is_at_the_top(posted: MessagePosted) -> bool:
    return posted.direct and not posted.inside


def _reset_scope(posted: MessagePosted) -> Scope:
    """The thread of the message; the whole channel at the top of a direct channel."""
    place = Place(PLATFORM, posted.key.space)
    if _is_at_the_top(posted):
        return Scope("channel", replace(place, channel=posted.key.channel), own=True)
    return Scope("thread", place, posted.key)
