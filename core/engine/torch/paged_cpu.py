"""The cache on a processor: pages, kept and attended to by a kernel where ids decode.

The pages are the scheduler's blocks, as on a GPU, and nothing is ever moved. Only for a prompt's
pieces is what came before them gathered: they attend by products of torch's.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from core.engine.torch.attention import CacheShape
from core.engine.torch.blocks import SIZE
from core.engine.torch.kernels_cpu import attend_paged_for, use_threads
from core.engine.torch.memory import untouched
from core.engine.torch.operations import define
from core.engine.torch.scheduler import Part

_SCORES = 4 << 20
"""Bytes of them at once, at most: a larger tensor is fresh memory each time, which is slow."""


class CpuCache:
    """Pages of `SIZE` ids in memory. To be made in the thread that computes."""

    def __init__(self, shape: CacheShape, blocks: int) -> None:
        self.pages = untouched(
            (shape.layers, blocks, shape.heads, 2, SIZE, shape.size), shape.dtype
        )
        self.kernel = attend_paged_for(shape.dtype, shape.size)
        self.by_layer = [_numbers(pages) for pages in self.pages]
        self.shares = min(use_threads(), shape.heads)

    def begin(self, parts: list[Part]) -> CpuStep:
        """A step over these parts, whose ids follow one another."""
        ends = np.cumsum([part.count for part in parts])
        single = [row for row, part in enumerate(parts) if part.count == 1]
        several = [row for row, part in enumerate(parts) if part.count > 1]
        return CpuStep(
            self,
            _Singles.of([parts[row] for row in single], ends[single] - 1) if single else None,
            [_Piece.of(parts[row], int(ends[row]), self.pages.dtype) for row in several],
        )


@dataclass(frozen=True, slots=True)
class _Singles:
    """The sequences of which a step holds one id."""

    at: npt.NDArray[np.int64]
    """Where among the step's ids it is."""
    tables: npt.NDArray[np.int32]
    """(sequences, pages)"""
    lengths: npt.NDArray[np.int32]
    """With that id."""

    @classmethod
    def of(cls, parts: list[Part], at: npt.NDArray[np.int64]) -> _Singles:
        tables = np.zeros((len(parts), max(len(one.sequence.blocks) for one in parts)), np.int32)
        for row, part in enumerate(parts):
            tables[row, : len(part.sequence.blocks)] = part.sequence.blocks
        lengths = np.array([part.sequence.computed + 1 for part in parts], np.int32)
        return cls(at, tables, lengths)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Several ids of one sequence, and all that came before them."""

    ids: slice
    """Of the step."""
    page: Tensor
    """(new,): where each of them is kept,"""
    slot: Tensor
    """and where in that page."""
    pages: Tensor | None
    """Of all there are; None: nothing came before."""
    length: int
    mask: Tensor
    """(new, length, or what all those pages hold), added to the scores."""

    @classmethod
    def of(cls, part: Part, end: int, dtype: torch.dtype) -> _Piece:
        start, length = part.sequence.computed, part.sequence.computed + part.count
        pages = torch.tensor(part.sequence.blocks[: -(-length // SIZE)])
        positions = torch.arange(start, length)
        hidden = torch.arange(len(pages) * SIZE if start else length) > positions[:, None]
        return cls(
            ids=slice(end - part.count, end),
            page=pages[positions // SIZE],
            slot=positions % SIZE,
            pages=pages if start else None,
            length=length,
            mask=torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, -torch.inf),
        )


@dataclass(frozen=True, slots=True)
class CpuStep:
    """One step over a processor's pages."""

    cache: CpuCache
    singles: _Singles | None
    pieces: list[_Piece]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See `AttentionStep`."""
        cache, wanted = self.cache, query.dtype
        if wanted != cache.pages.dtype:
            query, key, value = (one.to(cache.pages.dtype) for one in (query, key, value))
        one, heads, ids, size = query.shape
        out = query.new_empty((one, ids, heads, size))
        if singles := self.singles:
            cache.kernel(
                _by_ids(query), _by_ids(key), _by_ids(value), cache.by_layer[layer],
                _numbers(out)[0], singles.at, singles.tables, singles.lengths, scale, cache.shares,
            )  # fmt: skip
        for piece in self.pieces:
            at = (0, slice(None), piece.ids)
            out[0, piece.ids] = _attend(
                piece, cache.pages[layer], query[at], key[at], value[at], scale
            )
        return out.to(wanted)


def _attend(
    piece: _Piece, pages: Tensor, query: Tensor, key: Tensor, value: Tensor, scale: float
) -> Tensor:
    """Of (heads, ids, size) each: (ids, heads, size).

    In plain products: torch's fused attention computes in float32, and with it a prompt of 1,000
    ids in bfloat16 took 1.25 times as long in all (two cores with AVX-512's bfloat16).
    """
    pages[piece.page, :, 0, piece.slot] = key.transpose(0, 1)
    pages[piece.page, :, 1, piece.slot] = value.transpose(0, 1)
    if piece.pages is not None:
        # Whole pages: oneDNN would first copy what has gaps. Behind the last id stands anything.
        known = pages.index_select(0, piece.pages).permute(2, 1, 0, 3, 4).flatten(2, 3)
        known[:, :, piece.length :] = 0
        key, value = known
    group = len(query) // len(key)
    if group > 1:
        key, value = key.repeat_interleave(group, 0), value.repeat_interleave(group, 0)
    outs = []
    most = max(1, _SCORES // key[:, :, 0].nbytes)
    for first in range(0, query.shape[1], most):
        rows = slice(first, first + most)
        scores = torch.baddbmm(piece.mask[rows], query[:, rows], key.mT, alpha=scale)
        outs.append(scores.softmax(-1) @ value)
    return torch.cat(outs, 1).transpose(0, 1)


def _numbers(tensor: Tensor) -> npt.NDArray[Any]:
    """The same memory for the kernel, which takes bfloat16 by its bits."""
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _by_ids(tensor: Tensor) -> npt.NDArray[Any]:
    """(1, heads, ids, size) -> (ids, heads, size), for the kernel."""
    by_ids: npt.NDArray[Any] = _numbers(tensor)[0].swapaxes(0, 1)
    return by_ids


class StepAtHand:
    """The step that `computing` says, for the model; a trace of which so belongs to any step."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See `AttentionStep`."""
        out: Tensor = torch.ops.henji.attend_at_hand(query, key, value, layer, scale)
        return out


@contextmanager
def computing(step: CpuStep) -> Iterator[None]:
    """What this thread attends to meanwhile is this step's."""
    _at_hand.step = step
    try:
        yield
    finally:
        del _at_hand.step


_at_hand = threading.local()


def _attend_at_hand(query: Tensor, key: Tensor, value: Tensor, layer: int, scale: float) -> Tensor:
    step: CpuStep = _at_hand.step
    return step.attend(layer, query, key, value, scale)


def _shape_of_attend(query: Tensor, *_: object) -> Tensor:
    return query.transpose(1, 2)


define(
    "attend_at_hand(Tensor query, Tensor key, Tensor value, int layer, float scale) -> Tensor",
    _attend_at_hand,
    _shape_of_attend,
)
