"""The echo model's format: each turn between its control and the end of turn."""

from __future__ import annotations

from collections.abc import Sequence

from core.dialogue.formats.base import Message, ReplySyntax
from core.dialogue.sanitize import clean
from core.dialogue.tokenizers.echo import ASSISTANT, ASSISTANT_MARK, END, END_MARK, USER, USER_MARK
from core.types import Turn

_MARKS = {"user": USER_MARK, "assistant": ASSISTANT_MARK}


class EchoFormat:
    """``USER text END ASSISTANT text END ... ASSISTANT``.

    Text stays text: the controls are lone surrogates, which `clean` removes from every text. There
    is no system prompt.
    """

    alternates = False
    user_first = False
    append_only = True
    dated = False
    reply_syntax = ReplySyntax(stop_ids=frozenset((END, USER, ASSISTANT)), strip=False)

    def message(self, turn: Turn) -> Message:
        return Message(turn.role, clean(turn.text))

    def first(self, message: Message) -> str:
        return self.following(message)

    def following(self, message: Message) -> str:
        return f"{_MARKS[message.role]}{message.text}{END_MARK}"

    def tail(self, reply: str) -> str:
        return ASSISTANT_MARK + clean(reply)

    def whole(self, messages: Sequence[Message], reply: str) -> str:
        return "".join(map(self.following, messages)) + self.tail(reply)
