"""The mapping behind every cache."""

from __future__ import annotations

from core.types import Bounded


def test_the_oldest_entry_makes_room() -> None:
    kept = Bounded[str, int](2)
    kept["a"], kept["b"] = 1, 2
    kept["a"] = 3
    assert kept.setdefault("c", 4) == 4
    assert dict(kept) == {"a": 3, "c": 4}


def test_an_entry_that_was_used_can_be_kept() -> None:
    kept = Bounded[str, int](2)
    kept["a"], kept["b"] = 1, 2
    kept.move_to_end("a")
    kept["c"] = 3
    assert list(kept) == ["a", "c"]
