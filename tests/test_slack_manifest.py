"""The manifest: valid by Slack's schema, and without anything unused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bots.cli.commands import henji
from bots.slack import listeners, manifest
from core.errors import UsageError
from tests.local_slack.manifest import manifest_faults
from tests.local_slack.validation import RULES

SOURCES = Path(manifest.__file__).parent


URL = "https://henji.example"


@pytest.fixture(params=[{}, {"url": URL}, {"url": URL, "many": True}], ids=str)
def made(request: pytest.FixtureRequest) -> dict[str, Any]:
    return manifest.document(**request.param)


def test_the_manifests_lengths_are_within_slacks_limits(made: dict[str, Any]) -> None:
    assert len(made["display_information"]["name"]) <= 35
    assert len(made["display_information"]["description"]) <= 140
    assert len(made["features"]["agent_view"]["agent_description"]) <= 300
    for shortcut in made["features"]["shortcuts"]:
        assert len(shortcut["name"]) <= 24
    for command in made["features"]["slash_commands"]:
        assert command["command"].startswith("/")


def test_the_manifest_follows_slacks_schema(made: dict[str, Any]) -> None:
    assert list(manifest_faults(made)) == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--name", ""), "--name has 0 characters: Slack takes 1 to 35"),
        (("--name", "x" * 36), "--name has 36 characters"),
        (("--name", "a\nb"), "--name is a\nb: there is a character in it that cannot be shown"),
        (("--command", "henji"), "--command is henji: Slack takes a slash and"),
        (("--command", "/two words"), "--command is /two words"),
        (("--command", "/Henji"), "--command is /Henji"),
        (("--url", "http://bot.example.com"), "an address such as https://bot.example.com"),
        (("--url", "bot.example.com"), "an address such as https://bot.example.com"),
        (("--url", "https://bot"), "an address such as https://bot.example.com"),
    ],
)
def test_a_manifest_that_slack_would_refuse_is_not_printed(
    words: tuple[str, str], sentence: str
) -> None:
    ran = CliRunner().invoke(henji, ["manifest", "slack", *words])
    assert ran.output == ""
    assert isinstance(ran.exception, UsageError)
    assert sentence in str(ran.exception)


@pytest.mark.parametrize("name", ["返事", "Team Bot!", "Kotoba"])
def test_any_name_makes_a_bot_that_can_be_mentioned(name: str) -> None:
    made = manifest.document(name=name)
    assert re.fullmatch(r"[a-z0-9._-]+", made["features"]["bot_user"]["display_name"])
    assert made["display_information"]["name"] == name


def test_the_manifest_checker_finds_invalid_manifests() -> None:
    made = manifest.document(name="x" * 36, url="henji.example")
    made["features"]["agent_view"] |= {"colour": "red"}
    faults = " ".join(manifest_faults(made))
    assert "display_information.name" in faults
    assert "features.agent_view.colour" in faults
    assert "settings.event_subscriptions.request_url" in faults


def test_the_printed_manifest_is_json() -> None:
    printed = CliRunner().invoke(henji, ["manifest", "slack", "--url", URL, "--many"])
    assert json.loads(printed.stdout) == manifest.document(url=URL, many=True)


def test_an_app_for_several_workspaces_needs_an_address() -> None:
    with pytest.raises(UsageError, match="needs --url"):
        manifest.document(many=True)


def test_only_oauth_tokens_are_rotated(made: dict[str, Any]) -> None:
    by_oauth = "redirect_urls" in made["oauth_config"]
    assert made["settings"]["token_rotation_enabled"] is by_oauth
    assert by_oauth is ("app_uninstalled" in made["settings"]["event_subscriptions"]["bot_events"])


def test_japanese_labels_fit_too() -> None:
    shortcuts = manifest.document(locale="ja")["features"]["shortcuts"]
    assert all(len(shortcut["name"]) <= 24 for shortcut in shortcuts)


def test_socket_mode_and_http_exclude_each_other(made: dict[str, Any]) -> None:
    settings = made["settings"]
    by_http = "request_url" in settings["event_subscriptions"]
    assert settings["socket_mode_enabled"] is not by_http
    assert ("url" in made["features"]["slash_commands"][0]) is by_http


def test_the_manifest_asks_for_exactly_the_needed_scopes(made: dict[str, Any]) -> None:
    asked = set(made["oauth_config"]["scopes"]["bot"])
    source = "".join(path.read_text() for path in SOURCES.glob("*.py"))
    calls = {method: (f'"{method}"', f".{method.replace('.', '_')}(") for method in RULES}
    called = {method for method, forms in calls.items() if any(form in source for form in forms)}
    needed = {RULES[method].scope for method in called} - {""}
    by_events = {f"{kind}:history" for kind in ("channels", "groups", "im", "mpim")}
    by_events |= {"app_mentions:read"}
    by_downloads = {"files:read"}
    by_other_channels = {f"{kind}:read" for kind in ("groups", "im", "mpim")}
    assert asked == needed | by_events | by_downloads | by_other_channels | {"commands"}


def test_every_subscribed_event_has_a_handler(made: dict[str, Any]) -> None:
    heard = {*listeners.MESSAGE_EVENTS, "app_home_opened", "tokens_revoked", "app_uninstalled"}
    asked = {name.split(".")[0] for name in made["settings"]["event_subscriptions"]["bot_events"]}
    assert asked <= heard
