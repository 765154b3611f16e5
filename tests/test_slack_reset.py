"""A thread that was reset stays forgotten, even when a process starts and catches up."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from tests.local_slack.deployment import SlackDeployment, slack_deployment
from tests.local_slack.server import Call
from tests.waiting import until

BOT = "<@U0HENJI>"


@pytest.fixture
async def deployment(redis: Redis) -> AsyncIterator[SlackDeployment]:
    async with slack_deployment(redis) as deployment:
        await deployment.core()
        await deployment.adapter()
        yield deployment


async def test_a_process_that_starts_after_a_reset_reads_nothing_from_before_it(
    deployment: SlackDeployment,
) -> None:
    slack, store = deployment.slack, deployment.stores()
    ts = await deployment.asks("hi")
    await slack.say("C1", "U1", f"{BOT} a secret", thread=ts)
    await deployment.answered("C1", ts, "echo: a secret")
    await deployment.stop("adapter")
    key = deployment.key("C1", ts)
    await store.history.reset(key, "U1")
    # days later: the handled events are no longer known, and the thread was used again
    for name in await deployment.redis.keys("henji:{0}:seen:*"):
        await deployment.redis.delete(name)
    await deployment.redis.zincrby("henji:{0}:threads", 3_600_000, str(key))
    read = len(_readings(deployment, ts))
    await deployment.adapter()
    await slack.until(lambda: len(_readings(deployment, ts)) > read)
    await deployment.asks("hello")
    assert await store.texts(key) == []


def _readings(deployment: SlackDeployment, thread: str) -> list[Call]:
    """How often a thread was read from the channel."""
    calls = deployment.slack.api.calls
    return [c for c in calls if c.method == "conversations.replies" and c.arguments["ts"] == thread]


# -- text commands, and edits that make one ------------------------------------------------------


async def test_a_stop_that_comes_as_two_events_says_nothing_of_a_reply_that_has_ended(
    redis: Redis,
) -> None:
    async with slack_deployment(redis) as deployment:
        await deployment.core(pace=5)
        await deployment.adapter()
        slack = deployment.slack
        ts = await slack.say("C1", "U2", f"{BOT} {'a long question ' * 20}")
        await slack.until(lambda: slack.replies("C1", ts))
        await slack.say("C1", "U2", f"{BOT} stop", thread=ts)
        await slack.until(lambda: any("Stopped" in str(m.blocks) for m in slack.replies("C1", ts)))
        await slack.say("C1", "U2", f"{BOT} help", thread=ts)
        await slack.until(lambda: slack.whispers("U2"))
        assert [("Mention me" in m.text) for m in slack.whispers("U2")] == [True]


@pytest.mark.parametrize("text", [BOT, f"{BOT} reset", f"{BOT} help"])
async def test_a_question_that_is_edited_to_no_question_is_forgotten_and_not_answered(
    deployment: SlackDeployment, text: str
) -> None:
    slack, store = deployment.slack, deployment.stores()
    ts = await deployment.asks("hi")
    await slack.edit("C1", ts, text)

    async def is_forgotten() -> bool:
        return await store.texts(deployment.key("C1", ts)) == []

    await until(is_forgotten)
    await deployment.settled()
    assert [message.shown for message in slack.replies("C1", ts)] == ["echo: hi"]
