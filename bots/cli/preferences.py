"""`henji admin preferences`: what people chose, as a data set to train on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from core.alignment.preferences import Form, Row, choices, is_held_out, rows
from core.errors import writing
from core.queue_types import Place
from storage.preferences import RedisPreferences


@dataclass(frozen=True, slots=True)
class DataSet:
    """The examples of a place, split by thread."""

    training: list[Row] = field(default_factory=list)
    test: list[Row] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.training) + len(self.test)

    def write(self, out: Path) -> list[Path]:
        """Write the files for training and for the test; those that hold something.

        They hold what people said: only their owner can read them.
        """
        files = {out: self.training, out.with_suffix(f".test{out.suffix}"): self.test}
        for path, found in files.items():
            with writing(path):
                _write(path, found)
        return [path for path, found in files.items() if found]

    def lines(self) -> Iterator[str]:
        return _lines([*self.training, *self.test])


async def read(
    preferences: RedisPreferences, place: Place, form: Form, *, weak: bool, held_out: float
) -> DataSet:
    """What people chose in a place."""
    samples = [sample async for sample in preferences.samples(place)]
    people = {person for sample in samples for person in sample.authors}
    digests = {person: await preferences.digest(place, person) for person in people}
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
