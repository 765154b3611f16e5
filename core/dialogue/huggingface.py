"""A tokenizer of Hugging Face's, loaded through transformers with its chat template."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError
from tokenizers.decoders import ByteLevel, DecodeStream

from core.dialogue.detokenizer import ByteDetokenizer, ByteTable
from core.dialogue.tokenizer import Detokenizer
from core.errors import ModelError
from core.model_files import read_generation_config

_RAISED = (TemplateError, TypeError, ValueError, KeyError, IndexError, AttributeError)
"""What a chat template raises, by itself or because it expects other messages."""

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerBase


class HuggingFaceTokenizer:
    """Ids, pieces and text of a ``tokenizer.json``, and the strings of its chat template.

    `encode` takes a rendered string, in which control tokens are written out: it is for the formats
    to see that no text of a person has one in it.
    """

    def __init__(self, wrapped: PreTrainedTokenizerBase, directory: Path) -> None:
        self.directory = directory
        self._wrapped = wrapped
        self._backend: Tokenizer = wrapped.backend_tokenizer
        self.size = self._backend.get_vocab_size(with_added_tokens=True)
        self.fingerprint = hashlib.sha256(self._backend.to_str().encode()).hexdigest()
        added = self._backend.get_added_tokens_decoder()
        self.controls: Mapping[str, int] = {
            token.content: ident for ident, token in added.items() if _is_control(token)
        }
        self.cut = _before_controls(list(added.values()))
        self.stop_ids = self._ends_of_sequence()
        self._table = ByteTable(self._bytes)

    @classmethod
    def load(cls, directory: Path) -> HuggingFaceTokenizer:
        """The tokenizer in a model's directory; ModelError names it where it cannot be loaded."""
        # importing it takes seconds, which a rinna model does not need
        from transformers import AutoTokenizer

        try:
            wrapped = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError, ImportError, AttributeError) as error:
            raise ModelError(f"the tokenizer in {directory} cannot be loaded: {error}") from None
        if not hasattr(wrapped, "backend_tokenizer"):
            raise ModelError(f"the tokenizer in {directory} is not of the `tokenizers` library")
        return cls(wrapped, directory)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return self._backend.decode(list(ids), skip_special_tokens=True)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return [self._backend.id_to_token(ident) or "" for ident in ids]

    def normalized(self, text: str) -> str:
        normalizer = self._backend.normalizer
        return normalizer.normalize_str(text).replace("\u2581", " ") if normalizer else text

    def settled(self, text: str) -> bool:
        """Between two control tokens a text is encoded by itself, whatever stands around it."""
        return True

    def detokenizer(self) -> Detokenizer:
        if isinstance(self._backend.decoder, ByteLevel):
            return ByteDetokenizer(self._table, "replace", drop_space=False)
        return StreamDetokenizer(self._backend)

    @property
    def opening(self) -> str:
        """What the tokenizer itself puts in front of a text that is not a dialogue."""
        around: list[int] = self._backend.encode("", add_special_tokens=True).ids
        return "".join(self.pieces([ident for ident in around if ident not in self.stop_ids]))

    def _ends_of_sequence(self) -> frozenset[int]:
        """The tokenizer's end of sequence, and what the model's generation config says ends it."""
        said = read_generation_config(self.directory).get("eos_token_id")
        ids = said if isinstance(said, list) else [said]
        return frozenset(ident for ident in (*ids, self._wrapped.eos_token_id) if ident is not None)

    def _bytes(self, ident: int) -> bytes:
        """What a piece of a byte-level vocabulary adds to a text."""
        token = self._backend.id_to_token(ident)
        if token is None or (token in self.controls and self._is_special(ident)):
            return b""
        table = _byte_of_character()
        try:
            return bytes(table[character] for character in token)
        except KeyError:
            return token.encode()

    def _is_special(self, ident: int) -> bool:
        return self._backend.get_added_tokens_decoder()[ident].special

    # -- the chat template ----------------------------------------------------------------------

    @property
    def template_file(self) -> Path:
        """The file that the chat template stands in."""
        apart = self.directory / "chat_template.jinja"
        return apart if apart.exists() else self.directory / "tokenizer_config.json"

    @property
    def has_template(self) -> bool:
        return bool(self._wrapped.chat_template)

    def render(self, messages: Sequence[Mapping[str, str]], *, prompt: bool) -> str:
        """The chat template's string; with `prompt`, up to where a reply begins.

        Raises ModelError, naming the file, where the template will not have these messages.
        """
        said = [dict(message) for message in messages]
        try:
            rendered: Any = self._wrapped.apply_chat_template(
                said, tokenize=False, add_generation_prompt=prompt
            )
        except _RAISED as error:
            roles = ", ".join(message["role"] for message in messages)
            raise ModelError(
                f"the chat template in {self.template_file} raises {error!r} on turns of {roles}"
            ) from None
        return str(rendered)


class StreamDetokenizer:
    """For decoders that are more than a table of bytes: the library's own stream."""

    def __init__(self, backend: Tokenizer) -> None:
        self._backend = backend
        self._stream = DecodeStream(skip_special_tokens=True)
        self._ids: list[int] = []
        self._shown = 0

    def push(self, ids: Sequence[int]) -> str:
        self._ids.extend(ids)
        text = "".join([self._stream.step(self._backend, ident) or "" for ident in ids])
        self._shown += len(text)
        return text

    def finish(self) -> str:
        return self._backend.decode(self._ids, skip_special_tokens=True)[self._shown :]


def _is_control(token: AddedToken) -> bool:
    """Whether an added token steers the model, and is not just a word or a run of spaces."""
    content = token.content
    return token.special or (content[:1] in ("<", "[") and content[-1:] in (">", "]"))


def _before_controls(added: Sequence[AddedToken]) -> re.Pattern[str] | None:
    """Finds the places in front of a control token: the library takes those out of a text first,
    and encodes what is between them apart.

    Not in front of one that swallows the space on its left, or stands as a whole word alone, or
    whose beginning another added token might claim.
    """
    safe = [
        token.content
        for token in added
        if token.special
        and not (token.lstrip or token.single_word or token.normalized)
        and not any(_overlaps(other.content, token.content) for other in added)
    ]
    return re.compile(f"(?={'|'.join(map(re.escape, safe))})") if safe else None


def _overlaps(left: str, token: str) -> bool:
    """Whether `left` could begin before `token` does and reach into it."""
    rests = (left[start:] for start in range(1, len(left)))
    return any(token.startswith(rest) or rest.startswith(token) for rest in rests)


@cache
def _byte_of_character() -> Mapping[str, int]:
    """The byte-level alphabet: printable Latin-1 bytes stand for themselves, the others for the
    characters from U+0100 on, in order (github openai/gpt-2, `encoder.py`)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + place): byte for place, byte in enumerate(others)
    }
