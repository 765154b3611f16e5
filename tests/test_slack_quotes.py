"""Forwards and alerts in Slack: what people point at is read with the question."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.local_slack.deployment import SlackDeployment, slack_at_work
from tests.waiting import until

BOT = "<@U0HENJI>"
PROFILE = {"id": "B9", "name": "Watchtower"}
FIRING = [{"title": "Disk full", "fields": [{"title": "host", "value": "db-1"}]}]
ALERT: dict[str, Any] = {"bot_id": "B9", "profile": PROFILE, "attachments": FIRING}
READ = "[bot: Watchtower]\nDisk full\nhost: db-1"


@pytest.fixture
async def deployment(redis: Redis) -> AsyncIterator[SlackDeployment]:
    async with slack_at_work(redis) as deployment:
        yield deployment


async def test_an_alert_with_replies_is_read_with_the_question_about_it(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    root = await slack.say("C1", "U9", "", **ALERT)
    await slack.say("C1", "U1", f"{BOT} investigate this", thread=root)
    await deployment.answered("C1", root, "echo: investigate this")
    assert (await deployment.stores().texts(deployment.key("C1", root)))[0] == READ


async def test_a_bot_that_posts_in_a_conversation_is_read_and_wakes_nobody(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    root = await deployment.asks("hello")
    await slack.say("C1", "U9", f"{BOT}", root, **ALERT)

    async def kept() -> bool:
        return READ in await deployment.stores().texts(deployment.key("C1", root))

    await until(kept, 5)
    assert len(slack.replies("C1", root)) == 1
    await slack.say("C1", "U1", "what now?", thread=root)  # still a conversation of two
    await deployment.answered("C1", root, "echo: what now?")


async def test_a_forward_without_a_comment_is_the_question(deployment: SlackDeployment) -> None:
    shared = {"is_share": True, "author_name": "Bob", "text": "the disk is full", "ts": "3.0"}
    ts = await deployment.slack.say("D1", "U1", "", attachments=[shared])
    await deployment.answered("D1", ts, "echo: [forwarded from Bob]\n> the disk is full")
