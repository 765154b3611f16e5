"""A tokenizer of Hugging Face's, loaded through transformers with its chat template."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, TemplateError, meta

from core.dialogue.thoughts import TAGS
from core.dialogue.tokenizers.base import Detokenizer
from core.dialogue.tokenizers.detokenizers import (
    ByteDetokenizer,
    ByteTable,
    WindowDetokenizer,
    as_table,
)
from core.errors import ModelError, in_brief
from core.models.files import SENTENCEPIECE_FILES, TEMPLATE_FILES, end_ids, read_json

_LOADING_ERRORS = (
    OSError, ValueError, LookupError, TypeError, ImportError, AttributeError, ArithmeticError,
    RecursionError,
)  # fmt: skip

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerBase


class HuggingFaceTokenizer:
    """Ids, pieces and text of a ``tokenizer.json``, and the strings of its chat template.

    `encode` takes a rendered string, in which control tokens are written out: the formats must
    ensure that no person's text has one in it.
    """

    def __init__(self, wrapped: PreTrainedTokenizerBase, directory: Path) -> None:
        self.directory = directory
        self._wrapped = wrapped
        self._backend: Tokenizer = wrapped.backend_tokenizer
        vocabulary = self._backend.get_vocab(with_added_tokens=True)
        self.size = len(vocabulary)
        self.longest = max(map(len, vocabulary))
        self.fingerprint = hashlib.sha256(self._backend.to_str().encode()).hexdigest()
        added = self._backend.get_added_tokens_decoder()
        written_by_template = self.template + self._sample()
        self.controls: Mapping[str, int] = {
            token.content: ident
            for ident, token in added.items()
            if _is_control(token, written_by_template)
        }
        self.reserved: Sequence[str] = [*self.controls, *self._byte_pieces()]
        self.cut = _before_controls(list(added.values()))
        self.stop_ids = self._ends_of_sequence()
        written = [ident for token, ident in self.controls.items() if token in self.template]
        learned = self._backend.get_vocab_size(with_added_tokens=False)
        self.needed = max(learned, *(ident + 1 for ident in (*written, *self.stop_ids)))
        self._spelling = as_table(json.loads(self._backend.to_str())["decoder"])
        self._table = self._first = None
        if spelling := self._spelling:
            self._table = self._table_of(spelling.spell)
            self._first = self._table_of(spelling.first) if spelling.first else None

    @classmethod
    def load(cls, directory: Path) -> HuggingFaceTokenizer:
        """The tokenizer in a model's directory; ModelError names it where it cannot be loaded."""
        # importing it takes seconds, which a rinna model does not need
        from huggingface_hub.errors import StrictDataclassError
        from transformers import AutoTokenizer

        _check_files(directory)
        try:
            wrapped = AutoTokenizer.from_pretrained(
                directory,
                local_files_only=True,
                trust_remote_code=False,  # by default it asks on the terminal
            )
        except (*_LOADING_ERRORS, StrictDataclassError) as error:
            raise ModelError(
                f"the tokenizer in {directory} cannot be loaded: {in_brief(error)}"
            ) from None
        if not hasattr(wrapped, "backend_tokenizer"):
            raise ModelError(f"the tokenizer in {directory} is not of the `tokenizers` library")
        if not wrapped.chat_template:
            wrapped.chat_template = _template_apart(directory)
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

    def is_context_free(self, text: str) -> bool:
        """The library encodes the text between two control tokens by itself."""
        return True

    def detokenizer(self, *, inside: bool = False) -> Detokenizer:
        if self._spelling is not None and self._table is not None:
            first = None if inside else self._first
            return ByteDetokenizer(self._table, self._spelling.errors, first)
        return WindowDetokenizer(self.decode, self.encode("a") if inside else ())

    @property
    def opening(self) -> str:
        """The control tokens that the tokenizer puts in front of a plain text."""
        around: list[int] = self._backend.encode("", add_special_tokens=True).ids
        return "".join(self.pieces([ident for ident in around if ident not in self.stop_ids]))

    def _ends_of_sequence(self) -> frozenset[int]:
        """The ends of sequence of the tokenizer and of the model."""
        own: int | None = self._wrapped.eos_token_id
        return frozenset((*end_ids(self.directory), *([] if own is None else [own])))

    def _table_of(self, spell: Callable[[str], bytes]) -> ByteTable:
        """The bytes that each id adds to a text; none for a special token or an unknown id."""

        added = self._backend.get_added_tokens_decoder()

        def find(ident: int) -> bytes:
            token = self._backend.id_to_token(ident)
            silent = token in self.controls and added[ident].special
            return b"" if token is None or silent else spell(token)

        return ByteTable(find)

    def _byte_pieces(self) -> list[str]:
        """The byte pieces, such as ``<0x41>``, where a typed one would become a byte."""
        if self.decode(self.encode("<0x41>")) == "<0x41>":
            return []
        return [f"<0x{byte:02X}>" for byte in range(256)]

    # -- the chat template ----------------------------------------------------------------------

    @property
    def template_file(self) -> Path:
        """The file with the chat template."""
        apart = (self.directory / name for name in TEMPLATE_FILES)
        return next(filter(Path.exists, apart), self.directory / "tokenizer_config.json")

    @cached_property
    def template(self) -> str:
        """The chat template, the default one of several; empty where there is none."""
        try:
            return str(self._wrapped.get_chat_template())
        except ValueError:
            return ""

    def check_template(self) -> None:
        """ModelError where there is no template, or several without a default."""
        named = self._wrapped.chat_template
        if isinstance(named, dict) and named and "default" not in named:
            names, wanted = ", ".join(sorted(map(str, named))), self.directory / TEMPLATE_FILES[0]
            raise ModelError(
                f"{self.directory} has the chat templates {names}, and none is the default: "
                f"copy the one to use to {wanted}"
            )
        if not self.template:
            raise ModelError(f"{self.template_file} has no chat template")

    @cached_property
    def variables(self) -> frozenset[str]:
        """The names of the template's variables."""
        try:
            parsed = Environment(autoescape=True).parse(self.template)
            return frozenset(meta.find_undeclared_variables(parsed))
        except TemplateError:  # of a statement that only transformers knows
            return frozenset(re.findall(r"\w+", self.template))

    def _sample(self) -> str:
        """A small dialogue, with all that the template writes around it."""
        rows = [("system", "s"), ("user", "q"), ("assistant", "a"), ("user", "q")]
        messages = [{"role": role, "content": text} for role, text in rows]
        for said in (messages, messages[1:]):
            with suppress(ModelError):
                return self.render(said, prompt=True)
        return ""

    def render(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        prompt: bool,
        variables: Mapping[str, Any] = MappingProxyType({}),
    ) -> str:
        """The chat template's string; with `prompt`, including the beginning of a reply.

        Raises ModelError, naming the file, where the template rejects these messages.
        """
        said = [dict(message) for message in messages]
        try:
            rendered: Any = self._wrapped.apply_chat_template(
                said, tokenize=False, add_generation_prompt=prompt, **variables
            )
        except Exception as error:  # the template may do anything, endless recursion too
            roles = ", ".join(message["role"] for message in messages)
            raise ModelError(
                f"the chat template in {self.template_file} raises {error!r} on turns of {roles}"
            ) from None
        return str(rendered)


def _check_files(directory: Path) -> None:
    """Raise ModelError, naming the file that is missing or broken: the library names none."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (directory / name).exists():
            read_json(directory / name)
    known = ("tokenizer.json", "vocab.json", "vocab.txt", *SENTENCEPIECE_FILES)
    if not any((directory / name).exists() for name in known):
        raise ModelError(f"{directory / 'tokenizer.json'} is missing")


def _template_apart(directory: Path) -> object:
    """The template of a model that also sees or hears, which transformers' tokenizers leave out."""
    path = directory / TEMPLATE_FILES[1]
    found = read_json(path).get("chat_template") if path.exists() else None
    if isinstance(found, list) and all(isinstance(one, dict) for one in found):
        return {one.get("name"): one.get("template") for one in found}
    return found if isinstance(found, str) else None


_TOKEN = re.compile(r"[<\[].*[>\]]", re.DOTALL)
_NO_TEXT = re.compile(r"<[|｜].*[|｜]>", re.DOTALL)


def _is_control(token: AddedToken, written_by_template: str) -> bool:
    """Whether an added token is a control token.

    An HTML tag that the tokenizer has as an ordinary added token is text, unless the template
    writes it or models write thoughts with it.
    """
    content = token.content
    if token.special or _NO_TEXT.fullmatch(content):
        return True
    known = content in written_by_template or any(content in pair for pair in TAGS)
    return known and _TOKEN.fullmatch(content) is not None


def _before_controls(added: Sequence[AddedToken]) -> re.Pattern[str] | None:
    """Finds the places before a control token: the library splits a text there, and encodes the
    parts between control tokens separately.

    Not before one that takes the space on its left, or counts only as a whole word, or whose
    beginning another added token might take.
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
