"""A core: claims jobs, has the engine answer them, publishes the text as it grows, commits.

One worker serves one lane. It holds as many jobs as its engine has slots for, each under a lease.
One call renews all leases. Its result, like that of each publication, says whether a reply is still
wanted.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import structlog

from core.background import cancel, repeat_forever, retry_while_away
from core.dialogue import Dialogue, Prompt, Reply
from core.dialogue.dialogue import SHORT_TURN, PlaceDialogues
from core.engine_types import GenerationRequest
from core.errors import (
    ChatError,
    EngineError,
    EngineRefused,
    StoreUnavailable,
    TurnTooLong,
)
from core.observe import metrics
from core.observe.tracing import span
from core.place_rules import Rules
from core.ports import Engine, History, JobQueue, RuleBook
from core.queue_types import Claim, Commit, FenceResult, Trace, Window
from core.running_job import RunningJob
from core.types import Bounded, Delta, Done, FinishReason, Sampling, Turn, Usage
from core.window import (
    count_tokens,
    files_read,
    missing_counts,
    parts_read,
    reply_to_resume,
    rules_of,
    traced,
    truncate,
    turns_to_evict,
    turns_to_read,
)

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """The settings of a worker. Times are in seconds."""

    lane: str
    name: str
    """Unique among the cores that serve the lane."""
    low_water: float = 0.7
    """The part of its budget to which an over-full prompt is cut."""
    lease: float = 15.0
    drain: float = 20.0
    """How long running jobs may go on after a stop."""
    renew: float = 0.1
    """Between two renewals: the longest until a stopped reply stops. Leases are far longer."""
    sweep: float = 0.25
    """The least between two sweeps."""
    announced_for: float = 10.0
    """How long a killed core still counts as serving the lane."""
    publish: float = 0.15
    """Between two deltas of one reply."""
    thinking: float = 3.0
    """Between two empty deltas while the model thinks."""
    idle: float = 5.0
    """The longest between two claims without a wake-up: another core may die after taking it."""
    retry: float = 0.5
    """Between two tries while Redis is away."""


_FAILED_JOBS = 1000
_LEFT_TO_OTHERS = 3
"""How often a job that failed on this core is left to another core."""
_COUNTED = 1_000_000
"""The longest too long message, in characters, whose tokens are counted for the person."""
_SHORT = 300
_FEW = 4
"""Characters, and turns: such a prompt is built in 2 ms, sooner than a thread is at hand."""
_CHECKS = 3
_CHECK_SECONDS = 30.0


class _GenerationFailed(Exception):
    """The engine raised `error` while it generated a reply."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _counted(error: TurnTooLong, turn: Turn, dialogue: Dialogue) -> TurnTooLong:
    """The error with the turn's real number of tokens instead of the bound that was found first."""
    if len(turn.text) > _COUNTED:
        return error
    return TurnTooLong(max(error.tokens, dialogue.count(turn)), error.limit)


def _result_of(generating: asyncio.Task[FinishReason]) -> FinishReason:
    try:
        return generating.result()
    except EngineRefused:
        raise
    except Exception as error:
        raise _GenerationFailed(error) from error


class Worker:
    """Answers the jobs of one lane until it is stopped."""

    def __init__(
        self,
        queue: JobQueue,
        history: History,
        engine: Engine,
        dialogue: Dialogue,
        settings: WorkerSettings,
        rulebook: RuleBook,
    ) -> None:
        self._queue = queue
        self._history = history
        self._engine = engine
        self._dialogues = PlaceDialogues(dialogue)
        self._rulebook = rulebook
        self._settings = settings
        self._running: dict[str, RunningJob] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._slot_free = asyncio.Event()
        self._woken = asyncio.Event()
        """Set when there may be something new to sweep."""
        self._prompts = ThreadPoolExecutor(1, "prompts")
        self._is_sick = asyncio.Event()
        self._checking: asyncio.Task[None] | None = None
        self._failed_here = Bounded[str, int](_FAILED_JOBS)
        """Job id -> how often it was left to another core after a failure here."""
        self._pause_until = 0.0
        """Nothing is claimed before this time of the monotonic clock."""
        self.fault = ""
        """Why this core cannot compute; empty: it can."""

    def measure(self) -> None:
        """Update the metrics of this core."""
        metrics.JOBS_RUNNING.labels(self._settings.lane).set(len(self._running))
        metrics.set_engine(self._engine.stats())

    async def run(self, stop: asyncio.Event) -> None:
        """Serve the lane until `stop` is set, then finish the running jobs or hand them back.

        EngineError if the engine cannot compute: the core has then handed back its jobs and
        withdrawn from its lane, and its supervisor should restart it.
        """
        settings = self._settings
        background = [
            asyncio.create_task(repeat_forever(work, pause, settings.retry))
            for work, pause in (
                (self._announce, settings.announced_for / 3),
                (self._renew, settings.renew),
                (self._sweep, settings.sweep),
            )
        ]
        claiming = asyncio.create_task(repeat_forever(self._claim, 0, settings.retry))
        ends = [asyncio.create_task(event.wait()) for event in (stop, self._is_sick)]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            await cancel(claiming, *ends)
            if self._is_sick.is_set():
                await cancel(background[0])
                await self._withdraw()
            await self._finish()
        finally:
            await cancel(claiming, *ends, *background)
            self._prompts.shutdown(wait=False, cancel_futures=True)
        await self._withdraw()
        if self.fault:
            raise EngineError(self.fault)

    async def _withdraw(self) -> None:
        with contextlib.suppress(StoreUnavailable):
            await self._queue.withdraw(self._settings.lane, self._settings.name)

    # -- repeated work --------------------------------------------------------------------------

    async def _announce(self) -> None:
        reads = self._dialogues.default.spec.prompt_budget
        settings = self._settings
        await self._queue.announce(settings.lane, settings.name, settings.announced_for, reads)

    async def _sweep(self) -> None:
        self._woken.clear()
        sweep = await self._queue.sweep()
        metrics.TAKEOVERS.inc(sweep.taken_over)
        if sweep.taken_over:
            log.warning("took over from a core that went away", jobs=sweep.taken_over)
        # a lease that another core takes now can only be seen by a later sweep
        longest = min(self._settings.idle, self._settings.lease / 2)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(sweep.due_in, longest)):
                await self._woken.wait()

    async def _renew(self) -> None:
        asked = dict(self._running)  # a job may be claimed again before the result arrives
        results = await self._queue.renew([running.claim for running in asked.values()])
        for job, result in results.items():
            if result != "ok":
                self._stop(asked[job], result, "renew")

    async def _claim(self) -> None:
        await asyncio.sleep(max(0.0, self._pause_until - time.monotonic()))
        slots = self._free_slots()
        if slots <= 0:
            self._slot_free.clear()
            await self._slot_free.wait()
            return
        if await self._claim_some(slots) < slots:  # the lane has no more
            await self._queue.wait(self._settings.lane, self._settings.idle)
            self._woken.set()

    async def _claim_some(self, most: int) -> int:
        """Claim ready jobs; a claim that a stop interrupts is not lost."""
        claiming = asyncio.ensure_future(
            self._queue.claim(self._settings.lane, self._settings.name, most)
        )
        try:
            claims = await asyncio.shield(claiming)
        except asyncio.CancelledError:
            with contextlib.suppress(StoreUnavailable):
                for claim in await claiming:
                    self._start_job(claim)
            raise
        for claim in claims:
            self._start_job(claim)
        return len(claims)

    def _start_job(self, claim: Claim) -> None:
        if earlier := self._running.get(claim.job.id):
            earlier.stop("fenced")  # our own lease had ended
        running = self._running[claim.job.id] = RunningJob(claim, self._dialogues.default)
        if claim.attempt == 1:
            metrics.JOB_WAIT.labels(self._settings.lane).observe(claim.waited)
        task = asyncio.create_task(self._answer(running))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @staticmethod
    def _stop(running: RunningJob, result: FenceResult, step: str) -> None:
        """Stop a job that, by the result of `step`, is not wanted or not ours."""
        if result == "fenced":
            metrics.FENCED.labels(step).inc()
        running.stop(result)

    def _free_slots(self) -> int:
        """The number of jobs that the engine could take, beyond those on their way to it."""
        stats = self._engine.stats()
        on_their_way = len(self._running) - stats.running - stats.waiting
        return stats.slots - max(on_their_way, 0)

    async def _finish(self) -> None:
        """Go on with the running jobs for a while, and hand back the rest."""
        if self._tasks and not self.fault:
            await asyncio.wait(self._tasks, timeout=self._settings.drain)
        for running in self._running.values():
            running.stop("release")
        if self._tasks:
            # a job that has not ended by then, as of a hanging engine, goes to another core anyway
            await asyncio.wait(self._tasks, timeout=self._settings.lease)
        await cancel(*self._tasks)

    # -- one job --------------------------------------------------------------------------------

    async def _answer(self, running: RunningJob) -> None:
        """Answer one job. The only place that catches every error of a job."""
        claim, outcome = running.claim, "failed"
        job = {"job": claim.job.id, "thread": str(claim.job.thread), "attempt": claim.attempt}
        try:
            with span(claim.job.id, "answer", attempt=claim.attempt, waited=claim.waited):
                done = await self._reply(running)
            outcome = done.finish_reason if done else running.end
            self._log_end(running, done, job)
        except ChatError as error:
            outcome = error.code
            log.info("refused", code=error.code, reason=str(error), **job)
            await self._fail(running, error.code, str(error), forget=isinstance(error, TurnTooLong))
        except StoreUnavailable as error:
            outcome = "left"
            log.warning("left to whoever takes over", error=str(error), **job)
        except EngineRefused as error:
            log.error("the engine refused", error=str(error), **job)  # noqa: TRY400 -- it is said
            await self._fail(running, "internal", str(error))
        except _GenerationFailed as failed:
            outcome = await self._handle_engine_failure(running, failed, job)
        except Exception as error:
            log.exception("failed", **job)
            await self._fail(running, "internal", f"{type(error).__name__}: {error}", retry=True)
        finally:
            if self._running.get(claim.job.id) is running:
                del self._running[claim.job.id]
            self._slot_free.set()
            metrics.JOBS.labels(self._settings.lane, outcome).inc()

    def _log_end(self, running: RunningJob, done: Done | None, job: Mapping[str, object]) -> None:
        """Log the end of a job, in one line; its content is removed by default."""
        waited, seconds = round(running.claim.waited, 3), round(running.seconds, 3)
        if done is None:
            log.info("left to others", why=running.end, waited=waited, seconds=seconds, **job)
            return
        metrics.count_reply(self._settings.lane, done.usage, running.seconds, running.first_token)
        usage = {name: getattr(done.usage, name) for name in Usage.__slots__}
        first = None if running.first_token is None else round(running.first_token, 3)
        log.info(
            "replied", finish=done.finish_reason, waited=waited, seconds=seconds,
            first_token=first, **usage, prompt=running.asked, reply=done.text, **job,
        )  # fmt: skip

    async def _fail(
        self,
        running: RunningJob,
        code: str,
        message: str,
        *,
        retry: bool = False,
        forget: bool = False,
    ) -> None:
        await self._retry_while_away(
            lambda: self._queue.fail(running.claim, code, message, retry=retry, forget=forget)
        )

    async def _reply(self, running: RunningJob) -> Done | None:
        job = running.claim.job
        if await self._should_leave_to_others(job.id):
            running.stop("release")
            await self._queue.release(running.claim)
            return None
        here = await self._rulebook.in_thread(job.thread)
        rules = rules_of(job, here.rules)
        window = await self._history.window(running.claim)
        turns = turns_to_read(job, window)
        running.asked = turns[-1].text
        if job.counts_tokens:
            return await self._count_tokens(running, window, turns[-1].text)
        resume, thought = reply_to_resume(job, window)
        try:
            prompt = await self._build_prompt(running, rules, turns, resume, thought)
        except TurnTooLong:
            if not (resume or thought):
                raise
            # it fills the whole context: it stays as it is, and cannot be continued again
            done = Done(resume, "stop", Usage(0, 0), in_thought=not resume)
            return await self._commit(running, window, Prompt((), 0, {}), done)
        dialogue = running.dialogue
        reply = dialogue.reply(resume=resume, thought=thought)
        running.show(resume)
        reason = await self._stream(running, prompt, reply)
        if reason is None:
            return None
        if running.cut is None:
            read = files_read(job, turns, window, dialogue)
        else:
            read = await self._in_thread(partial(parts_read, turns[-1], running.cut, dialogue))
        done = running.done(prompt, reply, reason, read, here)
        if here.lost:
            await self._rulebook.choose(job.thread, here.kept)
        is_whole = not (resume or thought or reply.thought_tokens)
        trace = await self._trace(running, turns, prompt, done) if is_whole else None
        return await self._commit(running, window, prompt, done, reply, trace)

    async def _trace(
        self, running: RunningJob, turns: list[Turn], prompt: Prompt, done: Done
    ) -> Trace | None:
        """The trace of a whole reply, if it may be kept; else None."""
        if not done.collected or not done.text or done.finish_reason not in ("stop", "length"):
            return None
        trace = traced(running.claim.job, running.dialogue, turns[prompt.dropped :], prompt, done)
        people = {turn.author for turn in trace.turns if turn.role == "user"}
        if await self._rulebook.denied(running.claim.job.thread, people):
            return None
        if running.ended_by is None or not running.reply_ids or running.dialogue.writes_names:
            return replace(trace, prompt_ids=())
        end = running.dialogue.end if running.ended_by == "stop" else None
        return replace(trace, reply_ids=(*running.reply_ids, *([] if end is None else [end])))

    async def _count_tokens(self, running: RunningJob, window: Window, text: str) -> Done | None:
        """Count the tokens of texts: the reply is their counts."""
        counts = await self._in_thread(partial(count_tokens, running.dialogue, text))
        done = Done(counts, "stop", Usage(0, 0))
        return await self._commit(running, window, Prompt((), 0, {}), done)

    async def _build_prompt(
        self, running: RunningJob, rules: Rules, turns: list[Turn], resume: str, thought: str
    ) -> Prompt:
        """The prompt; a long one is built in a thread, so that it does not block the event loop."""

        def build() -> Prompt:
            dialogue = running.dialogue = self._dialogues.of(rules)
            low_water = self._settings.low_water
            try:
                return dialogue.prompt(turns, low_water=low_water, resume=resume, thought=thought)
            except TurnTooLong as error:
                if not running.claim.job.truncates:
                    raise _counted(error, turns[-1], dialogue) from None
            running.cut = truncate(turns[-1], dialogue, low_water)
            return dialogue.prompt([*turns[:-1], running.cut], low_water=low_water)

        is_short = len(turns) <= _FEW and sum(len(turn.text) for turn in turns) <= _SHORT
        if is_short and self._dialogues.created(rules):
            return build()
        return await self._in_thread(build)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Run long work in the thread for prompts."""
        return await asyncio.get_running_loop().run_in_executor(self._prompts, work)

    async def _stream(
        self, running: RunningJob, prompt: Prompt, reply: Reply
    ) -> FinishReason | None:
        """Generate and publish; the finish reason, or None if the job is not ours any more."""
        if running.end == "ok":
            running.generating = asyncio.create_task(self._generate(running, prompt, reply))
            await self._publish_during(running, running.generating)
        match running.end:
            case "ok":
                return _result_of(running.generating) if running.generating else None
            case "cancelled":
                return "cancelled"
            case "release":
                await self._queue.release(running.claim)
        return None

    async def _generate(self, running: RunningJob, prompt: Prompt, reply: Reply) -> FinishReason:
        dialogue, job = running.dialogue, running.claim.job
        request = GenerationRequest(
            id=f"{job.id}.{running.claim.gen}",
            prompt=prompt.ids,
            sampling=dialogue.spec.sampling,
            max_new_tokens=dialogue.longest_reply,
            seed=job.sampling_seed,
            stop_ids=dialogue.stop_ids,
            stop_sequences=dialogue.stop_sequences,
            thinking=dialogue.spec.thinking,
        )
        async with aclosing(self._engine.generate(request)) as chunks:
            async for chunk in chunks:
                running.show(reply.push(chunk.ids, chunk.text))
                running.count(chunk, prompt, reply)
                if reply.is_thinking or job.duel:
                    running.show_thinking(self._settings.thinking)
                if reason := reply.finish_reason or chunk.finish_reason:
                    running.ended_by = None if reply.finish_reason else reason
                    return reason
        return "stop"

    async def _publish_during(
        self, running: RunningJob, generating: asyncio.Task[FinishReason]
    ) -> None:
        generating.add_done_callback(lambda _: running.fresh.set())
        while not generating.done():
            await running.fresh.wait()
            if not generating.done():
                await self._publish(running)
                await asyncio.wait({generating}, timeout=self._settings.publish)

    async def _publish(self, running: RunningJob) -> None:
        running.fresh.clear()
        text, running.pending = running.pending, ""
        try:
            delta: Delta | None = Delta(running.published, text)
            if running.claim.job.duel:  # its words are shown when both answers are there
                delta = Delta(0, "") if running.sign_is_due else None
            running.sign_is_due = False
            result = await self._queue.publish(running.claim, delta, running.spent)
        except StoreUnavailable:
            running.pending = text + running.pending  # published with the next text
            return
        running.published += len(text)
        if result != "ok":
            self._stop(running, result, "publish")

    async def _commit(
        self,
        running: RunningJob,
        window: Window,
        prompt: Prompt,
        done: Done,
        reply: Reply | None = None,
        trace: Trace | None = None,
    ) -> Done | None:
        """Store a reply. Its thought is stored only if the reply ended in it, so that Continue can
        go on with it, or if the model's template needs it."""
        job, dialogue = running.claim.job, running.dialogue
        counts = missing_counts(window, prompt, dialogue.fingerprint)
        keeps = done.in_thought or dialogue.keeps_thoughts
        thought = reply.thought if reply and keeps else ""
        turn = Turn(
            job.id, "assistant", dialogue.spec.name, done.text, time.time(), thought=thought
        )
        commit = Commit(
            done=done,
            reply=turn if (done.text or thought) and not job.counts_tokens else None,
            counts_reply=reply is None or reply.counts_its_text,
            fingerprint=dialogue.fingerprint,
            counts=counts,
            version=window.version,
            evict=() if job.replaces else turns_to_evict(window, prompt.dropped),
            prompt_room=dialogue.prompt_room(self._settings.low_water),
            cut=running.cut,
            model=dialogue.spec.name,
            sampling=dialogue.spec.sampling,
            trace=trace,
        )
        result = await self._retry_while_away(lambda: self._queue.commit(running.claim, commit))
        if result == "cancelled":  # stopped after the last token
            stopped = replace(done, finish_reason="cancelled")
            return await self._commit(running, window, prompt, stopped, reply)
        if result == "fenced":
            self._stop(running, result, "commit")
        return done if result == "ok" else None

    async def _retry_while_away(self, step: Callable[[], Awaitable[T]]) -> T:
        """Run the last step of a job, retried for as long as its lease can last."""
        until = time.monotonic() + self._settings.lease
        return await retry_while_away(step, lambda: time.monotonic() <= until, self._settings.retry)

    # -- a sick engine --------------------------------------------------------------------------

    async def _handle_engine_failure(
        self, running: RunningJob, failed: _GenerationFailed, job: Mapping[str, object]
    ) -> str:
        """Retry the job, or hand it back if the engine cannot compute at all; the outcome."""
        error = failed.error
        log.error("failed", exc_info=error, **job)
        await self._check_engine()
        if self.fault:
            await self._queue.release(running.claim)
            return "release"
        self._failed_here.setdefault(running.claim.job.id, 0)
        await self._fail(running, "internal", f"{type(error).__name__}: {error}", retry=True)
        return "failed"

    async def _check_engine(self) -> None:
        """Check whether the engine computes anything; several failures share one check."""
        if self._checking is None or self._checking.done():
            self._checking = asyncio.create_task(self._generate_one_token())
        await asyncio.shield(self._checking)

    async def _generate_one_token(self) -> None:
        dialogue = self._dialogues.default
        prompt = dialogue.prompt([SHORT_TURN], low_water=1.0)
        request = GenerationRequest("self-check", prompt.ids, Sampling(temperature=0.0), 1, seed=0)
        for attempt in range(_CHECKS):
            try:
                async with asyncio.timeout(_CHECK_SECONDS):
                    async with aclosing(self._engine.generate(request)) as chunks:
                        async for _ in chunks:
                            pass
            except Exception as error:
                fault = f"this core cannot compute: {type(error).__name__}: {error}"
                await asyncio.sleep(self._settings.retry * attempt)
            else:
                return
        log.error("the engine is sick; the core withdraws", error=fault)
        self.fault = fault
        self._is_sick.set()

    async def _should_leave_to_others(self, job: str) -> bool:
        """Whether to hand a failed job to another core of the lane; `_LEFT_TO_OTHERS` times."""
        times = self._failed_here.get(job, _LEFT_TO_OTHERS)
        if times >= _LEFT_TO_OTHERS or await self._queue.cores(self._settings.lane) < 2:
            return False
        self._failed_here[job] = times + 1
        self._pause_until = time.monotonic() + self._settings.retry  # the other core claims it
        return True
