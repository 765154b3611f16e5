"""The whole text of a message: words, forwards, and the embeds and components of bots. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import discord

from bots.quotes import forwarded, joined, of_bot

MOST_FIELDS = 25
"""Of one embed, as Discord has it."""
READ_TYPES = frozenset(
    {
        discord.MessageType.default,
        discord.MessageType.reply,
        discord.MessageType.chat_input_command,
        discord.MessageType.context_menu_command,
    }
)
"""Messages with something to read: joins, pins and boosts have other types."""

Read: TypeAlias = Callable[[str], str]
"""Discord's markup as people see it."""


def is_automatic(message: discord.Message) -> bool:
    """Whether a bot or a webhook wrote it."""
    return message.author.bot or message.webhook_id is not None


def whole_text(message: discord.Message, read: Read, automatic: bool) -> str:
    """Everything in a message that can be read, except its files; `automatic`: of a bot's.

    A person's embeds are previews of links, which come and go: they are not read.
    """
    parts = [read(message.content)]
    parts += [_forwarded(snapshot, read) for snapshot in message.message_snapshots]
    if not automatic:
        return joined(parts)
    parts += _embeds(message.embeds, read)
    parts += _texts(message.components, read)
    return of_bot(message.author.display_name, joined(parts))


def attachments_of(message: discord.Message) -> Sequence[discord.Attachment]:
    """The attachments of a message and of what it forwards."""
    forwarded_ones = (
        found for snapshot in message.message_snapshots for found in snapshot.attachments
    )
    return [*message.attachments, *forwarded_ones]


def own_words(content: str) -> str:
    """The words of a reply of the bot's, without the small print under them."""
    return "\n".join(line for line in content.split("\n") if not line.startswith("-# "))


def _forwarded(snapshot: discord.MessageSnapshot, read: Read) -> str:
    parts = [read(snapshot.content), *_embeds(snapshot.embeds, read)]
    return forwarded(joined([*parts, *_texts(snapshot.components, read)]))


def _embeds(embeds: Iterable[discord.Embed], read: Read) -> list[str]:
    return [_embed(embed, read) for embed in embeds if embed.type == "rich"]


def _embed(embed: discord.Embed, read: Read) -> str:
    fields = [_field(field, read) for field in embed.fields[:MOST_FIELDS]]
    lines = [embed.author.name, embed.title, embed.description, *fields, embed.footer.text]
    return "\n".join(read(line) for line in lines if line and line.strip())


def _field(field: Any, read: Read) -> str:
    name = (field.name or "").strip().strip("\u200b")
    value = (field.value or "").strip().strip("\u200b")
    return ": ".join(filter(None, (name, value)))


def _texts(components: Iterable[Any], read: Read) -> Iterator[str]:
    """The text displays of a message, inside sections and containers too."""
    for component in components:
        if isinstance(component, discord.TextDisplay):
            yield read(component.content)
        yield from _texts(getattr(component, "children", ()), read)
