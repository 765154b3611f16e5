"""Discord's objects as Henji's own types: pure.

Where a conversation takes place:

- in a thread (or forum post): the thread, under its parent channel;
- a mention in a channel that opens a thread: already that thread, because a thread made from a
  message has that message's id;
- a mention in a channel that is answered there, and ``/ask`` outside a thread: the person's
  conversation in the channel, ``@<person>`` (a private one is kept apart, ``!<person>``);
- a direct message: space ``dm``, channel the person, thread the direct channel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import discord

from bots.discord import DIRECT, PLATFORM
from bots.discord.replies import ReplyAddress
from bots.platform import Incoming
from core.types import ThreadKey, Turn

WRITTEN_TYPES = frozenset({discord.MessageType.default, discord.MessageType.reply})
"""Messages that somebody wrote; joins, pins and boosts have other types."""
TITLE_LENGTH = 80
"""Discord accepts 100 characters for a thread's name and shows fewer."""

_MENTION = re.compile(r"<(?P<kind>@!?|@&|#)(?P<id>\d{15,21})>(?P<blank>[^\S\n]*)")

Answers: TypeAlias = Literal["thread", "reply"]
"""Whether a mention in a channel opens a thread or is answered by a reply."""
Interaction: TypeAlias = discord.Interaction[discord.Client]


@dataclass(frozen=True, slots=True)
class Bot:
    """The bot, where a message was written."""

    user: int
    roles: frozenset[int] = frozenset()
    """Its own roles: people often mention the role of that name instead of the bot."""


def bot_in(client: discord.Client, guild: discord.Guild | None) -> Bot:
    """The bot in a guild, or in direct messages."""
    user = client.user.id if client.user else 0  # before the client has logged in
    if guild is None or guild.me is None:
        return Bot(user)
    return Bot(user, frozenset(role.id for role in guild.me.roles) - {guild.id})


# -- threads ------------------------------------------------------------------------------------


def thread_in(
    guild: int | None, channel: discord.abc.Snowflake | None, person: int, *, private: bool = False
) -> ThreadKey:
    """A person's conversation at a place, without opening a thread."""
    where = channel.id if channel else person
    if guild is None:
        return ThreadKey(PLATFORM, DIRECT, str(person), f"!{where}" if private else str(where))
    if isinstance(channel, discord.Thread) and not private:
        return ThreadKey(PLATFORM, str(guild), str(channel.parent_id), str(channel.id))
    parent = channel.parent_id if isinstance(channel, discord.Thread) else where
    return ThreadKey(PLATFORM, str(guild), str(parent), f"{'!' if private else '@'}{person}")


def thread_of(message: discord.Message, answers: Answers) -> ThreadKey:
    """The conversation that an addressed message belongs to or opens."""
    guild = message.guild.id if message.guild else None
    here = thread_in(guild, message.channel, message.author.id)
    if guild is None or isinstance(message.channel, discord.Thread) or answers == "reply":
        return here
    return ThreadKey(PLATFORM, str(guild), str(message.channel.id), str(message.id))


def is_personal(thread: ThreadKey) -> bool:
    """Whether a conversation is one person's in a channel, not a Discord thread."""
    return thread.thread[0] in "@!"


# -- messages -----------------------------------------------------------------------------------


def incoming(message: discord.Message, bot: Bot, answers: Answers, locale: str) -> Incoming | None:
    """A message as the relay takes it; None where it does not concern the bot."""
    if not is_written_by_person(message):
        return None
    addressed = is_addressed(message, bot)
    if not addressed and not isinstance(message.channel, discord.Thread):
        return None
    thread = thread_of(message, answers)
    return Incoming(
        thread=thread,
        turn=turn_of(message, bot),
        addressed=addressed,
        event_ids=(f"message:{message.id}",),
        note=_address_of(message, thread, bot, locale).pack(),
        roles=roles_of(message.author),
        has_past=thread.thread != str(message.id) and not is_personal(thread),
    )


def roles_of(author: discord.abc.User) -> tuple[str, ...]:
    """The ids of a person's roles in the guild where they write."""
    return (
        tuple(str(role.id) for role in author.roles) if isinstance(author, discord.Member) else ()
    )


def is_written_by_person(message: discord.Message) -> bool:
    """Whether a person wrote it: not a bot, a webhook, or Discord itself."""
    return message.type in WRITTEN_TYPES and not message.author.bot and message.webhook_id is None


def is_addressed(message: discord.Message, bot: Bot) -> bool:
    """Whether the text or the place asks the bot for an answer."""
    if message.guild is None:
        return True
    for found in _MENTION.finditer(message.content):
        if _names_bot(found, bot):
            return True
    return _replies_to_bot(message, bot)


def speaks_to_others(message: discord.Message, bot: Bot) -> bool:
    """Whether a message mentions somebody else, or is a reply to somebody else."""
    if any(user.id != bot.user for user in message.mentions):
        return True
    return message.type is discord.MessageType.reply and not _replies_to_bot(message, bot)


def may_be_known(message: discord.Message, bot: Bot) -> bool:
    """Whether the bot may have stored a message: it is addressed, or in a thread."""
    return isinstance(message.channel, discord.Thread) or is_addressed(message, bot)


def turn_of(message: discord.Message, bot: Bot) -> Turn:
    """A message as a turn, of the bot or of a person."""
    own = message.author.id == bot.user
    return Turn(
        id=str(message.id),
        role="assistant" if own else "user",
        author=str(message.author.id),
        text=text_of(message, bot),
        at=message.created_at.timestamp(),
        name=message.author.display_name,
    )


def text_of(message: discord.Message, bot: Bot) -> str:
    """The text with names for ids, without the mention of the bot."""
    names = _names(message)

    def name(found: re.Match[str]) -> str:
        if _names_bot(found, bot):
            return "" if found["blank"] else " "
        known = names.get((found["kind"].rstrip("!"), int(found["id"])))
        return known + found["blank"] if known else found[0]

    return _MENTION.sub(name, message.content).strip()


def ids(text: str) -> str:
    """Ids for the mentions of people and roles in a list that a person typed."""
    return _MENTION.sub(r" \g<id> ", text)


def revision_of(message: discord.Message) -> str:
    """The time of a message's newest edit, in milliseconds; empty if it was never edited."""
    return str(int(message.edited_at.timestamp() * 1000)) if message.edited_at else ""


def thread_name(text: str, fallback: str) -> str:
    """The name of the thread that a message opens: its first line, shortened."""
    first = text.strip().split("\n", 1)[0].strip() if text.strip() else fallback
    return first if len(first) <= TITLE_LENGTH else first[: TITLE_LENGTH - 1].rstrip() + "…"


def _names(message: discord.Message) -> Mapping[tuple[str, int], str]:
    names = {("@", user.id): f"@{user.display_name}" for user in message.mentions}
    names |= {("@&", role.id): f"@{role.name}" for role in message.role_mentions}
    names |= {("#", channel.id): f"#{channel.name}" for channel in message.channel_mentions}
    return names


def _names_bot(found: re.Match[str], bot: Bot) -> bool:
    ident = int(found["id"])
    return (
        ident in bot.roles if found["kind"] == "@&" else ident == bot.user and found["kind"] != "#"
    )


def _replies_to_bot(message: discord.Message, bot: Bot) -> bool:
    reference = message.reference
    if reference is None or message.type is not discord.MessageType.reply:
        return False
    answered = reference.resolved
    return isinstance(answered, discord.Message) and answered.author.id == bot.user


def _address_of(message: discord.Message, thread: ThreadKey, bot: Bot, locale: str) -> ReplyAddress:
    opens = message.guild is not None and thread.thread == str(message.id)
    return ReplyAddress(
        channel=thread.thread if opens else str(message.channel.id),
        reply_to=str(message.id),
        opens=thread_name(text_of(message, bot), "Henji") if opens else "",
        locale=locale,
    )


# -- interactions -------------------------------------------------------------------------------


def incoming_command(
    interaction: Interaction,
    text: str,
    locale: str,
    *,
    private: bool = False,
    apart: bool = False,
    token_only: bool = False,
) -> Incoming:
    """A command as the relay takes it.

    `apart`: the conversation is kept apart from the channel's, as a private one is.
    `token_only`: the bot can write there only with the interaction's token.
    """
    here, person = interaction.channel, interaction.user.id
    thread = thread_in(interaction.guild_id, here, person, private=private or apart)
    turn = Turn(
        id=str(interaction.id),
        role="user",
        author=str(interaction.user.id),
        text=text.strip(),
        at=interaction.created_at.timestamp(),
        name=interaction.user.display_name,
    )
    address = token_address(interaction, locale, private=private, token_only=token_only)
    past = not is_personal(thread)
    return Incoming(
        thread, turn, addressed=True, note=address.pack(), has_past=past, alone=True,
        roles=roles_of(interaction.user),
    )  # fmt: skip


def token_address(
    interaction: Interaction,
    locale: str,
    *,
    private: bool = False,
    token_only: bool = False,
) -> ReplyAddress:
    """The address of a reply to an interaction, with its token."""
    return ReplyAddress(
        channel=str(interaction.channel_id or ""),
        app=str(interaction.application_id),
        token=interaction.token,
        until=interaction.expires_at.timestamp(),
        private=private,
        token_only=token_only,
        locale=locale,
    )
