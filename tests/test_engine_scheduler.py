"""Planning a step whose sequences are not known yet to go on: see `Scheduler.follow`."""

from __future__ import annotations

from core.engine.torch.block_manager import SIZE, BlockManager
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
    held = [len(first.blocks), len(second.blocks)]
    for _ in range(SIZE + 1):
        following = scheduler.follow(parts)
        assert following is not None
        assert [(part.sequence, part.count) for part in following] == [(first, 1), (second, 1)]
        # The id that is not known yet has its place.
        assert all(len(one.blocks) * SIZE > one.length for one in (first, second))
        _book(scheduler, parts)
        parts = following
    assert [len(first.blocks), len(second.blocks)] == [held[0] + 1, held[1] + 1]


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
    assert scheduler.follow(alone) is None  # a place is free for the one that came
    both = scheduler.plan()
    _begin(scheduler, 3)
    assert scheduler.follow(both)  # all places are taken: it waits for one in any case
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
    assert len(short.blocks) == 1
    assert len(long.blocks) == 3
