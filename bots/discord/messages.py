"""Messages from people: which ones the bot answers, and its sentences where it cannot."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace

import discord
import structlog

from bots.actions import Actor, is_follow_up
from bots.attachments import names_of
from bots.discord import convert
from bots.discord.api import nonce_for
from bots.discord.backfill import parsed
from bots.discord.context import Context, within
from bots.discord.error_codes import LOCKED, MISSING_PERMISSIONS, is_final, reason_for
from bots.discord.replies import ReplyAddress
from bots.platform import Incoming
from bots.strings import say
from core.errors import StoreUnavailable
from core.queue_types import Receipt
from core.types import Bounded, Job, ThreadKey, Turn

log = structlog.get_logger()

REMOVED_WITHIN, REMOVED_CHECK = 60.0, 0.2
"""Seconds for the reply to a message that a proxy has replaced to end, and between looking."""


class MessageHandler:
    """Stores messages from the gateway or from a channel's history."""

    def __init__(self, context: Context, client: discord.Client) -> None:
        self._context = context
        self._client = client
        self._order = ChannelOrder()
        self._proxies = Proxies()

    async def on_message(self, message: discord.Message) -> None:
        """A message was written, by a person or by a proxy for one."""
        if message.webhook_id is not None:
            if (original := self._proxies.posted(message)) is not None:
                await self.handle(message, original)
            elif not self._proxies.may_be_copy(message):
                await self.handle(message)
            return
        if message.guild is not None and convert.is_written_by_person(message):
            self._proxies.written(message)
        await self.handle(message)

    def author_of(self, message: discord.Message) -> discord.abc.User:
        """The author of a message; of a proxy's post, the person that it was posted for."""
        return self._proxies.author_of(message.id) or message.author

    async def on_deleted(self, ident: int) -> None:
        """A message was deleted: a proxy may have posted it again."""
        if (found := self._proxies.deleted(ident)) is not None:
            receipt = await self.handle(*found)
            if receipt is not None and receipt.outcome != "refused":
                await self._remove_reply(found[1])

    async def _remove_reply(self, message: discord.Message) -> None:
        """Remove the reply to a message, as soon as no process writes to it any more."""
        thread = convert.thread_of(message, self.answers_in(message))
        job = Job.id_for(thread, str(message.id), "")
        deliveries = self._context.stores.deliveries
        for _ in range(int(REMOVED_WITHIN / REMOVED_CHECK)):
            if await deliveries.closed(thread, job):
                break
            await asyncio.sleep(REMOVED_CHECK)
        delivery = await deliveries.get(thread, job)
        if delivery is not None:
            for ident in delivery.messages:
                await self._context.platform.remove(delivery, ident)

    async def on_thread(self, thread: discord.Thread) -> None:
        """A thread was made. If it was made from a message, its title alone may ask the bot, about
        that message; no other event has the title."""
        bot = convert.bot_in(self._client, thread.guild, self._context.roles)
        if thread.owner_id == bot.user or not convert.names_bot(thread, bot):
            return
        if isinstance(thread.parent, discord.ForumChannel):
            return  # its first message asks
        try:
            await self._context.api.acquire()
            starter = await self._client.http.get_message(thread.parent_id, thread.id)
            await self._context.api.acquire()
            owner = await self._client.http.get_member(thread.guild.id, thread.owner_id)
        except discord.HTTPException as error:  # made without a message: its first one asks
            log.info("a thread's title asks about no message", code=error.code)
            return
        guild = thread.guild.id
        parent = self._client.get_partial_messageable(thread.parent_id, guild_id=guild)
        about = next(iter(parsed(parent, [starter])), None)
        if about is None or not convert.is_addressed(about, bot):
            asking = convert.title_as_reply(thread, starter, owner, bot)
            for message in parsed(thread, [asking]):
                await self.handle(message)

    async def handle(
        self, message: discord.Message, original: discord.Message | None = None
    ) -> Receipt | None:
        """Store a message, and answer it where it is for the bot; `original`: see `Proxies`."""
        incoming = self._incoming(message, original)
        if incoming is None:
            return None
        if original is None:
            incoming = await self._in_own_conversation(message, incoming)
        async with self._order.turn(message.channel.id):
            by_person = convert.is_written_by_person(original or message)
            if by_person and not incoming.addressed and await self._is_follow_up(message, incoming):
                incoming = replace(incoming, addressed=True)
            receipt = await self._store(message, incoming)
        if incoming.addressed and not await self._is_refused(incoming, receipt):
            await self._notify(message, incoming, receipt)
        return receipt

    async def _is_refused(self, incoming: Incoming, receipt: Receipt | None) -> bool:
        """Whether the author is refused."""
        if receipt is not None:
            return receipt.outcome == "refused"
        actor = Actor(incoming.turn.author, incoming.roles)
        try:
            return await self._context.actions.refusal(actor, incoming.thread) is not None
        except StoreUnavailable:
            return False

    async def _store(self, message: discord.Message, incoming: Incoming) -> Receipt | None:
        """Store a message; None where it has nothing to answer, or the bot cannot answer there."""
        if not (incoming.turn.text or incoming.files):
            return None
        if incoming.addressed and (not incoming.asks or obstacle(message)):
            return None
        receipt = await self._context.store(incoming)
        if receipt is None:
            log.warning("a message was not kept", thread=str(incoming.thread))
        return receipt

    async def _notify(
        self, message: discord.Message, incoming: Incoming, receipt: Receipt | None
    ) -> None:
        """Tell the person about obstacles, in addition to the reply or instead of it."""
        if code := obstacle(message):
            await self._report_obstacle(message, code)
            return
        if self._lacks_thread_permission(message):
            log.warning("the bot may not open threads, so it replies", channel=message.channel.id)
        if not incoming.asks:
            files = incoming.files_with_quoted
            key = "files_not_read" if files else "nothing_asked_here"
            await self._reply(message, key, files=names_of(files))
        elif receipt is None:
            await self._reply(message, "store_down")
        elif receipt.outcome == "queued" and receipt.new_thread and message.guild is None:
            await self._greet(message, incoming)
        elif receipt.outcome == "queued" and not self._context.reads:
            await self._say_to_mention_again(message, incoming, receipt)

    async def _greet(self, message: discord.Message, incoming: Incoming) -> None:
        """The first words in a direct message: the help that fits its person."""
        locale = self._context.locale_in(message)
        actor = Actor(incoming.turn.author, incoming.roles)
        try:
            text = await within(self._context.help(actor, incoming.thread, locale))
            nonce = nonce_for(f"hello{message.id}", 0)
            await self._context.api.post(str(message.channel.id), text, nonce=nonce, notice=True)
        except (discord.HTTPException, StoreUnavailable) as error:
            log.info("no first words in a direct message", error=repr(error))

    def answers_in(self, message: discord.Message) -> convert.Answers:
        """How a mention in this channel is answered: a thread needs a permission and a text
        channel.
        """
        channel, guild = message.channel, message.guild
        wanted = self._context.settings.discord_answers
        if not isinstance(channel, discord.TextChannel) or guild is None or guild.me is None:
            return "reply" if guild is not None else wanted
        bot = channel.permissions_for(guild.me)
        may_open = bot.create_public_threads and bot.send_messages_in_threads
        return wanted if may_open else "reply"

    def _incoming(
        self,
        message: discord.Message,
        original: discord.Message | None,
        answers: convert.Answers | None = None,
    ) -> Incoming | None:
        bot = convert.bot_in(self._client, message.guild, self._context.roles)
        locale = self._context.locale_in(message)
        answers = answers or self.answers_in(message)
        return convert.incoming(message, bot, answers, locale, original)

    async def _in_own_conversation(self, message: discord.Message, incoming: Incoming) -> Incoming:
        """The message in the person's `/ask` conversation, if it replies to an answer there; else
        unchanged. It would open a thread otherwise."""
        answered = convert.answered_message(message)
        if answered is None or incoming.thread.thread != str(message.id):
            return incoming
        guild = message.guild.id if message.guild else None
        own = convert.thread_in(guild, message.channel, int(incoming.turn.author))
        try:
            found = await within(self._context.stores.deliveries.locate(own, str(answered.id)))
        except StoreUnavailable:
            return incoming
        if found is None or found[0] != own:
            return incoming
        return self._incoming(message, None, "reply") or incoming

    async def _is_follow_up(self, message: discord.Message, incoming: Incoming) -> bool:
        """Whether a message without a mention continues a conversation with the bot."""
        bot = convert.bot_in(self._client, message.guild, self._context.roles)
        own = isinstance(message.channel, discord.Thread) and message.channel.owner_id == bot.user
        usual = self._context.settings.discord_followups
        if usual == "auto":
            usual = "always" if own else "alone"
        if not incoming.asks:
            return False
        try:
            rule = await self._context.relay.follow_ups(incoming.thread, usual)
            if not own and not await within(
                self._context.stores.history.takes_part(incoming.thread)
            ):
                return False
            turns = await self._turns(incoming.thread) if rule == "alone" else ()
        except StoreUnavailable:
            return False
        to_others = convert.speaks_to_others(message, bot)
        return is_follow_up(rule, incoming.turn.author, turns, to_others=to_others)

    async def _turns(self, thread: ThreadKey) -> Sequence[Turn]:
        return [stored.turn for stored in await within(self._context.stores.history.turns(thread))]

    def _lacks_thread_permission(self, message: discord.Message) -> bool:
        """Whether the reply stays in the channel only because the bot may not open threads."""
        wanted = self._context.settings.discord_answers
        return isinstance(message.channel, discord.TextChannel) and (
            self.answers_in(message) != wanted == "thread"
        )

    async def _say_to_mention_again(
        self, message: discord.Message, incoming: Incoming, receipt: Receipt
    ) -> None:
        """Say once a thread that the bot reads only messages that mention it."""
        address, thread = ReplyAddress.unpack(incoming.note), message.channel
        user = self._client.user
        if not address.opens:
            if not isinstance(thread, discord.Thread) or not receipt.new_thread:
                return
            if user is not None and thread.owner_id == user.id:  # said when it was opened
                return
        mention = f"@{convert.name_of_bot(self._client)}"
        text = say("mention_again", address.locale, mention=mention)
        try:
            if address.opens:
                channel = incoming.thread.channel
                await self._context.api.open_thread(channel, address.reply_to, address.opens)
            nonce = f"how.{incoming.turn.id}"[:25]
            await self._context.api.post(address.channel, text, nonce=nonce, notice=True)
        except discord.HTTPException as error:  # the reply itself will meet it, and say so
            log.warning("no word on how to go on", channel=address.channel, code=error.code)

    async def _reply(self, message: discord.Message, key: str, **values: object) -> None:
        """A sentence under a message, once even if the message is delivered again."""
        text = say(key, self._context.locale_in(message), **values)
        nonce = nonce_for(f"{key[:3]}{message.id}", 0)
        channel, ident = str(message.channel.id), str(message.id)
        try:
            await self._context.api.post(channel, text, nonce=nonce, reply_to=ident, notice=True)
        except discord.HTTPException as error:
            if not is_final(error):
                raise
            await self._report_obstacle(message, error.code)

    async def _report_obstacle(self, message: discord.Message, code: int) -> None:
        """The bot cannot write there: tell the operator, and the person."""
        log.warning(reason_for(code), channel=message.channel.id)
        channel, locale = str(message.channel.id), self._context.locale_in(message)
        address = ReplyAddress(channel=channel, locale=locale)
        nonce = nonce_for(f"may{message.id}", 0)
        notices = self._context.platform.notices
        await notices.send(str(message.author.id), address, code, nonce)


def obstacle(message: discord.Message) -> int | None:
    """The error code that an answer to a message would meet, as far as the bot knows."""
    channel, guild = message.channel, message.guild
    if guild is None or guild.me is None or isinstance(channel, discord.PartialMessageable):
        return None
    bot = channel.permissions_for(guild.me)
    in_thread = isinstance(channel, discord.Thread)
    may_send = bot.send_messages_in_threads if in_thread else bot.send_messages
    if not (may_send and bot.view_channel):
        return MISSING_PERMISSIONS
    return LOCKED if convert.is_locked(channel, bot) else None


@dataclass(slots=True)
class _ChannelQueue:
    """The messages of one channel that are stored now or wait for it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    length: int = 0


class ChannelOrder:
    """Stores each channel's messages in their order.

    discord.py handles each event in a separate task, and tasks overtake one another: after a
    RESUME, a whole conversation comes at once.
    """

    def __init__(self) -> None:
        self._queues: dict[int, _ChannelQueue] = {}

    @contextlib.asynccontextmanager
    async def turn(self, channel: int) -> AsyncIterator[None]:
        """Wait for the channel's earlier messages."""
        queue = self._queues.setdefault(channel, _ChannelQueue())
        queue.length += 1
        try:
            async with queue.lock:
                yield
        finally:
            queue.length -= 1
            if not queue.length:
                del self._queues[channel]


# -- proxies --------------------------------------------------------------------------------------

WINDOW = 15.0
"""Seconds between an original, its copy and its deletion."""
KEPT = 256


class Proxies:
    """The newest messages of people and of webhooks, until they are matched.

    A proxy such as PluralKit posts a person's words by a webhook, under another name, and deletes
    the original; either can arrive first. A webhook's message is a person's only if that person's
    own message with these words was deleted in the same channel within a few seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._originals: Bounded[int, tuple[float, discord.Message]] = Bounded(KEPT)
        self._copies: Bounded[int, tuple[float, discord.Message]] = Bounded(KEPT)
        self._deleted: Bounded[int, None] = Bounded(KEPT)
        self._authors: Bounded[int, discord.abc.User] = Bounded(KEPT)
        """Copy -> who wrote its original."""

    def written(self, message: discord.Message) -> None:
        """A person wrote a message."""
        self._originals[message.id] = (self._clock(), message)

    def posted(self, message: discord.Message) -> discord.Message | None:
        """A webhook posted a message: the deleted original that it is a copy of, if known."""
        for ident in reversed(self._deleted):
            original = self._recent(self._originals, ident)
            if original is not None and _is_copy(message, original):
                self._match(message, original)
                return original
        self._copies[message.id] = (self._clock(), message)
        return None

    def may_be_copy(self, message: discord.Message) -> bool:
        """Whether a webhook's message is a copy of one that may yet be deleted."""
        recent = (self._recent(self._originals, ident) for ident in self._originals)
        return any(original and _is_copy(message, original) for original in recent)

    def deleted(self, ident: int) -> tuple[discord.Message, discord.Message] | None:
        """A message was deleted: its copy and the message itself, if the copy is there already."""
        original = self._recent(self._originals, ident)
        if original is None:
            return None
        for copy in reversed(self._copies):
            found = self._recent(self._copies, copy)
            if found is not None and _is_copy(found, original):
                del self._copies[copy]
                self._match(found, original)
                return found, original
        self._deleted[ident] = None
        return None

    def _recent(
        self, kept: Bounded[int, tuple[float, discord.Message]], ident: int
    ) -> discord.Message | None:
        at, message = kept.get(ident, (0.0, None))
        return message if self._clock() - at < WINDOW else None

    def author_of(self, copy: int) -> discord.abc.User | None:
        """The person that a message was posted for; None for any other message."""
        return self._authors.get(copy)

    def _match(self, copy: discord.Message, original: discord.Message) -> None:
        self._authors[copy.id] = original.author
        self._deleted.pop(original.id, None)
        self._originals.pop(original.id, None)


def _is_copy(copy: discord.Message, original: discord.Message) -> bool:
    """Whether a message has an original's words, without the mark that the proxy acts upon; or its
    files, where it has no words."""
    words, files = copy.content.strip(), [file.filename for file in copy.attachments]
    if copy.channel.id != original.channel.id:
        return False
    if words:
        same = set(copy.raw_mentions) == set(original.raw_mentions)
        return same and words in original.content
    return bool(files) and files == [file.filename for file in original.attachments]
