"""The protocols of tokenizers and streaming detokenizers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Protocol


class Detokenizer(Protocol):
    """Decodes the ids of one text, a few at a time. The pieces join to the whole decode."""

    def push(self, ids: Sequence[int]) -> str:
        """The text that `ids` add: whole characters only."""
        ...

    def finish(self) -> str:
        """The text of the remaining bytes, which are not a whole character."""
        ...


class Tokenizer(Protocol):
    """Text to ids and back."""

    size: int
    """Every id is below it."""
    needed: int
    """Rows that the weights must have: `size`, without added tokens that no prompt has."""
    longest: int
    """Characters of its longest piece."""
    controls: Mapping[str, int]
    """Written form -> id of the control tokens, which no person's text may become."""
    reserved: Sequence[str]
    """Strings that would be more than text if typed: mostly control tokens."""
    fingerprint: str
    """Differs between tokenizers that differ in the ids of some text."""
    cut: re.Pattern[str] | None
    """Finds the places where a text can be cut and encoded in parts; None: nowhere."""

    def encode(self, text: str) -> list[int]:
        """The ids of a rendered string, with nothing added before or after it."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, control tokens left out."""
        ...

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The vocabulary's written form of each id."""
        ...

    def normalized(self, text: str) -> str:
        """The text as the tokenizer normalizes it, for example with full-width letters narrowed."""
        ...

    def is_context_free(self, text: str) -> bool:
        """Whether `text`, between two cuts, has the same ids in any context."""
        ...

    def detokenizer(self, *, inside: bool = False) -> Detokenizer:
        """`inside`: the text follows other text, so a leading space belongs to it."""
        ...
