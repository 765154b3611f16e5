"""The pace of edits follows Discord's headers, finished texts first."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from bots.discord.rate_limits import EVERYWHERE, EVERYWHERE_LIMIT, Pace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pace(clock: Clock) -> Pace:
    return Pace(clock)


def headers(remaining: int, after: float, limit: int = 5) -> Mapping[str, str]:
    return {
        "X-RateLimit-Limit": str(limit),
        "X-RateLimit-Remaining": str(remaining),
        "X-RateLimit-Reset-After": str(after),
    }


async def is_let_through(pace: Pace, key: str = "c", *, final: bool = False) -> bool:
    """Whether a turn comes at once; a turn that does not is given up."""
    task = asyncio.create_task(pace.turn(key, final=final))
    for _ in range(5):
        await asyncio.sleep(0)
    through = task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return through


async def test_a_window_that_nobody_knows_lets_one_request_through(pace: Pace) -> None:
    assert await is_let_through(pace)
    assert not await is_let_through(pace)


async def test_intermediate_texts_leave_room_for_finished_ones(pace: Pace) -> None:
    pace.observe("c", headers(4, 5.0), 200)
    assert [await is_let_through(pace) for _ in range(3)] == [True, True, False]
    assert [await is_let_through(pace, final=True) for _ in range(3)] == [True, True, False]


async def test_a_window_opens_again_when_its_time_is_over(pace: Pace, clock: Clock) -> None:
    pace.observe("c", headers(0, 5.0), 200)
    assert not await is_let_through(pace, final=True)
    clock.now += 5.0
    assert [await is_let_through(pace) for _ in range(4)] == [True, True, True, False]


async def test_a_finished_text_goes_before_those_that_wait(pace: Pace, clock: Clock) -> None:
    pace.observe("c", headers(0, 0.01), 200)
    order: list[str] = []

    async def wait(name: str, *, final: bool) -> None:
        await pace.turn("c", final=final)
        order.append(name)

    tasks = [asyncio.create_task(wait("draft", final=False))]
    tasks.append(asyncio.create_task(wait("final", final=True)))
    await asyncio.sleep(0)
    clock.now += 1.0
    await asyncio.wait_for(asyncio.gather(*tasks), 5)
    assert order == ["final", "draft"]


async def test_whoever_gives_up_waiting_does_not_stand_in_the_way(pace: Pace) -> None:
    pace.observe("c", headers(0, 5.0), 200)
    assert not await is_let_through(pace, final=True)
    pace.observe("c", {}, 200)
    assert not pace._windows["c"].waiting


async def test_a_refusal_closes_the_window_for_as_long_as_it_says(pace: Pace, clock: Clock) -> None:
    pace.observe("c", headers(3, 5.0), 200)
    pace.observe("c", {"Retry-After": "7"}, 429)
    clock.now += 6.0
    assert not await is_let_through(pace, final=True)
    clock.now += 1.0
    assert await is_let_through(pace, final=True)


async def test_an_answer_that_was_overtaken_gives_nothing_back(pace: Pace) -> None:
    pace.observe("c", headers(4, 5.0), 200)
    assert await is_let_through(pace, final=True)
    assert await is_let_through(pace, final=True)
    pace.observe("c", headers(4, 5.0), 200)
    assert [await is_let_through(pace, final=True) for _ in range(3)] == [True, True, False]


async def test_all_channels_together_stay_below_fifty_a_second(pace: Pace, clock: Clock) -> None:
    through = [await is_let_through(pace, EVERYWHERE, final=True) for _ in range(60)]
    assert sum(through) == EVERYWHERE_LIMIT
    clock.now += 1.0
    assert await is_let_through(pace, EVERYWHERE, final=True)


async def test_what_is_unimportant_is_left_out_rather_than_kept_waiting(pace: Pace) -> None:
    pace.observe("c", headers(3, 5.0), 200)
    assert pace.has_room("c")
    assert not pace.has_room("c")
