"""The dialogue format of rinna's instruction-tuned Japanese GPT-NeoX models, as on their cards."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from core.dialogue.formats.base import Message, Reading
from core.dialogue.sentencepiece import SentencePieceTokenizer
from core.dialogue.text import Breaker, clean
from core.types import Turn

NEWLINE = "<NL>"
_SPEAKERS = {"user": "ユーザー", "assistant": "システム"}
_LABEL = re.compile(rf"\s*(?:{'|'.join(_SPEAKERS.values())})\s*:")


class RinnaFormat:
    """``ユーザー: 本文<NL>システム: 本文<NL>ユーザー: 本文<NL>システム: ``

    Text stays text: a typed ``<NL>`` gets a space before its last character, and a line end before
    what would then read as a speaker's label becomes a space, so that only this format begins
    turns. Both are looked for as the tokenizer sees them: it narrows full-width letters. Control
    tokens are out of reach, for SentencePiece knows them by id alone.

    The format has no system role (``システム`` is the model itself): a system prompt stands first,
    as a turn of the user's, which the card's list of turns allows.
    """

    alternates = False
    stable = True

    def __init__(self, tokenizer: SentencePieceTokenizer, system_prompt: str) -> None:
        self._normalized = tokenizer.normalized
        self._break = Breaker([NEWLINE], tokenizer.normalized)
        asked = Message("user", self._safe(system_prompt))
        self._system = self._line(asked) + NEWLINE if system_prompt else ""
        tokenizer.cut_inside(NEWLINE)
        self.reading = Reading(
            stop_ids=frozenset((tokenizer.eos,)),
            newline=NEWLINE,
            marks=tuple(f"{speaker}:" for speaker in _SPEAKERS.values()),
        )

    def message(self, turn: Turn) -> Message:
        return Message(turn.role, self._safe(turn.text))

    def first(self, message: Message) -> str:
        return self._system + self._line(message)

    def following(self, message: Message) -> str:
        return NEWLINE + self._line(message)

    def tail(self, reply: str) -> str:
        return self.following(Message("assistant", self._safe(reply)))

    def whole(self, messages: Sequence[Message], reply: str) -> str:
        following = "".join(map(self.following, messages[1:]))
        return self.first(messages[0]) + following + self.tail(reply)

    def _line(self, message: Message) -> str:
        return f"{_SPEAKERS[message.role]}: {message.text}"

    def _safe(self, text: str) -> str:
        first, *others = map(self._break, clean(text).split("\n"))
        return first + "".join(map(self._joined, others))

    def _joined(self, line: str) -> str:
        """A line after another: on a line of its own, unless it would change what that means."""
        # a combining mark would join the end of <NL>
        forged = _LABEL.match(self._normalized(line)) or unicodedata.combining(line[:1] or " ")
        return (" " if forged else NEWLINE) + line
