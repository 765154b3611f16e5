"""Conversations in Slack, as people see them: the real adapter, the real relay, a real Valkey."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from bots.slack import blocks
from tests.slack_house import SlackHouse, slack_house

BOT = "<@U0HENJI>"


@pytest.fixture
async def house(redis: Redis) -> AsyncIterator[SlackHouse]:
    async with slack_house(redis) as house:
        await house.core()
        await house.adapter()
        yield house
        assert house.slack.workspace.violations == []


async def test_a_mention_is_answered_once_in_a_thread_under_it(house: SlackHouse) -> None:
    slack = house.slack
    ts = await slack.say("C1", "U1", f"{BOT} こんにちは")
    reply = await house.answered("C1", ts, "echo: こんにちは")
    assert slack.replies("C1", ts) == [reply]
    assert not reply.unfurl
    assert set(reply.buttons()) == {blocks.FEEDBACK, blocks.REGENERATE}
    assert "AI(echo)" in str(reply.blocks)
    assert any(status == "考えています…" for _, _, status, _ in slack.workspace.statuses)


async def test_a_follow_up_needs_no_mention(house: SlackHouse) -> None:
    slack = house.slack
    ts = await slack.say("C1", "U1", f"{BOT} one")
    await house.answered("C1", ts, "echo: one")
    await slack.say("C1", "U1", "two", thread=ts)
    await house.answered("C1", ts, "echo: two")


async def test_a_mention_inside_a_thread_is_answered_having_read_it(house: SlackHouse) -> None:
    slack = house.slack
    root = await slack.say("C1", "U2", "the deploy failed")
    await slack.say("C1", "U1", "what now?", thread=root)
    await slack.say("C1", "U1", f"{BOT} help us", thread=root)
    await house.answered("C1", root, "echo: help us")
    remembered = await house.storehouse().texts(house.key("C1", root))
    assert remembered == ["the deploy failed", "what now?", "help us", "echo: help us"]


async def test_a_direct_message_is_answered(house: SlackHouse) -> None:
    ts = await house.slack.say("D1", "U1", "hi")
    await house.answered("D1", ts, "echo: hi")
