"""Answers that tests wait for: public ones, and those for one person."""

from __future__ import annotations

from tests.local_discord import payloads as p
from tests.local_discord.deployment import DiscordDeployment
from tests.local_discord.world import Interaction

NOBODY = "0"
"""The permissions of a person who has none."""
STOP, AGAIN, GOOD, BAD = 0, 0, 1, 2
"""The positions of the buttons under a message."""


async def the_answer(deployment: DiscordDeployment, used: Interaction, text: str) -> p.Payload:
    """The message that answers a command, once it has this text."""
    await answered(deployment, used)
    return await until_it_says(deployment, used.channel, used.original, text)


async def until_it_says(
    deployment: DiscordDeployment, channel: str, ident: str, text: str
) -> p.Payload:
    """The message, once it has this text."""
    where = deployment.discord.world.messages[channel]
    await deployment.discord.until(lambda: ident in where and where[ident]["content"] == text)
    return where[ident]


async def answered(deployment: DiscordDeployment, used: Interaction) -> p.Payload:
    """The callback that acknowledged an interaction."""
    await deployment.discord.until(lambda: used.answer)
    assert used.answer is not None
    return used.answer


async def told(deployment: DiscordDeployment, used: Interaction) -> str:
    """The private sentence of an answer, direct or deferred."""

    def text() -> str:
        messages = deployment.discord.world.messages.get(used.channel, {})
        return str(messages.get(used.original, {}).get("content", ""))

    await answered(deployment, used)
    said: str = await deployment.discord.until(text)
    assert used.private
    return said


async def with_its_buttons(deployment: DiscordDeployment, message: p.Payload) -> p.Payload:
    """A finished reply, with its buttons."""

    def ended() -> bool:
        rows = message["components"]
        return bool(rows) and len(rows[0]["components"]) >= 3

    await deployment.discord.until(ended)
    return message
