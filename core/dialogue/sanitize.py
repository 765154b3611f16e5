"""Keeping text text: what people and models wrote, on its way into a prompt."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable

_NEWLINES = re.compile("\r\n|[\r\v\f\x1c\x1d\x1e\x85\u2028\u2029]")
_SURROGATES = re.compile("[\ud800-\udfff]")


def clean(text: str) -> str:
    """Every kind of line end as ``\\n``, and no lone surrogates, which no encoding has."""
    return _SURROGATES.sub("\ufffd", _NEWLINES.sub("\n", text))


_COLONS = re.compile("[\u02d0\u0589\u05c3\u2236\ua789]")
_ANY_COLON = "[:\ufe13\ufe55\uff1a\u02d0\u0589\u05c3\u2236\ua789]"
_UNSEEN = re.compile(
    r"[\s\x00-\x1f\x7f-\x9f"
    # by Unicode's Default_Ignorable_Code_Point
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    r"\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3"
    r"\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    # marks upon another character
    r"\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\u3099\u309a\ufe20-\ufe2f]+"
)


def skeleton(text: str) -> str:
    """What a reader takes a text for: letters of every width and form as the usual ones, one kind
    of colon, and nothing that is not seen."""
    return _UNSEEN.sub("", _COLONS.sub(":", unicodedata.normalize("NFKC", text)))


class MarkBreaker:
    """Breaks strings that mean something to a format where they stand in a text: a space goes in
    before their last character, so that they still read as what was typed.

    They are looked for in the text as it is and as the tokenizer sees it, for a tokenizer may make
    ``<NL>`` of full-width letters, or of letters with an invisible one between them. A colon may be
    of any width, and spaces may be more or none.
    """

    def __init__(self, strings: Iterable[str], normalized: Callable[[str], str]) -> None:
        self._normalized = normalized
        # one character, or nothing but space, cannot be broken and is no one's mark
        both = {string.strip() for given in strings for string in (given, normalized(given))}
        known = sorted((s for s in both if len(s) > 1), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(_loose_pattern, known))) if known else None

    def __call__(self, text: str) -> str:
        tries = 0
        while self._pattern and (seen := self._with_marks(text, self._pattern)) is not None:
            # where a tokenizer takes spaces out again, not all of a mark can be kept
            text = self._pattern.sub(_with_space if tries < _TRIES else _without_last, seen)
            tries += 1
        return text

    def _with_marks(self, text: str, pattern: re.Pattern[str]) -> str | None:
        """The text, as it is or as the tokenizer sees it, if there is a mark in it."""
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
