"""The contents of the cache's blocks: reference counts, content hashes, least recently used.

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
GIVEN_BACK = -1
"""In a sequence's list, a block that every layer's window has passed."""


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
    """The records of `count` blocks. A block without references can be found until it is reused."""

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

    def match(self, content: Iterable[bytes], needed: int | None = None) -> list[int]:
        """The blocks of the longest kept prefix.

        `needed`: so many at its end suffice, and those before are given back; None: all.
        """
        found, kept, longest = [], 0, 0
        for digest in content:
            block = self._index.get(digest, GIVEN_BACK)
            if block == GIVEN_BACK and needed is None:
                break
            found.append(block)
            kept = kept + 1 if block != GIVEN_BACK else 0
            if kept >= min(len(found), len(found) if needed is None else needed):
                longest = len(found)
        passed = 0 if needed is None else max(0, longest - needed)
        return [GIVEN_BACK] * passed + found[passed:longest]

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
        digest = self._content[block]
        if digest is not None:
            del self._index[digest]
            self._content[block] = None
        self._references[block] = 1
        return block

    def keep(self, block: int, digest: bytes) -> None:
        """Make a full, computed block findable, unless an equal one already is."""
        if digest not in self._index:
            self._index[digest] = block
            self._content[block] = digest

    def forget(self, blocks: Iterable[int]) -> None:
        """Make blocks unfindable."""
        for block in blocks:
            digest = self._content[block]
            if digest is not None:
                del self._index[digest]
                self._content[block] = None

    def release(self, blocks: Sequence[int]) -> None:
        """Drop references. The end of a prefix is reused before its beginning."""
        for block in reversed(blocks):
            self._references[block] -= 1
            if not self._references[block]:
                self._idle[block] = None
                if self._content[block] is None:
                    self._idle.move_to_end(block, last=False)
