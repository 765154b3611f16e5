"""The thoughts that a model writes before its answer: recognized, and kept apart from the answer.

A thought can only begin a reply. Two ways to write one are known: between two tags, as in
``<think>…</think>answer``, and in channels, as in
``<|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>answer``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

TAGS = (
    ("<think>", "</think>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<|channel>thought", "<channel|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("◁think▷", "◁/think▷"),
)
ANSWER_TAGS = (("<answer>", "</answer>"), ("<response>", "</response>"))
"""Between which some models put the answer behind a thought."""

# A lone surrogate represents a control token, which has no text, in a decoded text.
_OPEN, _CLOSE = "\ud810", "\ud811"
_CHANNEL, _MESSAGE, _END, _START = "\ud812", "\ud813", "\ud814", "\ud815"
CHANNEL_TOKENS: Mapping[str, str] = {
    "<|channel|>": _CHANNEL, "<|message|>": _MESSAGE, "<|end|>": _END, "<|start|>": _START,
}  # fmt: skip
_BODY_ENDS = re.compile(f"[{_END}{_START}{_CHANNEL}]")
_CONTROLS = re.compile(f"[{_OPEN}{_CLOSE}{_CHANNEL}{_MESSAGE}{_END}{_START}]")


@dataclass(frozen=True, slots=True)
class ThoughtSyntax:
    """How a model writes its thoughts."""

    open: str = ""
    close: str = ""
    """The two tags; empty for channels."""
    opened: bool = False
    """Whether the prompt ends within a thought."""
    answer: tuple[str, str] = ("", "")
    """The two tags around the answer behind a thought, where the model writes any."""
    controls: Mapping[str, str] = field(default_factory=dict)
    """Control token -> its placeholder character."""

    def reader(self, *, answering: bool = False, thought: str = "") -> ThoughtReader:
        """A reader of one reply. `answering`: its answer was begun before. `thought`: the
        unfinished thought that it goes on with."""
        if not self.close:
            return ChannelReader(thought, answering=answering)
        thinking = bool(thought) or (self.opened and not answering)
        return TagReader(self, thought, thinking=thinking, answering=answering)

    @property
    def before_answer(self) -> str:
        """The text before a resumed answer."""
        if not self.close:
            return "<|channel|>final<|message|>"
        return f"\n{self.close}\n\n" if self.opened else ""

    def begin(self, thought: str) -> str:
        """The text between the prompt and a resumed thought."""
        if not self.close:
            return f"<|channel|>analysis<|message|>{thought}"
        return thought if self.opened else f"{self.open}\n{thought}"

    def wrap(self, thought: str) -> str:
        """A thought between its tags."""
        return f"{self.open}{thought}{self.close}"

    def split(self, text: str) -> tuple[str, str]:
        """The thought that stands between tags at the beginning of a stored reply, and the rest:
        earlier releases kept it there. Empty where there is none."""
        said = text.lstrip()
        if not self.close or not said.startswith(self.open) or self.close not in said:
            return "", text
        thought, _, answer = said.removeprefix(self.open).partition(self.close)
        return thought, answer


def find_thoughts(template: str, controls: Collection[str], tail: str) -> ThoughtSyntax | None:
    """The syntax of a model with this chat template, whose prompts end with `tail`."""
    if all(token in controls for token in CHANNEL_TOKENS):
        return ThoughtSyntax(controls=CHANNEL_TOKENS)
    for opening, close in TAGS:
        if close in template or (opening in controls and close in controls):
            marks = {opening: _OPEN, close: _CLOSE}
            known = {token: mark for token, mark in marks.items() if token in controls}
            answers = (pair for pair in ANSWER_TAGS if pair[0] in template or pair[0] in controls)
            opened = tail.rstrip().endswith(opening)
            return ThoughtSyntax(opening, close, opened, next(answers, ("", "")), known)
    return None


class TagReader:
    """Separates a thought between two tags from the answer behind it."""

    def __init__(
        self, syntax: ThoughtSyntax, thought: str, *, thinking: bool, answering: bool
    ) -> None:
        self._syntax = syntax
        self._held = ""
        """The beginning of a reply that may become a tag, or the end of a thought that may."""
        self._thought = [thought]
        self._answered = answering
        self.thinking = thinking
        self.ended = False
        self._begun = thinking or answering
        self._begins_answer = False
        """Whether a thought has ended, and the answer has not begun."""
        self._wrapped = answering and bool(syntax.answer[0])
        """Whether the answer may end with a tag."""

    def push(self, text: str) -> str:
        """The part of the answer that `text` adds."""
        self._held += text
        if not self._begun:
            self._begin()
        if self.thinking:
            self._read_thought()
        if self.thinking or not self._begun:
            return ""
        answer, self._held = self._unwrap(_CONTROLS.sub("", self._held))
        self._answered = self._answered or bool(answer.strip())
        return answer

    def _unwrap(self, text: str) -> tuple[str, str]:
        """Text of the answer without the tags around it, and the end that may become a tag."""
        opening, close = self._syntax.answer
        if self._begins_answer:
            closed_again = rf"\s*(?:{re.escape(self._syntax.close)}\s*)*"
            text = re.sub(closed_again, "", text, count=1)
            if self._may_be_tag(text):
                return "", text
            self._begins_answer = False
            self._wrapped = bool(opening) and text.startswith(opening)
            text = text.removeprefix(opening)
        if not self._wrapped:
            return text, ""
        before, found, after = text.partition(close)
        if found:
            self._wrapped = False
            return before + after, ""
        whole = len(text) - overlap(text, (close,))
        return text[:whole], text[whole:]

    def finish(self, *, cut: bool) -> str:
        """The rest of the answer. A model that ended, and said nothing outside of its thought, has
        answered in it; the thought of a reply that was `cut` is no answer."""
        rest, self._held = _CONTROLS.sub("", self._held), ""
        if self._wrapped or (self._begins_answer and self._may_be_tag(rest.strip())):
            rest = ""
        if self._answered or (not self.thinking and rest.strip()):
            return rest
        if self.thinking:
            self._thought.append(rest)
        if cut:
            return "" if self.thinking else rest
        return self.thought or rest

    @property
    def thought(self) -> str:
        """The thought so far."""
        return "".join(self._thought).strip()

    def _may_be_tag(self, text: str) -> bool:
        return any(tag.startswith(text) for tag in (self._syntax.close, self._syntax.answer[0]))

    def _begin(self) -> None:
        said = self._held.lstrip()
        for tag in (_OPEN, self._syntax.open):
            if said.startswith(tag):
                self._begun = self.thinking = True
                self._held = said.removeprefix(tag)
                return
        self._begun = bool(said) and not self._syntax.open.startswith(said)

    def _read_thought(self) -> None:
        tags = (_CLOSE, self._syntax.close)
        found = [(self._held.find(tag), tag) for tag in tags if tag in self._held]
        if found:
            index, tag = min(found)
            self._keep(self._held[:index])
            self._held, self.thinking = self._held[index + len(tag) :], False
            self._begins_answer = True
            return
        whole = len(self._held) - overlap(self._held, (self._syntax.close,))
        self._keep(self._held[:whole])
        self._held = self._held[whole:]

    def _keep(self, text: str) -> None:
        self._thought.append(_CONTROLS.sub("", text).replace(self._syntax.open, ""))


class ChannelReader:
    """Separates the messages of other channels from those of the channel ``final``."""

    def __init__(self, thought: str, *, answering: bool) -> None:
        self._held = ""
        """A header that is not whole yet."""
        self._in_header = not (thought or answering)
        self._thought = [thought]
        self._answered = answering
        self.thinking = bool(thought)
        self.ended = False

    def push(self, text: str) -> str:
        """The part of the answer that `text` adds."""
        self._held += text
        answer: list[str] = []
        while self._held and not self.ended:
            if self._in_header and not self._read_header():
                break
            answer.append(self._read_body())
        return "".join(answer)

    def finish(self, *, cut: bool) -> str:
        """The rest of the answer; see `TagReader.finish`."""
        return "" if self._answered or cut else self.thought

    @property
    def thought(self) -> str:
        """The thoughts so far."""
        return "".join(self._thought).strip()

    def _read_header(self) -> bool:
        """Read the name of the channel; False where more of the header must come first."""
        if self._held[0] not in (_CHANNEL, _START, _MESSAGE):
            self._in_header = False  # an answer without a channel
            return True
        header, message, rest = self._held.partition(_MESSAGE)
        if not message:
            return False
        channel = header.rpartition(_CHANNEL)[2].strip() if _CHANNEL in header else "final"
        self.thinking, self._in_header, self._held = channel != "final", False, rest
        return True

    def _read_body(self) -> str:
        found = _BODY_ENDS.search(self._held)
        body = self._held[: found.start()] if found else self._held
        self._held = self._held[found.start() :].removeprefix(_END) if found else ""
        body = _CONTROLS.sub("", body)
        if found:
            self._in_header = True
            self.ended = not self.thinking and (self._answered or bool(body.strip()))
        if self.thinking:
            self._thought.append(body)
            return ""
        self._answered = self._answered or bool(body.strip())
        return body


class ThoughtReader(Protocol):
    """Separates the thoughts in the text of a reply from its answer."""

    thinking: bool
    """Whether the newest text is a thought."""
    ended: bool
    """Whether the answer has ended by itself."""

    @property
    def thought(self) -> str: ...

    def push(self, text: str) -> str: ...

    def finish(self, *, cut: bool) -> str: ...


def overlap(text: str, marks: Collection[str]) -> int:
    """The number of characters at the end of `text` that may be the beginning of a mark."""
    longest = max(map(len, marks), default=0)
    for length in range(min(longest - 1, len(text)), 0, -1):
        if any(mark.startswith(text[-length:]) for mark in marks):
            return length
    return 0
