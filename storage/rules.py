"""The rules that admins set for places: `core.ports.RuleBook`."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

import structlog

from core.access_policy import Policy
from core.errors import UsageError
from core.place_rules import DAY, NO_RULES, Rules, read_rules, scopes
from core.queue_types import Place
from core.types import DIRECT, ThreadKey
from storage import codec, keys
from storage.store import Store

log = structlog.get_logger()


class RedisRules:
    """The rules that admins have set, combined with those of henji.toml."""

    def __init__(self, store: Store, policy: Policy) -> None:
        self._store = store
        self._policy = policy

    async def rules(self, thread: ThreadKey) -> Rules:
        space, channel = await self._stored(thread)
        return self._policy.rules(thread, space, channel)

    async def set_here(self, place: Place) -> Rules:
        space, channel = await self._stored(place.any_thread)
        return channel if place.channel else space

    async def change(self, place: Place, name: str, value: Any, by: str) -> None:
        text = "" if value is None else json.dumps(value, ensure_ascii=False)
        await self._run("set_rule", place, scope=str(place), name=name, value=text, by=by)
        if name == "retention_days":
            await self._retain(place)

    async def remember_roles(self, place: Place, person: str, roles: Collection[str]) -> None:
        known = ",".join(sorted(roles))
        await self._store.run(
            "remember_roles",
            self._roles_bucket(place.platform, person),
            person=f"{place.platform}:{person}",
            space=str(place),
            roles=known,
        )

    async def roles_by_space(self, platform: str, person: str) -> Sequence[Collection[str]]:
        bucket = self._roles_bucket(platform, person)
        name = keys.key("roles", bucket, f"{platform}:{person}")
        found = await self._store.command("hvals", name)
        return [tuple(roles.split(",")) if roles else () for roles in found]

    def _roles_bucket(self, platform: str, person: str) -> int:
        return self._store.bucket(ThreadKey(platform, DIRECT, person, "-"))

    async def _stored(self, thread: ThreadKey) -> tuple[Rules, Rules]:
        found = await self._store.run(
            "read_rules", self._store.bucket(thread), scopes=list(scopes(thread))
        )
        space, channel = (
            _read(codec.flatten(flat), scope)
            for flat, scope in zip(found, scopes(thread), strict=True)
        )
        return space, channel

    async def _retain(self, place: Place) -> None:
        """Give the existing threads of a place the new retention time."""
        bucket = self._store.bucket(place.any_thread)
        names = await self._store.command("zrange", keys.key("threads", bucket), 0, -1)
        there = [name for name in names if name.startswith(f"{place}:")]
        for at in range(0, len(there), 20):
            some = there[at : at + 20]
            rows = [{"thread": name, "keep_ms": await self._retention_ms(name)} for name in some]
            await self._store.run("retain", bucket, threads=rows)

    async def _retention_ms(self, thread: str) -> int:
        days = (await self.rules(ThreadKey.parse(thread))).retention_days
        return round(1000 * (self._store.retention if days is None else days * DAY))

    async def _run(self, script: str, place: Place, **arguments: Any) -> Any:
        return await self._store.run(script, self._store.bucket(place.any_thread), **arguments)


def _read(fields: dict[str, str], scope: str) -> Rules:
    """The stored rules; one that this release cannot read is left out, with a line in the log."""
    rules = NO_RULES
    for name, text in fields.items():
        try:
            rules = read_rules({name: codec.load(text)}, scope).over(rules)
        except (UsageError, codec.Undecodable) as error:
            log.warning("a stored rule is not understood", scope=scope, rule=name, error=str(error))
    return rules
