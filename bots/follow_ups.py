"""Follow-ups: messages without a mention, in a thread that the bot takes part in."""

from __future__ import annotations

from collections.abc import Sequence

from bots.quotes import BOT_LABEL
from core.types import Turn


def is_follow_up(rule: str, person: str, turns: Sequence[Turn], *, to_others: bool) -> bool:
    """Whether a message without a mention is answered in a thread that the bot takes part in.

    `rule` is ``always``, ``alone`` or ``mention``; `to_others`: the message names somebody else.
    """
    if to_others or rule == "mention":
        return False
    return rule == "always" or speaks_to_bot(person, turns)


def speaks_to_bot(person: str, turns: Sequence[Turn]) -> bool:
    """Whether nobody else writes in the thread, or the bot's last reply was to this person."""
    by_people = (turn for turn in turns if not turn.text.startswith(BOT_LABEL))
    asked = [turn.author for turn in by_people if turn.role == "user"]
    if set(asked) <= {person}:
        return True
    return turns[-1].role == "assistant" and asked[-1] == person
