"""A reply that is being written: the text to show, and the end of the reply."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from core.dialogue.formats.base import ReplySyntax
from core.dialogue.loop_detection import WINDOW, first_round_end
from core.dialogue.sanitize import clean
from core.dialogue.thoughts import ThoughtReader, overlap
from core.dialogue.tokenizers.base import Detokenizer
from core.types import FinishReason

_SPACE = re.compile(r"\s+")
_CHECK_EVERY = 64
"""Characters between two checks for a loop."""
_LINE_HEAD = 64
"""Characters at the beginning of a line in which a mark must be."""


class Reply:
    """Ids in, text to show out: never half a character or half a line end of the format, and
    nothing of the next speaker's line.

    A push costs no more than its own text: only the newest text is kept in one piece.
    """

    def __init__(
        self,
        detokenizer: Detokenizer,
        syntax: ReplySyntax,
        resume: str = "",
        thought: str = "",
        *,
        loop_guard: bool = False,
        most: tuple[int, int] = (sys.maxsize, sys.maxsize),
    ) -> None:
        """`loop_guard`: end the reply if the model repeats itself without end; `most`: tokens of
        the answer, and of the thought before it."""
        self.tokens = 0
        self.thought_tokens = 0
        """The tokens of the thought."""
        self.counts_its_text = not (resume or thought)
        """Whether `tokens` are those of the text: no thought, nothing from before, no events of a
        server that gives text alone."""
        self.finish_reason: FinishReason | None = None
        self._detokenizer = detokenizer
        self._syntax = syntax
        self._loop_guard = loop_guard
        self._most = most
        self._thoughts: ThoughtReader | None = None
        if syntax.thoughts:
            self._thoughts = syntax.thoughts.reader(answering=bool(resume), thought=thought)
        self._pending = ""
        """Decoded text that may be half of a line end."""
        self._old: list[str] = []
        """Shown text that cannot change any more."""
        self._text = clean(resume)
        """The text after it, including the part that is held back; indices count in this one."""
        self._space: list[str] = []
        """White space after it, which belongs to the reply only if more text follows."""
        self._shown = len(self._text)
        self._line = self._text.rfind("\n") + 1
        """The index of the last line, or of the part of it that was not searched for marks."""
        self._line_is_plain = False
        """Whether the last line cannot become a mark any more."""
        self._checked = 0
        """The length of the text at the last check for a loop."""
        self._is_cut = False
        """The reply, or its thought, has reached its limit."""

    def push(self, ids: Sequence[int], text: str | None = None) -> str:
        """Add ids, or text from a server without ids, and return the new text to show.

        Sets `finish_reason` where the reply ends itself, or its thought is too long.
        """
        if self.finish_reason is not None:
            return ""
        self.counts_its_text = self.counts_its_text and text is None
        if self._thoughts is None:
            self.tokens += len(ids) or 1
            self._append(self._decode(ids) if text is None else text)
        elif text is not None:
            self._push_one(text)
        else:
            for ident in ids:  # one may be the first of the answer
                self._push_one(self._decode([ident]))
        start, self._shown = self._shown, max(self._shown, self._shown_end())
        shown = self._text[start : self._shown]
        self._put_aside()
        return shown

    def finish(self, reason: FinishReason) -> tuple[str, FinishReason]:
        """The whole reply, and its finish reason: `reason`, unless it ended by itself before."""
        if self._is_cut:  # the text that was held back may be shown
            reason, self.finish_reason = "length", None
        if self.finish_reason is None:
            # an unfinished character is dropped
            self._append(self._detokenizer.finish().rstrip("\ufffd"))
        if self.finish_reason is None and self._thoughts:
            self._append_answer(self._thoughts.finish(cut=reason != "stop"))
        if self.finish_reason is None and reason == "stop":
            self._add(self._pending)
        elif self.finish_reason is None:
            self._text = self._text[: self._end_before_mark()]
        text = "".join((*self._old, self._text))
        return text.rstrip() if self._syntax.strip else text, self.finish_reason or reason

    @property
    def is_thinking(self) -> bool:
        """Whether the model is writing a thought, of which nothing is shown."""
        return self._thoughts is not None and self._thoughts.thinking

    @property
    def thought(self) -> str:
        """The thought before the answer, as far as it was written."""
        return self._thoughts.thought if self._thoughts else ""

    def _push_one(self, text: str) -> None:
        """Add the text of one token, and end the reply at its longest."""
        if self.finish_reason is not None:
            return
        self.tokens += 1
        self._append(text)
        if self.is_thinking:
            self.thought_tokens += 1
            self.counts_its_text = False
        of_answer, of_thought = self._most
        over = self.thought_tokens >= of_thought and self.is_thinking
        if self.finish_reason is None and (over or self.tokens - self.thought_tokens >= of_answer):
            self.finish_reason, self._is_cut = "length", True

    def _decode(self, ids: Sequence[int]) -> str:
        if not self._syntax.thought_ids:
            return self._detokenizer.push(ids)
        marks = self._syntax.thought_ids
        return "".join(marks.get(ident) or self._detokenizer.push([ident]) for ident in ids)

    def _append(self, decoded: str) -> None:
        """Add decoded text, without the thoughts in it."""
        if self._thoughts is None:
            return self._append_answer(decoded)
        self._append_answer(self._thoughts.push(decoded))
        if self._thoughts.ended and self.finish_reason is None:
            self.finish_reason = "stop"
        return None

    def _append_answer(self, decoded: str) -> None:
        """Add text of the answer, and end the reply where the next speaker's line begins."""
        text = self._with_line_ends(decoded)
        if not self._add(text):
            return
        self._check_for_marks()
        due = len(self._text) >= self._checked + _CHECK_EVERY
        if self._loop_guard and self.finish_reason is None and due:
            self._check_for_loop()

    def _with_line_ends(self, decoded: str) -> str:
        """The text with the format's line ends as ``\\n``; half of one at the end is kept back."""
        newline = self._syntax.newline
        if not newline:
            return decoded
        text = (self._pending + decoded).replace(newline, "\n")
        whole = len(text) - overlap(text, (newline,))
        self._pending = text[whole:]
        return text[:whole]

    def _add(self, text: str) -> bool:
        """Add text, but for white space at its end; whether there was more than that."""
        if not self._syntax.strip:
            self._text += text
            return bool(text)
        visible = text.rstrip()
        if not visible:
            self._space.append(text)
            return False
        added = "".join((*self._space, visible))
        self._text += added if self._text or self._old else added.lstrip()
        self._space = [text[len(visible) :]]
        return True

    def _put_aside(self) -> None:
        """Move shown text that no mark and no loop can reach any more to the old text."""
        if len(self._text) < 2 * WINDOW:
            return
        count = min(self._shown, self._line, len(self._text) - WINDOW)
        self._old.append(self._text[:count])
        self._text = self._text[count:]
        self._shown, self._line, self._checked = (
            index - count for index in (self._shown, self._line, self._checked)
        )

    def _check_for_loop(self) -> None:
        self._checked = len(self._text)
        end = first_round_end(self._text)
        if end is not None:
            self._text, self.finish_reason = self._text[:end], "repetition"

    def _check_for_marks(self) -> None:
        if not self._syntax.marks_begin_lines:
            found = (self._text.find(mark, self._line) for mark in self._syntax.marks)
            self._stop_at(min((index for index in found if index >= 0), default=-1))
            longest = max(map(len, self._syntax.marks), default=0)
            self._line = max(self._line, len(self._text) - longest)
            return None
        while True:
            end = self._text.find("\n", self._line)
            if not self._line_is_plain:
                head = self._text[self._line : self._line + _LINE_HEAD if end < 0 else end]
                line = _normalized_line(head)
                if line.startswith(self._syntax.marks or ("\0",)):
                    return self._stop_at(self._line)
                may_be_mark = any(mark.startswith(line) for mark in self._syntax.marks)
                self._line_is_plain = not may_be_mark or len(head) >= _LINE_HEAD
            if end < 0:
                if self._line_is_plain:
                    self._line = len(self._text)
                return None
            self._line, self._line_is_plain = end + 1, False

    def _stop_at(self, index: int) -> None:
        if index >= 0:
            self._text, self.finish_reason = self._text[:index], "stop"

    def _shown_end(self) -> int:
        """The end of the text to show: before a possible mark, and before trailing space."""
        end = len(self._text) if self.finish_reason else self._end_before_mark()
        if not self._syntax.strip:
            return end
        return self._shown + len(self._text[self._shown : end].rstrip())

    def _end_before_mark(self) -> int:
        """The end of the text that cannot be part of a mark."""
        if not self._syntax.marks_begin_lines:
            return len(self._text) - overlap(self._text, self._syntax.marks)
        return len(self._text) if self._line_is_plain else self._line


def _normalized_line(line: str) -> str:
    """A line without white space and with a half-width colon, to compare it with marks."""
    return _SPACE.sub("", line[:_LINE_HEAD]).replace("：", ":")
