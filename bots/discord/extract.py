"""The parts of a message: its words, embeds, polls, forwards and files. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC
from typing import Any, TypeAlias

import discord

from bots.attachments import File, clean_name, file_of
from bots.quotes import forwarded, image, joined, of_bot

MOST_FIELDS = 25
"""Discord's limit for one embed."""
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
"""Converts Discord's markup to the text that people see."""


def is_automatic(message: discord.Message) -> bool:
    """Whether a bot or a webhook wrote it."""
    return message.author.bot or message.webhook_id is not None


def whole_text(message: discord.Message, read: Read, automatic: bool) -> str:
    """All text of a message, except its files; `automatic`: a bot wrote it.

    A person's embeds are previews of links, which come and go: they are left out.
    """
    parts = [read(message.content)]
    parts += [_poll(message.poll)] if message.poll else []
    parts += [_forwarded(snapshot, read) for snapshot in message.message_snapshots]
    if not automatic:
        return joined(parts)
    parts += _embeds(message.embeds, read)
    parts += _texts(message.components, read)
    return of_bot(message.author.display_name, joined(parts))


def files_of(message: discord.Message) -> tuple[File, ...]:
    """The attachments and stickers of a message. Discord makes a long paste an attachment:
    ``message.txt``."""
    parts: list[discord.Message | discord.MessageSnapshot] = [message, *message.message_snapshots]
    attachments = [file_of_attachment(found) for part in parts for found in part.attachments]
    stickers = [clean_name(f"{found.name} (sticker)") for part in parts for found in part.stickers]
    return (*attachments, *(File(name, "image") for name in stickers))


def file_of_attachment(found: discord.Attachment) -> File:
    return file_of(found.filename, found.content_type or "", found.size, found.url)


def own_words(content: str) -> str:
    """The text of the bot's reply, without the small print under it."""
    return "\n".join(line for line in content.split("\n") if not line.startswith("-# "))


def _poll(poll: discord.Poll) -> str:
    votes = ": {}" if poll.total_votes else ""
    answers = [
        " ".join(f"{a.emoji or ''} {a.text or ''}{votes.format(a.vote_count)}".split())
        for a in poll.answers
    ]
    return "\n".join(["[poll]", poll.question or "", *(f"- {answer}" for answer in answers)])


def _forwarded(snapshot: discord.MessageSnapshot, read: Read) -> str:
    parts = [read(snapshot.content), *_embeds(snapshot.embeds, read)]
    return forwarded(joined([*parts, *_texts(snapshot.components, read)]))


def _embeds(embeds: Iterable[discord.Embed], read: Read) -> list[str]:
    return [_embed(embed, read) for embed in embeds if embed.type == "rich"]


def _embed(embed: discord.Embed, read: Read) -> str:
    fields = [_field(field) for field in embed.fields[:MOST_FIELDS]]
    lines = [embed.author.name, embed.title, embed.description, *fields]
    lines += [image("", embed.image.url or ""), _below(embed)]
    return "\n".join(read(line) for line in lines if line and line.strip())


def _below(embed: discord.Embed) -> str:
    """The small print of an embed: its footer and its time."""
    at = f"{embed.timestamp.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if embed.timestamp else ""
    return " · ".join(filter(None, (embed.footer.text, at)))


def _field(field: Any) -> str:
    name = (field.name or "").strip().strip("\u200b")
    value = (field.value or "").strip().strip("\u200b")
    return ": ".join(filter(None, (name, value)))


def _texts(components: Iterable[Any], read: Read) -> Iterator[str]:
    """The text displays and pictures of a message, inside sections and containers too."""
    for component in components:
        if isinstance(component, discord.TextDisplay):
            yield read(component.content)
        if isinstance(component, discord.FileComponent):
            yield f"[file: {clean_name(component.name or '')}]"
        if isinstance(component, discord.MediaGalleryComponent):
            yield from (image(item.description or "", item.media.url) for item in component.items)
        yield from _texts(getattr(component, "children", ()), read)
