"""Follow-ups: messages without a mention, in a thread that the bot takes part in."""

from __future__ import annotations

from collections.abc import Sequence

from core.types import Turn


def speaks_to_bot(person: str, turns: Sequence[Turn]) -> bool:
    """Nobody else is in the thread, or it was to this person that the bot spoke last."""
    asked = [turn.author for turn in turns if turn.role == "user"]
    if set(asked) <= {person}:
        return True
    return turns[-1].role == "assistant" and asked[-1] == person
