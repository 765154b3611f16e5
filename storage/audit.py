"""The audit log: `core.ports.Audit`. One stream a bucket."""

from __future__ import annotations

from collections.abc import Sequence

from core.queue_types import AuditEntry, Place
from storage import keys
from storage.store import Store


class RedisAudit:
    """Entries about resets, deletions, new rules and reading."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def append(self, place: Place, by: str, act: str, detail: str = "") -> None:
        bucket = self._store.bucket(place.any_thread)
        await self._store.run(
            "append_audit", bucket, place=str(place), by=by, act=act, detail=detail
        )

    async def entries(self, place: Place, most: int) -> Sequence[AuditEntry]:
        bucket = self._store.bucket(place.any_thread)
        name, scope = keys.key("audit", bucket), str(place)
        found: list[AuditEntry] = []
        last = "+"
        while len(found) < most:
            rows = await self._store.command("xrevrange", name, last, "-", 500)
            found += [_entry(id_, fields) for id_, fields in rows if _within(fields, scope)]
            if len(rows) < 500:
                break
            last = f"({rows[-1][0]}"
        return found[:most]


def _within(fields: dict[str, str], scope: str) -> bool:
    return f"{fields['place']}:".startswith(f"{scope}:")


def _entry(id_: str, fields: dict[str, str]) -> AuditEntry:
    return AuditEntry(int(id_.split("-")[0]) / 1000, **fields)
