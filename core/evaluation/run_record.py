"""The directory of a comparison: everything is written at once, so that an interrupted run can be
resumed, and counted again.

    run.json         the models, the judges and everything else that is needed to repeat it
    prompts.jsonl    the prompts, in their order
    answers.jsonl    an answer a line
    verdicts.jsonl   a verdict a line; a later one of the same judge, rater, prompt and order
                     replaces an earlier one
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from core.errors import OperatorError, UsageError, writing
from core.evaluation.prompts import Answer, Prompt, Source
from core.evaluation.statistics import Side, Verdict
from core.types import read_messages

VERSION = 1
"""Of the files' form."""

RUN, PROMPTS, ANSWERS, VERDICTS = "run.json", "prompts.jsonl", "answers.jsonl", "verdicts.jsonl"


@dataclass(frozen=True, slots=True)
class Setup:
    """The identity of a comparison: the same whenever the run is resumed."""

    a: Mapping[str, Any]
    """The first model: its `name`, and what is needed to have the same answers again."""
    b: Mapping[str, Any]
    prompts: Source
    seed: int


@dataclass(frozen=True, slots=True)
class JudgeConfig:
    """One judge. All verdicts under one name are counted together."""

    name: str
    """Unique among the judges of a comparison."""
    kind: str
    """``people``, ``server``, ``reward`` or ``rule``."""
    both_orders: bool
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredVerdict:
    """A verdict with its judge, its time, and the text or scores that it was read from."""

    judge: str
    verdict: Verdict
    at: float = 0.0
    text: str = ""
    """A server's words."""
    scores: tuple[float, float] | None = None
    """Of A's and of B's answer, by a rule or a reward model."""


@dataclass(slots=True)
class Record:
    """A comparison's directory, read. The methods that write need it to be opened."""

    directory: Path
    setup: Setup
    started: str
    secret: str
    """Draws the orders in which people see answers: a rater must not know it."""
    judges: dict[str, JudgeConfig]
    prompts: Sequence[Prompt]
    answers: dict[tuple[str, Side], Answer]
    verdicts: dict[tuple[str, str, str, Side | None], StoredVerdict]
    """By judge, prompt, rater and order."""

    @classmethod
    @contextmanager
    def open(cls, directory: Path, setup: Setup, prompts: Sequence[Prompt]) -> Iterator[Self]:
        """Begin a comparison, or resume it.

        UsageError if the directory holds another comparison, OperatorError if it cannot be
        written or is in use by another process.
        """
        with writing(directory):
            directory.mkdir(parents=True, exist_ok=True)
        with _alone_in(directory):
            if not (directory / RUN).exists():
                _begin(directory, setup, prompts)
            record = cls.read(directory)
            record._check(setup)
            yield record

    @classmethod
    def read(cls, directory: Path) -> Self:
        """The comparison in a directory; OperatorError if there is none."""
        if not (directory / RUN).is_file():
            raise UsageError(f"{directory} holds no comparison: it has no {RUN}")
        run = _object(directory / RUN)
        try:
            return cls(
                directory=directory,
                setup=_setup(run),
                started=run["started"],
                secret=run["secret"],
                judges={
                    name: JudgeConfig(name, **config) for name, config in run["judges"].items()
                },
                prompts=[_prompt(fields) for fields in _objects(directory / PROMPTS)],
                answers=_answers(_objects(directory / ANSWERS)),
                verdicts=_verdicts(_objects(directory / VERDICTS)),
            )
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise OperatorError(
                f"{directory} is not such a comparison as this version writes: {error!r}"
            ) from None

    # -- writing --------------------------------------------------------------------------------

    def begin_judge(self, config: JudgeConfig) -> None:
        """Name a judge before its first verdict."""
        self.judges[config.name] = config
        _write_run(self.directory, self.setup, self.started, self.secret, self.judges)

    def add_answer(self, answer: Answer) -> None:
        self.answers[answer.prompt, answer.side] = answer
        _append(self.directory / ANSWERS, asdict(answer))

    def add_verdict(self, stored: StoredVerdict) -> None:
        self.verdicts[_key(stored)] = stored
        _append(self.directory / VERDICTS, _verdict_fields(stored))

    def withdraw(self, stored: StoredVerdict) -> None:
        """Take a verdict back."""
        del self.verdicts[_key(stored)]
        _append(self.directory / VERDICTS, {**_verdict_fields(stored), "winner": None})

    # -- reading --------------------------------------------------------------------------------

    def names(self) -> tuple[str, str]:
        return self.setup.a["name"], self.setup.b["name"]

    def both_answers(self, prompt: str) -> tuple[Answer, Answer] | None:
        """A's and B's answer to a prompt; None where one of them is missing or was impossible."""
        a, b = self.answers.get((prompt, "a")), self.answers.get((prompt, "b"))
        if a is None or b is None or "too long" in (a.ending, b.ending):
            return None
        return a, b

    def verdicts_of(self, judge: str) -> list[StoredVerdict]:
        return [stored for (name, *_), stored in self.verdicts.items() if name == judge]

    def _check(self, setup: Setup) -> None:
        mine, other = _setup_fields(self.setup), _setup_fields(setup)
        for name in mine:
            if (there := mine[name]) != (here := _as_json(other[name])):
                what = _first_difference(name, there, here)
                raise UsageError(
                    f"{self.directory} holds another comparison ({what}): name another with --out"
                )


def _first_difference(name: str, there: Any, here: Any) -> str:
    """The first difference of two JSON values, in words."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted({*there, *here}):
            if there.get(key) != here.get(key):
                return _first_difference(f"{name}.{key}", there.get(key), here.get(key))
    return f"its {name} is {there}, and {here} is asked for"


# -- the files -----------------------------------------------------------------------------------


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    lock = directory / ".lock"
    with writing(lock):
        file = lock.open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OperatorError(f"another henji compare works in {directory}") from None
        yield


def _begin(directory: Path, setup: Setup, prompts: Sequence[Prompt]) -> None:
    for name in (PROMPTS, ANSWERS, VERDICTS):
        (directory / name).unlink(missing_ok=True)  # of an interrupted start
    for prompt in prompts:
        _append(directory / PROMPTS, _prompt_fields(prompt))
    started = datetime.now(UTC).isoformat(timespec="seconds")
    _write_run(directory, setup, started, secrets.token_hex(16), {})


def _write_run(
    directory: Path,
    setup: Setup,
    started: str,
    secret: str,
    judges: Mapping[str, JudgeConfig],
) -> None:
    """Written atomically and readable by its owner alone: it holds a secret."""
    fields = {
        "version": VERSION,
        "started": started,
        **_setup_fields(setup),
        "judges": {
            judge.name: {
                "kind": judge.kind,
                "both_orders": judge.both_orders,
                "details": judge.details,
            }
            for judge in judges.values()
        },
        "secret": secret,
    }
    partial = directory / f"{RUN}.partial"
    with writing(directory / RUN):
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(fields, file, ensure_ascii=False, indent=2)
            file.write("\n")
        partial.replace(directory / RUN)


def _append(path: Path, fields: Mapping[str, Any]) -> None:
    """One line, on the disk when this returns."""
    line = json.dumps(fields, ensure_ascii=False).encode() + b"\n"
    with writing(path), path.open("ab+") as file:
        if end := file.seek(0, os.SEEK_END):
            file.seek(end - 1)
            if file.read(1) != b"\n":  # an incomplete line, which is not read
                line = b"\n" + line
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file, without incomplete lines."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        for line in file:
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(found, dict):
                yield found


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise OperatorError(f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict) or found.get("version") != VERSION:
        raise OperatorError(f"{path} is not of the form that this version writes")
    return found


# -- to JSON and back ----------------------------------------------------------------------------


def _as_json(value: Any) -> Any:
    """The value as it is after a way through a file."""
    return json.loads(json.dumps(value))


def _setup_fields(setup: Setup) -> dict[str, Any]:
    return {"prompts": asdict(setup.prompts), "seed": setup.seed, "a": setup.a, "b": setup.b}


def _setup(run: Mapping[str, Any]) -> Setup:
    return Setup(run["a"], run["b"], Source(**run["prompts"]), run["seed"])


def _prompt_fields(prompt: Prompt) -> dict[str, Any]:
    messages = [{"role": turn.role, "content": turn.text} for turn in prompt.turns]
    first = [{"role": "system", "content": prompt.system}] if prompt.system is not None else []
    return {"id": prompt.id, "category": prompt.category, "messages": first + messages}


def _prompt(fields: Mapping[str, Any]) -> Prompt:
    system, turns = read_messages(fields["messages"])
    return Prompt(fields["id"], turns, system, fields["category"])


def _answers(found: Iterable[Mapping[str, Any]]) -> dict[tuple[str, Side], Answer]:
    return {(fields["prompt"], fields["side"]): Answer(**fields) for fields in found}


def _verdict_fields(stored: StoredVerdict) -> dict[str, Any]:
    verdict = stored.verdict
    return {
        "judge": stored.judge,
        "prompt": verdict.prompt,
        "rater": verdict.rater,
        "first": verdict.first,
        "winner": verdict.winner,
        "at": round(stored.at, 3),
        "text": stored.text,
        "scores": stored.scores,
    }


def _verdicts(
    found: Iterable[Mapping[str, Any]],
) -> dict[tuple[str, str, str, Side | None], StoredVerdict]:
    standing: dict[tuple[str, str, str, Side | None], StoredVerdict] = {}
    for fields in found:
        stored = _stored_verdict(fields)
        standing.pop(_key(stored), None)  # the newest comes last
        if fields["winner"] is not None:
            standing[_key(stored)] = stored
    return standing


def _stored_verdict(fields: Mapping[str, Any]) -> StoredVerdict:
    verdict = Verdict(fields["prompt"], fields["winner"], fields["first"], fields["rater"])
    scores = tuple(fields["scores"]) if fields["scores"] else None
    return StoredVerdict(fields["judge"], verdict, fields["at"], fields["text"], scores)


def _key(stored: StoredVerdict) -> tuple[str, str, str, Side | None]:
    verdict = stored.verdict
    return stored.judge, verdict.prompt, verdict.rater, verdict.first
