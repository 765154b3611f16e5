"""State that processes share: leases, secrets, questions not yet posted, and their reports."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace

from redis.exceptions import NoPermissionError

from core.errors import StoreUnavailable
from core.queue_types import ProcessReport, ServerState
from storage import codec, keys
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


NAMELESS_SERVER = ServerState("Redis, whose user may not run INFO", 0, 0, 0, file_ok=True)
"""For a user without that command, which Redis counts as dangerous."""

REPORT_FIELDS = tuple(field.name for field in fields(ProcessReport))
REPORTS = keys.key("reports", 0)


class RedisReports:
    """`core.ports.ReportBoard`: a hash in the first bucket, with a field for each process.

    Times are stored by Redis's clock, since those of hosts differ.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def report(self, report: ProcessReport) -> None:
        stored = asdict(_shifted(report, await self._seconds_ahead()))
        await self._store.run("report", 0, name=report.name, report=codec.dump(stored))

    async def withdraw(self, name: str) -> None:
        await self._store.command("hdel", REPORTS, name)

    async def reports(self) -> Sequence[ProcessReport]:
        found, ahead = [], await self._seconds_ahead()
        for name, text in (await self._store.command("hgetall", REPORTS)).items():
            values = codec.load(text)
            stored = ProcessReport(**{key: values[key] for key in REPORT_FIELDS if key in values})
            report = _shifted(stored, -ahead)
            if time.time() - report.at > keys.HOUR:
                await self._store.command("hdel", REPORTS, name)
            else:
                found.append(report)
        return sorted(found, key=lambda report: (report.part, report.name))

    async def oldest_wait(self) -> float:
        """Seconds since the arrival of the oldest message without a reply; 0: there is none."""
        oldest, now = 0.0, time.time() + await self._seconds_ahead()
        for bucket in self._store.all_buckets():
            first = await self._store.command("zrange", keys.key("deadlines", bucket), 0, 0)
            for job in first:
                at = await self._store.command("hget", keys.key("job", bucket, job), "at")
                oldest = max(oldest, now - int(at) / 1000) if at else oldest
        return oldest

    async def server(self) -> ServerState:
        """Of a Cluster, its default node."""
        try:
            info = await self._store.command("info")
        except StoreUnavailable as error:
            if isinstance(error.__cause__, NoPermissionError):
                return NAMELESS_SERVER
            raise
        if "redis_version" not in info:  # a Cluster answers by node
            info = next(iter(info.values()))
        valkey = info.get("valkey_version")
        return ServerState(
            name=f"Valkey {valkey}" if valkey else f"Redis {info['redis_version']}",
            memory=int(info.get("used_memory", 0)),
            limit=int(info.get("maxmemory", 0)),
            evicted=int(info.get("evicted_keys", 0)),
            file_ok=info.get("aof_last_write_status", "ok") == "ok"
            and info.get("rdb_last_bgsave_status", "ok") == "ok",
        )

    async def _seconds_ahead(self) -> float:
        """By how much Redis's clock is ahead of this host's."""
        seconds, micros = await self._store.command("time")
        return float(seconds + micros / 1e6 - time.time())


def _shifted(report: ProcessReport, by: float) -> ProcessReport:
    """A report with its times by another clock."""
    error_at = report.error_at + by if report.error_at else 0.0
    return replace(report, at=report.at + by, since=report.since + by, error_at=error_at)
