"""Makes a model's Markdown look right in Discord, and reads Discord's markup. Pure.

Discord shows no tables, rules, images, HTML, formulas, indented code, or headings below the third
level, and ends a code block at the first three backticks. They are replaced by Markdown that it
shows, HTML and formulas in `bots.markdown`. Code is left alone. The same text gives the same result
however it grew.

The client's own rules, as they are read from its published script (mirrors on GitHub, 2025-2026):
a quote's mark needs a blank behind it, an address goes on to the next white space, a link whose
words contain an address is shown as it is written, and a heading loses the signs at its end.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain, islice, pairwise, zip_longest
from textwrap import dedent
from typing import TypeAlias

from bots.markdown import kinds, simplified
from bots.text import block_lines, characters, without_address, without_code

TABLE_WIDTH = 56
"""Columns of a code block that fit on a phone in landscape and in a narrow window."""
RULE = "─" * 12
MOST_LEVELS = 3
"""Of headings."""

_QUOTE = re.compile(r"(?:> ?)?")
_HEADING = re.compile(
    r"(?P<begin>[ \t]*(?:[-*+] +|\d{1,9}[.)] +)?)(?P<level>#{1,6})[ \t]+(?P<title>.*)$"
)
_NO_TITLE = re.compile(r"[ \t]*(?:[-*+>#=|─]|\d{1,9}[.)] )")
_UNDERLINE = re.compile(r" {0,3}={3,}[ \t]*$")
_RULE = re.compile(r" {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$")
_TABLE_RULE = re.compile(r"[ \t]*\|?[ \t]*:?-+:?(?:[ \t]*\|[ \t]*:?-+:?)*(?:[ \t]*\|)?[ \t]*$")
_CELL_END = re.compile(r"(?<!\\)\|")
_INLINE = re.compile(
    r"""
      \[!\[(?P<linked>[^\]\n]{0,300})\]\([^()\s]{1,2000}\)\]\((?P<target>[^()\s]{1,2000})\)
    | !\[(?P<alt>[^\]\n]{0,300})\]
      \((?P<url>(?:[^()\s]|\([^()\s]{0,200}\)){1,2000})(?:[ \t]+"[^"\n]{0,300}")?\)
    | \[(?P<label>[^\[\]\n]{1,300})\]
      \(<?(?P<address>https?://(?:[^()\s<>]|\([^()\s]{0,200}\)){1,2000})>?
      (?:[ \t]+"[^"\n]{0,300}")?\)
    | <[^<>\s]{1,2000}>
    | (?<!\]\()(?P<bare>https?://(?:(?!を|(?<=[A-Za-z0-9)\]*~.,:;!?"'|])[ぁ-ゖ])[^\s<>"""
    # no punctuation of Japanese or of typesetters
    r"""\u2010-\u206f\u3001-\u3004\u3008-\u303f・\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65])+)
    """,
    re.VERBOSE,
)
_ADDRESS = re.compile(r"https?://[^\s<]{2}")
_TIGHT_QUOTE = re.compile(r">(?!>>)(?=$|[^\W_]|[-*`#>\[「『（“])")
_CELL_MARK = re.compile(
    r"""
      (?P<ticks>`{1,8})(?P<code>.{1,500}?)(?<!`)(?P=ticks)(?!`)
    | (?P<mark>\*\*|~~)(?=\S)(?P<text>.{1,500}?)(?<=\S)(?P=mark)
    | (?<!\w)__(?=\S)(?P<under>.{1,500}?)(?<=\S)__(?!\w)
    | \\(?P<escaped>[!-/:-@\[-`{-~])
    """,
    re.VERBOSE,
)


def rendered(text: str) -> str:
    """The text in Markdown that Discord shows."""
    return "\n".join(_blocks(list(_with_quotes(_with_fences(simplified(text, "__"))))))


def _with_fences(text: str) -> Iterator[tuple[str, str]]:
    """Each line and its kind, with fences around code that is only indented."""
    code, blank = list[str](), list[tuple[str, str]]()
    for (line, kind), (_, known) in zip(block_lines(text), kinds(text), strict=True):
        if kind == "prose" and known == "code":
            code += [*("" for _ in blank), line]
            blank = []
        elif code and kind == "prose" and not line.strip():
            blank.append((line, kind))
        else:
            yield from chain(_fenced(code), blank, [(line, kind)])
            code, blank = [], []
    yield from chain(_fenced(code), blank)


def _fenced(code: Sequence[str]) -> Iterator[tuple[str, str]]:
    if code:
        yield "```", "fence"
        yield from ((line, "code") for line in dedent("\n".join(code)).split("\n"))
        yield "```", "fence"


def _with_quotes(lines: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The lines with a blank behind each mark of a quote."""
    quoted = False
    for line, kind in lines:
        quoted = line.startswith(">") if kind != "code" else quoted
        tight = quoted and (_TIGHT_QUOTE.match(line) if kind != "code" else line[:1] == ">")
        yield (f"> {line[1:]}" if tight and line[1:2] != " " else line), kind


def _blocks(lines: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Line by line; `lines` have their kind: ``prose``, ``code``, or a ``fence`` of their block."""
    at = 0
    while at < len(lines):
        line, kind = lines[at]
        bare = line.strip()
        if kind != "prose":
            yield _fence(line) if kind == "fence" else re.sub("``(?=`)", "``\u200b", line)
        elif rows := _table_at(lines, at):
            yield from (_mark_of(line) + row for row in _table(rows))
            at += len(rows)  # with its rule
        elif bare and _is_underlined(lines, at):
            yield f"# {_inline(bare)}"
            at += 1
        else:
            yield _prose(line)
        at += 1


def _fence(line: str) -> str:
    """The mark of a code block with three backticks: four are three and one more to Discord. A
    language follows without a blank."""
    line = re.sub(r"`{4,8}|~{3,8}", "```", line, count=1)
    return re.sub(r"^((?:> ?)?[ \t]{0,8}```)[ \t]{1,8}(?=[\w+\-.#]{1,30}$)", r"\1", line)


def _mark_of(line: str) -> str:
    """The mark of a quoted line."""
    return _QUOTE.match(line)[0]  # type: ignore[index]  # matches anything


def _is_underlined(lines: Sequence[tuple[str, str]], at: int) -> bool:
    """Whether a line is a heading by the signs under it."""
    below, kind = lines[at + 1] if at + 1 < len(lines) else ("", "")
    is_words = not _NO_TITLE.match(lines[at][0]) and "|" not in lines[at][0]
    return kind == "prose" and bool(_UNDERLINE.match(below)) and is_words


def _prose(line: str) -> str:
    mark = _mark_of(line)
    inside = line[len(mark) :]
    if heading := _HEADING.match(inside):
        title = _title(heading["title"])
        if len(heading["level"]) > MOST_LEVELS:
            bold = f"{mark}{heading['begin']}**{_inline(title)}**"
            return bold if title else mark.rstrip()
        end = "\u200b" if title.endswith("#") else ""
        return f"{_inline(line.rstrip())}{end}"
    return f"{mark}{RULE}" if _RULE.match(inside) else _inline(line)


def _title(words: str) -> str:
    """A heading's words without the signs that close it, which stand apart: C# keeps its own."""
    words = words.rstrip(" \t")
    bare = words.rstrip("#")
    return words if bare[-1:].strip() else bare.rstrip(" \t")


def _inline(line: str) -> str:
    parts, at = [], 0
    for found in _INLINE.finditer(without_code(line)):
        parts += [line[at : found.start()], _shown(found, line)]
        at = found.end()
    return "".join([*parts, line[at:]])


def _shown(found: re.Match[str], line: str) -> str:
    """An image as a link; a link and an address so that Discord makes them one."""

    def group(name: str) -> str:  # as it is: in `found`, code is blank
        return line[slice(*found.span(name))]

    whole = line[found.start() : found.end()]
    if found["target"]:
        return f"[{group('linked')}]({found['target']})" if found["linked"] else found["target"]
    if found["url"]:
        return f"[{group('alt')}]({found['url']})" if found["alt"] else found["url"]
    if found["address"] and _ADDRESS.search(found["label"]):
        address, label = found["address"], group("label")
        return (
            f"<{address}>" if label.rstrip("/") == address.rstrip("/") else f"{label} (<{address}>)"
        )
    if found["bare"] and not line[found.end() : found.end() + 1].strip().isascii():
        address = _without_marks(whole)
        return f"<{address}>{whole[len(address) :]}"
    return whole


def _without_marks(address: str) -> str:
    """An address without the marks and the brackets behind it."""
    end, unopened = len(address), address.count(")") - address.count("(")
    while address[end - 1] in ".,:;!?\"'*_~|]" or (address[end - 1] == ")" and unopened > 0):
        end -= 1
        unopened -= address[end] == ")"
    return address[:end]


# -- tables -------------------------------------------------------------------------------------


def _table_at(lines: Sequence[tuple[str, str]], at: int) -> list[list[str]]:
    """The rows of the table that begins at a line, head first; empty if none begins there."""
    mark = _mark_of(lines[at][0])
    inside = _lines_of_table(lines, at, mark)
    head, rule = next(inside, ""), next(inside, "")
    if "|" not in head or not _TABLE_RULE.match(rule):
        return []
    size = len(_cells(rule))
    rows = [_cells(line, size) for line in chain([head], inside)]
    return rows if len(rows[0]) == size else []


def _lines_of_table(lines: Sequence[tuple[str, str]], at: int, mark: str) -> Iterator[str]:
    """The lines from one on that may be of a table, without the mark of the quote it stands in."""
    for number in range(at, len(lines)):
        line, kind = lines[number]
        is_rule = number == at + 1
        if kind != "prose" or _mark_of(line) != mark or not ("|" in line or is_rule):
            return
        yield line[len(mark) :]


def _cells(line: str, size: int = 0) -> list[str]:
    """The cells of a row. A pipe in code is code, if that makes a row of `size`; what is left over
    stays in the last cell."""
    for seen in (without_code(line), line):
        cells = _split_cells(line, seen)
        if len(cells) == size:
            break
    if size and len(cells) > size:
        cells[size - 1 :] = [" | ".join(filter(None, cells[size - 1 :]))]
    return cells


def _split_cells(line: str, seen: str) -> list[str]:
    """A row, cut at the pipes that are seen in a text of the same length."""
    cuts = [found.start() for found in _CELL_END.finditer(seen)]
    cells = [line[a + 1 : b].strip() for a, b in pairwise([-1, *cuts, len(line)])]
    if len(cells) > 1 and not cells[0]:
        del cells[0]
    if len(cells) > 1 and not cells[-1]:
        cells.pop()
    return [cell.replace("\\|", "|") for cell in cells]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width in a code block; a list if that is too wide."""
    plain = [[_plain(cell) for cell in row] for row in rows]
    columns = () if len(rows[0]) > TABLE_WIDTH // 2 else zip_longest(*plain, fillvalue="")
    widths = [max(map(width, column)) for column in columns]
    if not widths or sum(widths) + 2 * (len(widths) - 1) > TABLE_WIDTH:
        return [_as_item(rows[0], row) for row in rows[1:]] or [" · ".join(rows[0])]
    lines = ["  ".join(_padded(row, widths)).rstrip() for row in plain]
    rule = "  ".join("─" * size for size in widths)
    return ["```", lines[0], rule, *lines[1:], "```"]


def _as_item(head: Sequence[str], row: Sequence[str]) -> str:
    first = row[0] if row else ""
    bold = f"**{first}**" if first and _plain(first) == first else first
    told = [
        f"{name}: {cell}" if name else cell
        for name, cell in zip(islice(head, 1, len(row)), row[1:], strict=True)
        if cell
    ]
    return _inline(" · ".join([f"- {bold}".rstrip(), *told]))


def _plain(cell: str) -> str:
    """A cell as a code block shows it: without the marks of code and of emphasis."""
    return _CELL_MARK.sub(_without_mark, cell)


def _without_mark(found: re.Match[str]) -> str:
    if found["escaped"]:
        return found["escaped"]
    return found["code"].strip() if found["ticks"] else _plain(found["text"] or found["under"])


def _padded(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    for cell, size in zip_longest(row, widths, fillvalue=""):
        yield str(cell) + " " * (int(size) - width(str(cell)))


def width(text: str) -> int:
    """Columns of a fixed-width font: East Asian characters and emoji take two."""
    return sum(_columns(character) for character in characters(text))


def _columns(character: str) -> int:
    if unicodedata.category(character[0]) in ("Mn", "Me", "Cf", "Cc"):
        return 0
    return 2 if unicodedata.east_asian_width(character[0]) in "WF" else 1


# -- markup -------------------------------------------------------------------------------------

MENTION = re.compile(r"<(?P<kind>@!?|@&|\#)(?P<id>\d{1,21})>")
_MARKUP = re.compile(
    rf"""
      (?P<mention>{MENTION.pattern})
    | <a?:(?P<emoji>\w{{2,32}}):\d{{1,21}}>
    | <t:(?P<time>-?\d{{1,12}})(?::(?P<style>[tTdDfFsSR]))?>
    | </(?P<command>[-\w' ]{{1,100}}):\d{{1,21}}>
    | <id:(?P<page>guide|browse|customize|linked-roles)(?::\d{{1,21}})?>
    | <(?P<link>https?://[^\s<>]{{1,2000}})>
    """,
    re.VERBOSE,
)
_PAGES = {
    "guide": "Server Guide",
    "browse": "Browse Channels",
    "customize": "Channels & Roles",
    "linked-roles": "Linked Roles",
}
_TIMES = {
    "t": "%H:%M UTC",
    "T": "%H:%M:%S UTC",
    "d": "%Y-%m-%d",
    "D": "%Y-%m-%d",
    "S": "%Y-%m-%d %H:%M:%S UTC",
}
_UNKNOWN = {"@": "@unknown-user", "@&": "@unknown-role", "#": "#unknown"}
"""As Discord shows what it cannot find."""

Names: TypeAlias = Callable[[str, int], str | None]
"""The name for a kind of mention (``@``, ``@&``, ``#``) and an id."""


def read_markup(text: str, names: Names, is_bot: Callable[[re.Match[str]], bool]) -> str:
    """A text as people see it: names, dates and emoji for their markup, outside code.

    The mention of the bot goes, with the blank or the comma beside it; `is_bot` knows it.
    """
    parts: list[str] = []
    at, begun = 0, False
    for found in _MARKUP.finditer(without_code(text)):
        before, at = text[at : found.start()], found.end()
        if found["mention"] and is_bot(found):
            before, at = without_address(text, before, at, begun=begun)
            parts.append(before)
        else:
            parts += [before, _mark_shown(found, names)]
            begun = True
        begun = begun or bool(before.strip())
    return ("".join(parts) + text[at:]).strip()


def _mark_shown(found: re.Match[str], names: Names) -> str:
    if found["mention"]:
        kind = found["kind"].rstrip("!")
        return names(kind, int(found["id"])) or _UNKNOWN[kind]
    if found["time"]:
        return _date(int(found["time"]), found["style"] or "f") or found[0]
    if found["emoji"]:
        return f":{found['emoji']}:"
    if found["link"]:
        return found["link"]
    return f"/{found['command']}" if found["command"] else _PAGES[found["page"]]


def _date(seconds: int, style: str) -> str:
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return ""
    return moment.strftime(_TIMES.get(style, "%Y-%m-%d %H:%M UTC"))
