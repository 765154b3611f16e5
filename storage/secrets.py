"""The secrets of a platform, such as the tokens of its installations: `core.ports.Secrets`."""

from __future__ import annotations

from storage import keys
from storage.store import Store

LIFETIME = next(entry.seconds for entry in keys.TABLE if entry.name == "vault") or keys.DAY


class RedisSecrets:
    """Texts by name, each with a lifetime, all in the first bucket."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def put(self, name: str, text: str, seconds: float = LIFETIME) -> None:
        key = keys.key("vault", 0, name)
        await self._store.command("psetex", key, round(1000 * seconds), text)

    async def put_listed(
        self, name: str, text: str | None, list_: str, entry: str, was: str | None = None
    ) -> bool:
        words = {"name": name, "list": list_, "entry": entry}
        words |= {"text": text} if text is not None else {}
        words |= {"was": was} if was is not None else {}
        return bool(await self._store.run("put_secret", 0, **words))

    async def get(self, name: str) -> str | None:
        key = keys.key("vault", 0, name)
        found: str | None = await self._store.command("get", key)
        return found

    async def renew(self, name: str) -> None:
        await self._store.command("expire", keys.key("vault", 0, name), LIFETIME)

    async def take(self, name: str) -> str | None:
        found: str | None = await self._store.command("getdel", keys.key("vault", 0, name))
        return found
