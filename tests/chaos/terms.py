"""The terms of a schedule: quotas, rules that change, duels, and nights between days of acts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, timedelta, timezone, tzinfo
from random import Random
from typing import Any

from core.access_policy import Policy
from core.place_rules import DAY, NO_RULES, QUOTAS, Rules

QUOTA, CHANGES, DUELS, NIGHTS = 0.3, 0.3, 0.3, 0.25
"""The part of schedules that has each."""
CALM = 0.6
"""The part of those with a quota or duels in which nobody edits or deletes."""
RETENTION = 30 * DAY
"""The store's own."""
SEEN = 2 * DAY
"""For so long, a second delivery of an event is known."""
_NIGHTS: Sequence[tuple[float, ...]] = (
    (1.9 * DAY,),
    (20 * DAY, 20 * DAY),
    (29 * DAY,),
    (31 * DAY,),
)
_MIDNIGHT = 0.6
"""Seconds after the beginning at which a new day begins for quotas."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds in all places of one schedule."""

    rules: Rules = NO_RULES
    zone: tzinfo = UTC
    changes: bool = False
    calm: bool = False
    """Nobody edits or deletes, so that all can be counted, and people ask more."""
    nights: Sequence[float] = ()
    """Seconds that pass between two days of acts."""

    @classmethod
    def drawn(cls, random: Random, other_lane: str) -> Terms:
        """`other_lane` gives the second answers."""
        quota = _quota(random) if random.random() < QUOTA else {}
        duel = _duel(random, other_lane) if random.random() < DUELS else {}
        return cls(
            Rules(**quota, **duel),
            _with_midnight(_MIDNIGHT) if quota and random.random() < 0.5 else UTC,
            random.random() < CHANGES,
            bool(quota or duel) and random.random() < CALM,
            random.choice(_NIGHTS) if random.random() < NIGHTS else (),
        )

    @property
    def policy(self) -> Policy:
        return Policy(everywhere=self.rules, zone=self.zone)

    @property
    def is_usual(self) -> bool:
        """Whether nothing is ruled here."""
        return self.rules == NO_RULES and not self.changes


def _quota(random: Random) -> dict[str, Any]:
    most = {
        "person_messages": random.randint(1, 3),
        "person_tokens": random.choice((40, 200, 600)),
        "channel_messages": random.randint(1, 5),
        "channel_tokens": random.choice((80, 400, 1200)),
    }
    name = random.choice(QUOTAS)
    return {name: most[name]}


def _duel(random: Random, lane: str) -> dict[str, Any]:
    hours = random.choice((12.0, 1.5 / 3600))
    return {"duel": f"{lane}:1", "duel_votes": random.randint(1, 3), "duel_hours": hours}


def _with_midnight(seconds: float) -> tzinfo:
    """A time zone in which a day begins in so many seconds."""
    return timezone(-timedelta(seconds=(time.time() + seconds) % DAY))


# -- rules that change ----------------------------------------------------------------------------


@dataclass
class Change:
    """A rule that an admin set for a channel; the changes are made one after the other."""

    channel: str
    name: str
    value: Any
    began: float
    ended: float | None = None
    """When it was acknowledged."""


DENIALS: Mapping[str, Sequence[Any]] = {"deny_people": (("U2",), None), "enabled": (False, None)}
"""Rules that deny, with a value that does and one that does not."""


@dataclass
class RuleChanges:
    """All changes of a schedule, oldest first."""

    made: list[Change] = field(default_factory=list)

    @staticmethod
    def drawn(random: Random, channel: str, terms: Terms) -> Change:
        choices: list[tuple[str, Any]] = [
            (name, value) for name, values in DENIALS.items() for value in values
        ]
        choices += [("person_messages", random.choice((1, 2, 0)))]
        if terms.rules.duel:
            choices += [("duel", random.choice((terms.rules.duel, terms.rules.duel[:-1] + "0")))]
        return Change(channel, *random.choice(choices), began=time.monotonic())

    def may_deny(self, author: str, channel: str, begin: float, end: float | None) -> bool:
        """Whether an author may be denied there at some time between these."""
        return any(
            _denies(change, author) and (end is None or change.began < end)
            and (until is None or until > begin)
            for change, until in self._spans(channel)
        )  # fmt: skip

    def denies_for_good(self, author: str, channel: str, begin: float) -> bool:
        """Whether an author is denied there from this moment on, whatever happens."""
        return any(
            _denies(change, author) and change.ended is not None and change.ended < begin
            and until is None
            for change, until in self._spans(channel)
        )  # fmt: skip

    def _spans(self, channel: str) -> Iterator[tuple[Change, float | None]]:
        """Each change of a channel, with the latest moment at which it may hold; None: the end."""
        here = [change for change in self.made if change.channel == channel]
        for at, change in enumerate(here):
            later = (other for other in here[at + 1 :] if other.name == change.name)
            following = next(later, None)
            yield change, (following.ended or following.began + 60) if following else None

    def limits(self, name: str, channel: str, terms: Terms) -> list[int]:
        """Every limit that a quota may have had there; 0 is none."""
        set_here = [c.value for c in self.made if (c.channel, c.name) == (channel, name)]
        return [getattr(terms.rules, name) or 0, *(value or 0 for value in set_here)]


def _denies(change: Change, author: str) -> bool:
    if change.name == "enabled":
        return change.value is False
    return change.name == "deny_people" and author in (change.value or ())
