"""Calls of Slack's Web API, within the rate limits: a client per workspace, and retries on 429."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Protocol

import aiohttp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bots.downloads import download, host_of, upload
from bots.platform import PlatformRefused
from bots.slack.convert import NOTICE_METADATA, Bot
from bots.slack.error_codes import FINAL, sentence
from bots.slack.rate_limits import EPHEMERAL, POST, RateLimiter
from bots.slack.settings import SlackSettings
from core.observe import metrics
from core.types import ThreadKey

CONNECTIONS = 100
CALL_SECONDS = 15.0
WITHOUT_PREVIEWS = {"unfurl_links": False, "unfurl_media": False}


class Refused(PlatformRefused):
    """Slack refuses the call for good. `error` is its error code."""

    def __init__(self, error: str, needed: str = "") -> None:
        super().__init__(sentence(error, needed))
        self.error = error


class RateLimited(Exception):
    """The rate limits do not allow an optional call now."""


def error_code(error: Exception) -> str:
    """Slack's error code; empty without one, for example if the answer is not JSON."""
    if isinstance(error, Refused):
        return error.error
    if not isinstance(error, SlackApiError):
        return ""
    if error.response.status_code == 429:
        return "ratelimited"
    return str(error.response.get("error", "")) if isinstance(error.response.data, dict) else ""


class Workspaces(Protocol):
    """The app's installations."""

    async def client(self, team: str) -> AsyncWebClient: ...

    async def bot(self, team: str) -> Bot: ...

    async def note_organization(self, team: str, organization: str) -> None:
        """An event named a workspace and its organization, which may have installed the app."""
        ...

    async def forget(self, team: str, at: float) -> None:
        """Forget a workspace that uninstalled the app at this time, unless it is there again."""
        ...

    async def summary(self) -> Mapping[str, object]:
        """The workspace and the bot, or the number of workspaces, for a log."""
        ...


class OneWorkspace:
    """A company's own app: one bot token, of one workspace or of the whole organization."""

    def __init__(self, client: AsyncWebClient, bot: Bot) -> None:
        self._client = client
        self._bot = bot

    async def client(self, team: str) -> AsyncWebClient:
        del team
        return self._client

    async def bot(self, team: str) -> Bot:
        return replace(self._bot, team=team) if self._bot.is_org_wide and team else self._bot

    async def note_organization(self, team: str, organization: str) -> None:
        """Do nothing: the token is in the settings."""

    async def forget(self, team: str, at: float) -> None:
        """Do nothing: the token is in the settings."""

    async def summary(self) -> Mapping[str, object]:
        """See `Workspaces`."""
        return {"workspace": self._bot.workspace or self._bot.team, "bot": self._bot.name}


class SlackApi:
    """Calls Slack's methods in the workspace of a place, within the rate limits."""

    def __init__(self, workspaces: Workspaces, limiter: RateLimiter) -> None:
        self._workspaces = workspaces
        self.limiter = limiter

    async def call(
        self,
        method: str,
        place: ThreadKey,
        *,
        within: float | None = None,
        spare: float = 0.0,
        notice: bool = False,
        **arguments: Any,
    ) -> Any:
        """Call a method, such as ``chat.update``, as soon as the rate limits allow; a notice goes
        after replies.

        `within`: raise RateLimited instead of waiting longer, in seconds of `RateLimiter.minute`.
        `spare`: the share of the limit to leave free then.
        """
        acquire = self.limiter.acquire_last if notice else self.limiter.acquire
        team, channel = place.space, place.channel
        while True:
            wait = self.limiter.wait(method, team, channel, spare)
            if within is not None and wait > within * self.limiter.minute / 60:
                raise RateLimited(method)
            if spare:
                await asyncio.sleep(wait)
            await acquire(method, team, channel)
            try:
                return await self._send(method, team, arguments)
            except SlackApiError as error:
                self._note_rate_limit(error, method, team, channel)

    async def try_call(self, method: str, place: ThreadKey, **arguments: Any) -> Any:
        """Call a method now; RateLimited if the rate limits do not allow it."""
        team, channel = place.space, place.channel
        if not self.limiter.try_acquire(method, team, channel):
            raise RateLimited(method)
        try:
            return await self._send(method, team, arguments)
        except SlackApiError as error:
            self._note_rate_limit(error, method, team, channel)
            raise RateLimited(method) from None

    async def pages(
        self, method: str, place: ThreadKey, *, within: float | None = None, **arguments: Any
    ) -> AsyncIterator[Any]:
        """The pages of an answer, one call each."""
        cursor: str | None = None
        while True:
            page = await self.call(method, place, within=within, cursor=cursor, **arguments)
            yield page
            cursor = (page.get("response_metadata") or {}).get("next_cursor")
            if not cursor:
                return

    async def post_privately(self, place: ThreadKey, user: str, text: str) -> str:
        """Send a message that only one person sees, in a thread or a channel. Returns its ts."""
        thread = place.thread or None
        content: dict[str, Any] = {"channel": place.channel, "thread_ts": thread, "text": text}
        if not place.channel.startswith("D"):
            sent = await self.call(EPHEMERAL, place, user=user, **content)
            return str(sent["message_ts"])
        notice = {"event_type": NOTICE_METADATA, "event_payload": {}}
        posted = await self.call(POST, place, metadata=notice, **WITHOUT_PREVIEWS, **content)
        return str(posted["ts"])

    async def file(self, team: str, address: str, most: int) -> bytes:
        """A file's content (`downloads.download`). Only Slack's own hosts get the token."""
        client = await self._workspaces.client(team)
        headers = {"Authorization": f"Bearer {client.token}"}
        return await download(address, most, _file_hosts(client), headers)

    async def send_file(self, place: ThreadKey, name: str, content: bytes) -> None:
        """Share a file in a channel or a thread. Slack first gives the address for its bytes."""
        length = len(content)
        given = await self.call("files.getUploadURLExternal", place, filename=name, length=length)
        client = await self._workspaces.client(place.space)
        await upload(str(given["upload_url"]), content, _file_hosts(client))
        await self.call(
            "files.completeUploadExternal",
            place,
            files=[{"id": str(given["file_id"]), "title": name}],
            channel_id=place.channel,
            thread_ts=place.thread or None,
        )

    async def _send(self, method: str, team: str, arguments: Mapping[str, Any]) -> Any:
        client = await self._workspaces.client(team)
        try:
            return await getattr(client, method.replace(".", "_"))(**arguments)
        except SlackApiError as error:
            if (name := error_code(error)) in FINAL:
                raise Refused(name, str(error.response.get("needed") or "")) from error
            raise

    def _note_rate_limit(self, error: SlackApiError, method: str, team: str, channel: str) -> None:
        """Note a 429; raise every other error again."""
        if error_code(error) != "ratelimited":
            raise error
        metrics.RATE_LIMITED.labels("slack", method).inc()
        seconds = float(error.response.headers.get("Retry-After", 1))
        self.limiter.block(method, team, channel, seconds)


def _file_hosts(client: AsyncWebClient) -> frozenset[str]:
    """The hosts of files: Slack's, or the test server's."""
    base = host_of(client.base_url)
    return frozenset(("https://files.slack.com",) if base == "https://slack.com" else (base,))


def new_client(
    token: str | None, base_url: str, session: aiohttp.ClientSession, timeout: int
) -> AsyncWebClient:
    """A client without the SDK's retries, which could post a message twice.

    Its logger hides DEBUG: there the SDK logs what it sends.
    """
    quiet = logging.getLogger("henji.slack_sdk")
    quiet.setLevel(logging.WARNING)
    return AsyncWebClient(
        token, base_url=base_url, session=session, timeout=timeout, retry_handlers=[], logger=quiet
    )


@asynccontextmanager
async def web_client(settings: SlackSettings) -> AsyncIterator[AsyncWebClient]:
    """The client of this process: one HTTP session, so that connections are reused."""
    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    async with aiohttp.ClientSession(connector=connector) as session:
        token = settings.slack_bot_token
        yield new_client(
            token.get_secret_value() if token else None,
            settings.slack_api_url,
            session,
            timeout=int(CALL_SECONDS - 5),
        )


async def identify(client: AsyncWebClient) -> Bot:
    """The bot that the client's token belongs to."""
    answer = await client.auth_test()
    enterprise = str(answer.get("enterprise_id") or "")
    return Bot(
        str(answer.get("team_id") or enterprise),
        answer["user_id"],
        answer["bot_id"],
        answer.get("user") or "henji",
        enterprise,
        is_org_wide=bool(answer.get("is_enterprise_install")),
        workspace=str(answer.get("team") or ""),
        url=answer.get("url") or "",
    )
