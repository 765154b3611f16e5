"""Which block of the cache holds what: reference counts, content hashes, least recently used.

Only numbers are kept here; the keys and values themselves lie in the cache of the device.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

SIZE = 16
"""Tokens a block."""


def digests(
    ids: npt.NDArray[np.int64], known: Sequence[bytes] = (), upto: int | None = None
) -> list[bytes]:
    """Of each full block of `ids`, chained: equal digests mean equal ids from the start on.

    `known` are those of the first blocks; `upto` ids are looked at.
    """
    result = list(known)
    full = (len(ids) if upto is None else upto) // SIZE
    for block in range(len(result), full):
        before = result[-1] if result else b""
        piece = ids[block * SIZE : (block + 1) * SIZE].tobytes()
        result.append(hashlib.blake2b(before + piece, digest_size=16).digest())
    return result


class BlockManager:
    """The book of `count` blocks. A block without references stays findable until it is reused."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._references = [0] * count
        self._content: list[bytes | None] = [None] * count
        self._index: dict[bytes, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict.fromkeys(range(count))
        """Blocks without references, the next to be reused first."""

    @property
    def idle(self) -> int:
        """How many blocks can be allocated."""
        return len(self._idle)

    def match(self, content: Iterable[bytes]) -> list[int]:
        """The blocks of the longest kept prefix."""
        found = []
        for digest in content:
            block = self._index.get(digest)
            if block is None:
                break
            found.append(block)
        return found

    def idle_among(self, blocks: Iterable[int]) -> int:
        """How many of `blocks` nobody refers to: sharing them takes them from the idle ones."""
        return sum(self._references[block] == 0 for block in blocks)

    def share(self, blocks: Iterable[int]) -> None:
        """Refer to blocks that are kept."""
        for block in blocks:
            if not self._references[block]:
                del self._idle[block]
            self._references[block] += 1

    def allocate(self) -> int:
        """The least recently used idle block, emptied; KeyError where there is none."""
        block, _ = self._idle.popitem(last=False)
        digest = self._content[block]
        if digest is not None:
            del self._index[digest]
            self._content[block] = None
        self._references[block] = 1
        return block

    def keep(self, block: int, digest: bytes) -> None:
        """The block is full and computed: let others find it, unless an equal one is there."""
        if digest not in self._index:
            self._index[digest] = block
            self._content[block] = digest

    def release(self, blocks: Sequence[int]) -> None:
        """Give references back: the end of a prefix is reused before its beginning."""
        for block in reversed(blocks):
            self._references[block] -= 1
            if not self._references[block]:
                self._idle[block] = None
                if self._content[block] is None:
                    self._idle.move_to_end(block, last=False)
