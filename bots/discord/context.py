"""What everything that people do on Discord is handed to: the relay, the store, and the manners.

A command is stored first (milliseconds) and acknowledged then: the other way round, a process that
died in between would leave “thinking…” with nothing behind it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, TypeVar

import discord
import structlog

from bots.discord import convert
from bots.discord.api import Rest
from bots.discord.permissions import is_shut_out, is_stranger, may_manage
from bots.discord.platform import DiscordPlatform
from bots.platform import Incoming
from bots.relay import Relay
from bots.strings import say
from core.access_policy import Asker
from core.errors import StoreUnavailable
from core.ports import Deliveries, Feedback, History, JobQueue
from core.queue_types import Receipt
from core.types import ThreadKey

log = structlog.get_logger()

STORE_SECONDS = 1.0
"""How long Redis may take before a person is told: an interaction's first answer is due in 3 s."""
ROOM_SECONDS = 1.8
"""And how long a command waits for others to be stored before it."""
PATIENCE = 5.0
"""The same for messages, which nobody has to acknowledge."""

COMMANDS, MESSAGES = 32, 4

_JAPANESE = re.compile(r"[\u3041-\u30ff\u3400-\u9fff]")

T = TypeVar("T")
Asked: TypeAlias = discord.Interaction[discord.Client]


@dataclass(frozen=True, slots=True)
class Terms:
    """How the bot behaves on Discord."""

    lane: str
    model: str
    """As people are told."""
    answers: convert.Answers = "thread"
    followups: Literal["auto", "always", "alone", "mention"] = "auto"
    reads: bool = True
    """The Message Content intent is granted: messages to others have text."""
    locale: str = "auto"
    retention_days: float = 30.0
    guild: int | None = None
    """Register the commands in this guild alone."""


@dataclass(frozen=True, slots=True)
class Desk:
    """Everything that an event's handler needs."""

    terms: Terms
    relay: Relay
    platform: DiscordPlatform
    queue: JobQueue
    history: History
    deliveries: Deliveries
    feedback: Feedback
    rest: Rest
    commands: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(COMMANDS))
    messages: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MESSAGES))
    """Room for submissions: commands must be acknowledged in time, messages can wait for them."""

    # -- who may ---------------------------------------------------------------------------------

    def is_admin(self, interaction: Asked) -> bool:
        """Whoever may manage the server, or is on the list of the settings."""
        of_platform, access = may_manage(interaction), self.relay.access
        if interaction.guild_id is None:
            return of_platform
        person = interaction.user
        thread = convert.thread_in(interaction.guild_id, interaction.channel, person.id)
        asker = Asker(thread, str(person.id), convert.roles_of(person))
        return access.is_admin(asker, of_platform=of_platform)

    async def may_touch(
        self, interaction: Asked, thread: ThreadKey, author: str, prompt: str
    ) -> bool:
        """Whether a reply may be stopped or written anew by whoever did this: they asked for it,
        or for the message `prompt` that it answers, or are an admin.
        """
        person = str(interaction.user.id)
        if person == author or self.is_admin(interaction):
            return True
        # an admin may have had it written anew: it is still the answer to this person
        turns = await self.history.turns(thread)
        return any(stored.turn.id == prompt and stored.turn.author == person for stored in turns)

    # -- words ----------------------------------------------------------------------------------

    def locale_of(self, interaction: Asked) -> str:
        return locale_for("", interaction.locale, self.terms.locale)

    def locale_in(self, message: discord.Message) -> str:
        guild = message.guild.preferred_locale if message.guild else None
        return locale_for(message.content, None, self.terms.locale, guild)

    async def tell(self, interaction: Asked, key: str, **values: object) -> None:
        """Answer an interaction with a sentence that only its person sees."""
        await self.show(interaction, say(key, self.locale_of(interaction), **values))

    async def sorry(self, interaction: Asked, error: BaseException) -> None:
        """Something went wrong: whoever waits for an answer is told so, deferred or not."""
        if isinstance(error, discord.HTTPException) and not interaction.response.is_done():
            log.warning("an answer was refused", status=error.status, code=error.code)
            return  # what Discord will not acknowledge, it will not show either
        key = "store_down" if isinstance(error, StoreUnavailable) else "internal"
        if key == "internal":
            log.error("an interaction failed", error=repr(error), exc_info=error)
        try:
            await self.tell(interaction, key)
        except discord.HTTPException as refused:
            log.warning("an answer was refused", status=refused.status, code=refused.code)

    async def show(
        self, interaction: Asked, text: str, view: discord.ui.View = discord.utils.MISSING
    ) -> None:
        """Answer an interaction with a text that only its person sees."""
        nobody = discord.AllowedMentions.none()
        if interaction.response.is_done():
            await interaction.followup.send(
                text, ephemeral=True, allowed_mentions=nobody, suppress_embeds=True, view=view
            )
        else:
            await interaction.response.send_message(
                text, ephemeral=True, allowed_mentions=nobody, suppress_embeds=True, view=view
            )

    # -- questions ------------------------------------------------------------------------------

    async def ask(self, interaction: Asked, text: str, *, private: bool = False) -> None:
        """Take a command's question: stored first, acknowledged then."""
        locale = self.locale_of(interaction)
        incoming = convert.asked(
            interaction,
            text,
            locale,
            private=private,
            stranger=is_stranger(interaction),
            shut_out=is_shut_out(interaction),
        )
        if not incoming.turn.text:
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
            await interaction.response.defer(ephemeral=private, thinking=True)
            acknowledgement.given = True

    async def store(self, incoming: Incoming) -> Receipt | None:
        """Submit a message; None where the store did not answer, and nothing will come."""
        async with self.messages:
            return await self._submit(incoming, PATIENCE)

    async def _submit(self, incoming: Incoming, seconds: float) -> Receipt | None:
        work = asyncio.ensure_future(self.relay.submit(incoming))
        try:
            return await within(work, seconds)
        except StoreUnavailable:
            work.add_done_callback(lambda done: self._withdraw(incoming, done))
            return None

    def _withdraw(self, incoming: Incoming, done: asyncio.Future[Receipt]) -> None:
        """A submission that got through after its person was told that it had not."""
        if not done.cancelled() and done.exception() is None:
            work = asyncio.ensure_future(self.relay.deleted(incoming.thread, incoming.turn.id))
            work.add_done_callback(lambda late: late.exception())


def locale_for(
    text: str, told: discord.Locale | None, setting: str, guild: discord.Locale | None = None
) -> str:
    """The language to speak to a person: the setting, what Discord tells of them, their writing.

    With a message Discord tells nothing of the person, and a guild's language is rarely set.
    """
    if setting != "auto":
        return setting
    if told is not None:
        return "ja" if told is discord.Locale.japanese else "en"
    return "ja" if guild is discord.Locale.japanese or _JAPANESE.search(text) else "en"


def conversations(interaction: Asked) -> list[ThreadKey]:
    """Where a person talks with the bot at this place: openly, and privately."""
    guild, channel, person = interaction.guild_id, interaction.channel, interaction.user.id
    return [
        convert.thread_in(guild, channel, person),
        convert.thread_in(guild, channel, person, private=True),
    ]


async def _has_room(places: asyncio.Semaphore) -> bool:
    """Take a place, if one is free soon: with the store's time, it must stay below 3 s."""
    try:
        async with asyncio.timeout(ROOM_SECONDS):
            return await places.acquire()
    except TimeoutError:
        return False


async def within(work: Awaitable[T], seconds: float = STORE_SECONDS) -> T:
    """What the store says, if it does so in time: StoreUnavailable otherwise.

    The work is left to end by itself: cancelling a Redis command can leave its answer behind on
    the connection.
    """
    task = asyncio.ensure_future(work)
    done, _ = await asyncio.wait({task}, timeout=seconds)
    if not done:
        task.add_done_callback(_look_away)
        raise StoreUnavailable("the store did not answer in time")
    return task.result()


def _look_away(task: asyncio.Future[T]) -> None:
    if not task.cancelled():
        task.exception()
