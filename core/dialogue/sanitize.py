"""Text of people and models, made safe for a prompt."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable

_NEWLINES = re.compile("\r\n|[\r\v\f\x1c\x1d\x1e\x85\u2028\u2029]")
_SURROGATES = re.compile("[\ud800-\udfff]")


def clean(text: str) -> str:
    """The text with every line end as ``\\n``, and without lone surrogates."""
    return _SURROGATES.sub("\ufffd", _NEWLINES.sub("\n", text))


_COLONS = re.compile("[\u02d0\u0589\u05c3\u2236\ua789]")
_ANY_COLON = "[:\ufe13\ufe55\uff1a\u02d0\u0589\u05c3\u2236\ua789]"
_UNSEEN = re.compile(
    r"[\s\x00-\x1f\x7f-\x9f"
    # Unicode's Default_Ignorable_Code_Point
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    r"\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3"
    r"\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    # combining marks
    r"\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\u3099\u309a\ufe20-\ufe2f]+"
)


def skeleton(text: str) -> str:
    """What a reader takes a text for: letters of every width and form as the usual ones, one kind
    of colon, and nothing that is not seen."""
    return _UNSEEN.sub("", _COLONS.sub(":", unicodedata.normalize("NFKC", text)))


class MarkBreaker:
    """Breaks a format's marks in a text: a space before the last character keeps them readable.

    Marks are searched in the text itself and in the tokenizer's normalization of it: full-width
    letters, or letters with an invisible one between them, may become ``<NL>``. A colon may have
    any width, and spaces may be missing or repeated.
    """

    def __init__(self, strings: Iterable[str], normalized: Callable[[str], str]) -> None:
        self._normalized = normalized
        # one character or white space alone is no mark
        both = {string.strip() for given in strings for string in (given, normalized(given))}
        known = sorted((s for s in both if len(s) > 1), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(_loose_pattern, known))) if known else None

    def __call__(self, text: str) -> str:
        tries = 0
        while self._pattern and (seen := self._with_marks(text, self._pattern)) is not None:
            # a tokenizer may remove the space again: then a character goes
            text = self._pattern.sub(_with_space if tries < _TRIES else _without_last, seen)
            tries += 1
        return text

    def _with_marks(self, text: str, pattern: re.Pattern[str]) -> str | None:
        """The text, or its normalization, whichever has a mark in it."""
        if pattern.search(text):
            return text
        seen = self._normalized(text)
        return seen if pattern.search(seen) else None


_TRIES = 4


def _loose_pattern(string: str) -> str:
    return re.escape(string).replace(":", _ANY_COLON).replace("\\ ", r"[^\S\n]*")


def _with_space(found: re.Match[str]) -> str:
    return f"{found[0][:-1]} {found[0][-1]}"


def _without_last(found: re.Match[str]) -> str:
    return found[0][:-1]
