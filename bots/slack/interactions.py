"""What people press, command and fill in, as data: the other half of Slack's dictionaries.

Pure, as `convert` is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bots.slack.convert import Json, need, reading
from core.types import ThreadKey


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
