"""What everything that people do on Discord is handed to: the relay, the store, and the manners.

A command is stored first (milliseconds) and acknowledged then: the other way round, a process that
died in between would leave “thinking…” with nothing behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, TypeVar

import discord
import structlog

from bots.base import Incoming
from bots.discord import convert
from bots.discord.delivery import DiscordPlatform
from bots.discord.rest import Rest
from bots.discord.words import locale_for
from bots.relay import Relay
from bots.strings import say
from core.errors import StoreUnavailable
from core.ports import Deliveries, History, JobQueue
from core.records import Receipt
from core.rules import Asker

log = structlog.get_logger()

STORE_SECONDS = 1.0
"""How long Redis may take before a person is told: an interaction's first answer is due in 3 s."""
PATIENCE = 5.0
"""The same for messages, which nobody has to acknowledge."""

COMMANDS, MESSAGES = 32, 4

T = TypeVar("T")
Asked: TypeAlias = discord.Interaction[discord.Client]


@dataclass(frozen=True, slots=True)
class Terms:
    """How the bot behaves on Discord."""

    lane: str
    model: str
    """As people are told."""
    answers: convert.Answers = "thread"
    followups: Literal["always", "mention"] = "always"
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
    rest: Rest
    commands: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(COMMANDS))
    messages: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MESSAGES))
    """Room for submissions: commands must be acknowledged in time, messages can wait for them."""

    # -- who may ---------------------------------------------------------------------------------

    def is_admin(self, interaction: Asked) -> bool:
        """Whoever may manage the server, or is on the list of the settings."""
        of_platform, governance = may_manage(interaction), self.relay.governance
        if governance is None or interaction.guild_id is None:
            return of_platform
        person = interaction.user
        thread = convert.thread_in(interaction.guild_id, interaction.channel, person.id)
        asker = Asker(thread, str(person.id), convert.roles_of(person))
        return governance.is_admin(asker, of_platform=of_platform)

    # -- words ----------------------------------------------------------------------------------

    def locale_of(self, interaction: Asked) -> str:
        return locale_for("", interaction.locale, self.terms.locale)

    def locale_in(self, message: discord.Message) -> str:
        guild = message.guild.preferred_locale if message.guild else None
        return locale_for(message.content, None, self.terms.locale, guild)

    async def tell(self, interaction: Asked, key: str, **values: object) -> None:
        """Answer an interaction with a sentence that only its person sees."""
        await self.show(interaction, say(key, self.locale_of(interaction), **values))

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
            interaction, text, locale, private=private, stranger=is_stranger(interaction)
        )
        if not incoming.turn.text:
            await self.tell(interaction, "nothing_asked")
            return
        with self.platform.tokens.acknowledging(interaction.token) as acknowledgement:
            if await self.store(incoming) is None:
                await self.tell(interaction, "store_down")
                return
            await self._defer(interaction, private=private)
            acknowledgement.given = True

    async def _defer(self, interaction: Asked, *, private: bool) -> None:
        """Acknowledge; the reply goes another way where it was too late for that."""
        try:
            await interaction.response.defer(ephemeral=private, thinking=True)
        except discord.HTTPException as error:
            log.warning("an acknowledgement was refused", code=error.code, status=error.status)
            raise

    async def store(self, incoming: Incoming) -> Receipt | None:
        """Submit; None where the store did not answer in time, and nothing will come."""
        # whoever waits for room waits for us, and not for the store
        async with self.commands if incoming.alone else self.messages:
            work = asyncio.ensure_future(self.relay.submit(incoming))
            try:
                seconds = STORE_SECONDS if incoming.alone else PATIENCE
                return await within(work, seconds)
            except StoreUnavailable:
                work.add_done_callback(lambda done: self._withdraw(incoming, done))
                return None

    def _withdraw(self, incoming: Incoming, done: asyncio.Future[Receipt]) -> None:
        """A submission that got through after its person was told that it had not."""
        if not done.cancelled() and done.exception() is None:
            work = asyncio.ensure_future(self.relay.deleted(incoming.thread, incoming.turn.id))
            work.add_done_callback(lambda late: late.exception())


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


def is_stranger(interaction: Asked) -> bool:
    """Whether the bot is not where it was used: installed for the person alone."""
    if interaction.guild_id is not None:
        return interaction.is_user_integration() and not interaction.is_guild_integration()
    return interaction.context.private_channel is True


def may_manage(interaction: Asked) -> bool:
    """By Discord: its own hiding of commands can be overridden, so each is checked again."""
    return interaction.guild_id is not None and interaction.permissions.manage_guild
