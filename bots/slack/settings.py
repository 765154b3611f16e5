"""The settings of the Slack process. Imported without Slack's packages."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field, SecretStr, StringConstraints

from bots.platforms import PlatformSettings
from core.errors import UsageError
from core.settings import Url, named

SlackId: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9]*$")]

APP = "at api.slack.com/apps, in your app"


class SlackSettings(PlatformSettings):
    """Slack's own settings beside those of every process."""

    title: ClassVar = "Slack"
    example: ClassVar = "SLACK_BOT_TOKEN=xoxb-... SLACK_APP_TOKEN=xapp-... henji slack"
    packages: ClassVar = ("slack_bolt", "slack_sdk", "aiohttp")
    secret_patterns: ClassVar = (  # with those of installations
        re.compile(r"\b()(?:xox[a-z](?:\.xox[a-z])?|xapp)-[\w-]{8,}"),
        re.compile(r"(hooks\.slack\.com/\w+/)[\w/-]{8,}"),  # of answers to commands
    )

    slack_bot_token: SecretStr | None = named("SLACK_BOT_TOKEN", "slack_bot_token", default=None)
    slack_app_token: SecretStr | None = named("SLACK_APP_TOKEN", "slack_app_token", default=None)
    slack_signing_secret: SecretStr | None = named(
        "SLACK_SIGNING_SECRET", "slack_signing_secret", default=None
    )
    slack_api_url: Url = named("SLACK_API_URL", "slack_api_url", default="https://slack.com/api/")
    slack_follow_ups: Literal["always", "alone", "mention"] = "alone"
    """Whether messages without a mention are answered in the bot's threads: always, while people do
    not talk among themselves, or never."""
    slack_strangers: Literal["answer", "sentence", "ignore"] = "sentence"
    """People of other workspaces, in channels shared with them."""
    slack_allowed_bots: frozenset[SlackId] = frozenset()
    """Ids of bots that are answered when they mention this one."""
    slack_admins: frozenset[SlackId] = frozenset()
    """Ids of people with the rights of the workspace's admins."""
    slack_streaming: bool = True
    """Native streaming, where Slack has room for it."""
    slack_processes: int = Field(default=1, ge=1, le=10)
    """How many processes share the workspace's rate limits."""
    slack_http_port: int | None = Field(default=None, ge=0, le=65535)
    """Events by HTTP on this port, instead of Socket Mode."""
    slack_http_host: str = "127.0.0.1"
    slack_client_id: str | None = None
    slack_client_secret: SecretStr | None = None
    """With the client id: installable in several workspaces, by OAuth."""

    @property
    def slack_by_oauth(self) -> bool:
        """Whether workspaces install the app, each with its own token."""
        return self.slack_client_id is not None and self.slack_client_secret is not None

    def require(self) -> None:
        """UsageError where a setting is missing that this way of running needs."""
        self._require_whole_client()
        if self.slack_http_port is not None:
            if self.slack_signing_secret is None:
                raise UsageError(
                    "SLACK_SIGNING_SECRET is not set: without it nobody can tell Slack's requests "
                    f"from forged ones; {APP}: Basic Information > App Credentials > Signing Secret"
                )
            if self.slack_by_oauth:
                return  # the tokens come with the installations
        elif self.slack_app_token is None:
            raise UsageError(
                f"SLACK_APP_TOKEN is not set: {APP}: Basic Information > App-Level Tokens > "
                "Generate, with the scope connections:write"
            )
        if self.slack_bot_token is None:
            raise UsageError(
                f"SLACK_BOT_TOKEN is not set: {APP}: Install App > Bot User OAuth Token (xoxb-)"
            )

    def _require_whole_client(self) -> None:
        """UsageError where an app for several workspaces is set up by half."""
        given = {
            "HENJI_SLACK_CLIENT_ID": self.slack_client_id,
            "HENJI_SLACK_CLIENT_SECRET": self.slack_client_secret,
        }
        missing = [name for name, value in given.items() if value is None]
        if len(missing) == 1:
            raise UsageError(
                f"{missing[0]} is not set, and the other half is: {APP}: Basic Information > App "
                "Credentials"
            )
        if not missing and self.slack_http_port is None:
            raise UsageError(
                "HENJI_SLACK_HTTP_PORT is not set: an app for several workspaces is reached by HTTP"
            )
