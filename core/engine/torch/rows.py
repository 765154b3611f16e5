"""The cache on a processor: each running sequence has a row of its own, without gaps.

Gathering pages before every attention would move the whole cache at every step. So a sequence's
keys and values lie in one row while it runs, the rows of those that decode side by side on a
`Shelf` by length, and one call attends for all of a shelf. The blocks are a store beside them:
a block is copied there when it is full, and from there when a sequence begins with a kept prefix.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from core.engine.torch.attention import CacheShape
from core.engine.torch.blocks import SIZE
from core.engine.torch.memory import Untouched
from core.engine.torch.scheduler import Part
from core.engine.torch.sequence import Sequence

_SHORTEST = 128
"""Ids that the smallest row holds; each larger one holds twice as many."""


class Shelf:
    """Rows of one capacity, filled from the first on without gaps."""

    def __init__(self, shape: CacheShape, capacity: int, rows: int) -> None:
        self.capacity = capacity
        self.sequences: list[Sequence] = []
        self._used = 0
        """Rows that take memory: those of the sequences, and of some that left."""
        self._shape = shape
        self._memory = self._untouched(rows)

    @property
    def rows(self) -> Tensor:
        """(2, layers, rows, heads, capacity, size)"""
        return self._memory.tensor

    @property
    def ids(self) -> int:
        """For how many ids it takes memory, at most."""
        return self._used * self.capacity

    def _untouched(self, rows: int) -> Untouched:
        """They must be zeros because what a mask hides is still multiplied (by zero)."""
        shape = self._shape
        sizes = (2, shape.layers, rows, shape.heads, self.capacity, shape.size)
        return Untouched(sizes, shape.dtype)

    def add(self, sequence: Sequence) -> Tensor:
        """The new last row: (2, layers, heads, capacity, size)."""
        row = len(self.sequences)
        if row == self.rows.shape[2]:
            grown = self._untouched(2 * row)
            filled = max(one.computed for one in self.sequences)
            grown.tensor[:, :, :row, :, :filled] = self.rows[..., :filled, :]
            self._memory = grown
        self.sequences.append(sequence)
        self._used = max(self._used, row + 1)
        return self.rows[:, :, row]

    def row(self, sequence: Sequence) -> Tensor:
        return self.rows[:, :, self.sequences.index(sequence)]

    def remove(self, sequence: Sequence) -> None:
        """Take a row out; the last one fills the hole."""
        row, last = self.sequences.index(sequence), self.sequences.pop()
        if last is not sequence:
            self.sequences[row] = last
            filled = self.rows[:, :, len(self.sequences), :, : last.computed]
            self.rows[:, :, row, :, : last.computed] = filled

    def shrink(self) -> None:
        """Give back the memory of those that left."""
        for layer in self.rows.flatten(0, 1):
            self._memory.forget(layer[len(self.sequences) : self._used])
        self._used = len(self.sequences)


class RowCache:
    """Rows for what runs, blocks for what may come back."""

    def __init__(self, shape: CacheShape, blocks: int, places: int) -> None:
        self._shape = shape
        self._places = places
        # At least half of a row is in use: more fit the blocks only where they share them.
        self._most_ids = 2 * blocks * SIZE
        self._shelves: dict[int, Shelf] = {}
        """By capacity. What left keeps its memory while there is enough: fresh memory is slow."""
        self._at: dict[Sequence, Shelf] = {}
        sizes = (blocks, 2, shape.layers, shape.heads, SIZE, shape.size)
        self._store = Untouched(sizes, shape.dtype).tensor

    def arrange(self, parts: Iterable[Part]) -> list[Part]:
        """Give each part a row that is long enough; the decoding parts first, shelf by shelf."""
        decoding, chunks = {}, []
        for part in parts:
            self._place(part.sequence)
            if part.decodes:
                decoding[part.sequence] = part
            else:
                chunks.append(part)
        shelved = [one for shelf in self._shelves.values() for one in shelf.sequences]
        return [decoding[one] for one in shelved if one in decoding] + chunks

    def begin(self, parts: list[Part]) -> RowStep:
        """A step over arranged parts."""
        groups: list[_Group] = []
        at = 0
        for shelf, first, last in self._runs(parts):
            groups.append(_decode_group(shelf, first, last, at))
            at += last - first
        for part in parts[at:]:
            groups.append(_chunk_group(self._at[part.sequence], part, at))
            at += part.count
        return RowStep(groups)

    def keep(self, sequence: Sequence, numbers: range) -> None:
        """The sequence's blocks of these numbers are full: they shall outlive it."""
        if not numbers:
            return
        row = self._at[sequence].row(sequence)
        for number in numbers:
            ids = slice(number * SIZE, (number + 1) * SIZE)
            self._store[sequence.blocks[number]] = row[..., ids, :]

    def drop(self, sequence: Sequence) -> None:
        """The sequence runs no more."""
        shelf = self._at.pop(sequence, None)
        if shelf is not None:
            shelf.remove(sequence)

    def _place(self, sequence: Sequence) -> None:
        """Give it a row for all that is known of it; the newest are behind those that decode."""
        shelf = self._at.get(sequence)
        if shelf is None or shelf.capacity < sequence.length:
            capacity = max(_SHORTEST, 1 << (sequence.length - 1).bit_length())
            self._move(sequence, shelf, self._shelf(capacity))

    def _shelf(self, capacity: int) -> Shelf:
        if capacity not in self._shelves:
            rows = max(1, self._most_ids // capacity)
            self._shelves[capacity] = Shelf(self._shape, capacity, min(rows, self._places))
        return self._shelves[capacity]

    def _move(self, sequence: Sequence, old: Shelf | None, new: Shelf) -> None:
        row, filled = new.add(sequence), sequence.computed
        self._at[sequence] = new
        if old is not None:
            row[..., :filled, :] = old.row(sequence)[..., :filled, :]
            old.remove(sequence)
        else:
            for number, block in enumerate(sequence.blocks[: filled // SIZE]):
                row[..., number * SIZE : (number + 1) * SIZE, :] = self._store[block]
        if sum(shelf.ids for shelf in self._shelves.values()) > self._most_ids:
            for shelf in self._shelves.values():
                shelf.shrink()

    def _runs(self, parts: list[Part]) -> Iterator[tuple[Shelf, int, int]]:
        """The decoding parts as runs of neighbouring rows: shelf, first row, row after the last."""
        decoding = {part.sequence for part in parts if part.decodes}
        for shelf in self._shelves.values():
            inside = [one in decoding for one in shelf.sequences]
            edges = [row for row, (a, b) in enumerate(pairwise([False, *inside, False])) if a != b]
            for first, last in zip(edges[::2], edges[1::2], strict=True):
                yield shelf, first, last


@dataclass(frozen=True, slots=True)
class _Group:
    """Neighbouring ids of a step that attend in one call."""

    ids: slice
    """Of the step."""
    rows: Tensor
    """(2, layers, rows, heads, longest, size): what is attended to, the step's own ids included."""
    places: tuple[Tensor, slice, Tensor] | None
    """Row and position of each id where each has a row of its own; None: they are one row's end."""
    mask: Tensor | None
    """Added to the scores: (rows, 1, 1, longest), or (ids, longest) of one row."""
    causal: bool


def _decode_group(shelf: Shelf, first: int, last: int, at: int) -> _Group:
    counts = [one.computed + 1 for one in shelf.sequences[first:last]]
    lengths, longest = torch.tensor(counts), max(counts)
    if shelf.rows.dtype != torch.float32:
        # oneDNN, which multiplies these, would first copy what has gaps.
        longest = shelf.capacity
    mask = None
    if min(counts) < longest:
        hidden = torch.arange(longest) >= lengths[:, None]
        mask = _additive(hidden, torch.float32)[:, None, None]
    places = (torch.arange(last - first), slice(None), lengths - 1)
    rows = shelf.rows[:, :, first:last, :, :longest]
    return _Group(slice(at, at + last - first), rows, places, mask, causal=False)


def _chunk_group(shelf: Shelf, part: Part, at: int) -> _Group:
    start, end = part.sequence.computed, part.sequence.computed + part.count
    row = shelf.sequences.index(part.sequence)
    mask = None
    if start:
        hidden = torch.arange(end) > torch.arange(start, end)[:, None]
        mask = _additive(hidden, shelf.rows.dtype)
    rows = shelf.rows[:, :, row : row + 1, :, :end]
    return _Group(slice(at, at + part.count), rows, None, mask, causal=not start)


def _additive(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, -torch.inf)


@dataclass(frozen=True, slots=True)
class RowStep:
    """The groups of one step."""

    groups: list[_Group]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See `AttentionStep`."""
        outs = []
        for group in self.groups:
            ids = (0, slice(None), group.ids)
            outs.append(_attend(group, layer, query[ids], key[ids], value[ids], scale))
        return (outs[0] if len(outs) == 1 else torch.cat(outs)).unsqueeze(0)


def _attend(
    group: _Group, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float
) -> Tensor:
    """Of (heads, ids, size) each; (ids, heads, size)."""
    keys, values = group.rows[0, layer], group.rows[1, layer]
    if group.places is None:
        keys[0, :, -key.shape[1] :] = key
        values[0, :, -key.shape[1] :] = value
        return _one_row(group, query, keys, values, scale)
    keys[group.places] = key.transpose(0, 1)
    values[group.places] = value.transpose(0, 1)
    return _each_its_row(group, query, keys, values, scale)


def _each_its_row(
    group: _Group, query: Tensor, keys: Tensor, values: Tensor, scale: float
) -> Tensor:
    """One id a row, in plain products.

    torch's fused attention is made for many queries: with one, it reads bfloat16 rows of 112 ids at
    2 GB/s where these products do at 12, and float32 ones at 9 where they do at 17 (two cores with
    AVX-512's bfloat16).
    """
    heads, ids, size = query.shape
    # Heads that share keys are the rows of one product: (ids, key heads, heads a key head, size).
    query = query.transpose(0, 1).contiguous().view(ids, keys.shape[1], -1, size)
    # Rows must lie as rows: where strides may say column too, a product takes three times as long.
    scores = (keys @ query.mT).mT.clone(memory_format=torch.contiguous_format)
    scores = scores.float().mul_(scale)
    if group.mask is not None:
        scores += group.mask
    return (scores.softmax(-1).to(values.dtype) @ values).reshape(ids, heads, size)


def _one_row(group: _Group, query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    out = scaled_dot_product_attention(
        query.unsqueeze(0),
        keys,
        values,
        attn_mask=group.mask,
        is_causal=group.causal,
        scale=scale,
        enable_gqa=query.shape[0] != keys.shape[1],
    )
    return out[0].transpose(0, 1)
