"""The settings of the Discord process. Imported without Discord's package."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field, SecretStr, StringConstraints

from bots.platforms import PlatformSettings
from core.errors import UsageError
from core.settings import Url, named

PORTAL = "https://discord.com/developers/applications"
NO_TOKEN = (
    f"DISCORD_BOT_TOKEN is not set: create an application at {PORTAL}, press Reset Token on its "
    "Bot page, and set the token in the environment"
)


RoleId: TypeAlias = Annotated[str, StringConstraints(pattern=r"^\d{1,20}$")]


class DiscordSettings(PlatformSettings):
    """Discord's own settings beside those of every process."""

    title: ClassVar = "Discord"
    example: ClassVar = "DISCORD_BOT_TOKEN=... henji discord"
    packages: ClassVar = ("discord",)
    secret_patterns: ClassVar = (
        re.compile(r"\b()[\w-]{23,28}\.[\w-]{6}\.[\w-]{27,}"),  # of bots
        re.compile(r"(/(?:webhooks|interactions)/\d+/)[\w-]{20,}"),  # of interactions
    )

    discord_bot_token: SecretStr | None = named(
        "DISCORD_BOT_TOKEN", "discord_bot_token", default=None
    )
    discord_api_url: Url | None = named("DISCORD_API_URL", "discord_api_url", default=None)
    discord_gateway_url: Url | None = named(
        "DISCORD_GATEWAY_URL", "discord_gateway_url", default=None
    )
    discord_answers: Literal["thread", "reply"] = "thread"
    """Whether a mention in a channel opens a thread, or is answered there."""
    discord_followups: Literal["auto", "always", "alone", "mention"] = "auto"
    """Whether people need to mention the bot again in a thread that it takes part in. ``alone``:
    not while they are alone with it, or were the last it spoke to; auto: not in the threads that it
    opened, and ``alone`` in those of others.
    """
    discord_roles: frozenset[RoleId] = frozenset()
    """Ids of roles whose mention addresses the bot, beside the role that has its name."""
    discord_message_content: Literal["auto", "on", "off"] = "auto"
    """Whether to ask for the Message Content intent; auto: if the developer portal grants it."""
    discord_guild: int | None = Field(default=None, ge=1, lt=2**64)
    """Register the commands in this guild alone, where they appear at once; for trying."""
    discord_shards: int | None = Field(default=None, ge=1, le=100_000)
    """How many shards there are in all; by default as many as Discord recommends."""
    discord_most_shards: int | None = Field(default=None, ge=1, le=100_000)
    """How many of them this process takes at the most; by default all that nobody holds."""

    def token(self) -> str:
        """The bot's token; UsageError where it is not set."""
        if self.discord_bot_token is None:
            raise UsageError(NO_TOKEN)
        return self.discord_bot_token.get_secret_value()

    def require(self) -> None:
        """UsageError where the token is missing."""
        self.token()
