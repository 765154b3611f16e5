"""The rules of places, and the record of who did what: `core.ports.RuleBook` and `Audit`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import structlog

from core.access_policy import Policy
from core.errors import UsageError
from core.place_rules import DAY, NOTHING, Rules, read_rules, scopes
from core.queue_types import AuditEntry, Place
from core.types import ThreadKey
from storage import codec, keys
from storage.store import Store

log = structlog.get_logger()


def scope_of(place: Place) -> str:
    """A place as rules and the audit log name it: ``slack:T024`` or ``slack:T024:C123``."""
    space, channel = scopes(_somewhere(place))
    return channel if place.channel else space


def _somewhere(place: Place) -> ThreadKey:
    """Any thread of a place: one that lies in its bucket."""
    return ThreadKey(place.platform, place.space, place.channel or "-", "-")


class RedisRules:
    """What admins have set, over what henji.toml says."""

    def __init__(self, store: Store, policy: Policy) -> None:
        self._store = store
        self._policy = policy

    async def rules(self, thread: ThreadKey) -> Rules:
        space, channel = await self._stored(thread)
        return self._policy.rules(thread, space, channel)

    async def set_here(self, place: Place) -> Rules:
        space, channel = await self._stored(_somewhere(place))
        return channel if place.channel else space

    async def change(self, place: Place, name: str, value: Any, by: str) -> None:
        text = "" if value is None else json.dumps(value, ensure_ascii=False)
        await self._run("rule", place, scope=scope_of(place), name=name, value=text, by=by)
        if name == "retention_days":
            await self._retain(place)

    async def _stored(self, thread: ThreadKey) -> tuple[Rules, Rules]:
        found = await self._store.run(
            "rules", self._store.bucket(thread), scopes=list(scopes(thread))
        )
        space, channel = (
            _read(codec.flatten(flat), scope)
            for flat, scope in zip(found, scopes(thread), strict=True)
        )
        return space, channel

    async def _retain(self, place: Place) -> None:
        """Let the new term hold for the threads that there are."""
        bucket = self._store.bucket(_somewhere(place))
        names = await self._store.command("zrange", keys.key("threads", bucket), 0, -1)
        there = [name for name in names if name.startswith(f"{scope_of(place)}:")]
        for at in range(0, len(there), 20):
            some = there[at : at + 20]
            rows = [{"thread": name, "keep_ms": await self._term(name)} for name in some]
            await self._store.run("retain", bucket, threads=rows)

    async def _term(self, thread: str) -> int:
        """Milliseconds."""
        days = (await self.rules(ThreadKey.parse(thread))).retention_days
        return round(1000 * (self._store.retention if days is None else days * DAY))

    async def _run(self, script: str, place: Place, **arguments: Any) -> Any:
        return await self._store.run(script, self._store.bucket(_somewhere(place)), **arguments)


def _read(fields: dict[str, str], scope: str) -> Rules:
    """What is stored; one that this release cannot read is left out, and said."""
    rules = NOTHING
    for name, text in fields.items():
        try:
            rules = read_rules({name: codec.load(text)}, scope).over(rules)
        except (UsageError, codec.Undecodable) as error:
            log.warning("a stored rule is not understood", scope=scope, rule=name, error=str(error))
    return rules


class RedisAudit:
    """Who reset, forgot, changed or read what: one stream a bucket, apart from all else."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def note(self, place: Place, by: str, act: str, detail: str = "") -> None:
        bucket = self._store.bucket(_somewhere(place))
        await self._store.run("note", bucket, place=scope_of(place), by=by, act=act, detail=detail)

    async def entries(self, place: Place, most: int) -> Sequence[AuditEntry]:
        bucket = self._store.bucket(_somewhere(place))
        name, scope = keys.key("audit", bucket), scope_of(place)
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
