"""The fair order: shares of spaces, channels and people, and the limits of the queue."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from storage.store import Limits
from tests.store_fixture import LANE, THREAD, StoreFixture, job_of


@pytest.fixture
async def stores(redis: Redis) -> StoreFixture:
    return await StoreFixture.serving(redis, lease=0.1, backoff=0.02, max_attempts=2)


async def test_a_position_takes_others_to_have_equal_shares(stores: StoreFixture) -> None:
    """U2's one question comes between the two of U1, whatever else U1 waits for."""
    waiting = []
    for number, author in enumerate(("U1", "U1", "U1", "U2")):
        thread = replace(THREAD, thread=f"{number}")
        waiting.append((thread, job_of(await stores.say("hi", thread=thread, author=author))))
    positions = [await stores.queue.positions(thread, [job]) for thread, job in waiting]
    assert positions == [[2], [4], [4], [2]]


@pytest.mark.parametrize("flood_in", ["space", "channel", "person"])
async def test_a_flood_delays_others_only_by_the_replies_in_progress(
    stores: StoreFixture, flood_in: str
) -> None:
    place = {"space": {"space": "T9"}, "channel": {"channel": "C9"}, "person": {}}[flood_in]
    flood = [replace(THREAD, **place, thread=str(n)) for n in range(1000)]
    limits = Limits(all=2000, channel=2000, person=2000)
    stores = StoreFixture.over(stores.redis, limits=limits)
    await asyncio.gather(*(stores.say("flood", thread=t, author="U9") for t in flood))
    for question in range(3):
        await stores.queue.claim(LANE, "core", 4)
        thread = replace(THREAD, thread=f"question {question}")
        await stores.say("a question", thread=thread, author=f"U{question}")
        assert (await stores.claim()).job.thread == thread


async def test_new_people_do_not_starve_waiting_people(stores: StoreFixture) -> None:
    for number in range(2):
        await stores.say("hi", thread=replace(THREAD, thread=str(number)), author="U0")
    turns = []
    for number in range(1, 100):
        await stores.say("hi", thread=replace(THREAD, thread=f"of {number}"), author=f"U{number}")
        turns.append((await stores.claim()).job.author)
    assert turns.count("U0") == 2


async def test_a_reply_that_nobody_waits_for_counts_as_several(stores: StoreFixture) -> None:
    for number in range(3):
        for author, bulk in (("U1", True), ("U2", False)):
            thread = replace(THREAD, thread=f"{author} {number}")
            await stores.say("hi", thread=thread, author=author, bulk=bulk)
    order = [(await stores.claim()).job.author for _ in range(6)]
    assert order == ["U1", "U2", "U2", "U2", "U1", "U1"]


async def test_one_persons_threads_are_answered_in_the_order_they_came(
    stores: StoreFixture,
) -> None:
    threads = [replace(THREAD, thread=str(n)) for n in (5, 3, 9, 1)]
    positions = [(await stores.say("hi", thread=thread)).position for thread in threads]
    assert positions == [1, 2, 3, 4]
    assert [(await stores.claim()).job.thread for _ in threads] == threads


async def test_over_the_limit_the_person_gets_a_notice(redis: Redis) -> None:
    stores = StoreFixture.over(redis, limits=Limits(person=2))
    await stores.queue.announce(LANE, "core", 60)
    threads = [replace(THREAD, thread=str(n)) for n in range(3)]
    receipts = [await stores.say("hi", thread=thread) for thread in threads]
    assert [receipt.outcome for receipt in receipts] == ["queued", "queued", "refused"]
    assert (receipts[2].code, receipts[2].position) == ("busy", 2)
    await stores.reply(await stores.claim(), "hello")
    assert (await stores.say("hi", thread=threads[2])).outcome == "queued"
