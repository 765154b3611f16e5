"""The text of a message, read from its rich text: what a person wrote, with code, lists and emoji.

Beside its blocks, a message has `text`, which lacks list marks and has only the names of emoji.
The result is in the same markup as `text` (``<@U1>``, ``&amp;``).
Source: docs.slack.dev, Block Kit, "Rich text block" (2026).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]


def written(message: Json) -> str:
    """The text of a message: of its rich text, where it is nothing but that."""
    blocks = message.get("blocks") or []
    if blocks and all(block.get("type") == "rich_text" for block in blocks):
        parts = [part for block in blocks for part in block.get("elements") or ()]
        lines = [line for part in parts for line in _lines(part)]
        if any(line.strip() for line in lines):
            return "\n".join(lines)
    return str(message.get("text") or "")


def _lines(part: Json) -> Sequence[str]:
    elements = part.get("elements") or ()
    match part.get("type"):
        case "rich_text_preformatted":
            return ["```", *_inline(elements).split("\n"), "```"]
        case "rich_text_quote":
            return [f"&gt; {line}" for line in _inline(elements).split("\n")]
        case "rich_text_list":
            return list(_items(part))
    return _inline(elements).removesuffix("\n").split("\n")


def _items(part: Json) -> Iterator[str]:
    margin, first = "  " * int(part.get("indent") or 0), int(part.get("offset") or 0) + 1
    for number, item in enumerate(part.get("elements") or (), first):
        mark = f"{number}." if part.get("style") == "ordered" else "-"
        yield f"{margin}{mark} {_inline(item.get('elements') or ())}"


def _inline(elements: Sequence[Json]) -> str:
    return "".join(_element(element) for element in elements)


def _element(element: Json) -> str:
    match element.get("type"):
        case "text":
            text = escaped(str(element.get("text") or ""))
            return f"`{text}`" if (element.get("style") or {}).get("code") else text
        case "user":
            return f"<@{element['user_id']}>"
        case "channel":
            return f"<#{element['channel_id']}>"
        case "usergroup":
            return f"<!subteam^{element['usergroup_id']}>"
        case "broadcast":
            return f"<!{element['range']}>"
        case "link":
            label = escaped(str(element.get("text") or ""))
            return f"<{element['url']}|{label}>" if label else f"<{element['url']}>"
        case "emoji":
            return _emoji(element)
        case "date":
            label = escaped(str(element.get("fallback") or ""))
            return f"<!date^{element['timestamp']}^|{label}>"
    return escaped(str(element.get("text") or element.get("value") or ""))


def _emoji(element: Json) -> str:
    """The character, such as 🎉 of ``1f389``; a workspace's own emoji has only a name."""
    points = str(element.get("unicode") or "")
    if not points:
        return _name(element)
    try:
        return "".join(chr(int(point, 16)) for point in points.split("-"))
    except (OverflowError, ValueError):
        return _name(element)


def _name(element: Json) -> str:
    return f":{element.get('name', '')}:"


def escaped(text: str) -> str:
    """Text as Slack's markup has it."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
