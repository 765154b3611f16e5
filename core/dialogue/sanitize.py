"""Text of people and models, made safe for a prompt."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable

import regex

_NEWLINES = re.compile("\r\n|[\r\v\f\x1c\x1d\x1e\x85\u2028\u2029]")
_SURROGATES = re.compile("[\ud800-\udfff]")


def clean(text: str) -> str:
    """The text with every line end as ``\\n``, and without lone surrogates."""
    return _SURROGATES.sub("\ufffd", _NEWLINES.sub("\n", text))


COLON_LIKE = (
    "\u02d0\u02d1\u02f8\u0589\u05c3\u0703\u0704\u0705\u0706\u0707\u0708\u0709\u0903\u0a83\u1361\u1365"
    "\u1366\u16ec\u1803\u1804\u1809\u205a\u205d\u2236\u2237\u2360\u2982\u2af6\u2e2c\ua4fd\ua6f4\ua789"
    "\ufe13\ufe19\ufe30\ufe55\uff1a\U0001039f\U00010b3a\U00012471\U00012472\U00012473"
)
"""Characters that a reader takes for a colon: those named so, and Unicode's confusables of one."""
_COLONS = str.maketrans(dict.fromkeys(COLON_LIKE, ":"))
_ANY_COLON = f"[:{COLON_LIKE}]"
_UNSEEN = regex.compile(r"[\p{Cc}\p{Cf}\p{Z}\p{Default_Ignorable_Code_Point}\u2800]+")
_MARKS = regex.compile(r"\p{M}+")
_MORE_MARKS = regex.compile(r"(?<=\p{M}{4})\p{M}+")
_HEAD = 256
"""Characters that a label is looked for in."""


def skeleton(text: str) -> str:
    """The beginning of a text as a reader sees it: letters of every width and form as the usual
    ones, one kind of colon, and no invisible characters or marks upon others."""
    visible = _UNSEEN.sub("", text.translate(_COLONS))
    # a run of n combining marks is normalized in n * n steps
    head = _MORE_MARKS.sub("", visible)[:_HEAD]
    usual = unicodedata.normalize("NFKC", head).translate(_COLONS)
    seen: str = _MARKS.sub("", _UNSEEN.sub("", usual))
    return seen


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
        self._other = next(one for one in "?*_~.!$%&" if not any(one in mark for mark in known))
        """A character that is in no mark: its replacement cannot form a mark again."""

    def __call__(self, text: str) -> str:
        tries = 0
        while self._pattern and (seen := self._with_marks(text, self._pattern)) is not None:
            # a tokenizer may remove the space again
            text = self._pattern.sub(_with_space if tries < _TRIES else self._other, seen)
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
    # two pieces for a run of spaces could share it in as many ways as it is long
    spaced = re.sub(r"(?:\\ )+", lambda _: r"[^\S\n]*", re.escape(string))
    return spaced.replace(":", _ANY_COLON)


def _with_space(found: re.Match[str]) -> str:
    return f"{found[0][:-1]} {found[0][-1]}"
