"""Every sentence that a person can see, in Japanese and in English.

`say` is the one way to them. Both languages have every key, with the same values in it; a test
holds them to that.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from bots.strings.en import ENGLISH
from bots.strings.ja import JAPANESE

Locale: TypeAlias = Literal["ja", "en"]

FAILURES = frozenset(
    ("no_core", "busy", "too_long", "prompt_gone", "deadline", "internal", "store_down", "stopped")
)
"""The codes that a reply may fail with: each is a sentence."""

_SENTENCES: dict[Locale, dict[str, str]] = {"ja": JAPANESE, "en": ENGLISH}


def say(key: str, locale: str, **values: object) -> str:
    """The sentence `key` in the language of `locale`, with `values` filled in."""
    return _SENTENCES[language(locale)][key].format(**values)


def failure(code: str, locale: str) -> str:
    """What the person reads when there is no reply; a code that nobody knows is an inner fault."""
    return say(code if code in FAILURES else "internal", locale)


def language(locale: str) -> Locale:
    """The language for a tag such as ``ja-JP`` or ``en_US``: English for all but Japanese."""
    return "ja" if locale.lower().startswith("ja") else "en"
