"""The rules that admins set for places (`core.ports.RuleBook`), and the audit log."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

import structlog

from core.access_policy import Asker, Policy
from core.errors import UsageError
from core.place_rules import (
    BOT,
    CHANNEL,
    DAY,
    NO_RULES,
    Choice,
    Rules,
    ThreadRules,
    filled,
    has_placeholder,
    read_rules,
    scopes,
)
from core.queue_types import AuditEntry, Place
from core.types import DIRECT, ThreadKey
from storage import codec, keys
from storage.store import Store

_Fields: TypeAlias = Mapping[str, str]

BOT_NAME = "Henji"
"""The bot's name if no platform has named it."""

log = structlog.get_logger()


class RedisRules:
    """The rules that admins have set, combined with those of henji.toml."""

    def __init__(self, store: Store, policy: Policy) -> None:
        self._store = store
        self._policy = policy

    async def rules(self, thread: ThreadKey) -> Rules:
        return (await self.in_thread(thread)).rules

    async def in_thread(self, thread: ThreadKey) -> ThreadRules:
        space, channel, choice, names = await self._stored(thread)
        held = Choice(choice.get("model", ""), choice.get("persona", ""))
        rules = self._policy.rules(thread, space, channel, held)
        prompt = self._policy.system_prompt if rules.system_prompt is None else rules.system_prompt
        if not has_placeholder(prompt):
            return ThreadRules(rules, held)
        today = datetime.now(self._policy.zone).date().isoformat()
        called, bot = names.get("channel", thread.channel), names.get("bot", BOT_NAME)
        prompted = {"system_prompt": filled(prompt, today, called, bot)}
        names_place = CHANNEL in prompt or BOT in prompt
        return ThreadRules(rules.model_copy(update=prompted), held, names_place)

    async def choose(self, thread: ThreadKey, choice: Choice) -> None:
        await self._store.run_on("choose", thread, **codec.fields(choice))

    async def remember_names(self, thread: ThreadKey, channel: str, bot: str) -> None:
        await self._store.run(
            "remember_names",
            self._store.bucket(thread),
            scope=scopes(thread)[1],
            channel=channel,
            bot=bot,
        )

    async def set_here(self, place: Place) -> Rules:
        space, channel, _, _ = await self._stored(place.any_thread)
        return channel if place.channel else space

    async def change(self, place: Place, name: str, value: Any, by: str) -> None:
        text = "" if value is None else json.dumps(value, ensure_ascii=False, default=_plain)
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

    async def denied(self, thread: ThreadKey, people: Collection[str]) -> Collection[str]:
        """By the lists, and by each person's last known roles."""
        rules = await self.rules(thread)
        askers = [await self._asker(thread, person) for person in people]
        return [asker.person for asker in askers if self._policy.denies(rules, asker)]

    async def _asker(self, thread: ThreadKey, person: str) -> Asker:
        name = f"{thread.platform}:{person}"
        key = keys.key("roles", self._roles_bucket(thread.platform, person), name)
        space = str(Place(thread.platform, thread.space))
        known = await self._store.command("hget", key, space)
        return Asker(thread, person, tuple(known.split(",")) if known else ())

    def _roles_bucket(self, platform: str, person: str) -> int:
        return self._store.bucket(ThreadKey(platform, DIRECT, person, "-"))

    async def _stored(self, thread: ThreadKey) -> tuple[Rules, Rules, _Fields, _Fields]:
        """The rules of a thread's space and channel, the choices for it, and names."""
        found = await self._store.run_on("read_rules", thread, scopes=list(scopes(thread)))
        *rules, choice, names = map(codec.flatten, found)
        space, channel = map(_read, rules, scopes(thread))
        return space, channel, choice, names

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


def _plain(value: Any) -> Any:
    """A value without a JSON form: a persona."""
    return value.set_here()


def _read(fields: _Fields, scope: str) -> Rules:
    """The stored rules. An unreadable one is left out and logged."""
    rules = NO_RULES
    for name, text in fields.items():
        try:
            rules = read_rules({name: codec.load(text)}, scope).over(rules)
        except (UsageError, codec.Undecodable) as error:
            log.warning("a stored rule is not understood", scope=scope, rule=name, error=str(error))
    return rules


# -- the audit log ------------------------------------------------------------------------------


class RedisAudit:
    """`core.ports.Audit`: one stream a bucket, with resets, deletions, new rules and reading."""

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
