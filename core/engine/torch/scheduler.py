"""The plan of the next step: replies that stream first, then prompts in chunks."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass

from core.engine.torch.block_manager import (
    ALL,
    GIVEN_BACK,
    SIZE,
    BlockManager,
    BlockTable,
    blocks_for,
    blocks_held,
    digests,
    held,
)
from core.engine.torch.sequence import Sequence


@dataclass(frozen=True, slots=True)
class ScheduledChunk:
    """`count` ids of a sequence, from `sequence.computed` on, to compute in one step."""

    sequence: Sequence
    count: int

    @property
    def samples(self) -> bool:
        """Whether its last id is the newest known one, so that a token follows."""
        return self.count == self.sequence.pending


def _order(sequence: Sequence) -> int:
    return sequence.order


class Scheduler:
    """The waiting and the running requests, oldest first, and their blocks."""

    def __init__(
        self,
        blocks: BlockManager,
        *,
        slots: int,
        step_tokens: int,
        windows: Iterable[int] = (ALL,),
    ) -> None:
        """`slots` run at once; a step computes `step_tokens` ids.

        `windows`: how many ids each group of layers attends to.
        """
        self.blocks = blocks
        self.slots = slots
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self._step_tokens = max(step_tokens, slots)
        self._windows = tuple(windows)
        self.prompt_tokens = 0
        self.cached_tokens = 0

    def add(self, sequence: Sequence) -> None:
        insort(self.waiting, sequence, key=_order)

    def plan(self) -> list[ScheduledChunk]:
        """The chunks of the next step; empty only if no request runs or waits."""
        self._drop_cancelled()
        chunks: dict[int, ScheduledChunk] = {}
        budget = self._step_tokens
        for sequence in sorted(self.running, key=lambda one: one.pending > 1):
            if not sequence.tables or not budget:
                continue  # it was preempted for an older one
            count = min(sequence.pending, budget)
            if self._reserve(sequence, count, chunks):
                chunks[sequence.order] = ScheduledChunk(sequence, count)
                budget -= count
        while budget and (admitted := self._admit(budget)):
            count = min(admitted.pending, budget)
            chunks[admitted.order] = ScheduledChunk(admitted, count)
            budget -= count
        return list(chunks.values())

    def follow(self, chunks: list[ScheduledChunk]) -> list[ScheduledChunk] | None:
        """The step after this one, with the same sequences, before their new tokens are known.

        None if one of them may end, or if another could join.
        """
        sequences = [chunk.sequence for chunk in chunks]
        if len(chunks) != len(self.running) or (self.waiting and len(chunks) < self.slots):
            return None
        if not all(chunk.samples and chunk.sequence.goes_on for chunk in chunks):
            return None
        missing = [
            (table, blocks_for(one.length + 1) - len(table))
            for one in sequences
            for table in one.tables
        ]
        if sum(count for _, count in missing) > self.blocks.idle:
            return None
        for table, count in missing:
            self._extend(table, count)
        return [ScheduledChunk(sequence, 1) for sequence in sequences]

    def _extend(self, table: BlockTable, count: int) -> None:
        table.extend(self.blocks.allocate() for _ in range(count))

    def computed(self, chunk: ScheduledChunk) -> None:
        """Record a computed chunk; blocks that became full can be found from now on."""
        sequence = chunk.sequence
        sequence.computed += chunk.count
        before = len(sequence.digests)
        if sequence.computed // SIZE == before:
            return
        sequence.digests = digests(sequence.ids, sequence.digests, sequence.computed)
        for group, table in enumerate(sequence.tables):
            for number in range(before, len(sequence.digests)):
                self.blocks.keep(table[number], (group, sequence.digests[number]))
            self._give_back(table, (sequence.computed + 1 - self._windows[group]) // SIZE)

    def _give_back(self, table: BlockTable, passed: int) -> None:
        """Release the first blocks, which the window has passed; they can still be found."""
        for number in reversed(range(passed)):
            if table[number] == GIVEN_BACK:
                break
            self.blocks.release(table[number : number + 1])
            table[number] = GIVEN_BACK

    def blocks_held(self, length: int) -> int:
        """The most blocks that a sequence of `length` holds at once."""
        return sum(blocks_held(length, window, self._step_tokens) for window in self._windows)

    def remove(self, sequence: Sequence) -> None:
        """Remove a sequence that is finished, failed or cancelled."""
        if sequence in self.running:
            self._leave(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def discard(self, sequence: Sequence) -> None:
        """Remove a sequence whose keys and values are wrong, and make them unfindable."""
        for group in range(len(sequence.tables)):
            self.blocks.forget((group, digest) for digest in sequence.digests)
        self.remove(sequence)

    @property
    def sequences(self) -> list[Sequence]:
        """All running and waiting sequences."""
        return [*self.running, *self.waiting]

    def _drop_cancelled(self) -> None:
        for sequence in [one for one in self.sequences if one.cancelled]:
            self.remove(sequence)

    def _admit(self, budget: int) -> Sequence | None:
        """Start the oldest waiting sequence, if there is room for its ids and one more block.

        In a group with a window, the next step's ids suffice.
        """
        if not self.waiting or len(self.running) >= self.slots:
            return None
        sequence = self.waiting[0]
        # the newest id is always computed: its logits give the next token
        known = digests(sequence.ids, upto=sequence.length - 1)
        tables = self.blocks.match(known, [blocks_for(window - 1) for window in self._windows])
        shared = len(tables[0])
        missing = [
            blocks_for(min(sequence.length + 1, max(window, shared * SIZE + budget))) - shared
            for window in self._windows
        ]
        idle = self.blocks.idle - sum(self.blocks.idle_among(held(table)) for table in tables)
        if sum(missing) > idle:
            return None
        for table in tables:  # all, before the first is extended: blocks without references go
            self.blocks.share(held(table))
        for table, count in zip(tables, missing, strict=True):
            self._extend(table, count)
        sequence.tables, sequence.digests = tables, known[:shared]
        sequence.computed = shared * SIZE
        self._count_prefix(sequence)
        insort(self.running, self.waiting.pop(0), key=_order)
        return sequence

    def _count_prefix(self, sequence: Sequence) -> None:
        if not sequence.streaming:
            sequence.cached = min(sequence.computed, len(sequence.request.prompt))
            self.cached_tokens += sequence.cached
            self.prompt_tokens += len(sequence.request.prompt)

    def _reserve(self, sequence: Sequence, count: int, chunks: dict[int, ScheduledChunk]) -> bool:
        """Reserve blocks for `count` more ids, if necessary by preempting the newest sequences.

        False if that preempted this sequence.
        """
        needed = blocks_for(sequence.computed + count)
        while short := [table for table in sequence.tables if len(table) < needed]:
            if self.blocks.idle:
                self._extend(short[0], 1)
                continue
            newest = self.running[-1]
            chunks.pop(newest.order, None)
            self._preempt(newest)
        return bool(sequence.tables)

    def _preempt(self, sequence: Sequence) -> None:
        self._leave(sequence)
        self.add(sequence)

    def _leave(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        for table in sequence.tables:
            self.blocks.release(held(table))
        sequence.tables, sequence.digests, sequence.computed = [], [], 0
