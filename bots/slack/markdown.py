"""Makes a model's Markdown look right in Slack, and reads Slack's markup. Pure. Code is left alone.

Slack reads Markdown by CommonMark's rules, as far as is known: `bots.commonmark` has them.

Every function is stable for a growing text: appending to the text only appends to the result, apart
from unfinished code and formulas.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from bots.commonmark import Blocks
from bots.markdown import as_code, complete, runs_in
from bots.text import outside_code

_TABLE_RULE = re.compile(r" {0,3}\|?[ \t]*:?-+:?(?:[ \t]*\|[ \t]*:?-+:?)+(?:[ \t]*\|)?[ \t]*$")


DEEPEST = 8
"""The deepest level of a list in Slack."""


def without_margins(parts: Sequence[str]) -> Sequence[str]:
    """The parts of a text. One that goes on with a list item is not indented as deep as code: Slack
    does not see the item's beginning."""
    shown, blocks = list[str](), Blocks()
    for part in parts:
        margin = len(part) - len(part.lstrip(" "))
        goes_on = margin >= 4 and margin >= blocks.content
        shown.append(_without_margin(part, margin) if goes_on and blocks.content else part)
        for line in part.split("\n"):
            blocks.kind_of(line)
    return shown


def _without_margin(part: str, margin: int) -> str:
    lines, at = part.split("\n"), 0
    while at < len(lines) and (lines[at].startswith(" " * margin) or not lines[at].strip()):
        lines[at] = lines[at][margin:]
        at += 1
    return "\n".join(lines)


def settled(text: str) -> str:
    """A growing text without the marks and blanks at its end: their meaning may still change."""
    return complete(text).rstrip("*~ \t\n")


def has_table(text: str) -> bool:
    """Whether there is a table outside code."""
    above = ""
    for line, is_prose in outside_code(text):
        if is_prose and "|" in above and _TABLE_RULE.match(line):
            return True
        above = line if is_prose else ""
    return False


Json = Mapping[str, Any]


def written(message: Json) -> str:
    """The text of a message; from its rich text if it has no other blocks."""
    blocks = dicts_in(message.get("blocks"))
    if blocks and all(block.get("type") == "rich_text" for block in blocks):
        parts = [part for block in blocks for part in dicts_in(block.get("elements"))]
        lines = [line for part in parts for line in _lines(part)]
        if any(line.strip() for line in lines):
            return "\n".join(lines)
    return str(message.get("text") or "")


def dicts_in(found: Any) -> Sequence[Json]:
    """The objects of a list in a payload, without what is none."""
    return [one for one in found or () if isinstance(one, Mapping)]


def _lines(part: Json) -> Sequence[str]:
    elements = dicts_in(part.get("elements"))
    match part.get("type"):
        case "rich_text_preformatted":
            code = _inline(elements)
            fence = "`" * max(3, *(length + 1 for length in runs_in(code)), 0)
            return [fence, *code.split("\n"), fence]
        case "rich_text_quote":
            return [f"&gt; {line}" for line in _inline(elements).split("\n")]
        case "rich_text_list":
            return list(_items(part))
    text = _inline(elements).removesuffix("\n")
    return (text.strip("\n") if any(map(_is_block, elements)) else text).split("\n")


def _items(part: Json) -> Iterator[str]:
    level, first = int(part.get("indent") or 0), int(part.get("offset") or 0) + 1
    margin = "  " * min(level, DEEPEST)
    for number, item in enumerate(dicts_in(part.get("elements")), first):
        mark = f"{margin}{number}. " if part.get("style") == "ordered" else f"{margin}- "
        said, *more = "\n".join(_lines(item)).split("\n")
        yield from (f"{mark}{said}", *(f"{' ' * len(mark)}{line}".rstrip() for line in more))


def _inline(elements: Sequence[Json]) -> str:
    parts = []
    for is_code, group in groupby(elements, _is_code):
        text = "".join(map(_element, group))
        parts.append(as_code(text) if is_code and text.strip() else text)
    return "".join(parts)


def _is_code(element: Json) -> bool:
    """Whether an element is inline code: a text, or an address in it, which Slack makes a link."""
    is_written = element.get("type") in ("text", "link")
    return is_written and bool((element.get("style") or {}).get("code"))


def _is_block(element: Json) -> bool:
    return str(element.get("type")).startswith("rich_text_")


def _element(element: Json) -> str:
    match element.get("type"):
        case "text":
            return escaped(str(element.get("text") or ""))
        case "user" | "channel" | "usergroup" | "broadcast" as kind:
            mark, name = _MENTIONS[kind]
            return f"<{mark}{element[name]}>" if element.get(name) else ""
        case "link":
            label, url = escaped(str(element.get("text") or "")), _url(element)
            return f"<{url}|{label}>" if label else f"<{url}>"
        case "emoji":
            return _emoji(element)
        case "date":
            label = escaped(str(element.get("fallback") or ""))
            return f"<!date^{element['timestamp']}^|{label}>"
        case _ if _is_block(element):  # as in a list's item
            return "\n".join(["", *_lines(element), ""])
    return escaped(str(element.get("text") or element.get("value") or ""))


_MENTIONS = {
    "user": ("@", "user_id"),
    "channel": ("#", "channel_id"),
    "usergroup": ("!subteam^", "usergroup_id"),
    "broadcast": ("!", "range"),
}
"""The markup of each kind of mention, and what names its target."""


def _url(element: Json) -> str:
    """The address of a link; blocks have it as it is, and texts with Slack's escapes."""
    return escaped(str(element.get("url") or "").replace("|", "%7C"))


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
    """Text escaped for Slack's markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def unescaped(text: str) -> str:
    """What `escaped` made of a text. HTML has more entities than these three, and a browser reads
    the `&copy` of ``?a=1&copy=2`` as one."""
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


_MARKUP = re.compile(r"<([#!]?)([^<>|]+)(?:\|([^<>]*))?>")


def read_markup(text: str) -> str:
    """Slack's markup of channels, groups, dates and links as people read it; still escaped."""
    return _MARKUP.sub(_read, text)


def _read(match: re.Match[str]) -> str:
    sign, what, label = match[1], match[2], match[3] or ""
    if sign == "#":
        return f"#{label or what}"  # a private channel has no name here
    if sign == "!":
        return _read_special(what, label)
    scheme, colon, rest = what.partition(":")
    if not colon:
        return match[0]
    if scheme in ("mailto", "tel"):
        return label or rest
    shown = rest.removeprefix("//").rstrip("/")
    if label in (what, shown):
        return label
    return f"{label} ({what})" if label else what


def _read_special(what: str, label: str) -> str:
    kind, _, details = what.partition("^")
    if kind == "date":
        return label or _date(details.partition("^")[0])
    name = label.removeprefix("@") or details or kind
    return f"@{name}"


def _date(seconds: str) -> str:
    try:
        return f"{datetime.fromtimestamp(float(seconds), UTC):%Y-%m-%d %H:%M} UTC"
    except (OverflowError, ValueError, OSError):
        return seconds
