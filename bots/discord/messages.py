"""Messages that people write: which are for the bot, and what stands in the way of an answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import discord
import structlog

from bots.discord import backfill, convert
from bots.discord.api import nonce_for
from bots.discord.context import Desk, within
from bots.discord.replies import Note
from bots.follow_ups import speaks_to_bot
from bots.platform import Incoming
from bots.strings import say
from core.errors import StoreUnavailable
from core.queue_types import Receipt

log = structlog.get_logger()


class Listener:
    """Takes in messages, from the gateway or from a channel's past."""

    def __init__(self, desk: Desk, client: discord.Client) -> None:
        self._desk = desk
        self._client = client
        self._lines = Lines()

    async def heard(self, message: discord.Message) -> None:
        """A message was written."""
        incoming = self._incoming(message)
        if incoming is None:
            return
        async with self._lines.turn(message.channel.id):
            if not incoming.addressed and await self._follows_up(message, incoming):
                incoming = replace(incoming, addressed=True)
            receipt = await self._store(message, incoming)
        if incoming.addressed:
            await self._say_besides(message, incoming, receipt)

    async def _store(self, message: discord.Message, incoming: Incoming) -> Receipt | None:
        """Take a message in; None where there is nothing to take, or nowhere to answer it."""
        if not incoming.turn.text or (incoming.addressed and not may_write(message)):
            return None
        receipt = await self._desk.store(incoming)
        if receipt is None:
            log.warning("a message was not kept", thread=str(incoming.thread))
        return receipt

    async def _say_besides(
        self, message: discord.Message, incoming: Incoming, receipt: Receipt | None
    ) -> None:
        """Besides the reply, or instead of it."""
        if not may_write(message):
            await self._explain(message)
            return
        if self._lacks_threads(message):
            log.warning("the bot may not open threads, so it replies", channel=message.channel.id)
        if message.attachments:
            await self._reply(message, "files_not_read")
        elif not incoming.turn.text:
            await self._reply(message, "nothing_asked_here")
        if incoming.turn.text and receipt is None:
            await self._reply(message, "store_down")
        elif receipt and receipt.outcome == "queued" and not self._desk.terms.reads:
            await self._say_how_to_go_on(message, incoming, receipt)

    def answers_in(self, message: discord.Message) -> convert.Answers:
        """How a mention in this channel is answered: a thread needs a right, and a text channel."""
        channel, guild = message.channel, message.guild
        if not isinstance(channel, discord.TextChannel) or guild is None or guild.me is None:
            return "reply" if guild is not None else self._desk.terms.answers
        mine = channel.permissions_for(guild.me)
        may_open = mine.create_public_threads and mine.send_messages_in_threads
        return self._desk.terms.answers if may_open else "reply"

    def _incoming(self, message: discord.Message) -> Incoming | None:
        me = backfill.myself(self._client, message.guild)
        locale = self._desk.locale_in(message)
        return convert.incoming(message, me, self.answers_in(message), locale)

    async def _follows_up(self, message: discord.Message, incoming: Incoming) -> bool:
        """Whether a message without a mention goes on with a conversation that the bot is in."""
        me = backfill.myself(self._client, message.guild)
        mine = isinstance(message.channel, discord.Thread) and message.channel.owner_id == me.user
        usual = self._desk.terms.followups
        if usual == "auto":
            usual = "always" if mine else "alone"
        follow_ups = await self._desk.relay.follow_ups(incoming.thread, usual)
        if follow_ups == "mention" or not incoming.turn.text:
            return False
        if convert.speaks_to_others(message, me):
            return False
        try:
            takes_part = mine or await within(self._desk.history.takes_part(incoming.thread))
            return takes_part and (follow_ups == "always" or await self._is_alone(incoming))
        except StoreUnavailable:
            return False

    async def _is_alone(self, incoming: Incoming) -> bool:
        """Whether a person is alone with the bot in a thread, or was the last it spoke to."""
        stored = await within(self._desk.history.turns(incoming.thread))
        return speaks_to_bot(incoming.turn.author, [entry.turn for entry in stored])

    def _lacks_threads(self, message: discord.Message) -> bool:
        """Whether a thread should have been opened here, but for the right to do so."""
        wanted = self._desk.terms.answers
        return isinstance(message.channel, discord.TextChannel) and (
            self.answers_in(message) != wanted == "thread"
        )

    async def _say_how_to_go_on(
        self, message: discord.Message, incoming: Incoming, receipt: Receipt
    ) -> None:
        """Once a thread, where the bot cannot read what does not mention it."""
        note, thread = Note.unpack(incoming.note), message.channel
        if not note.opens:
            told = isinstance(thread, discord.Thread) and thread.owner_id == _id_of(self._client)
            if told or not isinstance(thread, discord.Thread) or not receipt.new_thread:
                return
        name = self._client.user.display_name if self._client.user else "Henji"
        text = say("mention_again", note.locale, mention=f"@{name}")
        try:
            if note.opens:
                channel = incoming.thread.channel
                await self._desk.rest.open_thread(channel, note.reply_to, note.opens)
            await self._desk.rest.post(note.channel, text, nonce=f"how.{incoming.turn.id}"[:25])
        except discord.HTTPException as error:  # the reply itself will find out, and say so
            log.warning("no word on how to go on", channel=note.channel, code=error.code)

    async def _reply(self, message: discord.Message, key: str) -> None:
        """A sentence under a message, once however often the message comes."""
        text = say(key, self._desk.locale_in(message))
        nonce = nonce_for(f"{key[:3]}{message.id}", 0)
        where, ident = str(message.channel.id), str(message.id)
        try:
            await self._desk.rest.post(where, text, nonce=nonce, reply_to=ident)
        except discord.Forbidden:
            await self._explain(message)

    async def _explain(self, message: discord.Message) -> None:
        """The bot may not write there: say so in the log, and to the person if it can."""
        log.warning("the bot may not write in a channel", channel=message.channel.id)
        locale = self._desk.locale_in(message)
        nonce = nonce_for(f"may{message.id}", 0)
        channel = str(message.channel.id)
        await self._desk.rest.tell_refused(str(message.author.id), channel, locale, nonce)


@dataclass(slots=True)
class Line:
    """Who stands in it, and who comes first."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    standing: int = 0


class Lines:
    """One for each channel in which something is being taken in."""

    def __init__(self) -> None:
        self._lines: dict[int, Line] = {}

    @contextlib.asynccontextmanager
    async def turn(self, channel: int) -> AsyncIterator[None]:
        """Wait for those who came before."""
        line = self._lines.setdefault(channel, Line())
        line.standing += 1
        try:
            async with line.lock:
                yield
        finally:
            line.standing -= 1
            if not line.standing:
                del self._lines[channel]


def _id_of(client: discord.Client) -> int | None:
    return client.user.id if client.user else None


def may_write(message: discord.Message) -> bool:
    """Whether the bot may answer where a message was written, as far as it knows."""
    channel, guild = message.channel, message.guild
    if guild is None or guild.me is None or isinstance(channel, discord.PartialMessageable):
        return True
    mine = channel.permissions_for(guild.me)
    if isinstance(channel, discord.Thread):
        return mine.send_messages_in_threads and mine.view_channel
    return mine.send_messages and mine.view_channel
