"""A streaming detokenizer for vocabularies whose pieces are bytes."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping, Sequence


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


class ByteDetokenizer:
    """Bytes of a character that is not whole yet wait in an incremental UTF-8 decoder."""

    def __init__(self, table: Mapping[int, bytes], errors: str, *, drop_space: bool) -> None:
        self._table = table
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors)
        self._drop_space = drop_space
        """The vocabulary writes a space in front of every text."""

    def push(self, ids: Sequence[int]) -> str:
        data = b"".join([self._table[ident] for ident in ids])
        if self._drop_space and data:
            self._drop_space = False
            data = data.removeprefix(b" ")
        return self._decoder.decode(data)

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)
