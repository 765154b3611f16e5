"""The schema of an app's manifest: the names of its parts, and their lengths.

After Slack's published schema (slackapi/manifest-schema, version 1.0.0), in words of our own, as
far as a chat app needs it. `agent_view` is younger than that: its parts are as apps in use have
them, and that its description holds 300 characters is a guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Text:
    """A text of so many characters, with a pattern."""

    least: int
    most: int
    pattern: str = ""


@dataclass(frozen=True, slots=True)
class Many:
    """A list of so many alike."""

    least: int
    most: int
    each: Shape


@dataclass(frozen=True, slots=True)
class Parts:
    """An object, with its required and its optional fields."""

    must: Mapping[str, Shape]
    may: Mapping[str, Shape]


Shape: TypeAlias = "type | Text | Many | Parts"

_ADDRESS = Text(0, 3500, r"^https?://")
_SCOPES = Many(0, 255, Text(0, 50))
_PROMPT = Parts({"title": str, "message": str}, {})
_FEATURES = Parts(
    {},
    {
        "app_home": Parts(
            {},
            {
                "home_tab_enabled": bool,
                "messages_tab_enabled": bool,
                "messages_tab_read_only_enabled": bool,
            },
        ),
        "bot_user": Parts({"display_name": Text(1, 80)}, {"always_online": bool}),
        "agent_view": Parts(
            {"agent_description": Text(1, 300)}, {"suggested_prompts": Many(0, 4, _PROMPT)}
        ),
        "shortcuts": Many(
            1,
            10,
            Parts(
                {
                    "name": Text(1, 24),
                    "type": Text(6, 7, r"^(message|global)$"),
                    "callback_id": Text(1, 255),
                    "description": Text(1, 150),
                },
                {},
            ),
        ),
        "slash_commands": Many(
            1,
            50,
            Parts(
                {"command": Text(2, 32, "^/"), "description": Text(1, 2000)},
                {
                    "url": Text(0, 3000, r"^https?://"),
                    "usage_hint": Text(1, 1000),
                    "should_escape": bool,
                },
            ),
        ),
    },
)
_SETTINGS = Parts(
    {},
    {
        "event_subscriptions": Parts(
            {}, {"request_url": _ADDRESS, "bot_events": Many(0, 100, Text(0, 50))}
        ),
        "interactivity": Parts({"is_enabled": bool}, {"request_url": _ADDRESS}),
        "org_deploy_enabled": bool,
        "socket_mode_enabled": bool,
        "token_rotation_enabled": bool,
    },
)
MANIFEST = Parts(
    {"display_information": Parts({"name": Text(1, 35)}, {"description": Text(1, 140)})},
    {
        "_metadata": Parts({}, {"major_version": int, "minor_version": int}),
        "features": _FEATURES,
        "oauth_config": Parts(
            {},
            {
                "redirect_urls": Many(0, 1000, Text(0, 2500)),
                "scopes": Parts({}, {"bot": _SCOPES, "user": _SCOPES}),
            },
        ),
        "settings": _SETTINGS,
    },
)


def manifest_faults(value: Any, shape: Shape = MANIFEST, where: str = "") -> Iterator[str]:
    """The faults that Slack would refuse, and their places."""
    match shape:
        case Text(least, most, pattern):
            if not isinstance(value, str) or not least <= len(value) <= most:
                yield f"{where} is no text of {least} to {most} characters"
            elif not re.search(pattern, value):
                yield f"{where} does not look like {pattern}"
        case Many(least, most, each):
            if not isinstance(value, list) or not least <= len(value) <= most:
                yield f"{where} is no list of {least} to {most}"
            else:
                for item in value:
                    yield from manifest_faults(item, each, where)
        case Parts(must, may):
            yield from _part_faults(value, must, may, where)
        case kind:
            if not isinstance(value, kind):
                yield f"{where} is no {kind.__name__}"


def _part_faults(
    value: Any, must: Mapping[str, Shape], may: Mapping[str, Shape], where: str
) -> Iterator[str]:
    for name in must.keys() - value.keys():
        yield f"{where} lacks {name}"
    for name, part in value.items():
        place = f"{where}.{name}".removeprefix(".")
        if name in must or name in may:
            yield from manifest_faults(part, must.get(name) or may[name], place)
        else:
            yield f"{place} is unknown"
