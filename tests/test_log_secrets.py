"""Secrets are fed to the log everywhere, and looked for in it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from bots.cli import commands, entry_point
from bots.platforms import AllSettings
from core.observe.logs import REDACTED, set_up_logging

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
    "an address": "redis+sentinel://:HIDDEN@host1,host2/henji",
}


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Logging is the process's: leave it as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


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
    assert entry_point.run() == 1
    seen = capsys.readouterr().err
    assert "this is a defect of henji: ValueError: a key of [secret] [secret]" in seen
    assert "hidden" not in seen
