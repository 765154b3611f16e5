"""Short ways to say what people and processes do to the queue, and whether it is clean after."""

from __future__ import annotations

import time

from core.queue_types import Receipt, Regeneration
from core.types import Turn
from storage import keys
from tests.store_fixture import LANE, THREAD, StoreFixture


def before(id_: str, text: str, author: str = "U2", ago: float = 60.0) -> Turn:
    """What was said in a thread before, so many seconds ago."""
    return Turn(id_, "user", author, text, at=time.time() - ago)


def job_of(receipt: Receipt) -> str:
    assert receipt.job is not None
    return receipt.job


async def lose_lease(stores: StoreFixture) -> None:
    await stores.redis.zadd("henji:{0}:leases", {str(THREAD): 1})
    await stores.queue.sweep()


async def answered(stores: StoreFixture, text: str, reply: str, id_: str) -> str:
    """A message that has its reply; the reply's id."""
    receipt = await stores.say(text, id=id_)
    await stores.reply(await stores.claim(), reply)
    return job_of(receipt)


async def edit(stores: StoreFixture, turn: str, text: str, revision: str = "1") -> Receipt:
    return await stores.queue.edit(THREAD, turn, text, revision, LANE, "adapter")


async def regenerate(stores: StoreFixture, reply: str, revision: str = "1") -> Receipt:
    return await stores.queue.regenerate(
        Regeneration(THREAD, reply, revision, "U1", lane=LANE), "adapter"
    )


async def nothing_is_left_open(stores: StoreFixture) -> bool:
    """No counter, lease, deadline or place in the order outlives the jobs."""
    names = ("leases", "delayed", "deadlines", "open")
    left = [name for name in names if await stores.redis.exists(keys.key(name, 0))]
    waiting = await stores.redis.get(keys.key("waiting", 0, LANE))
    assert (left, waiting or "0") == ([], "0")
    return True


async def past_deadline(stores: StoreFixture, receipt: Receipt) -> None:
    await stores.redis.zadd("henji:{0}:deadlines", {job_of(receipt): 1})
    await stores.queue.sweep()
