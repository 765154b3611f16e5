"""Ratings and votes of people (`core.ports.Feedback`), and the samples kept for training."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import structlog

from core.ports import RuleBook
from core.queue_types import Opinion, Place, Rating, Sample, StoredDuel
from core.types import ThreadKey, Verdict
from storage import codec, keys
from storage.store import Store

KEPT = 10_000
"""Opinions that a bucket keeps, about; the oldest go first."""

log = structlog.get_logger()


class RedisFeedback:
    """Ratings with their reasons, in one stream a bucket."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def keep(
        self,
        thread: ThreadKey,
        job: str,
        by: str,
        rating: Rating,
        reason: str = "",
        *,
        collect: bool = False,
    ) -> None:
        """Store a person's rating of a reply; it replaces an earlier one of theirs."""
        await self._store.run_on(
            "add_feedback",
            thread,
            job=job,
            by=by,
            verdict=rating,
            reason=reason,
            most=KEPT,
            collect=collect,
        )

    async def vote(
        self, thread: ThreadKey, job: str, by: str, verdict: Verdict, *, collect: bool = False
    ) -> bool:
        """Count a person's vote in a duel, in place of an earlier one; False where it is over."""
        bucket, name = self._store.bucket(thread), str(thread)
        given = {"job": job, "by": by, "verdict": verdict, "collect": collect}
        return bool(await self._store.run("vote", bucket, thread=name, **given))

    async def opinions(self, place: Place, most: int = KEPT) -> Sequence[Opinion]:
        """The ratings of replies in a channel or a space, newest first."""
        name = keys.key("feedback", self._store.bucket(place.any_thread))
        rows = await self._store.command("xrevrange", name, "+", "-", KEPT * 2)
        found: dict[tuple[str, str], Opinion] = {}
        for id_, fields in rows:
            try:
                opinion = codec.decode_opinion(id_, fields)
            except codec.Undecodable as error:
                log.warning("an opinion is not understood", error=str(error))
                continue
            thread = opinion.thread
            if (thread.platform, thread.space) == (place.platform, place.space) and (
                place.channel in (None, thread.channel)
            ):
                found.setdefault((opinion.job, opinion.by), opinion)
        return list(found.values())[:most]


AT_ONCE = 20
"""Threads of one script."""


class RedisPreferences:
    """`core.ports.Preferences`: samples and duels, by place or by person, and who opted out."""

    def __init__(self, store: Store, rulebook: RuleBook) -> None:
        self._store = store
        self._rulebook = rulebook

    # -- opting out -----------------------------------------------------------------------------

    async def opt_out(self, place: Place, person: str, *, out: bool = True) -> None:
        whom = {"space": str(place.whole_space), "person": person, "out": out, "most": AT_ONCE}
        for bucket in self._store.buckets_of(place):
            done, went = 0, AT_ONCE
            while went == AT_ONCE:
                went = await self._store.run("opt_out", bucket, **{"from": done}, **whom)
                done += went

    async def has_opted_out(self, place: Place, person: str) -> bool:
        name = keys.key("optouts", self._store.bucket(place.any_thread))
        return bool(await self._store.command("hexists", name, f"{place.whole_space} {person}"))

    async def digest(self, place: Place, person: str) -> str:
        """A pseudonym of a person, which only this store can compute."""
        name = keys.key("salt", self._store.bucket(place.any_thread))
        life = keys.seconds_of("salt")
        await self._store.command("set", name, secrets.token_hex(16), life, None, True)  # NX
        salt = await self._store.command("get", name)
        whom = f"{place.whole_space}:{person}".encode()
        return hmac.new(salt.encode(), whom, hashlib.sha256).hexdigest()[:32]

    # -- reading --------------------------------------------------------------------------------

    async def samples(self, place: Place) -> AsyncIterator[Sample]:
        """The samples of a channel or a space, without those that an author has forbidden."""
        async for thread in self._threads(place):
            for sample in await self._samples_of(thread):
                yield sample

    async def duels(self, place: Place) -> AsyncIterator[StoredDuel]:
        """The duels of a channel or a space that have two answers."""
        async for thread in self._threads(place):
            for job, _, fields in await self._kept(thread, "duel"):
                if "order" in fields:
                    try:
                        yield codec.decode_duel(thread, job, fields)
                    except codec.Undecodable as error:
                        log.warning("a duel is not understood", job=job, error=str(error))

    async def of_person(self, place: Place, person: str) -> AsyncIterator[Sample]:
        for bucket in self._store.buckets_of(place):
            name = keys.key("person", bucket, f"{place.whole_space}:{person}")
            for text in await self._store.command("zrange", name, 0, -1):
                for sample in await self._samples_of(ThreadKey.parse(text)):
                    if person in sample.authors or person in sample.votes:
                        yield sample

    async def _samples_of(self, thread: ThreadKey) -> list[Sample]:
        found = []
        rows = await self._kept(thread, "sample")
        if rows:
            rows = await self._kept(thread, "sample", await self._denied(thread, rows))
        for job, entry, fields in rows:
            try:
                found.append(codec.decode_sample(thread, job, entry, fields))
            except codec.Undecodable as error:
                log.warning("a sample is not understood", job=job, error=str(error))
        return found

    async def _denied(self, thread: ThreadKey, rows: Iterable[tuple[str, str, Any]]) -> list[str]:
        people = {person for _, entry, _ in rows for person in codec.load(entry)["authors"]}
        return list(await self._rulebook.denied(thread, people))

    async def _kept(
        self, thread: ThreadKey, key: str, denied: Iterable[str] = ()
    ) -> list[tuple[str, str, dict[str, str]]]:
        rows = await self._store.run_on("read_kept", thread, key=key, denied=list(denied))
        return [(job, entry, codec.flatten(flat)) for job, entry, flat in rows]

    async def _threads(self, place: Place) -> AsyncIterator[ThreadKey]:
        for bucket in self._store.buckets_of(place):
            for name in await self._store.command("zrange", keys.key("threads", bucket), 0, -1):
                if name.startswith(f"{place}:"):
                    yield ThreadKey.parse(name)
