"""Keeping text text: what people and models wrote, on its way into a prompt."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

_NEWLINES = re.compile("\r\n|[\r\v\f\x1c\x1d\x1e\x85\u2028\u2029]")
_SURROGATES = re.compile("[\ud800-\udfff]")


def clean(text: str) -> str:
    """Every kind of line end as ``\\n``, and no lone surrogates, which no encoding has."""
    return _SURROGATES.sub("\ufffd", _NEWLINES.sub("\n", text))


class Breaker:
    """Breaks strings that mean something to a format where they stand in a text: a space goes in
    before their last character, so that they still read as what was typed.

    They are looked for in the text as it is and as the tokenizer sees it, for a tokenizer may make
    ``<NL>`` of full-width letters, or of letters with an invisible one between them.
    """

    def __init__(self, strings: Iterable[str], normalized: Callable[[str], str]) -> None:
        self._normalized = normalized
        # one character, or nothing but space, cannot be broken and is no one's mark
        both = {string.strip() for given in strings for string in (given, normalized(given))}
        known = sorted((s for s in both if len(s) > 1), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, text: str) -> str:
        if self._pattern is None:
            return text
        while True:
            if self._pattern.search(text) is None:
                seen = self._normalized(text)
                if seen == text or self._pattern.search(seen) is None:
                    return text
                text = seen
            text = self._pattern.sub(lambda found: f"{found[0][:-1]} {found[0][-1]}", text)
