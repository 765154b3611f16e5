"""Makes a model's Markdown look right in Slack, and reads Slack's markup. Pure. Code is left alone.

Slack reads Markdown by CommonMark's rules, as far as is known. There a `**` next to punctuation
opens or closes bold only beside a space or more punctuation, which Japanese does not have: in
``**「先端」**の`` both stay literal. The same holds for `*` and `~~`. A zero-width space beside the
punctuation mends that.

Every function is stable for a growing text: appending to the text only appends to the result, apart
from unfinished code and formulas.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby, pairwise
from typing import Any, Literal

from bots.markdown import ZERO_WIDTH_SPACE, as_code, complete, runs_in
from bots.text import outside_code, without_code

_TOKEN = re.compile(r"\\.|`+|\*+|~~|https?://(?:[^\s<>「」（）、。`)*]|\*(?!\*))+")
_QUOTES = re.compile(r"(?: {0,3}> ?)*")
_ITEM = re.compile(r"(?:[-*+]|\d{1,9}[.)])(?: {1,4}(?=\S)| (?= |$)|$)")
_BREAK = re.compile(r"([-*_])(?: *\1){2,} *$")
_FENCE = re.compile(r"(`{3,}(?=[^`]*$)|~{3,})")
_BEGINS = re.compile(rf"{_ITEM.pattern}|{_FENCE.pattern}|#{{1,6}}(?: |$)")
_ALONE = re.compile(r"#{1,6}(?: |$)|\||([-*_])(?: *\1){2,} *$")
_TABLE_RULE = re.compile(r" {0,3}\|?[ \t]*:?-+:?(?:[ \t]*\|[ \t]*:?-+:?)+(?:[ \t]*\|)?[ \t]*$")


def mended(text: str) -> str:
    """The text with emphasis that CommonMark recognises."""
    if "*" not in text and "~~" not in text:
        return text
    shown, paragraph, blocks = list[str](), list[str](), Blocks()
    for line in text.split("\n"):
        kind = blocks.kind_of(line)
        if kind != "more":
            shown += _paragraph(paragraph)
            paragraph = []
        if kind == "code":
            shown.append(line)
        else:
            paragraph.append(line)
    return "\n".join([*shown, *_paragraph(paragraph)])


def _paragraph(lines: Sequence[str]) -> Sequence[str]:
    return [_with_flanks("\n".join(lines))] if lines else []


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


class Blocks:
    """The blocks of a text, line by line, as CommonMark has them: which lines are code."""

    def __init__(self) -> None:
        self._fence = ""
        self._quotes = 0
        self._items: list[int] = []
        """Where the content of the list items begins that are open."""
        self._is_apart, self._is_code = True, False
        """Whether the line before is blank or ends its block, and whether it is indented code."""

    @property
    def content(self) -> int:
        """Where the content of the outermost open list item begins; 0: there is none."""
        return self._items[0] if self._items else 0

    def kind_of(self, line: str) -> Literal["code", "prose", "more"]:
        """``more``: the line goes on with the paragraph of the line before."""
        is_code = bool(self._fence) and not self._quotes
        quote = "" if is_code else _QUOTES.match(line)[0]  # type: ignore[index]  # matches anything
        quotes = quote.count(">")
        rest = line[len(quote) :].expandtabs(4)
        indent, bare = len(rest) - len(rest.lstrip(" ")), rest.strip()
        if self._fence and self._goes_on(quotes, indent, bare):
            return "code"
        is_lazy = quotes < self._quotes and bare and not _BEGINS.match(rest, indent)
        is_lazy = bool(is_lazy) and not (self._is_apart or self._is_code)
        if quotes != self._quotes and not is_lazy:
            self._items, self._is_apart, self._is_code = [], True, False
            self._quotes = quotes
        if not bare:
            self._is_apart = True
            return "code" if self._is_code else "prose"
        return self._begin(rest, indent)

    def _goes_on(self, quotes: int, indent: int, bare: str) -> bool:
        """Whether a line is of the code block that is open, or its end."""
        content = self._items[-1] if self._items else 0
        if quotes < self._quotes or (bare and indent < content):
            self._fence, self._is_apart = "", True
            return False
        is_run = bare == self._fence[0] * len(bare) and len(bare) >= len(self._fence)
        if is_run and indent < content + 4:
            self._fence, self._is_apart = "", True
        return True

    def _begin(self, rest: str, indent: int) -> Literal["code", "prose", "more"]:
        if self._is_apart or self._is_code or _BEGINS.match(rest, indent):
            while self._items and indent < self._items[-1]:
                self._items.pop()
        content = self._items[-1] if self._items else 0
        self._is_code = (self._is_apart or self._is_code) and indent >= content + 4
        if self._is_code:
            return "code"
        begins, at = self._is_apart, indent
        if not _BREAK.match(rest, at):
            while (item := _ITEM.match(rest, at)) and at < content + 4:
                at = content = item.end()
                self._items.append(at)
                begins = True
        if begins and len(rest) - len(rest[at:].lstrip(" ")) >= at + 4 and rest[at:].strip():
            return "code"  # in an item, behind its mark
        if at < content + 4 and (fence := _FENCE.match(rest, at)):
            self._fence = fence[1]
            return "code"
        is_alone = _ALONE.match(rest, at) is not None
        self._is_apart = is_alone or not rest[at:].strip()
        return "prose" if begins or is_alone else "more"


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


def _with_flanks(text: str) -> str:
    """A paragraph with a zero-width space wherever emphasis would stay literal without it."""
    if "*" not in text and "~~" not in text:
        return text
    inserted: list[int] = []
    opened: set[str] = set()
    skip_to = end = 0
    for token in _TOKEN.finditer(without_code(text)):
        if "\n" in text[end : token.start()]:
            opened.clear()
        end = token.end()
        if token.start() < skip_to or not token[0].startswith(("*", "~", "`")):
            continue
        if token[0].startswith("`"):  # code without an end
            skip_to = text.find("\n", token.end()) % (len(text) + 1)
            continue
        before = text[max(0, token.start() - 1) : token.start()]
        after = text[token.end() : token.end() + 1]
        marks = {"*", "**"} if token[0] == "***" else {token[0]}
        if marks <= opened and before.strip():
            opened -= marks
            inserted += [token.start()] if _is_punctuation(before) else []
        elif after.strip() and (token[0] != "*" or _opens_anyway(before, after)):
            opened |= marks
            inserted += [token.end()] if _is_punctuation(after) else []
    return _insert(text, inserted)


def _opens_anyway(before: str, after: str) -> bool:
    """Whether CommonMark takes a mark for an opening one; else a single asterisk is a footnote."""
    return not _is_punctuation(after) or not before.strip() or _is_punctuation(before)


def _insert(line: str, places: Sequence[int]) -> str:
    cuts = [0, *places, len(line)]
    return ZERO_WIDTH_SPACE.join(line[a:b] for a, b in pairwise(cuts))


def _is_punctuation(character: str) -> bool:
    """As CommonMark 0.31 has it: Unicode's punctuation and symbols."""
    return unicodedata.category(character)[0] in "PS"


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
    margin, first = "  " * int(part.get("indent") or 0), int(part.get("offset") or 0) + 1
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
