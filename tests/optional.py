"""Optional requirements of tests: the tools for docker/, and published answers."""

from __future__ import annotations

import os
from pathlib import Path
from shutil import which

import pytest

FETCHED = Path(__file__).parents[1] / ".venv-images" / "bin"


def tool(name: str) -> str:
    """The path of a tool. Where it is missing the test is skipped; under CI it fails."""
    found = which(name, path=FETCHED) or which(name)
    if found is None and os.environ.get("CI"):
        pytest.fail(f"{name} is missing: run `make tools` first")
    return found or pytest.skip(f"{name} is missing: `make tools` fetches it")


# read at import: conftest.py takes everything that begins with HENJI_ out of the environment
FOLDER = os.environ.get("HENJI_TEST_DATA")
WEB_API = os.environ.get("HENJI_SLACK_WEB_API")
"""The folder of npm's @slack/web-api."""

needs_answers = pytest.mark.skipif(
    FOLDER is None, reason="HENJI_TEST_DATA names no folder with the published answers"
)


def published_answers() -> Path:
    """The folder of the answers, for tests that are marked with `needs_answers`."""
    return Path(FOLDER or "") / "ja-vicuna-qa"
