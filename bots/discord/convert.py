"""What Discord sends, as the rest of the house knows it: pure, and the only reader of its objects.

Where a conversation lives:

- in a thread (or forum post): the thread, under its parent channel;
- a mention in a channel that opens a thread: that thread already, for Discord gives a thread made
  from a message that message's id;
- a mention in a channel that is answered there, and ``/ask`` outside a thread: the person's
  conversation in the channel, ``@<person>`` (private ones apart, ``!<person>``);
- a direct message: space ``dm``, channel the person, thread the direct channel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import discord

from bots.discord.replies import Note
from bots.platform import Incoming
from core.types import ThreadKey, Turn

PLATFORM = "discord"
DIRECT = "dm"
SPOKEN = frozenset({discord.MessageType.default, discord.MessageType.reply})
"""What people write; joins, pins and boosts are other types."""
TITLE_LENGTH = 80
"""Discord takes 100 characters for a thread's name; fewer are shown."""

_MENTION = re.compile(r"<(?P<kind>@!?|@&|#)(?P<id>\d{15,21})>(?P<blank>[^\S\n]*)")

Answers: TypeAlias = Literal["thread", "reply"]


@dataclass(frozen=True, slots=True)
class Self:
    """Who the bot is where a message was written."""

    user: int
    roles: frozenset[int] = frozenset()
    """Its own roles: people often pick the role of that name instead of the member."""


# -- threads ------------------------------------------------------------------------------------


def thread_in(
    guild: int | None, channel: discord.abc.Snowflake | None, person: int, *, private: bool = False
) -> ThreadKey:
    """The conversation that a person has in a channel without opening a thread."""
    where = channel.id if channel else person
    if guild is None:
        return ThreadKey(PLATFORM, DIRECT, str(person), f"!{where}" if private else str(where))
    if isinstance(channel, discord.Thread) and not private:
        return ThreadKey(PLATFORM, str(guild), str(channel.parent_id), str(channel.id))
    parent = channel.parent_id if isinstance(channel, discord.Thread) else where
    return ThreadKey(PLATFORM, str(guild), str(parent), f"{'!' if private else '@'}{person}")


def thread_of(message: discord.Message, answers: Answers) -> ThreadKey:
    """The conversation that an addressed message belongs to, or opens."""
    guild = message.guild.id if message.guild else None
    here = thread_in(guild, message.channel, message.author.id)
    if guild is None or isinstance(message.channel, discord.Thread) or answers == "reply":
        return here
    return ThreadKey(PLATFORM, str(guild), str(message.channel.id), str(message.id))


def is_personal(thread: ThreadKey) -> bool:
    """Whether a conversation is one person's in a channel, rather than a thread of its own."""
    return thread.thread[0] in "@!"


# -- messages -----------------------------------------------------------------------------------


def incoming(message: discord.Message, me: Self, answers: Answers, locale: str) -> Incoming | None:
    """A message as the relay takes it; None where it is none of the bot's business."""
    if not is_spoken(message):
        return None
    asked = addressed(message, me)
    if not asked and not isinstance(message.channel, discord.Thread):
        return None
    thread = thread_of(message, answers)
    return Incoming(
        thread=thread,
        turn=turn_of(message, me),
        addressed=asked,
        event_ids=(f"message:{message.id}",),
        note=_note_of(message, thread, me, locale).pack(),
        roles=roles_of(message.author),
        has_past=thread.thread != str(message.id) and not is_personal(thread),
    )


def roles_of(author: discord.abc.User) -> tuple[str, ...]:
    """The ids of the roles that somebody has in the guild where they write."""
    return (
        tuple(str(role.id) for role in author.roles) if isinstance(author, discord.Member) else ()
    )


def is_spoken(message: discord.Message) -> bool:
    """Written by a person: bots, webhooks and Discord's own notices are not."""
    return message.type in SPOKEN and not message.author.bot and message.webhook_id is None


def addressed(message: discord.Message, me: Self) -> bool:
    """Whether the text, or the place, asks the bot for an answer."""
    if message.guild is None:
        return True
    for found in _MENTION.finditer(message.content):
        if _names_me(found, me):
            return True
    return _answers_me(message, me)


def speaks_to_others(message: discord.Message, me: Self) -> bool:
    """Whether a message is for somebody else by its mentions, or by what it is a reply to."""
    if any(user.id != me.user for user in message.mentions):
        return True
    return message.type is discord.MessageType.reply and not _answers_me(message, me)


def concerns(message: discord.Message, me: Self) -> bool:
    """Whether the bot may have taken a message in: it was addressed, or stands in a thread."""
    return isinstance(message.channel, discord.Thread) or addressed(message, me)


def turn_of(message: discord.Message, me: Self) -> Turn:
    """A message as a turn: of the bot's own, or of a person."""
    mine = message.author.id == me.user
    return Turn(
        id=str(message.id),
        role="assistant" if mine else "user",
        author=str(message.author.id),
        text=text_of(message, me),
        at=message.created_at.timestamp(),
        name=message.author.display_name,
    )


def text_of(message: discord.Message, me: Self) -> str:
    """The text with names for ids, and without the bot's own mention."""
    names = _names(message)

    def name(found: re.Match[str]) -> str:
        if _names_me(found, me):
            return "" if found["blank"] else " "
        known = names.get((found["kind"].rstrip("!"), int(found["id"])))
        return known + found["blank"] if known else found[0]

    return _MENTION.sub(name, message.content).strip()


def ids(text: str) -> str:
    """Ids for the mentions of people and roles in a list that a person typed."""
    return _MENTION.sub(r" \g<id> ", text)


def revision_of(message: discord.Message) -> str:
    """The stamp of a message's newest edit, in milliseconds; empty for its first form."""
    return str(int(message.edited_at.timestamp() * 1000)) if message.edited_at else ""


def title_of(text: str, fallback: str) -> str:
    """A name for the thread that a message opens: its first line, shortened."""
    first = text.strip().split("\n", 1)[0].strip() if text.strip() else fallback
    return first if len(first) <= TITLE_LENGTH else first[: TITLE_LENGTH - 1].rstrip() + "…"


def _names(message: discord.Message) -> Mapping[tuple[str, int], str]:
    names = {("@", user.id): f"@{user.display_name}" for user in message.mentions}
    names |= {("@&", role.id): f"@{role.name}" for role in message.role_mentions}
    names |= {("#", channel.id): f"#{channel.name}" for channel in message.channel_mentions}
    return names


def _names_me(found: re.Match[str], me: Self) -> bool:
    ident = int(found["id"])
    return ident in me.roles if found["kind"] == "@&" else ident == me.user and found["kind"] != "#"


def _answers_me(message: discord.Message, me: Self) -> bool:
    reference = message.reference
    if reference is None or message.type is not discord.MessageType.reply:
        return False
    answered = reference.resolved
    return isinstance(answered, discord.Message) and answered.author.id == me.user


def _note_of(message: discord.Message, thread: ThreadKey, me: Self, locale: str) -> Note:
    opens = message.guild is not None and thread.thread == str(message.id)
    return Note(
        channel=thread.thread if opens else str(message.channel.id),
        reply_to=str(message.id),
        opens=title_of(text_of(message, me), "Henji") if opens else "",
        locale=locale,
    )


# -- interactions -------------------------------------------------------------------------------


def asked(
    interaction: discord.Interaction[discord.Client],
    text: str,
    locale: str,
    *,
    private: bool = False,
    stranger: bool = False,
    shut_out: bool = False,
) -> Incoming:
    """A command as the relay takes it. `stranger`: the bot itself is not where it was used;
    `shut_out`: it is not, or may not write there.
    """
    apart = private or stranger
    here, person = interaction.channel, interaction.user.id
    thread = thread_in(interaction.guild_id, here, person, private=apart)
    turn = Turn(
        id=str(interaction.id),
        role="user",
        author=str(interaction.user.id),
        text=text.strip(),
        at=interaction.created_at.timestamp(),
        name=interaction.user.display_name,
    )
    note = token_note(interaction, locale, private=private, shut_out=shut_out or stranger)
    past = not is_personal(thread)
    return Incoming(
        thread, turn, addressed=True, note=note.pack(), has_past=past, alone=True,
        roles=roles_of(interaction.user),
    )  # fmt: skip


def token_note(
    interaction: discord.Interaction[discord.Client],
    locale: str,
    *,
    private: bool = False,
    shut_out: bool = False,
) -> Note:
    """Where the reply to an interaction goes: to its token first."""
    return Note(
        channel=str(interaction.channel_id or ""),
        app=str(interaction.application_id),
        token=interaction.token,
        until=interaction.expires_at.timestamp(),
        private=private,
        stranger=shut_out,
        locale=locale,
    )
