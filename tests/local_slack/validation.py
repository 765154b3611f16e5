"""The arguments of each method, and the rules of blocks: every call is checked against these.

Arguments, scopes and tiers are from each method's reference page; the limits of blocks from the
Block Kit reference. The 13,200 characters over all blocks are an observation, not documented.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.local_slack.limits import STATUS_PER_MINUTE
from tests.local_slack.workspace import Json


@dataclass(frozen=True, slots=True)
class Rule:
    """One method: its arguments by type, those it must have, its scope and its tier."""

    arguments: Mapping[str, type | tuple[type, ...]]
    required: tuple[str, ...] = ()
    scope: str = ""
    tier: int = 4
    listed: dict[str, frozenset[str]] = field(default_factory=dict)
    """Arguments that take only these values."""
    may_be_empty: tuple[str, ...] = ()


_FLAG = (bool, str)  # a query string carries 1 and 0
_NUMBER = (int, str)
_WRITTEN: dict[str, type | tuple[type, ...]] = {
    "channel": str, "text": str, "blocks": list, "markdown_text": str, "attachments": list,
    "parse": str, "link_names": _FLAG, "as_user": _FLAG,
}  # fmt: skip
_POST = _WRITTEN | {"username": str, "icon_emoji": str, "icon_url": str, "thread_ts": str}
_STREAM: dict[str, type | tuple[type, ...]] = {
    "channel": str, "markdown_text": str, "chunks": list,
}  # fmt: skip
_SESSION = frozenset(("active", "processing", "suspended", "closed"))
_PAGED: dict[str, type | tuple[type, ...]] = {
    "channel": str, "cursor": str, "inclusive": _FLAG, "include_all_metadata": _FLAG,
    "latest": str, "limit": _NUMBER, "oldest": str,
}  # fmt: skip

RULES: dict[str, Rule] = {
    "auth.test": Rule({}, tier=600),
    "apps.connections.open": Rule({}, tier=600),
    "chat.postMessage": Rule(
        _POST
        | {"unfurl_links": _FLAG, "unfurl_media": _FLAG, "mrkdwn": _FLAG, "metadata": dict}
        | {"reply_broadcast": _FLAG, "container_id": str},
        ("channel",),
        "chat:write",
    ),
    "chat.postEphemeral": Rule(_POST | {"user": str}, ("channel", "user"), "chat:write", 4),
    "chat.update": Rule(
        _WRITTEN | {"ts": str, "file_ids": list, "metadata": dict, "reply_broadcast": _FLAG},
        ("channel", "ts"),
        "chat:write",
        3,
    ),
    "chat.delete": Rule(
        {"channel": str, "ts": str, "as_user": _FLAG}, ("channel", "ts"), "chat:write", 3
    ),
    "chat.startStream": Rule(
        _STREAM
        | {"thread_ts": str, "recipient_team_id": str, "recipient_user_id": str}
        | {"task_display_mode": str, "icon_emoji": str, "icon_url": str, "username": str},
        ("channel", "thread_ts"),
        "chat:write",
        2,
        {"task_display_mode": frozenset(("timeline", "plan"))},
    ),
    "chat.appendStream": Rule(_STREAM | {"ts": str}, ("channel", "ts"), "chat:write", 4),
    "chat.stopStream": Rule(
        _STREAM | {"ts": str, "blocks": list, "metadata": dict, "session_status": str},
        ("channel", "ts"),
        "chat:write",
        2,
        {"session_status": _SESSION},
    ),
    "agents.sessions.setStatus": Rule(
        {"channel_id": str, "status": str, "thread_ts": str, "title": str}
        | {"initiator_user_id": str, "icon_emoji": str, "icon_url": str, "username": str},
        ("channel_id", "status", "thread_ts"),
        "chat:write",
        3,
        {"status": _SESSION},
    ),
    "assistant.threads.setStatus": Rule(
        {"channel_id": str, "thread_ts": str, "status": str, "loading_messages": list}
        | {"icon_emoji": str, "icon_url": str, "username": str},
        ("channel_id", "thread_ts", "status"),
        "chat:write",
        STATUS_PER_MINUTE,
        may_be_empty=("status",),  # that takes it away
    ),
    "assistant.threads.setSuggestedPrompts": Rule(
        {"channel_id": str, "thread_ts": str, "title": str, "prompts": list},
        ("channel_id", "prompts"),
        "assistant:write",
        3,
    ),
    "conversations.history": Rule(_PAGED, ("channel",), "channels:history", 3),
    "conversations.replies": Rule(_PAGED | {"ts": str}, ("channel", "ts"), "channels:history", 3),
    "conversations.info": Rule(
        {"channel": str, "include_locale": _FLAG, "include_num_members": _FLAG},
        ("channel",),
        "channels:read",
        3,
    ),
    "conversations.members": Rule(
        {"channel": str, "cursor": str, "limit": _NUMBER}, ("channel",), "channels:read", 4
    ),
    "files.getUploadURLExternal": Rule(
        {"filename": str, "length": _NUMBER, "alt_txt": str, "snippet_type": str},
        ("filename", "length"),
        "files:write",
    ),
    "files.completeUploadExternal": Rule(
        {"files": list, "channel_id": str, "channels": str}
        | {"initial_comment": str, "thread_ts": str},
        ("files",),
        "files:write",
    ),
    "users.list": Rule(
        {"cursor": str, "limit": _NUMBER, "include_locale": _FLAG, "team_id": str},
        (),
        "users:read",
        2,
    ),
    "users.info": Rule({"user": str, "include_locale": _FLAG}, ("user",), "users:read", 4),
    "views.publish": Rule({"user_id": str, "view": dict, "hash": str}, ("user_id", "view")),
    "views.open": Rule(
        {"trigger_id": str, "interactivity_pointer": str, "view": dict}, ("trigger_id", "view")
    ),
}


UNPUBLISHED: Mapping[str, frozenset[str]] = {
    # in slack_sdk 3.47 (2026), not in the method references of 2026-08-20
    "chat.postMessage": frozenset({"container_id"}),
    "chat.stopStream": frozenset({"session_status"}),
}
"""Arguments of `RULES` that the method references lack."""


def faults(method: str, arguments: Json) -> Iterator[str]:
    """The faults in the arguments of a call: names, types and listed values."""
    rule = RULES[method]
    for name, value in arguments.items():
        if name == "team_id":  # Bolt's clients send it with every call, and Slack takes it
            continue
        wanted = rule.arguments.get(name)
        if wanted is None:
            yield f"{method} has no argument {name!r}"
        elif not isinstance(value, wanted):
            yield f"{method}: {name} is a {type(value).__name__}"
        elif name in rule.listed and value not in rule.listed[name]:
            yield f"{method}: {name} cannot be {value!r}"
    for name in rule.required:
        if arguments.get(name) in (None, "") and name not in rule.may_be_empty:
            yield f"{method} needs {name}"


_KNOWN_BLOCKS = {
    "markdown": {"text"},
    "section": {"text", "accessory", "fields", "expand"},
    "context": {"elements"},
    "actions": {"elements"},
    "context_actions": {"elements"},
    "header": {"text"},
    "divider": set[str](),
    "input": {"label", "element", "optional", "hint", "dispatch_action"},
}
_MOST_ELEMENTS = {"context": 10, "actions": 25, "context_actions": 5}
_IN_CONTEXT_ACTIONS = {"feedback_buttons", "icon_button"}
_IN_ACTIONS = {"button", "users_select", "conversations_select", "static_select", "overflow"}


def block_faults(blocks: Sequence[Json], most: int = 50) -> Iterator[str]:
    """The faults in the blocks of a message or, with another `most`, of a view."""
    if len(blocks) > most:
        yield f"{len(blocks)} blocks, where {most} are the most"
    seen: set[str] = set()
    for block in blocks:
        kind = block.get("type", "")
        if kind not in _KNOWN_BLOCKS:
            yield f"no block is called {kind!r}"
            continue
        extra = block.keys() - _KNOWN_BLOCKS[kind] - {"type", "block_id"}
        if extra:
            yield f"a {kind} block has no {sorted(extra)}"
        yield from _text_faults(kind, block)
        yield from _element_faults(kind, block, seen)
    if sum(len(b["text"]) for b in blocks if b.get("type") == "markdown") > 12_000:
        yield "more than 12,000 characters of Markdown"


_CHUNKS = {
    "markdown_text": ({"text"}, set[str]()),
    "plan_update": ({"title"}, set[str]()),
    "task_update": ({"id", "title", "status"}, {"details", "output", "sources"}),
}
"""The fields that each chunk must have, and those that it may have: slack_sdk 3.47."""
_TASK_STATUSES = frozenset(("pending", "in_progress", "complete", "error"))
TASK_CHARACTERS = 256
"""Of each text of a task or a plan (github vellum-ai/vellum-assistant pull 37146, 2026-07)."""


def chunk_faults(chunk: Json) -> Iterator[str]:
    """The faults in a chunk of a stream."""
    kind = chunk.get("type", "")
    if kind not in _CHUNKS:
        yield f"no chunk is called {kind!r}"
        return
    must, may = _CHUNKS[kind]
    given = chunk.keys() - {"type"}
    if not must <= given <= must | may:
        yield f"a {kind} has {sorted(given)}"
    if kind == "task_update" and chunk.get("status") not in _TASK_STATUSES:
        yield f"no task is {chunk.get('status')!r}"
    texts = [] if kind == "markdown_text" else [chunk[name] for name in given if name != "sources"]
    if any(not 1 <= len(text) <= TASK_CHARACTERS for text in texts):
        yield f"a text of a {kind} that is empty or over {TASK_CHARACTERS} characters"


def _text_faults(kind: str, block: Json) -> Iterator[str]:
    limits = {"markdown": 12_000, "section": 3_000, "header": 150}
    if kind == "input" and block["element"]["type"] == "static_select":
        yield from _option_faults(block["element"]["options"], MOST_IN_SELECT)
    text = block.get("text")
    written = text.get("text") if isinstance(text, dict) else text
    if kind in limits and kind != "section" and not written:
        yield f"a {kind} block without text"
    if written and len(written) > limits.get(kind, 3_000):
        yield f"{len(written)} characters in a {kind} block"
    if kind in {"section", "header"} and isinstance(text, str):
        yield f"the text of a {kind} block is an object"


def _element_faults(kind: str, block: Json, seen: set[str]) -> Iterator[str]:
    elements = block.get("elements", [])
    if kind in _MOST_ELEMENTS and not 1 <= len(elements) <= _MOST_ELEMENTS[kind]:
        yield f"{len(elements)} elements in a {kind} block"
    allowed = {"actions": _IN_ACTIONS, "context_actions": _IN_CONTEXT_ACTIONS}.get(kind)
    for element in elements:
        if allowed is not None and element.get("type") not in allowed:
            yield f"no {element.get('type')} in a {kind} block"
        if element.get("type") == "overflow":
            yield from _option_faults(element.get("options", []))
        action = element.get("action_id")
        if action in seen:
            yield f"the action id {action} stands twice"
        if action:
            seen.add(action)
        label = element.get("text")
        if element.get("type") == "button" and len(label["text"]) > 75:
            yield "more than 75 characters on a button"
        if len(str(element.get("value", ""))) > 2_000:
            yield "more than 2,000 characters as a button's value"


MOST_IN_SELECT = 100


def _option_faults(options: Sequence[Json], most: int = 5) -> Iterator[str]:
    if not 1 <= len(options) <= most:
        yield f"{len(options)} options, where {most} are the most"
    for option in options:
        if not 1 <= len(option["text"]["text"]) <= 75 or not 1 <= len(option["value"]) <= 150:
            yield "an option that is too long, or empty"


def total_length(value: object) -> int:
    """The characters of every text in blocks, for the limit over all of them."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return sum(total_length(item) for item in value)
    if isinstance(value, dict):
        return sum(total_length(v) for k, v in value.items() if k in {"text", "elements", "fields"})
    return 0
