"""The messages of a dialogue, for a server that writes the prompt itself."""

from __future__ import annotations

from collections.abc import Sequence

from core.dialogue.echo import END_MARK, SYSTEM_MARK, EchoFormat
from core.dialogue.formats.base import Message, ReplySyntax
from core.dialogue.sanitize import clean
from core.dialogue.thoughts import ThoughtSyntax


class MessagesFormat(EchoFormat):
    """``SYSTEM text END USER text END ASSISTANT text END ... ASSISTANT``, in code points.

    The server's own chat template makes a prompt of the messages: text stays text only as far as
    that template and its tokenizer keep it so. Roles alternate, as the templates of many servers
    insist.
    """

    alternates = True
    user_first = True
    reply_syntax = ReplySyntax(stop_ids=frozenset(), thoughts=ThoughtSyntax("<think>", "</think>"))

    def __init__(self, system_prompt: str) -> None:
        system = clean(system_prompt)
        self._system = f"{SYSTEM_MARK}{system}{END_MARK}" if system else ""

    def first(self, message: Message) -> str:
        return self._system + self.following(message)

    def whole(self, messages: Sequence[Message], reply: str, thought: str = "") -> str:
        return self._system + super().whole(messages, reply, thought)
