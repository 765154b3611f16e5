"""Which tests reach which code: a plugin of pytest that records it, and what it has recorded.

``pytest -p tests.mutants.reach --reach FILE`` writes a row for each test that passes: its seconds,
the Lua scripts that it ran and the Python functions that it entered, in its own process.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from storage.store import Scripts
from tests.mutants.make import PLACES

ROOT = Path(__file__).parents[2]
HOME = f"{ROOT}/"


@dataclass(frozen=True, slots=True)
class Reach:
    """What one test reaches."""

    seconds: float
    scripts: Sequence[str]
    functions: Sequence[str]
    """Each as FILE:LINE, with the line of its beginning."""


def read(file: Path) -> Mapping[str, Reach]:
    """The rows of a recording, by test."""
    return {test: Reach(**row) for test, row in json.loads(file.read_text()).items()}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--reach", type=Path, required=True, help="where the recording goes")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Recorder(config.getoption("--reach")))


class Recorder:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._rows: dict[str, Reach] = {}
        self._scripts: set[str] = set()
        self._functions: set[tuple[str, int]] = set()
        self._run = Scripts.run
        Scripts.run = self._recorded()  # type: ignore[method-assign]

    def _recorded(self) -> Any:
        run, scripts = self._run, self._scripts

        async def recorded(of: Scripts, name: str, *rest: Any) -> Any:
            scripts.add(name)
            return await run(of, name, *rest)

        return recorded

    def _enter(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        self._functions.add((code.co_filename, code.co_firstlineno))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[Any]:
        self._scripts.clear()
        self._functions.clear()
        sys.settrace(self._enter)
        try:
            return (yield)
        finally:
            sys.settrace(None)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            entered = [(file.removeprefix(HOME), line) for file, line in self._functions.copy()]
            functions = sorted(f"{file}:{line}" for file, line in entered if file in PLACES)
            row = Reach(round(report.duration, 3), sorted(self._scripts), functions)
            self._rows[report.nodeid] = row
            rows = {test: asdict(row) for test, row in self._rows.items()}
            self._file.write_text(json.dumps(rows, indent=0))
