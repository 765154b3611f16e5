"""The state of the whole system: `core.ports.ReportBoard`, and what Redis itself says."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, fields

from core.queue_types import ProcessReport, ServerState
from storage import codec, keys
from storage.store import Store

FIELDS = tuple(field.name for field in fields(ProcessReport))
NAME = keys.key("reports", 0)


class RedisReports:
    """A hash in the first bucket, a field for each process."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def report(self, report: ProcessReport) -> None:
        await self._store.command("hset", NAME, report.name, codec.dump(asdict(report)))
        await self._store.command("expire", NAME, keys.HOUR)

    async def withdraw(self, name: str) -> None:
        await self._store.command("hdel", NAME, name)

    async def reports(self) -> Sequence[ProcessReport]:
        found = []
        for name, text in (await self._store.command("hgetall", NAME)).items():
            values = codec.load(text)
            report = ProcessReport(**{key: values[key] for key in FIELDS if key in values})
            if time.time() - report.at > keys.HOUR:
                await self._store.command("hdel", NAME, name)
            else:
                found.append(report)
        return sorted(found, key=lambda report: (report.part, report.name))

    async def oldest_wait(self) -> float:
        """Seconds since the arrival of the oldest message that is owed a reply; 0: none is."""
        oldest = 0.0
        for bucket in self._store.all_buckets():
            first = await self._store.command("zrange", keys.key("deadlines", bucket), 0, 0)
            for job in first:
                at = await self._store.command("hget", keys.key("job", bucket, job), "at")
                oldest = max(oldest, time.time() - int(at) / 1000) if at else oldest
        return oldest

    async def server(self) -> ServerState:
        """Of a Cluster, its default node."""
        info = await self._store.command("info")
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
