"""The plan of the next step: replies that stream first, then prompts in chunks."""

from __future__ import annotations

from array import array
from bisect import insort
from dataclasses import dataclass

from core.engine.torch.block_manager import GIVEN_BACK, SIZE, BlockManager, digests
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
        self, blocks: BlockManager, *, slots: int, step_tokens: int, window: int | None = None
    ) -> None:
        """`slots` run at once; a step computes `step_tokens` ids.

        `window`: how many ids some layer attends to; None: all.
        """
        self.blocks = blocks
        self.slots = slots
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self._step_tokens = max(step_tokens, slots)
        self._window = window
        self.prompt_tokens = 0
        self.cached_tokens = 0

    def add(self, sequence: Sequence) -> None:
        insort(self.waiting, sequence, key=_order)

    def plan(self) -> list[ScheduledChunk]:
        """The next step: empty only where nothing runs or waits."""
        self._drop_cancelled()
        chunks: dict[int, ScheduledChunk] = {}
        budget = self._step_tokens
        for sequence in sorted(self.running, key=lambda one: one.pending > 1):
            if not sequence.blocks or not budget:
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
        """The step after this one, whose tokens are not known yet, with the same sequences.

        None where one of them may end, or where another could join.
        """
        sequences = [chunk.sequence for chunk in chunks]
        if len(chunks) != len(self.running) or (self.waiting and len(chunks) < self.slots):
            return None
        if not all(chunk.samples and chunk.sequence.goes_on for chunk in chunks):
            return None
        missing = [_blocks_for(one.length + 1) - len(one.blocks) for one in sequences]
        if sum(missing) > self.blocks.idle:
            return None
        for sequence, count in zip(sequences, missing, strict=True):
            sequence.blocks.extend(self.blocks.allocate() for _ in range(count))
        return [ScheduledChunk(sequence, 1) for sequence in sequences]

    def computed(self, chunk: ScheduledChunk) -> None:
        """Record a computed chunk; blocks that became full can be found from now on."""
        sequence = chunk.sequence
        sequence.computed += chunk.count
        before = len(sequence.digests)
        if sequence.computed // SIZE == before:
            return
        sequence.digests = digests(sequence.ids, sequence.digests, sequence.computed)
        for number in range(before, len(sequence.digests)):
            self.blocks.keep(sequence.blocks[number], sequence.digests[number])
        self._give_back(sequence)

    def _give_back(self, sequence: Sequence) -> None:
        """Release the blocks that every layer's window has passed; they can still be found."""
        if self._window is None:
            return
        passed = max(sequence.passed, (sequence.computed + 1 - self._window) // SIZE)
        self.blocks.release(sequence.blocks[sequence.passed : passed])
        for number in range(sequence.passed, passed):
            sequence.blocks[number] = GIVEN_BACK
        sequence.passed = passed

    def tokens_held(self, length: int) -> int:
        """The most tokens of a sequence of `length` that are in blocks at once."""
        if self._window is None:
            return length
        return min(length, self._window + self._step_tokens + 2 * SIZE)

    def remove(self, sequence: Sequence) -> None:
        """Remove a sequence that is finished, failed or cancelled."""
        if sequence in self.running:
            self._leave(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def discard(self, sequence: Sequence) -> None:
        """Remove a sequence whose keys and values are wrong: nobody may find them."""
        self.blocks.forget(sequence.blocks[sequence.passed :])
        self.remove(sequence)

    @property
    def sequences(self) -> list[Sequence]:
        """All running and waiting sequences."""
        return [*self.running, *self.waiting]

    def _drop_cancelled(self) -> None:
        for sequence in [one for one in self.sequences if one.cancelled]:
            self.remove(sequence)

    def _admit(self, budget: int) -> Sequence | None:
        """Start the oldest waiting sequence, if its ids and one more block fit.

        With a window, the next step's ids suffice.
        """
        if not self.waiting or len(self.running) >= self.slots:
            return None
        sequence = self.waiting[0]
        # the newest id is always computed: its logits give the next token
        known = digests(sequence.ids, upto=sequence.length - 1)
        shared = self.blocks.match(known, self._needed)
        passed = shared.count(GIVEN_BACK)
        upto = sequence.length + 1
        if self._window is not None:
            upto = min(upto, len(shared) * SIZE + budget)
        missing = _blocks_for(upto) - len(shared)
        if missing > self.blocks.idle - self.blocks.idle_among(shared[passed:]):
            return None
        self.blocks.share(shared[passed:])
        fresh = [self.blocks.allocate() for _ in range(missing)]
        sequence.blocks, sequence.passed = array("i", [*shared, *fresh]), passed
        sequence.digests = known[: len(shared)]
        sequence.computed = len(shared) * SIZE
        self._count_prefix(sequence)
        insort(self.running, self.waiting.pop(0), key=_order)
        return sequence

    @property
    def _needed(self) -> int | None:
        """Blocks before an id that it attends to; None: all."""
        return None if self._window is None else _blocks_for(self._window - 1)

    def _count_prefix(self, sequence: Sequence) -> None:
        if not sequence.streaming:
            sequence.cached = min(sequence.computed, len(sequence.request.prompt))
            self.cached_tokens += sequence.cached
            self.prompt_tokens += len(sequence.request.prompt)

    def _reserve(self, sequence: Sequence, count: int, chunks: dict[int, ScheduledChunk]) -> bool:
        """Get blocks for `count` more ids, if need be from the newest; False: it is the newest."""
        needed = _blocks_for(sequence.computed + count)
        while len(sequence.blocks) < needed:
            if self.blocks.idle:
                sequence.blocks.append(self.blocks.allocate())
                continue
            newest = self.running[-1]
            chunks.pop(newest.order, None)
            self._preempt(newest)
            if newest is sequence:
                return False
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self._leave(sequence)
        self.add(sequence)

    def _leave(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self.blocks.release(sequence.blocks[sequence.passed :])
        sequence.blocks, sequence.passed = array("i"), 0
        sequence.digests, sequence.computed = [], 0


def _blocks_for(tokens: int) -> int:
    return -(-tokens // SIZE)
