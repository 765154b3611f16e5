"""A server that runs pytest in forks of itself, so that each start costs no imports.

It is run as a file, `fork.py TREE [TESTS...]`. A fork imports this project from the tree, as that
is then, but for what is imported before, once for all forks: code that no mutant is made of, or all
that the given files of tests need. The latter is for mutants of the scripts, which are read when a
test begins. A line in is a JSON list, pytest's words; a line out, the exit status and the output.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

LIBRARIES = (
    "aiohttp", "anyio", "discord", "hypothesis", "pydantic_settings", "pytest", "pytest_asyncio",
    "redis.asyncio", "regex", "slack_bolt.async_app", "slack_sdk", "structlog", "yaml",
    "prometheus_client", "click", "jinja2", "numpy",
)  # fmt: skip


UNCHANGED = (
    "storage.deliveries", "storage.feedback", "storage.history", "storage.queue", "storage.rules",
    "storage.shared", "tests.session_server",
)  # fmt: skip
"""Modules of the tree that import none that mutants are made of."""


def main(tree: str, *files: str) -> None:
    for library in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(library)
    os.chdir(tree)
    os.environ["PYTHONPATH"] = tree
    sys.path[:] = [tree, *(place for place in sys.path if "/mutants" not in place)]
    for module in UNCHANGED:
        importlib.import_module(module)
    if files:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", *files])
    gc.freeze()
    for line in sys.stdin:
        with tempfile.TemporaryFile("w+") as output:
            child = os.fork()
            if child == 0:
                os._exit(run(json.loads(line), output.fileno()))
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            output.seek(0)
            print(json.dumps([status, output.read()]), flush=True)


def run(words: Sequence[str], output: int) -> int:
    """In the fork: pytest."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream in (1, 2):
        os.dup2(output, stream)
    with session_server() as os.environ["MUTANTS_REDIS_URL"]:
        status = int(pytest.main(list(words), plugins=[Twice()]))
    sys.stdout.flush()
    return status


class Twice:
    """Runs a test that fails once more: only a second failure counts."""

    def pytest_runtest_protocol(self, item: pytest.Function, nextitem: pytest.Item | None) -> bool:
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        if any(report.failed for report in reports):
            item._initrequest()
            reports = runtestprotocol(item, nextitem=nextitem, log=False)
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        return True


@contextlib.contextmanager
def session_server() -> Iterator[str]:
    """The server of the tests' session, in a fork of its own, which ends with this process."""
    from tests.session_server import hold

    (ended, ends), (says, said) = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        child = os.fork()
        if child == 0:
            os.close(ends)
            sys.stdin, sys.stdout = os.fdopen(ended), os.fdopen(said, "w")
            asyncio.run(hold(Path(folder)))
            os._exit(0)
        os.close(said)
        yield os.fdopen(says).readline().strip()
        os.close(ends)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
