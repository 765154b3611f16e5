"""Rendered strings to ids. Segments that were encoded before are cached."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

from core.dialogue.tokenizers.base import Tokenizer

EncodedSegment: TypeAlias = tuple[tuple[int, ...], bool]
"""The ids between two cuts, and whether they are the same in any context."""

_CACHED_SEGMENTS = 4096
"""The number of cached segments."""
_LONGEST_CACHED = 8192
"""Characters of the longest segment that is cached."""


class Encoder:
    """Encodes strings that are cut where the tokenizer allows it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._kept = lru_cache(_CACHED_SEGMENTS)(self._encode)

    def whole(self, text: str) -> tuple[int, ...]:
        """The ids of a rendered string, encoded in one go."""
        return tuple(self._tokenizer.encode(text))

    def segment(self, text: str) -> EncodedSegment:
        """The ids of the text between two cuts."""
        return self._kept(text) if len(text) <= _LONGEST_CACHED else self._encode(text)

    def count(self, text: str) -> int:
        """The tokens of a text by itself."""
        return len(self.segment(text)[0])

    def split(self, text: str) -> tuple[str, str] | None:
        """`text` before and after its first possible cut; None where there is no cut."""
        found = self._tokenizer.cut.search(text) if self._tokenizer.cut else None
        return (text[: found.start()], text[found.start() :]) if found else None

    def _encode(self, text: str) -> EncodedSegment:
        # a text that is never cut is one segment, in its only context
        settled = self._tokenizer.cut is None or self._tokenizer.settled(text)
        return self.whole(text), settled
