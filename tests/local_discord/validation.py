"""Discord's rules for requests of a bot. A broken rule is reported as a sentence."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

SUPPRESS_EMBEDS, EPHEMERAL, SILENT = 1 << 2, 1 << 6, 1 << 12
CONTENT_LENGTH = 2000
"""The published schema says 4,000: that is for people who pay. Bots get 2,000."""
MESSAGE_FIELDS = frozenset(
    {"content", "components", "flags", "allowed_mentions", "embeds", "attachments", "files", "tts"}
)
CREATE_FIELDS = MESSAGE_FIELDS | {"nonce", "enforce_nonce", "message_reference"}
CALLBACKS = {
    2: frozenset({4, 5, 9}),
    3: frozenset({4, 5, 6, 7, 9}),
    4: frozenset({8}),
    5: frozenset({4, 5, 6, 7}),
}
"""Kind of interaction -> the callback types that may answer it."""


def message_faults(
    body: Mapping[str, Any], *, new: bool, interaction: bool = False
) -> Iterator[str]:
    """The broken rules of a message to create (`new`) or of an edit."""
    yield from _field_faults(body, CREATE_FIELDS if new and not interaction else MESSAGE_FIELDS)
    yield from _content_faults(body, new=new)
    yield from _flag_faults(int(body.get("flags") or 0), interaction=interaction and new)
    yield from component_faults(body.get("components") or [])
    yield from _mention_faults(body)
    nonce = body.get("nonce")
    if nonce is not None and len(str(nonce)) > 25:
        yield "a nonce has at most 25 characters"


def component_faults(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Rows of buttons: 5 rows of 5, custom ids of 100 characters, each once, labels of 80."""
    if len(rows) > 5:
        yield "more than 5 action rows"
    seen: set[str] = set()
    for row in rows:
        if row.get("type") != 1 or not 1 <= len(row.get("components", ())) <= 5:
            yield "an action row holds 1 to 5 components"
        for button in row.get("components", ()):
            yield from _button_faults(button, seen)


def modal_faults(data: Mapping[str, Any]) -> Iterator[str]:
    """A modal: a title of 45 characters, a custom id of 100, labels around 1 to 5 inputs."""
    if not 1 <= len(str(data.get("title", ""))) <= 45:
        yield "a modal's title has 1 to 45 characters"
    if not 1 <= len(str(data.get("custom_id", ""))) <= 100:
        yield "a modal's custom_id has 1 to 100 characters"
    labels = data.get("components") or []
    if not 1 <= len(labels) <= 5:
        yield "a modal holds 1 to 5 components"
    for label in labels:
        if label.get("type") != 18 or not 1 <= len(label.get("label", "")) <= 45:
            yield "an input is in a label of 1 to 45 characters"
        if len(label.get("description") or "") > 100:
            yield "a label's description has at most 100 characters"
        if label.get("component", {}).get("type") != 4:
            yield "a label holds one input"


def callback_faults(kind: int, body: Mapping[str, Any]) -> Iterator[str]:
    """The broken rules of the answer to an interaction of this kind."""
    answer, data = body.get("type"), body.get("data") or {}
    if answer not in CALLBACKS[kind]:
        yield f"callback type {answer} cannot answer an interaction of type {kind}"
    elif answer == 5 and (set(data) - {"flags"} or data.get("flags", 64) != EPHEMERAL):
        yield "a deferred answer carries only the ephemeral flag"
    elif answer == 6 and data:
        yield "a deferred update carries no data"
    elif answer == 9:
        yield from modal_faults(data)
    elif answer == 8:
        yield from _completion_faults(data.get("choices", []))
    elif answer in (4, 7):
        yield from message_faults(data, new=answer == 4, interaction=True)


def _completion_faults(choices: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Of a completion: 25 choices, names and values of 1 to 100 characters."""
    if len(choices) > 25:
        yield f"{len(choices)} choices, where 25 are the most"
    for choice in choices:
        if not 1 <= len(choice["name"]) <= 100 or not 1 <= len(str(choice["value"])) <= 100:
            yield "a choice that is too long, or empty"


def command_faults(commands: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Names of 1 to 32 small letters, descriptions of 1 to 100 characters, each once a type, in
    every language.
    """
    seen: set[tuple[int, str]] = set()
    for command in commands:
        kind, name = int(command.get("type", 1)), str(command["name"])
        if (kind, name) in seen:
            yield f"two commands are called {name}"
        seen.add((kind, name))
        yield from _named_faults(command, menu=kind != 1)
    menus = sum(kind == 3 for kind, _ in seen)
    if menus > 15 or len(seen) - menus > 100:
        yield "too many commands"


def _named_faults(command: Mapping[str, Any], *, menu: bool) -> Iterator[str]:
    names = [command["name"], *(command.get("name_localizations") or {}).values()]
    for name in names:
        if not 1 <= len(name) <= 32 or (not menu and not _is_name(name)):
            yield f"{name!r} is not a command's name"
    texts = (command.get("description_localizations") or {}).values()
    for text in [] if menu else [command.get("description", ""), *texts]:
        if not 1 <= len(text) <= 100:
            yield f"the description of {command['name']} has {len(text)} characters"
    options = command.get("options") or []
    if len(options) > 25:
        yield f"{command['name']} has more than 25 options"
    for language in ("", "ja"):
        names = [
            (option.get("name_localizations") or {}).get(language, option["name"])
            for option in options
        ]
        if len(set(names)) < len(names):
            yield f"two options of {command['name']} have one name"
    for option in options:
        yield from _named_faults(option, menu=False)


def _is_name(name: str) -> bool:
    r"""``^[-_'\p{L}\p{N}]+$`` in small letters, as developers/docs say of slash commands."""
    return name == name.lower() and all(
        letter in "-_'" or unicodedata.category(letter)[0] in "LN" for letter in name
    )


def _field_faults(body: Mapping[str, Any], known: frozenset[str]) -> Iterator[str]:
    for name in set(body) - known:
        yield f"{name} is not a field of a message here"


def _content_faults(body: Mapping[str, Any], *, new: bool) -> Iterator[str]:
    content = body.get("content")
    if content is not None and len(content) > CONTENT_LENGTH:
        yield f"content has {len(content)} characters, and {CONTENT_LENGTH} is the most"
    if (new or content is not None) and not str(content or "").strip():
        yield "a message cannot be empty"


def _flag_faults(flags: int, *, interaction: bool) -> Iterator[str]:
    allowed = SUPPRESS_EMBEDS | SILENT | (EPHEMERAL if interaction else 0)
    if flags & ~allowed:
        yield f"flags {flags} cannot be set here"


def _mention_faults(body: Mapping[str, Any]) -> Iterator[str]:
    """Not Discord's rule but this project's: nothing that a model writes may ping."""
    if body.get("content") is None:
        return
    allowed = body.get("allowed_mentions")
    if allowed is None or allowed.get("parse") or allowed.get("users") or allowed.get("roles"):
        yield "the message could ping"


def _button_faults(button: Mapping[str, Any], seen: set[str]) -> Iterator[str]:
    custom_id = str(button.get("custom_id", ""))
    if not 1 <= len(custom_id) <= 100:
        yield "a custom_id has 1 to 100 characters"
    if custom_id in seen:
        yield "a custom_id occurs twice in one message"
    seen.add(custom_id)
    if button.get("type") != 2 or button.get("style") not in range(1, 5):
        yield "that is no button"
    if len(button.get("label") or "") > 80 or not (button.get("label") or button.get("emoji")):
        yield "a button has a label of at most 80 characters, or an emoji"
