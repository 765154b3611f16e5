"""The dialogue formats: turns to the string that a model was trained to read."""

from __future__ import annotations

from core.dialogue.echo import EchoFormat, MessagesFormat
from core.dialogue.formats.base import Format, PlainFormat
from core.dialogue.tokenizers.base import Tokenizer
from core.errors import ModelError
from core.models.catalogue import ModelSpec


def load_format(spec: ModelSpec, tokenizer: Tokenizer, system_prompt: str) -> Format:
    """The format that a model's spec names, for its tokenizer.

    Raises ModelError where the two do not go together.
    """
    if spec.format == "echo":
        return EchoFormat()
    if spec.format == "messages":
        return MessagesFormat(system_prompt)
    if spec.tokenizer == "sentencepiece":
        return _for_sentencepiece(spec, tokenizer, system_prompt)
    return _for_hugging_face(spec, tokenizer, system_prompt)


def _for_sentencepiece(spec: ModelSpec, tokenizer: Tokenizer, system_prompt: str) -> Format:
    from core.dialogue.formats.rinna import RinnaFormat
    from core.dialogue.tokenizers.sentencepiece import SentencePieceTokenizer

    if not isinstance(tokenizer, SentencePieceTokenizer) or spec.format == "chat-template":
        raise ModelError(f"the model {spec.name}: {_mismatch(spec)}")
    if spec.format == "rinna":
        return RinnaFormat(tokenizer, system_prompt)
    return PlainFormat(tokenizer, frozenset((tokenizer.eos,)), system_prompt)


def _for_hugging_face(spec: ModelSpec, tokenizer: Tokenizer, system_prompt: str) -> Format:
    from core.dialogue.formats.chat_template import ChatTemplateFormat
    from core.dialogue.tokenizers.huggingface import HuggingFaceTokenizer

    if not isinstance(tokenizer, HuggingFaceTokenizer) or spec.format == "rinna":
        raise ModelError(f"the model {spec.name}: {_mismatch(spec)}")
    if spec.format == "chat-template":
        return ChatTemplateFormat(tokenizer, system_prompt, spec.thinking)
    return PlainFormat(tokenizer, tokenizer.stop_ids, system_prompt, tokenizer.opening)


def _mismatch(spec: ModelSpec) -> str:
    return f"format {spec.format} does not go with tokenizer {spec.tokenizer}"
