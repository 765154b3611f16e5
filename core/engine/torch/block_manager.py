"""The blocks of the cache: reference counts, content hashes, eviction of the least recently used.

This file keeps only numbers. The keys and values are in the cache on the device.

A model's layers are in groups of the same window and size, and a sequence has a table of blocks for
each group. All groups take their blocks from one pool.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

SIZE = 16
"""Tokens a block."""
ALL = 1 << 30
"""The window of a layer that attends to everything before an id."""
GIVEN_BACK = -1
"""Marks a block in a table that the group's window has passed."""

BlockTable: TypeAlias = "array[int]"
"""The blocks of one sequence in one group, in order."""
Content: TypeAlias = tuple[int, bytes]
"""A group, and a digest of the ids."""


def blocks_for(tokens: int) -> int:
    return -(-tokens // SIZE)


def blocks_held(length: int, window: int, step_tokens: int) -> int:
    """The most blocks that a sequence of `length` holds at once in a group with this window."""
    return blocks_for(min(length, window + step_tokens + 2 * SIZE))


def held(table: BlockTable) -> BlockTable:
    """The blocks of a table that are not given back."""
    first = next((at for at, block in enumerate(table) if block != GIVEN_BACK), len(table))
    return table[first:]


def digests(
    ids: npt.NDArray[np.int64], known: Sequence[bytes] = (), upto: int | None = None
) -> list[bytes]:
    """The digest of each full block among the first `upto` of `ids`.

    Each covers the blocks before it, so equal digests mean equal ids from the start. `known` are
    the digests of the first blocks.
    """
    result = list(known)
    full = (len(ids) if upto is None else upto) // SIZE
    for block in range(len(result), full):
        before = result[-1] if result else b""
        piece = ids[block * SIZE : (block + 1) * SIZE].tobytes()
        result.append(hashlib.blake2b(before + piece, digest_size=16).digest())
    return result


class BlockManager:
    """Manages `count` blocks. A block without references can be found until it is reused."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._references = [0] * count
        self._content: list[Content | None] = [None] * count
        self._index: dict[Content, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict.fromkeys(range(count))
        """Blocks without references, the next to be reused first."""

    @property
    def idle(self) -> int:
        """The number of blocks that can be allocated."""
        return len(self._idle)

    def match(self, digests: Sequence[bytes], needed: Sequence[int]) -> list[BlockTable]:
        """The longest prefix that every group has kept: a table for each group.

        `needed`: the number of last blocks that each group needs; earlier ones are given back.
        """
        tables = [array("i") for _ in needed]
        kept, longest = [0] * len(needed), 0
        for length, digest in enumerate(digests, 1):
            for group, table in enumerate(tables):
                table.append(self._index.get((group, digest), GIVEN_BACK))
                kept[group] = 0 if table[-1] == GIVEN_BACK else kept[group] + 1
            short = [n for run, n in zip(kept, needed, strict=True) if run < min(length, n)]
            if not short:
                longest = length
            elif max(short) >= len(digests):
                break  # a group that needs all lacks one
        passed = [max(0, longest - enough) for enough in needed]
        return [
            array("i", [GIVEN_BACK]) * before + table[before:longest]
            for before, table in zip(passed, tables, strict=True)
        ]

    def idle_among(self, blocks: Iterable[int]) -> int:
        """The number of `blocks` without references: sharing one takes it from the idle ones."""
        return sum(self._references[block] == 0 for block in blocks)

    def share(self, blocks: Iterable[int]) -> None:
        """Add a reference to each block."""
        for block in blocks:
            if not self._references[block]:
                del self._idle[block]
            self._references[block] += 1

    def allocate(self) -> int:
        """The least recently used idle block, emptied; KeyError where there is none."""
        block, _ = self._idle.popitem(last=False)
        content = self._content[block]
        if content is not None:
            del self._index[content]
            self._content[block] = None
        self._references[block] = 1
        return block

    def keep(self, block: int, content: Content) -> None:
        """Make a full, computed block findable, unless an equal one already is."""
        if content not in self._index:
            self._index[content] = block
            self._content[block] = content

    def forget(self, contents: Iterable[Content]) -> None:
        """Make the blocks with these contents unfindable."""
        for content in contents:
            block = self._index.pop(content, None)
            if block is not None:
                self._content[block] = None

    def release(self, blocks: Sequence[int]) -> None:
        """Remove a reference from each. The end of a prefix is reused before its beginning."""
        for block in reversed(blocks):
            self._references[block] -= 1
            if not self._references[block]:
                self._idle[block] = None
                if self._content[block] is None:
                    self._idle.move_to_end(block, last=False)
