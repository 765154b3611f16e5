"""The page that says what is stored, and the scripts that store it."""

from __future__ import annotations

import re

from redis.asyncio import Redis

from storage import privacy
from storage.keys import DAY, TABLE, Key
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
