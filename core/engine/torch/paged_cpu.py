"""The cache on a processor: pages, kept and attended to by a kernel where ids decode.

The pages are the scheduler's blocks, as on a GPU, and nothing is ever moved. Only a prompt's
pieces gather what came before them, for torch's own attention, which is made for many queries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from core.engine.torch.attention import CacheShape
from core.engine.torch.blocks import SIZE
from core.engine.torch.kernels_cpu import attend_paged_for, use_threads
from core.engine.torch.memory import untouched
from core.engine.torch.scheduler import Part


class CpuCache:
    """Pages of `SIZE` ids in memory. To be made in the thread that computes."""

    def __init__(self, shape: CacheShape, blocks: int) -> None:
        self.pages = untouched(
            (shape.layers, blocks, shape.heads, 2, SIZE, shape.size), shape.dtype
        )
        self.kernel = attend_paged_for(shape.dtype)
        self.shares = min(use_threads(), shape.heads)

    def begin(self, parts: list[Part]) -> CpuStep:
        """See `Cache`."""
        ends = np.cumsum([part.count for part in parts])
        single = [row for row, part in enumerate(parts) if part.count == 1]
        several = [row for row, part in enumerate(parts) if part.count > 1]
        return CpuStep(
            self,
            _Singles.of([parts[row] for row in single], ends[single] - 1) if single else None,
            [_Piece.of(parts[row], int(ends[row])) for row in several],
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
    pages: Tensor
    """Which hold them, and which each of the new ones (new,), at which slot (new,)."""
    page: Tensor
    slot: Tensor
    length: int
    mask: Tensor | None
    """(new, length), added to the scores; None: nothing came before."""

    @classmethod
    def of(cls, part: Part, end: int) -> _Piece:
        start = part.sequence.computed
        length = start + part.count
        positions = torch.arange(start, length)
        pages = torch.tensor(part.sequence.blocks[: -(-length // SIZE)])
        mask = torch.arange(length) <= positions[:, None] if start else None
        ids = slice(end - part.count, end)
        return cls(ids, pages, pages[positions // SIZE], positions % SIZE, length, mask)


@dataclass(frozen=True, slots=True)
class CpuStep:
    """One step over a processor's pages."""

    cache: CpuCache
    singles: _Singles | None
    pieces: list[_Piece]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See `AttentionStep`."""
        pages, wanted = self.cache.pages[layer], query.dtype
        query, key, value = (one[0].to(pages.dtype) for one in (query, key, value))
        heads, ids, size = query.shape
        out = query.new_empty((ids, heads, size))
        if one := self.singles:
            by_ids = (numbers_of(rows.transpose(0, 1)) for rows in (query, key, value))
            self.cache.kernel(
                *by_ids, numbers_of(pages), numbers_of(out),
                one.at, one.tables, one.lengths, scale, self.cache.shares,
            )  # fmt: skip
        for piece in self.pieces:
            at = (slice(None), piece.ids)
            out[piece.ids] = _attend(piece, pages, query[at], key[at], value[at], scale)
        return out.unsqueeze(0).to(wanted)


def _attend(
    piece: _Piece, pages: Tensor, query: Tensor, key: Tensor, value: Tensor, scale: float
) -> Tensor:
    """Of (heads, ids, size) each: (ids, heads, size)."""
    pages[piece.page, :, 0, piece.slot] = key.transpose(0, 1)
    pages[piece.page, :, 1, piece.slot] = value.transpose(0, 1)
    if piece.mask is not None:
        before = pages.permute(2, 1, 0, 3, 4)[:, :, piece.pages]
        key, value = before.flatten(2, 3)[:, :, : piece.length]
    out = scaled_dot_product_attention(
        query[None],
        key[None],
        value[None],
        attn_mask=piece.mask,
        is_causal=piece.mask is None,
        scale=scale,
        enable_gqa=len(query) != len(key),
    )
    return out[0].transpose(0, 1)


def numbers_of(tensor: Tensor) -> npt.NDArray[Any]:
    """The same memory for the kernel, which takes bfloat16 by its bits."""
    return tensor.view(torch.uint16 if tensor.dtype == torch.bfloat16 else tensor.dtype).numpy()
