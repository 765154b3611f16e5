"""The dialogue format of rinna's instruction-tuned Japanese GPT-NeoX models, as on their cards."""

from __future__ import annotations

from dataclasses import dataclass

from core.dialogue.formats.base import Format, Message, ReplySyntax
from core.dialogue.sanitize import MarkBreaker, clean, skeleton
from core.dialogue.tokenizers.sentencepiece import SentencePieceTokenizer
from core.types import Turn

NEWLINE = "<NL>"
_SPEAKERS = {"user": "ユーザー", "assistant": "システム"}
_HEAD = 32
"""Characters that may be normalized together with those in front of them."""
_LABELS = tuple(f"{speaker}:" for speaker in _SPEAKERS.values())


class RinnaFormat(Format):
    """``ユーザー: 本文<NL>システム: 本文<NL>ユーザー: 本文<NL>システム: ``

    Text stays text: a typed ``<NL>`` gets a space before its last character, and a line that begins
    like a speaker's label is joined to the line before it, so that only this format begins turns. A
    label counts in letters of every width, with any colon, and with invisible characters in it;
    ``<NL>`` counts as the tokenizer normalizes it. SentencePiece knows control pieces by id alone;
    user-defined pieces are broken as ``<NL>`` is.

    The format has no system role (``システム`` is the model itself): a system prompt is a first
    user's turn, which the card's list of turns allows.
    """

    def __init__(self, tokenizer: SentencePieceTokenizer, system_prompt: str) -> None:
        self._normalized = tokenizer.normalized
        self._break_marks = MarkBreaker([NEWLINE, *tokenizer.reserved], tokenizer.normalized)
        asked = Message("user", self._safe(system_prompt))
        self._system = self._labelled(asked) + NEWLINE if system_prompt else ""
        tokenizer.cut_inside(NEWLINE)
        self.reply_syntax = ReplySyntax(
            stop_ids=frozenset((tokenizer.eos,)),
            end=tokenizer.eos,
            newline=NEWLINE,
            marks=_LABELS,
        )

    def message(self, turn: Turn) -> Message:
        return Message(turn.role, self._safe(turn.text))

    def first(self, message: Message) -> str:
        return self._system + self._labelled(message)

    def following(self, message: Message) -> str:
        return NEWLINE + self._labelled(message)

    def tail(self, reply: str, thought: str = "") -> str:
        return self.following(Message("assistant", self._safe(reply)))

    def _labelled(self, message: Message) -> str:
        return f"{_SPEAKERS[message.role]}: {message.text}"

    def _safe(self, text: str) -> str:
        first, *others = map(self._break_marks, clean(text).split("\n"))
        lines = [_Line([first], visible=True)]
        for text in others:
            skeletons = skeleton(text), skeleton(self._normalized(text))
            if self._keeps_newline(text) and not any(one.startswith(_LABELS) for one in skeletons):
                lines.append(_Line([text], visible=all(skeletons)))
                continue
            while not lines[-1].visible:
                lines.pop()
            lines[-1].parts.append(text)
        return NEWLINE.join(" ".join(line.parts) for line in lines)

    def _keeps_newline(self, line: str) -> bool:
        """Whether the ``<NL>`` in front of a line stays: a combining mark would change its end."""
        return self._normalized(NEWLINE + line[:_HEAD]).startswith(self._normalized(NEWLINE))


@dataclass(slots=True)
class _Line:
    """A line of a text, and the labels that were joined to it."""

    parts: list[str]
    visible: bool
