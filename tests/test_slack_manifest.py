"""The manifest: what Slack's schema asks, and only what is in use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bots.slack import app, manifest
from tests.local_slack.rules import RULES

SOURCES = Path(manifest.__file__).parent


@pytest.fixture(params=[None, "https://henji.example"])
def made(request: pytest.FixtureRequest) -> dict[str, Any]:
    return manifest.document(url=request.param)


def test_lengths_are_within_what_slack_takes(made: dict[str, Any]) -> None:
    assert len(made["display_information"]["name"]) <= 35
    assert len(made["display_information"]["description"]) <= 140
    assert len(made["features"]["agent_view"]["agent_description"]) <= 300
    for shortcut in made["features"]["shortcuts"]:
        assert len(shortcut["name"]) <= 24
    for command in made["features"]["slash_commands"]:
        assert command["command"].startswith("/")


def test_the_printed_manifest_is_json() -> None:
    assert json.loads(manifest.manifest()) == manifest.document()


def test_japanese_labels_fit_too() -> None:
    shortcuts = manifest.document(locale="ja")["features"]["shortcuts"]
    assert all(len(shortcut["name"]) <= 24 for shortcut in shortcuts)


def test_socket_mode_and_http_exclude_each_other(made: dict[str, Any]) -> None:
    settings = made["settings"]
    by_http = "request_url" in settings["event_subscriptions"]
    assert settings["socket_mode_enabled"] is not by_http
    assert ("url" in made["features"]["slash_commands"][0]) is by_http


def test_every_scope_that_the_calls_need_is_asked_for_and_no_other(made: dict[str, Any]) -> None:
    asked = set(made["oauth_config"]["scopes"]["bot"])
    source = "".join(path.read_text() for path in SOURCES.glob("*.py"))
    called = {method for method in RULES if f".{method.replace('.', '_')}(" in source}
    needed = {RULES[method].scope for method in called} - {""}
    by_events = {"app_mentions:read", "channels:history", "groups:history", "im:history"}
    assert asked == needed | by_events | {"commands"}


def test_every_event_that_is_asked_for_is_heard(made: dict[str, Any]) -> None:
    heard = {*app.MESSAGE_EVENTS, "app_home_opened", "tokens_revoked", "app_uninstalled"}
    asked = {name.split(".")[0] for name in made["settings"]["event_subscriptions"]["bot_events"]}
    assert asked <= heard
