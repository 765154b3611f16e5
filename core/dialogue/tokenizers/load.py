"""Which tokenizer a model is read with, and whether it fits the weights."""

from __future__ import annotations

from pathlib import Path

from core.dialogue.tokenizers.base import Tokenizer
from core.errors import ModelError
from core.models.catalogue import ModelSpec
from core.models.files import read_config

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
