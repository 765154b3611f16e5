"""One step of the model: chunks of ids in, a token for each chunk that samples out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.engine.torch.attention import AttentionStep
from core.engine.torch.block_manager import SIZE
from core.engine.torch.sampler import SamplingBatch, sample
from core.engine.torch.scheduler import ScheduledChunk
from core.engine.torch.sequence import Sequence
from core.engine_types import GenerationRequest
from core.types import Sampling

Ints: TypeAlias = npt.NDArray[np.int64]


Result: TypeAlias = tuple[ScheduledChunk, int | None]
"""A chunk, with the next token if the chunk ends with the newest id."""


@dataclass(frozen=True, slots=True)
class LaunchedStep:
    """A step that the device is computing."""

    chunks: list[ScheduledChunk]
    tokens: Tensor
    """The new tokens of the chunks that sample, in order; on the device."""
    batch: SamplingBatch | None
    """None if no chunk samples."""
    _sampling: list[int]
    _on_host: Tensor
    _arrived: Any
    """torch's event of the copy to the host; None: there is no copy."""

    @classmethod
    def of(
        cls,
        chunks: list[ScheduledChunk],
        sampling: list[int],
        logits: Tensor,
        batch: SamplingBatch | None,
    ) -> LaunchedStep:
        """Sample, and send the tokens to the host."""
        sampled = sample(logits, batch) if batch else logits.new_empty(0, dtype=torch.long)
        tokens = sampled.clamp(min=0)  # the next step may begin before the host sees them
        if not tokens.is_cuda:
            return cls(chunks, tokens, batch, sampling, sampled, None)
        on_host = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=True)
        on_host.copy_(sampled, non_blocking=True)
        landed = cast("Any", torch.cuda.Event)()
        landed.record()
        return cls(chunks, tokens, batch, sampling, on_host, landed)

    def wait(self) -> list[Result]:
        """The results, when the device has finished."""
        if self._arrived is not None:
            self._arrived.synchronize()
        tokens: list[int | None] = [None] * len(self.chunks)
        for at, token in zip(self._sampling, self._on_host.tolist(), strict=True):
            tokens[at] = token
        return list(zip(self.chunks, tokens, strict=True))


class Runner(ABC):
    """The model and its cache on one device.

    It keeps no records: a step that raises can be run again, whole or in pieces.
    """

    runs_ahead = False
    """`launch` returns before the step is computed, and `follow` can queue the next one."""
    verified = True
    """False if a check of this start failed, so that the next start checks again."""
    wants_time = False
    """`use_time` would make later steps quicker; call it when nothing is to be computed."""
    windows: Tensor
    """(layers,), on the device: the ids that each layer attends to, read at each step."""
    groups: int
    """The groups of layers: each has its own tables."""

    def use_time(self) -> None:
        """Take some seconds for what makes later steps quicker."""
        self.wants_time = False

    def run(self, chunks: list[ScheduledChunk]) -> list[Result]:
        return self.launch(chunks).wait()

    @torch.inference_mode()
    def launch(self, chunks: list[ScheduledChunk]) -> LaunchedStep:
        """Start to compute the chunks."""
        ids, positions, last = inputs_of(chunks)
        sampling = [at for at, chunk in enumerate(chunks) if chunk.samples]
        wanted = last[sampling] if sampling else last[:1]
        logits = self._logits(chunks, ids, positions, wanted)
        sequences = [chunks[at].sequence for at in sampling]
        batch = SamplingBatch.of(sequences, logits.device) if sampling else None
        return LaunchedStep.of(chunks, sampling, logits, batch)

    @torch.inference_mode()
    def follow(self, previous: LaunchedStep, chunks: list[ScheduledChunk]) -> LaunchedStep:
        """Decode one more id for each chunk of `previous`, all of which sample.

        The device keeps computing while the host reads the tokens of the step before.
        """
        if previous.batch is None:
            raise ValueError("nobody samples there")
        sequences = [chunk.sequence for chunk in chunks]
        positions = np.array([sequence.length for sequence in sequences])
        logits = self._logits(chunks, previous.tokens, positions, np.arange(len(chunks)))
        batch = previous.batch.after(previous.tokens, sequences)
        return LaunchedStep.of(chunks, list(range(len(chunks))), logits, batch)

    @abstractmethod
    def _logits(
        self, chunks: list[ScheduledChunk], ids: Ints | Tensor, positions: Ints, wanted: Ints
    ) -> Tensor:
        """The logits of the ids at these indices of the step: (wanted, vocabulary).

        `follow` passes ids that are on the device already.
        """


def logits_of(
    model: PreTrainedModel,
    ids: Tensor,
    positions: Tensor,
    wanted: Tensor | int,
    step: AttentionStep,
) -> Tensor:
    """The logits of the ids at these indices, (wanted, vocabulary); 0: of all ids."""
    logits: Tensor = model(
        input_ids=ids[None],
        position_ids=positions[None],
        use_cache=False,
        logits_to_keep=wanted,
        step=step,
    ).logits[0]
    return logits


def warm_up_sequence(sampling: Sampling, groups: int, page: int) -> Sequence:
    """A page of ids to run before the first request."""
    request = GenerationRequest("trial", [0] * SIZE, sampling, 1, seed=0)
    sequence = Sequence.begin(request, emit=print, order=0, arrived=0)
    sequence.tables = [array("i", [page])] * groups
    return sequence


def inputs_of(chunks: list[ScheduledChunk]) -> tuple[Ints, Ints, Ints]:
    """Ids and positions of the step, and the index of each chunk's last id."""
    starts = np.array([chunk.sequence.computed for chunk in chunks])
    counts = np.array([chunk.count for chunk in chunks])
    ends = np.cumsum(counts)
    ids = [one.sequence.ids[a : a + one.count] for one, a in zip(chunks, starts, strict=True)]
    positions = np.arange(ends[-1]) + np.repeat(starts - (ends - counts), counts)
    return np.concatenate(ids), positions, ends - 1
