"""Any model's own chat template."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from core.dialogue.formats.base import Message, ReplySyntax
from core.dialogue.sanitize import MarkBreaker, clean
from core.dialogue.thoughts import find_thoughts
from core.dialogue.tokenizers.huggingface import HuggingFaceTokenizer
from core.errors import ModelError
from core.types import Turn

Render: TypeAlias = Callable[[Sequence[Mapping[str, str]], bool], str]
"""Messages to the template's string; True: with the beginning of a reply. May raise ModelError."""

_SYSTEM, _FIRST_QUESTION, _FIRST_ANSWER, _NEXT_QUESTION = "Xs9", "Xq0", "Xa1", "Xq2"
_BRACKETED = re.compile(r"<+[^<>\s]+>+|\[[^\[\]\s]+\]")


@dataclass(frozen=True, slots=True)
class TemplateMarkers:
    """A template's strings between turns."""

    before_reply: str
    after_reply: str
    tail: str
    """The end of a prompt, where a reply begins."""
    around_system: str
    """Around a system message; empty where the template takes none."""

    def marks(self) -> Iterator[str]:
        """The strings that no text may contain: they could end a turn or begin another."""
        for marker in (self.before_reply, self.after_reply, self.tail, self.around_system):
            yield from _BRACKETED.findall(marker)
            yield from (line.strip() for line in _label_lines(marker))

    def next_speaker(self) -> tuple[str, ...]:
        """The strings with which a model runs on past its turn: the turn's end or a label.

        A label that the template puts on a line of its own counts only there.
        """
        bracketed = _BRACKETED.findall(self.after_reply)
        labels = [*_label_lines(self.after_reply), *_label_lines(self.before_reply)]
        spoken = (label.rstrip() for label in labels if re.search(r"\w", label))
        return tuple(dict.fromkeys([*bracketed, *spoken]))


def find_markers(render: Render, file: object) -> TemplateMarkers:
    """The markers of the template in `file`; ModelError where the template drops a message."""
    dialogue = [
        _message("user", _FIRST_QUESTION),
        _message("assistant", _FIRST_ANSWER),
        _message("user", _NEXT_QUESTION),
    ]
    open_end, rendered = render(dialogue, False), render(dialogue, True)
    found = re.search(
        f"{_FIRST_QUESTION}(.*?){_FIRST_ANSWER}(.*?){_NEXT_QUESTION}", rendered, re.DOTALL
    )
    if found is None:
        raise ModelError(f"the chat template in {file} leaves out what was said")
    last = rendered.rpartition(_NEXT_QUESTION)[2]
    tail = rendered.removeprefix(open_end) if rendered.startswith(open_end) else last
    return TemplateMarkers(found[1], found[2], tail, _around_system(render))


def _around_system(render: Render) -> str:
    try:
        rendered = render([_message("system", _SYSTEM), _message("user", _FIRST_QUESTION)], True)
    except ModelError:
        return ""
    found = re.search(f"([^\n]*\\s*){_SYSTEM}(.*?){_FIRST_QUESTION}", rendered, re.DOTALL)
    return f"{found[1]}\n{found[2]}" if found else ""


def _message(role: str, text: str) -> Mapping[str, str]:
    return {"role": role, "content": text}


def _label_lines(marker: str) -> Iterator[str]:
    """The label lines of a marker, without anything in brackets. A label on a line of its own keeps
    the line end before it. A bare word, such as a role, means nothing by itself."""
    for number, line in enumerate(_BRACKETED.sub("", marker).split("\n")):
        label = line.strip()
        if label and not label.isalnum():
            yield ("\n" if number else "") + label


_QUESTION, _ANSWER = "Xq0", "Xa1"


class ChatTemplateFormat:
    """Prompts in the model's chat template.

    Text stays text: a typed control token (``<|im_end|>``) and a typed mark of the template without
    a token of its own (``[/INST]``, ``USER:``), gets a space before its last character.

    The template is probed at load: whether it takes a system message (else the system prompt stands
    before the first user's text), whether it needs alternating roles, and whether a longer dialogue
    only appends to a shorter one's string.
    """

    def __init__(self, tokenizer: HuggingFaceTokenizer, system_prompt: str) -> None:
        self._tokenizer = tokenizer
        self._system: list[dict[str, str]] = []
        self._preamble = ""
        if not tokenizer.has_template:
            raise ModelError(f"{tokenizer.template_file} has no chat template")
        self._markers = find_markers(self._apply_template, tokenizer.template_file)
        self._thoughts = find_thoughts(tokenizer.template, tokenizer.controls, self._markers.tail)
        marks = [*tokenizer.reserved, *self._markers.marks()]
        self._break_marks = MarkBreaker(marks, tokenizer.normalized)
        self._set_system(self._break_marks(clean(system_prompt)))
        self.alternates = not self._accepts(("user", "user"))
        self.user_first = self.alternates or bool(self._preamble)
        self.append_only = True
        self.append_only = self._only_appends()
        self.dated = "strftime_now" in tokenizer.template
        self.reply_syntax = self._find_syntax()

    def message(self, turn: Turn) -> Message:
        return Message(turn.role, self._break_marks(clean(turn.text)))

    def first(self, message: Message) -> str:
        return self._render([message], prompt=False)

    def following(self, message: Message) -> str:
        if not self.append_only:
            asked = message.role == "user"
            return (
                self._markers.after_reply if asked else self._markers.before_reply
            ) + message.text
        context = [Message("user", _QUESTION)]
        if message.role == "user":
            context.append(Message("assistant", _ANSWER))
        before = self._render(context, prompt=False)
        return self._render([*context, message], prompt=False).removeprefix(before)

    def tail(self, reply: str) -> str:
        return self._markers.tail + self._answer_so_far(reply)

    def whole(self, messages: Sequence[Message], reply: str) -> str:
        return self._render(messages, prompt=True) + self._answer_so_far(reply)

    def _answer_so_far(self, reply: str) -> str:
        ended = self._thoughts.before_answer if self._thoughts and reply else ""
        return ended + self._break_marks(clean(reply))

    def _render(self, messages: Sequence[Message], *, prompt: bool) -> str:
        messages_ = [{"role": message.role, "content": message.text} for message in messages]
        if self._preamble and messages_ and messages_[0]["role"] == "user":
            messages_[0]["content"] = self._preamble + messages_[0]["content"]
        return self._apply_template([*self._system, *messages_], prompt)

    def _apply_template(self, messages_: Sequence[Mapping[str, str]], prompt: bool) -> str:
        return self._tokenizer.render(messages_, prompt=prompt)

    # -- what the template does -----------------------------------------------------------------

    def _set_system(self, text: str) -> None:
        if not text:
            return
        self._system = [{"role": "system", "content": text}]
        if not self._accepts(("user",)) or text not in self._render(
            [Message("user", _QUESTION)], prompt=True
        ):
            self._system, self._preamble = [], text + "\n\n"

    def _accepts(self, roles: Sequence[str]) -> bool:
        messages = [{"role": role, "content": f"Xr{place}"} for place, role in enumerate(roles)]
        try:
            rendered = self._tokenizer.render([*self._system, *messages], prompt=True)
        except ModelError:
            return False
        return all(message["content"] in rendered for message in messages)

    def _only_appends(self) -> bool:
        """Whether `first`, `following` and `tail` join to the template's string, in all samples."""
        lengths = (1, 3, 5, 7) if self.alternates else range(1, 8)
        dialogues = [_alternating(length, shift) for length in lengths for shift in (0, 1)]
        if not self.alternates:
            dialogues.append([*_alternating(2), *_alternating(3), *_alternating(1)])
        try:
            return all(map(self._appends_in, dialogues))
        except ModelError:
            return False

    def _appends_in(self, dialogue: Sequence[Message]) -> bool:
        parts = [self.first(dialogue[0]), *map(self.following, dialogue[1:]), self.tail("")]
        return "".join(parts) == self.whole(dialogue, "")

    def _find_syntax(self) -> ReplySyntax:
        controls = self._tokenizer.controls
        after = self._markers.after_reply
        places = {after.find(control): ident for control, ident in controls.items()}
        of_thoughts = self._thoughts.controls if self._thoughts else {}
        thought_ids = {controls[token]: mark for token, mark in of_thoughts.items()}
        ends = [places[place] for place in sorted(places) if place >= 0]
        stops = self._tokenizer.stop_ids | set(ends) - thought_ids.keys()
        marks = (mark for mark in self._markers.next_speaker() if mark not in controls)
        return ReplySyntax(
            stop_ids=stops,
            end=next(iter([*ends, *sorted(self._tokenizer.stop_ids)]), None),
            marks=tuple(marks),
            marks_begin_lines=False,
            thoughts=self._thoughts,
            thought_ids=thought_ids,
        )


_SAMPLES = (
    "a plain line",
    "  white space around it\n",
    "two\n\nparagraphs, {{ braces }} and <think>thoughts</think> messages_",
    "",
    "日本語。",
    "x" * 400,
)


def _alternating(length: int, shift: int = 0) -> list[Message]:
    """User and assistant in turn, with texts that some templates treat specially."""
    return [
        Message("assistant" if place % 2 else "user", _SAMPLES[(place + shift) % len(_SAMPLES)])
        for place in range(length)
    ]
