"""Data sets in TRL's conversational format: read as token ids, and written from preferences.

A line of JSON is a preference (`prompt`, `chosen`, `rejected`) or a rated reply (`prompt`,
`completion`, `label`); `prompt` alone is enough where replies are generated. Each is a list of
``{"role", "content"}``. A column `tokens` may hold the ids of the prompt and the
replies (``{"fingerprint", "prompt", "chosen", "rejected"}``, or `completion`; replies with their
end): these are used, and nothing is encoded. `authors` may hold digests of the
people in it, by which an adapter's manifest can later be searched for a person. A row names nobody.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, TypeAlias

from core.alignment import Method
from core.dialogue import Dialogue
from core.errors import NOT_TEXT, ModelError, OperatorError, TurnTooLong, is_text, writing
from core.models.manifest import digest_of_words, sha256
from core.queue_types import Sample, Trace
from core.types import ThreadKey, Turn, read_messages

COLUMNS: dict[Method, tuple[str, ...]] = {
    "sft": ("completion",),
    "dpo": ("chosen", "rejected"),
    "reward": ("chosen", "rejected"),
    "kto": ("completion",),
    "ppo": (),
}
"""The replies that a method reads, beside `prompt`."""


@dataclass(frozen=True, slots=True)
class Example:
    """One line of a data set, for one method."""

    system: str | None
    prompt: tuple[Turn, ...]
    replies: tuple[str, ...]
    """As in `COLUMNS`."""
    liked: bool
    """People's verdict on the first reply."""
    ids: tuple[tuple[int, ...], ...]
    """Of the prompt and the replies, if the line has them."""
    fingerprint: str
    """Of the dialogue that the ids are of."""
    digest: str
    """Of the line's conversation."""
    words: tuple[str, ...]
    """Digests of people's texts in it."""
    authors: tuple[str, ...] = ()
    """Digests of those people, if the line has them."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A prompt and a reply as the model reads them."""

    prompt: tuple[int, ...]
    reply: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.reply)


@dataclass(frozen=True, slots=True)
class Item:
    """An example as ids: a preference has two replies, the one for PPO has none."""

    prompt: tuple[int, ...]
    replies: tuple[Encoded, ...]
    liked: bool
    example: Example


# -- reading ---------------------------------------------------------------------------------------


def read_examples(path: Path, method: Method) -> list[Example]:
    """A data set; OperatorError, which names the line, for one that does not fit the method."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin with U+FEFF
    except OSError as error:
        raise OperatorError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise OperatorError(f"{path} is not UTF-8") from None
    # not at every line end that Unicode knows: JSON may hold those within a string
    lines = ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())
    found = [_Line(path, number, method).read(line) for number, line in lines]
    examples = [example for example in found if example is not None]
    if not examples:
        raise OperatorError(f"{path} holds no example for {method}")
    return examples


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of a data set, for errors that name it."""

    path: Path
    number: int
    method: Method

    def read(self, line: str) -> Example | None:
        """The line's example; None: the method cannot use it."""
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise self._wrong("is not JSON") from None
        if not isinstance(row, dict):
            raise self._wrong("is no JSON object")
        if not is_text(json.dumps(row, ensure_ascii=False)):
            raise self._wrong(NOT_TEXT)
        liked = row.get("label", True)
        if not isinstance(liked, bool):
            raise self._wrong("has a label that is neither true nor false")
        columns = self._columns(row)
        if self.method == "sft" and not liked:
            return None
        system, prompt = self._prompt(row)
        replies = tuple(self._reply(row, column) for column in columns)
        fingerprint, ids = self._ids(row, columns)
        said = [turn.text for turn in prompt if turn.role == "user"]
        words = tuple(map(digest_of_words, said))
        authors = self._authors(row)
        return Example(
            system, prompt, replies, liked, ids, fingerprint, digest(row), words, authors
        )

    def _authors(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        authors = row.get("authors") or []
        if not isinstance(authors, list) or not all(isinstance(one, str) for one in authors):
            raise self._wrong("has authors that are no list of digests")
        return tuple(authors)

    def _columns(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """The replies that the method reads; SFT also takes a preference's better reply."""
        columns = COLUMNS[self.method]
        if self.method == "sft" and "chosen" in row:
            columns = ("chosen",)
        wanted = ("prompt", *columns, *(("label",) if self.method == "kto" else ()))
        if missing := [column for column in wanted if column not in row]:
            raise self._wrong(
                f"has no {' and no '.join(missing)}: {self.method} reads {', '.join(wanted)}, "
                f"and the line has {', '.join(row) or 'nothing'}"
            )
        return columns

    def _prompt(self, row: Mapping[str, Any]) -> tuple[str | None, tuple[Turn, ...]]:
        system, turns = read_messages(self._messages(row, "prompt"))
        for turn in turns:
            if turn.role not in ("user", "assistant"):
                raise self._wrong(f"has a {turn.role} where a user or an assistant speaks")
        if not turns or turns[-1].role != "user":
            raise self._wrong("has a prompt that does not end with what a user said")
        return system, turns

    def _reply(self, row: Mapping[str, Any], column: str) -> str:
        messages = self._messages(row, column)
        if len(messages) != 1 or messages[0]["role"] != "assistant":
            raise self._wrong(f"has a {column} that is not one message of an assistant")
        return messages[0]["content"]

    def _messages(self, row: Mapping[str, Any], column: str) -> list[dict[str, str]]:
        messages = row[column]
        if not isinstance(messages, list) or not messages or not all(map(_is_message, messages)):
            raise self._wrong(f"has a {column} that is no list of {{role, content}}")
        return list(messages)

    def _ids(
        self, row: Mapping[str, Any], columns: Sequence[str]
    ) -> tuple[str, tuple[tuple[int, ...], ...]]:
        tokens = row.get("tokens")
        if tokens is None:
            return "", ()
        lists: list[Any] = [None]
        if isinstance(tokens, dict):
            lists = [tokens.get(name) for name in ("prompt", *columns)]
        if not all(map(_is_ids, lists)) or not isinstance(tokens.get("fingerprint"), str):
            raise self._wrong("has tokens that are no fingerprint and lists of ids")
        return tokens["fingerprint"], tuple(tuple(ids) for ids in lists)

    def _wrong(self, what: str) -> OperatorError:
        return OperatorError(f"{self.path}, line {self.number}, {what}")


def _is_message(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    return isinstance(value.get("role"), str) and isinstance(value.get("content"), str)


def _is_ids(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(type(ident) is int for ident in value)


# -- what an example is known by -------------------------------------------------------------------

_CONVERSATION = ("prompt", "chosen", "rejected", "completion", "label")


def digest(row: Mapping[str, Any]) -> str:
    """The digest of a line's conversation, whatever the order of its keys and its other columns."""
    told = {key: row[key] for key in _CONVERSATION if key in row}
    return sha256(json.dumps(told, ensure_ascii=True, sort_keys=True, separators=(",", ":")))


# -- as ids ----------------------------------------------------------------------------------------


def encode(
    examples: Sequence[Example],
    dialogue: Dialogue,
    *,
    longest: int,
    tell: Callable[[str], None],
) -> list[Item]:
    """The examples as ids, exactly as they are served: ``encode(prompt) + reply + end``.

    Those with more than `longest` tokens are left out, and `tell` gets their number. OperatorError
    for ids of another tokenizer, or if no example is left.
    """
    items = list(_fitting(examples, dialogue, longest))
    if not items:
        raise OperatorError(f"every example takes more than {longest} tokens")
    if dropped := len(examples) - len(items):
        tell(f"{dropped} of {len(examples)} examples take more than {longest} tokens: left out")
    return items


def _fitting(examples: Sequence[Example], dialogue: Dialogue, longest: int) -> Iterator[Item]:
    adapted = cache(lambda system: dialogue.with_spec(dialogue.spec, system))
    for example in examples:
        try:
            item = _encoded(example, adapted(example.system) if example.system else dialogue)
        except TurnTooLong:
            continue
        if max(map(len, item.replies), default=len(item.prompt)) <= longest:
            yield item


def _encoded(example: Example, dialogue: Dialogue) -> Item:
    if example.ids:
        prompt, *replies = _given(example, dialogue)
    else:
        prompt = dialogue.prompt(example.prompt, low_water=1.0).ids
        replies = list(map(dialogue.encode_reply, example.replies))
    encoded = tuple(Encoded(tuple(prompt), tuple(reply)) for reply in replies)
    return Item(tuple(prompt), encoded, example.liked, example)


def _given(example: Example, dialogue: Dialogue) -> tuple[tuple[int, ...], ...]:
    if example.fingerprint != dialogue.fingerprint:
        raise OperatorError(
            f"the data set's ids are of another tokenizer than {dialogue.spec.name}'s: "
            "without the column tokens, its texts are encoded again"
        )
    if any(not 0 <= ident < dialogue.tokenizer.size for ids in example.ids for ident in ids):
        raise ModelError(f"the data set holds ids that {dialogue.spec.name} does not have")
    return example.ids


# -- from people's preferences ------------------------------------------------------------------


Form: TypeAlias = Literal["dpo", "kto"]
Row: TypeAlias = dict[str, Any]
Message: TypeAlias = dict[str, str]

_PARTS = 10_000


@dataclass(frozen=True, slots=True)
class Choice:
    """People's verdict on one reply, or on two."""

    sample: Sample
    liked: Trace | None
    disliked: tuple[Trace, ...]


def choices(samples: Iterable[Sample], *, weak: bool) -> Iterator[Choice]:
    """The majority's choices; none on a tie.

    `weak`: a regenerated reply counts as worse than the one that replaced it.
    """
    by_job = {sample.job: sample for sample in samples}
    for sample in by_job.values():
        if choice := _voted(sample):
            yield choice
        before = by_job.get(sample.replaced)
        if weak and before and (pair := _regenerated(sample, before)):
            yield pair


def _voted(sample: Sample) -> Choice | None:
    traces = [trace for trace in sample.traces if trace is not None]
    match verdict_of(sample.votes.values()), traces:
        case "good", [only]:
            return Choice(sample, only, ())
        case "bad", [*both]:
            return Choice(sample, None, tuple(both))
        case "1", [one, two]:
            return Choice(sample, one, (two,))
        case "2", [one, two]:
            return Choice(sample, two, (one,))
    return None


def _regenerated(sample: Sample, before: Sample) -> Choice | None:
    match sample.traces, before.traces:
        case [Trace() as now], [Trace() as then] if now.text != then.text:
            return Choice(sample, now, (then,))
    return None


def verdict_of(votes: Iterable[str]) -> str:
    """The verdict with the most votes; empty on a tie."""
    most = Counter(votes).most_common(2)
    if not most or (len(most) == 2 and most[0][1] == most[1][1]):
        return ""
    return most[0][0]


def rows(choice: Choice, form: Form, digests: Mapping[str, str]) -> Iterator[Row]:
    """The examples from a choice; `digests` of people, by their ids."""
    authors = {"authors": sorted(digests[person] for person in choice.sample.authors)}
    if form == "kto":
        liked = [choice.liked] if choice.liked else []
        for trace in [*liked, *choice.disliked]:
            yield _rated(trace, label=trace is choice.liked) | authors
    elif choice.liked and choice.disliked:
        yield _pair(choice.liked, choice.disliked[0]) | authors


def _rated(trace: Trace, *, label: bool) -> Row:
    row: Row = {"prompt": prompt_of(trace), "completion": reply_of(trace), "label": label}
    if trace.reply_ids:
        row["tokens"] = _tokens(trace, completion=trace.reply_ids)
    return row


def _pair(chosen: Trace, rejected: Trace) -> Row:
    row: Row = {
        "prompt": prompt_of(chosen),
        "chosen": reply_of(chosen),
        "rejected": reply_of(rejected),
    }
    read = attrgetter("fingerprint", "prompt_ids")
    if chosen.reply_ids and rejected.reply_ids and read(chosen) == read(rejected):
        row["tokens"] = _tokens(chosen, chosen=chosen.reply_ids, rejected=rejected.reply_ids)
    return row


def _tokens(trace: Trace, **replies: Sequence[int]) -> Mapping[str, Any]:
    return {"fingerprint": trace.fingerprint, "prompt": trace.prompt_ids, **replies}


def prompt_of(trace: Trace) -> list[Message]:
    """The prompt's messages; successive ones of one role are joined."""
    system = [{"role": "system", "content": trace.system}] if trace.system else []
    groups = groupby(trace.turns, attrgetter("role"))
    said = [
        {"role": role, "content": "\n".join(turn.text for turn in turns)} for role, turns in groups
    ]
    return [*system, *(said if said[0]["role"] == "user" else said[1:])]


def reply_of(trace: Trace) -> list[Message]:
    return [{"role": "assistant", "content": trace.text}]


def is_held_out(thread: ThreadKey, share: float) -> bool:
    """Whether a thread's examples are for the test: all of them are, or none."""
    part = int(hashlib.sha256(str(thread).encode()).hexdigest()[:8], 16) % _PARTS
    return part < share * _PARTS


# -- files ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DataSet:
    """Examples, split by thread."""

    training: list[Row] = field(default_factory=list)
    test: list[Row] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.training) + len(self.test)

    def write(self, out: Path) -> list[Path]:
        """Write a file for training and one for the test; the paths of those that are not empty.

        Only their owner can read them.
        """
        files = {out: self.training, out.with_suffix(f".test{out.suffix}"): self.test}
        for path, found in files.items():
            with writing(path):
                _write(path, found)
        return [path for path, found in files.items() if found]


def data_set(
    samples: Iterable[Sample],
    form: Form,
    digests: Mapping[str, str],
    *,
    weak: bool,
    held_out: float,
) -> DataSet:
    """The examples in samples; `held_out`: the share of threads for the test file."""
    data = DataSet()
    for choice in choices(samples, weak=weak):
        is_test = is_held_out(choice.sample.thread, held_out)
        (data.test if is_test else data.training).extend(rows(choice, form, digests))
    return data


def _write(path: Path, found: Iterable[Row]) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in found)
