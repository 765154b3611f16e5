"""A reply in Markdown, cut into messages: pure, and the same for every platform.

`split` cuts where a reader would: between paragraphs and around code blocks, else between lines,
else after a sentence, a clause or a word. A code block that goes on is closed and opened again
with its language; so is a spoiler, and a quote is quoted again. It never cuts inside a character
(an extended grapheme cluster), a link, an address, a mention or inline code, unless one of them
alone is longer than a message.

A reply grows while it is shown, so every cut is decided from the text that fits into that message
alone: appending to the text changes only the last part.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
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
    """White space, or the mark of a quoted line."""
    mark: str
    info: str

    @property
    def opening(self) -> str:
        return f"{self.indent}{self.mark}{self.info}"

    @property
    def closing(self) -> str:
        return f"{self.indent}{self.mark}"

    def is_closed_by(self, line: str) -> bool:
        """Whether the line is nothing but the end of the block."""
        run = line.removeprefix(self.indent.rstrip()).strip()
        return len(run) >= len(self.mark) and run == self.mark[0] * len(run)


@dataclass(frozen=True, slots=True)
class Opened:
    """What is open where a message ends, and goes on in the next one."""

    fence: Fence | None = None
    quote: str = ""
    """``> `` where a quoted line is cut, ``>>> `` where all the rest is quoted."""
    spoiler: bool = False

    @property
    def head(self) -> str:
        """What opens it again."""
        spoiler = SPOILER if self.spoiler else ""
        if self.fence is None:
            return f"{self.quote}{spoiler}"
        quote = "" if self.fence.indent.startswith(">") else self.quote
        return f"{quote}{spoiler}{self.fence.opening}\n"

    @property
    def without_info(self) -> Opened:
        """The same code block without its language, which may be too long for a short message."""
        fence = replace(self.fence, info="") if self.fence else None
        return replace(self, fence=fence)

    def close(self, text: str) -> str:
        text = f"{text}\n{self.fence.closing}" if self.fence else text
        return f"{text}{SPOILER}" if self.spoiler else text


@dataclass(frozen=True, slots=True)
class Cut:
    """A place to cut: `at` counts characters, `fence` is what is open there."""

    at: int
    bound: Bound
    fence: Fence | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of one line between the marks of code blocks: prose, or code of `fence`."""

    start: int
    text: str
    fence: Fence | None


SPOILER, QUOTE, QUOTE_ALL = "||", "> ", ">>> "

# CommonMark bounds no run; a longer one is no code block that a model means.
_RUN = re.compile(r"(?<!`)`{3,8}(?!`)")
_TILDES = re.compile(r"((?:> ?)?[ \t]{0,8})(~{3,8})([^`~\n]{0,200})$")
_INDENT = re.compile(r"(?:>>> |> ?)?[ \t]{0,8}")
_QUOTE_MARK = re.compile(r"(?:>>> |> ?)")
_LANGUAGE = re.compile(r"[ \t]*([\w+#.\-]{0,200})")
LONGEST_INFO = 200
"""A longer first line is code: nobody means a language by it."""
_LIKE_A_FENCE = re.compile(r"```|^[ \t]{0,8}~~~", re.MULTILINE)
_RESERVE = 1 + 10 + 8 + len(SPOILER)
"""The newline, indentation and mark that close a code block, at the longest, and a spoiler's."""

_SENTENCE = re.compile(r"[。！？．][」』）】)\"'”’]*|(?<!\d)[.!?][)\"'”’]*(?=\s)")
_SPOILER = re.compile(r"\|\|")
_CLAUSE = re.compile(r"[、，；：,;:](?=\s|[^\x00-\x7f])")
_NEVER_FIRST = frozenset(
    "、。，．！？：；」』）】〉》”’ー々ぁぃぅぇぉっゃゅょァィゥェォッャュョ)]}!?,.;:"
)
_QUOTED = re.compile(r"[」』][とはがをにのもっ]")  # the sentence around the quotation goes on
_HEADING = re.compile(r" {0,3}#{1,6}\s")
_WORD = re.compile(r"[ \t\u3000]+")
_BACKTICKS = re.compile(r"`+")
_CHARACTER = regex.compile(r"\p{GCB=RI}{2}[\p{GCB=Extend}\p{GCB=ZWJ}\p{GCB=SpacingMark}]*|\X")
"""Flags apart from the rest: `\\X` counts for each of them all that stand before it."""

# What is cut only when nothing else is left. Each may still be open where the window ends (`$`):
# what comes after it must not change the decision. The bounds keep an open bracket from guarding
# a whole page.
_WHOLE = re.compile(
    r"""
      !?\[[^\]\n]{0,300}(?:\]|$)(?:\([^)\n]{0,2000}(?:\)|$))?    # [text](address), also an image
    | <[^\s<>][^<>\n]{0,2000}(?:>|$)                             # <@U1>, <#C1|name>, <https://...>
    | https?:[!-;=?-~]{0,2000}                                   # a bare address
    | `[^`\n]{1,200}(?:`|$)
    | \|\|(?=\S)[^|\n]{1,80}\|\|
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
    opened = Opened()
    rest = text
    while rest.strip():
        head = opened.head
        if length_of(head) * 2 > limit:
            head = opened.without_info.head
        room = _window(head, rest, opened, limit, length_of)
        if room >= len(rest):
            parts.append((head + rest).rstrip())
            break
        cut = _best_cut(rest, room, opened.fence)
        body, after = rest[: cut.at].rstrip(), _opened_at(rest, cut, opened)
        if body:
            parts.append(after.close(head + body))
        rest, fence = _rest_after(rest[cut.at :], cut)
        if fence is not None and after.quote == QUOTE:  # within a line of quoted code
            rest = QUOTE + rest
        opened = replace(after, fence=fence)
    return parts


def characters(text: str) -> list[str]:
    """The characters that a reader sees: extended grapheme clusters."""
    return [match[0] for match in _CHARACTER.finditer(text)]


def without_code(text: str) -> str:
    """`text` with a blank for every character of inline code and code blocks, of the same length.

    Code ends at the next run of as many backticks as began it; without one it is no code. A
    backslash in front of the first takes its meaning away, but not that of the last.
    """
    runs = [match.span() for match in _BACKTICKS.finditer(text)]
    last = {end - start: at for at, (start, end) in enumerate(runs)}
    parts, at, run = [], 0, 0
    while run < len(runs):
        start, end = runs[run]
        start += _is_escaped(text, start)
        other = run + 1
        if last.get(end - start, 0) > run:
            while runs[other][1] - runs[other][0] != end - start:
                other += 1
            parts += [text[at:start], " " * (runs[other][1] - start)]
            at = runs[other][1]
            other += 1
        run = other
    return "".join([*parts, text[at:]])


def _is_escaped(text: str, at: int) -> bool:
    before = text[max(0, at - 64) : at]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 1


_AFTER_ADDRESS = re.compile(r"[ \t]*[,，、:：;；]?\s*")
_HONORIFIC = re.compile(
    r"[ \t\u3000]?(?:さん|さま|様|くん|君|ちゃん)(?=[,，、:：;；.。!！?？\s]|$)"
)
_BLANK, _CLOSE = re.compile(r"[ \t\u3000]*"), re.compile(r"[.,!?:;、。，！？]")
_AROUND = re.compile(r"(?:\*{1,3}|_{1,2}|~~|\|\|)$")


def without_address(text: str, before: str, at: int, *, begun: bool) -> tuple[str, int]:
    """How a text reads without a mention of the bot: what stays of `before`, which stands in front
    of it, and where the text goes on behind it, which is `at`.

    The blank or the comma beside it goes too, marks of emphasis around it, and さん behind it.
    `begun`: there are words before `before`.
    """
    around = _AROUND.search(before)
    if around and text.startswith(around[0], at):
        before, at = before[: around.start()], at + len(around[0])
    if honorific := _HONORIFIC.match(text, at):
        at = honorific.end()
    if not (begun or before.strip()):
        return before, _AFTER_ADDRESS.match(text, at).end()  # type: ignore[union-attr]  # matches anything
    if _CLOSE.match(text, at):
        return before.rstrip(" \t"), at
    if before[-1:] in " \t":
        return before, _BLANK.match(text, at).end()  # type: ignore[union-attr]  # matches anything
    return before, at


def closed(text: str) -> str:
    """`text` with the code block closed that it leaves open, if it does."""
    return Opened(_open_fence(text, None)).close(text)


def outside_code(text: str) -> Iterator[tuple[str, bool]]:
    """Each line, and whether it is prose: outside code blocks, and not a fence."""
    for _, line, before in _lines(text, None):
        inside = _open_at(before, line)
        yield line, inside is None and not _is_mark(line)


def block_lines(text: str) -> Iterator[tuple[str, str]]:
    """Each line and its kind: ``prose``, ``code``, or ``fence`` for the marks of a code block."""
    for _, line, before in _lines(text, None):
        inside = _open_at(before, line)
        after = _line(line, inside)[1]
        opens = inside is None and after is not None
        closes = inside is not None and after is None
        yield line, "fence" if opens or closes else "prose" if inside is None else "code"


def _opened_at(rest: str, cut: Cut, before: Opened) -> Opened:
    """What is open at a cut; `before`: what was at the beginning of `rest`."""
    quoted, spoiler = before.quote == QUOTE_ALL, before.spoiler
    for piece in _pieces(rest[: cut.at], before.fence):
        if piece.fence is None:
            quoted = quoted or (_starts_line(rest, piece) and piece.text.startswith(QUOTE_ALL))
            spoiler = _after_spoilers(piece.text, opened=spoiler)
    if quoted:
        return Opened(cut.fence, QUOTE_ALL, spoiler)
    start = rest.rfind("\n", 0, cut.at) + 1
    in_quote = rest.startswith(">", start) or (start == 0 and before.quote == QUOTE)
    in_quote = in_quote and (cut.fence is None or cut.fence.indent.startswith(">"))  # or it is code
    return Opened(cut.fence, QUOTE if start < cut.at and in_quote else "", spoiler)


def _starts_line(rest: str, piece: Piece) -> bool:
    return piece.start == 0 or rest[piece.start - 1] == "\n"


def _after_spoilers(text: str, *, opened: bool) -> bool:
    """Whether a spoiler is open after `text`. ``a || b`` is no spoiler's mark."""
    for found in _SPOILER.finditer(text):
        before, after = text[: found.start()][-1:], text[found.end() :][:1]
        if before.strip() if opened else after.strip():
            opened = not opened
    return opened


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


def _window(head: str, rest: str, opened: Opened, limit: int, length_of: LengthOf) -> int:
    """How many characters of `rest` fit, with room to close what may be open at its end."""
    room = _longest_fitting(head, rest, limit, length_of)
    carried = opened.fence is not None or opened.spoiler
    if not carried and not _LIKE_A_FENCE.search(rest[:room]) and SPOILER not in rest[:room]:
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
    if rest[cut.at - 1] == rest[cut.at] and rest[cut.at] in "`|":  # within a mark
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
    return bool(_RUN.search(line) or _TILDES.match(line))


def _prose_cuts(window: str, fence: Fence | None) -> Iterator[Cut]:
    """The ends of sentences, clauses and words outside code, but in nothing that is kept whole."""
    patterns = {Bound.SENTENCE: _SENTENCE, Bound.CLAUSE: _CLAUSE, Bound.WORD: _WORD}
    for piece in _pieces(window, fence):
        if piece.fence is not None:
            continue
        kept, indent = _kept_whole(piece.text), _INDENT.match(piece.text)
        first = indent.end() if indent else 0  # a line's indentation stays with it
        for bound, pattern in patterns.items():
            ends = (match.end() for match in pattern.finditer(piece.text))
            found = (end for end in ends if end > first and end not in kept)
            yield from (Cut(piece.start + end, bound) for end in found)


def _character_cuts(window: str, fence: Fence | None) -> Iterator[Cut]:
    """Every place inside lines, of code too, but in nothing that is kept whole."""
    for piece in _pieces(window, fence):
        kept = _kept_whole(piece.text) if piece.fence is None else frozenset[int]()
        quoted = _QUOTE_MARK.match(piece.text) if piece.fence is None else None
        first = quoted.end() if quoted else 0
        ends = (at for at in range(first + 1, len(piece.text) + 1) if at not in kept)
        yield from (Cut(piece.start + at, Bound.CHARACTER, piece.fence) for at in ends)


def _pieces(text: str, fence: Fence | None) -> Iterator[Piece]:
    """The prose and the code between the marks of code blocks, line by line."""
    for start, line, inside in _lines(text, fence):
        yield from (replace(piece, start=start + piece.start) for piece in _line(line, inside)[0])


def _line(line: str, fence: Fence | None) -> tuple[list[Piece], Fence | None]:
    """The pieces of one line, and the code block that is open after it."""
    fence = _open_at(fence, line)
    if fence is None and (tildes := _TILDES.match(line)):
        indent = QUOTE if tildes[1].startswith(">") else tildes[1]
        return [], Fence(indent, tildes[2], tildes[3])
    if fence is not None and fence.mark[0] == "~":
        return ([], None) if fence.is_closed_by(line) else ([Piece(0, line, fence)], fence)
    pieces, at = [], 0
    before = fence
    for run in _RUN.finditer(line):
        if fence is not None and len(run[0]) < len(fence.mark):
            continue
        if fence is not None and fence is before and _is_amid(line, run):
            continue
        if run.start() > at:
            pieces.append(Piece(at, line[at : run.start()], fence))
        at = run.end()
        fence = None if fence is not None else _fence_from(line, run)
        at += len(fence.info) if fence is not None else 0
    if at < len(line):
        pieces.append(Piece(at, line[at:], fence))
    return pieces, fence


def _is_amid(line: str, run: re.Match[str]) -> bool:
    """Whether a run of backticks stands between other characters, as in a string of the code."""
    quoted = _INDENT.match(line)
    start = quoted.end() if quoted else 0
    return bool(line[start : run.start()].strip() and line[run.end() :].strip())


def _fence_from(line: str, run: re.Match[str]) -> Fence:
    """The code block that a run of backticks opens. Its language is the rest of the line, or where
    prose comes before the run, the one word that follows.
    """
    before, info = line[: run.start()], line[run.end() :]
    indent = _INDENT.match(before)
    alone = indent is not None and indent[0] == before
    prefix = "> " if before.startswith(">") and not before.startswith(QUOTE_ALL) else ""
    space = before if alone and not before.startswith(">") else ""
    if "`" in info or len(info) > LONGEST_INFO or not (alone or _LANGUAGE.fullmatch(info)):
        info = ""
    return Fence(prefix or space, run[0], info)


def _kept_whole(line: str) -> frozenset[int]:
    """The places in a line that are inside a link, an address, a mention or inline code."""
    spans = [match.span() for match in _WHOLE.finditer(line)]
    kept = {at for start, end in spans for at in range(start + 1, end)}
    if spans and spans[-1][1] == len(line):
        kept.add(len(line))  # what a window ends in may go on behind it
    return frozenset(kept)


def _lines(text: str, fence: Fence | None) -> Iterator[tuple[int, str, Fence | None]]:
    """Each line with where it starts and the code block that is open before it."""
    start = 0
    for line in text.split("\n"):
        yield start, line, fence
        fence = _line(line, fence)[1]
        start += len(line) + 1


def _open_at(fence: Fence | None, line: str) -> Fence | None:
    """The code block that is open at a line: a quoted one ends with its quote."""
    has_ended = fence is not None and fence.indent.startswith(">") and not line.startswith(">")
    return None if has_ended else fence


def _open_fence(text: str, fence: Fence | None) -> Fence | None:
    for line in text.split("\n"):
        fence = _line(line, fence)[1]
    return fence
