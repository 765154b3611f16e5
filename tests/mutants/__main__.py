"""`make mutants`: plants mutants, chosen by a seed, and prints those that no test catches.

Each mutant lives in a copy of the tree. Those that nothing can catch, since they change nothing
that anybody could see, stand in `equivalent.txt` with the reason.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from random import Random

from tests.mutants.make import Mutant, mutants_of

HOUSE = Path(__file__).parents[2]
EQUIVALENT = Path(__file__).with_name("equivalent.txt")
SECONDS = 600
"""For the tests of one mutant: one that hangs is caught."""

CHAOS = ("tests/chaos/test_tasks.py",)
OF_SCRIPTS = (
    "tests/test_queue.py", "tests/test_queue_model.py", "tests/test_queue_fairness.py",
    "tests/test_queue_time.py", "tests/test_queue_poison.py", "tests/test_races.py",
    "tests/test_forget.py", "tests/test_privacy.py", "tests/test_leases.py",
    "tests/test_place_rules.py", "tests/test_access.py", "tests/test_actions.py",
    "tests/test_delivery.py", "tests/test_upgrades.py", *CHAOS,
)  # fmt: skip
TESTS = {
    "storage/scripts": OF_SCRIPTS,
    "core/worker.py": ("tests/test_worker.py", "tests/test_place_dialogues.py",
                       "tests/test_metrics.py", *CHAOS),
    "bots/delivery.py": ("tests/test_delivery.py", "tests/test_slack_once.py", *CHAOS),
}  # fmt: skip


def all_mutants() -> list[Mutant]:
    found: list[Mutant] = []
    for place in TESTS:
        whole = HOUSE / place
        for file in sorted(whole.rglob("*.lua")) if whole.is_dir() else [whole]:
            found += mutants_of(file.relative_to(HOUSE), file.read_text())
    return found


def known_equivalent() -> dict[str, str]:
    """Mutant -> why nobody can tell it from the original."""
    rows = EQUIVALENT.read_text().splitlines()
    pairs = (row.rpartition(" # ") for row in rows if row and not row.startswith("#"))
    return {key: reason for key, _, reason in pairs}


@contextmanager
def copies(number: int) -> Iterator[Queue[Path]]:
    """Copies of the tree, to be taken and put back."""
    with tempfile.TemporaryDirectory() as folder:
        free: Queue[Path] = Queue()
        for at in range(number):
            copy = Path(folder) / str(at)
            for name in ("core", "storage", "bots", "tests", "pyproject.toml"):
                place = HOUSE / name
                (shutil.copytree if place.is_dir() else shutil.copy)(place, copy / name)
            free.put(copy)
        yield free


def is_caught(mutant: Mutant, free: Queue[Path]) -> bool:
    """Whether a test fails, or never ends, with this mutant in the tree."""
    copy = free.get()
    file = copy / mutant.file
    text = file.read_text()
    try:
        file.write_text(mutant.applied(text))
        tests = next(tests for place, tests in TESTS.items() if str(mutant.file).startswith(place))
        words = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        environment = {**os.environ, "PYTHONPATH": str(copy)}
        ran = subprocess.run(
            words, cwd=copy, env=environment, capture_output=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return True
    else:
        return ran.returncode != 0
    finally:
        file.write_text(text)
        free.put(copy)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--number", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=2)
    options = parser.parse_args(argv)
    equivalent = known_equivalent()
    candidates = [mutant for mutant in all_mutants() if mutant.key not in equivalent]
    chosen = Random(options.seed).sample(candidates, min(options.number, len(candidates)))
    survived: list[Mutant] = []
    with copies(options.at_once) as free, ThreadPoolExecutor(options.at_once) as pool:
        judged = pool.map(lambda mutant: (mutant, is_caught(mutant, free)), chosen)
        for number, (mutant, caught) in enumerate(judged, 1):
            print(
                f"{number}/{len(chosen)} {'caught' if caught else 'SURVIVED'} {mutant}", flush=True
            )
            if not caught:
                survived.append(mutant)
    rules = Counter(mutant.rule for mutant in chosen)
    print(f"\n{len(chosen) - len(survived)} of {len(chosen)} caught: {dict(rules)}")
    for mutant in survived:
        print(mutant.key)
    return bool(survived)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
