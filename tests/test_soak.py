"""The soak's own parts: short lifetimes, and what Redis holds by pattern."""

from __future__ import annotations

import re

import pytest

from storage import keys
from tests.short_lives import shorten
from tests.soak import arguments, middle_and_end, pattern_of
from tests.store_fixture import THREAD


def test_its_command_line_has_help() -> None:
    with pytest.raises(SystemExit) as ended:
        arguments(["--help"])
    assert ended.value.code == 0
    assert arguments(["here", "5"]).minutes == 5


@pytest.mark.parametrize("entry", keys.TABLE, ids=lambda entry: entry.name)
def test_every_key_is_counted_under_its_pattern(entry: keys.Key) -> None:
    parts = [str(THREAD)] * entry.pattern.count("%s")
    assert pattern_of(keys.key(entry.name, 3, *parts)) == entry.pattern


def test_no_lifetime_is_longer_than_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TABLE", "preamble"):
        monkeypatch.setattr(keys, name, getattr(keys, name))
    shorten(90)
    lives = keys.preamble(30.0 * keys.DAY, 365.0 * keys.DAY).partition("local LIFE")[2]
    milliseconds = [int(value) for value in re.findall(r"= (\d+),", lives)]
    assert len(milliseconds) == len(keys.TABLE)
    assert max(milliseconds) == 90_000
    assert min(milliseconds) == 60_000


def test_growth_is_from_the_middle_to_the_end() -> None:
    rows = [(float(at), 100.0 if at < 30 else 10.0 if at < 50 else 11.0) for at in range(60)]
    assert middle_and_end(rows) == (10.0, 11.0)
