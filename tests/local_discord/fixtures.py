"""The fixtures of the Discord tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from tests.local_discord.deployment import DiscordDeployment, discord_deployment


@pytest.fixture
async def deployment(redis: Redis) -> AsyncIterator[DiscordDeployment]:
    """The bot, its cores and a Discord on the wire, which at the end must have found no fault."""
    async with discord_deployment(redis) as deployment:
        yield deployment
        assert deployment.discord.faults == []


@pytest.fixture
async def general(deployment: DiscordDeployment) -> str:
    """A channel of a guild that the bot is in, connected and with a core."""
    return await deployment.ready()
