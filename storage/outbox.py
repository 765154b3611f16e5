"""Questions that a platform has accepted and not yet posted: `core.ports.Outbox`."""

from __future__ import annotations

from collections.abc import Mapping

from storage import keys
from storage.store import Store

KEPT = 1000
"""The most entries of one box."""


class RedisOutbox:
    """Texts by id, in a box for each platform, all in the first bucket."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def put(self, name: str, id_: str, text: str) -> bool:
        """Keep a text; False where the box is full."""
        kept = await self._store.run("put_outbox", 0, name=name, id=id_, text=text, most=KEPT)
        return bool(kept)

    async def entries(self, name: str) -> Mapping[str, str]:
        """Everything in a box, by id."""
        found: Mapping[str, str] = await self._store.command("hgetall", keys.key("outbox", 0, name))
        return found

    async def take(self, name: str, id_: str) -> bool:
        """Remove a text; whether it was there."""
        return bool(await self._store.command("hdel", keys.key("outbox", 0, name), id_))
