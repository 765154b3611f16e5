"""Slack's payloads -> what happened, as data. Pure: no call is made here.

Slack's dictionaries end in this file. Text is as Slack sends it (``<@U1>``, ``&amp;``) until
`plain` makes it readable.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import unescape
from typing import Any, Literal, TypeAlias

from bots.platform import Incoming
from core.types import ThreadKey, Turn

Json: TypeAlias = Mapping[str, Any]
Command: TypeAlias = Literal["reset", "help", "privacy", "model", "stop"]

PLATFORM = "slack"
JOINER = "\u2060"
"""The word joiner cannot be seen; behind it, Slack reads no mention."""

_SAID = {None, "file_share", "thread_broadcast", "me_message", "bot_message"}
_TS = re.compile(r"\d+\.\d+")
_MENTION = re.compile(r"<@([A-Z0-9]+)(?:\|[^>]*)?>")
_COMMANDS: Mapping[str, Command] = {
    "reset": "reset",
    "リセット": "reset",
    "help": "help",
    "ヘルプ": "help",
    "privacy": "privacy",
    "プライバシー": "privacy",
    "model": "model",
    "モデル": "model",
    "stop": "stop",
    "停止": "stop",
}


class Malformed(Exception):
    """A payload that lacks what every such payload has; the message names the field."""


@dataclass(frozen=True, slots=True)
class Bot:
    """The app in one workspace."""

    team: str
    user: str
    bot_id: str
    name: str = "henji"


@dataclass(frozen=True, slots=True)
class Said:
    """Somebody wrote a message."""

    key: ThreadKey
    ts: str
    user: str
    text: str
    user_team: str
    bot_id: str | None = None
    mentioned: bool = False
    """The bot is named in the text."""
    others: frozenset[str] = frozenset()
    """Who else is named in it."""
    files: bool = False
    event_id: str = ""
    edited: str = ""
    """Slack's stamp of the edit that this text comes from."""

    @property
    def direct(self) -> bool:
        return self.key.channel.startswith("D")

    @property
    def inside(self) -> bool:
        """It stands in a thread that another message began."""
        return self.key.thread != self.ts


@dataclass(frozen=True, slots=True)
class Edited:
    """A person's message reads differently now."""

    said: Said
    newly_mentioned: bool


@dataclass(frozen=True, slots=True)
class Deleted:
    """A message is gone: a person's, or the bot's own."""

    key: ThreadKey
    ts: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """Slack's own Stop button was pressed."""

    key: ThreadKey
    user: str
    streams: tuple[str, ...] = ()


Happening: TypeAlias = Said | Edited | Deleted | Stopped


def happening(body: Json, bot: Bot) -> Happening | None:
    """What an event says has happened; None for what does not concern the bot."""
    with reading():
        return _happening(body, bot)


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Whatever stands where something else should is a malformed payload, not a fault of ours."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Malformed(type(error).__name__) from error


def _happening(body: Json, bot: Bot) -> Happening | None:
    event: Json = need(body, "event")
    if event.get("type") == "agent_session_stopped":
        streams = tuple(event.get("streaming_message_ts", ()))
        return Stopped(_key(event, bot, need(event, "thread_ts")), need(event, "user"), streams)
    match event.get("subtype"):
        case "message_changed":
            return _edited(body, event, bot)
        case "message_deleted":
            return _deleted(event, bot)
        case subtype if subtype in _SAID:
            return _said(body, event, need(event, "channel"), bot)
    return None


def _said(body: Json, message: Json, channel: str, bot: Bot) -> Said | None:
    user = message.get("user") or message.get("bot_id") or ""
    if not user or user == bot.user or message.get("bot_id") == bot.bot_id:
        return None
    text, ts = str(message.get("text") or ""), str(need(message, "ts"))
    if not _TS.fullmatch(ts):
        raise Malformed("ts")
    mentions = set(_MENTION.findall(text))
    team = str(message.get("user_team") or message.get("team") or bot.team)
    return Said(
        key=ThreadKey(PLATFORM, bot.team, channel, message.get("thread_ts") or ts),
        ts=ts,
        user=user,
        text=text,
        user_team=team,
        bot_id=message.get("bot_id"),
        mentioned=bot.user in mentions,
        others=frozenset(mentions - {bot.user}),
        files=bool(message.get("files")),
        event_id=str(body.get("event_id", "")),
        edited=str((message.get("edited") or {}).get("ts", "")),
    )


def _edited(body: Json, event: Json, bot: Bot) -> Edited | Deleted | None:
    message, before = need(event, "message"), event.get("previous_message") or {}
    if message.get("subtype") == "tombstone":  # so ends a message that has replies under it
        return Deleted(_key(event, bot, need(message, "ts")), need(message, "ts"))
    if not message.get("edited") or message.get("text") == before.get("text"):
        return None  # a link was unfurled, a reply was counted
    said = _said(body, message, need(event, "channel"), bot)
    if said is None:
        return None
    was_mentioned = bot.user in _MENTION.findall(str(before.get("text", "")))
    return Edited(said, said.mentioned and not was_mentioned)


def _deleted(event: Json, bot: Bot) -> Deleted:
    ts = need(event, "deleted_ts")
    thread = (event.get("previous_message") or {}).get("thread_ts") or ts
    return Deleted(_key(event, bot, thread), ts)


def ours_revoked(body: Json) -> bool:
    """Whether it was the bot's own token that was revoked, and not some person's."""
    with reading():
        return bool((need(body, "event").get("tokens") or {}).get("bot"))


def _key(event: Json, bot: Bot, thread: str) -> ThreadKey:
    return ThreadKey(PLATFORM, bot.team, need(event, "channel"), thread)


def need(body: Json, name: str) -> Any:
    value = body.get(name)
    if value is None or value == "":
        raise Malformed(name)
    return value


def earlier_turn(message: Json, bot: Bot, names: Mapping[str, str]) -> Turn | None:
    """A message of a thread's past as a turn; None for what is no part of a conversation."""
    if message.get("subtype") not in _SAID or not message.get("ts"):
        return None
    text, ts = str(message.get("text") or ""), str(message["ts"])
    if message.get("user") == bot.user:
        ours = (message.get("metadata") or {}).get("event_type") == REPLY_METADATA
        text = unescape(text).replace(JOINER, "")
        return Turn(ts, "assistant", bot.name, text, float(ts)) if ours and text else None
    author = message.get("user")
    if author is None or message.get("bot_id"):
        return None
    words = plain(text, bot, names)
    return Turn(ts, "user", author, words, float(ts), names.get(author, "")) if words else None


REPLY_METADATA = "henji_reply"
"""The type of the metadata that the bot's replies carry."""
QUESTION_METADATA = "henji_question"
"""The same of a question that was put by a command, in the person's stead."""


def incoming(
    said: Said, bot: Bot, names: Mapping[str, str], *, addressed: bool, note: Mapping[str, str]
) -> Incoming:
    """The message as the relay takes it."""
    words = plain(said.text, bot, names)
    name = names.get(said.user, "")
    return Incoming(
        thread=said.key,
        turn=Turn(said.ts, "user", said.user, words, float(said.ts), name),
        addressed=addressed,
        event_ids=(said.event_id,) if said.event_id and not said.edited else (),
        revision=said.edited,
        note=note,
        has_past=said.inside,
    )


def plain(text: str, bot: Bot, names: Mapping[str, str]) -> str:
    """Slack's markup as people read it: names for ids, the bot's own mention taken out."""
    text = re.sub(rf"<@{re.escape(bot.user)}(?:\|[^>]*)?>[ \t]?", "", text)
    text = _MENTION.sub(lambda match: f"@{names.get(match[1], match[1])}", text)
    text = re.sub(r"<#[A-Z0-9]+\|([^>]+)>", r"#\1", text)
    text = re.sub(r"<!subteam\^[A-Z0-9]+\|@?([^>]+)>", r"@\1", text)
    text = re.sub(r"<!(here|channel|everyone)(?:\|[^>]*)?>", r"@\1", text)
    text = re.sub(r"<!date\^[^|>]*\|([^>]+)>", r"\1", text)
    text = re.sub(r"<#([A-Z0-9]+)\|?>", r"#\1", text)  # a private channel has no name here
    text = re.sub(r"<(?:mailto:|tel:)[^|>]+\|([^>]+)>", r"\1", text)
    text = re.sub(r"<(https?://[^|>]+)\|([^>]+)>", _link, text)
    text = re.sub(r"<((?:https?|mailto):[^|>]+)>", r"\1", text)
    return unescape(text).strip()


def _link(match: re.Match[str]) -> str:
    address, label = match[1], match[2]
    return label if label in address else f"{label} ({address})"


def people_in(said: Said) -> frozenset[str]:
    """The ids whose names are wanted."""
    return said.others | ({said.user} if said.bot_id is None else frozenset())


def command_in(said: Said, bot: Bot) -> Command | None:
    """The command that is all there is in a message: slash commands do not work in threads."""
    return _COMMANDS.get(plain(said.text, bot, {}).strip(" 。.!！").lower())


# -- what people press, command and fill in ----------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pressed:
    """A button under a message, or on the home page."""

    action: str
    value: str
    user: str
    team: str
    trigger: str
    channel: str = ""
    message: str = ""
    """The ts of the message that the button stands under."""
    thread: str = ""
    response_url: str = ""
    chosen: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Opened:
    """Somebody looks at the app."""

    tab: str
    """``home`` or ``messages``."""
    user: str
    channel: str


@dataclass(frozen=True, slots=True)
class Commanded:
    """A slash command: its first word, and the rest."""

    command: str
    word: str
    rest: str
    user: str
    team: str
    channel: str
    trigger: str
    response_url: str = ""


@dataclass(frozen=True, slots=True)
class Submitted:
    """A modal that was sent."""

    callback: str
    data: str
    """What the modal was opened with."""
    user: str
    values: Mapping[str, str]
    """What was filled in, by the id of the input; what was left empty is not there."""


def thread_of(data: str) -> ThreadKey:
    """The thread that a modal is about."""
    with reading():
        return ThreadKey.parse(data)


def pressed(body: Json) -> Pressed:
    """A button, a choice or a message shortcut."""
    with reading():
        return _pressed(body)


def _pressed(body: Json) -> Pressed:
    action: Json = (body.get("actions") or [{}])[0]
    container: Json = body.get("container") or {}
    message: Json = body.get("message") or {}
    channel = (body.get("channel") or {}).get("id", "") or container.get("channel_id", "")
    chosen = {
        kind: str(action[kind])
        for kind in ("selected_user", "selected_conversation")
        if kind in action
    }
    ts = str(message.get("ts") or container.get("message_ts") or "")
    return Pressed(
        action=str(action.get("action_id") or body.get("callback_id") or ""),
        value=str(action.get("value") or (action.get("selected_option") or {}).get("value") or ""),
        user=need(need(body, "user"), "id"),
        team=str((body.get("team") or {}).get("id") or need(body, "user").get("team_id", "")),
        trigger=str(body.get("trigger_id", "")),
        channel=channel,
        message=ts,
        thread=str(message.get("thread_ts") or container.get("thread_ts") or ts),
        response_url=str(body.get("response_url", "")),
        chosen=chosen,
    )


def opened(body: Json) -> Opened:
    """Somebody looks at the app's home page, or at the conversation with it."""
    with reading():
        event = need(body, "event")
        user, channel = str(need(event, "user")), str(event.get("channel") or "")
        return Opened(str(event.get("tab") or ""), user, channel)


def commanded(body: Json) -> Commanded:
    """A slash command."""
    with reading():
        word, _, rest = str(body.get("text") or "").strip().partition(" ")
        return Commanded(
            command=str(need(body, "command")),
            word=word,
            rest=rest.strip(),
            user=str(need(body, "user_id")),
            team=str(need(body, "team_id")),
            channel=str(need(body, "channel_id")),
            trigger=str(body.get("trigger_id") or ""),
            response_url=str(body.get("response_url") or ""),
        )


def submitted(body: Json) -> Submitted:
    """A modal that was sent."""
    with reading():
        view = need(body, "view")
        return Submitted(
            callback=str(view.get("callback_id") or ""),
            data=str(view.get("private_metadata") or ""),
            user=str(need(need(body, "user"), "id")),
            values=_values(view),
        )


def _values(view: Json) -> Mapping[str, str]:
    values: Json = (view.get("state") or {}).get("values") or {}
    found: dict[str, str] = {}
    for inputs in values.values():
        for name, given in inputs.items():
            chosen = given.get("value") or given.get("selected_user")
            chosen = chosen or given.get("selected_conversation")
            if chosen:
                found[name] = str(chosen)
    return found
