"""The tools that docker/ is checked with: `make tools` fetches them."""

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
