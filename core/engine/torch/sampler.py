"""Logits -> tokens, a whole batch at once, as transformers' logits processors do it.

Penalty, temperature, top-k and top-p follow `generation/logits_process.py` of transformers. The
draw is one uniform number a row, put through the inverse of the cumulative distribution. It
depends on the request's seed and on the index in its reply alone, not on the rest of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence as Sequences
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from core.engine.torch.device_memory import pinned
from core.engine.torch.sequence import Sequence
from core.types import Sampling

_MASK = (1 << 64) - 1
_ALL = 1 << 40
_NUCLEUS = 512
"""The number of most probable tokens that are tried before the whole vocabulary is sorted."""


def uniform(seed: int, index: int) -> float:
    """The number in [0, 1) for the `index`-th token of a reply (SplitMix64)."""
    state = (seed + (index + 1) * 0x9E3779B97F4A7C15) & _MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    return float((state ^ (state >> 31)) >> 11) / (1 << 53)


@dataclass(frozen=True, slots=True)
class Truncation:
    """The rows that draw from a part of the vocabulary."""

    rows: Tensor
    top_k: Tensor
    """(rows, 1); larger than any vocabulary if a row has none."""
    top_p: Tensor
    """(rows, 1)"""
    widest: int
    """The largest top-k."""
    bounded: bool
    """Every row has a top-k, so that no row needs more tokens than the widest."""

    @classmethod
    def of(cls, samplings: list[Sampling], device: torch.device) -> Truncation | None:
        rows = [n for n, one in enumerate(samplings) if one.temperature and _is_truncated(one)]
        if not rows:
            return None
        top_k = [samplings[row].top_k or _ALL for row in rows]
        return cls(
            rows=_to_device(device, torch.tensor(rows)),
            top_k=_to_device(device, torch.tensor(top_k).unsqueeze(1)),
            top_p=_to_device(
                device, torch.tensor([samplings[row].top_p for row in rows]).unsqueeze(1)
            ),
            widest=max(samplings[row].top_k for row in rows),
            bounded=all(samplings[row].top_k for row in rows),
        )


def _is_truncated(sampling: Sampling) -> bool:
    return sampling.top_k > 0 or sampling.top_p < 1


@dataclass(frozen=True, slots=True)
class SamplingBatch:
    """The sampling of a step's rows, as tensors of one entry a row, on the model's device."""

    seen: Tensor | None
    """(rows, longest) ids of prompt and reply, the rest a row's first id; None: no penalty."""
    penalty: Tensor
    temperature: Tensor
    """1 for a greedy row."""
    draw: Tensor
    """float64"""
    greedy: Tensor | None
    """bool; None if no row is greedy: an argmax costs a CPU ten times as much as a maximum."""
    truncation: Truncation | None
    any_untruncated: bool
    """A row draws from the whole vocabulary."""
    all_greedy: bool

    @classmethod
    def of(cls, sequences: Sequences[Sequence], device: torch.device) -> SamplingBatch:
        samplings = [sequence.request.sampling for sequence in sequences]
        greedy = [sampling.temperature == 0 for sampling in samplings]
        penalised = any(sampling.repetition_penalty != 1 for sampling in samplings)
        return cls(
            seen=_to_device(device, _seen(sequences)) if penalised else None,
            penalty=_column(device, [sampling.repetition_penalty for sampling in samplings]),
            temperature=_column(device, [sampling.temperature or 1.0 for sampling in samplings]),
            draw=_draws(sequences, 0, device),
            greedy=_to_device(device, torch.tensor(greedy)) if any(greedy) else None,
            truncation=Truncation.of(samplings, device),
            any_untruncated=any(
                sampling.temperature and not _is_truncated(sampling) for sampling in samplings
            ),
            all_greedy=all(greedy),
        )

    def after(self, tokens: Tensor, sequences: Sequences[Sequence]) -> SamplingBatch:
        """The sampling of the same rows after `tokens`, which the host has not read yet."""
        seen = None if self.seen is None else torch.cat((self.seen, tokens[:, None]), 1)
        return replace(self, seen=seen, draw=_draws(sequences, 1, tokens.device))


def _draws(sequences: Sequences[Sequence], ahead: int, device: torch.device) -> Tensor:
    draws = [uniform(one.request.seed, one.reply_length + ahead) for one in sequences]
    return _column(device, draws, torch.float64)


def _to_device(device: torch.device, values: Tensor) -> Tensor:
    return pinned(values, device).to(device, non_blocking=True)


def _column(
    device: torch.device, values: list[float], dtype: torch.dtype = torch.float32
) -> Tensor:
    return _to_device(device, torch.tensor(values, dtype=dtype).unsqueeze(1))


def _seen(sequences: Sequences[Sequence]) -> Tensor:
    longest = max(sequence.length for sequence in sequences)
    seen = np.empty((len(sequences), longest), dtype=np.int64)
    for row, sequence in zip(seen, sequences, strict=True):
        row[: sequence.length] = sequence.ids[: sequence.length]
        row[sequence.length :] = sequence.ids[0]
    return torch.from_numpy(seen)


def sample(logits: Tensor, batch: SamplingBatch) -> Tensor:
    """The next token of each row of `logits` (rows, vocabulary), which are overwritten.

    -1 for a row whose logits are NaN or infinite. Every other token is below the vocabulary's size.
    """
    logits = logits.float()
    finite = logits.amax(-1).isfinite()
    if logits.is_cuda or not finite.all():  # on a GPU, asking takes longer than filling
        logits.masked_fill_(~finite[:, None], 0.0)
    return torch.where(finite, _sample_finite(logits, batch), -1)


def _sample_finite(logits: Tensor, batch: SamplingBatch) -> Tensor:
    if batch.seen is not None:
        _penalise(logits, batch.seen, batch.penalty)
    if batch.all_greedy:
        return logits.argmax(-1)
    logits /= batch.temperature
    truncation = batch.truncation
    truncated = None if truncation is None else _draw_truncated(logits, truncation, batch.draw)
    if batch.any_untruncated:
        tokens = _draw(logits, batch.draw)
    else:
        tokens = logits.new_zeros(len(logits), dtype=torch.long)
    if truncation is not None and truncated is not None:
        tokens[truncation.rows] = truncated
    if batch.greedy is None:
        return tokens
    return torch.where(batch.greedy, logits.argmax(-1), tokens)


def _penalise(logits: Tensor, seen: Tensor, penalty: Tensor) -> None:
    # An id that occurs twice is written twice with the same value.
    scores = logits.gather(1, seen)
    logits.scatter_(1, seen, torch.where(scores < 0, scores * penalty, scores / penalty))


def _draw(logits: Tensor, uniforms: Tensor) -> Tensor:
    """Inverse cumulative distribution in two stages: first a stretch of the vocabulary, then in it.

    The sums are float64: over a vocabulary, float32 would shift every later boundary.
    """
    rows, vocabulary = logits.shape
    stretches = logits.softmax(-1).view(rows, _stretches(vocabulary), -1)
    sums = stretches.sum(-1).double()
    ends = sums.cumsum(-1)
    target = uniforms * ends[:, -1:]
    stretch = torch.searchsorted(ends, target, right=True).clamp_(max=ends.shape[1] - 1)
    inside = stretches[torch.arange(rows, device=logits.device), stretch[:, 0]].double().cumsum(-1)
    # Rounding may put the target outside the stretch: then it is the first or the last token there
    # that can be drawn.
    target = (target - (ends - sums).gather(1, stretch)).clamp_(min=0)
    place = torch.searchsorted(inside, target, right=True)
    last = torch.searchsorted(inside, inside[:, -1:].contiguous())
    return (stretch * inside.shape[1] + torch.minimum(place, last))[:, 0]


def _stretches(vocabulary: int) -> int:
    """A divisor of the vocabulary near its square root, so that no row has to be padded."""
    return next(n for n in range(int(vocabulary**0.5), 0, -1) if vocabulary % n == 0)


def _draw_truncated(
    logits: Tensor, truncation: Truncation, uniforms: Tensor, width: int | None = None
) -> Tensor:
    """Draw for the truncated rows from the tokens that top-k and then top-p keep.

    The `width` most probable tokens are sorted, or all where a nucleus is larger. Sums are float64,
    so that a token does not depend on the width.
    """
    rows = logits[truncation.rows]
    width = width or _width(truncation, rows.shape[1], rows.device)
    values, ids = rows.topk(width)
    limited = truncation.top_k < rows.shape[1]
    peak = values[:, :1] if truncation.bounded else rows.logsumexp(-1, keepdim=True)
    weights = (values - peak).double().exp()
    weights.masked_fill_(torch.arange(width, device=rows.device) >= truncation.top_k, 0.0)
    ends = weights.cumsum(-1)
    whole = torch.where(limited, ends[:, -1:], 1.0)
    enough = truncation.bounded or width == rows.shape[1]
    if not enough and (ends[:, -1:] < truncation.top_p * whole).any():
        return _draw_truncated(logits, truncation, uniforms, rows.shape[1])
    kept = (ends - weights < truncation.top_p * whole) & (weights > 0)
    last = kept.sum(-1, keepdim=True).sub_(1).clamp_(min=0)
    target = uniforms[truncation.rows] * ends.gather(1, last)
    place = torch.searchsorted(ends, target, right=True)
    return ids.gather(1, torch.minimum(place, last))[:, 0]


def _width(truncation: Truncation, vocabulary: int, device: torch.device) -> int:
    if truncation.bounded:
        return min(vocabulary, truncation.widest)
    # a GPU sorts the whole vocabulary faster than it answers whether that is needed
    return (
        vocabulary if device.type == "cuda" else min(vocabulary, max(_NUCLEUS, truncation.widest))
    )
