"""People's preferences, as data sets in TRL's two conversational formats.

A row names nobody. Beside the conversation it has `tokens`, the ids of prompt and replies, if both
replies have the same prompt; and `authors`, digests by which an adapter's manifest can later be
searched for a person.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, TypeAlias

from core.errors import writing
from core.queue_types import Sample, Trace
from core.types import ThreadKey

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

    def lines(self) -> Iterator[str]:
        return _lines([*self.training, *self.test])


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
        file.writelines(f"{line}\n" for line in _lines(found))


def _lines(found: Iterable[Row]) -> Iterator[str]:
    return (json.dumps(row, ensure_ascii=False) for row in found)
