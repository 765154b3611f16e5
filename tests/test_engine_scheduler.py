"""Planning steps, some before the tokens of the last are known, and whose blocks are whose."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest

from core.engine.torch.block_manager import (
    ALL,
    GIVEN_BACK,
    SIZE,
    BlockManager,
    blocks_held,
    held,
)
from core.engine.torch.scheduler import ScheduledChunk, Scheduler
from core.engine.torch.sequence import Sequence
from core.engine_types import GenerationRequest
from core.types import Sampling


def _begin(scheduler: Scheduler, order: int, length: int = SIZE, new: int = 20) -> Sequence:
    request = GenerationRequest("r", list(range(length)), Sampling(0), new, seed=0)
    sequence = Sequence.begin(request, lambda _: None, order, arrived=0.0)
    scheduler.add(sequence)
    return sequence


def _book(scheduler: Scheduler, parts: list[ScheduledChunk]) -> None:
    for part in parts:
        scheduler.computed(part)
        if part.sequence.append(7):
            scheduler.remove(part.sequence)


def test_those_that_go_on_are_planned_before_their_tokens_are_known() -> None:
    scheduler = Scheduler(BlockManager(16), slots=4, step_tokens=64)
    first, second = _begin(scheduler, 0), _begin(scheduler, 1, SIZE + 3)
    parts = scheduler.plan()
    held = [len(one.tables[0]) for one in (first, second)]
    for _ in range(SIZE + 1):
        following = scheduler.follow(parts)
        assert following is not None
        assert [(part.sequence, part.count) for part in following] == [(first, 1), (second, 1)]
        # The id that is not known yet has its place.
        assert all(len(one.tables[0]) * SIZE > one.length for one in (first, second))
        _book(scheduler, parts)
        parts = following
    assert [len(one.tables[0]) for one in (first, second)] == [held[0] + 1, held[1] + 1]


def test_nobody_is_planned_ahead_where_somebody_ends_or_could_join() -> None:
    scheduler = Scheduler(BlockManager(16), slots=2, step_tokens=64)
    first, second = _begin(scheduler, 0), _begin(scheduler, 1, new=2)
    parts = scheduler.plan()
    assert scheduler.follow(parts)
    _book(scheduler, parts)
    last = scheduler.plan()
    assert scheduler.follow(last) is None  # the second's reply is full then
    _book(scheduler, last)
    assert second not in scheduler.sequences
    assert scheduler.follow(last) is None  # of which it was a part
    alone = scheduler.plan()
    assert scheduler.follow(alone)
    _begin(scheduler, 2)
    assert scheduler.follow(alone) is None  # there is a free place for the new one
    both = scheduler.plan()
    _begin(scheduler, 3)
    assert scheduler.follow(both)  # all places are taken, so it waits for one in any case
    first.cancelled = True
    assert scheduler.follow(both) is None


def test_a_piece_of_a_prompt_and_a_full_cache_are_planned_as_ever() -> None:
    scheduler = Scheduler(BlockManager(3), slots=2, step_tokens=SIZE)
    long = _begin(scheduler, 0, 2 * SIZE, new=SIZE)
    piece = scheduler.plan()
    assert scheduler.follow(piece) is None
    scheduler.computed(piece[0])
    parts = scheduler.plan()
    following = scheduler.follow(parts)
    assert following is not None
    full = Scheduler(BlockManager(1), slots=2, step_tokens=SIZE)
    short = _begin(full, 0, SIZE - 1, new=SIZE)
    parts = full.plan()
    assert full.follow(parts)
    _book(full, parts)
    assert (
        full.follow([ScheduledChunk(short, 1)]) is None
    )  # a block more is needed, and there is none
    assert len(short.tables[0]) == 1
    assert len(long.tables[0]) == 3


# -- groups of layers -----------------------------------------------------------------------------


class _Device:
    """Scheduled steps on a cache that keeps, of each id, the group and all ids up to it."""

    def __init__(self, blocks: int, windows: tuple[int, ...], step_tokens: int) -> None:
        self.scheduler = Scheduler(
            BlockManager(blocks), slots=4, step_tokens=step_tokens, windows=windows
        )
        self.windows, self.step_tokens = windows, step_tokens
        self.cache: dict[tuple[int, int], tuple[int, int]] = {}

    def run(self, chunks: list[ScheduledChunk]) -> None:
        known = [_known(chunk) for chunk in chunks]
        for chunk, ids in zip(chunks, known, strict=True):
            for group, table in enumerate(chunk.sequence.tables):
                for at in range(chunk.sequence.computed, len(ids)):
                    self.cache[table[at // SIZE], at % SIZE] = group, ids[at]
        for chunk, ids in zip(chunks, known, strict=True):
            for group, window in enumerate(self.windows):
                table = chunk.sequence.tables[group]
                for at in range(max(0, chunk.sequence.computed + 1 - window), len(ids)):
                    assert self.cache[table[at // SIZE], at % SIZE] == (group, ids[at])

    def check(self) -> None:
        """Each block is idle, or held as often as it is said to be, by those that share it."""
        blocks, running = self.scheduler.blocks, self.scheduler.running
        owners = Counter(
            (block, group, number, tuple(one.ids[: (number + 1) * SIZE]))
            for one in running
            for group, table in enumerate(one.tables)
            for number, block in enumerate(table)
            if block != GIVEN_BACK
        )
        shared = {block for (block, *_), count in owners.items() if count > 1}
        assert len({block for block, *_ in owners}) == len(owners), "two owners of one block"
        references = Counter({block: count for (block, *_), count in owners.items()})
        assert {n: count for n, count in enumerate(blocks._references) if count} == references
        assert set(blocks._idle) == set(range(blocks.count)) - set(references)
        for one in running:
            for table, window in zip(one.tables, self.windows, strict=True):
                assert len(held(table)) <= blocks_held(one.length + 1, window, self.step_tokens)
                assert GIVEN_BACK not in held(table)
                assert not shared.intersection(table[one.computed // SIZE :])


def _known(chunk: ScheduledChunk) -> list[int]:
    """For each id up to the chunk's last, what stands for it and all before it."""
    known: list[int] = []
    for id_ in chunk.sequence.ids[: chunk.sequence.computed + chunk.count].tolist():
        known.append(hash((known[-1] if known else 0, id_)))
    return known


def _requests(draw: random.Random, longest: int) -> Iterator[Sequence]:
    """Without end; many go on from the beginning, or the whole, of an earlier one."""
    earlier: list[list[int]] = [[]]
    for order in range(10**6):
        begun = draw.choice(earlier)
        begun = begun[: draw.choice((len(begun), draw.randint(0, len(begun))))]
        more = draw.choice((1, 3, SIZE, draw.randint(1, longest)))
        ids = [*begun, *(draw.randint(0, 3) for _ in range(more))][:longest]
        earlier = [*earlier[-5:], ids]
        request = GenerationRequest("r", ids, Sampling(0), draw.randint(1, 40), seed=0)
        yield Sequence.begin(request, lambda _: None, order, arrived=0.0)


@pytest.mark.parametrize("windows", [(ALL,), (40,), (24, ALL), (24, 24, ALL, 50)], ids=str)
def test_no_block_is_lost_or_has_two_owners_whatever_comes_and_goes(
    windows: tuple[int, ...],
) -> None:
    draw, step_tokens, longest = random.Random(3), 24, 120
    needed = sum(blocks_held(longest + 40, window, step_tokens) for window in windows)
    device = _Device(needed, windows, step_tokens)
    scheduler, requests = device.scheduler, _requests(draw, longest)
    for _ in range(250):
        if draw.random() < 0.3 or not scheduler.sequences:
            scheduler.add(next(requests))
        if draw.random() < 0.03:
            draw.choice(scheduler.sequences).cancelled = True
        chunks = scheduler.plan()
        assert chunks or not scheduler.sequences
        device.check()
        while chunks:
            device.run(chunks)
            following = scheduler.follow(chunks) if draw.random() < 0.5 else None
            for chunk in chunks:
                samples = chunk.samples
                scheduler.computed(chunk)
                if not samples:
                    continue
                if draw.random() < 0.01:
                    wrong = chunk.sequence.digests
                    scheduler.discard(chunk.sequence)
                    assert not any(scheduler.blocks.match(wrong, [1] * len(windows)))
                elif chunk.sequence.append(draw.randint(0, 3)):
                    scheduler.remove(chunk.sequence)
            device.check()
            chunks = [one for one in following or () if one.sequence.tables]
    for one in scheduler.sequences:
        scheduler.remove(one)
    assert scheduler.blocks.idle == scheduler.blocks.count
    assert scheduler.cached_tokens > 0
