"""A thread that was reset stays forgotten, also where a process starts and reads what it missed."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from tests.local_slack.deployment import SlackDeployment, slack_deployment
from tests.local_slack.server import Call

BOT = "<@U0HENJI>"


@pytest.fixture
async def house(redis: Redis) -> AsyncIterator[SlackDeployment]:
    async with slack_deployment(redis) as house:
        await house.core()
        await house.adapter()
        yield house


async def test_a_process_that_starts_after_a_reset_reads_nothing_from_before_it(
    house: SlackDeployment,
) -> None:
    slack, store = house.slack, house.storehouse()
    ts = await slack.say("C1", "U1", f"{BOT} hi")
    await house.answered("C1", ts, "echo: hi")
    await slack.say("C1", "U1", f"{BOT} a secret", thread=ts)
    await house.answered("C1", ts, "echo: a secret")
    await house.stop("adapter")
    key = house.key("C1", ts)
    await store.history.reset(key, "U1")
    # days later: what was taken in is not known by its events any more, and the thread went on
    for name in await house.redis.keys("henji:{0}:seen:*"):
        await house.redis.delete(name)
    await house.redis.zincrby("henji:{0}:threads", 3_600_000, str(key))
    read = len(_readings(house, ts))
    await house.adapter()
    await slack.until(lambda: len(_readings(house, ts)) > read)
    other = await slack.say("C1", "U1", f"{BOT} hello")
    await house.answered("C1", other, "echo: hello")
    assert await store.texts(key) == []


def _readings(house: SlackDeployment, thread: str) -> list[Call]:
    """How often a thread was read from the channel."""
    calls = house.slack.api.calls
    return [c for c in calls if c.method == "conversations.replies" and c.arguments["ts"] == thread]
