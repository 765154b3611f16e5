"""The echo model's tokenizer: an id is a Unicode code point, and three ids above them all are
control tokens, so that an engine finds the newest user turn in the ids alone.

A prompt is ``USER text END ASSISTANT text END USER text END ASSISTANT``. In a rendered string each
control is written as a lone surrogate, which no person's text has after `sanitize.clean`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

USER = 0x110000
"""Begins a user's turn."""
ASSISTANT = 0x110001
"""Begins a reply."""
END = 0x110002
"""Ends a turn; in a reply, the end of sequence."""

USER_MARK, ASSISTANT_MARK, END_MARK = "\ud800", "\ud801", "\ud802"

_IDS = {USER_MARK: USER, ASSISTANT_MARK: ASSISTANT, END_MARK: END}
_MARKS = {ident: mark for mark, ident in _IDS.items()}


class CodepointTokenizer:
    """One id a character. It needs no file."""

    size = END + 1
    needed = size
    longest = 1
    controls: Mapping[str, int] = MappingProxyType(_IDS)
    reserved: Sequence[str] = tuple(_IDS)
    fingerprint = "codepoints-1"
    cut: re.Pattern[str] | None = re.compile(f"(?=[{USER_MARK}{ASSISTANT_MARK}{END_MARK}])")

    def encode(self, text: str) -> list[int]:
        return [_IDS.get(character, ord(character)) for character in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(ident) for ident in ids if ident not in _MARKS)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        names = {USER: "<user>", ASSISTANT: "<assistant>", END: "<end>"}
        return [names.get(ident) or chr(ident) for ident in ids]

    def normalized(self, text: str) -> str:
        return text

    def settled(self, text: str) -> bool:
        return True

    def detokenizer(self, *, inside: bool = False) -> CodepointDetokenizer:
        return CodepointDetokenizer()


class CodepointDetokenizer:
    """Every id is a whole character, so no text is held back."""

    def push(self, ids: Sequence[int]) -> str:
        return "".join(chr(ident) for ident in ids if ident not in _MARKS)

    def finish(self) -> str:
        return ""
