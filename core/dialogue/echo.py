"""The tokenizer and format of the echo model, and the format for servers that take messages.

An id is a Unicode code point, and three ids above them all are control tokens, so that an engine
finds the newest user turn in the ids alone.

A prompt is ``USER text END ASSISTANT text END USER text END ASSISTANT``. In a rendered string each
control is written as a lone surrogate, which no person's text has after `sanitize.clean`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from core.dialogue.formats.base import Format, Message, ReplySyntax
from core.dialogue.sanitize import clean
from core.dialogue.thoughts import ThoughtSyntax
from core.types import Turn

USER = 0x110000
"""Begins a user's turn."""
ASSISTANT = 0x110001
"""Begins a reply."""
END = 0x110002
"""Ends a turn; in a reply, the end of sequence."""
SYSTEM = 0x110003
"""Begins a system prompt, in the messages for a server."""

USER_MARK, ASSISTANT_MARK, END_MARK, SYSTEM_MARK = "\ud800", "\ud801", "\ud802", "\ud803"

_IDS = {USER_MARK: USER, ASSISTANT_MARK: ASSISTANT, END_MARK: END, SYSTEM_MARK: SYSTEM}
_MARKS = {ident: mark for mark, ident in _IDS.items()}


class CodepointTokenizer:
    """One id a character. It needs no file."""

    size = SYSTEM + 1
    needed = size
    longest = 1
    controls: Mapping[str, int] = MappingProxyType(_IDS)
    reserved: Sequence[str] = tuple(_IDS)
    fingerprint = "codepoints-1"
    cut: re.Pattern[str] | None = re.compile(
        f"(?=[{USER_MARK}{ASSISTANT_MARK}{END_MARK}{SYSTEM_MARK}])"
    )

    def encode(self, text: str) -> list[int]:
        return [_IDS.get(character, ord(character)) for character in text]

    def decode(self, ids: Sequence[int]) -> str:
        return _text_of(ids)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        names = {USER: "<user>", ASSISTANT: "<assistant>", END: "<end>", SYSTEM: "<system>"}
        return [names.get(ident) or chr(ident) for ident in ids]

    def normalized(self, text: str) -> str:
        return text

    def is_context_free(self, text: str) -> bool:
        return True

    def detokenizer(self, *, inside: bool = False) -> CodepointDetokenizer:
        return CodepointDetokenizer()


class CodepointDetokenizer:
    """Every id is a whole character, so no text is held back."""

    def push(self, ids: Sequence[int]) -> str:
        return _text_of(ids)

    def finish(self) -> str:
        return ""


def _text_of(ids: Sequence[int]) -> str:
    return "".join(chr(ident) for ident in ids if ident not in _MARKS)


def messages_in(prompt: Sequence[int]) -> list[dict[str, str]]:
    """The messages of a prompt in code points, as chat servers take them; a reply that was begun
    is the last of them."""
    roles = {USER: "user", ASSISTANT: "assistant", SYSTEM: "system"}
    starts = [at for at, ident in enumerate(prompt) if ident in roles]
    ends = [*starts[1:], len(prompt)]
    messages = [
        {"role": roles[prompt[start]], "content": _text_of(prompt[start + 1 : end])}
        for start, end in zip(starts, ends, strict=True)
    ]
    begun = messages and messages[-1]["role"] == "assistant" and not messages[-1]["content"]
    return messages[:-1] if begun else messages


_ROLE_MARKS = {"user": USER_MARK, "assistant": ASSISTANT_MARK}


class EchoFormat(Format):
    """``USER text END ASSISTANT text END ... ASSISTANT``.

    Text stays text: the controls are lone surrogates, which `clean` removes from every text. There
    is no system prompt.
    """

    reply_syntax = ReplySyntax(stop_ids=frozenset((END, USER, ASSISTANT)), strip=False)

    def message(self, turn: Turn) -> Message:
        return Message(turn.role, clean(turn.text))

    def first(self, message: Message) -> str:
        return self.following(message)

    def following(self, message: Message) -> str:
        return f"{_ROLE_MARKS[message.role]}{message.text}{END_MARK}"

    def tail(self, reply: str, thought: str = "") -> str:
        return ASSISTANT_MARK + clean(reply)


class MessagesFormat(EchoFormat):
    """``SYSTEM text END USER text END ASSISTANT text END ... ASSISTANT``, in code points.

    The server's own chat template makes a prompt of the messages: text stays text only as far as
    that template and its tokenizer keep it so. Roles alternate, as the templates of many servers
    insist.
    """

    alternates = True
    user_first = True
    thinking_switch = True  # the engine asks the server for it
    reply_syntax = ReplySyntax(stop_ids=frozenset(), thoughts=ThoughtSyntax("<think>", "</think>"))

    def __init__(self, system_prompt: str) -> None:
        system = clean(system_prompt)
        self._system = f"{SYSTEM_MARK}{system}{END_MARK}" if system else ""

    def first(self, message: Message) -> str:
        return self._system + self.following(message)
