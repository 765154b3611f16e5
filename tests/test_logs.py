"""Logs: on standard error, without content, and never with a secret."""

from __future__ import annotations

import json
import logging
import unicodedata
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from bots.cli import commands
from bots.platforms import AllSettings, load
from bots.slack.settings import SlackSettings
from core.observe.logs import (
    REDACTED,
    printable,
    printable_block,
    printable_json,
    secrets_in,
    set_up_logging,
)
from core.settings import load_settings


def logger() -> structlog.stdlib.BoundLogger:
    bound: structlog.stdlib.BoundLogger = structlog.get_logger("core.somewhere")
    return bound


def fail(text: str, confession: str = "") -> None:
    raise ValueError(text)


def lines(captured: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in captured.splitlines()]


def test_json_lines_name_the_event_its_level_and_its_values(
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_up_logging(load_settings(log_format="json"))
    logger().info("replied", job="返", seconds=0.5)
    out, err = capsys.readouterr()
    (line,) = lines(err)
    assert out == ""
    assert (line["event"], line["level"], line["job"]) == ("replied", "info", "返")
    assert line["timestamp"].endswith("Z")


@pytest.mark.parametrize("form", ["json", "people"])
def test_content_is_logged_only_on_request(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(load_settings(log_format=form))
    logger().info("replied", text="a confession", prompt="a question")
    quiet = capsys.readouterr().err
    assert "replied" in quiet
    assert "confession" not in quiet
    assert "question" not in quiet
    set_up_logging(load_settings(log_format=form, log_content=True))
    logger().info("replied", text="a confession")
    assert "confession" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["json", "people"])
def test_a_secret_is_redacted_in_every_position(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = load(
        SlackSettings,
        log_format=form,
        slack_bot_token="xoxb-hidden-1",
        redis_url="redis://me:hidden%2F2@there",
        openai_api_key="hidden-3",
    )
    set_up_logging(settings)
    try:
        fail("Authorization: hidden-3 refused")
    except ValueError:
        logger().exception("failed at hidden/2", token="xoxb-hidden-1")
    logging.getLogger("somewhere.else").warning("redis://me:hidden%%2F2@there and %s", "hidden/2")
    err = capsys.readouterr().err
    assert "ValueError" in err
    assert "hidden" not in err
    assert REDACTED in err
    assert secrets_in(settings) == {"xoxb-hidden-1", "hidden/2", "hidden%2F2", "hidden-3"}


@pytest.mark.parametrize("form", ["json", "people"])
def test_no_value_acts_on_a_terminal_or_forges_a_line(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up_logging(load_settings(log_format=form))
    hostile = "a\x1b]0;owned\x07\x9b2J\u202e\n2026-01-01T00:00:00Z [info] forged"
    logger().info("an event", kind=hostile, inside={hostile: [hostile]})
    logging.getLogger("slack_bolt").warning("a library says %s", hostile)
    try:
        fail(hostile)
    except ValueError:
        logger().exception("failed")
    err = capsys.readouterr().err
    assert err.replace("\n", "").isprintable()
    assert "\n2026-01-01T00:00:00Z [info] forged" not in err.partition("Traceback")[0]


@pytest.mark.parametrize("form", ["json", "people"])
def test_a_long_value_is_clipped_and_hides_no_secret_at_its_cut(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up_logging(load_settings(log_format=form, openai_api_key="hidden-secret"))
    for before in range(1985, 2000):
        logger().info("an event", kind="x" * before + "hidden-secret" + "y" * 300_000)
    err = capsys.readouterr().err
    assert max(map(len, err.splitlines())) < 2_300
    assert "hidde" not in err


def test_a_traceback_shows_no_values_of_variables(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(load_settings())
    try:
        fail("without a word", confession="in private")
    except ValueError:
        logger().exception("failed")
    err = capsys.readouterr().err
    assert "raise ValueError(text)" in err
    assert err.count("in private") == 1  # this very line of code


def test_libraries_are_not_heard_below_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(load_settings(log_level="debug", log_format="json"))
    logging.getLogger("slack_bolt").debug("the whole message")
    logging.getLogger("slack_bolt").warning("rate limited")
    logger().debug("claimed")
    assert [line["event"] for line in lines(capsys.readouterr().err)] == [
        "rate limited",
        "claimed",
    ]


ACTIVE = [
    character
    for character in map(chr, range(0x10000))
    if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
    or unicodedata.bidirectional(character)
    in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    or character in "\u061c\u200e\u200f"
]
"""By Unicode's tables: controls, ends of lines, surrogates, and marks that reorder text."""


def test_every_active_character_is_shown_as_an_escape() -> None:
    for character in ACTIVE:
        assert printable(f"a{character}b").isascii(), hex(ord(character))
        assert character not in printable_json({"text": character})


@pytest.mark.parametrize("text", ["こんにちは", "👩‍👩‍👧", "naïve ½ €", "שלום", "a\\b"])
def test_everything_else_stays(text: str) -> None:
    assert printable(text) == text


def test_a_second_line_cannot_look_like_a_new_row() -> None:
    assert printable_block("a\r\n2026-01-01 forged\rx") == "a\n    2026-01-01 forged\\rx"


@given(st.text())
def test_json_keeps_its_value(text: str) -> None:
    assert json.loads(printable_json({"text": text})) == {"text": text}


SECRETS = {
    "slack_bot_token": "xoxb-11-hidden",
    "slack_app_token": "xapp-22-hidden",
    "slack_signing_secret": "33-hidden",
    "discord_bot_token": "MTA.44-hidden.abc",
    "openai_api_key": "sk-55-hidden",
    "redis_url": "redis://someone:66%2F%22hidden@localhost:6379/0",
}
HIDDEN = ("xoxb-11-hidden", "xapp-22-hidden", "33-hidden", "MTA.44-hidden.abc", "sk-55-hidden",
          "66%2F%22hidden", '66/"hidden')  # fmt: skip


FORMED = {
    "a workspace's own token": "xoxb-" + "1" * 12 + "-abcdefghHIDDEN",
    "a token that rotates": "xoxe.xoxb-1-HIDDENabcdefghijkl",
    "what answers an interaction": "https://d/api/v10/webhooks/123/aW50ZXJhY3Rpb24HIDDENabcdefgh",
    "an answer to an interaction": "/interactions/12345/aW50ZXJhY3Rpb24HIDDENabcdefgh/callback",
    "Discord's": "MTAxMDEwMTAxMDEwMTAxMDEw.Gabcde." + "HIDDEN" * 5,
    "a header": "Authorization: Bearer abc.HIDDEN",
    "an address that answers a command": "https://hooks.slack.com/commands/T1/2345/HIDDENabc",
    "a signed address": "https://host/file?X-Amz-Signature=HIDDEN&expires=1",
    "a connection's ticket": "wss://wss-primary.slack.com/link/?ticket=HIDDEN-1&app_id=1",
    "an address": "redis+sentinel://:HIDDEN@host1,host2/henji",
}


def settings(**more: Any) -> AllSettings:
    return AllSettings.load(**SECRETS, log_level="debug", log_content=True, **more)


def log_with(settings: AllSettings) -> None:
    set_up_logging(settings.core, settings.redaction)


@pytest.mark.parametrize("log_format", ["json", "people"])
def test_a_secret_is_never_seen_wherever_it_slips_in(
    log_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log_with(settings(log_format=log_format))
    ours, theirs = structlog.get_logger("core"), logging.getLogger("slack_sdk")
    lines = 0
    for secret in HIDDEN:
        _slip_in(ours, theirs, secret)
        lines += 8
    seen = capsys.readouterr().err
    assert len(seen.splitlines()) >= lines
    for secret in HIDDEN:
        assert secret not in seen
    assert "hidden" not in seen


def _slip_in(ours: Any, theirs: logging.Logger, secret: str) -> None:
    ours.info(f"an event of {secret}")
    ours.info("an event", value=secret, a_name={"nested": [secret]})
    ours.bind(bound=secret).warning("an event")
    ours.warning("an event", error=repr(ValueError(secret)))
    ours.info("an object", thing=settings())
    theirs.warning("a library says %s", secret)
    theirs.warning("a library says it", extra={"token": secret})
    try:
        int(f"Bearer {secret}")  # its error quotes what it could not read
    except ValueError:
        ours.exception("failed")
        theirs.exception("failed, too")


@pytest.mark.parametrize("secret", FORMED.values(), ids=FORMED)
def test_a_secret_that_no_setting_holds_is_known_by_its_form(
    secret: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log_with(AllSettings.load(log_level="debug"))
    structlog.get_logger("core").warning("refused", error=repr(OSError(f"at {secret} says no")))
    logging.getLogger("slack_sdk").warning("a library says %s", secret)
    seen = capsys.readouterr().err
    assert seen.count(REDACTED) == 2
    assert "HIDDEN" not in seen
    assert "says no" in seen


@pytest.mark.parametrize(
    "text", ["slack:T024:C123:1766.24 12:30", "https://host:8000/v1 by a@b", "Bearer of news"]
)
def test_other_text_than_secrets_stays(text: str) -> None:
    assert AllSettings.load().redaction.redact(text) == text


def test_a_defects_traceback_has_no_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(text: str) -> None:
        raise ValueError(f"a key of {text}")

    monkeypatch.setenv("HENJI_OPENAI_API_KEY", "55-hidden")
    monkeypatch.setattr("sys.argv", ["henji", "doctor"])
    monkeypatch.setattr(
        commands, "open_all_settings", lambda **_: fail("55-hidden xoxb-11-abcdefgh")
    )
    assert commands.run() == 1
    seen = capsys.readouterr().err
    assert "this is a defect of henji: ValueError: a key of [secret] [secret]" in seen
    assert "hidden" not in seen


def test_a_file_that_is_closed_to_this_user_is_no_defect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise PermissionError(13, "Permission denied", "/srv/models/x.safetensors")

    monkeypatch.setattr("sys.argv", ["henji", "doctor"])
    monkeypatch.setattr(commands, "open_all_settings", fail)
    assert commands.run() == 1
    sentence = "henji: /srv/models/x.safetensors is closed to this user: Permission denied\n"
    assert capsys.readouterr().err == sentence
