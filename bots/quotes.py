"""Words of others in a turn: quotes, forwarded messages, posts of bots."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from bots.attachments import File, clean_name, path_of
from core.types import Turn

LENGTH = 4_000
"""Characters of one quoted message."""
POINTER_LENGTH = 120
"""Characters of a pointer to a message of the same thread."""
BOT_LABEL = "[bot: "


@dataclass(frozen=True, slots=True)
class Quote:
    """The message that another is a reply to."""

    id: str
    """The platform's id of the quoted message."""
    whole: str
    """The text in front of the reply's words."""
    pointer: str
    """The same if the thread already has the message: only its beginning."""
    turn: Turn | None = None
    """The message as a separate turn. None for the bot's messages: a format in which people
    speak first would drop one at the beginning of a conversation."""
    roles: tuple[str, ...] = ()
    """The author's roles, to check whether their messages may be read."""
    files: tuple[File, ...] = ()

    def without(self, words: str) -> str:
        """A reply's words without this quote at their beginning."""
        return words.removeprefix(self.whole).strip()


GONE = Quote("", "[in reply to a message that cannot be read]", "")
"""A quote of a message that is deleted, or has nothing that could be read."""


def without_words(quote: Quote, text: str) -> str:
    """A message's text without the words that it quotes; empty if it has no others."""
    words = quote.without(text) if text.startswith(quote.whole) else text
    return joined([GONE.whole, words]) if words else ""


def quote_of(id_: str, name: str, text: str) -> Quote:
    """A quote of a message with this text."""
    label = f"in reply to {clean_name(name)}"
    beginning = " ".join(text.split())
    return Quote(id_, _block(label, text), _block(label, _cut(beginning, POINTER_LENGTH)))


def pointing(quote: Quote, text: str) -> str:
    """A message's text with the pointer in place of this quote."""
    return quote.pointer + text.removeprefix(quote.whole)


def forwarded(text: str, name: str = "") -> str:
    """A forwarded message; empty without text."""
    label = f"forwarded from {clean_name(name)}" if name else "forwarded"
    return _block(label, text) if text.strip() else ""


def of_bot(name: str, text: str) -> str:
    """The post of another bot or of a webhook; empty without text."""
    return f"{BOT_LABEL}{clean_name(name)}]\n{text}" if text.strip() else ""


def image(name: str, address: str = "") -> str:
    """A picture, which is named but not read, by its name or the end of its address; empty if it
    has neither."""
    name = name.strip() or PurePosixPath(path_of(address)).name
    return f"[image: {clean_name(name)}]" if name or address else ""


def joined(parts: Iterable[str]) -> str:
    """The non-empty parts of a message, separated by blank lines."""
    return "\n\n".join(part.strip() for part in parts if part.strip())


def _block(label: str, text: str) -> str:
    lines = _cut(text.strip(), LENGTH).split("\n")
    return "\n".join([f"[{label}]", *(f"> {line}".rstrip() for line in lines)])


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"
