"""What a test waits to see: answers, in the open and for one person alone."""

from __future__ import annotations

from tests.local_discord import payloads as p
from tests.local_discord.deployment import DiscordDeployment
from tests.local_discord.world import Interaction

NOBODY = "0"
"""The permissions of somebody who may nothing."""
STOP, AGAIN, GOOD, BAD = 0, 0, 1, 2
"""Where the buttons stand."""


async def the_answer(deployment: DiscordDeployment, used: Interaction, text: str) -> p.Payload:
    """The message that a command was answered with, once it says this."""
    await answered(deployment, used)
    return await until_it_says(deployment, used.channel, used.original, text)


async def until_it_says(
    deployment: DiscordDeployment, channel: str, ident: str, text: str
) -> p.Payload:
    """The message, once it says this."""
    where = deployment.discord.world.messages[channel]
    await deployment.discord.until(lambda: ident in where and where[ident]["content"] == text)
    return where[ident]


async def answered(deployment: DiscordDeployment, used: Interaction) -> p.Payload:
    """What an interaction was acknowledged with."""
    await deployment.discord.until(lambda: used.answer)
    assert used.answer is not None
    return used.answer


async def told(deployment: DiscordDeployment, used: Interaction) -> str:
    """The sentence that only the person sees, in an answer or in a deferred one."""

    def text() -> str:
        messages = deployment.discord.world.messages.get(used.channel, {})
        return str(messages.get(used.original, {}).get("content", ""))

    await answered(deployment, used)
    said: str = await deployment.discord.until(text)
    assert used.private
    return said


async def with_its_buttons(deployment: DiscordDeployment, message: p.Payload) -> p.Payload:
    """A reply that has ended, with what can be done about it under it."""

    def ended() -> bool:
        rows = message["components"]
        return bool(rows) and len(rows[0]["components"]) >= 3

    await deployment.discord.until(ended)
    return message
