"""The cache on a CPU: pages, and a kernel that attends to them for the ids that decode.

The pages are the scheduler's blocks, as on a GPU, and nothing is ever moved. A piece of a prompt
attends by torch's products, for which its keys and values are gathered.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from core.engine.torch.attention import Attention, CacheShape, fitted
from core.engine.torch.block_manager import ALL, SIZE, blocks_for
from core.engine.torch.cpu.numba_kernels import attend_paged_for, keep_paged_for, use_threads
from core.engine.torch.device_memory import lazy_zeros
from core.engine.torch.scheduler import ScheduledChunk

_NO_SINKS = np.empty(0, np.float32)
_SCORES = 4 << 20
"""Bytes of attention scores that are computed at once: they should fit into the CPU's cache."""
_ROWS, _KNOWN = 32, 8 * SIZE
"""A piece is padded to multiples of these: oneDNN compiles a product for each size, and keeps it,
1 MB for each pair of ids and known ids."""


class CpuCache:
    """Pages of `SIZE` ids in memory. Create it in the thread that computes."""

    def __init__(self, shape: CacheShape, blocks: int) -> None:
        self.pages = lazy_zeros(
            (shape.depth, blocks, shape.heads, 2, SIZE, shape.size), shape.dtype
        )
        self.attend_decoding = attend_paged_for(shape.dtype, shape.size)
        self.by_layer = [_as_numpy(self.pages[place]) for _, place in shape.places]
        self.groups = [group for group, _ in shape.places]
        """(layers,)"""
        self._keep = keep_paged_for(shape.dtype)
        self._known, self._scores, self._weights = (_ScratchTensor(shape.dtype) for _ in range(3))
        self.shares = min(use_threads(), shape.heads)
        self.windows = torch.tensor(shape.windows or [ALL] * shape.layers, dtype=torch.int32)
        """(layers,): the ids that each attends to."""

    def keep(self, layer: int, piece: _PromptPiece, key: Tensor, value: Tensor) -> Tensor:
        """Keep a key and a value of (1, key heads, new, size).

        Returns all known ones, (2, key heads, known, size), padded with zeros, which are valid
        until the next call.
        """
        new, table = torch.cat((key, value)), piece.tables[self.groups[layer]]
        known = self._known.of(*new.shape[:2], piece.mask.shape[1], new.shape[3])
        known[:, :, len(table) * SIZE :] = 0
        self._keep(_as_numpy(new), self.by_layer[layer], table, piece.start, _as_numpy(known))
        return known

    def attend_piece(
        self, mask: Tensor, query: Tensor, known: Tensor, attention: Attention, out: Tensor
    ) -> None:
        """Out (ids, heads, size) of query (heads, ids, size) and known (2, key heads, known, size).

        The mask may have more rows than there are ids.

        torch's fused attention computes in float32: with it a prompt of 1,000 ids in bfloat16 took
        1.25 times as long (two cores with AVX-512's bfloat16).
        """
        key, value = known
        group = len(query) // len(key)
        query = nn.functional.pad(query, (0, 0, 0, len(mask) - query.shape[1]))
        queries = query.view(-1, group, *query.shape[1:]).transpose(0, 1)
        outs = out.transpose(0, 1).view(-1, group, *out[:, 0].shape).transpose(0, 1)
        most = max(1, _SCORES // key[:, :, 0].nbytes // _ROWS) * _ROWS
        for first in range(0, len(out), most):
            rows = slice(first, first + most)
            for nth, heads in enumerate(queries):  # each key head has one of these
                sizes = (len(key), len(mask[rows]), key.shape[1])
                scores, weights = self._scores.of(*sizes), self._weights.of(*sizes)
                _score(heads[:, rows], key, mask[rows], attention, scores)
                torch.softmax(scores, -1, out=weights)
                if attention.sinks is not None:
                    weights *= _beside_sinks(scores, attention.sinks.view(len(key), -1)[:, nth])
                outs[nth, :, rows] = (weights @ value)[:, : len(out) - first]

    def begin(self, chunks: list[ScheduledChunk]) -> CpuStep:
        """A step over these chunks."""
        ends = np.cumsum([chunk.count for chunk in chunks])
        windows = self.windows.tolist()
        one_id = [row for row, chunk in enumerate(chunks) if chunk.count == 1]
        many_ids = [row for row, chunk in enumerate(chunks) if chunk.count > 1]
        return CpuStep(
            self,
            _DecodingRows.of([chunks[row] for row in one_id], ends[one_id] - 1) if one_id else None,
            {
                window: [
                    _PromptPiece.of(chunks[row], int(ends[row]), self.pages.dtype, window)
                    for row in many_ids
                ]
                for window in set(windows)
            },
            windows,
            int(ends[-1]),
        )


def _score(query: Tensor, key: Tensor, mask: Tensor, attention: Attention, scores: Tensor) -> None:
    """Scores (key heads, ids, known) of query (key heads, ids, size)."""
    if not attention.cap:
        torch.baddbmm(mask, query, key.mT, alpha=attention.scale, out=scores)
        return
    torch.bmm(query, key.mT, out=scores)
    scores.mul_(attention.scale / attention.cap).tanh_().mul_(attention.cap).add_(mask)


def _beside_sinks(scores: Tensor, sinks: Tensor) -> Tensor:
    """The share of the weights that the sinks leave to the keys."""
    total = scores.float().logsumexp(-1, keepdim=True)
    return torch.sigmoid(total - sinks.float()[:, None, None]).to(scores.dtype)


class _ScratchTensor:
    """Memory that is reused: allocating it may take longer than filling it."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._numbers = torch.empty(0, dtype=dtype)

    def of(self, *sizes: int) -> Tensor:
        """An uninitialized tensor of these sizes, valid until the next call."""
        count = prod(sizes)
        if len(self._numbers) < count:
            self._numbers = self._numbers.new_empty(count)
        return self._numbers[:count].view(sizes)


@dataclass(frozen=True, slots=True)
class _DecodingRows:
    """The sequences with one id in a step."""

    at: npt.NDArray[np.int64]
    """The index of that id in the step."""
    tables: npt.NDArray[np.int32]
    """(groups, sequences, pages)"""
    lengths: npt.NDArray[np.int32]
    """That id included."""

    @classmethod
    def of(cls, chunks: list[ScheduledChunk], at: npt.NDArray[np.int64]) -> _DecodingRows:
        groups = len(chunks[0].sequence.tables)
        longest = max(len(table) for one in chunks for table in one.sequence.tables)
        tables = np.zeros((groups, len(chunks), longest), np.int32)
        for row, chunk in enumerate(chunks):
            for group, table in enumerate(chunk.sequence.tables):
                tables[group, row, : len(table)] = table
        lengths = np.array([chunk.sequence.computed + 1 for chunk in chunks], np.int32)
        return cls(at, tables, lengths)


@dataclass(frozen=True, slots=True)
class _PromptPiece:
    """Several ids of one sequence, and those before them."""

    ids: slice
    """Their indices in the step."""
    start: int
    """The number of ids before them in the pages of a table."""
    tables: list[npt.NDArray[np.int32]]
    """Of each group: (pages,)"""
    mask: Tensor
    """(ids, known), added to the scores; both are padded."""

    @classmethod
    def of(cls, chunk: ScheduledChunk, end: int, dtype: torch.dtype, window: int) -> _PromptPiece:
        """The piece as a layer with this window sees it, without the pages before the window."""
        start, length = chunk.sequence.computed, chunk.sequence.computed + chunk.count
        first, last = max(0, start + 1 - window) // SIZE, blocks_for(length)
        tables = [np.array(one[first:last], np.int32) for one in chunk.sequence.tables]
        start, length = start - first * SIZE, length - first * SIZE
        rows, known = _multiple(chunk.count, _ROWS), _multiple(length, _KNOWN)
        positions = torch.arange(start, start + rows).clamp_(max=length - 1)[:, None]
        keys = torch.arange(known)
        hidden = (keys > positions) | (keys <= positions - window)
        mask = torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, -torch.inf)
        return cls(slice(end - chunk.count, end), start, tables, mask)


def _multiple(count: int, of: int) -> int:
    """`count`, rounded up to a multiple."""
    return -(-count // of) * of


@dataclass(frozen=True, slots=True)
class CpuStep:
    """One step over a CPU's pages."""

    cache: CpuCache
    decoding: _DecodingRows | None
    pieces: dict[int, list[_PromptPiece]]
    """The pieces as layers with each window see them."""
    windows: list[int]
    ids: int
    """Rows after these are padding."""

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, attention: Attention
    ) -> Tensor:
        """See `AttentionStep`."""
        cache, wanted, size = self.cache, query.dtype, value.shape[3]
        if wanted != cache.pages.dtype:
            query, key, value = (one.to(cache.pages.dtype) for one in (query, key, value))
        _, key_heads, _, _, whole = cache.pages[0].shape
        query, key, value = fitted(key_heads, whole, query, key, value)
        out = query.new_empty((1, *query.transpose(1, 2).shape[1:]))
        if query.shape[2] > self.ids:
            out[:, self.ids :] = 0
        if self.decoding:
            self._decode(self.decoding, layer, query, key, value, attention, out)
        for piece in self.pieces[self.windows[layer]]:
            at = (slice(None), slice(None), piece.ids)
            known = cache.keep(layer, piece, key[at], value[at])
            cache.attend_piece(
                piece.mask, query[0, :, piece.ids], known, attention, out[0, piece.ids]
            )
        return out[..., :size].to(wanted)

    def _decode(
        self,
        rows: _DecodingRows,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention: Attention,
        out: Tensor,
    ) -> None:
        cache = self.cache
        cache.attend_decoding(
            _by_ids(query), _by_ids(key), _by_ids(value), cache.by_layer[layer], _as_numpy(out)[0],
            rows.at, rows.tables[cache.groups[layer]], rows.lengths, self.windows[layer],
            attention.scale, attention.cap,
            _NO_SINKS if attention.sinks is None else attention.sinks.float().numpy(), cache.shares,
        )  # fmt: skip


def _as_numpy(tensor: Tensor) -> npt.NDArray[Any]:
    """The same memory for the kernel, which takes bfloat16 as its bits."""
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _by_ids(tensor: Tensor) -> npt.NDArray[Any]:
    """(1, heads, ids, size) -> (ids, heads, size), for the kernel."""
    by_ids: npt.NDArray[Any] = _as_numpy(tensor)[0].swapaxes(0, 1)
    return by_ids
