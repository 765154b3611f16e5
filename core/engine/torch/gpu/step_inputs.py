"""A GPU's steps, whose inputs always have the same addresses, so that they can be captured.

A step is padded: padding ids write to the scratch page, and their results are ignored.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import prod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.engine.torch.block_manager import SIZE, BlockTable
from core.engine.torch.device_memory import pinned
from core.engine.torch.gpu.paged_attention import TILE, Layout, PagedCache, PagedStep
from core.engine.torch.model_runner import Ints, logits_of
from core.engine.torch.scheduler import ScheduledChunk


class _Inputs:
    """The int32 arrays that change with each step, in one block: one copy sends them all."""

    def __init__(self, device: torch.device, **shapes: tuple[int, ...]) -> None:
        self._host = torch.zeros(sum(map(prod, shapes.values())), dtype=torch.int32)
        self._device = self._host.to(device, copy=True)
        self.host: dict[str, npt.NDArray[np.int32]] = {}
        self.device: dict[str, Tensor] = {}
        end = 0
        for name, shape in shapes.items():
            begin, end = end, end + prod(shape)
            self.host[name] = self._host[begin:end].view(shape).numpy()
            self.device[name] = self._device[begin:end].view(shape)

    def send(self) -> None:
        self._device.copy_(pinned(self._host, self._device.device), non_blocking=True)


def _slots(table: npt.NDArray[np.int32], rows: Ints, positions: Ints) -> Ints:
    """The slots of these positions of these rows' sequences, in all pages."""
    slots: Ints = table[rows, positions // SIZE % table.shape[1]] * SIZE + positions % SIZE
    return slots


def _write(row: npt.NDArray[np.int32], blocks: BlockTable) -> None:
    """Set a row of a table; see `Layout`."""
    columns = len(row)
    if len(blocks) <= columns:
        row[: len(blocks)] = blocks
    else:
        row[:] = np.roll(blocks[-columns:], len(blocks))


def only_decodes(chunks: list[ScheduledChunk], ids: Ints | Tensor, wanted: Ints) -> bool:
    """Whether each chunk is one id that samples: a `DecodeStep`."""
    return len(ids) == len(chunks) == len(wanted)


class Step(ABC):
    """A step of a fixed number of ids."""

    def __init__(
        self, model: PreTrainedModel, inputs: _Inputs, paged: PagedStep, columns: Sequence[int]
    ) -> None:
        self._model, self._inputs, self._paged = model, inputs, paged
        self._tables = np.split(inputs.host["tables"], np.cumsum(columns)[:-1], axis=1)
        """Of each group: a part of the columns."""

    @abstractmethod
    def stage(
        self, chunks: list[ScheduledChunk], ids: Ints | Tensor, positions: Ints, wanted: Ints
    ) -> None:
        """Set the inputs of the next run."""

    def run(self) -> Tensor:
        """(rows, vocabulary): the first rows are the wanted ones."""
        inputs = self._inputs.device
        wanted = inputs.get("wanted", 0)
        return logits_of(self._model, inputs["ids"], inputs["positions"], wanted, self._paged)


class DecodeStep(Step):
    """The newest ids of up to `size` sequences.

    Padding rows attend to one id, in the scratch page.
    """

    def __init__(
        self, model: PreTrainedModel, cache: PagedCache, size: int, columns: Sequence[int]
    ) -> None:
        device = cache.pages.device
        row = (size,)
        inputs = _Inputs(
            device, ids=row, positions=row, slots=(len(columns), size), lengths=row,
            tables=(size, sum(columns)),
        )  # fmt: skip
        each = torch.arange(size + 1, dtype=torch.int32, device=device)
        layout = Layout(
            slots=inputs.device["slots"],
            tables=inputs.device["tables"].split_with_sizes(list(columns), 1),
            lengths=inputs.device["lengths"],
            starts=each,
            tile_sequence=each[:-1],
            tile_first=torch.zeros(size, dtype=torch.int32, device=device),
        )
        super().__init__(model, inputs, PagedStep.of(cache, layout, tile=1), columns)
        self._scratch = cache.scratch
        self._every = np.arange(size)
        self._written: list[tuple[list[BlockTable], list[int]]] = [([], [])] * size
        self._used = size
        nothing = np.empty(0, dtype=np.int64)
        self.stage([], nothing, nothing, nothing)

    def stage(
        self, chunks: list[ScheduledChunk], ids: Ints | Tensor, positions: Ints, wanted: Ints
    ) -> None:
        """See `Step`; every row is wanted. Ids on the device may not be computed yet."""
        host, used = self._inputs.host, len(chunks)
        if used < self._used:
            host["ids"][used:] = host["positions"][used:] = 0
            host["slots"][:, used:] = self._scratch * SIZE
            host["lengths"][used:] = 1
            for table in self._tables:
                table[used:, 0] = self._scratch
            self._written[used:] = [([], [])] * (len(self._written) - used)
        self._used = used
        for row, chunk in enumerate(chunks):
            self._write_tables(row, chunk.sequence.tables)
        host["positions"][:used], host["lengths"][:used] = positions, positions + 1
        for slots, table in zip(host["slots"], self._tables, strict=True):
            slots[:used] = _slots(table, self._every[:used], positions)
        if not isinstance(ids, Tensor):
            host["ids"][:used] = ids
        self._inputs.send()
        if isinstance(ids, Tensor):
            self._inputs.device["ids"][:used] = ids

    def _write_tables(self, row: int, tables: list[BlockTable]) -> None:
        # most tables are those of the last step: a sequence needs a new page every sixteen steps
        written, counts = self._written[row]
        if written is tables and counts == list(map(len, tables)):
            return
        for table, blocks in zip(self._tables, tables, strict=True):
            _write(table[row], blocks)
        self._written[row] = tables, list(map(len, tables))


class MixedStep(Step):
    """Up to `size` ids of at most `sequences`: pieces of prompts, and replies that go on."""

    def __init__(
        self,
        model: PreTrainedModel,
        cache: PagedCache,
        size: int,
        sequences: int,
        columns: Sequence[int],
    ) -> None:
        ids, tiles = (size,), (size // TILE + sequences,)
        inputs = _Inputs(
            cache.pages.device, ids=ids, positions=ids, slots=(len(columns), size),
            # the last sequence has no ids: padding tiles belong to it
            tables=(sequences + 1, sum(columns)), lengths=(sequences + 1,), starts=(sequences + 2,),
            tile_sequence=tiles, tile_first=tiles, wanted=(sequences,),
        )  # fmt: skip
        there = {name: inputs.device[name] for name in Layout.__slots__}
        tables = there.pop("tables").split_with_sizes(list(columns), 1)
        layout = Layout(tables=tables, **there)
        super().__init__(model, inputs, PagedStep.of(cache, layout, TILE), columns)
        inputs.host["slots"][:] = cache.scratch * SIZE
        inputs.send()
        self._scratch = cache.scratch

    def stage(
        self, chunks: list[ScheduledChunk], ids: Ints | Tensor, positions: Ints, wanted: Ints
    ) -> None:
        """See `Step`."""
        host, used, rows = self._inputs.host, len(ids), np.arange(len(chunks))
        counts = np.array([chunk.count for chunk in chunks])
        ends = np.cumsum(counts)
        for row, chunk in enumerate(chunks):
            for table, blocks in zip(self._tables, chunk.sequence.tables, strict=True):
                _write(table[row], blocks)
        tiles = -(-counts // TILE)
        behind = np.repeat(np.cumsum(tiles) - tiles, tiles)
        of_step = {
            "ids": (ids, 0),
            "positions": (positions, 0),
            "slots": (
                [_slots(table, np.repeat(rows, counts), positions) for table in self._tables],
                self._scratch * SIZE,
            ),
            "lengths": (positions[ends - 1] + 1, 0),
            "starts": ([0, *ends], used),
            "tile_sequence": (np.repeat(rows, tiles), len(chunks)),
            "tile_first": ((np.arange(len(behind)) - behind) * TILE, 0),
            "wanted": (wanted, 0),
        }
        for name, (values, free) in of_step.items():
            count = np.shape(values)[-1]
            host[name][..., :count], host[name][..., count:] = values, free
        self._inputs.send()
