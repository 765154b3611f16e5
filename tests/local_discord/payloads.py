"""Discord's objects as JSON: as small as discord.py lets them be."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

Payload: TypeAlias = dict[str, Any]

EPOCH_MS = 1_420_070_400_000
"""Discord's ids count milliseconds from the first second of 2015."""
TEXT, DM, THREAD = 0, 1, 11
BOT_ID, APP_ID = "900000000000000001", "900000000000000002"
EVERYTHING = str((1 << 53) - 1)
ADMINISTRATOR, MANAGE_THREADS = 1 << 3, 1 << 34
ORDINARY = str(int(EVERYTHING) & ~ADMINISTRATOR & ~MANAGE_THREADS)
"""The permissions of everybody, including the bot."""

_counter = itertools.count(1)


def snowflake(at: datetime | None = None) -> str:
    """An id of the moment `at` (now, by default): later ids are larger."""
    moment = (at or datetime.now(UTC)).timestamp()
    return str((int(moment * 1000) - EPOCH_MS << 22) + next(_counter) % (1 << 22))


def when(ident: str) -> str:
    """The moment an id was made, as Discord prints it."""
    milliseconds = (int(ident) >> 22) + EPOCH_MS
    return (datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=milliseconds)).isoformat()


def nearly_over() -> str:
    """An interaction's id of nearly fourteen minutes ago, when its token has a minute to live."""
    return snowflake(datetime.now(UTC) - timedelta(minutes=13, seconds=59))


def user(ident: str, name: str, *, bot: bool = False) -> Payload:
    return {
        "id": ident,
        "username": name.lower(),
        "global_name": name,
        "discriminator": "0",
        "avatar": None,
        "bot": bot,
    }


def member(roles: Sequence[str] = ()) -> Payload:
    return {
        "roles": list(roles),
        "joined_at": "2026-01-01T00:00:00+00:00",
        "deaf": False,
        "mute": False,
        "flags": 0,
    }


def role(ident: str, name: str, permissions: str = ORDINARY) -> Payload:
    return {
        "id": ident,
        "name": name,
        "color": 0,
        "colors": {"primary_color": 0, "secondary_color": None, "tertiary_color": None},
        "hoist": False,
        "position": 0,
        "permissions": permissions,
        "managed": False,
        "mentionable": False,
        "flags": 0,
    }


def channel(ident: str, name: str, guild: str) -> Payload:
    return {
        "id": ident,
        "type": TEXT,
        "guild_id": guild,
        "name": name,
        "position": 0,
        "permission_overwrites": [],
        "parent_id": None,
        "nsfw": False,
    }


def thread(ident: str, name: str, guild: str, parent: str, owner: str) -> Payload:
    return {
        "id": ident,
        "type": THREAD,
        "guild_id": guild,
        "parent_id": parent,
        "owner_id": owner,
        "name": name,
        "last_message_id": None,
        "message_count": 0,
        "member_count": 1,
        "rate_limit_per_user": 0,
        "thread_metadata": {
            "archived": False,
            "auto_archive_duration": 1440,
            "archive_timestamp": when(ident),
            "locked": False,
            "create_timestamp": when(ident),
        },
    }


def direct(ident: str, recipient: Payload) -> Payload:
    return {"id": ident, "type": DM, "recipients": [recipient], "last_message_id": None}


def guild(
    ident: str,
    *,
    channels: Sequence[Payload] = (),
    roles: Sequence[Payload] = (),
    threads: Sequence[Payload] = (),
    bot: Payload | None = None,
) -> Payload:
    me = {**member([r["id"] for r in roles]), "user": bot or user(BOT_ID, "Henji", bot=True)}
    return {
        "id": ident,
        "name": "A team",
        "owner_id": "1",
        "afk_timeout": 60,
        "verification_level": 0,
        "default_message_notifications": 0,
        "explicit_content_filter": 0,
        "mfa_level": 0,
        "nsfw_level": 0,
        "premium_tier": 0,
        "system_channel_flags": 0,
        "preferred_locale": "en-US",
        "features": [],
        "roles": [role(ident, "@everyone"), *roles],
        "emojis": [],
        "stickers": [],
        "channels": list(channels),
        "threads": list(threads),
        "members": [me],
        "member_count": 2,
        "voice_states": [],
        "presences": [],
        "stage_instances": [],
        "guild_scheduled_events": [],
        "large": False,
        "unavailable": False,
        "joined_at": "2026-01-01T00:00:00+00:00",
    }


def message(
    ident: str,
    channel_id: str,
    author: Payload,
    content: str,
    *,
    guild_id: str | None = None,
    mentions: Sequence[Payload] = (),
    answers: Payload | None = None,
    **more: Any,
) -> Payload:
    """A message; `answers` is the one that it is a reply to."""
    body: Payload = {
        "id": ident,
        "channel_id": channel_id,
        "author": author,
        "content": content,
        "timestamp": when(ident),
        "edited_timestamp": None,
        "tts": False,
        "mention_everyone": False,
        "mentions": list(mentions),
        "mention_roles": [],
        "attachments": [],
        "embeds": [],
        "components": [],
        "pinned": False,
        "type": 0,
        "flags": 0,
    }
    if guild_id:
        body |= {"guild_id": guild_id, "member": member()}
    if answers:
        body |= {"type": 19, "message_reference": reference(answers), "referenced_message": answers}
    return body | more


def reference(to: Mapping[str, Any]) -> Payload:
    return {"type": 0, "message_id": to["id"], "channel_id": to["channel_id"]}


def interaction(
    kind: int,
    data: Payload,
    channel_payload: Payload,
    person: Payload,
    *,
    guild_id: str | None = None,
    permissions: str = EVERYTHING,
    locale: str = "en-US",
    **more: Any,
) -> Payload:
    """`kind`: 2 a command, 3 a component, 5 a modal."""
    ident = snowflake()
    body: Payload = {
        "id": ident,
        "application_id": APP_ID,
        "type": kind,
        "token": f"token-of-{ident}",
        "version": 1,
        "data": data,
        "channel_id": channel_payload["id"],
        "channel": channel_payload,
        "locale": locale,
        "entitlements": [],
        "authorizing_integration_owners": {"0": guild_id or "0"},
        "context": 0 if guild_id else 1,
        "attachment_size_limit": 10_485_760,
        "app_permissions": ORDINARY,
    }
    if guild_id:
        mine = {**member(), "user": person, "permissions": permissions}
        body |= {"guild_id": guild_id, "guild_locale": "ja", "member": mine}
    else:
        body["user"] = person
    return body | more
