"""Messages that a proxy such as PluralKit posts for a person, in place of their own."""

from __future__ import annotations

import time
from collections.abc import Callable

import discord

from core.types import Bounded

WINDOW = 15.0
"""Seconds between an original, its copy and its deletion."""
KEPT = 256


class Proxies:
    """The newest messages of people and of webhooks, until they are matched.

    A proxy posts a person's words by a webhook, under another name, and deletes the original;
    either can arrive first. A webhook's message is a person's only if that person's own message
    with these words was deleted in the same channel within a few seconds.
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
