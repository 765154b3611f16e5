"""Logits -> tokens, a whole batch at once, as transformers' processors define each step.

Penalty, temperature, top-k and top-p follow `generation/logits_process.py` of transformers. The
draw is one uniform number a row, put through the inverse of the cumulative distribution: it
depends on the request's seed and on the place in its reply alone, not on the rest of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence as Sequences
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core.engine.torch.sequence import Sequence
from core.types import Sampling

_MASK = (1 << 64) - 1
_NUCLEUS = 512
"""The most probable tokens that are looked at before the whole vocabulary is sorted."""


def uniform(seed: int, index: int) -> float:
    """The number in [0, 1) for the `index`-th token of a reply (SplitMix64)."""
    state = (seed + (index + 1) * 0x9E3779B97F4A7C15) & _MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    return float((state ^ (state >> 31)) >> 11) / (1 << 53)


@dataclass(frozen=True, slots=True)
class SamplingBatch:
    """What a step's rows ask for, as tensors of one entry a row, on the model's device."""

    seen: Tensor | None
    """(rows, longest) ids of prompt and reply, the rest a row's first id; None: no penalty."""
    penalty: Tensor
    temperature: Tensor
    """1 where a row is greedy."""
    draw: Tensor
    """float64"""
    greedy: Tensor
    """bool"""
    cuts: tuple[tuple[int, Sampling], ...]
    """The rows with a top-k or top-p."""
    all_greedy: bool

    @classmethod
    def of(cls, sequences: Sequences[Sequence], device: torch.device) -> SamplingBatch:
        wishes = [sequence.request.sampling for sequence in sequences]
        greedy = [wish.temperature == 0 for wish in wishes]
        draws = [uniform(one.request.seed, one.reply_length) for one in sequences]

        def column(values: list[float], dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.tensor(values, dtype=dtype).unsqueeze(1).to(device, non_blocking=True)

        penalised = any(wish.repetition_penalty != 1 for wish in wishes)
        return cls(
            seen=_seen(sequences).to(device, non_blocking=True) if penalised else None,
            penalty=column([wish.repetition_penalty for wish in wishes]),
            temperature=column([wish.temperature or 1.0 for wish in wishes]),
            draw=column(draws, torch.float64),
            greedy=torch.tensor(greedy).to(device, non_blocking=True),
            cuts=tuple(
                (row, wish)
                for row, wish in enumerate(wishes)
                if wish.temperature and (wish.top_k > 0 or wish.top_p < 1)
            ),
            all_greedy=all(greedy),
        )


def _seen(sequences: Sequences[Sequence]) -> Tensor:
    longest = max(sequence.length for sequence in sequences)
    seen = np.empty((len(sequences), longest), dtype=np.int64)
    for row, sequence in zip(seen, sequences, strict=True):
        row[: sequence.length] = sequence.ids[: sequence.length]
        row[sequence.length :] = sequence.ids[0]
    return torch.from_numpy(seen)


def sample(logits: Tensor, batch: SamplingBatch) -> Tensor:
    """The next token of each row of `logits` (rows, vocabulary), which are overwritten."""
    logits = logits.float()
    if batch.seen is not None:
        _penalise(logits, batch.seen, batch.penalty)
    if batch.all_greedy:
        return logits.argmax(-1)
    best = logits.argmax(-1)
    logits /= batch.temperature
    for row, wish in batch.cuts:
        _cut(logits[row], wish)
    return torch.where(batch.greedy, best, _draw(logits, best, batch.draw))


def _penalise(logits: Tensor, seen: Tensor, penalty: Tensor) -> None:
    # An id that occurs twice is written twice with the same value.
    scores = logits.gather(1, seen)
    logits.scatter_(1, seen, torch.where(scores < 0, scores * penalty, scores / penalty))


def _draw(logits: Tensor, best: Tensor, uniforms: Tensor) -> Tensor:
    """Inverse cumulative distribution in two stages: first a stretch of the vocabulary, then in it.

    The sums are float64: over a vocabulary, float32 would shift every later boundary.
    """
    rows, vocabulary = logits.shape
    weights = logits.sub_(logits.gather(1, best.unsqueeze(1))).exp_()
    stretches = weights.view(rows, _stretches(vocabulary), -1)
    ends = stretches.sum(-1).double().cumsum(-1)
    target = uniforms * ends[:, -1:]
    stretch = torch.searchsorted(ends, target, right=True).clamp_(max=ends.shape[1] - 1)
    before = torch.where(stretch > 0, ends.gather(1, (stretch - 1).clamp_(min=0)), 0.0)
    inside = stretches[torch.arange(rows, device=logits.device), stretch[:, 0]].double()
    place = torch.searchsorted(inside.cumsum(-1), target - before, right=True)
    # Rounding may put the target behind the stretch's end: then its last token that can be drawn.
    last = inside.shape[1] - 1 - (inside > 0).flip(-1).int().argmax(-1, keepdim=True)
    return (stretch * inside.shape[1] + torch.minimum(place, last))[:, 0]


def _stretches(vocabulary: int) -> int:
    """A divisor of the vocabulary near its square root, so that no row has to be padded."""
    return next(n for n in range(int(vocabulary**0.5), 0, -1) if vocabulary % n == 0)


def _cut(row: Tensor, wish: Sampling) -> None:
    """Leave of a row of logits, in place, what top-k and then top-p let through."""
    vocabulary = row.shape[0]
    width = min(wish.top_k or max(_NUCLEUS, 1), vocabulary)
    values, ids = row.topk(width)
    if wish.top_k:
        weights = values.softmax(-1)
    else:
        weights = (values - row.logsumexp(-1)).exp()
        if width < vocabulary and weights.sum() < wish.top_p:
            values, ids = row.sort(descending=True)
            weights = values.softmax(-1)
    kept = weights.cumsum(-1) - weights < wish.top_p if wish.top_p < 1 else weights >= 0
    kept[0] = True
    row.fill_(-torch.inf)
    row[ids[kept]] = values[kept]
