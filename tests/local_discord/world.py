"""The state of the local Discord: guilds, channels, messages, interactions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.local_discord import payloads as p


class Refusal(Exception):
    """An answer other than 2xx, with Discord's own code (topics/opcodes-and-status-codes)."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


UNKNOWN_CHANNEL = (404, 10003, "Unknown Channel")
UNKNOWN_MEMBER = (404, 10007, "Unknown Member")
UNKNOWN_MESSAGE = (404, 10008, "Unknown Message")
UNKNOWN_INTERACTION = (404, 10062, "Unknown interaction")
INVALID_WEBHOOK_TOKEN = (401, 50027, "Invalid Webhook Token")
MISSING_PERMISSIONS = (403, 50013, "Missing Permissions")
CANNOT_MESSAGE_USER = (403, 50007, "Cannot send messages to this user")
ALREADY_ACKNOWLEDGED = (400, 40060, "Interaction has already been acknowledged.")
THREAD_EXISTS = (400, 160004, "A thread has already been created for this message")
NOT_THE_AUTHOR = (403, 50005, "Cannot edit a message authored by another user")
MISSING_ACCESS = (403, 50001, "Missing Access")
ARCHIVED = (400, 50083, "Thread is archived")
LOCKED = (400, 160005, "Thread is locked")
TOO_MANY_FOLLOW_UPS = (
    400,
    40094,
    "This interaction has hit the maximum number of follow up messages",
)
INVALID_FORM = 50035


@dataclass(slots=True)
class Interaction:
    """One use of a command, a button or a modal, with its answers."""

    id: str
    token: str
    kind: int
    channel: str
    person: str
    born: float
    answer: p.Payload | None = None
    """The callback that acknowledged it."""
    acknowledged_after: float = 0.0
    """Seconds."""
    original: str = ""
    loading: bool = False
    private: bool = False
    user_installed: bool = False
    messages: list[str] = field(default_factory=list)


@dataclass(slots=True)
class World:
    """State alone: the REST API checks permissions, and the gateway sends events."""

    guilds: dict[str, p.Payload] = field(default_factory=dict)
    channels: dict[str, p.Payload] = field(default_factory=dict)
    people: dict[str, p.Payload] = field(default_factory=dict)
    """Who can be asked about: those who made threads."""
    messages: dict[str, dict[str, p.Payload]] = field(default_factory=dict)
    interactions: dict[str, Interaction] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    """Messages that only one person sees."""
    nonces: dict[tuple[str, str], str] = field(default_factory=dict)
    commands: dict[str, Sequence[p.Payload]] = field(default_factory=dict)
    """Registered commands, by guild; ``""`` for everywhere."""
    mute: set[str] = field(default_factory=set)
    """Channels that the bot may not write in."""
    closed: set[str] = field(default_factory=set)
    """People who take no direct messages."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Uploads by the attachment's id."""
    downloads: list[str] = field(default_factory=list)
    typing: list[tuple[float, str]] = field(default_factory=list)
    answer_within: float = 3.0
    token_life: float = 900.0

    def channel(self, ident: str) -> p.Payload:
        if ident not in self.channels:
            raise Refusal(*UNKNOWN_CHANNEL)
        return self.channels[ident]

    def message(self, channel: str, ident: str) -> p.Payload:
        found = self.messages.get(channel, {}).get(ident)
        if found is None:
            raise Refusal(*UNKNOWN_MESSAGE)
        return found

    def guild_of(self, channel: str) -> str | None:
        return self.channel(channel).get("guild_id")

    def interaction(self, token: str) -> Interaction:
        found = self.interactions.get(token)
        if found is None or time.monotonic() > found.born + self.token_life:
            raise Refusal(*INVALID_WEBHOOK_TOKEN)
        return found

    def keep(self, message: p.Payload) -> p.Payload:
        self.messages.setdefault(message["channel_id"], {})[message["id"]] = message
        return message

    def visible(self, channel: str) -> Sequence[p.Payload]:
        """The public messages of the channel, oldest first."""
        kept = self.messages.get(channel, {})
        return [kept[i] for i in sorted(kept, key=int) if i not in self.private]
