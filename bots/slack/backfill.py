"""Reading a thread: for its history, and to find a reply that was posted but not recorded."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import structlog

from bots.platform import Incoming, PlaceNames
from bots.slack.api import RateLimited, SlackApi, Workspaces
from bots.slack.convert import earlier, link_to, team_of
from bots.slack.users import Users
from bots.summaries import RecentMessages
from core.queue_types import Delivery
from core.types import Bounded, ThreadKey

MESSAGES = 200
"""At most this many messages of a thread are read: the newest."""
PAGE = 1000
"""Slack's largest page: each page costs a call, and the newest messages come last."""
RECENT_SECONDS = 10.0
"""The longest that a page for a summary waits for the rate limits."""
SPARE = 1 / 3
"""The share of the rate limit that summaries and catching up leave free for people who ask now."""
EARLIER_SECONDS = 4.0
"""A thread that is new to the bot is held for five seconds until its past is read."""
SHORT_PAGE = 15
"""What Slack answers to an app that is distributed outside its Marketplace (docs.slack.dev,
changelog of 2025-05-29): one page of so many messages a minute, the oldest first."""
KEPT_THREADS, KEPT_TEAMS = 2_000, 10_000

log = structlog.get_logger()


class Backfill:
    """Reads threads with conversations.replies."""

    def __init__(self, workspaces: Workspaces, api: SlackApi, users: Users) -> None:
        self._workspaces = workspaces
        self._api = api
        self._users = users
        self._written = Bounded[ThreadKey, deque[float]](KEPT_THREADS)
        """When the newest messages of a thread were written."""
        self._short = Bounded[str, None](KEPT_TEAMS)
        """Workspaces that answer with short pages."""

    def note(self, thread: ThreadKey, ts: str) -> None:
        """A message was written in a thread, whether or not it concerns the bot."""
        times = self._written.setdefault(thread, deque(maxlen=SHORT_PAGE))
        if float(ts) not in times:  # a mention comes as two events
            times.append(float(ts))
        self._written.move_to_end(thread)

    def _newest(self, thread: ThreadKey, before: str) -> float:
        """From when on a short page has the newest messages; 0 where the first are as good."""
        most = SHORT_PAGE - 1  # the first message of the thread comes too
        known = sorted(at for at in self._written.get(thread, ()) if at < float(before))[-most:]
        is_full = thread.space in self._short and len(known) == most
        return known[0] - 1e-6 if is_full else 0.0

    async def find(self, delivery: Delivery, index: int) -> str | None:
        """The message of a part that was posted but not recorded.

        Its metadata names the job and the part. A stream gets metadata only at its end. So an
        unfinished message of the bot after the question counts too, as a thread has one reply at
        a time; but only for a part that has no message yet, as it may belong to the next reply.
        """
        bot = await self._workspaces.bot(delivery.thread.space)
        unfinished: str | None = None
        for message in await self.replies(delivery.thread, oldest=delivery.turn):
            if message.get("user") != bot.user or message["ts"] in delivery.messages:
                continue
            payload = (message.get("metadata") or {}).get("event_payload") or {}
            if payload == {"job": delivery.job, "part": index}:
                return str(message["ts"])
            if not message.get("metadata") and not message.get("blocks"):
                unfinished = str(message["ts"])
        return unfinished if index >= len(delivery.messages) else None

    async def names(self, thread: ThreadKey) -> PlaceNames:
        """The names of a channel and of the bot; a direct message has none."""
        bot = await self._workspaces.bot(thread.space)
        channel = await self.channel(thread)
        return PlaceNames(str(channel.get("name") or thread.channel), bot.name)

    async def channel(self, thread: ThreadKey) -> Mapping[str, Any]:
        """Slack's description of a channel."""
        found = await self._api.call("conversations.info", thread, channel=thread.channel)
        about: Mapping[str, Any] = found["channel"]
        return about

    async def earlier(self, thread: ThreadKey, before: str, after: float) -> Sequence[Incoming]:
        """The messages before `before`."""
        oldest = f"{max(after, self._newest(thread, before)):.6f}"
        messages = await self.replies(thread, oldest, before, within=EARLIER_SECONDS, after=after)
        return await self._read(thread, messages)

    async def message(self, thread: ThreadKey, ts: str) -> Incoming | None:
        """One message of a thread; None where there is none to read."""
        answer = await self._api.call(
            "conversations.replies",
            thread,
            within=EARLIER_SECONDS,
            channel=thread.channel,
            ts=thread.thread,
            oldest=ts,
            latest=ts,
            inclusive=True,
            limit=2,  # the thread's first message comes too
            include_all_metadata=True,
        )
        found = [message for message in answer["messages"] if message["ts"] == ts]
        return next(iter(await self._read(thread, found)), None)

    async def _read(
        self, thread: ThreadKey, messages: Sequence[Mapping[str, Any]]
    ) -> Sequence[Incoming]:
        """Messages as the relay takes them."""
        bot = await self._workspaces.bot(thread.space)
        authors = {str(m["user"]) for m in messages if m.get("user") and not m.get("bot_id")}
        names = await self._users.names(thread.space, authors)
        strangers = {
            author
            for author, team in {(str(m.get("user")), team_of(m, bot)) for m in messages}
            if await self._users.is_stranger(bot, author, team)
        }
        found = (
            earlier(message, thread, bot, names, stranger=str(message.get("user")) in strangers)
            for message in messages
        )
        return [incoming for incoming in found if incoming is not None]

    async def replies(
        self,
        thread: ThreadKey,
        oldest: str,
        latest: str | None = None,
        within: float | None = None,
        after: float | None = None,
    ) -> Sequence[Mapping[str, Any]]:
        """The thread's messages between two times (exclusive), oldest first.

        `within`: the longest that a page may wait for the rate limits; what was read by then is
        the answer. `after`: the thread's first message counts from then on.
        """
        found: list[Mapping[str, Any]] = []
        async for page in self.pages(thread, oldest, latest, within, after):
            found += page
        return found[-MESSAGES:]

    async def pages(
        self,
        thread: ThreadKey,
        oldest: str,
        latest: str | None = None,
        within: float | None = None,
        after: float | None = None,
    ) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
        """The same, page by page."""
        since = float(oldest) if after is None else after
        try:
            async for page in self._pages(thread, oldest, latest, within):
                if page.get("has_more") and len(page["messages"]) <= SHORT_PAGE + 1:
                    self._short[thread.space] = None
                # Slack always sends the thread's first message too
                yield [m for m in page["messages"] if since < float(m["ts"])]
        except RateLimited:
            log.info("only a part of a thread was read", thread=str(thread))

    # -- for summaries --------------------------------------------------------------------------

    async def may_read(self, place: ThreadKey, person: str) -> bool:
        """Whether Slack lets the person read in a channel: as its member, or where it is open."""
        if place.channel.startswith("D"):
            return True  # nobody else can name the channel of their direct messages
        about = await self.channel(place)
        is_open = not (about.get("is_private") or about.get("is_mpim") or about.get("is_group"))
        if is_open and not await self._users.is_guest(place.space, person):
            return True
        return await self._is_member(place, person)

    async def _is_member(self, place: ThreadKey, person: str) -> bool:
        members: dict[str, Any] = {"channel": place.channel, "limit": PAGE}
        async for page in self._api.pages("conversations.members", place, **members):
            if person in page["members"]:
                return True
        return False

    async def recent(self, place: ThreadKey, after: float, most: int) -> RecentMessages:
        """The newest messages of a thread or, without one, of a channel."""
        found: dict[str, Mapping[str, Any]] = {}
        limited = False
        try:
            async for page in self._pages(place, f"{after:.6f}", None, RECENT_SECONDS, SPARE):
                found |= {m["ts"]: m for m in page["messages"] if float(m["ts"]) > after}
                if not place.thread and len(found) > most:
                    break
        except RateLimited:
            limited = True
        newest = [found[ts] for ts in sorted(found, key=float)]
        thread = place if place.thread else replace(place, thread="-")
        messages = await self._read(thread, newest[-most:])
        return RecentMessages(messages, more=len(newest) > most, limited=limited)

    async def is_empty(self, place: ThreadKey) -> bool:
        """Whether nothing has been said in a channel yet."""
        page = await self._api.call(
            "conversations.history", place, within=EARLIER_SECONDS, channel=place.channel, limit=1
        )
        return not page["messages"]

    async def links(self, place: ThreadKey) -> Callable[[str], str]:
        bot = await self._workspaces.bot(place.space)
        return lambda ts: link_to(bot, place.channel, ts, place.thread)

    async def since(self, place: ThreadKey, time: float) -> Sequence[Mapping[str, Any]]:
        """The messages of a thread or, without one, of a channel, since a time."""
        if place.thread:
            return await self.replies(place, oldest=f"{time:.6f}")
        page = await self._api.call(
            "conversations.history",
            place,
            channel=place.channel,
            oldest=f"{time:.6f}",
            limit=MESSAGES,
            include_all_metadata=True,
        )
        found: Sequence[Mapping[str, Any]] = page["messages"]
        return found

    def _pages(
        self,
        place: ThreadKey,
        oldest: str,
        latest: str | None,
        within: float | None,
        spare: float = 0.0,
    ) -> AsyncIterator[Any]:
        arguments: dict[str, Any] = {
            "within": within,
            "spare": spare,
            "channel": place.channel,
            "limit": PAGE,
            "include_all_metadata": True,
            "oldest": oldest,
            "latest": latest,
        }
        if not place.thread:
            return self._api.pages("conversations.history", place, **arguments)
        arguments["ts"] = place.thread
        return self._api.pages("conversations.replies", place, **arguments)
