"""Rendered strings to ids, encoding only what was not encoded before."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

from core.dialogue.tokenizers.base import Tokenizer

EncodedSegment: TypeAlias = tuple[tuple[int, ...], bool]
"""The ids of what stands between two cuts, and whether it has those wherever it stands."""

_CACHED_SEGMENTS = 4096
"""Segments whose ids are kept."""
_LONGEST_CACHED = 8192
"""Characters of a segment that is worth keeping."""


class Encoder:
    """The ids of strings that are cut where the tokenizer allows it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._kept = lru_cache(_CACHED_SEGMENTS)(self._encode)

    def whole(self, text: str) -> tuple[int, ...]:
        """The ids of a rendered string, encoded in one go."""
        return tuple(self._tokenizer.encode(text))

    def segment(self, text: str) -> EncodedSegment:
        """The ids of what stands between two cuts."""
        return self._kept(text) if len(text) <= _LONGEST_CACHED else self._encode(text)

    def count(self, text: str) -> int:
        """The tokens of a text by itself."""
        return len(self.segment(text)[0])

    def split(self, text: str) -> tuple[str, str] | None:
        """`text` on both sides of the first place where it may be cut; None: there is none."""
        found = self._tokenizer.cut.search(text) if self._tokenizer.cut else None
        return (text[: found.start()], text[found.start() :]) if found else None

    def _encode(self, text: str) -> EncodedSegment:
        # where nothing is cut, there is one segment, which has its ids where it stands
        settled = self._tokenizer.cut is None or self._tokenizer.settled(text)
        return self.whole(text), settled
