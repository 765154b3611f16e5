"""Ratings of replies: `core.ports.Feedback`. One stream a bucket."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from core.queue_types import Opinion, Place, Rating
from core.types import ThreadKey, Verdict
from storage import codec, keys
from storage.store import Store

KEPT = 10_000
"""Opinions that a bucket keeps, about; the oldest go first."""

log = structlog.get_logger()


class RedisFeedback:
    """Ratings with their reasons."""

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
        await self._store.run(
            "add_feedback",
            self._store.bucket(thread),
            thread=str(thread),
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
