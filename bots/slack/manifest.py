"""The app's manifest, with only the scopes and events in use."""

from __future__ import annotations

import json
import re
from typing import Any

import click

from bots.cli.common import example
from bots.strings import say
from core.errors import UsageError

SCOPES = (
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
    "mpim:history",
    "mpim:read",
    "users:read",
)
LATER_SCOPES = {
    "channels:read": "the names of channels, for system prompts, links and summaries, are not read",
    "files:read": "files are not read",
    "files:write": "long replies are not sent as files",
    "groups:read": "the names of private channels, for the same, are not read",
    "im:read": "links to messages of channels, in direct messages, are not read",
    "mpim:history": "group direct messages are not read",
    "mpim:read": "links and summaries in group direct messages are not read",
}
"""Scopes that apps of earlier versions lack: these work without them, in fewer places."""
EVENTS = (
    "agent_session_stopped",
    "app_home_opened",
    "app_mention",
    "message.channels",
    "message.groups",
    "message.im",
    "message.mpim",
)
PROMPTS = ("summary", "draft", "ideas")
"""The suggested prompts: keys of sentences."""
ASK_SHORTCUT = "henji_ask"
RESET_SHORTCUT = "henji_reset_thread"
SUMMARY_SHORTCUT = "henji_summary"
BRANCH_SHORTCUT = "henji_branch"
SHORTCUTS = {
    ASK_SHORTCUT: "shortcut_ask",
    SUMMARY_SHORTCUT: "shortcut_summary",
    BRANCH_SHORTCUT: "shortcut_branch",
    RESET_SHORTCUT: "shortcut_reset",
}
"""The entries of a message's menu, and the sentences that name them."""
EVENTS_OF_MANY = ("app_uninstalled", "tokens_revoked")


def document(
    name: str = "Henji",
    locale: str = "en",
    url: str | None = None,
    command: str = "/henji",
    *,
    many: bool = False,
) -> dict[str, Any]:
    """The manifest as JSON. `url`: the bot's address for HTTP mode; None: Socket Mode.

    `many`: for several workspaces, by OAuth. Only then are tokens rotated: a token in the settings
    would expire after twelve hours, and rotation cannot be turned off again.
    """
    if many and not url:
        raise UsageError("an app for several workspaces needs --url: they are told to come there")
    events = f"{url.rstrip('/')}/slack/events" if url else None
    return {
        "_metadata": {"major_version": 1},
        "display_information": {"name": name, "description": say("app_description", locale)},
        "features": _features(name, locale, events, command),
        "oauth_config": _oauth(url if many else None),
        "settings": _settings(events, many=many),
    }


def _features(name: str, locale: str, events: str | None, command: str) -> dict[str, Any]:
    slash = {
        "command": command,
        "description": say("app_description", locale),
        "usage_hint": "ask … | catchup … | usage | reset | help | privacy | model | persona",
        "should_escape": False,
    }
    return {
        "app_home": {
            "home_tab_enabled": True,
            "messages_tab_enabled": True,
            "messages_tab_read_only_enabled": False,
        },
        "bot_user": {"display_name": _display_name(name), "always_online": True},
        "agent_view": {
            "agent_description": say("app_description", locale),
            "suggested_prompts": [
                {
                    "title": say(f"prompt_{prompt}_title", locale),
                    "message": say(f"prompt_{prompt}", locale),
                }
                for prompt in PROMPTS
            ],
        },
        "shortcuts": [_shortcut(callback, key, locale) for callback, key in SHORTCUTS.items()],
        "slash_commands": [slash | ({"url": events} if events else {})],
    }


def _display_name(name: str) -> str:
    """The name that people type after the @: Slack takes a-z, 0-9 and three signs."""
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-") or "henji"


def _shortcut(callback: str, key: str, locale: str) -> dict[str, str]:
    label = say(key, locale)
    return {"name": label, "type": "message", "callback_id": callback, "description": label}


def _oauth(url: str | None) -> dict[str, Any]:
    redirect = {"redirect_urls": [f"{url.rstrip('/')}/slack/oauth_redirect"]} if url else {}
    return {"scopes": {"bot": list(SCOPES)}, **redirect}


def _settings(events: str | None, *, many: bool) -> dict[str, Any]:
    request = {"request_url": events} if events else {}
    bot_events = sorted((*EVENTS, *EVENTS_OF_MANY)) if many else list(EVENTS)
    return {
        "event_subscriptions": {"bot_events": bot_events, **request},
        "interactivity": {"is_enabled": True, **request},
        "org_deploy_enabled": False,
        "socket_mode_enabled": events is None,
        "token_rotation_enabled": many,
    }


def _check(name: str, slash: str, url: str | None) -> None:
    """UsageError for a value that Slack would refuse, or that it could not reach."""
    if not 1 <= len(name.strip()) <= 35:
        raise UsageError(f"--name has {len(name)} characters: Slack takes 1 to 35")
    if not name.isprintable():
        raise UsageError(f"--name is {name}: there is a character in it that cannot be shown")
    if not re.fullmatch(r"/[a-z0-9_-]{1,31}", slash):
        raise UsageError(
            f"--command is {slash}: Slack takes a slash and up to 31 lower-case letters, digits, "
            "hyphens and underscores"
        )
    if url is not None and not re.fullmatch(r"https://[^\s/?#@]+\.[^\s/?#@]+(/[^\s?#]*)?", url):
        raise UsageError(f"--url is {url}: Slack takes an address such as https://bot.example.com")


@click.command(
    "slack",
    epilog=example(
        "henji manifest slack > manifest.json",
        "henji manifest slack --url https://bot.example.com --locale ja",
    ),
)
@click.option("--name", default="Henji", show_default=True, help="How the bot is called.")
@click.option("--locale", type=click.Choice(["en", "ja"]), default="en", show_default=True)
@click.option("--command", "slash", default="/henji", show_default=True, help="The slash command.")
@click.option("--url", metavar="URL", help="Where Slack reaches the bot; default: Socket Mode.")
@click.option("--many", is_flag=True, help="For several workspaces, which install it at the URL.")
def command(name: str, locale: str, slash: str, url: str | None, many: bool) -> None:
    """The manifest to paste at api.slack.com/apps: Create New App, From a manifest."""
    _check(name, slash, url)
    made = document(name, locale, url, slash, many=many)
    click.echo(json.dumps(made, ensure_ascii=False, indent=2))
