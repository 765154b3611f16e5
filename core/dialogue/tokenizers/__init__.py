"""Tokenizers and streaming detokenizers: text to token ids and back."""

from __future__ import annotations

from pathlib import Path

from core.dialogue.tokenizers.base import Tokenizer
from core.errors import ModelError
from core.models.catalogue import ModelSpec
from core.models.files import read_limits

_PADDING = 128
"""Weights of a SentencePiece model are padded with rows up to a multiple of this."""


def check_vocabulary(tokenizer: Tokenizer, spec: ModelSpec, directory: Path) -> None:
    """ModelError if the tokenizer is that of another model.

    A tokenizer of Hugging Face's may have added tokens that the weights have no row for, and the
    weights many more rows than there are tokens; a SentencePiece model has neither.
    """
    rows = read_limits(directory).get("vocab_size")
    if not isinstance(rows, int):
        return
    most = -(-tokenizer.size // _PADDING) * _PADDING if spec.tokenizer == "sentencepiece" else rows
    if tokenizer.size <= rows < tokenizer.needed:
        raise ModelError(
            f"{directory / 'config.json'} says vocab_size = {rows}, "
            f"and the files beside it say that the id {tokenizer.needed - 1} ends a reply"
        )
    if not tokenizer.needed <= rows <= most:
        raise ModelError(
            f"{directory / 'config.json'} says vocab_size = {rows}, "
            f"and the tokenizer beside it has {tokenizer.size} tokens"
        )


def load_tokenizer(spec: ModelSpec, directory: Path | None) -> Tokenizer:
    """The tokenizer of a model, from its files; ModelError, one sentence, if it cannot be loaded.

    Libraries are imported when needed: a rinna model needs no transformers here, and the echo
    model needs none.
    """
    if spec.tokenizer == "codepoints":
        from core.dialogue.echo import CodepointTokenizer

        return CodepointTokenizer()
    if directory is None:
        raise ModelError(f"the model {spec.name} needs a directory with its tokenizer")
    if spec.tokenizer == "sentencepiece":
        from core.dialogue.tokenizers.sentencepiece import SentencePieceTokenizer

        return SentencePieceTokenizer.load(directory, spec.context_length)
    from core.dialogue.tokenizers.huggingface import HuggingFaceTokenizer

    return HuggingFaceTokenizer.load(directory)
