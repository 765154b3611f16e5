"""Every sentence is there in both languages, and says the same."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from string import Formatter

import pytest

from bots import strings
from bots.strings.en import ENGLISH
from bots.strings.ja import JAPANESE

BOTS = Path(strings.__file__).parents[1]
JAPANESE_LETTER = re.compile(r"[ぁ-んァ-ヶ一-龥]")


def values_of(sentence: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(sentence) if name is not None}


def test_both_languages_say_the_same_things() -> None:
    assert JAPANESE.keys() == ENGLISH.keys()


@pytest.mark.parametrize("key", sorted(ENGLISH))
def test_a_sentence_is_whole_in_both_languages(key: str) -> None:
    assert values_of(JAPANESE[key]) == values_of(ENGLISH[key])
    assert JAPANESE[key].strip()
    assert not JAPANESE_LETTER.search(ENGLISH[key])
    if key != "help_command":  # it shows commands only
        assert JAPANESE_LETTER.search(JAPANESE[key])


def test_everything_that_the_bots_say_is_a_sentence_here() -> None:
    said = {key for path in BOTS.rglob("*.py") for key in keys_said_in(path)}
    assert said <= ENGLISH.keys()


def keys_said_in(path: Path) -> set[str]:
    calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    return {
        call.args[0].value
        for call in calls
        if getattr(call.func, "attr", getattr(call.func, "id", "")) in ("say", "Outcome")
        and call.args
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
    }


def test_every_failure_has_its_sentence() -> None:
    assert ENGLISH.keys() >= strings.FAILURES


def test_an_unknown_failure_has_a_calm_sentence() -> None:
    assert strings.failure("no_core", "ja") == JAPANESE["no_core"]
    assert strings.failure("never heard of", "en") == ENGLISH["internal"]


def test_a_sentence_follows_the_persons_language() -> None:
    assert strings.say("queued", "ja-JP", position=3) == "順番を待っています(3番目)…"
    assert strings.say("queued", "en-GB", position=3) == "Waiting: 3 in line…"
    assert strings.say("stopped", "fr-FR") == strings.say("stopped", "en-US")
