"""What the dialogue asks of a tokenizer, whichever library it comes from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from core.errors import ModelError
from core.models.catalogue import ModelSpec
from core.models.files import read_config


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


_PADDING = {"sentencepiece": 128, "transformers": 4096}
"""Weights are padded with rows that no token has, up to a multiple of this."""


def check_vocabulary(tokenizer: Tokenizer, spec: ModelSpec, directory: Path) -> None:
    """Raise ModelError where the weights have fewer rows than there are tokens, or far more."""
    config = read_config(directory)
    rows = config.get("vocab_size")
    step = _PADDING[spec.tokenizer]
    if isinstance(rows, int) and not tokenizer.size <= rows <= -(-tokenizer.size // step) * step:
        raise ModelError(
            f"{directory / 'config.json'} says vocab_size = {rows}, "
            f"and the tokenizer beside it has {tokenizer.size} tokens"
        )


def load_tokenizer(spec: ModelSpec, directory: Path | None) -> Tokenizer:
    """The tokenizer of a model, from its own files; ModelError, one sentence, where it cannot be.

    The libraries are imported as they are wanted: a rinna model needs no transformers here, and
    the echo model needs nothing.
    """
    if spec.tokenizer == "codepoints":
        from core.dialogue.tokenizers.echo import CodepointTokenizer

        return CodepointTokenizer()
    if directory is None:
        raise ModelError(f"the model {spec.name} needs a directory with its tokenizer")
    if spec.tokenizer == "sentencepiece":
        from core.dialogue.tokenizers.sentencepiece import SentencePieceTokenizer

        return SentencePieceTokenizer.load(directory, spec.context_length)
    from core.dialogue.tokenizers.huggingface import HuggingFaceTokenizer

    return HuggingFaceTokenizer.load(directory)
