"""A model's Markdown without what no chat platform shows: HTML and formulas; titles. Pure.

HTML for plain formatting becomes Markdown, and formulas become code. Code is left alone, and so are
tags without a partner on their line: the words may be about them. The same text gives the same
result however it grew.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import count

from bots.text import block_lines, characters, without_code

ZERO_WIDTH_SPACE = "\u200b"
WAITED_LENGTH, WAITED_LINES = 1000, 40
"""Characters of a line, and lines of a formula, that `complete` holds back at most."""


_LIST_ITEM = re.compile(r"(?:[-*+]|\d{1,9}[.)]) {1,4}")


def simplified(text: str, underline: str = "") -> str:
    """The text without HTML and formulas; `underline`: the platform's mark for it, if any."""
    return _without_formulas(_without_html(text, underline))


def complete(text: str) -> str:
    """A growing text without the tag, formula or inline code at its end that has no end yet."""
    lines = list(kinds(text))
    last, kind = lines[-1]
    if kind != "prose":
        return text
    since = _Formulas(lines).open_since()
    if since is not None:
        return "".join(f"{line}\n" for line, _ in lines[:since])
    return text[: len(text) - len(last) + _unfinished(last)]


def kinds(text: str) -> Iterator[tuple[str, str]]:
    """Each line and its kind, as `block_lines` tells it; lines that are code because they are
    indented are ``code``, too."""
    content, is_apart, is_code = 0, True, False
    for line, kind in block_lines(text):
        bare = line.lstrip(" \t")
        indent = len(line[: len(line) - len(bare)].expandtabs(4))
        item = _LIST_ITEM.match(bare) if kind == "prose" else None
        if bare and kind != "code":
            is_code = kind == "prose" and not item and (is_apart or is_code)
            is_code = is_code and indent >= content + 4
            if item:
                content = indent + item.end()
            elif indent < content and (is_apart or kind == "fence"):
                content = indent
        is_apart = not bare or kind != "prose"
        yield line, "code" if is_code and bare else kind


# -- HTML -----------------------------------------------------------------------------------------

_TAG = re.compile(
    r"(?<!\\)<(?P<end>/?)(?P<name>[a-zA-Z][a-zA-Z0-9]{0,9})(?P<more>(?:[ \t][^<>\n]{0,300})?)/?>"
)
_ENTITY = re.compile(r"(?<!\\)&(lt|gt|quot|#39|nbsp);|(?<=[ \t])&amp;(?=[ \t])")
_CHARACTERS: Mapping[str | None, str] = {
    "lt": "\\<", "gt": "\\>", "quot": '"', "#39": "'", "nbsp": " ", None: "&",
}  # fmt: skip
_ATTRIBUTE = re.compile(r"""\b(?P<name>href|src|alt)=(?:"(?P<a>[^"]*)"|'(?P<b>[^']*)')""")
_QUOTE_MARK = re.compile(r"(?:>>> |> ?)?")
_BLANKS = re.compile(r"[ \t]*")
_EMPHASIS: Mapping[str, str] = {
    "b": "**", "strong": "**", "i": "*", "em": "*", "s": "~~", "del": "~~", "strike": "~~",
}  # fmt: skip
_UNDERLINED = frozenset(("u", "ins"))
_CODE = frozenset(("code", "kbd", "samp", "tt"))
_PLAIN = frozenset(("span", "font", "small", "big", "mark"))
_RAISED: Mapping[str, tuple[Mapping[int, str], str]] = {
    "sup": ({ord(a): b for a, b in zip(
        "0123456789+-=()abcdefghijklmnoprstuvwxyz",
        "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ", strict=True)}, "^"),
    "sub": ({ord(a): b for a, b in zip(
        "0123456789+-=()aehijklmnoprstuvx", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ", strict=True)}, "_"),
}  # fmt: skip
"""The characters that there are, and what stands before others."""
DEEPEST = 8
"""Levels of lists below the first: a line grows with each."""
_LISTS: Mapping[str, str] = {"ul": "- ", "ol": "1. "}
_BLOCKS: Mapping[str, tuple[str, str]] = {
    "summary": ("**", "**"), "blockquote": ("> ", ""),
    **dict.fromkeys(("p", "details", "div", "center", "li", *_LISTS), ("", "")),
    **{f"h{level}": (f"{'#' * level} ", "") for level in range(1, 7)},
}  # fmt: skip
"""What stands at the beginning and at the end of a block, besides the line's end."""
_BOLD = frozenset(("b", "strong", *(f"h{level}" for level in range(1, 7))))
_VOID = frozenset(("br", "hr", "img"))
_KNOWN = frozenset(
    (*_EMPHASIS, *_UNDERLINED, *_CODE, *_PLAIN, *_RAISED, *_BLOCKS, *_VOID, "a")
)  # fmt: skip


def _without_html(text: str, underline: str) -> str:
    if "<" not in text and "&" not in text:
        return text
    lines, lists = list[str](), list[str]()
    for line, kind in kinds(text):
        if kind == "prose" and ("<" in line or "&" in line):
            lines += _Line(_decoded(line), underline, lists).lines()
        else:
            lines.append(line)
    return "\n".join(lines)


def _decoded(line: str) -> str:
    """The line with characters for their names, which cannot begin a tag."""
    parts, at = [], 0
    for found in _ENTITY.finditer(without_code(line)):
        parts += [line[at : found.start()], _CHARACTERS[found[1]]]
        at = found.end()
    return "".join([*parts, line[at:]])


def _name(tag: re.Match[str]) -> str:
    return tag["name"].lower()


def _tags(seen: str) -> list[re.Match[str]]:
    return [tag for tag in _TAG.finditer(seen) if _name(tag) in _KNOWN]


def _pairs(tags: Sequence[re.Match[str]]) -> Mapping[int, re.Match[str]]:
    """Where each tag with a partner begins, and the partner."""
    pairs: dict[int, re.Match[str]] = {}
    opened = defaultdict[str, list[re.Match[str]]](list)
    for tag in tags:
        if not tag["end"]:
            opened[_name(tag)].append(tag)
        elif opened[_name(tag)]:
            partner = opened[_name(tag)].pop()
            pairs |= {partner.start(): tag, tag.start(): partner}
    return pairs


class _Line:
    """One line with tags, which becomes none, one or more."""

    def __init__(self, line: str, underline: str, lists: list[str]) -> None:
        """`lists`: the lists that are open, by their tags."""
        self._quote = _QUOTE_MARK.match(line)[0]  # type: ignore[index]  # matches anything
        self._line = line[len(self._quote) :]
        self._seen = without_code(self._line)
        self._underline, self._lists = underline, lists
        self._tags = _tags(self._seen)
        self._pairs = _pairs(self._tags)
        self._is_row = "|" in self._seen
        """Of a table, perhaps, which stays one line."""
        self._parts: list[str] = []
        self._at = 0
        """The text before it has been dealt with."""
        self._closed = -1
        """Where emphasis ended, the last time."""
        self._has_blocks, self._after = False, ""
        self._runs, self._counted = set[int](), 0
        """The lengths of the runs of backticks, as far as they are counted."""
        self._is_bold = any(_name(tag) in _BOLD for tag in self._tags)

    def lines(self) -> Iterator[str]:
        for at, tag in enumerate(self._tags):
            if tag.start() >= self._at:
                self._replace(at, tag)
        text = "".join([*self._parts, self._line[self._at :]])
        if self._has_blocks:
            text = re.sub(r"\n+", "\n", text).strip("\n")
            if not text.strip():
                return
            text += self._after
        first, *more = text.split("\n")
        yield self._quote + first
        yield from more if self._quote == ">>> " else (self._quote + line for line in more)

    def _replace(self, at: int, tag: re.Match[str]) -> None:
        name, partner = _name(tag), self._pairs.get(tag.start())
        if name == "br":
            self._put(tag, " " if self._is_row else "\n", trims=True)
        elif name == "hr" and self._is_alone(at, name):
            self._has_blocks = True
            self._put(tag, "\n***\n", trims=True)
        elif name == "img":
            self._put_image(tag)
        elif name in _BLOCKS:
            if not self._is_row and (partner or self._is_alone(at, name)):
                self._put_block(tag, is_whole=partner is not None)
        elif partner and name in _EMPHASIS.keys() | _UNDERLINED:
            self._put_emphasis(tag, partner)
        elif partner and name in _PLAIN:
            self._put(tag, "")
        elif partner and name == "a":
            self._put_link(tag, partner)
        elif partner and not tag["end"] and name in _CODE:
            self._put_code(tag, partner)
        elif partner and not tag["end"] and name in _RAISED:
            self._put_raised(tag, partner)

    def _put(self, tag: re.Match[str], text: str, *, trims: bool = False) -> None:
        """Put a text in a tag's place; `trims`: blanks beside it go."""
        before = self._line[self._at : tag.start()]
        self._parts += [before.rstrip(" \t") if trims else before, text]
        self._at = tag.end()
        if trims:
            self._at = _BLANKS.match(self._line, self._at).end()  # type: ignore[union-attr]  # matches anything

    def _put_block(self, tag: re.Match[str], *, is_whole: bool) -> None:
        self._has_blocks = True
        name, begins = _name(tag), not tag["end"]
        mark = _BLOCKS[name][not begins] if is_whole else ""
        mark = "" if name == "summary" and self._is_bold else mark
        if name == "li" and begins:
            kind = self._lists[-1] if self._lists else "ul"
            mark = "   " * min(len(self._lists) - 1, DEEPEST) + _LISTS[kind]
        elif name in _LISTS and begins:
            self._lists.append(name)
        elif name in _LISTS and self._lists:
            self._lists.pop()
        self._put(tag, f"\n{mark}" if begins else f"{mark}\n", trims=True)
        self._after = "" if begins or name != "p" else "\n"

    def _is_alone(self, at: int, name: str) -> bool:
        """Whether only other tags are beside a tag; words may follow on that of an item."""
        before = self._tags[at - 1].end() if at else 0
        after = self._tags[at + 1].start() if at + 1 < len(self._tags) else len(self._seen)
        tag = self._tags[at]
        words = self._line[tag.end() : after].strip() if name != "li" or tag["end"] else ""
        return not (words or self._line[before : tag.start()].strip())

    def _put_emphasis(self, tag: re.Match[str], partner: re.Match[str]) -> None:
        mark = _EMPHASIS.get(_name(tag), self._underline)
        begin = partner.end() if tag["end"] else tag.end()
        if self._line[begin : begin + 1].isspace():
            return  # Markdown has no such emphasis, and the words are often about the tags
        if not tag["end"]:
            is_beside = tag.start() == self._closed or self._line.endswith(mark, 0, tag.start())
            self._put(tag, f"{ZERO_WIDTH_SPACE}{mark}" if is_beside and mark else mark)
            return
        before = self._line[self._at : tag.start()]
        words = before.rstrip(" \t")
        is_beside = bool(mark) and self._line.startswith(mark, tag.end())
        self._parts += [words, mark, before[len(words) :], ZERO_WIDTH_SPACE * is_beside]
        self._at = tag.end()
        self._closed = self._at if mark else -1

    def _put_link(self, tag: re.Match[str], partner: re.Match[str]) -> None:
        address = _attributes(partner if tag["end"] else tag).get("href")
        if address:
            self._put(tag, f"]({address})" if tag["end"] else "[")

    def _put_image(self, tag: re.Match[str]) -> None:
        about = _attributes(tag)
        if about.get("src"):
            self._put(tag, f"![{about.get('alt', '')}]({about['src']})")

    def _put_code(self, tag: re.Match[str], partner: re.Match[str]) -> None:
        words = self._line[tag.end() : partner.start()].replace("\\<", "<").replace("\\>", ">")
        if words.strip():
            self._runs |= runs_in(self._seen[self._counted : tag.start()])
            self._counted = tag.start()
            self._put(tag, as_code(words, self._runs))
            self._at = partner.end()

    def _put_raised(self, tag: re.Match[str], partner: re.Match[str]) -> None:
        characters, mark = _RAISED[_name(tag)]
        words = _TAG.sub("", self._line[tag.end() : partner.start()]).strip()
        raised = words.translate(characters)
        if not all(ord(character) in characters for character in words):
            raised = f"{mark}({words})" if len(words) > 1 else f"{mark}{words}"
        self._put(tag, raised)
        self._at = partner.end()


def _attributes(tag: re.Match[str]) -> Mapping[str, str]:
    found = _ATTRIBUTE.finditer(tag["more"])
    return {one["name"].lower(): (one["a"] or one["b"] or "").strip() for one in found}


# -- formulas -------------------------------------------------------------------------------------

_FORMULA = re.compile(
    r"""
      \\\((?P<round>(?:[^\\\n]|\\(?![()])){1,1000})\\\)
    | \\\[(?P<square>(?:[^\\\n]|\\(?![\[\]])){1,1000})\\\]
    | \$\$(?P<dollars>[^$\n]{1,1000})\$\$
    | (?<![\w$\\])\$(?P<dollar>[^\s$](?:[^$\n]{0,200}[^\s$\\])?)\$(?![\w$])
    """,
    re.VERBOSE,
)
_MATHS = re.compile(r"[\\^_{}=]")
_BACKTICKS = re.compile(r"`+")
_DISPLAY = {"$$": "$$", "\\[": "\\]"}
_ENVIRONMENT = re.compile(r"\\begin\{(\w{1,20}\*?)\}")
_ENVIRONMENT_END = re.compile(r"\\end\{\w{1,20}\*?\}$")
_BEGUN = re.compile(
    r"""
      \\(?:[(\[]|$|b(?:e|eg|egi|egin|egin\{\w{0,20}\*?)?$)
    | \$\$ | \$$ | (?<![\w$\\])\$[^\s$][^$\n]{0,200}$ | `
    | (?<!\\)<(?:/?[a-zA-Z][^<>\n]{0,310}|/?)$ | &[a-z\#0-9]{0,5};?$
    """,
    re.VERBOSE,
)


def _unfinished(line: str) -> int:
    """Where a line's first tag, formula or code without an end begins; its length if there is
    none."""
    seen = without_code(line)
    recent = max(0, len(line) - WAITED_LENGTH)
    tags = _tags(seen)
    pairs = _pairs(tags)
    opened = (t.start() for t in tags if t.start() not in pairs and _name(t) not in _VOID)
    begun = _BEGUN.search(_FORMULA.sub(lambda found: " " * len(found[0]), seen), recent)
    starts = [start for start in opened if start >= recent]
    return min([*starts, begun.start() if begun else len(line)])


def _without_formulas(text: str) -> str:
    if "\\" not in text and "$" not in text:
        return text
    lines = list(kinds(text))
    formulas, shown, at = _Formulas(lines), list[str](), 0
    since = formulas.open_since()
    end = len(lines) if since is None else since  # what it has inside is no formula of its own
    while at < end:
        line, kind = lines[at]
        if kind == "prose" and (formula := formulas.beginning_at(at)):
            shown += _block(formula, line[: len(line) - len(line.lstrip())])
            at += len(formula)
            continue
        shown.append(_with_inline_formulas(line) if kind == "prose" else line)
        at += 1
    return "\n".join([*shown, *(line for line, _ in lines[end:])])


def _block(formula: Sequence[str], indent: str) -> Sequence[str]:
    """A formula of several lines as a code block."""
    first, last = not formula[0].strip(), not formula[-1].strip()
    return [f"{indent}```latex", *formula[first : len(formula) - last], f"{indent}```"]


class _Formulas:
    """The formulas of several lines: none reaches over code."""

    def __init__(self, lines: Sequence[tuple[str, str]]) -> None:
        self._lines = [line if kind == "prose" else "" for line, kind in lines]
        self._code = [at for at, (_, kind) in enumerate(lines) if kind != "prose"]
        self._ends = defaultdict[str, list[int]](list)
        for at, line in enumerate(self._lines):
            for end in _formula_ends(line.strip()):
                self._ends[end].append(at)

    def beginning_at(self, at: int) -> Sequence[str]:
        """The lines of the formula that begins at a line, without its marks; none: there is none,
        or it has no end."""
        mark, end = _formula_begin(self._lines[at].strip())
        last = _behind(self._ends[end], at) if end else None
        if last is None or last > (_behind(self._code, at) or last):
            return ()
        formula = self._lines[at : last + 1]
        formula[0] = formula[0].strip().removeprefix(mark)
        formula[-1] = formula[-1].rstrip().removesuffix(end if mark else "").rstrip()
        return formula

    def open_since(self) -> int | None:
        """The line at which the formula begins that has no end yet."""
        at = 0
        while at < len(self._lines):
            if formula := self.beginning_at(at):
                at += len(formula)
                continue
            is_recent = at >= len(self._lines) - WAITED_LINES and _behind(self._code, at) is None
            if is_recent and _formula_begin(self._lines[at].strip())[1]:
                return at
            at += 1
        return None


def _formula_begin(line: str) -> tuple[str, str]:
    """The mark that opens a formula at the beginning of a line, and what ends it behind that line.

    The mark is empty for ``\\begin{...}``, which the formula needs.
    """
    for mark, end in _DISPLAY.items():
        if line.startswith(mark) and end not in line[len(mark) :]:
            return mark, end
    if (begin := _ENVIRONMENT.match(line)) and f"\\end{{{begin[1]}}}" not in line:
        return "", f"\\end{{{begin[1]}}}"
    return "", ""


def _formula_ends(line: str) -> Iterator[str]:
    """What ends with a line that did not begin on it."""
    for mark, end in _DISPLAY.items():
        if line.endswith(end) and mark not in line[: -len(end)]:
            yield end
    if environment := _ENVIRONMENT_END.search(line):
        yield environment[0]


def _behind(numbers: Sequence[int], at: int) -> int | None:
    """The first of rising numbers that is larger."""
    found = bisect_right(numbers, at)
    return numbers[found] if found < len(numbers) else None


def _with_inline_formulas(line: str) -> str:
    """Formulas as inline code: Markdown would take their backslashes and underscores away."""
    if "\\" not in line and "$" not in line:
        return line
    seen = without_code(line)
    runs, parts, at = set[int](), list[str](), 0
    for found in _FORMULA.finditer(seen):
        if found["dollar"] and not _MATHS.search(found["dollar"]):
            continue  # a price
        runs |= runs_in(seen[at : found.start()])
        start, end = found.span(found.lastgroup or 0)
        code = as_code(line[start:end].strip(), runs)
        parts += [line[at : found.start()], code]
        at = found.end()
    return _apart([*parts, line[at:]])


def runs_in(text: str) -> Set[int]:
    """The lengths of the runs of backticks in a text."""
    return frozenset(len(run) for run in _BACKTICKS.findall(text))


def as_code(words: str, runs: Set[int] = frozenset()) -> str:
    """Words as inline code; `runs`: the lengths of runs of backticks before it, which must not
    end there."""
    taken = runs | runs_in(words)
    mark = next("`" * length for length in count(1) if length not in taken)
    pad = " " if "`" in words[:1] + words[-1:] else ""
    return f"{mark}{pad}{words}{pad}{mark}"


def _apart(parts: Iterable[str]) -> str:
    """The parts, with a zero-width space where two runs of backticks would become one."""
    joined: list[str] = []
    for part in filter(None, parts):
        if joined and joined[-1].endswith("`") and part.startswith("`"):
            joined.append(ZERO_WIDTH_SPACE)
        joined.append(part)
    return "".join(joined)


# -- titles ---------------------------------------------------------------------------------------

TITLE_LENGTH = 80
"""Slack takes 200 characters, Discord 100; both show fewer."""
_TITLE_FENCE = re.compile(r"^\s*(?:`{3,}|~{3,})[^`]*$")
_LINE_MARK = re.compile(r"^\s*(?:>{1,3}\s+|#{1,3}\s+|-#\s+|[-*+]\s+)+")
_SPOILER = re.compile(r"\|\|(?=\S).{1,500}?\|\|")
_TITLE_LINK = re.compile(r"\[([^\]\n]{1,200})\]\([^)\s]{1,1000}\)|<br[ \t]*/?>", re.IGNORECASE)
_TITLE_MARKS = re.compile(
    r"\\(?P<escaped>[!-/:-@\[-`{-~])"
    r"|\*\*|__|~~|\|\||`+|(?<!\w)[*_](?=\S)|(?<=\S)[*_](?!\w)"
)


def title_of(text: str, fallback: str = "") -> str:
    """The title of what a text opens: its first line that shows something, shortened."""
    lines = (_plain(line) for line in text.split("\n"))
    return _shortened(next((line for line in lines if line), fallback))


def _plain(line: str) -> str:
    """A line without Markdown's marks: titles have none."""
    line = _TITLE_FENCE.sub("", _LINE_MARK.sub("", line))
    line = _SPOILER.sub("…", _TITLE_LINK.sub(lambda found: found[1] or " ", line))
    line = "".join(c for c in line if c == "\u200d" or c.isprintable())
    line = _TITLE_MARKS.sub(lambda found: found["escaped"] or "", line)
    return " ".join(line.split()).strip("\u200d")


def _shortened(name: str) -> str:
    if len(name) <= TITLE_LENGTH:
        return name
    short = ""
    for character in characters(name):
        if len(short) + len(character) >= TITLE_LENGTH:
            break
        short += character
    return short.rstrip() + "…"
