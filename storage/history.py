"""The stored turns of threads: `core.ports.History`.

A core that answers in a thread again reads only the changes since its last read: the cost is the
same for ten turns and for ten thousand.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count as count_up

import structlog

from core.place_rules import marks_on
from core.queue_types import Branching, Claim, Place, PromptRoom, StoredTurn, ThreadSummary, Window
from core.types import Bounded, ThreadKey, Turn
from storage import codec, keys
from storage.store import Store

log = structlog.get_logger()

KEPT_THREADS = 1024
"""Threads that one process caches; the least recently read one is dropped first."""

MOST_BRANCHES = 100
"""Copies of one thread, and of its copies."""
BRANCH_DEPTH = 10
"""How often a copy may be made of a copy."""

Row = tuple[str, str | None, str | None, str | None]


class _CachedThread:
    """The cached history of one thread, in order, at a version."""

    def __init__(self) -> None:
        self.version = 0
        self.turns: list[StoredTurn] = []
        self._scores: list[float] = []
        self._score_of: dict[str, float] = {}

    def update(self, version: int, rows: Iterable[Row], all_: int) -> None:
        if all_:
            self.clear()
        for row in rows:
            self.apply(row)
        self.version = version

    def clear(self) -> None:
        self.turns.clear()
        self._scores.clear()
        self._score_of.clear()

    def apply(self, row: Row) -> None:
        """Apply one changed turn: new, edited, or removed."""
        id_, score, record, _ = row
        self._remove(id_)
        if score is None or record is None:
            return
        for stored in _readable([row]):
            at = bisect_left(self._scores, float(score))
            self._scores.insert(at, float(score))
            self._score_of[id_] = float(score)
            self.turns.insert(at, stored)

    def _remove(self, id_: str) -> None:
        score = self._score_of.pop(id_, None)
        if score is not None:
            at = bisect_left(self._scores, score)
            del self._scores[at], self.turns[at]


def _readable(rows: Iterable[Row], needed: str = "") -> Iterator[StoredTurn]:
    """The turns in rows. An unreadable record is left out and logged, so that its thread can still
    be answered; but Undecodable for the turn `needed`.
    """
    for id_, _, record, count in rows:
        if record is None:
            continue
        try:
            yield codec.decode_turn(id_, record, count)
        except codec.Undecodable as error:
            if id_ == needed:
                raise
            log.warning("a turn is poisoned", turn=id_, error=str(error))


class RedisHistory:
    """The turns of each thread, and their deletion."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cached = Bounded[ThreadKey, _CachedThread](KEPT_THREADS)

    async def window(self, claim: Claim) -> Window:
        thread = claim.job.thread
        copy = self._copy(thread)
        version, all_, history, mailbox = claim.window or await self._store.run_on(
            "window", thread, since=copy.version, turn=claim.job.turn
        )
        if version >= copy.version or not version:  # else another window was newer
            copy.update(version, history, all_)
        unread = tuple(_readable(mailbox, needed=claim.job.turn))
        return Window(copy.turns, unread, version)

    def _copy(self, thread: ThreadKey) -> _CachedThread:
        copy = self._cached.setdefault(thread, _CachedThread())
        self._cached.move_to_end(thread)
        return copy

    async def turns(self, thread: ThreadKey) -> Sequence[StoredTurn]:
        _, _, history, mailbox = await self._store.run_on("window", thread, since=0, turn="")
        return list(_readable(history + mailbox))

    async def prompt_room(self, thread: ThreadKey) -> PromptRoom | None:
        name = keys.key("thread", self._store.bucket(thread), str(thread))
        return codec.decode_prompt_room(await self._store.command("hget", name, "reach"))

    async def threads(
        self, platform: str | None = None, since: float = 0.0
    ) -> AsyncIterator[ThreadSummary]:
        for bucket in self._store.all_buckets():
            name = keys.key("threads", bucket)
            rows = await self._store.command("zrevrange", name, 0, -1, True)
            for text, at in rows:
                if float(at) / 1000 < since:
                    break
                thread = ThreadKey.parse(text)
                if platform is None or thread.platform == platform:
                    summary = await self._summary(thread, float(at) / 1000)
                    if summary:
                        yield summary

    async def _summary(self, thread: ThreadKey, at: float) -> ThreadSummary | None:
        bucket, name = self._store.bucket(thread), str(thread)
        epoch = await self._store.command("hget", keys.key("thread", bucket, name), "epoch")
        if epoch is None:
            return None
        counts = await self._store.command("hvals", keys.key("counts", bucket, name))
        turns = await self._store.command("hlen", keys.key("turns", bucket, name))
        jobs = await self._store.command("zcard", keys.key("jobs", bucket, name))
        tokens = sum(codec.decode_count(count)[0] or 0 for count in counts)
        return ThreadSummary(thread, turns, tokens, jobs, int(epoch), at)

    async def reset(self, thread: ThreadKey, by: str) -> int:
        return int(await self._store.run_on("reset", thread, place=str(thread), by=by))

    async def discard(self, thread: ThreadKey, turn: Turn, job: str) -> None:
        names = {"turn": turn.id, "author": turn.author, "job": job}
        await self._store.run_on("discard", thread, **names)

    async def reset_own(self, thread: ThreadKey, by: str) -> int | None:
        turns = int(
            await self._store.run_on("reset", thread, place=str(thread), by=by, only_asker=by)
        )
        return turns if turns >= 0 else None

    async def reset_place(self, place: Place, by: str) -> int:
        scope = str(place)
        kind = "channel" if place.channel else "space"
        forgotten = 0
        for bucket in self._store.buckets_of(place):
            forgotten += int(
                await self._store.run("reset", bucket, kind=kind, scope=scope, place=scope, by=by)
            )
            forgotten += await purge(self._store, bucket, f"{kind} {scope}")
        return forgotten

    async def forget(self, place: Place, person: str, by: str = "") -> int:
        whom = {"space": str(place.whole_space), "author": person, "by": by or person}
        forgotten = 0
        for bucket in self._store.buckets_of(place):
            number, left = await self._store.run("forget", bucket, most=20, first=True, **whom)
            forgotten += number
            if left:
                forgotten += await purge(
                    self._store, bucket, f"person {place.whole_space}:{person}"
                )
        return forgotten

    async def export(
        self, place: Place, person: str
    ) -> AsyncIterator[tuple[ThreadKey, StoredTurn]]:
        for bucket in self._store.buckets_of(place):
            name = keys.key("person", bucket, f"{place.whole_space}:{person}")
            for text in await self._store.command("zrange", name, 0, -1):
                thread = ThreadKey.parse(text)
                turns = await self.turns(thread)
                turns = [*turns, *await self._aside(thread)]
                theirs = {s.turn.id for s in turns if s.turn.author == person}
                for stored in turns:
                    if stored.turn.id in theirs or stored.answers in theirs:
                        yield thread, stored

    async def _aside(self, thread: ThreadKey) -> Sequence[StoredTurn]:
        """The messages that were too long, as long as their beginning can be answered."""
        name = keys.key("aside", self._store.bucket(thread), str(thread))
        kept = await self._store.command("hgetall", name)
        rows = [(id_, None, codec.load(text)["record"], None) for id_, text in kept.items()]
        return list(_readable(rows))

    async def marks(self, thread: ThreadKey) -> Mapping[str, float]:
        found = await self._store.command("hgetall", keys.key("marks", self._store.bucket(thread)))
        return {name: float(at) / 1000 for name, at in found.items()}

    async def is_forgotten(self, thread: ThreadKey, author: str, at: float) -> bool:
        marks = keys.key("marks", self._store.bucket(thread))
        found = await self._store.command("hmget", marks, *marks_on(thread, author))
        return any(1000 * at <= int(mark) for mark in found if mark)

    async def takes_part(self, thread: ThreadKey) -> bool:
        name = keys.key("thread", self._store.bucket(thread), str(thread))
        return bool(await self._store.command("exists", name))

    async def may_branch(self, thread: ThreadKey, turn: str, press: str) -> Branching:
        return await self._branch(thread, turn, into="", press=press)

    async def branch(self, thread: ThreadKey, turn: str, into: ThreadKey) -> Branching:
        """Both threads are in one channel, and so in one bucket."""
        return await self._branch(thread, turn, into=str(into), press="")

    async def _branch(self, thread: ThreadKey, turn: str, **arguments: str) -> Branching:
        limits = {"most": MOST_BRANCHES, "depth": BRANCH_DEPTH}
        outcome, evicted = await self._store.run_on(
            "branch", thread, turn=turn, **arguments, **limits
        )
        return Branching(outcome, bool(evicted))

    async def branches(self, thread: ThreadKey) -> Sequence[ThreadKey]:
        name = keys.key("branches", self._store.bucket(thread), str(thread))
        return sorted(map(ThreadKey.parse, await self._store.command("smembers", name)), key=str)


async def purge(store: Store, bucket: int, name: str, most: int | None = None) -> int:
    """Continue the deletions of a reset or a forget, a few threads a script. Returns the number of
    deleted turns.

    `name`: its field in the key ``purges``. `most`: the number of scripts; None: until the end.
    """
    kind, _, scope = name.partition(" ")
    if kind == "person":
        space, _, author = scope.rpartition(":")
        step = partial(store.run, "forget", bucket, space=space, author=author, by="", first=False)
    else:
        step = partial(store.run, "purge", bucket, kind=kind, scope=scope)
    gone = 0
    for _ in count_up() if most is None else range(most):
        number, left = await step(most=20)
        gone += int(number)
        if not left:
            break
    return gone
