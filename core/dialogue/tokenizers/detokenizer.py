"""A streaming detokenizer for vocabularies whose pieces are bytes."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias


def _each_byte(error: UnicodeError) -> tuple[str, int]:
    """Every byte that is part of no character becomes one U+FFFD, as SentencePiece has it."""
    assert isinstance(error, UnicodeDecodeError)  # noqa: S101 - registered for decoding alone
    return "\ufffd", error.start + 1


codecs.register_error("henji-each-byte", _each_byte)


class ByteTable(dict[int, bytes]):
    """Id -> the bytes that it adds to a text, found out once an id and then kept."""

    def __init__(self, find: Callable[[int], bytes]) -> None:
        self._find = find

    def __missing__(self, ident: int) -> bytes:
        found = self[ident] = self._find(ident)
        return found


Opening: TypeAlias = Callable[[bytes], bytes]
"""What a decoder takes away from the first piece of a text."""


class ByteDetokenizer:
    """Bytes of a character that is not whole yet wait in an incremental UTF-8 decoder."""

    def __init__(
        self, table: Mapping[int, bytes], errors: str, opening: Opening | None = None
    ) -> None:
        self._table = table
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors)
        self._opening = opening

    def push(self, ids: Sequence[int]) -> str:
        pieces = [self._table[ident] for ident in ids]
        if self._opening is not None:
            self._open(pieces, self._opening)
        return self._decoder.decode(b"".join(pieces))

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)

    def _open(self, pieces: list[bytes], opening: Opening) -> None:
        # control tokens say nothing, and do not count as the first piece
        for place, piece in enumerate(pieces):
            if piece:
                pieces[place], self._opening = opening(piece), None
                return


def without_first_space(piece: bytes) -> bytes:
    """For a vocabulary that writes a space in front of every text."""
    return piece.removeprefix(b" ")


def without_spaces(piece: bytes) -> bytes:
    """As `Metaspace` of the tokenizers library reads the first piece."""
    return piece.replace(b" ", b"")
