"""A streaming detokenizer for vocabularies whose pieces are bytes."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping, Sequence


def _each_byte(error: UnicodeError) -> tuple[str, int]:
    """One U+FFFD for every byte that is part of no character, as in SentencePiece."""
    assert isinstance(error, UnicodeDecodeError)  # noqa: S101 - registered for decoding alone
    return "\ufffd", error.start + 1


codecs.register_error("henji-each-byte", _each_byte)


class ByteTable(dict[int, bytes]):
    """Id -> its bytes in a text, computed once for each id."""

    def __init__(self, find: Callable[[int], bytes]) -> None:
        self._find = find

    def __missing__(self, ident: int) -> bytes:
        found = self[ident] = self._find(ident)
        return found


class ByteDetokenizer:
    """Ids to text; an incremental UTF-8 decoder holds the bytes of an unfinished character."""

    def __init__(
        self, table: Mapping[int, bytes], errors: str, first: Mapping[int, bytes] | None = None
    ) -> None:
        """`first` has the bytes of pieces at the beginning of a text, where they differ."""
        self._table = table
        self._first = first
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors)

    def push(self, ids: Sequence[int]) -> str:
        pieces = [self._table[ident] for ident in ids]
        if self._first is not None:
            self._begin(ids, pieces, self._first)
        return self._decoder.decode(b"".join(pieces))

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)

    def _begin(self, ids: Sequence[int], pieces: list[bytes], first: Mapping[int, bytes]) -> None:
        # control tokens have no text, and do not count as the first piece
        place = next((place for place, piece in enumerate(pieces) if piece), None)
        if place is not None:
            pieces[place], self._first = first[ids[place]], None
