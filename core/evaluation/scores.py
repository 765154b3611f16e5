"""Judges that give each answer a number: verifiable rules, and reward models."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from math import isnan
from statistics import fmean
from typing import Protocol

from core.dialogue.loop_detection import first_round
from core.evaluation.counting import Side, Winner
from core.evaluation.prompts import Prompt


class Scorer(Protocol):
    """The better an answer to a prompt is, the higher its score. May compute for long."""

    def __call__(self, prompt: Prompt, text: str) -> float: ...


def better(scores: tuple[float, float]) -> Winner:
    """Whose score is higher; unreadable where one is no number."""
    a, b = scores
    if isnan(a) or isnan(b):
        return "unreadable"
    winner: Side | None = "a" if a > b else "b" if b > a else None
    return winner or "tie"


_WORD = re.compile(r"[^\W\d_]+")
_LIST_ITEM = re.compile(r"^\s*(?:[-*・•]|\d+[.．、)])", re.MULTILINE)
_SENTENCE = re.compile(r"[^。.!?！？\n]+[。.!?！？\n]?")
_POLITE = re.compile(
    r"(?:です|ます|でした|ました|ません|ましょう|ください)(?:か|ね|よ|が)?[。.!?！？\s]*$"
)


def _short_words(prompt: Prompt, text: str) -> float:
    words = [len(word) for word in _WORD.findall(text)]
    return -fmean(words) if words else -float("inf")


def _same_language(prompt: Prompt, text: str) -> float:
    """The part of the letters that are of the prompt's language."""
    letters = [unicodedata.name(char, "") for char in text if char.isalpha()]
    japanese = ("HIRAGANA", "KATAKANA", "CJK", "HALFWIDTH KATAKANA")
    own = japanese if prompt.language == "ja" else ("LATIN",)
    return sum(name.startswith(own) for name in letters) / len(letters) if letters else 0.0


def _polite(prompt: Prompt, text: str) -> float:
    """The part of the sentences that end politely, in Japanese."""
    sentences = [found for found in _SENTENCE.findall(text) if found.strip()]
    return fmean(bool(_POLITE.search(found)) for found in sentences) if sentences else 0.0


RULES: Mapping[str, Scorer] = {
    "shorter": lambda prompt, text: -len(text),
    "longer": lambda prompt, text: len(text),
    "short-words": _short_words,
    "same-language": _same_language,
    "polite": _polite,
    "no-loop": lambda prompt, text: -bool(first_round(text)),
    "list": lambda prompt, text: min(2, len(_LIST_ITEM.findall(text))),
}
"""What can be seen without a judge. A rule is easily gamed: no rule says which answer is better."""
