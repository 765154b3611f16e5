"""Answers that name their model: whoever judges them does not judge blind."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable

FAMILIES = (
    "alibaba cloud", "anthropic", "chatgpt", "claude", "cyberagent", "deepseek", "elyza", "gemini",
    "gemma", "google bard", "gpt-3", "gpt-4", "gpt-5", "gpt-neox", "grok", "hugging face", "llama",
    "llm-jp", "microsoft copilot", "mistral", "openai", "plamo", "qwen", "rinna", "smollm",
    "stable lm", "stability ai", "vicuna", "りんな",
)  # fmt: skip
"""Models and makers that answers call themselves by."""


def names_of(*words: str) -> frozenset[str]:
    """What a model with these names and sources may be called in an answer.

    A plain word such as ``base`` is no name: half of all answers might hold it.
    """
    parts = [part for word in words for part in re.split(r"/|--", _plain(word)) if part]
    return frozenset(part for part in parts if len(part) > 3 and re.search(r"[\d-]", part))


def is_named(texts: Iterable[str], prompt: str, names: Collection[str]) -> bool:
    """Whether an answer holds a model's name that its prompt does not."""
    found = {name for text in texts for name in _names_in(text, names)}
    return bool(found - set(_names_in(prompt, names)))


def _names_in(text: str, names: Collection[str]) -> list[str]:
    words = _plain(text)
    return [name for name in (*FAMILIES, *names) if _pattern(name).search(words)]


def _pattern(name: str) -> re.Pattern[str]:
    if not name.isascii():
        return re.compile(re.escape(name))
    end = r"(?!\d)" if name[-1].isdigit() else r"(?![a-z])"  # gpt-4o is named, gemmata is not
    return re.compile(rf"(?<![a-z0-9]){re.escape(name)}{end}")


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
