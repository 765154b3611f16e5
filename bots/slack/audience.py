"""The audience of an answer: a link is read only if everyone who sees the answer may read it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from slack_sdk.errors import SlackApiError

from bots.platform import PlatformRefused
from bots.slack.api import RateLimited, SlackApi
from core.types import Bounded, ThreadKey

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
