"""State that the processes of a platform share: leases, secrets, and questions not yet posted."""

from __future__ import annotations

from collections.abc import Mapping

from storage import keys
from storage.store import Store


class RedisLeases:
    """Named leases, all in the first bucket."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def acquire(self, name: str, holder: str, seconds: float) -> bool:
        milliseconds = max(1, round(seconds * 1000))
        return bool(
            await self._store.run("lease", 0, name=name, holder=holder, for_ms=milliseconds)
        )

    async def give_up(self, name: str, holder: str) -> None:
        await self._store.run("lease", 0, name=name, holder=holder, for_ms=0)


SECRET_SECONDS = next(entry.seconds for entry in keys.TABLE if entry.name == "vault") or keys.DAY


class RedisSecrets:
    """Texts by name, each with a lifetime, all in the first bucket."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def put(self, name: str, text: str, seconds: float = SECRET_SECONDS) -> None:
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
        await self._store.command("expire", keys.key("vault", 0, name), SECRET_SECONDS)

    async def pop(self, name: str) -> str | None:
        found: str | None = await self._store.command("getdel", keys.key("vault", 0, name))
        return found


MOST_ENTRIES = 1000
"""The most entries of one box."""


class RedisOutbox:
    """Texts by id, in a box for each platform, all in the first bucket."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def put(self, name: str, id_: str, text: str) -> bool:
        """Keep a text; False where the box is full."""
        kept = await self._store.run(
            "put_outbox", 0, name=name, id=id_, text=text, most=MOST_ENTRIES
        )
        return bool(kept)

    async def entries(self, name: str) -> Mapping[str, str]:
        """Everything in a box, by id."""
        found: Mapping[str, str] = await self._store.command("hgetall", keys.key("outbox", 0, name))
        return found

    async def remove(self, name: str, id_: str) -> bool:
        """Remove a text; whether it was there."""
        return bool(await self._store.command("hdel", keys.key("outbox", 0, name), id_))
