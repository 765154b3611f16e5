"""The job queue in Redis: `core.ports.JobQueue`. The atomic steps are in scripts/."""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import replace
from itertools import cycle
from typing import Any, cast

from core.access_policy import OPEN_PERMIT, Permit, Quota
from core.background import cancel
from core.errors import StoreUnavailable
from core.queue_types import (
    Claim,
    Commit,
    DeadLetter,
    DuelSettings,
    FenceResult,
    Load,
    QuotedTurn,
    Receipt,
    Regeneration,
    Spent,
    Submission,
    Sweep,
)
from core.types import BETWEEN_FILES, Delta, Job, ThreadKey, Turn
from storage import codec, keys
from storage.connect import BLOCKING_SECONDS
from storage.history import purge
from storage.store import REDIS_FAULTS, Store
from storage.usage import RedisUsage

FAULT_SECONDS = 0.2

PURGE_SECONDS = 5.0
"""Seconds after a purge's last step until its process counts as dead."""
PURGE_STEPS = 25
"""Scripts of a dead process's purge in one sweep."""
REWRITE_SECONDS = 1800.0
"""Seconds from a deletion to the rewrite of the append-only file."""
AUDITED = 200_000
"""About how many entries of the audit log a bucket keeps: anybody may reset and forget."""

BULK_COST = 8
"""The cost of a bulk request in the fair order, in ordinary requests."""


UNSAID: Sequence[Any] = ("", 0, "", 0, 0, 0)
"""Fields of a receipt that a script may leave out: job, position, code, whether the thread waits
to be seeded, until, and whether new files must be read."""


class RedisQueue:
    """Jobs, claimed in the fair order."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._usage = RedisUsage(store)
        self._turn = cycle(store.all_buckets())
        self._watches: dict[int, asyncio.Task[None]] = {}
        self._woken = asyncio.Event()
        """A watch has ended."""

    # -- the adapters' side ---------------------------------------------------------------------

    async def submit(self, submission: Submission, holder: str) -> Receipt:
        thread, turn = submission.thread, submission.turn
        job = Job.id_for(thread, turn.id, submission.revision)
        return await self._ask(
            "submit",
            thread,
            holder,
            turn=turn.id,
            record=codec.encode_turn(turn),
            author=turn.author,
            addressed=submission.addressed,
            events=submission.event_ids,
            job=job,
            seed=str(Job.seed_for(job)),
            revision=submission.revision,
            lane=submission.lane,
            backfill_ms=_ms(submission.backfill_wait),
            unread=submission.unread,
            cost=BULK_COST if submission.bulk else 1,
            tell=submission.tell,
            measures=submission.counts_tokens,
            terms=codec.encode_persona(submission.persona),
            uncounted=not submission.counts_as_message,
            alone=submission.alone or not self._store.answer_together,
            note=codec.dump(dict(submission.note)),
            quote=_quote_fields(turn, submission.quote),
            **_duel_settings(submission.duel),
            **await self._permitted(submission.permit, thread, turn.author),
        )

    async def seed(self, thread: ThreadKey, turns: Sequence[Turn]) -> None:
        rows = [
            {
                "id": turn.id,
                "author": turn.author,
                "at_ms": _ms(turn.at),
                "record": codec.encode_turn(turn),
            }
            for turn in turns[-self._store.limits.mailbox :]
        ]
        await self._store.run_on("seed", thread, turns=rows)

    async def attach(self, thread: ThreadKey, turn: Turn, job: str = "") -> bool:
        answer = await self._store.run_on(
            "attach", thread, turn=turn.id, job=job, text=turn.files_text,
            files=codec.encode_files(turn.files), sources=codec.encode_sources(turn.files),
        )  # fmt: skip
        return bool(answer)

    async def turn_away(
        self,
        thread: ThreadKey,
        job: str,
        code: str,
        message: str,
        sources: Sequence[str] = (),
        quoted: str = "",
    ) -> bool:
        known = codec.dump(list(sources)) if sources else ""
        answer = await self._store.run_on(
            "turn_away", thread, job=job, code=code, message=message, sources=known, quoted=quoted
        )
        return bool(answer)

    async def edit(
        self,
        thread: ThreadKey,
        turn: str,
        text: str,
        revision: str,
        lane: str,
        holder: str,
        permit: Permit = OPEN_PERMIT,
        files: Turn | None = None,
        note: Mapping[str, str] | None = None,
        *,
        author: str = "",
        copied: bool = False,
        expected: bool = True,
    ) -> Receipt:
        job = Job.id_for(thread, turn, revision)
        known = {"files": codec.unread_fields(files, note)} if files else {}
        return await self._ask(
            "edit", thread, holder, turn=turn, text=text, revision=revision, lane=lane,
            author=author, job=job, seed=str(Job.seed_for(job)), copied=copied, expected=expected,
            **known, **await self._permitted(permit, thread, author),
        )  # fmt: skip

    async def delete(self, thread: ThreadKey, turn: str) -> Sequence[str]:
        return cast("list[str]", await self._store.run_on("delete", thread, turn=turn))

    async def regenerate(self, wanted: Regeneration, holder: str) -> Receipt:
        job = Job.id_for(wanted.thread, wanted.reply, wanted.revision)
        note = {} if wanted.note is None else {"note": codec.dump(dict(wanted.note))}
        script = "read_beginning" if wanted.truncates else "regenerate"
        return await self._ask(
            script, wanted.thread, holder, reply=wanted.reply, revision=wanted.revision,
            author=wanted.author, lane=wanted.lane, job=job, seed=str(Job.seed_for(job)),
            resumes=wanted.resumes, **note,
            **await self._permitted(wanted.permit, wanted.thread, wanted.author),
        )  # fmt: skip

    async def cancel(self, thread: ThreadKey, job: str) -> bool:
        return bool(await self._store.run_on("cancel", thread, job=job))

    async def open_jobs(self, thread: ThreadKey) -> Mapping[str, str]:
        bucket = self._store.bucket(thread)
        jobs = await self._store.command("zrange", keys.key("jobs", bucket, str(thread)), 0, -1)
        names = [keys.key("job", bucket, job) for job in jobs]
        people = [await self._store.command("hmget", name, "asker", "author") for name in names]
        return {
            job: asker or author or "" for job, (asker, author) in zip(jobs, people, strict=True)
        }

    async def spent(self, thread: ThreadKey, person: str, quota: Quota) -> Spent:
        return await self._usage.today(thread, person, quota)

    async def positions(self, thread: ThreadKey, jobs: Sequence[str]) -> Sequence[int]:
        return cast("list[int]", await self._store.run_on("positions", thread, jobs=jobs))

    # -- the cores' side ------------------------------------------------------------------------

    async def announce(self, lane: str, core: str, seconds: float, reads: int = 0) -> None:
        said = {"lane": lane, "core": core, "for_ms": _ms(seconds), "reads": reads}

        def step(bucket: int) -> Awaitable[Any]:
            return self._store.run("announce", bucket, **said)

        _, fault = await self._store.each(self._store.all_buckets(), step)
        if fault:
            raise fault

    async def withdraw(self, lane: str, core: str) -> None:
        await self.announce(lane, core, 0)

    async def cores(self, lane: str) -> int:
        return len(await self.serving(lane))

    async def serving(self, lane: str) -> Sequence[str]:
        """The names of the cores that serve a lane."""
        seconds, micros = await self._store.command("time")
        now = seconds * 1000 + micros // 1000
        name = keys.key("lane", 0, lane)  # every bucket has the same
        found = await self._store.command("zrangebyscore", name, f"({now}", "+inf")
        return cast("list[str]", found)

    async def reads(self, lane: str) -> int:
        return int(await self._store.command("get", keys.key("reads", 0, lane)) or 0)

    async def load(self, lane: str) -> Load:
        waiting = outstanding = dead = 0
        for bucket in self._store.all_buckets():
            command = self._store.command
            waiting += int(await command("get", keys.key("waiting", bucket, lane)) or 0)
            outstanding += int(await command("hget", keys.key("open", bucket), "all") or 0)
            dead += int(await command("xlen", keys.key("dead", bucket)))
        return Load(waiting, outstanding, await self.cores(lane), dead)

    async def claim(self, lane: str, core: str, most: int) -> Sequence[Claim]:
        claims: list[Claim] = []
        fault: StoreUnavailable | None = None
        for _ in self._store.all_buckets():
            try:
                await self._claim_in(next(self._turn), lane, core, most, claims)
            except StoreUnavailable as error:
                fault = error
            if len(claims) >= most or (fault and claims):
                break  # claims in hand do not wait for a server that is away
        if fault and not claims:
            raise fault
        return claims

    async def _claim_in(
        self, bucket: int, lane: str, core: str, most: int, claims: list[Claim]
    ) -> None:
        """Add jobs of this bucket to `claims`, up to `most`."""
        poisoned = True
        while poisoned and len(claims) < most:  # a poisoned job's slot goes to the next
            rows = await self._store.run(
                "claim", bucket, lane=lane, core=core, lease_ms=_ms(self._store.lease),
                most=most - len(claims),
            )  # fmt: skip
            healthy = [claim for row in rows if (claim := await self._claim(bucket, *row))]
            claims += healthy
            poisoned = len(healthy) < len(rows)

    async def _claim(
        self,
        bucket: int,
        id_: str,
        flat: list[str],
        gen: int,
        epoch: str,
        waited_ms: int,
        window: Any,
    ) -> Claim | None:
        fields = codec.flatten(flat)
        try:
            job = codec.decode_job(id_, fields)
        except codec.Undecodable as error:
            # poisoned: it must not stop others, and ends with its lease at the latest
            with contextlib.suppress(StoreUnavailable):
                await self._store.run(
                    "fail", bucket, thread=fields.get("thread", ""), job=id_, gen=gen,
                    code="internal", message=str(error), retry=True, max_attempts=0, backoff_ms=0,
                )  # fmt: skip
            return None
        return Claim(job, gen, int(fields["starts"]), int(epoch), waited_ms / 1000, window)

    async def wait(self, lane: str, seconds: float) -> None:
        """Return when a thread of the lane became ready, or after `seconds`."""
        for bucket in self._store.all_buckets():
            if bucket not in self._watches:
                self._watches[bucket] = asyncio.create_task(self._watch(bucket, lane))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        self._woken.clear()
        for bucket in [bucket for bucket, watch in self._watches.items() if watch.done()]:
            await self._watches.pop(bucket)

    async def _watch(self, bucket: int, lane: str) -> None:
        """Return when a thread of the lane becomes ready in this bucket, or did so before."""
        name = keys.key("wake", bucket, lane)
        try:
            while not await self._store.connection.blocking().blpop(
                [name], timeout=BLOCKING_SECONDS
            ):
                pass
        except REDIS_FAULTS:
            await asyncio.sleep(FAULT_SECONDS)  # the next claim reports the fault
        finally:
            self._woken.set()

    async def aclose(self) -> None:
        await cancel(*self._watches.values())

    async def dead(self, most: int = 100) -> Sequence[DeadLetter]:
        letters = []
        for bucket in self._store.all_buckets():
            name = keys.key("dead", bucket)
            for id_, fields in await self._store.command("xrevrange", name, "+", "-", most):
                number = int(fields.pop("attempts"))
                letters.append(DeadLetter(id=f"{bucket}/{id_}", attempts=number, **fields))
        return sorted(letters, key=lambda letter: letter.id.split("/")[1], reverse=True)[:most]

    async def requeue(self, letter: DeadLetter, lane: str) -> Receipt:
        bucket, _, id_ = letter.id.partition("/")
        try:
            job = Job.id_for(ThreadKey.parse(letter.thread), letter.turn, id_)
        except ValueError:  # its thread is malformed
            return Receipt("refused", code="prompt_gone")
        return await self._ask_in(
            int(bucket), "requeue", "", letter=id_, lane=lane, job=job, seed=str(Job.seed_for(job)),
            delivery_ms=0,
        )  # fmt: skip

    async def check_writes(self) -> None:
        for bucket in self._store.all_buckets():
            await self._store.command("set", keys.key("probe", bucket), "1", keys.PROBE)

    async def sweep(self) -> Sweep:
        """See `JobQueue`. Also continues a reset or a forget whose process died."""

        def step(bucket: int) -> Awaitable[Any]:
            return self._store.run(
                "sweep", bucket, max_attempts=self._store.max_attempts,
                purge_ms=_ms(PURGE_SECONDS), rewrite_ms=_ms(REWRITE_SECONDS),
                most_audited=AUDITED,
            )  # fmt: skip

        answers, _ = await self._store.each(self._store.all_buckets(), step)
        for bucket, (_, purges, rewrite, _) in answers.items():
            for name in purges:
                await purge(self._store, bucket, name, PURGE_STEPS)
            if rewrite:
                await self._store.rewrite_file(bucket)
        due = [due_ms / 1000 for *_, due_ms in answers.values() if due_ms >= 0]
        return Sweep(
            taken_over=sum(taken_over for taken_over, *_ in answers.values()),
            due_in=min(due, default=math.inf),
        )

    async def renew(self, claims: Sequence[Claim]) -> Mapping[str, FenceResult]:
        by_bucket: dict[int, list[Claim]] = defaultdict(list)
        for claim in claims:
            by_bucket[self._store.bucket(claim.job.thread)].append(claim)

        def step(bucket: int) -> Awaitable[Sequence[FenceResult]]:
            held = by_bucket[bucket]
            rows = [{"thread": str(c.job.thread), "job": c.job.id, "gen": c.gen} for c in held]
            return self._store.run("renew", bucket, held=rows, lease_ms=_ms(self._store.lease))

        answers, _ = await self._store.each(by_bucket, step)
        return {
            claim.job.id: result
            for bucket, results in answers.items()
            for claim, result in zip(by_bucket[bucket], results, strict=True)
        }

    async def publish(self, claim: Claim, delta: Delta | None, spent: int = 0) -> FenceResult:
        # no words of a duel are shown before both answers: the speed would reveal the model
        is_shown = delta is not None and not (claim.job.duel and delta.text)
        event = codec.encode_event(delta) if delta is not None and is_shown else ""
        return await self._fenced("publish", claim, event=event, spent=spent)

    async def commit(self, claim: Claim, commit: Commit) -> FenceResult:
        return await self._fenced(
            "commit",
            claim,
            stopped=commit.done.finish_reason == "cancelled",
            reply=codec.encode_turn(commit.reply, answers=claim.job.turn,
                                    finish_reason=commit.done.finish_reason)
            if commit.reply else "",
            reply_count=codec.encode_count(commit.done.usage.reply_tokens, commit.fingerprint)
            if commit.counts_reply else False,
            counts={
                id_: codec.encode_count(count, commit.fingerprint)
                for id_, count in commit.counts.items()
            },
            tokens=commit.done.usage.prompt_tokens + commit.done.usage.reply_tokens,
            version=commit.version,
            evict=commit.evict,
            cut=codec.cut_fields(commit.cut),
            done=codec.encode_event(commit.done),
            dropped=commit.done.usage.dropped_turns,
            reach=codec.encode_prompt_room(commit.prompt_room),
            made=codec.encode_made(commit.model, commit.sampling, claim.job.seed),
            model=commit.model,
            draw=secrets.randbits(2),
            **codec.trace_fields(commit.trace),
        )  # fmt: skip

    async def fail(
        self, claim: Claim, code: str, message: str, *, retry: bool, forget: bool = False
    ) -> FenceResult:
        return await self._fenced(
            "fail", claim, code=code, message=message, retry=retry, forget=forget,
            max_attempts=self._store.max_attempts, backoff_ms=_ms(self._store.backoff),
        )  # fmt: skip

    async def release(self, claim: Claim) -> FenceResult:
        return await self._fenced("release", claim)

    async def _permitted(self, permit: Permit, thread: ThreadKey, person: str) -> dict[str, Any]:
        """A permit for the scripts, with the person's usage in other buckets."""
        quota = codec.fields(permit.quota)
        everywhere = permit.quota.all_messages or permit.quota.all_tokens
        if everywhere and person and self._store.buckets > 1:
            quota |= await self._usage.elsewhere(permit.quota, thread, person)
        return {
            "refuse": permit.refuse,
            "read": permit.read,
            "quota": quota,
            "keep_ms": _ms(permit.retention or 0),
        }

    # -- between here and Redis -----------------------------------------------------------------

    async def _ask(self, script: str, thread: ThreadKey, holder: str, **arguments: Any) -> Receipt:
        return await self._ask_in(
            self._store.bucket(thread), script, holder, thread=str(thread), **arguments
        )

    async def _ask_in(self, bucket: int, script: str, holder: str, **arguments: Any) -> Receipt:
        common: dict[str, Any] = {
            "holder": holder,
            "limits": codec.fields(self._store.limits),
            "deadline_ms": _ms(self._store.deadline),
            "delivery_ms": _ms(self._store.delivery_lease),
        }
        answer: list[Any] = await self._store.run(script, bucket, **(common | arguments))
        outcome, said = answer[0], answer[1:]
        job, position, code, held, until, unread = (*said, *UNSAID[len(said) :])
        return Receipt(outcome, job or None, position, code, bool(held), until / 1000, bool(unread))

    async def _fenced(self, script: str, claim: Claim, **arguments: Any) -> FenceResult:
        answer = await self._store.run_on(
            script, claim.job.thread, job=claim.job.id, gen=claim.gen, **arguments
        )
        return cast("FenceResult", answer)


def _quote_fields(turn: Turn, quote: QuotedTurn | None) -> Mapping[str, Any] | None:
    """The quoted message, and the message's record in each form."""
    if quote is None:
        return None
    said = quote.turn

    def record(text: str) -> str:
        whole = BETWEEN_FILES.join(filter(None, (text, turn.files_text)))
        return codec.encode_turn(replace(turn, text=whole))

    return {
        "id": quote.id,
        "pointing": record(quote.pointing),
        "quoting": record(quote.quoting),
        "record": codec.encode_turn(said) if said else "",
        "author": said.author if said else "",
        "at_ms": _ms(said.at) if said else 0,
    }


def _duel_settings(duel: DuelSettings | None) -> dict[str, Any]:
    if duel is None:
        return {}
    return {"duel": {"lane": duel.lane, "votes": duel.votes, "for_ms": _ms(duel.seconds)}}


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
