"""Reading prompts and answers from JSONL files."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from core.errors import UsageError
from core.evaluation.counting import Side
from core.types import Role, Turn

Language: TypeAlias = Literal["ja", "en"]

Ending: TypeAlias = Literal["stop", "length", "repetition", "too long"]
"""Why an answer ended; ``too long``: there is none, for the prompt did not fit the model."""

_KANA_OR_KANJI = re.compile(r"[\u3041-\u30ff\u3400-\u9fff]")


@dataclass(frozen=True, slots=True)
class Prompt:
    """One conversation to answer: its last turn is a user's."""

    id: str
    turns: tuple[Turn, ...]
    system: str | None = None
    category: str = ""

    @property
    def text(self) -> str:
        """What is shown to a judge: the question, or a conversation with its speakers."""
        if len(self.turns) == 1:
            return self.turns[0].text
        return "\n\n".join(f"{turn.role}: {turn.text}" for turn in self.turns)

    @property
    def language(self) -> Language:
        """Japanese where any of it is in kana or kanji."""
        return "ja" if _KANA_OR_KANJI.search(self.text) else "en"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of one model to one prompt."""

    prompt: str
    side: Side
    text: str
    ending: Ending | None = None
    """None: an answer from a file that does not say."""
    tokens: int | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A file that was read, so that it is known again."""

    name: str
    sha256: str


def main_language(prompts: Sequence[Prompt]) -> Language:
    """The language of most of the prompts."""
    japanese = sum(prompt.language == "ja" for prompt in prompts)
    return "ja" if 2 * japanese >= len(prompts) else "en"


def read_prompts(path: Path) -> tuple[list[Prompt], Source]:
    """The prompts of a file, one JSON object a line.

    A line has one of `prompt` (a text, or a list of ``{"role", "content"}``), `messages` (such a
    list) and `turns` (a list of one text); it may have `id` or `question_id`, and `category`.
    Raises UsageError, one sentence that names the line, where it is anything else.
    """
    lines, source = _read(path)
    prompts = [_prompt(line) for line in lines]
    if not prompts:
        raise UsageError(f"{path} has no prompts in it")
    _check_ids(lines, [prompt.id for prompt in prompts])
    return prompts, source


def read_answers(path: Path, side: Side, prompts: Sequence[Prompt]) -> tuple[list[Answer], Source]:
    """A model's answers to these prompts, from a file with an answer to each of them, and perhaps
    to others.

    A line has `id` or `question_id`, and `answer`, `text` or FastChat's `choices`; it may have
    `finish_reason`. Raises UsageError, one sentence.
    """
    lines, source = _read(path)
    answers = [_answer(line, side) for line in lines]
    _check_ids(lines, [answer.prompt for answer in answers])
    found = {answer.prompt: answer for answer in answers}
    missing = [prompt.id for prompt in prompts if prompt.id not in found]
    if missing:
        raise UsageError(
            f"{path} lacks answers to {len(missing)} of {len(prompts)} prompts, "
            f"such as the one with the id {missing[0]}"
        )
    return [found[prompt.id] for prompt in prompts], source


# -- one line ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Line:
    path: Path
    number: int
    fields: Mapping[str, Any]

    def wrong(self, what: str) -> UsageError:
        return UsageError(f"{self.path}, line {self.number}: {what}")

    @property
    def id(self) -> str:
        """Its own, or its number."""
        given = self.fields.get("id", self.fields.get("question_id", self.number))
        if isinstance(given, bool) or not isinstance(given, (str, int)) or given == "":
            raise self.wrong("its id is neither a text nor a whole number")
        return str(given)


def _read(path: Path) -> tuple[list[_Line], Source]:
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not text in UTF-8") from None
    # not `splitlines`, which also splits at characters that JSON may hold within a string
    lines = list(_lines(path, text.split("\n")))
    return lines, Source(path.name, hashlib.sha256(content).hexdigest())


def _lines(path: Path, texts: Sequence[str]) -> Iterator[_Line]:
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        try:
            fields = json.loads(text)
        except ValueError as error:
            raise UsageError(f"{path}, line {number}: it is not JSON ({error})") from None
        except RecursionError:
            raise UsageError(f"{path}, line {number}: it is nested too deeply") from None
        if not isinstance(fields, dict):
            raise UsageError(f"{path}, line {number}: it is not a JSON object")
        yield _Line(path, number, fields)


def _check_ids(lines: Sequence[_Line], ids: Sequence[str]) -> None:
    seen: dict[str, int] = {}
    for line, id_ in zip(lines, ids, strict=True):
        if id_ in seen:
            raise line.wrong(f"its id {id_} is that of line {seen[id_]} too")
        seen[id_] = line.number


def _prompt(line: _Line) -> Prompt:
    category = line.fields.get("category") or ""
    if not isinstance(category, str):
        raise line.wrong("its category is not text")
    said = _said(line)
    system = said.pop(0)[1] if said[0][0] == "system" else None
    for role, text in said:
        if role not in ("user", "assistant"):
            raise line.wrong(
                f"a role is {role!r}; user and assistant are known, system comes first"
            )
        _check_text(line, text)
    if not said or said[-1][0] != "user":
        raise line.wrong("its last message is not a user's: there is nothing to answer")
    turns = tuple(
        Turn(str(place), cast("Role", role), "", text, 0.0)
        for place, (role, text) in enumerate(said)
    )
    return Prompt(line.id, turns, system, category)


def _said(line: _Line) -> list[tuple[str, str]]:
    """The (role, text) of each message of a line."""
    given = [line.fields[key] for key in ("prompt", "messages", "turns") if key in line.fields]
    if len(given) != 1:
        raise line.wrong("one of prompt, messages and turns is expected")
    match given[0]:
        case str(text):
            return [("user", text)]
        case [str(text)] if "turns" in line.fields:
            return [("user", text)]
        case [str(), *_] if "turns" in line.fields:
            raise line.wrong("it has several turns, and their answers are not here: use messages")
        case [_, *_] as messages:
            return [_message(line, message) for message in messages]
    raise line.wrong("its prompt is neither a text nor a list of messages")


def _message(line: _Line, message: object) -> tuple[str, str]:
    match message:
        case {"role": str(role), "content": str(content)}:
            return role, content
    raise line.wrong('a message is not {"role": ..., "content": ...} with two texts')


def _check_text(line: _Line, text: str) -> None:
    if not text.strip():
        raise line.wrong("its text is empty")
    _check_characters(line, text)


def _check_characters(line: _Line, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise line.wrong("it holds half of a character (a lone surrogate)") from None


_ENDINGS: tuple[Ending, ...] = ("stop", "length", "repetition")


def _answer(line: _Line, side: Side) -> Answer:
    match line.fields:
        case {"answer": str(text)} | {"text": str(text)} | {"choices": [{"turns": [str(text)]}]}:
            _check_characters(line, text)
        case _:
            raise line.wrong("it has no answer, no text and no choices of one turn")
    ending = line.fields.get("finish_reason")
    if ending is not None and ending not in _ENDINGS:
        raise line.wrong(f"its finish_reason is {ending!r}; it may be {', '.join(_ENDINGS)}")
    return Answer(line.id, side, text.strip(), ending)
