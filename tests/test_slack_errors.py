"""Faults of tokens, scopes and payloads in Slack: reported, and harmless."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, MutableMapping
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from bots.slack.settings import SlackSettings
from core.errors import OperatorError, UsageError
from tests.local_slack.deployment import SlackDeployment, slack_at_work, slack_deployment
from tests.waiting import until

BOT = "<@U0HENJI>"

Logs: TypeAlias = "list[MutableMapping[str, Any]]"


@pytest.fixture
def logs() -> Iterator[Logs]:
    """What is logged, whoever has set logging up in this process."""
    with capture_logs() as logs:
        yield logs


@pytest.fixture
async def deployment(redis: Redis) -> AsyncIterator[SlackDeployment]:
    async with slack_at_work(redis) as deployment:
        yield deployment


async def test_unknown_and_malformed_payloads_are_acknowledged(
    deployment: SlackDeployment, logs: Logs
) -> None:
    slack = deployment.slack
    slack.event({"type": "star_added", "item": "a secret"})
    slack.event({"type": "message", "text": "a secret"})
    slack.event({"type": "message", "subtype": "message_changed", "channel": "C1"})
    slack.delivery.send("interactive", {"type": "block_actions", "actions": "a secret"})
    slack.delivery.send("interactive", {"type": "never heard of"})
    slack.delivery.send(
        "interactive", {"type": "block_actions", "team": 7, "actions": ["a secret"]}
    )
    slack.delivery.send(
        "interactive", {"type": "view_submission", "view": None, "user": "a secret"}
    )
    slack.delivery.send("slash_commands", {"command": "/henji", "text": "a secret"})
    slack.delivery.send("events_api", {"type": "event_callback", "event": "a secret"})
    slack.delivery.send("events_api", {"type": "event_callback"})
    await deployment.settled()
    assert max(envelope.attempts for envelope in slack.delivery.envelopes) == 1
    assert len([line for line in logs if "malformed" in line["event"]]) >= 3
    assert "a secret" not in str(logs)


async def test_a_revoked_token_is_named_at_the_start(deployment: SlackDeployment) -> None:
    slack = deployment.slack
    slack.workspace.installations[slack.bot_token].revoked = True
    with pytest.raises(OperatorError, match=r"was revoked.*Reinstall"):
        await deployment.adapter("second")


async def test_a_token_revoked_at_run_time_is_named_and_later_replies_arrive(
    deployment: SlackDeployment, logs: Logs
) -> None:
    slack = deployment.slack
    app = slack.workspace.installations[slack.bot_token]
    app.revoked = True
    lost = await slack.say("C1", "U1", f"{BOT} lost")
    await slack.until(lambda: [c for c in slack.called("chat.postMessage") if c.error])
    app.revoked = False
    await deployment.asks("hi")
    assert slack.replies("C1", lost) == []
    assert "SLACK_BOT_TOKEN was revoked: at api.slack.com/apps" in str(logs)


async def test_an_app_token_revoked_at_run_time_is_named(
    deployment: SlackDeployment, logs: Logs
) -> None:
    slack = deployment.slack
    slack.api.app_token = "xapp-another"
    await slack.delivery.disconnect()

    async def named() -> bool:
        return "SLACK_APP_TOKEN is not a token that Slack knows" in str(logs)

    await until(named)


async def test_a_missing_scope_is_named(redis: Redis) -> None:
    async with slack_deployment(redis) as deployment:
        app = deployment.slack.workspace.installations[deployment.slack.bot_token]
        app.scopes -= {"users:read"}
        with pytest.raises(OperatorError, match=r"lacks users:read.*OAuth & Permissions"):
            await deployment.adapter()


async def test_a_wrong_bot_token_is_named(redis: Redis) -> None:
    async with slack_deployment(redis, slack_bot_token="xoxb-wrong") as deployment:
        with pytest.raises(OperatorError, match="SLACK_BOT_TOKEN is not a token"):
            await deployment.adapter()


async def test_a_bot_token_in_the_place_of_the_app_token_is_named(redis: Redis) -> None:
    async with slack_deployment(redis, slack_app_token="xoxb-local") as deployment:
        with pytest.raises(OperatorError, match=r"SLACK_APP_TOKEN.*app-level token"):
            await deployment.adapter()


async def test_an_unreachable_slack_is_named(redis: Redis) -> None:
    async with slack_deployment(redis, slack_api_url="http://127.0.0.1:9/api/") as deployment:
        with pytest.raises(OperatorError, match=r"cannot be reached at http://127\.0\.0\.1:9/api/"):
            await deployment.adapter()


async def test_an_outage_of_slack_is_not_blamed_on_the_token(redis: Redis) -> None:
    async with slack_deployment(redis) as deployment:
        deployment.slack.limits.refuse_next("auth.test")
        with pytest.raises(OperatorError, match=r"ratelimited.*try again"):
            await deployment.adapter()


async def test_an_app_without_socket_mode_says_where_to_turn_it_on(redis: Redis) -> None:
    async with slack_deployment(redis) as deployment:
        deployment.slack.api.socket_mode = False
        with pytest.raises(OperatorError, match="Enable Socket Mode"):
            await deployment.adapter()


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({}, "SLACK_APP_TOKEN"),
        ({"slack_app_token": "xapp-1"}, "SLACK_BOT_TOKEN"),
        ({"slack_http_port": 3000}, "SLACK_SIGNING_SECRET"),
        ({"slack_client_id": "1.2"}, "HENJI_SLACK_CLIENT_SECRET"),
        ({"slack_client_secret": "x"}, "HENJI_SLACK_CLIENT_ID"),
        ({"slack_client_id": "1.2", "slack_client_secret": "x"}, "HENJI_SLACK_HTTP_PORT"),
    ],
)
def test_a_missing_token_is_named(given: dict[str, Any], missing: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{missing} is not set"):
        SlackSettings(data_dir=tmp_path, **given).require()
