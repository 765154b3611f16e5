"""The Discord adapter over real sockets: what a simulation in memory has not."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from tests.local_discord.team import ALICE, Team, a_team


@pytest.fixture
async def team(redis: Redis) -> AsyncIterator[Team]:
    async with a_team(redis) as team:
        await team.start_core()
        yield team


async def test_a_mention_opens_a_thread_and_is_answered_in_it(team: Team) -> None:
    guild = team.discord.add_guild()
    general = team.discord.add_channel(guild)
    await team.start_bot()
    said = await team.discord.says(ALICE, general, "<@bot> hello")
    [reply] = await team.discord.until(lambda: team.discord.replies(said["id"]))
    await team.discord.until(lambda: reply["content"] == "echo: hello")
    assert team.discord.faults == []
