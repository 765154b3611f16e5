"""Shared by the handlers of Discord's events: the relay, the stores, and private answers.

A command is stored first (milliseconds) and acknowledged afterwards. In the other order, a process
that died in between would leave a “thinking…” that nothing ever replaces.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import discord
import structlog
from discord.app_commands import locale_str

from bots.actions import Actions, Actor, Outcome
from bots.attachments import File
from bots.discord import DIRECT, PLATFORM, convert
from bots.discord.api import MESSAGE, DiscordApi, message_body
from bots.discord.components import Component
from bots.discord.convert import Interaction
from bots.discord.platform import MESSAGE_LENGTH, DiscordPlatform
from bots.discord.settings import DiscordSettings
from bots.guide import Guide
from bots.platform import Incoming
from bots.relay import Relay
from bots.strings import about, locale_for, say
from bots.strings.en import ENGLISH
from bots.summaries import Summarizer
from core.errors import StoreUnavailable
from core.ports import Stores
from core.queue_types import Place, Receipt
from core.types import ThreadKey

log = structlog.get_logger()

STORE_SECONDS = 1.0
"""The longest that a command waits for Redis: an interaction must be answered in 3 s."""
ROOM_SECONDS = 1.8
"""The longest that a command waits for other commands before it is stored."""
MESSAGE_SECONDS = 5.0
"""The longest that a message waits for Redis; it needs no acknowledgement."""
MAX_COMMANDS, MAX_MESSAGES = 32, 4
"""The most that are stored at a time."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Context:
    """The objects that the handlers share."""

    settings: DiscordSettings
    reads: bool
    """The Message Content intent is granted: messages that do not mention the bot have text."""
    relay: Relay
    actions: Actions
    platform: DiscordPlatform
    stores: Stores
    api: DiscordApi
    summarizer: Summarizer
    guide: Guide
    commands: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_COMMANDS))
    messages: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_MESSAGES))
    """Messages use few places, because commands must be acknowledged in time."""

    @property
    def roles(self) -> frozenset[int]:
        """Roles whose mention addresses the bot, beside its own."""
        return frozenset(map(int, self.settings.discord_roles))

    # -- answers to one person --------------------------------------------------------------------

    def locale_of(self, interaction: Interaction) -> str:
        return locale_for(self.settings.locale, told=str(interaction.locale))

    def locale_in(self, message: discord.Message) -> str:
        """The guild's language: Discord does not send the author's. Few guilds set one."""
        guild = message.guild.preferred_locale if message.guild else None
        told = "ja" if guild is discord.Locale.japanese else ""
        return locale_for(self.settings.locale, told, message.content)

    async def tell(self, interaction: Interaction, key: str, **values: object) -> None:
        """Answer an interaction with a sentence that only its person sees."""
        await self.answer_privately(interaction, say(key, self.locale_of(interaction), **values))

    async def model_hosts(self, interaction: Interaction) -> str:
        """The hosts that receive the questions of an interaction's place; empty: none."""
        space = str(interaction.guild_id or DIRECT)
        place = Place(PLATFORM, space, str(interaction.channel_id or "-"))
        return await self.relay.model_hosts(place.any_thread)

    async def help(self, actor: Actor, thread: ThreadKey, locale: str) -> str:
        """The help for a person in one of their conversations, as one message."""
        hosts = await self.relay.model_hosts(thread)
        said = about("discord_help", locale, hosts, model=await self.guide.model(thread))
        admins = say("help_admins", locale, commands="`/admin`")
        lines = await self.guide.help(actor, thread, locale, admins)
        return "\n".join((said, *lines))[:MESSAGE_LENGTH]

    async def tell_outcome(self, interaction: Interaction, outcome: Outcome) -> None:
        """Answer an interaction with the outcome of an action."""
        text = outcome.sentence(self.locale_of(interaction))
        await self.answer_privately(interaction, text)

    async def answer_privately(
        self, interaction: Interaction, text: str, components: Sequence[Component] = ()
    ) -> None:
        """Answer an interaction, deferred or not, with a text that only its person sees."""
        token = interaction.token
        if interaction.response.is_done():
            app = str(interaction.application_id)
            await self.api.follow_up(app, token, text, components, private=True)
        else:
            body = message_body(text, components, private=True)
            await self.api.answer(str(interaction.id), token, MESSAGE, body)

    async def report_failure(self, interaction: Interaction, error: BaseException) -> None:
        """Tell the person who waits for an answer that something failed."""
        if isinstance(error, discord.HTTPException) and not interaction.response.is_done():
            log.warning("an answer was refused", status=error.status, code=error.code)
            return  # an interaction that was never acknowledged cannot show a text
        key = "store_down" if isinstance(error, StoreUnavailable) else "internal"
        if key == "internal":
            log.error("an interaction failed", error=repr(error), exc_info=error)
        try:
            await self.tell(interaction, key)
        except discord.HTTPException as refused:
            log.warning("an answer was refused", status=refused.status, code=refused.code)

    async def may_use(self, interaction: Interaction) -> bool:
        """Whether the person may use the bot there; a refusal is sent to them."""
        person = interaction.user.id
        thread = convert.thread_in(_guild_of(interaction), interaction.channel, person)
        refusal = await within(self.actions.refusal(actor_of(interaction), thread))
        completes = interaction.type is discord.InteractionType.autocomplete
        if refusal is not None and not completes:  # an autocompletion shows no message
            await self._tell_refusal(interaction, refusal)
        return refusal is None

    async def _tell_refusal(self, interaction: Interaction, refusal: Outcome) -> None:
        """The refusal; who asked for help is also told what is open to all."""
        data: Any = interaction.data or {}
        locale = self.locale_of(interaction)
        text = refusal.sentence(locale)
        if text and data.get("name") == "help":
            text = f"{text}\n{say('discord_help_refused', locale)}"
        await self.answer_privately(interaction, text)

    # -- questions ------------------------------------------------------------------------------

    async def ask(
        self,
        interaction: Interaction,
        text: str,
        *,
        private: bool = False,
        files: tuple[File, ...] = (),
    ) -> None:
        """Take a command's question: store it, then acknowledge."""
        locale = self.locale_of(interaction)
        incoming = convert.incoming_command(interaction, text, locale, private=private, files=files)
        if not incoming.asks:
            await self.tell(interaction, "nothing_asked_here")
            return
        with self.platform.tokens.acknowledging(interaction.token) as acknowledgement:
            if not await _has_room(self.commands):
                await self.tell(interaction, "no_time")
                return
            try:
                stored = await self._submit(incoming, STORE_SECONDS)
            finally:
                self.commands.release()
            if stored is None:
                await self.tell(interaction, "store_down")
                return
            if stored.outcome == "refused":
                refusal = self.relay.refusal(stored, locale)
                await self.answer_privately(interaction, refusal)
                return
            await interaction.response.defer(ephemeral=private, thinking=True)
            acknowledgement.given = True

    async def store(self, incoming: Incoming) -> Receipt | None:
        """Submit a message; None if the store did not answer in time, so that no reply will
        come."""
        async with self.messages:
            return await self._submit(incoming, MESSAGE_SECONDS)

    async def _submit(self, incoming: Incoming, seconds: float) -> Receipt | None:
        work = asyncio.ensure_future(self.relay.submit(incoming))
        try:
            return await within(work, seconds)
        except StoreUnavailable:
            work.add_done_callback(lambda done: self._withdraw(incoming, done))
            return None

    def _withdraw(self, incoming: Incoming, done: asyncio.Future[Receipt]) -> None:
        """Delete a submission that succeeded after its person was told that it had failed."""
        if not done.cancelled() and done.exception() is None:
            work = asyncio.ensure_future(self.relay.deleted(incoming.thread, incoming.turn.id))
            work.add_done_callback(_ignore_result)


def actor_of(interaction: Interaction) -> Actor:
    """The person who used a command or a button."""

    async def manages() -> bool:
        return may_manage(interaction)

    person = interaction.user
    return Actor(str(person.id), convert.roles_of(person), manages)


def conversations(interaction: Interaction) -> list[ThreadKey]:
    """A person's conversations with the bot at this place: the open one and the private one."""
    guild, channel, person = _guild_of(interaction), interaction.channel, interaction.user.id
    return [
        convert.thread_in(guild, channel, person),
        convert.thread_in(guild, channel, person, private=True),
    ]


def _guild_of(interaction: Interaction) -> int | None:
    """The guild that a person's conversation belongs to; None: it is theirs alone."""
    return None if convert.is_user_installed(interaction) else interaction.guild_id


def localized(key: str) -> locale_str:
    """A command's name or description: English, translated by its key."""
    return locale_str(ENGLISH[key], key=key)


async def _has_room(places: asyncio.Semaphore) -> bool:
    """Take a place if one becomes free within `ROOM_SECONDS`; with `STORE_SECONDS`, under 3 s."""
    try:
        async with asyncio.timeout(ROOM_SECONDS):
            return await places.acquire()
    except TimeoutError:
        return False


async def within(work: Awaitable[T], seconds: float = STORE_SECONDS) -> T:
    """The result of a store's work; StoreUnavailable after `seconds`.

    The work is not cancelled: a cancelled Redis command can leave its answer on the connection.
    """
    task = asyncio.ensure_future(work)
    done, _ = await asyncio.wait({task}, timeout=seconds)
    if not done:
        task.add_done_callback(_ignore_result)
        raise StoreUnavailable("the store did not answer in time")
    return task.result()


def _ignore_result(task: asyncio.Future[T]) -> None:
    if not task.cancelled():
        task.exception()


def may_manage(interaction: Interaction) -> bool:
    """Whether the person may manage the server. A server can show hidden commands to others, so
    each command checks again.
    """
    return interaction.guild_id is not None and interaction.permissions.manage_guild
