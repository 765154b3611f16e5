"""The bot's start, and `henji doctor`: missing settings, and the remedies."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from bots.cli import doctor
from bots.discord import bot, setup_checks
from bots.discord.settings import NO_TOKEN, DiscordSettings
from bots.platforms import load
from bots.relay import RelaySettings
from tests.local_discord.deployment import ALICE, LANE, DiscordDeployment, discord_deployment
from tests.local_discord.server import TOKEN
from tests.open_access import EVERYBODY

REFUSED: dict[str, Any] = {"kind": "commands", "times": 9, "status": 403, "code": 50001}


def settings_for(deployment: DiscordDeployment, **changes: Any) -> DiscordSettings:
    return load(
        DiscordSettings,
        **{
            "discord_bot_token": TOKEN,
            "discord_api_url": deployment.discord.api_url,
            "discord_gateway_url": deployment.discord.gateway_url,
            "engine": "echo",
            **changes,
        },
    )


async def warnings_at_the_start(deployment: DiscordDeployment, **changes: Any) -> list[str]:
    """What the log warns of until the bot is connected, and it is served all the same."""
    stop = asyncio.Event()
    process_settings = RelaySettings(lane=LANE, holder="bot", drain=0.0, access=EVERYBODY)
    with capture_logs() as logs:
        serving = asyncio.create_task(
            bot.serve(
                settings_for(deployment, **changes),
                deployment.process_stores(),
                process_settings,
                stop,
            )
        )
        await deployment.discord.until(
            lambda: serving.done() or deployment.discord.gateway.identified
        )
        stop.set()
        await serving
    return [str(line["event"]) for line in logs if line["log_level"] == "warning"]


async def test_the_doctor_names_a_working_bot(deployment: DiscordDeployment) -> None:
    guild = int(deployment.discord.add_guild())
    finding = await doctor.platform("discord", settings_for(deployment, discord_guild=guild))
    assert (finding.state, finding.what) == ("ok", "the token is that of Henji")
    assert await warnings_at_the_start(deployment) == []


async def test_a_wrong_token_is_reported_with_where_to_reset_it(
    deployment: DiscordDeployment,
) -> None:
    finding = await doctor.platform("discord", settings_for(deployment, discord_bot_token="wrong"))
    assert (finding.state, finding.what) == ("fault", setup_checks.WRONG_TOKEN)


async def test_a_missing_intent_is_reported_and_the_bot_serves_without(redis: Redis) -> None:
    async with discord_deployment(redis, message_content=False) as deployment:
        finding = await doctor.platform("discord", settings_for(deployment))
        assert (finding.state, finding.what) == ("fault", setup_checks.NO_INTENT)
        assert await warnings_at_the_start(deployment) == [setup_checks.NO_INTENT]


async def test_the_missing_intent_is_not_mentioned_where_it_is_switched_off(redis: Redis) -> None:
    async with discord_deployment(redis, message_content=False) as deployment:
        off = {"discord_message_content": "off"}
        assert (await doctor.platform("discord", settings_for(deployment, **off))).state == "ok"
        assert await warnings_at_the_start(deployment, **off) == []


async def test_commands_that_cannot_be_registered_are_reported(
    deployment: DiscordDeployment,
) -> None:
    deployment.discord.make_trouble(**REFUSED)
    finding = await doctor.platform("discord", settings_for(deployment))
    assert finding.state == "fault"
    [told] = await warnings_at_the_start(deployment)
    assert finding.what == told
    for click in ("Installation page", "applications.commands", "discord.com/oauth2/authorize"):
        assert click in told


async def test_a_guild_that_the_bot_is_not_in_is_named(deployment: DiscordDeployment) -> None:
    finding = await doctor.platform("discord", settings_for(deployment, discord_guild=12345))
    [told] = await warnings_at_the_start(deployment, discord_guild=12345)
    assert finding.what == told
    assert "HENJI_DISCORD_GUILD=12345" in told


async def test_commands_of_one_server_are_removed_with_its_setting(
    deployment: DiscordDeployment,
) -> None:
    guild = deployment.discord.add_guild()
    commands = deployment.discord.world.commands
    trial = await deployment.start_bot(discord_guild=int(guild))
    assert commands[guild]
    trial.stop.set()
    await trial.task
    await deployment.start_bot()
    assert commands[""]
    await deployment.discord.until(lambda: commands[guild] == [])


@pytest.mark.parametrize(
    ("settings", "count", "most"),
    [
        ({}, 2, 2),
        ({"discord_shards": 3}, 3, 3),
        ({"discord_shards": 4, "discord_most_shards": 1}, 4, 1),
    ],
)
async def test_there_are_as_many_shards_as_discord_recommends_or_the_settings_say(
    deployment: DiscordDeployment, settings: dict[str, Any], count: int, most: int
) -> None:
    deployment.discord.rest.shards = 2
    account = await setup_checks.check_account(TOKEN)
    plan = bot.shard_plan(load(DiscordSettings, **settings), account, "bot")
    assert (plan.count, plan.maximum) == (count, most)


@pytest.mark.parametrize(
    ("token", "sentence"),
    [({}, NO_TOKEN), ({"DISCORD_BOT_TOKEN": "wrong"}, setup_checks.WRONG_TOKEN)],
    ids=["missing", "wrong"],
)
async def test_the_command_ends_with_one_sentence(
    deployment: DiscordDeployment, redis_url: str, token: Mapping[str, str], sentence: str
) -> None:
    henji = await start_henji(deployment, redis_url, token)
    _, said = await henji.communicate()
    assert said.decode() == f"henji: {sentence}\n"
    assert henji.returncode == 2


@pytest.mark.parametrize("known_from", ["a call", "the gateway"])
async def test_a_token_that_is_revoked_while_it_runs_ends_the_process(
    deployment: DiscordDeployment, redis_url: str, known_from: str
) -> None:
    discord = deployment.discord
    general = discord.add_channel(discord.add_guild())
    await deployment.start_core()
    henji = await start_henji(deployment, redis_url, {"DISCORD_BOT_TOKEN": TOKEN})
    await discord.until(lambda: discord.gateway.identified, seconds=60)
    if known_from == "a call":
        discord.rest.token = "another"
        await discord.says(ALICE, general, "<@bot> hello")
    else:
        discord.gateway.token = "another"
        await discord.gateway.drop(resumable=False)
    _, said = await asyncio.wait_for(henji.communicate(), 60)
    assert said.decode().endswith(f"henji: {setup_checks.WRONG_TOKEN}\n")
    assert "Traceback" not in said.decode()
    assert henji.returncode == 1


async def start_henji(
    deployment: DiscordDeployment, redis_url: str, token: Mapping[str, str]
) -> asyncio.subprocess.Process:
    """`henji discord` as a separate process."""
    environment = {
        **{name: value for name, value in os.environ.items() if name != "DISCORD_BOT_TOKEN"},
        **token,
        "REDIS_URL": redis_url,
        "HENJI_ENGINE": "echo",
        "DISCORD_API_URL": deployment.discord.api_url,
        "DISCORD_GATEWAY_URL": deployment.discord.gateway_url,
    }
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bots", "discord"),
        env=environment,
        stderr=asyncio.subprocess.PIPE,
    )
