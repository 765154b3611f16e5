"""The state of the local Slack: people, channels and messages."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Json: TypeAlias = dict[str, Any]

EVERY_SCOPE = frozenset(
    {
        "app_mentions:read",
        "assistant:write",
        "channels:history",
        "channels:read",
        "chat:write",
        "commands",
        "files:read",
        "files:write",
        "groups:history",
        "groups:read",
        "im:history",
        "im:read",
        "im:write",
        "mpim:history",
        "mpim:read",
        "users:read",
    }
)


@dataclass(slots=True)
class Person:
    """A member, or with another `team` a stranger from a shared channel."""

    id: str
    name: str
    team: str
    locale: str = "ja-JP"
    admin: bool = False
    bot: bool = False
    guest: bool = False
    """They see only the channels that they are members of."""
    enterprise: str = ""
    """The Enterprise Grid organization, which events may name in the place of the workspace."""
    only_global: bool = False
    """`users.info` names no workspace, but those of the organization that they are in (observed:
    github looker/lookerbot issue 184, 2020)."""


@dataclass(slots=True)
class Installation:
    """The app in one workspace, with the scopes of its bot token."""

    team: str
    token: str
    bot_user: str
    bot_id: str
    scopes: frozenset[str] = EVERY_SCOPE
    revoked: bool = False
    expires_at: float | None = None
    refresh_token: str = ""
    org: str = ""
    """The Enterprise Grid organization that installed it as a whole, for all its workspaces."""


@dataclass(slots=True)
class Message:
    """A message in a channel, as its readers see it now."""

    channel: str
    ts: str
    user: str
    text: str
    thread_ts: str | None = None
    blocks: list[Json] = field(default_factory=list)
    metadata: Json | None = None
    bot_id: str | None = None
    streaming: Literal["no", "open", "over"] = "no"
    stream_until: float = 0.0
    in_chunks: bool = False
    """The stream began with chunks, and takes nothing else."""
    cards: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The title and the status of each task card, by its id."""
    ephemeral_for: str | None = None
    deleted: bool = False
    tombstone: bool = False
    """Deleted, with replies under it: Slack shows a tombstone in its place."""
    edits: int = 0
    edited: str = ""
    """Slack's stamp of a person's last edit."""
    files: list[Json] = field(default_factory=list)
    attachments: list[Json] = field(default_factory=list)
    profile: Json | None = None
    """What a bot's message says of the bot."""
    unfurl: bool = True

    @property
    def shown(self) -> str:
        """The Markdown that readers see: the blocks if there are any, as Slack has it."""
        markdown = [block["text"] for block in self.blocks if block["type"] == "markdown"]
        return "".join(markdown) if markdown else self.text

    def buttons(self) -> dict[str, Json]:
        """The things to press, by action id."""
        elements = [element for block in self.blocks for element in block.get("elements", ())]
        accessories = [block["accessory"] for block in self.blocks if "accessory" in block]
        return {e["action_id"]: e for e in elements + accessories if "action_id" in e}

    def payload(self) -> Json:
        """The message as events and the Web API carry it."""
        body: Json = {"type": "message", "ts": self.ts, "user": self.user, "text": self.text}
        optional = {"thread_ts": self.thread_ts, "bot_id": self.bot_id, "metadata": self.metadata}
        body |= {key: value for key, value in optional.items() if value is not None}
        if self.blocks:
            body["blocks"] = self.blocks
        if self.files:
            body |= {"files": self.files, "subtype": "file_share"}
        if self.attachments:
            body["attachments"] = self.attachments
        if self.profile:
            body |= {"bot_profile": self.profile, "subtype": "bot_message"}
        if self.edited:
            body["edited"] = {"user": self.user, "ts": self.edited}
        if self.tombstone:
            body |= {"user": "USLACKBOT", "subtype": "tombstone", "hidden": True}
            body |= {"text": "This message was deleted.", "thread_ts": self.ts}
        return body


def _ts(message: Message) -> str:
    return message.ts


def channel_type(channel: str) -> str:
    """What kind of conversation an id is of; here G is for group direct messages alone."""
    return {"D": "im", "G": "mpim"}.get(channel[:1], "channel")


class Workspace:
    """The state of the local Slack, and a way to wait for it to change."""

    def __init__(self, team: str = "T0HENJI") -> None:
        self.team = team
        self.enterprise = ""
        """The Enterprise Grid organization that the workspace is in."""
        self.is_org_wide = False
        """The organization installed the app as a whole: its events authorize no workspace."""
        self.people: dict[str, Person] = {}
        self.messages: dict[tuple[str, str], Message] = {}
        self.installations: dict[str, Installation] = {}
        self.statuses: list[tuple[str, str, str, float]] = []
        """Channel, thread, status and when it was set."""
        self.sessions: dict[tuple[str, str], str] = {}
        self.session_starts: dict[tuple[str, str], tuple[str, str]] = {}
        """The title and the initiator of each session."""
        self.prompts: dict[str, Json] = {}
        self.views: dict[str, Json] = {}
        """The home page of each person, and open modals by their id."""
        self.responses: list[Json] = []
        """What was sent to a response_url."""
        self.members: dict[str, set[str]] = {}
        """Private channel -> its members."""
        self.without_app: set[str] = set()
        """Channels that the app is no member of."""
        self.shared: set[str] = set()
        """Channels with people of other organisations."""
        self.without_answer: set[str] = set()
        """Methods whose calls get no answer and have no effect."""
        self.violations: list[str] = []
        self.url = ""
        """Where the local Slack is."""
        self.promised: dict[str, tuple[str, int]] = {}
        """The name and the length of each file that an app has announced, by its id."""
        self.files: dict[str, bytes] = {}
        """Uploads by the file's id."""
        self.downloads: list[tuple[str, str]] = []
        """Path and status of every request for a file."""
        self._changed = asyncio.Condition()
        self._last_ts = 0.0
        self._serial = itertools.count(1)

    def next_ts(self) -> str:
        """A message's id: unique, and later than every other."""
        self._last_ts = max(self._last_ts + 1e-6, time.time())
        return f"{self._last_ts:.6f}"

    def serial(self, prefix: str) -> str:
        return f"{prefix}{next(self._serial):08d}"

    def message(self, channel: str, ts: str) -> Message | None:
        message = self.messages.get((channel, ts))
        return None if message is None or message.deleted else message

    def channel(self, channel: str) -> list[Message]:
        """The messages of a channel, oldest first."""
        found = (m for (place, _), m in self.messages.items() if place == channel)
        return sorted((m for m in found if not m.deleted and not m.ephemeral_for), key=_ts)

    def thread(self, channel: str, root: str) -> list[Message]:
        """The messages of a thread, root first; ephemeral messages are in no history."""
        found = (m for (place, _), m in self.messages.items() if place == channel)
        inside = (m for m in found if root in (m.ts, m.thread_ts) and not m.deleted)
        return sorted((m for m in inside if not m.ephemeral_for), key=lambda m: m.ts)

    async def changed(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def until(self, true: Callable[[], Any], within: float = 60.0) -> Any:
        """Wait until `true` says so, and give its answer; TimeoutError after `within` seconds."""
        async with self._changed, asyncio.timeout(within):
            return await self._changed.wait_for(true)
