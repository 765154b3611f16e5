"""The batching engine: one thread computes steps for all requests."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Self, TypeAlias

import torch
from transformers import PreTrainedModel

from core.engine.torch.attention import (
    FALCON,
    CacheShape,
    supported_shape,
    use_engine_attention,
)
from core.engine.torch.block_manager import BlockManager
from core.engine.torch.cpu.packed_linear import pack_linears
from core.engine.torch.model_runner import LaunchedStep, Result, Runner
from core.engine.torch.scheduler import ScheduledChunk, Scheduler
from core.engine.torch.sequence import Sequence
from core.engine.torch.verification import (
    is_possible,
    is_recorded,
    record,
    reference_of,
    verify,
)
from core.engine_types import Chunk, EngineStats, GenerationRequest, LoadingStage, Throughput
from core.errors import EngineError, EngineRefused, ModelError

log = logging.getLogger(__name__)

_Output: TypeAlias = Chunk | EngineError
_QUIET = 2.0
"""Seconds without a request after which the runner may take some for itself."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The engine's limits."""

    context_length: int
    """Ids of prompt and reply together."""
    slots: int = 32
    """Requests that run at once."""
    step_tokens: int = 256
    """Ids of one step. Replies come first; long prompts are computed in chunks of the rest."""
    cache_bytes: int = 1 << 30
    int8_weights: bool = False
    """On a CPU: see `Int8Linear`."""
    kernels: Path | None = None
    """On a CPU: the directory where compiled kernels are kept for the next start."""


class TorchEngine:
    """Serves any causal model of transformers by continuous batching.

    It changes the model: attention is replaced, and on a CPU the weights are repacked.

    All of torch's work, loading included, happens in the engine's one thread. After a second thread
    has computed, OpenMP counts more threads than cores and puts its workers to sleep between
    operations: 65 microseconds each instead of 7, hundreds of times in a step.
    """

    _model: PreTrainedModel
    _limits: Limits
    _vocabulary: int
    _scheduler: Scheduler
    _runner: Runner

    def __init__(self) -> None:
        """Use `open`."""
        self._arrivals = count()
        self._inbox: deque[Sequence] = deque()
        self._wake_up = threading.Event()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._outbox: dict[
            asyncio.AbstractEventLoop, list[tuple[asyncio.Queue[_Output], _Output]]
        ] = {}
        self._throughput = Throughput()
        self._verified = False
        self._record_for: Callable[[PreTrainedModel], Path] | None = None
        self._progress: Callable[[LoadingStage], None] = log.debug

    @classmethod
    async def open(
        cls,
        load: Callable[[], PreTrainedModel],
        limits_for: Callable[[PreTrainedModel], Limits],
        record_for: Callable[[PreTrainedModel], Path] | None = None,
        progress: Callable[[LoadingStage], None] = log.debug,
    ) -> Self:
        """An engine for the model that `load` returns; ModelError if it cannot be served exactly.

        `record_for` returns the file that exists once the model was verified. `progress` is called
        at the beginning of each stage. All are called in the engine's thread.
        """
        engine, ready = cls(), Future[None]()
        engine._record_for, engine._progress = record_for, progress
        engine._thread = threading.Thread(
            target=engine._run, args=(load, limits_for, ready), name="engine", daemon=True
        )
        engine._thread.start()
        await asyncio.wrap_future(ready)
        return engine

    def _prepare(self, model: PreTrainedModel, limits: Limits) -> None:
        shape = supported_shape(model, limits.context_length)
        path = self._record_for(model) if self._record_for else None
        self._verified = is_recorded(path)
        reference = None if self._verified else reference_of(model.train(False), shape)
        _use_engine_attention(model)
        is_cpu = model.device.type == "cpu"
        rounds_later = is_cpu and limits.int8_weights and reference is not None
        if is_cpu and not rounds_later:
            pack_linears(model, int8=limits.int8_weights)
        self._model, self._limits = model, limits
        self._vocabulary = model.config.get_text_config().vocab_size
        self._reset_cache()
        blocks = self._scheduler.blocks.count // self._runner.groups
        compares = reference and is_possible(limits.context_length, blocks, limits.slots)
        if reference and compares:
            self._progress("comparison")
            most = max(limits.step_tokens, limits.slots)
            verify(model, self._runner, reference, step_tokens=most)
        if rounds_later:  # the exact weights were compared
            pack_linears(model, int8=True)
            self._reset_cache()
        if compares and self._runner.verified:
            record(path)

    def _reset_cache(self) -> None:
        """Begin with an empty cache and no sequences."""
        limits = self._limits
        shape = CacheShape.of(self._model, limits.context_length)
        blocks = max(len(shape.groups), limits.cache_bytes // shape.bytes_per_block)
        try:
            self._runner = self._runner_for(shape, blocks)
        except (OSError, torch.OutOfMemoryError):
            size = f"{limits.cache_bytes / 1e9:,.1f} GB"
            raise ModelError(f"no memory for a cache of {size}: lower HENJI_CACHE_GB") from None
        self._scheduler = Scheduler(
            BlockManager(blocks),
            slots=limits.slots,
            step_tokens=limits.step_tokens,
            windows=[group.window for group in shape.groups],
        )

    def _runner_for(self, shape: CacheShape, blocks: int) -> Runner:
        model, limits = self._model, self._limits
        self._progress("kernels")
        if model.device.type != "cuda":
            # Numba is only for the CPU
            from core.engine.torch.cpu.numba_kernels import keep_compiled
            from core.engine.torch.cpu.paged_attention import CpuCache
            from core.engine.torch.cpu.traced_runner import TracedRunner

            if limits.kernels:
                keep_compiled(limits.kernels)
            cache = CpuCache(shape, blocks)
            if not self._verified:
                self._progress("trace")
            return TracedRunner(model, cache, compare=not self._verified)
        # Triton is only installed on a machine with a GPU
        from core.engine.torch.gpu.cuda_graphs import GraphRunner
        from core.engine.torch.gpu.paged_attention import PagedCache

        return GraphRunner(
            model,
            PagedCache(shape, blocks, model.device),
            slots=limits.slots,
            step_tokens=limits.step_tokens,
            context_length=limits.context_length,
        )

    # -- in asyncio -------------------------------------------------------------------------

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        """See `Engine`."""
        self._check(request)
        queue: asyncio.Queue[_Output] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def emit(item: _Output) -> None:
            self._outbox.setdefault(loop, []).append((queue, item))

        sequence = Sequence.begin(request, emit, next(self._arrivals), time.monotonic())
        self._inbox.append(sequence)
        self._wake_up.set()
        try:
            while True:
                item = await queue.get()
                if isinstance(item, EngineError):
                    raise item
                yield item
                if item.finish_reason:
                    return
        finally:
            sequence.cancelled = True
            self._wake_up.set()

    def stats(self) -> EngineStats:
        """See `Engine`."""
        scheduler, blocks = self._scheduler, self._scheduler.blocks
        running, waiting = len(scheduler.running), len(scheduler.waiting) + len(self._inbox)
        # idle blocks, divided by the size of recent requests
        usual = scheduler.blocks_held(max(1, round(self._throughput.request_tokens)))
        room = blocks.idle // usual
        if not running and not waiting:
            room = max(1, room)
        return EngineStats(
            running=running,
            waiting=waiting,
            slots=max(0, min(scheduler.slots - running, room) - waiting),
            cache_used=1 - blocks.idle / blocks.count,
            tokens_per_second=self._throughput.tokens_per_second(time.monotonic()),
            time_to_first_token=self._throughput.first_token,
            prefix_hit_rate=scheduler.cached_tokens / max(1, scheduler.prompt_tokens),
        )

    async def close(self) -> None:
        """Fail the requests in flight and end the thread."""
        self._closing = True
        self._wake_up.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _check(self, request: GenerationRequest) -> None:
        if self._closing:
            raise EngineError("the engine is closed")
        if not request.prompt or request.max_new_tokens < 1:
            raise EngineRefused("a request needs a prompt and room for a token")
        if not all(0 <= id_ < self._vocabulary for id_ in request.prompt):
            raise EngineRefused("the prompt holds an id outside the model's vocabulary")
        needed = len(request.prompt) + request.max_new_tokens
        most = self._most_tokens
        if needed > most:
            raise EngineRefused(f"prompt and reply take {needed} tokens, and {most} is the most")

    @property
    def _most_tokens(self) -> int:
        """The most tokens of prompt and reply together."""
        lengths, scheduler = range(1, self._limits.context_length + 1), self._scheduler
        return bisect_right(lengths, scheduler.blocks.count, key=scheduler.blocks_held)

    # -- in the engine's thread ---------------------------------------------------------------

    @torch.inference_mode()
    def _run(
        self,
        load: Callable[[], PreTrainedModel],
        limits_for: Callable[[PreTrainedModel], Limits],
        ready: Future[None],
    ) -> None:
        ready.set_running_or_notify_cancel()
        try:
            model = load()
            self._prepare(model, limits_for(model))
        except BaseException as error:
            ready.set_exception(error)
            return
        ready.set_result(None)
        self._serve()

    def _serve(self) -> None:
        while not self._closing:
            self._wake_up.clear()
            while self._inbox:
                self._scheduler.add(self._inbox.popleft())
            try:
                worked = self._step()
            except Exception:  # a bug in the scheduler: restart instead of hanging
                log.exception("the engine's books are wrong; every request in flight fails")
                self._restart()
                worked = True
            if not worked:
                self._deliver()
                self._wait()
        self._fail([*self._scheduler.sequences, *self._inbox], "the engine was closed")
        self._deliver()

    def _wait(self) -> None:
        """Wait for a request; a quiet moment is used for the runner."""
        if not self._wake_up.wait(_QUIET if self._runner.wants_time else None):
            self._runner.use_time()

    def _step(self) -> bool:
        """Compute the planned step, and those after it while the batch stays the same."""
        chunks = self._scheduler.plan()
        if not chunks:
            return False
        step: LaunchedStep | None = None
        while chunks:
            try:
                step = step or self._launch(chunks)
                following = self._launch_next(step)
                self._deliver()
                results = step.wait()
            except Exception as error:
                self._isolate_failure([chunk for chunk in chunks if chunk.sequence.tables], error)
                break
            self._record(results)
            step, chunks = following, following.chunks if following else []
        return True

    def _launch(self, chunks: list[ScheduledChunk]) -> LaunchedStep:
        if not self._runner.runs_ahead:
            self._deliver()  # deliver first: the step blocks this thread
        return self._runner.launch(chunks)

    def _launch_next(self, step: LaunchedStep) -> LaunchedStep | None:
        if not self._runner.runs_ahead or self._inbox or self._closing:
            return None
        chunks = self._scheduler.follow(step.chunks)
        return self._runner.follow(step, chunks) if chunks else None

    def _isolate_failure(self, chunks: list[ScheduledChunk], error: Exception) -> None:
        """Find the request that made the step fail, and fail only that one."""
        if len(chunks) == 1:
            sequence = chunks[0].sequence
            log.error("request %s failed in a step", sequence.request.id, exc_info=error)
            self._scheduler.remove(sequence)
            self._fail([sequence], f"a step failed: {type(error).__name__}: {error}")
            return
        for chunk in chunks:
            try:
                results = self._runner.run([chunk])
            except Exception as alone:
                self._isolate_failure([chunk], alone)
            else:
                self._record(results)

    def _record(self, results: list[Result]) -> None:
        now, sampled = time.monotonic(), 0
        for chunk, token in results:
            sequence = chunk.sequence
            if not sequence.tables:
                continue  # it ended in the step before, for which this one did not wait
            self._scheduler.computed(chunk)
            sampled += token is not None
            if token is None:
                continue
            if token < 0:
                self._discard(sequence)
                continue
            if not sequence.streaming:
                self._throughput.started(now - sequence.arrived)
            if sequence.append(token):
                self._scheduler.remove(sequence)
                self._throughput.finished(sequence.length)
        self._throughput.sampled(sampled, now)

    def _discard(self, sequence: Sequence) -> None:
        """Fail a sequence whose logits are not finite, and forget its keys and values."""
        self._scheduler.discard(sequence)
        self._fail([sequence], "the model computed numbers that are not finite")

    def _restart(self) -> None:
        in_flight = self._scheduler.sequences
        self._reset_cache()
        self._fail(in_flight, "the engine had to restart")

    def _fail(self, sequences: list[Sequence], reason: str) -> None:
        for sequence in sequences:
            sequence.emit(EngineError(reason))

    def _deliver(self) -> None:
        """Hand the chunks to the event loops, in one call each."""
        outbox, self._outbox = self._outbox, {}
        for loop, items in outbox.items():
            try:
                loop.call_soon_threadsafe(_put, items)
            except RuntimeError:  # the loop was closed
                log.debug("a closed event loop left %d chunks", len(items))


def _use_engine_attention(model: PreTrainedModel) -> None:
    if model.config.model_type != FALCON:
        use_engine_attention(model)
        return
    # it imports transformers' Falcon
    from core.engine.torch.falcon import use_falcon_attention

    use_falcon_attention(model)


def _put(items: list[tuple[asyncio.Queue[_Output], _Output]]) -> None:
    for queue, item in items:
        queue.put_nowait(item)
