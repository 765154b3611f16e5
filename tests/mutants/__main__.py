"""`make mutants`: plants mutants, chosen by a seed, and prints those that no test catches.

Each mutant lives in a copy of the tree. The tests are run once without one, to record which code
each reaches: a mutant is judged by the tests that reach its function, those first that have caught
the most in the shortest time. A test counts if it fails twice in a row.

Mutants that nothing can catch, since they change nothing that anybody could see, stand in
`equivalent.txt` with the reason.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from math import inf
from pathlib import Path
from queue import Queue
from random import Random

from storage.store import read_scripts
from tests.mutants import reach
from tests.mutants.make import PLACES, Mutant, mutants_of
from tests.mutants.reach import ROOT, Reach

EQUIVALENT = Path(__file__).with_name("equivalent.txt")
HANGS = 60
"""Seconds that a test may take: one that hangs has caught its mutant."""

JUDGES = (
    "tests/test_queue.py", "tests/test_queue_model.py", "tests/test_queue_fairness.py",
    "tests/test_queue_time.py", "tests/test_queue_poison.py", "tests/test_races.py",
    "tests/test_forget.py", "tests/test_privacy.py", "tests/test_store_faults.py",
    "tests/test_place_rules.py", "tests/test_access.py", "tests/test_actions.py",
    "tests/test_quotas.py", "tests/test_delivery.py", "tests/test_upgrades.py",
    "tests/test_worker.py", "tests/test_dialogue_prompts.py", "tests/test_metrics.py",
    "tests/test_slack_once.py", "tests/test_duels.py", "tests/test_preferences.py",
    "tests/test_quotes.py", "tests/test_branches.py", "tests/test_too_long.py",
    "tests/test_summaries.py", "tests/test_choices.py", "tests/test_memory.py",
    "tests/test_view.py", "tests/test_thinking.py", "tests/test_slack_oauth.py",
    "tests/test_files.py",
    "tests/chaos/test_tasks.py",
)  # fmt: skip


def all_mutants() -> list[Mutant]:
    found: list[Mutant] = []
    for place in PLACES:
        whole = ROOT / place
        for file in sorted(whole.rglob("*.lua")) if whole.is_dir() else [whole]:
            found += mutants_of(file.relative_to(ROOT), file.read_text())
    return found


def known_equivalent() -> dict[str, str]:
    """Mutant -> why nobody can tell it from the original."""
    rows = EQUIVALENT.read_text().splitlines()
    pairs = (row.rpartition(" # ") for row in rows if row and not row.startswith("#"))
    return {key: reason for key, _, reason in pairs}


@contextmanager
def copies(number: int) -> Iterator[Queue[Tests]]:
    """Copies of the tree, to be taken and put back."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        free: Queue[Tests] = Queue()
        for at in range(number):
            copy = Path(folder) / str(at)
            for name in ("core", "storage", "bots", "tests", "pyproject.toml"):
                place = ROOT / name
                (shutil.copytree if place.is_dir() else shutil.copy)(place, copy / name)
            tests = Tests(copy)
            stack.callback(tests.close)
            free.put(tests)
        yield free


class Tests:
    """A tree with servers that run its tests."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self._servers: dict[bool, subprocess.Popen[str]] = {}

    def run(self, *words: str, imported: bool = False) -> tuple[int, str]:
        """Pytest's exit status and output; `imported`: the tree's Python is as it was at first."""
        if imported not in self._servers:
            self._servers[imported] = self._server(JUDGES if imported else ())
        server = self._servers[imported]
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(["-q", "-p", "no:cacheprovider", *words]) + "\n")
        server.stdin.flush()
        status, output = json.loads(server.stdout.readline())
        return status, output

    def _server(self, files: Sequence[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("fork.py")), str(self.tree), *files],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def first_failing(self, tests: Sequence[str], imported: bool) -> str | None:
        words = ("-x", "-o", f"faulthandler_timeout={HANGS}", *tests)
        status, output = self.run(*words, imported=imported)
        if status == 0:
            return None
        failed = re.findall(r"(?m)^(?:FAILED|ERROR) (\S+\.py::.*?)(?: - .*)?$", output)
        return failed[0] if failed else "a test that ended its process"

    def close(self) -> None:
        for server in self._servers.values():
            server.communicate()


@dataclass
class Judges:
    """The tests, by the code that each reaches."""

    tests: Mapping[str, Reach]
    budget: float
    """Seconds of tests for a mutant that none of them catches."""
    caught: Counter[str] = field(default_factory=Counter)
    """How many mutants each test has caught."""

    def __post_init__(self) -> None:
        self._scripts = {name: script.text for name, script in read_scripts("").items()}

    def of(self, mutant: Mutant) -> list[str]:
        """The tests that reach a mutant's function, or else its file; the best first."""
        reached = self._running(mutant) if mutant.file.suffix == ".lua" else self._entering(mutant)
        best = sorted(reached, key=lambda test: (-self._worth(test), self.tests[test].seconds))
        spent = accumulate(self.tests[test].seconds for test in best)
        return [test for test, seconds in zip(best, spent, strict=True) if seconds <= self.budget]

    def _worth(self, test: str) -> float:
        return self.caught[test] / (0.1 + self.tests[test].seconds)

    def _running(self, mutant: Mutant) -> Collection[str]:
        names = {mutant.file.stem}
        if mutant.file.parent.name == "lib":
            text = (ROOT / mutant.file).read_text()
            definition = re.findall(r"(?m)^local .*$", text[: mutant.end])[-1]
            names = {name for name, script in self._scripts.items() if definition in script}
        return [test for test, row in self.tests.items() if names.intersection(row.scripts)]

    def _entering(self, mutant: Mutant) -> Collection[str]:
        place = f"{mutant.file}:{mutant.function}"
        known = any(place in row.functions for row in self.tests.values())
        if not known:  # beside all functions, or in one that no test enters
            place = f"{mutant.file}:"
        return [
            test
            for test, row in self.tests.items()
            if any(
                name == place or (not known and name.startswith(place)) for name in row.functions
            )
        ]


def caught_by(mutant: Mutant, judges: Judges, free: Queue[Tests]) -> str | None:
    """The test that fails with this mutant in the tree, if one does."""
    copy = free.get()
    file = copy.tree / mutant.file
    text = file.read_text()
    try:
        file.write_text(mutant.applied(text))
        tests = judges.of(mutant)
        failing = copy.first_failing(tests, file.suffix == ".lua") if tests else None
        judges.caught[failing or ""] += 1
        return failing
    finally:
        file.write_text(text)
        free.put(copy)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--number", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--skip", type=int, default=0, help="so many that were judged before")
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--reach", type=Path, help="a recording of an earlier run")
    parser.add_argument("--budget", type=float, default=inf, help="seconds of tests a mutant")
    parser.add_argument("--only", default="", help="of those whose line in the list has this text")
    options = parser.parse_args(argv)
    chosen = choose(options.number, options.seed, options.only)[options.skip :]
    survived: list[Mutant] = []
    with copies(options.at_once) as free, ThreadPoolExecutor(options.at_once) as pool:
        recording = options.reach or free.queue[0].tree.parent / "reach.json"
        if not recording.exists():
            reach_words = ("-p", "tests.mutants.reach", "--reach", str(recording))
            free.queue[0].run(*reach_words, "-o", "faulthandler_timeout=0", *JUDGES)
        judges = Judges(reach.read(recording), options.budget)
        judged = pool.map(lambda mutant: (mutant, caught_by(mutant, judges, free)), chosen)
        for number, (mutant, by) in enumerate(judged, 1):
            print(f"{number}/{len(chosen)} {mutant}: {by or 'SURVIVED'}", flush=True)
            if not by:
                survived.append(mutant)
    rules = Counter(mutant.rule for mutant in chosen)
    print(f"\n{len(chosen) - len(survived)} of {len(chosen)} caught: {dict(rules)}")
    for mutant in survived:
        print(mutant.key)
    return bool(survived)


def choose(number: int, seed: int, only: str) -> Sequence[Mutant]:
    """Mutants by a seed; a change of the code changes few of them."""
    equivalent = known_equivalent()
    keyed = {mutant.key: mutant for mutant in all_mutants()}
    candidates = [key for key in keyed if only in key and key not in equivalent]
    drawn = sorted(candidates, key=lambda key: Random(f"{seed} {key}").random())
    return [keyed[key] for key in drawn[:number]]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
