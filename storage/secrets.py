"""The secrets of a platform, such as the tokens of its installations: `core.ports.Secrets`."""

from __future__ import annotations

from storage import keys
from storage.store import Store


class RedisSecrets:
    """Texts by name, each with a lifetime, all in the first bucket."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def put(self, name: str, text: str, seconds: float | None = None) -> None:
        """Keep `text` for so long; by default for as long as the table of keys says."""
        entry = next(entry for entry in keys.TABLE if entry.name == "vault")
        lifetime = round(1000 * (seconds or entry.seconds or keys.DAY))
        await self._store.command("psetex", keys.key("vault", 0, name), lifetime, text)

    async def get(self, name: str) -> str | None:
        found: str | None = await self._store.command("get", keys.key("vault", 0, name))
        return found

    async def take(self, name: str) -> str | None:
        """Return a text and delete it."""
        found: str | None = await self._store.command("getdel", keys.key("vault", 0, name))
        return found
