"""The text of a message beside its words: forwards, and the attachments and blocks of bots. Pure.

It is in Slack's own markup, as its words are, until `convert.readable` converts it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import unescape
from typing import Any, TypeAlias

from bots.attachments import clean_name
from bots.quotes import joined
from bots.slack.markdown import escaped, written

Json: TypeAlias = Mapping[str, Any]

MOST_FIELDS = 50
"""Of one attachment."""


def words_of(message: Json) -> str:
    """What was written: of a bot's message its blocks, if they have text, else its text.

    An app's ``text`` is the notification of what its blocks say: it would stand there twice.
    """
    if message.get("bot_id"):
        in_blocks = _blocks(message.get("blocks"))
        if in_blocks:
            return in_blocks
    return written(message)


def carried_by(message: Json) -> str:
    """What a message carries beside its words: what it forwards, and of a bot's all attachments.

    A person's other attachments are previews of links, which come and go.
    """
    automatic = bool(message.get("bot_id"))
    parts = [
        _shared(attachment) if _is_share(attachment) else _attachment(attachment)
        for attachment in message.get("attachments") or ()
        if _is_forward(attachment, message) or (automatic and not _is_share(attachment))
    ]
    return joined(parts)


def bot_name(message: Json) -> str:
    """What a bot's message calls its author; empty where it is a person's, or has no name."""
    profile = message.get("bot_profile") or {}
    return str(message.get("username") or profile.get("name") or "")


def forwarded_files(message: Json) -> Iterator[Json]:
    """The files of what a message forwards."""
    for attachment in message.get("attachments") or ():
        if _is_forward(attachment, message):
            yield from attachment.get("files") or ()


def _is_forward(attachment: Json, message: Json) -> bool:
    """Whether an attachment is a forwarded message. The preview of a message that the words link to
    is none: not everyone who will see an answer may be able to read that message."""
    address = str(attachment.get("from_url") or "")
    previews = bool(address) and address in unescape(str(message.get("text") or ""))
    return _is_share(attachment) and (bool(attachment.get("is_share")) or not previews)


def _is_share(attachment: Json) -> bool:
    return bool(attachment.get("is_share") or attachment.get("is_msg_unfurl"))


def _shared(attachment: Json) -> str:
    """A forwarded message; nothing of one without text."""
    from_blocks = [
        _blocks((found.get("message") or {}).get("blocks"))
        for found in attachment.get("message_blocks") or ()
    ]
    text = joined(from_blocks) or str(attachment.get("text") or "")
    if not text.strip():
        return ""
    name = str(attachment.get("author_name") or attachment.get("author_subname") or "")
    label = f"[forwarded from {escaped(clean_name(name))}]" if name else "[forwarded]"
    # the signs of a quote, as people type them
    return "\n".join([label, *(f"&gt; {line}".rstrip() for line in text.strip().split("\n"))])


def _attachment(attachment: Json) -> str:
    if in_blocks := _blocks(attachment.get("blocks")):
        return in_blocks
    fields = list(attachment.get("fields") or ())[:MOST_FIELDS]
    lines = [
        *(str(attachment.get(name) or "") for name in ("pretext", "author_name", "title", "text")),
        *map(_field, fields),
        str(attachment.get("footer") or ""),
    ]
    said = "\n".join(line.strip() for line in lines if line.strip())
    return said or str(attachment.get("fallback") or "")


def _field(field: Json) -> str:
    parts = (str(field.get(name) or "").strip() for name in ("title", "value"))
    return ": ".join(filter(None, parts))


# -- blocks -------------------------------------------------------------------------------------


def _blocks(blocks: Any) -> str:
    return "\n".join(filter(None, map(_block, blocks or ())))


def _block(block: Json) -> str:
    match block.get("type"):
        case "header":
            return _text(block.get("text"))
        case "section":
            texts = [block.get("text"), *(block.get("fields") or ())]
            return "\n".join(filter(None, map(_text, texts)))
        case "context":
            return " ".join(filter(None, map(_text, block.get("elements") or ())))
        case "markdown":
            return escaped(str(block.get("text") or ""))
        case "rich_text":
            return written({"blocks": [block]})
        case "image":
            name = _text(block.get("title")) or escaped(str(block.get("alt_text") or ""))
            return f"[image: {name}]" if name else ""
    return ""


def _text(text: Any) -> str:
    """A text object in Slack's markup; a plain one has none."""
    if not isinstance(text, Mapping) or "text" not in text:
        return ""
    said = str(text["text"] or "").strip()
    return said if text.get("type") == "mrkdwn" else escaped(said)
