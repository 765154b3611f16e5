"""No format: a pretrained model continues the text."""

from __future__ import annotations

from collections.abc import Sequence

from core.dialogue.formats.base import Message, ReplySyntax
from core.dialogue.sanitize import MarkBreaker, clean
from core.dialogue.tokenizers.base import Tokenizer
from core.types import Turn


class PlainFormat:
    """A user's text, the model's continuation, a line end, the next user's text, and so on.

    Text stays text: there are no speakers to forge, and a typed control token gets a space before
    its last character. A system prompt is the first line.
    """

    alternates = False
    user_first = False
    append_only = True
    dated = False

    def __init__(
        self, tokenizer: Tokenizer, stop_ids: frozenset[int], system_prompt: str, opening: str = ""
    ) -> None:
        self._break_marks = MarkBreaker(tokenizer.reserved, tokenizer.normalized)
        system = self._break_marks(clean(system_prompt))
        self._opening = opening + (system + "\n" if system else "")
        self.reply_syntax = ReplySyntax(
            stop_ids=stop_ids, end=min(stop_ids, default=None), strip=False
        )

    def message(self, turn: Turn) -> Message:
        return Message(turn.role, self._break_marks(clean(turn.text)))

    def first(self, message: Message) -> str:
        return self._opening + message.text

    def following(self, message: Message) -> str:
        return message.text if message.role == "assistant" else "\n" + message.text

    def tail(self, reply: str) -> str:
        return self._break_marks(clean(reply))

    def whole(self, messages: Sequence[Message], reply: str) -> str:
        following = "".join(map(self.following, messages[1:]))
        return self.first(messages[0]) + following + self.tail(reply)
