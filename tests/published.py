"""Published answers and verdicts, for tests that hold ours against them.

They are not in the project. ``HENJI_TEST_DATA`` names the folder that has ``ja-vicuna-qa/``: its
questions, the answers of rinna's PPO and SFT-v2 models, and GPT-4's verdicts on them (github
ku-nlp/ja-vicuna-qa-benchmark, Apache-2.0).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# read at import: conftest.py takes everything that begins with HENJI_ out of the environment
FOLDER = os.environ.get("HENJI_TEST_DATA")

needs_answers = pytest.mark.skipif(
    FOLDER is None, reason="HENJI_TEST_DATA names no folder with the published answers"
)


def published_answers() -> Path:
    """The folder of the answers, for tests that are marked with `needs_answers`."""
    return Path(FOLDER or "") / "ja-vicuna-qa"
