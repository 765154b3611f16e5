"""Named leases: `core.ports.Leases`."""

from __future__ import annotations

from storage.store import Store


class RedisLeases:
    """Named leases, all in the first bucket."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def hold(self, name: str, holder: str, seconds: float) -> bool:
        milliseconds = max(1, round(seconds * 1000))
        return bool(
            await self._store.run("lease", 0, name=name, holder=holder, for_ms=milliseconds)
        )

    async def give_up(self, name: str, holder: str) -> None:
        await self._store.run("lease", 0, name=name, holder=holder, for_ms=0)
