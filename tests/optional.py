"""Optional requirements of tests: the tools for docker/, and published answers.

The local Discord imports this module: pytest is imported only in a test, so that
`henji bench discord` does not count it as the adapter's memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from shutil import which
from typing import Any

FETCHED = Path(__file__).parents[1] / ".venv-images" / "bin"


def tool(name: str) -> str:
    """The path of a tool. Where it is missing the test is skipped; under CI it fails."""
    import pytest

    found = which(name, path=FETCHED) or which(name)
    if found is None and os.environ.get("CI"):
        pytest.fail(f"{name} is missing: run `make tools` first")
    return found or pytest.skip(f"{name} is missing: `make tools` fetches it")


def setting(name: str) -> str | None:
    """A variable of the tests. conftest.py takes all that begin with HENJI_ out of the environment:
    for the processes that run tests in parallel, these stay under another name."""
    kept = f"TESTS_{name}"
    if value := os.environ.get(name):
        os.environ[kept] = value
    return os.environ.get(kept)


FOLDER = setting("HENJI_TEST_DATA")
WEB_API = setting("HENJI_SLACK_WEB_API")
"""The folder of npm's @slack/web-api."""


def needs_answers(test: Callable[..., Any]) -> Any:
    """Skips a test where the published answers are missing."""
    import pytest

    why = "HENJI_TEST_DATA names no folder with the published answers"
    return pytest.mark.skipif(FOLDER is None, reason=why)(test)


def published_answers() -> Path:
    """The folder of the answers, for tests that are marked with `needs_answers`."""
    return Path(FOLDER or "") / "ja-vicuna-qa"
