"""The page that says what is stored, and the scripts that store it."""

from __future__ import annotations

import re

from redis.asyncio import Redis

from storage import privacy
from storage.keys import DAY, HOUR, TABLE, Key
from tests.fixtures import scene


def test_the_privacy_page_is_written_from_the_table_of_keys() -> None:
    assert privacy.PAGE.read_text() == privacy.page(), "run `make docs`"
    for entry in TABLE:
        assert entry.holds in privacy.PAGE.read_text()


async def test_nothing_is_stored_that_the_page_does_not_name_or_for_longer(redis: Redis) -> None:
    await scene.play(redis)
    for stored in await scene.dump(redis):
        entry = _entry_of(stored["key"])
        assert entry.kind == stored["type"], stored
        assert 0 < stored["lives"] <= 1000 * (entry.seconds or 30 * DAY), stored


RETENTION = 30 * DAY

LIFETIMES = {
    "lane": HOUR, "ready": 4 * DAY, "clock": 4 * DAY, "waiting": 4 * DAY, "wake": HOUR,
    "leases": 4 * DAY, "delayed": 4 * DAY, "deadlines": 4 * DAY, "arrivals": 400 * DAY,
    "open": 4 * DAY, "thread": RETENTION, "turns": RETENTION, "history": RETENTION,
    "mailbox": RETENTION, "counts": RETENTION, "changes": RETENTION, "replies": DAY,
    "aside": DAY, "edits": 600, "purges": 400 * DAY, "rewrite": 30 * DAY, "jobs": 4 * DAY,
    "job": 4 * DAY, "events": DAY, "delivery": RETENTION, "deliveries": 4 * DAY, "news": 60,
    "seen": 2 * DAY, "told": 60, "edited": 600, "early": 600, "message": RETENTION,
    "quoted": RETENTION, "branches": RETENTION, "threads": 400 * DAY,
    "person": 400 * DAY, "asked": RETENTION, "resets": 400 * DAY, "marks": 400 * DAY,
    "probe": 60, "reports": HOUR, "lease": HOUR, "used": 30 * DAY, "spent": 3 * DAY,
    "reads": HOUR, "roles": 30 * DAY,
    "rules": 400 * DAY, "trace": 2 * DAY, "sample": RETENTION, "duel": RETENTION, "duels": 4 * DAY,
    "kept": RETENTION, "optouts": 400 * DAY, "salt": 400 * DAY,
    "choice": RETENTION, "names": 30 * DAY,
    "audit": 365 * DAY, "feedback": 400 * DAY, "dead": 30 * DAY, "vault": 400 * DAY, "outbox": 900,
}  # fmt: skip
"""Seconds. What is owed outlives a long week-end without Redis; a mark outlives the words that it
hides, whose longest retention is 400 days; a duplicate of an event comes within two days."""


def test_every_key_has_its_lifetime() -> None:
    assert {entry.name: entry.seconds or RETENTION for entry in TABLE} == LIFETIMES


async def test_no_key_ends_before_its_lifetime(redis: Redis) -> None:
    await scene.play(redis)
    for stored in await scene.dump(redis):
        entry = _entry_of(stored["key"])
        assert stored["lives"] > 1000 * (LIFETIMES[entry.name] - 60), stored


async def test_keys_without_people_in_them_name_nobody(redis: Redis) -> None:
    await scene.play(redis)
    impersonal = [s for s in await scene.dump(redis) if not _entry_of(s["key"]).personal]
    assert len(impersonal) > 10
    for stored in impersonal:
        assert not re.search(r"\bU\d\b|首都|東京", str(stored)), stored


def _entry_of(name: str) -> Key:
    """The entry of the table that a stored key is of: the most telling one that fits."""
    name = name.removeprefix("henji:{0}:")
    fitting = [e for e in TABLE if re.fullmatch(e.pattern.replace("%s", ".*"), name, re.DOTALL)]
    return max(fitting, key=lambda entry: len(entry.pattern))
