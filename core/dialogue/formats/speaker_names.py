"""The names of the speakers in the text, for channels with several people."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from core.dialogue.sanitize import clean, skeleton
from core.types import Turn

_OPEN, _CLOSE = "【", "】"
_BRACKETS = re.compile(r"[【︻]([^】︼]*)[】︼]?")
"""U+FE3B and U+FE3C are the same brackets for vertical writing, which normalization turns."""
_OTHER_BRACKETS = str.maketrans("【︻】︼", "〔〔〕〕")


def with_name(turn: Turn, normalized: Callable[[str], str]) -> Turn:
    """A user's turn with the name in front, as in ``【田中】こんにちは``.

    Only this function writes such a label at the beginning of a line: one that a person typed, as
    a reader or the tokenizer sees the line, gets other brackets. A name is one line without such
    brackets. Replies have no name.
    """
    if turn.role != "user":
        return turn
    text = "\n".join(_without_label(line, normalized) for line in clean(turn.text).split("\n"))
    name = re.sub(r"[【】︻︼\s]+", " ", clean(turn.name or turn.author)).strip()
    return replace(turn, text=f"{_OPEN}{name}{_CLOSE}{text}")


def _without_label(line: str, normalized: Callable[[str], str]) -> str:
    if not _begins_with_label(line, normalized):
        return line
    other = _BRACKETS.sub(r"〔\1〕", line, count=1)
    if _begins_with_label(other, normalized):  # another pair was the first that is seen
        return line.translate(_OTHER_BRACKETS)
    return other


def _begins_with_label(line: str, normalized: Callable[[str], str]) -> bool:
    if not _BRACKETS.search(line):
        return False
    return any(skeleton(seen).startswith(_OPEN) for seen in (line, normalized(line)))
