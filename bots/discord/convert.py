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
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal, TypeAlias

import discord

from bots.attachments import File, linked_message
from bots.discord import DIRECT, PLATFORM
from bots.discord.extract import READ_TYPES, files_of, is_automatic, own_words, whole_text
from bots.discord.markdown import MENTION, Names, read_markup
from bots.discord.replies import PLAIN_TITLE, ReplyAddress
from bots.markdown import title_of
from bots.platform import Incoming
from bots.quotes import GONE, Quote, joined, quote_of
from bots.text import without_code
from core.types import ThreadKey, Turn

WRITTEN_TYPES = frozenset({discord.MessageType.default, discord.MessageType.reply})
"""Messages that somebody wrote; joins, pins and boosts have other types."""

Answers: TypeAlias = Literal["thread", "reply"]
"""Whether a mention in a channel opens a thread or is answered by a reply."""
Interaction: TypeAlias = discord.Interaction[discord.Client]


@dataclass(frozen=True, slots=True)
class Bot:
    """The bot, where a message was written."""

    user: int
    roles: frozenset[int] = frozenset()
    """Roles whose mention addresses the bot. Discord makes one with the bot's name, which people
    often mention instead of the bot; people may have the bot's other roles, too.
    """
    names: frozenset[str] = frozenset()
    """As people type it in a thread's name, which has no mentions."""


def bot_in(
    client: discord.Client, guild: discord.Guild | None, roles: frozenset[int] = frozenset()
) -> Bot:
    """The bot in a guild, or in direct messages; `roles`: other roles that address it."""
    user = client.user  # None before the client has logged in
    found = bot_of(user.id if user else 0, guild, roles)
    names = {user.name, user.display_name} if user else set()
    return replace(
        found, names=frozenset(names | ({guild.me.display_name} if guild and guild.me else set()))
    )


def name_of_bot(client: discord.Client) -> str:
    """The bot's name; "Henji" before the client has logged in."""
    return client.user.display_name if client.user else "Henji"


def bot_of(user: int, guild: discord.Guild | None, roles: frozenset[int] = frozenset()) -> Bot:
    own = guild.self_role if guild else None
    return Bot(user, roles | {own.id} if own else roles)


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


def thread_of(message: discord.Message, answers: Answers, person: int | None = None) -> ThreadKey:
    """The conversation that an addressed message of a person's belongs to or opens."""
    guild = message.guild.id if message.guild else None
    here = thread_in(guild, message.channel, person or message.author.id)
    if guild is None or isinstance(message.channel, discord.Thread) or answers == "reply":
        return here
    return ThreadKey(PLATFORM, str(guild), str(message.channel.id), str(message.id))


def personal_thread(place: ThreadKey, person: str) -> ThreadKey:
    """A person's conversation in a channel, outside of Discord's threads."""
    return replace(place, thread=f"@{person}")


def is_personal(thread: ThreadKey) -> bool:
    """Whether a conversation is one person's in a channel, not a Discord thread."""
    return thread.thread[0] in "@!"


# -- messages -----------------------------------------------------------------------------------


def incoming(
    message: discord.Message,
    bot: Bot,
    answers: Answers,
    locale: str,
    original: discord.Message | None = None,
) -> Incoming | None:
    """A message as the relay takes it; None where it does not concern the bot.

    `original`: the deleted message that a proxy has posted this one for: its author is asking.
    """
    source = original or message
    if message.author.id == bot.user or source.type not in READ_TYPES:
        return None
    by_person = is_written_by_person(source)
    addressed = by_person and (is_addressed(message, bot) or is_addressed(source, bot))
    if not addressed and not isinstance(message.channel, discord.Thread):
        return None
    author = source.author
    thread = thread_of(message, answers, author.id)
    return Incoming(
        thread=thread,
        turn=replace(
            turn_of(message, bot),
            author=str(author.id),
            text=text_of(message, bot, automatic=not by_person),
        ),
        addressed=addressed,
        event_ids=(f"message:{message.id}",),
        note=_address_of(message, thread, bot, locale).pack(),
        roles=roles_of(author),
        has_past=thread.thread != str(message.id) and not is_personal(thread),
        files=pointed_at(message),
        can_vote=True,
        quote=quote_in(message, bot),
    )


LINK = re.compile(
    r"https://(?:\w+\.)?discord(?:app)?\.com/channels"
    r"/(?P<guild>@me|\d{1,21})/(?P<channel>\d{1,21})/(?P<message>\d{1,21})"
)
"""A link to a message, as Discord copies it."""


def links_in(text: str) -> tuple[File, ...]:
    """The messages that a text links to, outside code."""
    found = {match[0]: f"{match['channel']}/{match['message']}"
             for match in LINK.finditer(without_code(text))}  # fmt: skip
    return tuple(linked_message(name, address) for address, name in found.items())


def pointed_at(message: discord.Message) -> tuple[File, ...]:
    """The files of a message, and the messages that its words link to."""
    return (*files_of(message), *links_in(message.content))


def roles_of(author: discord.abc.User) -> tuple[str, ...]:
    """The ids of a person's roles in the guild where they write."""
    if not isinstance(author, discord.Member) or not author.guild:
        return ()
    return tuple(str(role.id) for role in author.roles)


def is_written_by_person(message: discord.Message) -> bool:
    """Whether a person wrote it: not a bot, a webhook, or Discord itself."""
    return message.type in WRITTEN_TYPES and not is_automatic(message)


def is_addressed(message: discord.Message, bot: Bot) -> bool:
    """Whether the text or the place asks the bot for an answer."""
    if message.guild is None:
        return True
    if mentions_bot(message.content, bot) or _replies_to_bot(message, bot):
        return True
    return opens_thread(message) and names_bot(message.channel, bot)


def opens_thread(message: discord.Message) -> bool:
    """Whether a message is the first in its thread, or the body of a forum's post."""
    if not isinstance(message.channel, discord.Thread):
        return False
    return message.id == message.channel.id or message.position == 0


def names_bot(thread: object, bot: Bot) -> bool:
    """Whether a thread's name is addressed to the bot."""
    if not isinstance(thread, discord.Thread):
        return False
    return any(_mention_by_name(own).search(thread.name) for own in bot.names) or mentions_bot(
        thread.name, bot
    )


def _mention_by_name(name: str) -> re.Pattern[str]:
    return re.compile(rf"@{re.escape(name)}(?!\w)[ \t]*[,，、:：]?[ \t]*", re.IGNORECASE)


def _title(thread: discord.Thread, bot: Bot) -> str:
    """A thread's name without the bot's."""
    name = thread.name
    for own in sorted(bot.names, key=len, reverse=True):
        name = _mention_by_name(own).sub("", name)
    return readable(name, bot, lambda kind, ident: _name_in(thread.guild, kind, ident))


def title_as_reply(
    thread: discord.Thread, starter: Mapping[str, Any], owner: Mapping[str, Any], bot: Bot
) -> Mapping[str, Any]:
    """The title of a thread that was made from a message, as its owner's reply to that message."""
    made = thread.created_at or datetime.now(UTC)  # threads of before 2022 have no time
    ident = max(discord.utils.time_snowflake(made), thread.id + 1)
    reference = {"message_id": starter["id"], "channel_id": starter["channel_id"]}
    return {
        "id": str(ident), "type": discord.MessageType.reply.value, "author": owner["user"],
        "member": owner, "content": f"<@{bot.user}> {_title(thread, bot)}", "flags": 0,
        "message_reference": reference | {"guild_id": str(thread.guild.id)},
        "referenced_message": starter, "edited_timestamp": None, "mention_everyone": False,
        "tts": False, "pinned": False, "mentions": [], "mention_roles": [], "attachments": [],
        "embeds": [], "components": [],
    }  # fmt: skip


def mentions_bot(text: str, bot: Bot) -> bool:
    """Whether a text mentions the bot outside code."""
    return any(_names_bot(found, bot) for found in MENTION.finditer(without_code(text)))


def speaks_to_others(message: discord.Message, bot: Bot) -> bool:
    """Whether a message mentions other people, roles or everyone, or is a reply to another
    person."""
    between_them = (bot.user, message.author.id)
    if message.mention_everyone:  # or all who are here
        return True
    if any(user.id not in between_them for user in message.mentions):
        return True
    if set(message.raw_role_mentions) - bot.roles:
        return True
    answered = answered_message(message)
    return answered is not None and answered.author.id not in between_them


def may_be_known(message: discord.Message, bot: Bot) -> bool:
    """Whether the bot may have stored a message: it is addressed, or in a thread."""
    return isinstance(message.channel, discord.Thread) or is_addressed(message, bot)


def turn_of(message: discord.Message, bot: Bot) -> Turn:
    """A message as a turn, of the bot or of a person."""
    turn = _turn(message, text_of(message, bot))
    return replace(turn, role="assistant") if message.author.id == bot.user else turn


def _turn(message: discord.Message, text: str) -> Turn:
    return Turn(
        id=str(message.id),
        role="user",
        author=str(message.author.id),
        text=text,
        at=message.created_at.timestamp(),
        name=message.author.display_name,
    )


def text_of(message: discord.Message, bot: Bot, *, automatic: bool | None = None) -> str:
    """A message as the model reads it: all of its parts as people see them, behind the message
    that it is a reply to.

    The name of a thread belongs to the message that opens it: a forum's post is often asked there.
    `automatic`: a bot wrote it; by default as its author is one.
    """
    quote, said = quote_in(message, bot), said_in(message, bot, automatic=automatic)
    said = joined([_title_over(message, bot), said])
    if quote is None or (quote is GONE and not said):
        return said
    return joined([quote.whole, said])


def _title_over(message: discord.Message, bot: Bot) -> str:
    """The name of the thread that a message opens; empty over any other."""
    thread = message.channel
    if not isinstance(thread, discord.Thread) or not opens_thread(message):
        return ""
    return _title(thread, bot) if message.id == thread.id or names_bot(thread, bot) else ""


def said_in(message: discord.Message, bot: Bot, *, automatic: bool | None = None) -> str:
    """The same without what it is a reply to."""
    if message.author.id == bot.user:
        return readable(own_words(message.content), bot, _names(message))
    read = partial(readable, bot=bot, names=_names(message))
    return whole_text(message, read, is_automatic(message) if automatic is None else automatic)


def quote_in(message: discord.Message, bot: Bot) -> Quote | None:
    """The message that a person's message is a reply to."""
    if message.type is not discord.MessageType.reply or is_automatic(message):
        return None
    answered = answered_message(message)
    if answered is None:
        return GONE
    words, files = said_in(answered, bot), files_of(answered)
    said = joined([words, *(f"[file: {f.name}]" for f in files)])
    if not said:
        return GONE
    quote = quote_of(str(answered.id), answered.author.display_name, said)
    if answered.author.id == bot.user:
        return quote
    turn = replace(_turn(answered, words), quoted=True)
    return replace(quote, turn=turn, roles=roles_of(answered.author), files=files)


def ids(text: str) -> str:
    """Ids for the mentions of people and roles in a list that a person typed."""
    return MENTION.sub(r" \g<id> ", text)


def revision_of(message: discord.Message) -> str:
    """The time of a message's newest edit, in milliseconds; empty if it was never edited."""
    return str(int(message.edited_at.timestamp() * 1000)) if message.edited_at else ""


def _name_without_words(message: discord.Message) -> str:
    """What a thread is called where its first message has no words."""
    files = files_of(message)
    return files[0].name if files else PLAIN_TITLE


def _names(message: discord.Message) -> Names:
    known = {("@", user.id): user.display_name for user in message.mentions}
    known |= {("@&", role.id): role.name for role in message.role_mentions}
    known |= {("#", channel.id): channel.name for channel in message.channel_mentions}

    def name(kind: str, ident: int) -> str | None:
        found = known.get((kind, ident)) or _name_in(message.guild, kind, ident)
        return f"{kind[0]}{found}" if found else None

    return name


def _name_in(guild: discord.Guild | None, kind: str, ident: int) -> str | None:
    """What a guild calls an id, as far as the bot has it in memory."""
    if guild is None:
        return None
    found = guild.get_role(ident) if kind == "@&" else guild.get_channel_or_thread(ident)
    return found.name if found and kind != "@" else None


def _names_bot(found: re.Match[str], bot: Bot) -> bool:
    ident = int(found["id"])
    return (
        ident in bot.roles if found["kind"] == "@&" else ident == bot.user and found["kind"] != "#"
    )


def _replies_to_bot(message: discord.Message, bot: Bot) -> bool:
    answered = answered_message(message)
    return answered is not None and answered.author.id == bot.user


def answered_message(message: discord.Message) -> discord.Message | None:
    """The message that this one is a reply to, if it still exists."""
    reference = message.reference
    if reference is None or message.type is not discord.MessageType.reply:
        return None
    return reference.resolved if isinstance(reference.resolved, discord.Message) else None


def _address_of(message: discord.Message, thread: ThreadKey, bot: Bot, locale: str) -> ReplyAddress:
    in_channel = message.guild is not None and not isinstance(message.channel, discord.Thread)
    opens = in_channel and thread.thread == str(message.id)
    return ReplyAddress(
        channel=thread.thread if opens else str(message.channel.id),
        reply_to=str(message.id),
        opens=title_of(said_in(message, bot), _name_without_words(message)) if opens else "",
        locale=locale,
    )


def readable(text: str, bot: Bot, names: Names) -> str:
    """A text as people see it, without the mention of the bot."""
    return read_markup(text, names, partial(_names_bot, bot=bot))


# -- interactions -------------------------------------------------------------------------------


def incoming_command(
    interaction: Interaction,
    text: str,
    locale: str,
    *,
    private: bool = False,
    files: tuple[File, ...] = (),
) -> Incoming:
    """A command as the relay takes it.

    Where the bot is installed for the person alone, the conversation is kept apart from the
    channel's, as a private one is, and counts as one in direct messages: each of the person's
    servers would give them another quota, and none knows their roles.
    """
    here, person = interaction.channel, interaction.user.id
    user_installed = is_user_installed(interaction)
    guild = None if user_installed else interaction.guild_id
    thread = thread_in(guild, here, person, private=private or user_installed)
    turn = Turn(
        id=str(interaction.id),
        role="user",
        author=str(interaction.user.id),
        text=text_in(interaction, text),
        at=interaction.created_at.timestamp(),
        name=interaction.user.display_name,
    )
    address = token_address(interaction, locale, private=private)
    past = not is_personal(thread)
    return Incoming(
        thread, turn, addressed=True, note=address.pack(), has_past=past, alone=True,
        roles=roles_of(interaction.user), interactive=True, files=(*files, *links_in(text)),
        can_vote=not (private or address.token_only),
    )  # fmt: skip


def text_in(interaction: Interaction, text: str) -> str:
    """The text of a command as people see it. Discord tells no names with it."""

    def name(kind: str, ident: int) -> str | None:
        if (kind, ident) == ("@", interaction.user.id):
            return f"@{interaction.user.display_name}"
        found = _name_in(interaction.guild, kind, ident)
        return f"{kind[0]}{found}" if found else None

    return readable(text, bot_in(interaction.client, interaction.guild), name)


def token_address(interaction: Interaction, locale: str, *, private: bool) -> ReplyAddress:
    """The address of a reply to an interaction, with its token."""
    return ReplyAddress(
        channel=str(interaction.channel_id or ""),
        app=str(interaction.application_id),
        token=interaction.token,
        until=interaction.expires_at.timestamp(),
        private=private,
        token_only=needs_token(interaction),
        limited=is_user_installed(interaction),
        locale=locale,
    )


def is_user_installed(interaction: Interaction) -> bool:
    """Whether the bot is installed for the person alone, not in the server where it was used."""
    if interaction.guild_id is not None:
        return interaction.is_user_integration() and not interaction.is_guild_integration()
    return interaction.context.private_channel is True


def needs_token(interaction: Interaction) -> bool:
    """Whether the bot can write there only with the interaction's token."""
    if is_user_installed(interaction):
        return True
    if interaction.guild_id is None:
        return False
    bot = interaction.app_permissions
    in_thread = isinstance(interaction.channel, discord.Thread)
    may_send = bot.send_messages_in_threads if in_thread else bot.send_messages
    return not (bot.view_channel and may_send) or is_locked(interaction.channel, bot)


def is_locked(channel: object, bot: discord.Permissions) -> bool:
    """Whether a channel is a locked thread, in which the bot cannot write."""
    return isinstance(channel, discord.Thread) and channel.locked and not bot.manage_threads
