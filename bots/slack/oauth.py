"""Several workspaces: OAuth installations, kept in Redis, with rotated tokens."""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from logging import Logger, getLogger
from secrets import token_urlsafe
from typing import Any

import aiohttp
import structlog
from slack_sdk.errors import SlackTokenRotationError
from slack_sdk.oauth.installation_store import Bot as InstalledBot
from slack_sdk.oauth.installation_store import Installation
from slack_sdk.oauth.installation_store.async_installation_store import AsyncInstallationStore
from slack_sdk.oauth.state_store.async_state_store import AsyncOAuthStateStore
from slack_sdk.oauth.token_rotation.async_rotator import AsyncTokenRotator
from slack_sdk.web.async_client import AsyncWebClient

from bots.platform import PlatformRefused
from bots.slack.api import new_client
from bots.slack.convert import Bot
from bots.slack.settings import SlackSettings
from core.ports import Secrets

TEAMS = "slack-teams"
STATE_SECONDS = 600
KEPT_SECONDS = 30.0
"""How long a process uses an installation before it reads it again."""
ROTATE_MINUTES = 120
_FIELDS = ("app_id", "team_id", "bot_token", "bot_id", "bot_user_id", "bot_refresh_token")

log = structlog.get_logger()


class Installations(AsyncInstallationStore):
    """The SDK's store of the bot of each workspace."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    @property
    def logger(self) -> Logger:
        return getLogger("henji.slack_oauth")

    async def async_save(self, installation: Installation) -> None:
        await self.async_save_bot(installation.to_bot())

    async def async_save_bot(self, bot: InstalledBot) -> None:
        await self._put(home_of(bot), _record(bot))

    async def replace(self, old: InstalledBot, new: InstalledBot) -> bool:
        """Save `new` if `old` is still installed: an admin may have changed that meanwhile."""
        team = home_of(old)
        text = await self._secrets.get(f"slack:{team}")
        if text is None or json.loads(text)["bot_token"] != old.bot_token:
            return False
        return await self._put(team, _record(new), was=text)

    async def uninstall(self, team: str, at: float) -> None:
        """Delete what was installed until then (`at`, in whole seconds), and nothing newer."""
        while text := await self._secrets.get(f"slack:{team}"):
            newer = int(json.loads(text).get("installed", 0)) > at
            if newer or await self._put(team, None, was=text):
                return

    async def _put(self, team: str, record: str | None, was: str | None = None) -> bool:
        return await self._secrets.put_listed(f"slack:{team}", record, TEAMS, team, was)

    async def teams(self) -> Sequence[str]:
        """The ids of the workspaces that have the app."""
        return list(json.loads(await self._secrets.get(TEAMS) or "[]"))

    async def async_find_bot(
        self,
        *,
        enterprise_id: str | None,
        team_id: str | None,
        is_enterprise_install: bool | None = False,
    ) -> InstalledBot | None:
        fields = await self._fields(team_id or enterprise_id or "")
        return _bot(fields) if "bot_token" in fields else None

    async def join(self, team: str, organization: str) -> None:
        """Remember that a workspace is of an organization that installed the app as a whole."""
        if await self._fields(organization) and not await self._fields(team):
            await self._secrets.put(f"slack:{team}", json.dumps({"organization": organization}))

    async def organization_of(self, team: str) -> str:
        """The organization whose installation a workspace has; empty: its own, or none."""
        return str((await self._fields(team)).get("organization", ""))

    async def _fields(self, place: str) -> Mapping[str, Any]:
        text = await self._secrets.get(f"slack:{place}")
        return {} if text is None else dict(json.loads(text))

    async def renew(self, team: str) -> None:
        """Keep an installation that is in use: without token rotation nothing else writes it."""
        await self._secrets.renew(f"slack:{team}")
        await self._secrets.renew(TEAMS)

    async def async_delete_bot(self, *, enterprise_id: str | None, team_id: str | None) -> None:
        await self._put(str(team_id), None)


def home_of(bot: InstalledBot) -> str:
    """The workspace that installed the app, or the organization that did as a whole."""
    return str(bot.team_id or bot.enterprise_id)


def _record(bot: InstalledBot) -> str:
    fields: dict[str, Any] = {name: getattr(bot, name) for name in _FIELDS}
    fields |= {"expires": bot.bot_token_expires_at, "installed": bot.installed_at}
    fields["is_enterprise_install"] = bool(bot.is_enterprise_install)
    return json.dumps(fields | {"enterprise": bot.enterprise_id})


def _bot(fields: Mapping[str, Any]) -> InstalledBot:
    return InstalledBot(
        **{name: fields[name] for name in _FIELDS},
        enterprise_id=fields.get("enterprise"),
        is_enterprise_install=fields.get("is_enterprise_install", False),
        bot_token_expires_at=fields["expires"],
        installed_at=fields["installed"],
    )


class States(AsyncOAuthStateStore):
    """The states of OAuth flows: each is valid once, for ten minutes."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    @property
    def logger(self) -> Logger:
        return getLogger("henji.slack_oauth")

    async def async_issue(self, *args: Any, **kwargs: Any) -> str:
        state = token_urlsafe(24)
        await self._secrets.put(f"slack-state:{state}", "1", STATE_SECONDS)
        return state

    async def async_consume(self, state: str) -> bool:
        return await self._secrets.pop(f"slack-state:{state}") is not None


class ManyWorkspaces:
    """A client per workspace. A token about to expire is rotated first."""

    def __init__(
        self,
        installations: Installations,
        rotator: AsyncTokenRotator,
        session: aiohttp.ClientSession,
        base_url: str,
        timeout: int,
    ) -> None:
        self.installations = installations
        self._rotator = rotator
        self._session = session
        self._base_url = base_url
        self._timeout = timeout
        self._known: dict[str, tuple[float, InstalledBot]] = {}
        self._homes: dict[str, tuple[float, str]] = {}
        """Workspace -> whose installation it has: its own, or its organization's."""
        self._order: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def client(self, team: str) -> AsyncWebClient:
        token = (await self._installed(team)).bot_token
        return new_client(token, self._base_url, self._session, self._timeout)

    async def bot(self, team: str) -> Bot:
        found = await self._installed(team)
        enterprise = found.enterprise_id or ""
        return Bot(team, found.bot_user_id, found.bot_id or "", enterprise=enterprise)

    async def summary(self) -> Mapping[str, object]:
        """See `Workspaces`."""
        return {"workspaces": len(await self.teams())}

    async def teams(self) -> Sequence[str]:
        """The ids of the workspaces that have the app."""
        return await self.installations.teams()

    async def forget(self, team: str, at: float) -> None:
        """Forget a workspace that uninstalled the app at this time, unless it is there again."""
        self._known.pop(team, None)
        self._homes.pop(team, None)
        await self.installations.uninstall(team, at)

    async def note_organization(self, team: str, organization: str) -> None:
        """An event named a workspace and its organization, which may have installed the app."""
        if (
            organization
            and team not in ("", organization)
            and not self._is_fresh(self._homes, team)
        ):
            await self.installations.join(team, organization)

    async def _installed(self, team: str) -> InstalledBot:
        home = await self._home(team)
        async with self._order[home]:  # a refresh token is valid once
            if not self._is_fresh(self._known, home):
                known = await self._rotated(await self._kept(home))
                await self.installations.renew(home)
                self._known[home] = (time.monotonic(), known)
            return self._known[home][1]

    async def _home(self, team: str) -> str:
        if not self._is_fresh(self._homes, team):
            home = await self.installations.organization_of(team) or team
            if home != team:
                await self.installations.renew(team)
            self._homes[team] = (time.monotonic(), home)
        return self._homes[team][1]

    def _is_fresh(self, known: Mapping[str, tuple[float, Any]], name: str) -> bool:
        return name in known and time.monotonic() - known[name][0] < KEPT_SECONDS

    async def _kept(self, team: str) -> InstalledBot:
        found = await self.installations.async_find_bot(enterprise_id=None, team_id=team)
        if found is None:
            raise PlatformRefused(f"the app is not installed in the workspace {team}")
        return found

    async def _rotated(self, bot: InstalledBot) -> InstalledBot:
        """The bot with a fresh token; another process may have rotated it meanwhile."""
        try:
            rotated = await self._rotator.perform_bot_token_rotation(
                bot=bot, minutes_before_expiration=ROTATE_MINUTES
            )
        except SlackTokenRotationError as error:
            now = await self._kept(home_of(bot))
            if now.bot_token == bot.bot_token:
                log.warning("a token could not be rotated", team=bot.team_id, error=str(error))
            return now
        if rotated is None:
            return bot
        if await self.installations.replace(bot, rotated):
            return rotated
        return await self._kept(home_of(bot))


def many_workspaces(
    settings: SlackSettings, secrets: Secrets, client: AsyncWebClient
) -> ManyWorkspaces:
    """The workspaces that have installed the app."""
    client_id, client_secret = client_credentials(settings)
    rotator = AsyncTokenRotator(client_id=client_id, client_secret=client_secret, client=client)
    assert client.session is not None  # noqa: S101 -- `web_client` gave it one
    return ManyWorkspaces(
        Installations(secrets), rotator, client.session, settings.slack_api_url, client.timeout
    )


def client_credentials(settings: SlackSettings) -> tuple[str, str]:
    """The app's client id and secret."""
    secret = settings.slack_client_secret
    return settings.slack_client_id or "", secret.get_secret_value() if secret else ""
