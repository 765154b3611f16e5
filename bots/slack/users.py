"""Users' names, languages and admin rights, read once an hour."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bots import strings
from bots.slack.api import Workspaces
from bots.slack.convert import Bot
from bots.slack.rate_limits import RateLimiter
from core.types import Bounded

KEPT = 10_000
KEPT_SECONDS = 3600.0
LOOKUP_SECONDS = 0.15
"""The longest that a message waits for unknown names: Slack wants an acknowledgement in 3 s."""
COLLEAGUE_SECONDS = 1.5
"""The same if the event does not say whether its author belongs to the organization."""
SPARE = 0.5
"""The share of the rate limit that names and second looks at admins leave free: without an answer,
a colleague of another workspace is taken for a stranger."""
AT_ONCE = 16
"""How many users are looked up at the same time."""


@dataclass(frozen=True, slots=True)
class User:
    """Slack's data of a user."""

    name: str = ""
    locale: str = ""
    admin: bool = False
    team: str = ""
    """Their workspace; empty: not known."""
    enterprise: str = ""
    """Their Enterprise Grid organization."""
    teams: frozenset[str] = frozenset()
    """The workspaces of that organization that they are in."""
    guest: bool = False
    """They see only channels that they are invited to."""
    is_stranger: bool = False
    """Slack says that they are of another organization."""

    def belongs_to(self, bot: Bot) -> bool:
        """Whether they are of the bot's workspace or of its organization."""
        if self.is_stranger:
            return False
        here = bot.team in (self.team, *self.teams)
        return here or (bool(self.enterprise) and self.enterprise == bot.enterprise)


class Users:
    """A cache of users.info. `locale`: one language for all, or ``auto``."""

    def __init__(
        self, workspaces: Workspaces, limiter: RateLimiter, locale: str, admins: Iterable[str]
    ) -> None:
        self._workspaces = workspaces
        self._limiter = limiter
        self._locale = locale
        self._admins = frozenset(admins)
        self._known = Bounded[tuple[str, str], tuple[float, User]](KEPT)
        self._asking: dict[tuple[str, str], asyncio.Task[User]] = {}

    async def names(self, team: str, users: Iterable[str]) -> Mapping[str, str]:
        """The names that are cached, or found in time."""
        wanted = list(users)
        found = await asyncio.gather(*(self._soon(team, user, spare=SPARE) for user in wanted))
        return {user: p.name for user, p in zip(wanted, found, strict=True) if p.name}

    async def locale(self, team: str, user: str, text: str = "") -> str:
        """A person's language: by their Slack profile, else by the text."""
        told = "" if self._locale != "auto" else (await self._soon(team, user)).locale
        return strings.locale_for(self._locale, told, text)

    async def is_admin(self, team: str, user: str) -> bool:
        """Whether they are an admin. A cached "no" is checked with Slack again."""
        if user in self._admins or (await self._soon(team, user)).admin:
            return True
        return (await self._ask(team, user, SPARE)).admin

    async def is_guest(self, team: str, user: str) -> bool:
        """Whether they are a guest, or unknown."""
        found = await self._soon(team, user, COLLEAGUE_SECONDS)
        return found.guest or not (found.team or found.teams)

    async def is_stranger(self, bot: Bot, user: str, user_team: str = "") -> bool:
        """Whether a user is of another organization; `user_team`: theirs, as the payload says."""
        if not user_team:
            return (await self._soon(bot.team, user)).is_stranger
        if user_team in (bot.team, bot.enterprise):
            return False
        return not (await self._soon(bot.team, user, COLLEAGUE_SECONDS)).belongs_to(bot)

    async def _soon(
        self, team: str, user: str, within: float = LOOKUP_SECONDS, spare: float = 0.0
    ) -> User:
        at, person = self._known.get((team, user), (0.0, User()))
        if at and time.monotonic() - at < KEPT_SECONDS:
            return person
        if len(self._asking) >= AT_ONCE and (team, user) not in self._asking:
            return person  # under load, storing the message comes first
        try:
            return await asyncio.wait_for(asyncio.shield(self._asked(team, user, spare)), within)
        except TimeoutError:
            return User()

    def _asked(self, team: str, user: str, spare: float) -> asyncio.Task[User]:
        key = (team, user)
        if key not in self._asking:
            task = asyncio.ensure_future(self._ask(team, user, spare))
            self._asking[key] = task
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        return self._asking[key]

    async def _ask(self, team: str, user: str, spare: float = 0.0) -> User:
        """Look a user up; an empty `User` if that fails. `spare`: the share of the rate limit to
        leave free."""
        is_scarce = self._limiter.wait("users.info", team, "", spare) > 0
        if is_scarce or not self._limiter.try_acquire("users.info", team, ""):
            return User()
        client = await self._workspaces.client(team)
        try:
            answer = await client.users_info(user=user, include_locale=True)
        except Exception:  # a message without names is better than none
            return User()
        found = _person(answer["user"], team)
        self._known[team, user] = (time.monotonic(), found)
        return found


def _person(user: Mapping[str, object], team: str) -> User:
    profile = user.get("profile")
    shown = profile.get("display_name") if isinstance(profile, dict) else ""
    organization = user.get("enterprise_user")
    grid = organization if isinstance(organization, dict) else {}
    home, enterprise = str(user.get("team_id") or ""), str(grid.get("enterprise_id") or "")
    is_stranger = bool(user.get("is_stranger"))
    # an admin of another workspace is not one here
    here = not is_stranger and (home in ("", team) or enterprise == team)
    return User(
        name=str(shown or user.get("real_name") or user.get("name") or ""),
        locale=str(user.get("locale") or ""),
        admin=here and any(user.get(f"is_{role}") for role in ("admin", "owner")),
        team=home,
        enterprise=enterprise,
        teams=frozenset(map(str, teams if isinstance(teams := grid.get("teams"), list) else ())),
        guest=any(user.get(f"is_{kind}") for kind in ("restricted", "ultra_restricted")),
        is_stranger=is_stranger,
    )
