"""A SentencePiece model, loaded with its own library.

transformers would wrap the same file, and change it: a space in front, runs of white space
collapsed, unknown characters lost, and a typed ``</s>`` taken for the control token. Here text is
only text: SentencePiece knows control pieces by id alone.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from sentencepiece import SentencePieceProcessor

from core.dialogue.tokenizers.detokenizers import ByteDetokenizer, ByteTable
from core.errors import ModelError
from core.models.files import sentencepiece_file

_SPACE = "\u2581"
"""How SentencePiece writes a space."""


class SentencePieceTokenizer:
    """Ids, pieces and text of one ``spiece.model``."""

    def __init__(self, model: bytes, context_length: int) -> None:
        self._processor = SentencePieceProcessor(model_proto=model)
        self.size = self.needed = self._processor.get_piece_size()
        self.fingerprint = hashlib.sha256(model).hexdigest()
        self._written = [self._processor.id_to_piece(ident) for ident in range(self.size)]
        self.longest = max(map(len, self._written))
        self.controls: Mapping[str, int] = {
            piece: ident
            for ident, piece in enumerate(self._written)
            if self._processor.is_control(ident) or self._is_symbol(ident)
        }
        # control pieces are known by id alone, user-defined ones are found in a text
        self.reserved: Sequence[str] = [
            piece for piece, ident in self.controls.items() if not self._processor.is_control(ident)
        ]
        self.eos = self._processor.eos_id()
        self._scores = [self._processor.get_score(ident) for ident in range(self.size)]
        self._rounding = _rounding(context_length * max(map(abs, self._scores)))
        self._table = ByteTable(self._bytes)
        self._first = ByteTable(self._first_bytes)
        self._pads = self._processor.encode("a", out_type=str)[0].startswith(_SPACE)
        self.cut: re.Pattern[str] | None = None

    @classmethod
    def load(cls, directory: Path, context_length: int) -> SentencePieceTokenizer:
        """The tokenizer in a model's directory; ModelError, naming the file, where it is broken."""
        path = sentencepiece_file(directory)
        if path is None:
            raise ModelError(f"{directory / 'spiece.model'} is missing")
        try:
            return cls(path.read_bytes(), context_length)
        except (OSError, RuntimeError) as error:
            raise ModelError(f"{path} is not a SentencePiece model: {error}") from None

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._processor.encode(text)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._processor.decode(list(ids))
        return text

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return [self._written[ident] for ident in ids]

    def normalized(self, text: str) -> str:
        seen: str = self._processor.normalize(text)
        return seen.replace(_SPACE, " ")

    def detokenizer(self, *, inside: bool = False) -> ByteDetokenizer:
        first = self._first if self._pads and not inside else None
        return ByteDetokenizer(self._table, "henji-each-byte", first)

    def _is_symbol(self, ident: int) -> bool:
        """Whether a piece was defined beside the learned ones, and looks like a control token."""
        piece = self._written[ident]
        if self._processor.is_byte(ident) or self._processor.is_unknown(ident):
            return False
        # the library does not say which were defined: they alone have no score
        bracketed = piece[:1] in ("<", "[") and piece[-1:] in (">", "]") and len(piece) > 2
        return bracketed and self._processor.get_score(ident) == 0.0

    def _bytes(self, ident: int) -> bytes:
        """The bytes that a piece adds to a text; none for a control token."""
        if ident >= self.size:
            return b""  # a row that only pads the weights
        piece = self._written[ident]
        if self._processor.is_byte(ident):
            return bytes([int(piece[3:5], 16)])
        if self._processor.is_control(ident):
            return b""
        if self._processor.is_unknown(ident):
            return " \u2047 ".encode()  # what SentencePiece decodes the unknown piece to
        return piece.replace(_SPACE, " ").encode()

    def _first_bytes(self, ident: int) -> bytes:
        """The same at the beginning of a text: the dummy prefix goes; the space of a byte and
        that of the unknown piece stay."""
        found = self._table[ident]
        keeps_space = self._processor.is_byte(ident) or self._processor.is_unknown(ident)
        return found if keeps_space else found.removeprefix(b" ")

    # -- where a text may be cut ----------------------------------------------------------------

    def cut_inside(self, string: str) -> None:
        """Let texts be cut within `string`, which a format writes between turns.

        At the first place where that is exact: no piece of the vocabulary spans it, so every way
        to take the text apart has a border there, and nothing is added at the front of a text.
        """
        for place in range(1, len(string)):
            left, right = string[place - 1], string[place]
            if not self._pads and not self._spanned(left, right):
                self.cut = re.compile(
                    f"(?<={re.escape(string[:place])})(?={re.escape(string[place:])})"
                )
                return

    def _spanned(self, left: str, right: str) -> bool:
        """Whether a piece holds both characters side by side, or they are seen as other ones
        together, or as unknown ones, which are joined where there are no byte pieces."""
        pair = (left + right).replace(" ", _SPACE)
        apart = self.normalized(left) + self.normalized(right)
        unknown = all(self._processor.piece_to_id(one) == self._processor.unk_id() for one in pair)
        joined = unknown and not self._processor.is_byte(self._processor.piece_to_id("<0x00>"))
        return joined or self.normalized(left + right) != apart or self._in_a_piece(pair)

    def _in_a_piece(self, pair: str) -> bool:
        return any(
            pair in piece
            for ident, piece in enumerate(self._written)
            if not self._processor.is_byte(ident) and not self._processor.is_control(ident)
        )

    def is_context_free(self, text: str) -> bool:
        """False if two segmentations of `text` have the same score up to rounding.

        SentencePiece adds up scores in single precision from the beginning of its input, so the
        text before decides between two such segmentations: ``wwww`` becomes ``w www`` in one
        place and ``www w`` in another. The best two are compared, and each addition is allowed the
        rounding of the longest prompt.
        """
        ways = self._processor.nbest_encode(text, nbest_size=2)
        if len(ways) < 2:
            return True
        first, second = _without_common_ends(ways[0], ways[1])
        scores = [sum(self._scores[ident] for ident in way) for way in (first, second)]
        return abs(scores[0] - scores[1]) > self._rounding * (len(first) + len(second) + 2)


def _rounding(largest: float) -> float:
    """The step between single-precision numbers of this size."""
    exponent: int = math.frexp(largest)[1]
    return math.ldexp(1.0, exponent - 24)


def _without_common_ends(one: Sequence[int], other: Sequence[int]) -> tuple[list[int], list[int]]:
    """The differing parts of two sequences, without their common beginning and end."""
    shortest = min(len(one), len(other))
    start = next((i for i in range(shortest) if one[i] != other[i]), shortest)
    most = shortest - start
    end = next((i for i in range(most) if one[-1 - i] != other[-1 - i]), most)
    return list(one[start : len(one) - end]), list(other[start : len(other) - end])
