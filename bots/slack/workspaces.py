"""The workspaces that the app is in, and a client for each."""

from __future__ import annotations

import logging
from typing import Protocol

import aiohttp
from slack_sdk.web.async_client import AsyncWebClient

from bots.slack.convert import Bot


class Workspaces(Protocol):
    """The app's installations."""

    async def client(self, team: str) -> AsyncWebClient: ...

    async def bot(self, team: str) -> Bot: ...

    async def gone(self, team: str) -> None:
        """The app was taken out of a workspace."""
        ...


class OneWorkspace:
    """A company's own app: one bot token."""

    def __init__(self, client: AsyncWebClient, bot: Bot) -> None:
        self._client = client
        self._bot = bot

    async def client(self, team: str) -> AsyncWebClient:
        del team
        return self._client

    async def bot(self, team: str) -> Bot:
        del team
        return self._bot

    async def gone(self, team: str) -> None:
        """Nothing to forget: the token is in the settings."""


def new_client(
    token: str | None, base_url: str, session: aiohttp.ClientSession, timeout: int
) -> AsyncWebClient:
    """A client that retries nothing by itself: a post that is tried again may stand there twice.

    The SDK logs what it sends at the level DEBUG: it gets a logger that does not.
    """
    quiet = logging.getLogger("henji.slack_sdk")
    quiet.setLevel(logging.WARNING)
    return AsyncWebClient(
        token, base_url=base_url, session=session, timeout=timeout, retry_handlers=[], logger=quiet
    )


async def who_am_i(client: AsyncWebClient) -> Bot:
    """The app as Slack knows the owner of the client's token."""
    answer = await client.auth_test()
    return Bot(
        answer["team_id"], answer["user_id"], answer["bot_id"], answer.get("user") or "henji"
    )
