"""A reply in Markdown, cut into messages: pure, and the same for every platform.

`split` cuts where a reader would: between paragraphs and around code blocks, else between lines,
else after a sentence, a clause or a word. A code block that goes on is closed and opened again
with its language. It never cuts inside a character (an extended grapheme cluster), a link, an
address, a mention or inline code, unless one of them alone is longer than a message.

A reply grows while it is shown, so every cut is decided from the text that fits into that message
alone: appending to the text moves only what stands in the last part.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

import regex

LengthOf: TypeAlias = Callable[[str], int]

SHORTEST_LIMIT = 100
"""Below it, a message may not hold a fence, its language and something of the code."""


class Bound(IntEnum):
    """Where a text may be cut, the best first."""

    PARAGRAPH = 0
    LINE = 1
    SENTENCE = 2
    CLAUSE = 3
    WORD = 4
    CHARACTER = 5


@dataclass(frozen=True, slots=True)
class Fence:
    """A code block that is open: `mark` is its run of backticks or tildes, `info` its language."""

    indent: str
    mark: str
    info: str

    @property
    def opening(self) -> str:
        return f"{self.indent}{self.mark}{self.info}"

    @property
    def closing(self) -> str:
        return f"{self.indent}{self.mark}"

    def is_closed_by(self, line: str) -> bool:
        run = line.strip()
        return len(run) >= len(self.mark) and run == self.mark[0] * len(run)


@dataclass(frozen=True, slots=True)
class Cut:
    """A place to cut: `at` counts characters, `fence` is what is open there."""

    at: int
    bound: Bound
    fence: Fence | None = None


# CommonMark bounds neither; a longer run or language is no code block that a model means.
_FENCE = re.compile(r"([ \t]{0,8})(`{3,8}|~{3,8})(?!`)([^`\n]{0,40})$")
_LIKE_A_FENCE = re.compile(r"^[ \t]{0,8}(?:```|~~~)", re.MULTILINE)
_RESERVE = 1 + 8 + 8
"""The newline, indentation and mark that close a code block, at the longest."""

_SENTENCE = re.compile(r"[。！？．][」』）】)\"'”’]*|(?<!\d)[.!?][)\"'”’]*(?=\s)")
_CLAUSE = re.compile(r"[、，；：,;:](?=\s|[^\x00-\x7f])")
_NEVER_FIRST = frozenset(
    "、。，．！？：；」』）】〉》”’ー々ぁぃぅぇぉっゃゅょァィゥェォッャュョ)]}!?,.;:"
)
_QUOTED = re.compile(r"[」』][とはがをにのもっ]")  # the sentence around the quotation goes on
_HEADING = re.compile(r" {0,3}#{1,6}\s")
_WORD = re.compile(r"[ \t\u3000]+")
_BACKTICKS = re.compile(r"`+")
_CHARACTER = regex.compile(r"\X")

# What is cut only when nothing else is left. Each may still be open where the window ends (`$`):
# what comes after it must not change the decision. The bounds keep an open bracket from guarding
# a whole page.
_WHOLE = re.compile(
    r"""
      !?\[[^\]\n]{0,300}(?:\]|$)(?:\([^)\n]{0,2000}(?:\)|$))?    # [text](address), also an image
    | <[^\s<>][^<>\n]{0,2000}(?:>|$)                             # <@U1>, <#C1|name>, <https://...>
    | https?:[!-;=?-~]{0,2000}                                   # a bare address
    | `[^`\n]{1,200}(?:`|$)
    | (\*\*|__|~~)(?=\S)[^*_~\n]{1,200}(?:\1|$)
    | [@\#][\w.\-]{1,80}
    | :[a-z0-9_+\-]{1,80}:
    """,
    re.VERBOSE,
)


def split(text: str, limit: int, length_of: LengthOf = len) -> list[str]:
    """The messages that `text` becomes, each of at most `limit` as `length_of` counts.

    Blank text is no message at all. `length_of` must not shrink when text is appended. A code
    block that the last part leaves open stays open, so that a growing reply only ever grows;
    `closed` closes it, and there is always room for that.
    """
    if limit < SHORTEST_LIMIT:
        raise ValueError(f"a message must hold {SHORTEST_LIMIT} or more, not {limit}")
    parts: list[str] = []
    fence: Fence | None = None
    rest = text
    while rest.strip():
        head = f"{fence.opening}\n" if fence else ""
        room = _window(head, rest, fence, limit, length_of)
        if room >= len(rest):
            parts.append((head + rest).rstrip())
            break
        cut = _best_cut(rest, room, fence)
        body = rest[: cut.at].rstrip()
        if body:
            parts.append(_close(head + body, cut.fence))
        rest, fence = _rest_after(rest[cut.at :], cut)
    return parts


def characters(text: str) -> list[str]:
    """The characters that a reader sees: extended grapheme clusters."""
    return [match[0] for match in _CHARACTER.finditer(text)]


def without_code(text: str) -> str:
    """`text` with a blank for every character of inline code and code blocks, of the same length.

    Code ends at the next run of as many backticks as began it; without one it is no code.
    """
    runs = [match.span() for match in _BACKTICKS.finditer(text)]
    last = {end - start: at for at, (start, end) in enumerate(runs)}
    parts, at, run = [], 0, 0
    while run < len(runs):
        start, end = runs[run]
        other = run + 1
        if last[end - start] > run:
            while runs[other][1] - runs[other][0] != end - start:
                other += 1
            parts += [text[at:start], " " * (runs[other][1] - start)]
            at = runs[other][1]
            other += 1
        run = other
    return "".join([*parts, text[at:]])


def closed(text: str) -> str:
    """`text` with the code block closed that it leaves open, if it does."""
    return _close(text, _open_fence(text, None))


def outside_code(text: str) -> Iterator[tuple[str, bool]]:
    """Each line, and whether it stands outside code blocks and is not their fence."""
    for _, line, inside in _lines(text, None):
        yield line, inside is None and not _is_mark(line)


def _close(text: str, fence: Fence | None) -> str:
    return f"{text}\n{fence.closing}" if fence else text


def _rest_after(rest: str, cut: Cut) -> tuple[str, Fence | None]:
    """What is left to split: without the white space of the cut, and without an empty block."""
    if cut.fence is None:
        return _without_leading_space(rest, cut.bound), None
    line, _, behind = rest.partition("\n")
    if cut.bound is not Bound.CHARACTER and cut.fence.is_closed_by(line):
        return _without_leading_space(behind, Bound.LINE), None
    return rest, cut.fence


def _without_leading_space(rest: str, bound: Bound) -> str:
    if bound > Bound.LINE:
        return rest.lstrip(" \t\u3000")
    return re.sub(r"\A(?:[ \t]*\n)+", "", rest)  # the indentation of a first line has a meaning


def _window(head: str, rest: str, fence: Fence | None, limit: int, length_of: LengthOf) -> int:
    """How many characters of `rest` fit, with room to close a code block where there is one."""
    room = _longest_fitting(head, rest, limit, length_of)
    if fence is None and not _LIKE_A_FENCE.search(rest[:room]):
        return room
    return _longest_fitting(head, rest, limit - _RESERVE, length_of)


def _longest_fitting(head: str, rest: str, limit: int, length_of: LengthOf) -> int:
    low, high = 0, min(len(rest), limit)  # no platform counts less than one for a character
    while low < high:
        middle = (low + high + 1) // 2
        if length_of(head + rest[:middle]) <= limit:
            low = middle
        else:
            high = middle - 1
    return max(low, 1)


def _best_cut(rest: str, room: int, fence: Fence | None) -> Cut:
    """The best place in the first `room` characters that leaves the message half full or more."""
    window = rest[:room]
    borders = {match.end() for match in _CHARACTER.finditer(rest[: room + 1])}
    found: list[Cut] = []
    for cuts in (_line_cuts, _prose_cuts, _character_cuts):  # each kind is better than the next
        found += (cut for cut in cuts(window, fence) if _is_sound(cut, rest, borders))
        filling = [cut for cut in found if cut.at * 2 >= room]
        if filling:
            return min(filling, key=_rank)
    return min(found, key=_rank) if found else _forced_cut(window, borders, fence)


def _rank(cut: Cut) -> tuple[int, int]:
    return cut.bound, -cut.at


def _is_sound(cut: Cut, rest: str, borders: set[int]) -> bool:
    if cut.at not in borders or not rest[: cut.at].strip():
        return False
    if cut.bound is Bound.SENTENCE and _QUOTED.match(rest, cut.at - 1):
        return False
    return cut.fence is not None or cut.bound <= Bound.LINE or rest[cut.at] not in _NEVER_FIRST


def _forced_cut(window: str, borders: set[int], fence: Fence | None) -> Cut:
    """Nothing but one overlong thing: cut it, between characters if it can be."""
    at = max((border for border in borders if border <= len(window)), default=len(window))
    return Cut(at, Bound.CHARACTER, _open_fence(window[:at], fence))


def _line_cuts(window: str, fence: Fence | None) -> Iterator[Cut]:
    """The starts of lines, but not behind a heading or behind the first line of a code block."""
    previous = above = ""
    for start, line, inside in _lines(window, fence):
        if start and inside is not None and not _is_mark(previous):
            yield Cut(start, Bound.LINE, inside)
        elif start and inside is None and not _HEADING.match(above):
            apart = not previous.strip() or not line.strip()
            block = _is_mark(previous) or _is_mark(line)
            yield Cut(start, Bound.PARAGRAPH if apart or block else Bound.LINE)
        previous, above = line, line if line.strip() else above


def _is_mark(line: str) -> bool:
    return bool(_FENCE.match(line))


def _prose_cuts(window: str, fence: Fence | None) -> Iterator[Cut]:
    """The ends of sentences, clauses and words outside code, but in nothing that is kept whole."""
    patterns = {Bound.SENTENCE: _SENTENCE, Bound.CLAUSE: _CLAUSE, Bound.WORD: _WORD}
    for start, line in _prose_lines(window, fence):
        kept = _kept_whole(line)
        for bound, pattern in patterns.items():
            ends = (match.end() for match in pattern.finditer(line))
            yield from (Cut(start + end, bound) for end in ends if end not in kept)


def _character_cuts(window: str, fence: Fence | None) -> Iterator[Cut]:
    """Every place inside lines, of code too, but in nothing that is kept whole."""
    for start, line in _prose_lines(window, fence):
        kept = _kept_whole(line)
        ends = (at for at in range(1, len(line) + 1) if at not in kept)
        yield from (Cut(start + at, Bound.CHARACTER) for at in ends)
    for start, line, inside in _lines(window, fence):
        if inside is not None and not inside.is_closed_by(line):
            ends = (start + at for at in range(1, len(line) + 1))
            yield from (Cut(at, Bound.CHARACTER, inside) for at in ends)


def _prose_lines(window: str, fence: Fence | None) -> Iterator[tuple[int, str]]:
    for start, line, inside in _lines(window, fence):
        if inside is None and not _is_mark(line):
            yield start, line


def _kept_whole(line: str) -> set[int]:
    """The places in a line that are inside a link, an address, a mention or inline code."""
    spans = [match.span() for match in _WHOLE.finditer(line)]
    kept = {at for start, end in spans for at in range(start + 1, end)}
    if spans and spans[-1][1] == len(line):
        kept.add(len(line))  # what a window ends in may go on behind it
    return kept


def _lines(text: str, fence: Fence | None) -> Iterator[tuple[int, str, Fence | None]]:
    """Each line with where it starts and the code block that is open before it."""
    start = 0
    for line in text.split("\n"):
        yield start, line, fence
        fence = _after_line(line, fence)
        start += len(line) + 1


def _after_line(line: str, fence: Fence | None) -> Fence | None:
    if fence is not None:
        return None if fence.is_closed_by(line) else fence
    match = _FENCE.match(line)
    return Fence(*match.groups()) if match else None


def _open_fence(text: str, fence: Fence | None) -> Fence | None:
    for line in text.split("\n"):
        fence = _after_line(line, fence)
    return fence
