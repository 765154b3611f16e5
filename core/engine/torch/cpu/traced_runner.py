"""Steps on a CPU: a trace of the model, whose operations torch calls without Python.

A step of a few ids is hundreds of operations of some microseconds, and Python takes a fifth of its
time to call them (12 layers x 768, one id, on two cores: 6.8 ms eager, 5.3 traced).
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.engine.torch.attention import Attention, define
from core.engine.torch.cpu.paged_attention import CpuCache, CpuStep
from core.engine.torch.model_runner import Ints, Runner, logits_of, warm_up_sequence
from core.engine.torch.scheduler import ScheduledChunk
from core.types import Sampling

log = logging.getLogger(__name__)

_Compute: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Ids, positions and the indices of the wanted logits -> (wanted, vocabulary)."""

_EXAMPLE = (0, 3)
"""The first position and the number of ids of the example that is traced."""
_CHECKED = ((3, 1), (4, 9), (13, 1), (14, 2))
"""The same of steps on which the trace is compared with the model."""
_PAGE = 0
"""Whose keys and values the trace writes over, and puts back."""
_LATEST = 1000
"""The step before which the model is traced, however busy the engine is."""

_EXACT = 16
"""Steps of up to so many ids are not padded."""


def rows_for(ids: int) -> int:
    """The number of rows to which a step of so many ids is padded.

    oneDNN compiles its products for each number of rows, and keeps them. Eight numbers for each
    doubling are 48 up to 256; at most an eighth of the rows is wasted. 1,500 steps of prompts of
    many sizes took 0.16 GB (12 layers x 768, bfloat16); without this, 150 steps took 0.28. A
    smaller cache of oneDNN's was slower, and the memory grew all the same.
    """
    if ids <= _EXACT:
        return ids
    step = 1 << ((ids - 1).bit_length() - 4)
    return -(-ids // step) * step


class TracedRunner(Runner):
    """Runs a trace of the model, or the model itself where the trace differs."""

    def __init__(self, model: PreTrainedModel, cache: CpuCache, *, compare: bool = True) -> None:
        """`compare`: trace the model now, and compare; an earlier start has not done that.

        Otherwise the first replies need not wait for it: it takes seconds, and saves a fifth.
        """
        self._cache, self.windows, self.groups = cache, cache.windows, max(cache.groups) + 1
        for module in model.modules():
            if isinstance(module, nn.Embedding):
                # only gradients need it, and the check of its range cannot be traced
                module.padding_idx = None
        self._compute: _Compute = _EagerModel(model)
        self._steps, self.wants_time = 0, not compare
        if compare:
            self._trace(compare=True)

    def use_time(self) -> None:
        """See `Runner`."""
        self._trace(compare=False)

    def _trace(self, *, compare: bool) -> None:
        self.wants_time = False
        used = self._cache.pages[:, _PAGE].clone()
        try:
            self._compute = self._traced(self._compute, compare=compare)
        except Exception as error:  # the model runs eagerly then, and slower
            why = error.__cause__ or error  # torch wraps a warning in another error
            log.info("the model is not traced, and takes longer for a step: %s", why)
        finally:
            self._cache.pages[:, _PAGE] = used

    def _logits(
        self, chunks: list[ScheduledChunk], ids: Ints | Tensor, positions: Ints, wanted: Ints
    ) -> Tensor:
        self._steps += 1
        if self._steps == _LATEST and self.wants_time:  # no moment was quiet
            self.use_time()
        rows = rows_for(len(positions)) - len(positions)
        inputs = (
            nn.functional.pad(torch.as_tensor(ids), (0, rows)),
            nn.functional.pad(torch.from_numpy(positions), (0, rows)),
            torch.from_numpy(wanted),
        )
        try:
            with _computing(self._cache.begin(chunks)):
                return self._compute(*inputs)
        except RuntimeError as error:
            # a traceback into the traced model comes first
            _, traced, reason = str(error).rpartition("\nRuntimeError: ")
            if not traced:
                raise
            raise RuntimeError(reason.partition("\n")[0]) from error

    @torch.inference_mode()
    def _traced(self, eager: _Compute, *, compare: bool) -> _Compute:
        """A trace that is right for any number of ids; ValueError if it is not.

        It has the branches that the model takes for the example. If a branch depends on the values
        of a tensor, or on the number of ids, torch warns, and the model is not traced.
        """
        sequence = warm_up_sequence(Sampling(), self.groups, page=_PAGE)

        def step(first: int, count: int) -> tuple[AbstractContextManager[None], list[Tensor]]:
            sequence.computed = first
            ids = torch.arange(first, first + count)
            return _computing(self._cache.begin([ScheduledChunk(sequence, count)])), [
                ids,
                ids,
                ids - first,
            ]

        computing, example = step(*_EXAMPLE)
        with computing, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the interface is deprecated
            warnings.simplefilter("error", cast("Any", torch.jit).TracerWarning)
            traced: _Compute = cast("Any", torch.jit).trace(eager, example, check_trace=False)
        for other in _CHECKED if compare else ():
            computing, inputs = step(*other)
            with computing:
                if not torch.equal(eager(*inputs), traced(*inputs)):
                    self.verified = False
                    raise ValueError("a trace of it gives something else")
        return traced


class _EagerModel(nn.Module):
    """The model itself, in the form that is traced."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self._model = model

    def forward(self, ids: Tensor, positions: Tensor, wanted: Tensor) -> Tensor:
        return logits_of(self._model, ids, positions, wanted, _CurrentStep())


class _CurrentStep:
    """The step that the thread is computing: a trace cannot hold the step itself."""

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, attention: Attention
    ) -> Tensor:
        """See `AttentionStep`."""
        out: Tensor = torch.ops.henji.attend_current(
            query, key, value, layer, attention.scale, attention.cap, attention.sinks
        )
        return out


_current = threading.local()


@contextmanager
def _computing(step: CpuStep) -> Iterator[None]:
    _current.step = step
    try:
        yield
    finally:
        del _current.step


def _attend_current(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layer: int,
    scale: float,
    cap: float,
    sinks: Tensor | None,
) -> Tensor:
    step: CpuStep = _current.step
    return step.attend(layer, query, key, value, Attention(scale, cap, sinks))


define(
    "attend_current(Tensor query, Tensor key, Tensor value, int layer, float scale, float cap, "
    "Tensor? sinks) -> Tensor",
    _attend_current,
)
