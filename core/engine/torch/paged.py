"""The cache and the steps on a GPU: pages, a kernel that reads them, and captured graphs.

The pages are the scheduler's blocks, and a sequence's table is its list of blocks: nothing is ever
moved. Steps in which every sequence decodes are replayed from CUDA graphs, one for each of a few
batch sizes; within such a step the host waits for nothing but the sampled tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.engine.torch.attention import CacheShape
from core.engine.torch.blocks import SIZE
from core.engine.torch.paged_kernel import attend_paged
from core.engine.torch.runner import Ints, Runner
from core.engine.torch.scheduler import Part
from core.engine.torch.sequence import Sequence

_TILE = 16
"""Ids of a prompt that one program of the kernel attends for."""
_KEYS = 64


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a step's ids belong; on the host, or on the device where the kernel reads it."""

    slots: Tensor
    """(ids,) int64: where each id's key and value go."""
    tables: Tensor
    lengths: Tensor
    starts: Tensor
    tile_sequence: Tensor
    tile_first: Tensor

    def to(self, device: torch.device) -> Layout:
        return Layout(*(getattr(self, one.name).to(device) for one in fields(self)))

    def copy_rows(self, other: Layout) -> None:
        """Let the first rows, of one id each, be the other layout's."""
        for name in ("slots", "tables", "lengths"):
            source: Tensor = getattr(other, name)
            getattr(self, name)[: len(source)].copy_(source, non_blocking=True)


def layout_of(parts: list[Part], pages: int, tile: int) -> Layout:
    """`pages` is the width of the tables; a tile is as many ids of one sequence."""
    tables = np.zeros((len(parts), pages), dtype=np.int32)
    slots, sequences, firsts = [], [], []
    for row, part in enumerate(parts):
        blocks = np.array(part.sequence.blocks, dtype=np.int32)
        tables[row, : len(blocks)] = blocks
        positions = np.arange(part.sequence.computed, part.sequence.computed + part.count)
        slots.append(blocks[positions // SIZE].astype(np.int64) * SIZE + positions % SIZE)
        first = np.arange(0, part.count, tile, dtype=np.int32)
        firsts.append(first)
        sequences.append(np.full(len(first), row, dtype=np.int32))
    counts = np.array([0] + [part.count for part in parts], dtype=np.int32)
    lengths = [part.sequence.computed + part.count for part in parts]
    return Layout(
        slots=torch.from_numpy(np.concatenate(slots)),
        tables=torch.from_numpy(tables),
        lengths=torch.tensor(lengths, dtype=torch.int32),
        starts=torch.from_numpy(np.cumsum(counts, dtype=np.int32)),
        tile_sequence=torch.from_numpy(np.concatenate(sequences)),
        tile_first=torch.from_numpy(np.concatenate(firsts)),
    )


class PagedCache:
    """Pages of `SIZE` ids on a device, and one more that padded rows write to."""

    def __init__(self, shape: CacheShape, blocks: int, device: torch.device) -> None:
        sizes = (2, shape.layers, (blocks + 1) * SIZE, shape.heads, shape.size)
        self.pages = torch.zeros(sizes, dtype=shape.dtype, device=device)
        self.scratch = blocks
        """The page of the padded rows."""

    def arrange(self, parts: Iterable[Part]) -> list[Part]:
        """Any order will do."""
        return list(parts)

    def begin(self, parts: list[Part]) -> PagedStep:
        pages = max(len(part.sequence.blocks) for part in parts)
        tile = 1 if all(part.decodes for part in parts) else _TILE
        return PagedStep(self.pages, layout_of(parts, pages, tile).to(self.pages.device), tile)

    def keep(self, sequence: Sequence, numbers: range) -> None:
        """A page that is full is where it shall be."""

    def drop(self, sequence: Sequence) -> None:
        """Its pages are the scheduler's to give away."""


@dataclass(frozen=True, slots=True)
class PagedStep:
    """The kernel's arguments for one step."""

    pages: Tensor
    """(2, layers, slots, key heads, size)"""
    layout: Layout
    tile: int

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See `AttentionStep`."""
        keys, values = self.pages[0, layer], self.pages[1, layer]
        keys.index_copy_(0, self.layout.slots, key[0].transpose(0, 1))
        values.index_copy_(0, self.layout.slots, value[0].transpose(0, 1))
        query = query[0].transpose(0, 1)
        ids, heads, size = query.shape
        out = torch.empty((ids, heads, size), dtype=query.dtype, device=query.device)
        group = heads // keys.shape[1]
        attend_paged[(self.layout.tile_first.shape[0], keys.shape[1])](
            query,
            keys,
            values,
            out,
            self.layout.tables,
            self.layout.lengths,
            self.layout.starts,
            self.layout.tile_sequence,
            self.layout.tile_first,
            scale,
            query.stride(0),
            query.stride(1),
            keys.stride(0),
            self.layout.tables.stride(0),
            PAGE=SIZE,
            SIZE=size,
            SIZE_PADDED=_power_of_two(size),
            GROUP=group,
            TILE=self.tile,
            ROWS=max(16, _power_of_two(group * self.tile)),
            KEYS=_KEYS,
        )
        return out.unsqueeze(0)


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


class PagedRunner(Runner):
    """Steps on a GPU, with a captured graph for each of a few numbers of decoding sequences."""

    def __init__(
        self, model: PreTrainedModel, cache: PagedCache, *, places: int, context_length: int
    ) -> None:
        super().__init__(model, cache)
        pages = -(-context_length // SIZE)
        pool = torch.cuda.graph_pool_handle()
        # The largest first: the others then find their memory in the pool.
        sizes = sorted(_buckets(places), reverse=True)
        graphs = {size: _DecodeGraph(model, cache, size, pages, pool) for size in sizes}
        self._graphs = dict(sorted(graphs.items()))

    def _logits(self, parts: list[Part], ids: Ints, positions: Ints, wanted: Ints) -> Tensor:
        if not all(part.decodes for part in parts):
            return super()._logits(parts, ids, positions, wanted)
        graph = next(graph for size, graph in self._graphs.items() if size >= len(parts))
        return graph.replay(parts, ids, positions)


def _buckets(places: int) -> set[int]:
    steps = [1, 2, 4, *range(8, 64, 8), *range(64, places, 32)]
    return {size for size in steps if size < places} | {places}


class _DecodeGraph:
    """One decoding step of `size` sequences, captured. Rows that are free write to scratch."""

    def __init__(
        self, model: PreTrainedModel, cache: PagedCache, size: int, pages: int, pool: Any
    ) -> None:
        device = cache.pages.device
        self._size, self._pages, self._scratch = size, pages, cache.scratch
        self._ids = torch.zeros(1, size, dtype=torch.long, device=device)
        self._positions = torch.zeros_like(self._ids)
        self._layout = self._free().to(device)
        self._rest = self._free().to(device)
        self._every = torch.arange(size, device=device)
        self._step = PagedStep(cache.pages, self._layout, tile=1)
        side: torch.cuda.Stream = cast("Any", torch.cuda.Stream)(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):  # kernels are compiled and chosen before the capture
            for _ in range(2):
                self._forward(model)
        torch.cuda.current_stream(device).wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool):
            self._logits = self._forward(model)

    def replay(self, parts: list[Part], ids: Ints, positions: Ints) -> Tensor:
        self._ids[0, : len(ids)].copy_(torch.from_numpy(ids), non_blocking=True)
        self._positions[0, : len(ids)].copy_(torch.from_numpy(positions), non_blocking=True)
        self._layout.copy_rows(self._rest)
        self._layout.copy_rows(layout_of(parts, self._pages, tile=1))
        self._graph.replay()
        return self._logits[: len(ids)]

    def _free(self) -> Layout:
        """Every row a sequence of one id, on the scratch page."""
        rows = torch.arange(self._size + 1, dtype=torch.int32)
        return Layout(
            slots=torch.full((self._size,), self._scratch * SIZE),
            tables=torch.full((self._size, self._pages), self._scratch, dtype=torch.int32),
            lengths=torch.ones(self._size, dtype=torch.int32),
            starts=rows,
            tile_sequence=rows[:-1].clone(),
            tile_first=torch.zeros(self._size, dtype=torch.int32),
        )

    def _forward(self, model: PreTrainedModel) -> Tensor:
        logits: Tensor = model(
            input_ids=self._ids,
            position_ids=self._positions,
            use_cache=False,
            logits_to_keep=self._every,
            step=self._step,
        ).logits[0]
        return logits
