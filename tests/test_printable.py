"""What people and models write, on its way to a terminal."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.observe.logs import printable, printable_block, printable_json

ACTIVE = [
    character
    for character in map(chr, range(0x10000))
    if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
    or unicodedata.bidirectional(character)
    in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    or character in "\u061c\u200e\u200f"
]
"""By Unicode's tables: controls, ends of lines, surrogates, and marks that reorder text."""


def test_every_active_character_is_shown_as_an_escape() -> None:
    for character in ACTIVE:
        assert printable(f"a{character}b").isascii(), hex(ord(character))
        assert character not in printable_json({"text": character})


@pytest.mark.parametrize("text", ["こんにちは", "👩‍👩‍👧", "naïve ½ €", "שלום", "a\\b"])
def test_everything_else_stays(text: str) -> None:
    assert printable(text) == text


def test_a_second_line_cannot_pass_for_a_row_of_its_own() -> None:
    assert printable_block("a\r\n2026-01-01 forged\rx") == "a\n    2026-01-01 forged\\rx"


@given(st.text())
def test_json_stays_what_it_was(text: str) -> None:
    assert json.loads(printable_json({"text": text})) == {"text": text}
