"""The cache on a GPU: pages, and an operation that writes keys and values and attends to them.

The pages are the scheduler's blocks, and nothing is ever moved. In the table of a group, page n of
a sequence is in column n modulo their number: a group with a window has a narrow table.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.engine.torch.attention import Attention, CacheShape, define, fitted
from core.engine.torch.block_manager import ALL, SIZE, blocks_held
from core.engine.torch.gpu.triton_kernels import attend_paged, join_splits, store_paged

TILE = 16
"""Ids of a prompt that one program of the kernel attends for."""
_KEYS = 64
_PROGRAMS = 512
"""The number of programs that keeps a large GPU busy."""
_MOST_SPLITS = 16


@dataclass(frozen=True, slots=True)
class Layout:
    """The places of a step's ids, all int32, on the device."""

    slots: Tensor
    """(groups, ids): where each id's key and value go."""
    tables: tuple[Tensor, ...]
    """Of each group: (sequences, columns)"""
    lengths: Tensor
    starts: Tensor
    tile_sequence: Tensor
    tile_first: Tensor


class PagedCache:
    """Pages of `SIZE` ids on a device, and one more for padding rows."""

    def __init__(self, shape: CacheShape, blocks: int, device: torch.device) -> None:
        sizes = (2, shape.depth, (blocks + 1) * SIZE, shape.heads, shape.size)
        self.pages = torch.zeros(sizes, dtype=shape.dtype, device=device)
        self.scratch = blocks
        """The page of the padding rows."""
        windows = shape.windows or [ALL] * shape.layers
        self.windows = torch.tensor(windows, dtype=torch.int32, device=device)
        """(layers,): the ids that each attends to."""
        self.has_windows = bool(shape.windows)
        self.groups = [group.window for group in shape.groups]
        """Their windows."""
        self.places = [group * shape.depth + place for group, place in shape.places]
        """(layers,)"""

    def columns(self, context_length: int, step_tokens: int) -> list[int]:
        """The columns of each group's table: one for each page that a sequence holds at once."""
        return [blocks_held(context_length, window, step_tokens) for window in self.groups]


@dataclass(frozen=True, slots=True)
class PagedStep:
    """One step's pages and layout."""

    pages: Tensor
    """(2, layers of a group, slots, key heads, size)"""
    places: list[int]
    """(layers,): the group and the place in it, as one number."""
    windows: Tensor | None
    """See `PagedCache`; None: all layers attend to all."""
    layout: Layout
    tile: int

    @classmethod
    def of(cls, cache: PagedCache, layout: Layout, tile: int) -> PagedStep:
        windows = cache.windows if cache.has_windows else None
        return cls(cache.pages, cache.places, windows, layout, tile)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, attention: Attention
    ) -> Tensor:
        """See `AttentionStep`."""
        at = self.layout
        out: Tensor = torch.ops.henji.attend_paged(
            query, key, value, self.pages, self.places, at.slots, at.tables, at.lengths, at.starts,
            at.tile_sequence, at.tile_first, self.windows, attention.sinks, layer,
            attention.scale, attention.cap, self.tile,
        )  # fmt: skip
        return out


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pages: Tensor,
    places: list[int],
    slots: Tensor,
    tables: list[Tensor],
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
    group, place = divmod(places[layer], pages.shape[1])
    keys, values, table = pages[0, place], pages[1, place], tables[group]
    wanted = value.shape[3]
    fitting = fitted(pages.shape[3], pages.shape[4], query, key, value)
    query, key, value = (one[0].transpose(0, 1) for one in fitting)
    ids, heads, size = query.shape
    key_heads, whole = keys.shape[1], _power_of_two(size)
    store_paged[(ids, key_heads)](
        key, value, keys, values, slots[group],
        key.stride(0), key.stride(1), value.stride(0), value.stride(1), keys.stride(0),
        SIZE=size, SIZE_PADDED=whole,
    )  # fmt: skip
    group_size = heads // key_heads
    splits = _splits(ids * key_heads) if tile == 1 else 1
    out = query.new_empty((1, ids, heads, size))
    parts = query.new_empty((splits, ids, heads, size), dtype=torch.float32) if splits > 1 else out
    tops, sums = query.new_empty((2, splits, ids, heads), dtype=torch.float32)
    attend_paged[(len(tile_first), key_heads, splits)](
        query, keys, values, parts, tops, sums, table, lengths, starts, tile_sequence, tile_first,
        table if windows is None else windows[layer], table if sinks is None else sinks,
        scale, cap, ids, query.stride(0), query.stride(1), keys.stride(0), table.stride(0),
        table.shape[1], PAGE=SIZE, SIZE=size, SIZE_PADDED=whole, GROUP=group_size, TILE=tile,
        ROWS=max(16, _power_of_two(group_size * tile)), KEYS=_KEYS, SPLITS=splits,
        WINDOW=windows is not None, CAPPED=cap > 0, SINKS=sinks is not None,
    )  # fmt: skip
    if splits > 1:
        join_splits[(ids * heads,)](
            parts, tops, sums, out, SIZE=size, SIZE_PADDED=whole, SPLITS=splits
        )
    return out[..., :wanted].contiguous()


def _splits(programs: int) -> int:
    """The number of programs that share a sequence's keys: several, if few sequences leave the GPU
    idle."""
    return max(1, min(_MOST_SPLITS, _power_of_two(_PROGRAMS // programs + 1) // 2))


def _shape_of_attend(query: Tensor, key: Tensor, value: Tensor, *_: object) -> Tensor:
    one, heads, ids, _size = query.shape
    return query.new_empty((one, ids, heads, value.shape[3]))


define(
    "attend_paged(Tensor query, Tensor key, Tensor value, Tensor(a!) pages, int[] places, "
    "Tensor slots, Tensor[] tables, Tensor lengths, Tensor starts, Tensor tile_sequence, "
    "Tensor tile_first, Tensor? windows, Tensor? sinks, SymInt layer, float scale, float cap, "
    "int tile) -> Tensor",
    _attend,
    _shape_of_attend,
)


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()
