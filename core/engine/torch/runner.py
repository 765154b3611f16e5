"""One step of the model: the parts' ids in, a token for each part that asks for one out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.engine.torch.attention import Cache
from core.engine.torch.sampler import SamplingBatch, sample
from core.engine.torch.scheduler import Part

Ints: TypeAlias = npt.NDArray[np.int64]


class Runner:
    """The model and its cache on one device."""

    def __init__(self, model: PreTrainedModel, cache: Cache) -> None:
        self._model = model
        self._cache = cache

    @torch.inference_mode()
    def run(
        self, parts: list[Part], meanwhile: Callable[[], None] = lambda: None
    ) -> list[tuple[Part, int | None]]:
        """Compute the parts; each with the token that follows it, if its prompt is through.

        `meanwhile` is called while a GPU computes, and where none does, before. Nothing is booked:
        a step that raises can be run again, whole or in pieces.
        """
        on_gpu = self._model.device.type == "cuda"
        if not on_gpu:
            meanwhile()
        ids, positions, last = inputs_of(parts)
        sampling = [at for at, part in enumerate(parts) if part.samples]
        wanted = last[sampling] if sampling else last[:1]
        logits = self._logits(parts, ids, positions, wanted)
        sequences = [parts[at].sequence for at in sampling]
        batch = SamplingBatch.of(sequences, logits.device) if sampling else None
        sampled = sample(logits, batch) if batch else logits.new_empty(0)
        if on_gpu:
            meanwhile()
        tokens: list[int | None] = [None] * len(parts)
        for at, token in zip(sampling, sampled.tolist(), strict=True):
            tokens[at] = token
        return list(zip(parts, tokens, strict=True))

    def _logits(self, parts: list[Part], ids: Ints, positions: Ints, wanted: Ints) -> Tensor:
        """(wanted, vocabulary): of the ids at these places of the step."""
        device = self._model.device
        logits: Tensor = self._model(
            input_ids=torch.from_numpy(ids)[None].to(device),
            position_ids=torch.from_numpy(positions)[None].to(device),
            use_cache=False,
            logits_to_keep=torch.from_numpy(wanted).to(device),
            step=self._cache.begin(parts),
        ).logits[0]
        return logits


def inputs_of(parts: list[Part]) -> tuple[Ints, Ints, Ints]:
    """Ids and positions of the step, and where in it each part ends."""
    starts = np.array([part.sequence.computed for part in parts])
    counts = np.array([part.count for part in parts])
    ends = np.cumsum(counts)
    ids = [one.sequence.ids[a : a + one.count] for one, a in zip(parts, starts, strict=True)]
    positions = np.arange(ends[-1]) + np.repeat(starts - (ends - counts), counts)
    return np.concatenate(ids), positions, ends - 1
