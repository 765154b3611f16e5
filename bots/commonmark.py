"""The blocks and the emphasis of CommonMark, by whose rules Slack and the terminal show replies.

Pure: code is left alone, and a growing text only appends to the result, apart from unfinished code.

A `**` next to punctuation opens or closes bold only beside a space or more punctuation, which
Japanese does not have: in ``**「先端」**の`` both stay literal. The same holds for `*` and `~~`. A
zero-width space beside the punctuation mends that.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from bots.markdown import ZERO_WIDTH_SPACE
from bots.text import without_code

_TOKEN = re.compile(r"\\.|`+|\*+|~~|https?://(?:[^\s<>「」（）、。`)*]|\*(?!\*))+")
_QUOTES = re.compile(r"(?: {0,3}> ?)*")
_ITEM = re.compile(r"(?:[-*+]|\d{1,9}[.)])(?: {1,4}(?=\S)| (?= |$)|$)")
_BREAK = re.compile(r"([-*_])(?: *\1){2,} *$")
_FENCE = re.compile(r"(`{3,}(?=[^`]*$)|~{3,})")
_BEGINS = re.compile(rf"{_ITEM.pattern}|{_FENCE.pattern}|#{{1,6}}(?: |$)")
_ALONE = re.compile(r"#{1,6}(?: |$)|\||([-*_])(?: *\1){2,} *$")


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
