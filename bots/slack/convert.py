"""Slack's payloads -> typed events and interactions. Pure.

Slack's dictionaries end in this file. Text stays as Slack sends it (``<@U1>``, ``&amp;``) until
`readable` converts it.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from bots.attachments import File, linked_message
from bots.markdown import ZERO_WIDTH_SPACE
from bots.platform import Incoming
from bots.quotes import joined, of_bot
from bots.slack.extract import (
    MISSHAPEN,
    bot_name,
    carried_by,
    file_in,
    files_of,
    forwarded_files,
    own_words,
    words_of,
)
from bots.slack.markdown import dicts_in, read_markup, unescaped
from bots.text import without_address, without_code
from core.types import ThreadKey, Turn

Json: TypeAlias = Mapping[str, Any]
TextCommand: TypeAlias = Literal["reset", "help", "privacy", "usage", "model", "persona", "stop"]

PLATFORM = "slack"
WORD_JOINER = "\u2060"
"""An invisible character: Slack does not read a mention that has it in front."""
REPLY_METADATA = "henji_reply"
"""The metadata type of the bot's replies."""
NOTICE_METADATA = "henji_notice"
"""The metadata type of the bot's sentences in direct channels, which are not replies."""
QUESTION_METADATA = "henji_question"
"""The metadata type of a question that the bot posted for a person's command."""

_SAID = {None, "file_share", "thread_broadcast", "me_message", "bot_message"}
_TS = re.compile(r"\d+\.\d+")
_MENTION = re.compile(r"<@([A-Z0-9]+)(?:\|[^<>]*)?>")
_GROUP = re.compile(r"<!(?:subteam\^|here|channel|everyone)")
_COMMANDS: Mapping[str, TextCommand] = {
    "reset": "reset",
    "リセット": "reset",
    "help": "help",
    "ヘルプ": "help",
    "privacy": "privacy",
    "プライバシー": "privacy",
    "usage": "usage",
    "利用状況": "usage",
    "model": "model",
    "モデル": "model",
    "persona": "persona",
    "ペルソナ": "persona",
    "stop": "stop",
    "停止": "stop",
}

LINK = re.compile(
    r"https://[\w.-]+\.slack\.com/archives/(?P<channel>[CDG][A-Z0-9]+)/p(?P<at>\d{10})(?P<rest>\d{6})"
    r"(?:\?thread_ts=(?P<root>\d+\.\d+))?"
)
"""A link to a message, as Slack copies it; behind `p` is the message's ts."""


class Malformed(Exception):
    """A payload lacks a required field, which the error names."""


@dataclass(frozen=True, slots=True)
class Bot:
    """The app in one workspace."""

    team: str
    user: str
    bot_id: str
    name: str = "henji"
    enterprise: str = ""
    """The Enterprise Grid organization that the workspace is in."""
    url: str = ""
    """The workspace's address, with a slash at its end; empty: not known."""
    is_org_wide: bool = False
    """The organization installed the app as a whole, for many workspaces."""
    workspace: str = ""
    """Its name."""


@dataclass(frozen=True, slots=True)
class MessagePosted:
    """A new message."""

    key: ThreadKey
    ts: str
    user: str
    text: str
    user_team: str
    """The author's workspace, or with Enterprise Grid the id of their organization."""
    context_team: str = ""
    """The workspace in which the bot sees the message."""
    bot_id: str | None = None
    mentioned: bool = False
    """The bot is named in the text."""
    others: frozenset[str] = frozenset()
    """The other users named in the text."""
    groups: bool = False
    """Groups of users are named there, or everyone who is here."""
    files: tuple[File, ...] = ()
    carried: str = ""
    """Its attached text, in Slack's markup: forwarded messages, attachments."""
    bot_name: str = ""
    """The bot's name in this message."""
    event_id: str = ""
    edited: str = ""
    """Slack's timestamp of the edit that made this text; empty for the first text."""

    @property
    def to_others(self) -> bool:
        """Other people are named."""
        return bool(self.others) or self.groups

    @property
    def direct(self) -> bool:
        return self.key.channel.startswith("D")

    @property
    def inside(self) -> bool:
        """The message is a reply in a thread, not its first message."""
        return self.key.thread != self.ts


@dataclass(frozen=True, slots=True)
class MessageEdited:
    """A message has a new text."""

    posted: MessagePosted
    was_mentioned: bool
    """The bot was named in the text before."""

    @property
    def newly_mentioned(self) -> bool:
        return self.posted.mentioned and not self.was_mentioned


@dataclass(frozen=True, slots=True)
class MessageDeleted:
    """A message was deleted: a person's, or the bot's own."""

    key: ThreadKey
    ts: str


@dataclass(frozen=True, slots=True)
class SessionStopped:
    """Slack's own Stop button was pressed."""

    key: ThreadKey
    user: str
    streams: tuple[str, ...] = ()


SlackEvent: TypeAlias = MessagePosted | MessageEdited | MessageDeleted | SessionStopped


def parse_event(body: Json, bot: Bot) -> SlackEvent | None:
    """The event as data; None if it does not concern the bot."""
    with parsing():
        return _parse_event(body, bot)


@contextlib.contextmanager
def parsing() -> Iterator[None]:
    """Turn the errors of reading a wrongly shaped payload into Malformed."""
    try:
        yield
    except MISSHAPEN as error:
        raise Malformed(type(error).__name__) from error


def _parse_event(body: Json, bot: Bot) -> SlackEvent | None:
    event: Json = required(body, "event")
    if event.get("type") == "agent_session_stopped":
        streams = tuple(event.get("streaming_message_ts", ()))
        return SessionStopped(
            _key(event, bot, required(event, "thread_ts")), required(event, "user"), streams
        )
    match event.get("subtype"):
        case "message_changed":
            return _edited(body, event, bot)
        case "message_deleted":
            return _deleted(event, bot)
        case subtype if subtype in _SAID:
            return _posted(body, event, required(event, "channel"), bot)
    return None


def _posted(body: Json, message: Json, channel: str, bot: Bot) -> MessagePosted | None:
    user = message.get("user") or message.get("bot_id") or ""
    if not user or user == bot.user or message.get("bot_id") == bot.bot_id:
        return None
    text, ts = words_of(message), str(required(message, "ts"))
    if not _TS.fullmatch(ts):
        raise Malformed("ts")
    mentions = set(_MENTION.findall(text))
    team = team_of(message, bot)
    return MessagePosted(
        key=ThreadKey(PLATFORM, bot.team, channel, message.get("thread_ts") or ts),
        ts=ts,
        user=user,
        text=text,
        user_team=team,
        context_team=str(body.get("context_team_id") or body.get("team_id") or bot.team),
        bot_id=message.get("bot_id"),
        mentioned=bot.user in mentions,
        others=frozenset(mentions - {bot.user}),
        groups=bool(_GROUP.search(text)),
        files=files_of(message),
        carried=carried_by(message),
        bot_name=bot_name(message),
        event_id=str(body.get("event_id", "")),
        edited=str((message.get("edited") or {}).get("ts", "")),
    )


def links_in(text: str) -> tuple[File, ...]:
    """The messages that a text in Slack's markup links to, outside code."""
    seen = without_code(text)
    found = {match[0]: f"{match['channel']}/p{match['at']}{match['rest']}"
             for match in LINK.finditer(seen)}  # fmt: skip
    return tuple(linked_message(name, address) for address, name in found.items())


def _edited(body: Json, event: Json, bot: Bot) -> MessageEdited | MessageDeleted | None:
    message, before = required(event, "message"), event.get("previous_message") or {}
    if message.get("subtype") == "tombstone":  # a deleted message that has replies
        return MessageDeleted(_key(event, bot, required(message, "ts")), required(message, "ts"))
    other_files = _existing_files(message) != _existing_files(before)
    reworded = bool(message.get("edited")) and _whole_text_of(message) != _whole_text_of(before)
    if not (reworded or other_files):
        return None  # an unfurled link or a new reply count
    posted = _posted(body, message, required(event, "channel"), bot)
    if posted is None:
        return None
    files = tuple(map(file_in, _existing_files(message).values()))
    stamp = str(required(event, "ts")) if other_files else posted.edited  # files have none
    posted = replace(posted, files=files, edited=stamp)
    was_mentioned = bot.user in _MENTION.findall(words_of(before))
    return MessageEdited(posted, was_mentioned)


def _existing_files(message: Json) -> Mapping[str, Json]:
    """The files of a message by their ids, without deleted ones."""
    found = (*dicts_in(message.get("files")), *forwarded_files(message))
    return {str(file.get("id")): file for file in found if file.get("mode") != "tombstone"}


def _whole_text_of(message: Json) -> tuple[str, str]:
    return words_of(message), carried_by(message)


def _deleted(event: Json, bot: Bot) -> MessageDeleted:
    ts = required(event, "deleted_ts")
    thread = (event.get("previous_message") or {}).get("thread_ts") or ts
    return MessageDeleted(_key(event, bot, thread), ts)


def uninstalled_at(body: Json) -> float | None:
    """When the app was removed from the workspace; None for other events. A person's revoked token
    does not count."""
    with parsing():
        event = required(body, "event")
        revoked = event.get("type") == "tokens_revoked" and (event.get("tokens") or {}).get("bot")
        left = event.get("type") == "app_uninstalled" or revoked
        return float(body.get("event_time") or math.inf) if left else None


def _key(event: Json, bot: Bot, thread: str) -> ThreadKey:
    return ThreadKey(PLATFORM, bot.team, required(event, "channel"), thread)


def workspace_of(body: Json, told: str | None) -> str:
    """The workspace of an event. `told`: by its authorization, which differs from the body in a
    shared channel, and is None if an organization installed the app."""
    with parsing():
        event: Json = body.get("event") or {}
        found = (told, body.get("context_team_id"), body.get("team_id"), event.get("team"))
        return str(next(filter(None, found), ""))


def required(body: Json, name: str) -> Any:
    value = body.get(name)
    if value is None or value == "":
        raise Malformed(name)
    return value


def earlier(
    message: Json, thread: ThreadKey, bot: Bot, names: Mapping[str, str], *, stranger: bool
) -> Incoming | None:
    """An earlier message of a thread; None if it is not part of the conversation."""
    turn = _earlier_turn(message, bot, names)
    if turn is None:
        return None
    files = files_of(message) if turn.role == "user" else ()
    return Incoming(thread, turn, addressed=False, stranger=stranger, files=files)


def link_to(bot: Bot, channel: str, ts: str, thread: str = "") -> str:
    """The address of a message."""
    if not bot.url:
        place = f"team={bot.team}&channel={channel}&message_ts={ts}"
        return f"https://slack.com/app_redirect?{place}"
    inside = f"?thread_ts={thread}&cid={channel}" if thread and thread != ts else ""
    return f"{bot.url}archives/{channel}/p{ts.replace('.', '')}{inside}"


def team_of(message: Json, bot: Bot) -> str:
    """The author's workspace, or their organization."""
    return str(message.get("user_team") or message.get("team") or bot.team)


def _earlier_turn(message: Json, bot: Bot, names: Mapping[str, str]) -> Turn | None:
    if message.get("subtype") not in _SAID or not message.get("ts"):
        return None
    text, ts = words_of(message), str(message["ts"])
    if message.get("user") == bot.user:
        text = own_words(message)
        ours = (message.get("metadata") or {}).get("event_type") == REPLY_METADATA
        text = unescaped(text).replace(WORD_JOINER, "").replace(ZERO_WIDTH_SPACE, "")
        return Turn(ts, "assistant", bot.name, text, float(ts)) if ours and text else None
    author = message.get("user") or message.get("bot_id")
    if author is None:
        return None
    by_bot = (bot_name(message) or names.get(author, author)) if message.get("bot_id") else ""
    words = _whole(text, carried_by(message), by_bot, bot, names)
    if not words and not files_of(message):
        return None
    return Turn(ts, "user", author, words, float(ts), by_bot or names.get(author, ""))


def _whole(text: str, carried: str, by_bot: str, bot: Bot, names: Mapping[str, str]) -> str:
    """A message's words and attached text as the model reads them; a bot's with its name."""
    said = joined([readable(text, bot, names), readable(carried, bot, names)])
    return of_bot(by_bot, said) if by_bot else said


def incoming(
    posted: MessagePosted,
    bot: Bot,
    names: Mapping[str, str],
    *,
    addressed: bool,
    stranger: bool,
    note: Mapping[str, str],
) -> Incoming:
    """The message as an `Incoming` for the relay."""
    label = "" if addressed else bot_label(posted, names)  # a bot that may ask is as a person
    words = _whole(posted.text, posted.carried, label, bot, names)
    name = bot_label(posted, names) or names.get(posted.user, "")
    return Incoming(
        thread=posted.key,
        turn=Turn(posted.ts, "user", posted.user, words, float(posted.ts), name),
        addressed=addressed,
        event_ids=(posted.event_id,) if posted.event_id and not posted.edited else (),
        revision=posted.edited,
        note=note,
        has_past=posted.inside,
        stranger=stranger,
        files=pointed_at(posted),
        can_vote=True,
    )


def pointed_at(posted: MessagePosted) -> tuple[File, ...]:
    """The files of a message, and the messages that its words link to."""
    return (*posted.files, *links_in(posted.text))


def bot_label(posted: MessagePosted, names: Mapping[str, str]) -> str:
    """The name of the bot that wrote it; empty for a person's message."""
    if posted.bot_id is None:
        return ""
    return posted.bot_name or names.get(posted.user, posted.user)


def whole_text(posted: MessagePosted, bot: Bot, names: Mapping[str, str]) -> str:
    """All text of a message, except its files."""
    return _whole(posted.text, posted.carried, bot_label(posted, names), bot, names)


def readable(text: str, bot: Bot, names: Mapping[str, str]) -> str:
    """Slack's markup as people read it: names for ids, without the bot's own mention."""
    text = _without_bot(text, bot)
    text = _MENTION.sub(lambda match: f"@{names.get(match[1], match[1])}", text)
    return unescaped(read_markup(text)).strip()


def _without_bot(text: str, bot: Bot) -> str:
    """A text without the bot's own mention."""
    parts: list[str] = []
    at, begun = 0, False
    for found in _MENTION.finditer(text):
        if found[1] == bot.user:
            before, at = without_address(text, text[at : found.start()], found.end(), begun=begun)
            parts.append(before)
            begun = begun or bool(before.strip())
    return "".join([*parts, text[at:]])


def ids(text: str) -> str:
    """Ids for the mentions of people in a list that a person typed."""
    return _MENTION.sub(r" \1 ", text)


def is_person(user: str) -> bool:
    """Whether an id is of a user; ids of bots begin with B."""
    return user.startswith(("U", "W"))


def user_ids_in(posted: MessagePosted) -> frozenset[str]:
    """The users whose names the message needs."""
    return posted.others | ({posted.user} if posted.bot_id is None else frozenset())


def text_command(posted: MessagePosted, bot: Bot) -> TextCommand | None:
    """The command that is the whole text: slash commands do not work in threads."""
    return _COMMANDS.get(readable(posted.text, bot, {}).strip(" 。.!！").lower())


# -- interactions: buttons, commands, modals ----------------------------------------------------


@dataclass(frozen=True, slots=True)
class Press:
    """A press of a button, a menu entry or a message shortcut."""

    action: str
    value: str
    user: str
    team: str
    trigger: str
    at: str = ""
    """Slack's timestamp of the press: it tells two presses apart."""
    channel: str = ""
    message: str = ""
    """The ts of the message with the button."""
    thread: str = ""
    response_url: str = ""
    user_team: str = ""
    """The workspace that the user is a member of."""
    chosen: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AppOpened:
    """A user opened the app."""

    tab: str
    """``home`` or ``messages``."""
    user: str
    channel: str


@dataclass(frozen=True, slots=True)
class SlashCommand:
    """A slash command, its text split into the first word and the rest."""

    command: str
    word: str
    rest: str
    user: str
    team: str
    channel: str
    trigger: str
    response_url: str = ""


@dataclass(frozen=True, slots=True)
class ModalSubmission:
    """A submitted modal."""

    id: str
    """Slack's trigger, which is unique."""
    callback: str
    data: str
    """The `data` that the modal was opened with."""
    user: str
    values: Mapping[str, str]
    """The values by the name of their input, without empty ones."""
    user_team: str = ""


def thread_of(data: str) -> ThreadKey:
    """The thread that a modal's data names."""
    with parsing():
        return ThreadKey.parse(data)


def parse_press(body: Json) -> Press:
    """The press that a payload describes."""
    with parsing():
        return _parse_press(body)


def _parse_press(body: Json) -> Press:
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
    return Press(
        action=str(action.get("action_id") or body.get("callback_id") or ""),
        value=str(action.get("value") or (action.get("selected_option") or {}).get("value") or ""),
        user=required(required(body, "user"), "id"),
        team=str((body.get("team") or {}).get("id") or required(body, "user").get("team_id", "")),
        trigger=str(body.get("trigger_id", "")),
        at=str(action.get("action_ts") or body.get("action_ts") or ""),
        channel=channel,
        message=ts,
        thread=str(message.get("thread_ts") or container.get("thread_ts") or ts),
        response_url=str(body.get("response_url", "")),
        user_team=str(required(body, "user").get("team_id") or ""),
        chosen=chosen,
    )


def parse_app_opened(body: Json) -> AppOpened:
    """The `app_home_opened` event as data."""
    with parsing():
        event = required(body, "event")
        user, channel = str(required(event, "user")), str(event.get("channel") or "")
        return AppOpened(str(event.get("tab") or ""), user, channel)


def parse_command(body: Json) -> SlashCommand:
    """The slash command that a payload describes."""
    with parsing():
        word, rest = [*str(body.get("text") or "").split(maxsplit=1), "", ""][:2]
        return SlashCommand(
            command=str(required(body, "command")),
            word=word,
            rest=rest.strip(),
            user=str(required(body, "user_id")),
            team=str(required(body, "team_id")),
            channel=str(required(body, "channel_id")),
            trigger=str(body.get("trigger_id") or ""),
            response_url=str(body.get("response_url") or ""),
        )


def parse_submission(body: Json) -> ModalSubmission:
    """The submitted modal that a payload describes."""
    with parsing():
        view = required(body, "view")
        return ModalSubmission(
            id=str(body.get("trigger_id") or required(view, "id")),
            callback=str(view.get("callback_id") or ""),
            data=str(view.get("private_metadata") or ""),
            user=str(required(required(body, "user"), "id")),
            values=_values(view),
            user_team=str(required(body, "user").get("team_id") or ""),
        )


def _values(view: Json) -> Mapping[str, str]:
    values: Json = (view.get("state") or {}).get("values") or {}
    found: dict[str, str] = {}
    for inputs in values.values():
        for name, given in inputs.items():
            chosen = given.get("value") or given.get("selected_user")
            chosen = chosen or given.get("selected_conversation")
            chosen = chosen or (given.get("selected_option") or {}).get("value")
            if chosen:
                found[name] = str(chosen)
    return found
