"""Runs the benchmarks of a checkout: each file of tests/benchmarks that has a `main(argv)`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from core.errors import OperatorError, UsageError

CHECKOUT = Path(__file__).parents[2]


def run_benchmarks(name: str | None, arguments: Sequence[str], checkout: Path = CHECKOUT) -> None:
    """Run the benchmark `name`, or all of them, with these arguments."""
    known = names(checkout)
    if name is not None and name not in known:
        raise UsageError(f"there is no benchmark {name}: the benchmarks are {', '.join(known)}")
    sys.path.insert(0, str(checkout))
    for each in [name] if name else known:
        status = import_module(f"tests.benchmarks.{each}").main(list(arguments))
        if status:
            raise OperatorError(f"the benchmark {each} failed")


def names(checkout: Path) -> list[str]:
    """The benchmarks' names. OperatorError in an installed copy."""
    folder = checkout / "tests" / "benchmarks"
    if not folder.is_dir():
        raise OperatorError(
            "benchmarks run from a checkout of henji, and this is an installed copy"
        )
    files = folder.glob("[!_]*.py")
    return sorted(path.stem for path in files if "\ndef main(argv" in path.read_text())
