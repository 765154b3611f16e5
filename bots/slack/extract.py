"""What a message has beside its words: files, forwards, and the attachments and blocks of bots.
Pure.

Text stays in Slack's markup until `convert.readable` converts it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeAlias

from bots.attachments import File, clean_name, file_of
from bots.quotes import image, joined
from bots.slack.markdown import dicts_in, escaped, written

Json: TypeAlias = Mapping[str, Any]

MOST_FIELDS = 50
"""Of one attachment."""
NO_PREVIEW = "[no preview available]"
"""The fallback that Slack gives an attachment without one."""


def words_of(message: Json) -> str:
    """The words of a message: the blocks of a bot's message, if they have text, else its text.

    An app's ``text`` is the notification for its blocks: reading both would repeat the words. The
    ``text`` of a person's message lacks tables.
    """
    with suppress(*MISSHAPEN):  # a new kind of block is no reason to lose what stands in `text`
        if message.get("bot_id") or any(map(_is_table, dicts_in(message.get("blocks")))):
            in_blocks = _blocks(message.get("blocks"))
            if in_blocks:
                return in_blocks
        return written(message)
    return str(message.get("text") or "")


def own_words(message: Json) -> str:
    """The words of a reply of the bot's, without the small print and the buttons under them."""
    blocks = dicts_in(message.get("blocks"))
    said = _blocks(block for block in blocks if block.get("type") not in _UNDER_A_REPLY)
    return said or str(message.get("text") or "")


_UNDER_A_REPLY = frozenset(("actions", "context", "context_actions"))
MISSHAPEN = (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError)
"""What reading a wrongly shaped payload raises."""


def carried_by(message: Json) -> str:
    """The attached text of a message: forwarded messages, pasted tables, and all attachments of a
    bot's message.

    A person's other attachments are previews of links, which come and go.
    """
    return joined(_carried(found, message) for found in dicts_in(message.get("attachments")))


def _carried(attachment: Json, message: Json) -> str:
    with suppress(*MISSHAPEN):
        return _carried_in(attachment, message)
    return str(attachment.get("fallback") or "")


def _carried_in(attachment: Json, message: Json) -> str:
    if _is_share(attachment):
        return _shared(attachment) if _is_forward(attachment, message) else ""
    if message.get("bot_id"):
        return _attachment(attachment)
    if any(attachment.get(name) for name in _OF_PREVIEWS):
        return ""
    return _blocks(filter(_is_table, dicts_in(attachment.get("blocks"))))


_OF_PREVIEWS = ("from_url", "original_url", "app_unfurl_url")
"""Keys of an attachment that is the preview of a link. It may have a table from an app."""


def bot_name(message: Json) -> str:
    """The name of a bot's message; empty for a person's, or without a name."""
    profile = message.get("bot_profile") or {}
    return str(message.get("username") or profile.get("name") or "")


def forwarded_files(message: Json) -> Iterator[Json]:
    """The files of forwarded messages."""
    for attachment in dicts_in(message.get("attachments")):
        if _is_forward(attachment, message):
            yield from dicts_in(attachment.get("files"))


def _is_forward(attachment: Json, message: Json) -> bool:
    """Whether an attachment is a forwarded message. The preview of a linked message is not one:
    not everyone who sees the answer may be able to read the linked message. A message has several
    addresses: any address of Slack's counts as a link to it."""
    previews = "slack.com/" in str(message.get("text") or "")
    return _is_share(attachment) and (bool(attachment.get("is_share")) or not previews)


def _is_share(attachment: Json) -> bool:
    return bool(attachment.get("is_share") or attachment.get("is_msg_unfurl"))


def _shared(attachment: Json) -> str:
    """A forwarded message; empty without text."""
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
        escaped(image("", str(attachment.get("image_url") or ""))),
        " · ".join(filter(None, (str(attachment.get("footer") or ""), _time(attachment)))),
    ]
    said = "\n".join(line.strip() for line in lines if line.strip())
    fallback = str(attachment.get("fallback") or "")
    return said or ("" if fallback == NO_PREVIEW else fallback)


def _time(attachment: Json) -> str:
    """The time that Slack shows after the footer; empty without one."""
    try:
        at = datetime.fromtimestamp(float(attachment["ts"]), UTC)
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return ""
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _field(field: Json) -> str:
    parts = (str(field.get(name) or "").strip() for name in ("title", "value"))
    return ": ".join(filter(None, parts))


def files_of(message: Json) -> tuple[File, ...]:
    """The files of a message: uploads, snippets and posts. A file that is deleted, or that the bot
    may not see, has no address."""
    return tuple(map(file_in, (*dicts_in(message.get("files")), *forwarded_files(message))))


_DOCUMENT_MODES = frozenset(("external", "quip", "space", "list"))
"""Files whose address leads to a page, not to text: on another company's host, canvases, old posts,
and lists."""
_DOCUMENT_TYPES = frozenset(("quip", "canvas", "space", "post", "list"))


def _is_document(found: Json) -> bool:
    """Whether a file is one of Slack's own documents, or another company's."""
    type_ = str(found.get("mimetype") or "")
    kind = found.get("filetype") in _DOCUMENT_TYPES or found.get("mode") in _DOCUMENT_MODES
    return kind or type_.startswith("application/vnd.slack-")


def file_in(found: Json) -> File:
    names = ("title", "name") if _is_document(found) else ("name", "title")
    name = next((str(found[key]) for key in (*names, "id") if found.get(key)), "")
    address = str(found.get("url_private_download") or found.get("url_private") or "")
    size = str(found.get("size") or "")
    size_told = int(size) if size.isdecimal() else 0
    file = file_of(name, str(found.get("mimetype") or ""), size_told, address)
    if _is_document(found):
        return replace(file, kind="other")
    return file


# -- blocks -------------------------------------------------------------------------------------


def _blocks(blocks: Any) -> str:
    return "\n".join(filter(None, map(_block, dicts_in(blocks))))


def _block(block: Json) -> str:
    match block.get("type"):
        case "context":
            return " ".join(filter(None, map(_text, block.get("elements") or ())))
        case "markdown":
            return escaped(str(block.get("text") or ""))
        case "rich_text":
            return written({"blocks": [block]})
        case "image":
            name = _text(block.get("title")) or escaped(str(block.get("alt_text") or ""))
            return f"[image: {name}]" if name else ""
        case "video":
            name = _text(block.get("title")) or escaped(str(block.get("alt_text") or ""))
            return "\n".join(filter(None, (f"[video: {name}]", _text(block.get("description")))))
        case "table":
            return "\n".join(filter(None, map(_row, block.get("rows") or ())))
        case "container":
            title = block.get("rich_text_title") or block.get("title")
            return _part([title, block.get("subtitle"), block.get("child_blocks")])
        case kind:
            parts = (block.get(name) for name in _PARTS.get(str(kind), ()))
            return "\n".join(filter(None, map(_part, parts)))


_PARTS: Mapping[str, tuple[str, ...]] = {
    "header": ("text",),
    "section": ("text", "fields", "accessory"),
    "input": ("label", "element"),
    "actions": ("elements",),
    "radio_buttons": ("options",),
    "checkboxes": ("options",),
    "alert": ("text",),
    "card": ("title", "subtitle", "body"),
    "carousel": ("elements",),
    "plan": ("title", "tasks"),
    "task_card": ("title", "details", "output"),
}
"""The parts of a block that contain text, in the order shown."""


def _part(part: Any) -> str:
    """A part of a block: a text, a block, or several of either."""
    if isinstance(part, list):
        return "\n".join(filter(None, map(_part, part)))
    if isinstance(part, Mapping) and "type" not in part:  # an option to choose
        part = part.get("text")
    is_text = not isinstance(part, Mapping) or part.get("type") in ("mrkdwn", "plain_text")
    return _text(part) if is_text else _block(part)


def _is_table(block: Json) -> bool:
    return block.get("type") == "table"


def _row(cells: Any) -> str:
    said = [_cell(cell) for cell in cells or ()]
    return " | ".join(said) if any(said) else ""


def _cell(cell: Json) -> str:
    """A table's cell on one line."""
    if cell.get("type") == "rich_text":
        text = written({"blocks": [cell]})
    else:
        value = cell.get("value", "")
        text = escaped(str(cell.get("text") or ("" if value is None else value)))
    return " ".join(text.split())


def _text(text: Any) -> str:
    """A text or a text object, in Slack's markup."""
    if isinstance(text, str):
        return escaped(text.strip())
    if not isinstance(text, Mapping) or "text" not in text:
        return ""
    said = str(text["text"] or "").strip()
    return said if text.get("type") == "mrkdwn" else escaped(said)
