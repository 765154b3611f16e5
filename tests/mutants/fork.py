"""A server that runs pytest in forks of itself, so that each start costs no imports of libraries.

It is run as a file: nothing of this project may be imported here, since each fork imports it from
the tree that it is given. A line in is a JSON list, the tree and pytest's words; a line out, the
exit status and the output.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import tempfile
from collections.abc import Sequence

LIBRARIES = (
    "aiohttp", "anyio", "discord", "hypothesis", "pydantic_settings", "pytest", "pytest_asyncio",
    "redis.asyncio", "regex", "slack_bolt.async_app", "slack_sdk", "structlog", "yaml",
    "prometheus_client", "click", "jinja2", "numpy",
)  # fmt: skip


def main() -> None:
    for library in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(library)
    for line in sys.stdin:
        tree, *words = json.loads(line)
        with tempfile.TemporaryFile("w+") as output:
            child = os.fork()
            if child == 0:
                os._exit(run(tree, words, output.fileno()))
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            output.seek(0)
            print(json.dumps([status, output.read()]), flush=True)


def run(tree: str, words: Sequence[str], output: int) -> int:
    """In the fork: pytest over a tree."""
    import pytest

    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.chdir(tree)
    os.environ["PYTHONPATH"] = tree
    sys.path[:] = [tree, *(place for place in sys.path if "/mutants" not in place)]
    status = int(pytest.main(list(words)))
    sys.stdout.flush()
    return status


if __name__ == "__main__":
    main()
