"""Any model's own chat template."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from core.dialogue.formats.base import Message, NotAppendable, ReplySyntax
from core.dialogue.sanitize import MarkBreaker, clean
from core.dialogue.thoughts import find_thoughts
from core.dialogue.tokenizers.huggingface import HuggingFaceTokenizer
from core.errors import ModelError
from core.types import Thinking, Turn

Render: TypeAlias = Callable[[Sequence[Mapping[str, str]], bool], str]
"""Messages to the template's string; True: with the beginning of a reply. May raise ModelError."""

_SYSTEM, _THOUGHT = "Xs9", "Xt1"
_FIRST_QUESTION, _FIRST_ANSWER, _NEXT_QUESTION = "Xq0", "Xa1", "Xq2"
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
    last: str
    """Behind the last reply of a dialogue that ends with it."""
    prompt_is_longer: bool
    """Whether a dialogue's string is the beginning of its prompt's."""
    adds_tail: bool = False
    """Whether the tail is missing in the template's own prompts."""

    def marks(self) -> Iterator[str]:
        """The strings that no text may contain: they could end a turn or begin another."""
        for marker in (self.before_reply, self.after_reply, self.tail, self.around_system):
            yield from _BRACKETED.findall(marker)
            yield from (line.strip() for line in _label_lines(marker))

    def next_speaker(self) -> tuple[str, ...]:
        """The strings with which a model runs on past its turn: the turn's end or a label.

        A label that the template puts on a separate line counts only on one.
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
    longer = rendered.startswith(open_end)
    tail = rendered[len(open_end) :] if longer else rendered.rpartition(_NEXT_QUESTION)[2]
    missing = _missing_beginning(rendered, found[1]) if rendered == open_end else ""
    around, last = _around_system(render), _behind_last(render, dialogue[:2])
    return TemplateMarkers(
        found[1], found[2], tail or missing, around, last, longer, adds_tail=bool(missing)
    )


def _behind_last(render: Render, dialogue: Sequence[Mapping[str, str]]) -> str:
    try:
        return render(dialogue, False).rpartition(_FIRST_ANSWER)[2]
    except ModelError:  # it needs a question at the end
        return ""


def _missing_beginning(prompt: str, before_reply: str) -> str:
    """The beginning of a reply that the template leaves to the model: the text before a reply that
    is not at the end of a prompt. It names the speaker: white space or a quote does not count."""
    ended = prompt.rpartition(_NEXT_QUESTION)[2]
    missing = before_reply.removeprefix(ended).rstrip(" ")
    names_speaker = re.search(r"\w", missing) is not None
    return missing if before_reply.startswith(ended) and names_speaker else ""


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
    """The label lines of a marker, without anything in brackets. A label on a separate line
    keeps the line end before it. A bare word, such as a role, is not a label."""
    for number, line in enumerate(_BRACKETED.sub("", marker).split("\n")):
        label = line.strip()
        if label and not label.isalnum():
            yield ("\n" if number else "") + label


_Q0 = Message("user", _FIRST_QUESTION)
_A1 = Message("assistant", _FIRST_ANSWER)
_Q2 = Message("user", _NEXT_QUESTION)

SWITCHES: Mapping[str, Mapping[Thinking, Sequence[object]]] = {
    "enable_thinking": {"off": (False,), "on": (True,)},
    "thinking": {"off": (False,), "on": (True,)},
    "reasoning_effort": {"off": ("low", "none"), "on": ("medium", "high")},
    "thinking_budget": {"off": (0,), "on": (-1,)},
}
"""Variable of a template -> its values for a setting, of which the first that it takes is used."""
THOUGHT_KEYS = ("reasoning_content", "reasoning", "thinking")
"""The keys of a message that templates read a thought from."""


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """The strings of a small dialogue that a message is rendered in, to be cut off again."""

    markers: TemplateMarkers
    question: str = ""
    """A dialogue of one question."""
    before_question: str = ""
    """In front of a later question."""
    next_question: str = ""
    """The text that a later question adds."""


class ChatTemplateFormat:
    """Prompts in the model's chat template.

    Text stays text: a typed control token (``<|im_end|>``) and a typed mark of the template that
    is not one token (``[/INST]``, ``USER:``) gets a space before its last character. A thought
    at the beginning of a stored reply is left to the template, which mostly leaves it out.

    The template is probed at load: whether it takes a system message (else the system prompt is put
    before the first user's text), whether it needs alternating roles, and whether a longer dialogue
    only appends to a shorter one's string.
    """

    def __init__(
        self,
        tokenizer: HuggingFaceTokenizer,
        system_prompt: str,
        thinking: Thinking = "default",
    ) -> None:
        self._tokenizer = tokenizer
        self._system: list[dict[str, str]] = []
        self._preamble = ""
        tokenizer.check_template()
        self._variables: dict[str, Any] = {}
        self._set_thinking(thinking)
        self.thinking_switch = bool(self._variables)
        self._around = _Surroundings(self._find_markers())
        markers = self._around.markers
        self._thoughts = find_thoughts(tokenizer.template, tokenizer.controls, markers.tail)
        marks = [*tokenizer.reserved, *markers.marks()]
        self._break_marks = MarkBreaker(marks, tokenizer.normalized)
        self._thought_key = self._find_thought_key()
        self.keeps_thoughts = bool(self._thought_key)
        self._set_system(self._break_marks(clean(system_prompt)))
        self.alternates = not self._accepts(("user", "user"))
        starts_with_reply = self._accepts(("assistant", "user"))
        self.user_first = self.alternates or bool(self._preamble) or not starts_with_reply
        self.append_only = self._only_appends()
        self._dated = "strftime_now" in tokenizer.template
        self._example = self._render([_Q0, _A1, _Q2], prompt=True) if self._dated else ""
        self.reply_syntax = self._find_syntax()

    def message(self, turn: Turn) -> Message:
        text, thought = clean(turn.text), ""
        if turn.role == "user":
            return Message(turn.role, self._break_marks(text))
        if turn.thought and self.keeps_thoughts:
            thought = self._break_marks(clean(turn.thought))
        kept, answer = self._thoughts.split(text) if self._thoughts else ("", text)
        if kept and self._thoughts:
            kept = self._thoughts.wrap(self._break_marks(kept))
        return Message(turn.role, kept + self._break_marks(answer), thought)

    def first(self, message: Message) -> str:
        if message.role == "user":
            return self._string([message])
        return _cut(self._string([message, _Q2]), "", self._around.next_question)

    def following(self, message: Message) -> str:
        around = self._around
        if not self.append_only:
            asked = message.role == "user"
            return (
                around.markers.after_reply if asked else around.markers.before_reply
            ) + message.text
        if message.role == "assistant":
            string = self._string([_Q0, message, _Q2])
            return _cut(string, around.question, around.next_question)
        context = [_Q0, _A1] if self.alternates else [_Q0]
        return _cut(self._string([*context, message]), around.before_question, "")

    def tail(self, reply: str, thought: str = "") -> str:
        return self._around.markers.tail + self._so_far(reply, thought)

    def whole(self, messages: Sequence[Message], reply: str, thought: str = "") -> str:
        return self._prompt(messages) + self._so_far(reply, thought)

    def refresh(self) -> bool:
        if not self._dated:
            return False
        example = self._render([_Q0, _A1, _Q2], prompt=True)
        if example == self._example:
            return False
        self._example, before = example, self._around
        self._around = _Surroundings(self._find_markers())
        if self.append_only:
            self._around = self._surroundings()
        return (before.question, before.before_question, before.next_question) != (
            self._around.question, self._around.before_question, self._around.next_question,
        )  # fmt: skip

    # -- rendering --------------------------------------------------------------------------------

    def _so_far(self, reply: str, thought: str) -> str:
        """The reply, or the unfinished thought, that the model continues."""
        if self._thoughts and thought:
            return self._thoughts.begin(self._break_marks(clean(thought)))
        ended = self._thoughts.before_answer if self._thoughts and reply else ""
        return ended + self._break_marks(clean(reply))

    def _prompt(self, messages: Sequence[Message]) -> str:
        """The whole prompt, up to where a reply begins."""
        rendered = self._render(messages, prompt=True)
        tail = self._around.markers.tail
        # the beginning of a reply that the template leaves to the model is added
        return rendered if not self._around.markers.adds_tail else rendered + tail

    def _string(self, messages: Sequence[Message]) -> str:
        """The prompt of these messages, without the tail."""
        if self._around.markers.prompt_is_longer:
            return self._render(messages, prompt=False)
        return _cut(self._render(messages, prompt=True), "", self._around.markers.tail)

    def _render(self, messages: Sequence[Message], *, prompt: bool) -> str:
        rows = [{"role": message.role, "content": message.text} for message in messages]
        for row, message in zip(rows, messages, strict=True):
            if message.thought and self._thought_key:
                row[self._thought_key] = message.thought
        if self._preamble and rows and rows[0]["role"] == "user":
            rows[0]["content"] = self._preamble + rows[0]["content"]
        return self._apply_template([*self._system, *rows], prompt)

    def _apply_template(self, rows: Sequence[Mapping[str, str]], prompt: bool) -> str:
        return self._tokenizer.render(rows, prompt=prompt, variables=self._variables)

    # -- what the template does -------------------------------------------------------------------

    def _find_markers(self) -> TemplateMarkers:
        return find_markers(self._apply_template, self._tokenizer.template_file)

    def _find_thought_key(self) -> str:
        """The key by which the template takes the thought of an earlier reply; empty for none."""
        if not self._thoughts:
            return ""
        for key in THOUGHT_KEYS:
            reply = {**_message("assistant", _FIRST_ANSWER), key: _THOUGHT}
            rows = [_message("user", _FIRST_QUESTION), reply, _message("user", _NEXT_QUESTION)]
            if _THOUGHT in self._apply_template(rows, True):
                return key
        return ""

    def _set_thinking(self, thinking: Thinking) -> None:
        """Give the template the values of its variables that turn thinking on or off."""
        for name in SWITCHES.keys() & self._tokenizer.variables:
            for value in SWITCHES[name].get(thinking, ()):
                self._variables[name] = value
                if self._accepts(("user",)):
                    break
                del self._variables[name]

    def _set_system(self, text: str) -> None:
        if not text:
            return
        self._system = [{"role": "system", "content": text}]
        if not self._accepts(("user",)) or text not in self._render([_Q0], prompt=True):
            self._system, self._preamble = [], text + "\n\n"

    def _accepts(self, roles: Sequence[str]) -> bool:
        rows = [{"role": role, "content": f"Xr{place}"} for place, role in enumerate(roles)]
        try:
            rendered = self._apply_template([*self._system, *rows], True)
        except ModelError:
            return False
        return all(row["content"] in rendered for row in rows)

    def _only_appends(self) -> bool:
        """Whether `first`, `following` and `tail` join to the template's string, in all samples."""
        self.append_only = True
        try:
            self._around = self._surroundings()
            return all(map(self._appends_in, self._samples()))
        except (ModelError, NotAppendable):
            return False

    def _surroundings(self) -> _Surroundings:
        markers, question = self._around.markers, self._string([_Q0])
        if self.alternates:
            longer = self._string([_Q0, _A1, _Q2])
            before = longer[: longer.index(_A1.text) + len(_A1.text)]
        else:
            longer, before = self._string([_Q0, _Q2]), question
        return _Surroundings(markers, question, before, _cut(longer, before, ""))

    def _samples(self) -> list[list[Message]]:
        """Dialogues that end with a question, as every prompt's does."""
        samples = [_alternating(length, shift) for length in (1, 3, 5, 7) for shift in range(4)]
        if self.alternates:
            return samples
        joined = [*_alternating(2), *_alternating(2), *_alternating(1), *_alternating(3)]
        replies = [*_alternating(2), Message("assistant", "again"), *_alternating(1)]
        after_reply = [] if self.user_first else [_alternating(3)[1:], _alternating(7)[1:]]
        return [*samples, joined, replies, *after_reply]

    def _appends_in(self, dialogue: Sequence[Message]) -> bool:
        parts = [self.first(dialogue[0]), *map(self.following, dialogue[1:]), self.tail("")]
        return "".join(parts) == self.whole(dialogue, "")

    # -- how a reply ends -------------------------------------------------------------------------

    def _find_syntax(self) -> ReplySyntax:
        controls = self._tokenizer.controls
        of_thoughts = self._thoughts.controls if self._thoughts else {}
        thought_ids = {controls[token]: mark for token, mark in of_thoughts.items()}
        end, openers = self._find_end()
        ends = self._tokenizer.stop_ids if end is None else self._tokenizer.stop_ids | {end}
        marks = (mark for mark in self._around.markers.next_speaker() if mark not in controls)
        return ReplySyntax(
            stop_ids=ends | openers,
            end=min(self._tokenizer.stop_ids, default=None) if end is None else end,
            marks=tuple(marks),
            marks_begin_lines=False,
            thoughts=self._thoughts,
            thought_ids=thought_ids,
        )

    def _find_end(self) -> tuple[int | None, frozenset[int]]:
        """The control token that the template writes last after a reply, and those after it, which
        begin the next turn. A control within a turn ends nothing."""
        markers = self._around.markers
        behind, of_last = map(self._controls_in, (markers.after_reply, markers.last))
        ends = of_last or behind[:1]
        if not ends:
            return None, frozenset()
        after = behind[behind.index(ends[-1]) + 1 :] if ends[-1] in behind else behind
        return ends[-1], frozenset(after)

    def _controls_in(self, text: str) -> list[int]:
        """The control tokens in a string of the template, in order, but for those of thoughts."""
        controls, of_thoughts = self._tokenizer.controls, self._thoughts and self._thoughts.controls
        longest_first = "|".join(map(re.escape, sorted(controls, key=len, reverse=True)))
        found = re.findall(longest_first, text) if controls else []
        return [controls[token] for token in found if token not in (of_thoughts or {})]


def _cut(text: str, before: str, after: str) -> str:
    """The text between two strings; NotAppendable if there is none between them."""
    fits = text.startswith(before) and text.endswith(after)
    if not fits or len(text) < len(before) + len(after):
        raise NotAppendable
    return text[len(before) : len(text) - len(after)]


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
