"""A reply in the making: what of it may be shown, and when it is over."""

from __future__ import annotations

import re
from collections.abc import Sequence

from core.dialogue.formats.base import Reading
from core.dialogue.loop_detection import first_round
from core.dialogue.sanitize import clean
from core.dialogue.tokenizers.base import Detokenizer
from core.types import FinishReason

_SPACE = re.compile(r"\s+")
_LOOK_EVERY = 64
"""Characters after which a loop is looked for again."""


class Reply:
    """Ids in, text that may be shown out: never half a character, never half of what a format
    writes for a line end, and nothing of the next speaker's line."""

    def __init__(self, detokenizer: Detokenizer, reading: Reading, resume: str = "") -> None:
        self.tokens = 0
        self.finish_reason: FinishReason | None = None
        self._detokenizer = detokenizer
        self._reading = reading
        self._unread = ""
        """Decoded, and perhaps half of a line end."""
        self._text = clean(resume)
        """Read, whether it is shown or held back."""
        self._shown = len(self._text)
        self._line = self._text.rfind("\n") + 1
        """Where the last line begins."""
        self._plain = False
        """Whether the last line cannot begin with a mark any more."""
        self._looked = 0
        """How much of the text was looked at for a loop."""

    def push(self, ids: Sequence[int], text: str | None = None) -> str:
        """Take what the engine made, as ids or, from a server that has none, as text; give what can
        be shown of it. Sets `finish_reason` where the reply ended itself."""
        if self.finish_reason is not None:
            return ""
        self.tokens += len(ids) or 1
        self._read(self._detokenizer.push(ids) if text is None else text)
        end = self._end_of_shown()
        start, self._shown = self._shown, max(self._shown, end)
        return self._text[start : self._shown]

    def finish(self, reason: FinishReason) -> tuple[str, FinishReason]:
        """The whole reply, and why it ended: `reason`, unless it ended itself before."""
        if self.finish_reason is None:
            # a character that is not whole is no character
            self._read(self._detokenizer.finish().rstrip("\ufffd"))
        if self.finish_reason is None and reason == "stop":
            self._text += self._unread
        elif self.finish_reason is None:
            self._text = self._text[: self._before_mark()]
        text = self._text.rstrip() if self._reading.strip else self._text
        return text, self.finish_reason or reason

    def _read(self, decoded: str) -> None:
        """Line ends as line ends, and an end to the reply where the next speaker's line begins."""
        newline = self._reading.newline
        text = self._unread + decoded
        if newline:
            text = text.replace(newline, "\n")
        held = _overlap(text, (newline,)) if newline else 0
        self._unread = text[len(text) - held :]
        text = text[: len(text) - held]
        self._text += text.lstrip() if self._reading.strip and not self._text else text
        self._look_for_marks()
        if self.finish_reason is None and len(self._text) >= self._looked + _LOOK_EVERY:
            self._look_for_loop()

    def _look_for_loop(self) -> None:
        self._looked = len(self._text)
        end = first_round(self._text)
        if end is not None:
            self._text, self.finish_reason = self._text[:end], "repetition"

    def _look_for_marks(self) -> None:
        if not self._reading.marks_begin_lines:
            places = (self._text.find(mark, self._line) for mark in self._reading.marks)
            self._end_at(min((place for place in places if place >= 0), default=-1))
            longest = max(map(len, self._reading.marks), default=0)
            self._line = max(self._line, len(self._text) - longest)
            return None
        while True:
            end = self._text.find("\n", self._line)
            if not self._plain:
                line = _bare(self._text[self._line : None if end < 0 else end])
                if line.startswith(self._reading.marks or ("\0",)):
                    return self._end_at(self._line)
                self._plain = not any(mark.startswith(line) for mark in self._reading.marks)
            if end < 0:
                return None
            self._line, self._plain = end + 1, False

    def _end_at(self, place: int) -> None:
        if place >= 0:
            self._text, self.finish_reason = self._text[:place], "stop"

    def _end_of_shown(self) -> int:
        """Where what may be shown ends: before what might be a mark, or space at the very end."""
        end = len(self._text) if self.finish_reason else self._before_mark()
        while self._reading.strip and end > self._shown and self._text[end - 1].isspace():
            end -= 1
        return end

    def _before_mark(self) -> int:
        """Where the text ends that is certainly not the beginning of a mark."""
        if not self._reading.marks_begin_lines:
            return len(self._text) - _overlap(self._text, self._reading.marks)
        return len(self._text) if self._plain else self._line


def _bare(line: str) -> str:
    """A line without white space, and with a narrow colon: as marks are compared."""
    return _SPACE.sub("", line[:64]).replace("：", ":")


def _overlap(text: str, marks: Sequence[str]) -> int:
    """How many characters at the end of `text` may be the beginning of a mark."""
    longest = max(map(len, marks), default=0)
    for length in range(min(longest - 1, len(text)), 0, -1):
        if any(mark.startswith(text[-length:]) for mark in marks):
            return length
    return 0
