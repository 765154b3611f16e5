"""Logs: on standard error, without content, and never with a secret."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from bots.platforms import load
from bots.slack.settings import SlackSettings
from core.observe.logs import REDACTED, secrets_in, set_up_logging
from core.settings import load_settings


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level, logging.raiseExceptions
    yield
    root.handlers[:], root.level, logging.raiseExceptions = before
    structlog.reset_defaults()


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
def test_a_secret_is_struck_out_wherever_it_stands(
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
