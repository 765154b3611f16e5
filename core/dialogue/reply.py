"""A reply that is being written: the text to show, and the end of the reply."""

from __future__ import annotations

import re
from collections.abc import Sequence

from core.dialogue.formats.base import ReplySyntax
from core.dialogue.loop_detection import first_round
from core.dialogue.sanitize import clean
from core.dialogue.tokenizers.base import Detokenizer
from core.types import FinishReason

_SPACE = re.compile(r"\s+")
_CHECK_EVERY = 64
"""Characters between two checks for a loop."""


class Reply:
    """Ids in, text to show out: never half a character or half a line end of the format, and
    nothing of the next speaker's line."""

    def __init__(self, detokenizer: Detokenizer, syntax: ReplySyntax, resume: str = "") -> None:
        self.tokens = 0
        self.finish_reason: FinishReason | None = None
        self._detokenizer = detokenizer
        self._syntax = syntax
        self._pending = ""
        """Decoded text that may be half of a line end."""
        self._text = clean(resume)
        """The text so far, including the part that is held back."""
        self._shown = len(self._text)
        self._line_start = self._text.rfind("\n") + 1
        """The index of the last line."""
        self._line_is_plain = False
        """Whether the last line cannot become a mark any more."""
        self._checked = 0
        """The length of the text at the last check for a loop."""

    def push(self, ids: Sequence[int], text: str | None = None) -> str:
        """Add ids, or text from a server without ids, and return the new text to show.

        Sets `finish_reason` where the reply ends itself.
        """
        if self.finish_reason is not None:
            return ""
        self.tokens += len(ids) or 1
        self._append(self._detokenizer.push(ids) if text is None else text)
        end = self._shown_end()
        start, self._shown = self._shown, max(self._shown, end)
        return self._text[start : self._shown]

    def finish(self, reason: FinishReason) -> tuple[str, FinishReason]:
        """The whole reply, and why it ended: `reason`, unless it ended itself before."""
        if self.finish_reason is None:
            # an unfinished character is dropped
            self._append(self._detokenizer.finish().rstrip("\ufffd"))
        if self.finish_reason is None and reason == "stop":
            self._text += self._pending
        elif self.finish_reason is None:
            self._text = self._text[: self._end_before_mark()]
        text = self._text.rstrip() if self._syntax.strip else self._text
        return text, self.finish_reason or reason

    def _append(self, decoded: str) -> None:
        """Add decoded text, and end the reply where the next speaker's line begins."""
        newline = self._syntax.newline
        text = self._pending + decoded
        if newline:
            text = text.replace(newline, "\n")
        held = _overlap(text, (newline,)) if newline else 0
        self._pending = text[len(text) - held :]
        text = text[: len(text) - held]
        self._text += text.lstrip() if self._syntax.strip and not self._text else text
        self._check_for_marks()
        if self.finish_reason is None and len(self._text) >= self._checked + _CHECK_EVERY:
            self._check_for_loop()

    def _check_for_loop(self) -> None:
        self._checked = len(self._text)
        end = first_round(self._text)
        if end is not None:
            self._text, self.finish_reason = self._text[:end], "repetition"

    def _check_for_marks(self) -> None:
        if not self._syntax.marks_begin_lines:
            places = (self._text.find(mark, self._line_start) for mark in self._syntax.marks)
            self._stop_at(min((place for place in places if place >= 0), default=-1))
            longest = max(map(len, self._syntax.marks), default=0)
            self._line_start = max(self._line_start, len(self._text) - longest)
            return None
        while True:
            end = self._text.find("\n", self._line_start)
            if not self._line_is_plain:
                line = _normalized_line(self._text[self._line_start : None if end < 0 else end])
                if line.startswith(self._syntax.marks or ("\0",)):
                    return self._stop_at(self._line_start)
                self._line_is_plain = not any(mark.startswith(line) for mark in self._syntax.marks)
            if end < 0:
                return None
            self._line_start, self._line_is_plain = end + 1, False

    def _stop_at(self, place: int) -> None:
        if place >= 0:
            self._text, self.finish_reason = self._text[:place], "stop"

    def _shown_end(self) -> int:
        """The end of the text to show: before a possible mark, and before trailing space."""
        end = len(self._text) if self.finish_reason else self._end_before_mark()
        while self._syntax.strip and end > self._shown and self._text[end - 1].isspace():
            end -= 1
        return end

    def _end_before_mark(self) -> int:
        """The end of the text that cannot be part of a mark."""
        if not self._syntax.marks_begin_lines:
            return len(self._text) - _overlap(self._text, self._syntax.marks)
        return len(self._text) if self._line_is_plain else self._line_start


def _normalized_line(line: str) -> str:
    """A line without white space and with a half-width colon, to compare it with marks."""
    return _SPACE.sub("", line[:64]).replace("：", ":")


def _overlap(text: str, marks: Sequence[str]) -> int:
    """The number of characters at the end of `text` that may be the beginning of a mark."""
    longest = max(map(len, marks), default=0)
    for length in range(min(longest - 1, len(text)), 0, -1):
        if any(mark.startswith(text[-length:]) for mark in marks):
            return length
    return 0
