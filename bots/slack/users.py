"""Users' names, languages and admin rights, read once an hour; who sees a channel's messages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slack_sdk.errors import SlackApiError

from bots import strings
from bots.platform import PlatformRefused
from bots.slack.api import RateLimited, SlackApi, Workspaces
from bots.slack.convert import Bot
from bots.slack.rate_limits import RateLimiter
from core.types import Bounded, ThreadKey

KEPT = 10_000
KEPT_SECONDS = 3600.0
LOOKUP_SECONDS = 0.15
"""The longest that a message waits for unknown names: Slack wants an acknowledgement in 3 s."""
COLLEAGUE_SECONDS = 1.5
"""The same if the event does not say whether its author belongs to the organization."""
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
        found = await asyncio.gather(*(self._soon(team, user) for user in wanted))
        return {user: p.name for user, p in zip(wanted, found, strict=True) if p.name}

    async def locale(self, team: str, user: str, text: str = "") -> str:
        """A person's language: by their Slack profile, else by the text."""
        told = "" if self._locale != "auto" else (await self._soon(team, user)).locale
        return strings.locale_for(self._locale, told, text)

    async def is_admin(self, team: str, user: str) -> bool:
        """Whether they are an admin. A cached "no" is checked with Slack again."""
        if user in self._admins or (await self._soon(team, user)).admin:
            return True
        return (await self._ask(team, user)).admin

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

    async def _soon(self, team: str, user: str, within: float = LOOKUP_SECONDS) -> User:
        at, person = self._known.get((team, user), (0.0, User()))
        if at and time.monotonic() - at < KEPT_SECONDS:
            return person
        if len(self._asking) >= AT_ONCE and (team, user) not in self._asking:
            return person  # under load, storing the message comes first
        try:
            return await asyncio.wait_for(asyncio.shield(self._asked(team, user)), within)
        except TimeoutError:
            return User()

    def _asked(self, team: str, user: str) -> asyncio.Task[User]:
        key = (team, user)
        if key not in self._asking:
            task = asyncio.ensure_future(self._ask(team, user))
            self._asking[key] = task
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        return self._asking[key]

    async def _ask(self, team: str, user: str) -> User:
        """Look a user up; an empty `User` if that fails."""
        if not self._limiter.try_acquire("users.info", team, ""):
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


# -- the audience of a channel --------------------------------------------------------------------


PAGES, PAGE = 5, 1000
"""Of a channel's members, and of a workspace's users. With more pages, no link is read."""
MEMBERS_SECONDS = 600.0
"""How long the list of full members is kept."""
WITHIN_SECONDS = 4.0
"""The longest wait for the rate limits."""


class Audience:
    """The people who see messages in a channel."""

    def __init__(self, api: SlackApi) -> None:
        self._api = api
        self._members = Bounded[str, tuple[float, frozenset[str]]](100)

    async def may_read(self, thread: ThreadKey, channel: str) -> bool:
        """Whether everyone who sees an answer in `thread` may read `channel`.

        It is the same channel; or it is public, and only full members of the workspace are in the
        answer's channel. Guests and other organisations can read only their channels.
        """
        if channel == thread.channel:
            return True
        try:
            return await self._is_open(thread, channel)
        except (SlackApiError, PlatformRefused, RateLimited):
            return False  # a scope is missing, or Slack does not know the channel

    async def _is_open(self, thread: ThreadKey, channel: str) -> bool:
        there = await self._info(thread, channel)
        here = await self._info(thread, thread.channel)
        of_team = there.get("context_team_id", thread.space) == thread.space
        public = there.get("is_channel") and not there.get("is_private", True)
        if not (of_team and public) or _is_shared(here):
            return False
        people = await self._people(thread)
        return bool(people) and people <= await self._full_members(thread)

    async def _info(self, thread: ThreadKey, channel: str) -> Mapping[str, Any]:
        answer = await self._api.call(
            "conversations.info", thread, within=WITHIN_SECONDS, channel=channel
        )
        found: Mapping[str, Any] = answer["channel"]
        return found

    async def _people(self, thread: ThreadKey) -> frozenset[str]:
        pages = await self._pages("conversations.members", thread, channel=thread.channel)
        return frozenset(member for found in pages for member in found["members"])

    async def _full_members(self, thread: ThreadKey) -> frozenset[str]:
        at, members = self._members.get(thread.space, (0.0, frozenset[str]()))
        if at and time.monotonic() - at < MEMBERS_SECONDS:
            return members
        # an organization's token needs the workspace's id
        pages = await self._pages("users.list", thread, team_id=thread.space)
        users = [user for page in pages for user in page["members"]]
        members = frozenset(str(u["id"]) for u in users if _is_full_member(u, thread.space))
        self._members[thread.space] = (time.monotonic(), members)
        return members

    async def _pages(self, method: str, thread: ThreadKey, **arguments: Any) -> Sequence[Any]:
        """Every page of an answer; none if there are too many."""
        found: list[Any] = []
        pages = self._api.pages(method, thread, within=WITHIN_SECONDS, limit=PAGE, **arguments)
        async for page in pages:
            if len(found) == PAGES:
                return ()
            found.append(page)
        return found


def _is_shared(channel: Mapping[str, Any]) -> bool:
    """Whether people of other organisations are in a channel, or may soon be."""
    return any(channel.get(f"is_{how}shared") for how in ("ext_", "pending_ext_", "org_"))


def _is_full_member(user: Mapping[str, Any], team: str) -> bool:
    kinds = ("is_restricted", "is_ultra_restricted", "is_stranger")
    return not any(user.get(kind) for kind in kinds) and user.get("team_id", team) == team
