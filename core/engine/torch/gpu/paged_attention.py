"""The cache on a GPU: pages, and an operation that writes keys and values and attends to them.

The pages are the scheduler's blocks, and a sequence's table is its list of blocks: nothing is ever
moved.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.engine.torch.attention import ALL, Attention, CacheShape, define, fitted
from core.engine.torch.block_manager import SIZE
from core.engine.torch.gpu.triton_kernels import attend_paged, join_splits, store_paged

TILE = 16
"""Ids of a prompt that one program of the kernel attends for."""
_KEYS = 64
_PROGRAMS = 512
"""The number that keeps a large GPU busy."""
_MOST_SPLITS = 16


@dataclass(frozen=True, slots=True)
class Layout:
    """The places of a step's ids, all int32, on the device."""

    slots: Tensor
    """(ids,): where each id's key and value go."""
    tables: Tensor
    lengths: Tensor
    starts: Tensor
    tile_sequence: Tensor
    tile_first: Tensor


class PagedCache:
    """Pages of `SIZE` ids on a device, and one more for padding rows."""

    def __init__(self, shape: CacheShape, blocks: int, device: torch.device) -> None:
        sizes = (2, shape.layers, (blocks + 1) * SIZE, shape.heads, shape.size)
        self.pages = torch.zeros(sizes, dtype=shape.dtype, device=device)
        self.scratch = blocks
        """The page of the padding rows."""
        windows = shape.windows or [ALL] * shape.layers
        self.windows = torch.tensor(windows, dtype=torch.int32, device=device)
        """(layers,): the ids that each attends to."""
        self.has_windows = bool(shape.windows)


@dataclass(frozen=True, slots=True)
class PagedStep:
    """One step's pages and layout."""

    pages: Tensor
    """(2, layers, slots, key heads, size)"""
    windows: Tensor | None
    """See `PagedCache`; None: all layers attend to all."""
    layout: Layout
    tile: int

    @classmethod
    def of(cls, cache: PagedCache, layout: Layout, tile: int) -> PagedStep:
        return cls(cache.pages, cache.windows if cache.has_windows else None, layout, tile)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, how: Attention
    ) -> Tensor:
        """See `AttentionStep`."""
        at = self.layout
        out: Tensor = torch.ops.henji.attend_paged(
            query, key, value, self.pages, at.slots, at.tables, at.lengths, at.starts,
            at.tile_sequence, at.tile_first, self.windows, how.sinks, layer, how.scale, how.cap,
            self.tile,
        )  # fmt: skip
        return out


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pages: Tensor,
    slots: Tensor,
    tables: Tensor,
    lengths: Tensor,
    starts: Tensor,
    tile_sequence: Tensor,
    tile_first: Tensor,
    windows: Tensor | None,
    sinks: Tensor | None,
    layer: int,
    scale: float,
    cap: float,
    tile: int,
) -> Tensor:
    keys, values = pages[0, layer], pages[1, layer]
    wanted = value.shape[3]
    fitting = fitted(pages.shape[3], pages.shape[4], query, key, value)
    query, key, value = (one[0].transpose(0, 1) for one in fitting)
    ids, heads, size = query.shape
    key_heads, whole = keys.shape[1], _power_of_two(size)
    store_paged[(ids, key_heads)](
        key, value, keys, values, slots,
        key.stride(0), key.stride(1), value.stride(0), value.stride(1), keys.stride(0),
        SIZE=size, SIZE_PADDED=whole,
    )  # fmt: skip
    group = heads // key_heads
    splits = _splits(ids * key_heads) if tile == 1 else 1
    out = query.new_empty((1, ids, heads, size))
    parts = query.new_empty((splits, ids, heads, size), dtype=torch.float32) if splits > 1 else out
    tops, sums = query.new_empty((2, splits, ids, heads), dtype=torch.float32)
    attend_paged[(len(tile_first), key_heads, splits)](
        query, keys, values, parts, tops, sums, tables, lengths, starts, tile_sequence, tile_first,
        tables if windows is None else windows[layer], tables if sinks is None else sinks,
        scale, cap, ids, query.stride(0), query.stride(1), keys.stride(0), tables.stride(0),
        PAGE=SIZE, SIZE=size, SIZE_PADDED=whole, GROUP=group, TILE=tile,
        ROWS=max(16, _power_of_two(group * tile)), KEYS=_KEYS, SPLITS=splits,
        WINDOW=windows is not None, CAPPED=cap > 0, SINKS=sinks is not None,
    )  # fmt: skip
    if splits > 1:
        join_splits[(ids * heads,)](
            parts, tops, sums, out, SIZE=size, SIZE_PADDED=whole, SPLITS=splits
        )
    return out[..., :wanted].contiguous()


def _splits(programs: int) -> int:
    """With few sequences several programs share the keys of each, so that the GPU is not idle."""
    return max(1, min(_MOST_SPLITS, _power_of_two(_PROGRAMS // programs + 1) // 2))


def _shape_of_attend(query: Tensor, key: Tensor, value: Tensor, *_: object) -> Tensor:
    one, heads, ids, _size = query.shape
    return query.new_empty((one, ids, heads, value.shape[3]))


define(
    "attend_paged(Tensor query, Tensor key, Tensor value, Tensor(a!) pages, Tensor slots, "
    "Tensor tables, Tensor lengths, Tensor starts, Tensor tile_sequence, Tensor tile_first, "
    "Tensor? windows, Tensor? sinks, SymInt layer, float scale, float cap, int tile) -> Tensor",
    _attend,
    _shape_of_attend,
)


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()
