"""Makes a model's Markdown look right in Slack. Pure. Code is left alone.

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
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import count, pairwise
from typing import Any

from bots.text import outside_code

ZERO_WIDTH_SPACE = "\u200b"

_TOKEN = re.compile(r"\\.|`+|\*+|~~|https?://(?:[^\s<>「」（）、。`)*]|\*(?!\*))+")
_LIST_ITEM = re.compile(r"[-*+] |\d{1,9}[.)] ")
_TABLE_RULE = re.compile(r" {0,3}\|?[ \t]*:?-+:?(?:[ \t]*\|[ \t]*:?-+:?)+(?:[ \t]*\|)?[ \t]*$")
_FORMULA = re.compile(
    r"""
      \\\(((?:[^\\\n]|\\(?![()]))+)\\\)
    | \\\[((?:[^\\\n]|\\(?![\[\]]))+)\\\]
    | \$\$([^$\n]+)\$\$
    """,
    re.VERBOSE,
)
_FORMULA_BEGINS = frozenset(("\\[", "$$"))
_FORMULA_ENDS = {"\\[": "\\]", "$$": "$$"}


def mended(text: str) -> str:
    """The text with emphasis that CommonMark recognises, and with formulas as code."""
    lines: list[str] = []
    ends = ""  # what ends the formula that is open
    for line, is_prose in outside_code(text):
        bare = line.strip()
        if ends:
            lines.append("```" if bare == ends else line)
            ends = "" if bare == ends else ends
        elif is_prose and bare in _FORMULA_BEGINS:
            lines.append("```")
            ends = _FORMULA_ENDS[bare]
        elif is_prose and not _is_indented_code(line):
            lines.append(_with_flanks(_with_formulas(line)))
        else:
            lines.append(line)
    return "\n".join([*lines, "```"] if ends and text.endswith("\n") else lines)


def settled(text: str) -> str:
    """A growing text without the marks at its end: their meaning may still change."""
    return text.rstrip("*~")


def has_table(text: str) -> bool:
    """Whether there is a table outside code."""
    above = ""
    for line, is_prose in outside_code(text):
        if is_prose and "|" in above and _TABLE_RULE.match(line):
            return True
        above = line if is_prose else ""
    return False


def _is_indented_code(line: str) -> bool:
    indented = line.startswith(("    ", "\t"))
    return indented and not _LIST_ITEM.match(line.lstrip())


def _with_formulas(line: str) -> str:
    """Formulas as inline code: Markdown would take their backslashes and underscores away."""
    if "\\" not in line and "$$" not in line:
        return line
    tokens, parts, at = list(_TOKEN.finditer(line)), list[str](), 0
    alone = frozenset[int]()
    """The lengths of backtick runs before, which a run of that length would close."""
    for index, token in enumerate(tokens):
        if token.start() < at or not token[0].startswith("`"):
            continue
        end = _close_of_code(tokens, index)
        parts += (*_formulas_as_code(line[at : token.start()], alone), line[token.start() : end])
        if end is None:
            parts[-1] = token[0]
            alone |= {len(token[0])}
        at = end or token.end()
    return _apart([*parts, *_formulas_as_code(line[at:], alone)])


def _apart(parts: Iterable[str]) -> str:
    """The parts, with a zero-width space where two runs of backticks would become one."""
    joined = ""
    for part in filter(None, parts):
        joined += ZERO_WIDTH_SPACE if joined.endswith("`") and part.startswith("`") else ""
        joined += part
    return joined


def _formulas_as_code(text: str, alone: Set[int]) -> Iterator[str]:
    """The text in pieces, formulas as code among them."""
    at = 0
    for match in _FORMULA.finditer(text):
        yield text[at : match.start()]
        yield _as_code(match, alone)
        at = match.end()
    yield text[at:]


def _as_code(match: re.Match[str], alone: Set[int]) -> str:
    mark = next("`" * n for n in count(1) if n not in alone)
    return f"{mark}{next(filter(None, match.groups())).strip()}{mark}"


def _with_flanks(line: str) -> str:
    """The line with a zero-width space wherever emphasis would stay literal without it."""
    if "*" not in line and "~~" not in line:
        return line
    tokens = list(_TOKEN.finditer(line))
    inserted: list[int] = []
    opened: set[str] = set()
    skip_to = 0
    for at, token in enumerate(tokens):
        if token.start() < skip_to:
            continue
        if token[0].startswith("`"):
            skip_to = _end_of_code(tokens, at, line)
        elif token[0].startswith(("*", "~")):
            before = line[max(0, token.start() - 1) : token.start()]
            after = line[token.end() : token.end() + 1]
            marks = {"*", "**"} if token[0] == "***" else {token[0]}
            if marks <= opened and before.strip():
                opened -= marks
                inserted += [token.start()] if _is_punctuation(before) else []
            elif after.strip() and (token[0] != "*" or _opens_anyway(before, after)):
                opened |= marks
                inserted += [token.end()] if _is_punctuation(after) else []
    return _insert(line, inserted)


def _end_of_code(tokens: Sequence[re.Match[str]], at: int, line: str) -> int:
    """The end of the code that a run of backticks begins; unfinished code ends with the line."""
    return _close_of_code(tokens, at) or len(line)


def _close_of_code(tokens: Sequence[re.Match[str]], at: int) -> int | None:
    """The end of the code that a run of backticks begins; None where nothing closes it."""
    run = tokens[at][0]
    following = tokens[at + 1 : at + 65]
    return next((token.end() for token in following if token[0] == run), None)


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
            return ["```", *_inline(elements).split("\n"), "```"]
        case "rich_text_quote":
            return [f"&gt; {line}" for line in _inline(elements).split("\n")]
        case "rich_text_list":
            return list(_items(part))
    return _inline(elements).removesuffix("\n").split("\n")


def _items(part: Json) -> Iterator[str]:
    margin, first = "  " * int(part.get("indent") or 0), int(part.get("offset") or 0) + 1
    for number, item in enumerate(dicts_in(part.get("elements")), first):
        mark = f"{number}." if part.get("style") == "ordered" else "-"
        yield f"{margin}{mark} {_inline(dicts_in(item.get('elements')))}"


def _inline(elements: Sequence[Json]) -> str:
    return "".join(_element(element) for element in elements)


def _element(element: Json) -> str:
    match element.get("type"):
        case "text":
            text = escaped(str(element.get("text") or ""))
            return f"`{text}`" if (element.get("style") or {}).get("code") else text
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
