"""Streaming detokenizers: token ids to text, piece by piece."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias


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


_SPACE = "\u2581"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_Step: TypeAlias = Mapping[str, Any]
_PieceToBytes: TypeAlias = Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class TableDecoder:
    """A decoder that is a table."""

    spell: _PieceToBytes
    """A piece to its bytes."""
    errors: str
    """The error handler of `codecs` for bytes that are no character."""
    first: _PieceToBytes | None = None
    """The same for the first piece of a text, where that differs."""


def as_table(decoder: _Step | None) -> TableDecoder | None:
    """A decoder of a ``tokenizer.json`` as a table; None where it is more than one."""
    if decoder is None:
        return None
    if decoder["type"] == "ByteLevel":
        return TableDecoder(_spell_byte_level, "replace")
    steps = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    if not steps or not all(map(_is_known, steps)):
        return None
    by_type = {step["type"]: step for step in steps}
    kinds = list(by_type)
    if "Strip" in kinds and "Fuse" not in kinds[: kinds.index("Strip")]:
        return None  # it strips every piece
    spell = _spell_bytes if "ByteFallback" in by_type else _spell_spaces
    return TableDecoder(spell, "henji-each-byte", _spell_first(spell, by_type))


def _is_known(step: _Step) -> bool:
    match step:
        case {"type": "ByteFallback" | "Fuse"}:
            return True
        case {"type": "Metaspace", "replacement": "\u2581"}:
            return True
        case {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}:
            return True
        case {"type": "Strip", "content": " ", "start": 0 | 1, "stop": 0}:
            return True
    return False


def _spell_first(spell: _PieceToBytes, steps: Mapping[str, _Step]) -> _PieceToBytes | None:
    if steps.get("Metaspace", {}).get("prepend_scheme", "never") != "never":
        return lambda piece: spell(piece.replace(_SPACE, ""))  # a space written as a byte stays
    if steps.get("Strip", {}).get("start"):
        return lambda piece: spell(piece).removeprefix(b" ")
    return None


def _spell_spaces(piece: str) -> bytes:
    return piece.replace(_SPACE, " ").encode()


def _spell_bytes(piece: str) -> bytes:
    found = _BYTE.fullmatch(piece)
    return bytes([int(found[1], 16)]) if found else _spell_spaces(piece)


def _spell_byte_level(piece: str) -> bytes:
    table = _byte_of_character()
    try:
        return bytes(table[character] for character in piece)
    except KeyError:
        return piece.encode()


@cache
def _byte_of_character() -> Mapping[str, int]:
    """The byte-level alphabet: printable Latin-1 bytes are themselves, the others are the
    characters from U+0100 on, in order (github openai/gpt-2, `encoder.py`)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + place): byte for place, byte in enumerate(others)
    }


_CHARACTER = 4
"""Ids of a character, at most."""


class WindowDetokenizer:
    """For decoders that are no table: decodes a window of the newest ids again with each id.

    The text is the end that the window gained; half a character at its end is held back.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], before: Sequence[int]) -> None:
        self._decode = decode
        self._ids = list(before)
        self._read = len(self._ids)
        """The number of ids whose text was returned."""

    def push(self, ids: Sequence[int]) -> str:
        return "".join(map(self._push, ids))

    def finish(self) -> str:
        return self._decode(self._ids)[len(self._decode(self._ids[: self._read])) :]

    def _push(self, ident: int) -> str:
        self._ids.append(ident)
        text = self._decode(self._ids)
        if not text.endswith("\ufffd"):
            return self._take(len(self._ids), text)
        if len(self._ids) - self._read < 2 * _CHARACTER:
            return ""
        # a character that is not whole by now never will be
        for end in range(len(self._ids) - _CHARACTER, len(self._ids) - 2 * _CHARACTER, -1):
            part = self._decode(self._ids[:end])
            if text.startswith(part):
                return self._take(end, part)
        return ""

    def _take(self, end: int, text: str) -> str:
        """The text of the unread ids before `end`; `text` is that of the window up to there."""
        known = self._decode(self._ids[: self._read])
        if text == known:
            self._read = end
        else:  # an id without text cannot begin a window
            self._ids, self._read = self._ids[self._read :], end - self._read
        return text[len(known) :]
