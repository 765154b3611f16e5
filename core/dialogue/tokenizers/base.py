"""What the dialogue asks of a tokenizer, whichever library it comes from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Protocol


class Detokenizer(Protocol):
    """The ids of one text, a few at a time, to the text. The pieces joined are the whole decode."""

    def push(self, ids: Sequence[int]) -> str:
        """The text that `ids` add: whole characters only."""
        ...

    def finish(self) -> str:
        """What the bytes of a character that never became whole decode to."""
        ...


class Tokenizer(Protocol):
    """Text to ids and back."""

    size: int
    """Every id is below it."""
    controls: Mapping[str, int]
    """Control tokens, by how they are written: ids that no text of a person may become."""
    reserved: Sequence[str]
    """What would become more than text where it is typed: control tokens, mostly."""
    fingerprint: str
    """Differs where the ids of some text differ."""
    cut: re.Pattern[str] | None
    """Finds the places in any text before which it may be cut and encoded apart; None: nowhere."""

    def encode(self, text: str) -> list[int]:
        """The ids of a rendered string, nothing added in front or behind."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, control tokens left out."""
        ...

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """How the vocabulary writes each id."""
        ...

    def normalized(self, text: str) -> str:
        """The text as the vocabulary sees it: full-width letters narrowed, say."""
        ...

    def settled(self, text: str) -> bool:
        """Whether `text`, which stands between two cuts, has the same ids wherever it stands."""
        ...

    def detokenizer(self, *, inside: bool = False) -> Detokenizer:
        """`inside`: other text stands before, so a space in front is one that was written."""
        ...
