"""The names of the speakers in the text, for channels with several people."""

from __future__ import annotations

import re
from dataclasses import replace

from core.dialogue.sanitize import clean
from core.types import Turn

_OPEN, _CLOSE = "【", "】"
_TYPED = re.compile(r"^([^\S\n]*)[【︻]([^】︼\n]*)[】︼]?", re.MULTILINE)
"""A label, or the beginning of one, at the beginning of a line; U+FE3B and U+FE3C are the same
brackets for vertical writing, which normalization turns."""


def with_name(turn: Turn) -> Turn:
    """A user's turn with the name in front, as in ``【田中】こんにちは``.

    Only this function writes such a label at the beginning of a line: a typed one gets other
    brackets. A name is one line without such brackets. Replies have no name.
    """
    if turn.role != "user":
        return turn
    text = _TYPED.sub(r"\1〔\2〕", clean(turn.text))
    name = re.sub(r"[【】︻︼\s]+", " ", clean(turn.name or turn.author)).strip()
    return replace(turn, text=f"{_OPEN}{name}{_CLOSE}{text}")
