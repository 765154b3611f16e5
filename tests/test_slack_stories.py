"""Conversations in Slack, as people see them: the real adapter, the real relay, a real Valkey."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import aiohttp
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from bots.slack import components
from bots.slack.platform import SlackPlatform
from core.queue_types import Place
from tests.local_slack.deployment import SlackDeployment, slack_deployment
from tests.waiting import until

CONNECTED = "connected to slack"
BOT = "<@U0HENJI>"


@pytest.fixture
async def deployment(redis: Redis) -> AsyncIterator[SlackDeployment]:
    async with slack_deployment(redis) as deployment:
        await deployment.core()
        await deployment.adapter()
        yield deployment
        await deployment.at_rest()


async def test_a_mention_is_answered_once_in_a_thread_under_it(deployment: SlackDeployment) -> None:
    slack = deployment.slack
    ts = await slack.say("C1", "U1", f"{BOT} こんにちは")
    reply = await deployment.answered("C1", ts, "echo: こんにちは")
    assert slack.replies("C1", ts) == [reply]
    assert not reply.unfurl
    assert set(reply.buttons()) == {components.FEEDBACK, components.REGENERATE, components.MENU}
    assert "AI(echo)" in str(reply.blocks)
    assert any(status == "考えています…" for _, _, status, _ in slack.workspace.statuses)


async def test_a_follow_up_needs_no_mention(deployment: SlackDeployment) -> None:
    slack = deployment.slack
    ts = await slack.say("C1", "U1", f"{BOT} one")
    await deployment.answered("C1", ts, "echo: one")
    await slack.say("C1", "U1", "two", thread=ts)
    await deployment.answered("C1", ts, "echo: two")


async def test_a_mention_inside_a_thread_is_answered_with_the_thread_read(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    root = await slack.say("C1", "U2", "the deploy failed")
    await slack.say("C1", "U1", "what now?", thread=root)
    await slack.say("C1", "U1", f"{BOT} help us", thread=root)
    await deployment.answered("C1", root, "echo: help us")
    remembered = await deployment.stores().texts(deployment.key("C1", root))
    assert remembered == ["the deploy failed", "what now?", "help us", "echo: help us"]


async def test_a_reply_that_becomes_shorter_is_still_remembered(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SlackPlatform, "part_length", 1500)
    long = "。".join(f"{number}番目の長い文" for number in range(80))
    async with slack_deployment(redis) as deployment:
        await deployment.core()
        await deployment.adapter()
        slack = deployment.slack
        ts = await slack.say("C1", "U1", f"{BOT} {long}")
        replies = partial(slack.replies, "C1", ts)
        await slack.until(
            lambda: any(components.FEEDBACK in reply.buttons() for reply in replies())
        )
        assert len(replies()) == 2
        await slack.edit("C1", ts, f"{BOT} short")
        await deployment.answered("C1", ts, "echo: short")
        await slack.until(lambda: len(replies()) == 1)
        await slack.say("C1", "U1", "two", thread=ts)
        await deployment.answered("C1", ts, "echo: two")
        remembered = await deployment.stores().texts(deployment.key("C1", ts))
        assert remembered == ["short", "echo: short", "two", "echo: two"]


async def test_a_direct_message_is_answered(deployment: SlackDeployment) -> None:
    ts = await deployment.slack.say("D1", "U1", "hi")
    await deployment.answered("D1", ts, "echo: hi")


async def test_the_notice_names_the_model_that_answers_in_that_channel(redis: Redis) -> None:
    async with slack_deployment(redis) as deployment:
        slack = deployment.slack
        await deployment.core()
        await deployment.core(name="another", model="house")
        await deployment.adapter()
        place = Place("slack", slack.workspace.team, "C2")
        await deployment.rulebook.change(place, "model", "house", "UADMIN")
        for channel, model in (("C1", "echo"), ("C2", "house")):
            ts = await slack.say(channel, "U1", f"{BOT} hi")
            reply = await deployment.answered(channel, ts, "echo: hi")
            assert f"AI({model})" in str(reply.blocks)


async def test_an_unsigned_request_is_refused_before_it_is_parsed(redis: Redis) -> None:
    async with slack_deployment(redis) as deployment:
        slack = deployment.slack
        await deployment.http_adapter()
        forged = slack.delivery.signed("{}", secret="wrong")
        hostile = '{"event":{"type":"\\u001b]0;owned\\u0007"}}'
        stamps = {"X-Slack-Request-Timestamp": "nan", "X-Slack-Signature": "v0=é"}
        with capture_logs() as logs:
            async with aiohttp.ClientSession() as session:
                for body in (hostile, "[" * 50_000, "\xff"):
                    for headers in ({}, stamps, forged):
                        sent = session.post(
                            str(slack.delivery.request_url), data=body, headers=headers
                        )
                        async with sent as answer:
                            assert answer.status == 401
        assert {line["event"] for line in logs} == {
            "a request is not signed with SLACK_SIGNING_SECRET"
        }


async def test_events_may_come_by_signed_http(redis: Redis) -> None:
    async with slack_deployment(redis) as deployment:
        slack = deployment.slack
        await deployment.core()
        await deployment.http_adapter()
        ts = await slack.say("C1", "U1", f"{BOT} hi")
        reply = await deployment.answered("C1", ts, "echo: hi")
        envelope = slack.command("U2", "C1", "model")
        await envelope.done.wait()
        await slack.until(lambda: "echo" in str(slack.workspace.responses))
        slack.press("U1", reply, components.REGENERATE)
        await slack.until(lambda: reply.edits == 1)
        forged = slack.delivery.signed("{}", secret="wrong")
        with capture_logs() as logs:
            async with (
                aiohttp.ClientSession() as session,
                session.post(str(slack.delivery.request_url), data="{}", headers=forged) as answer,
            ):
                assert answer.status == 401
        assert "not signed with SLACK_SIGNING_SECRET" in str(logs)
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                str(slack.delivery.request_url),
                data=(body := '{"type":"url_verification","challenge":"prove it"}'),
                headers=slack.delivery.signed(body) | {"Content-Type": "application/json"},
            ) as answer,
        ):
            assert "prove it" in await answer.text()
        assert slack.workspace.violations == []


async def test_a_hundred_threads_at_once_are_each_answered_once(redis: Redis) -> None:
    async with slack_deployment(redis, minute=40) as deployment:
        slack = deployment.slack
        await deployment.core()
        await deployment.adapter()
        asked = {
            await slack.say(f"C{n % 10}", "U1", f"{BOT} {n}"): (f"C{n % 10}", f"echo: {n}")
            for n in range(100)
        }
        for ts, (channel, text) in asked.items():
            await deployment.answered(channel, ts, text, within=40)
        assert all(len(slack.replies(place[0], ts)) == 1 for ts, place in asked.items())
        assert not [call for call in slack.api.calls if call.error == "ratelimited"]
        assert slack.workspace.violations == []


# -- group direct messages, and the top of direct ones ---------------------------------------


async def test_a_group_direct_message_is_like_a_channel(deployment: SlackDeployment) -> None:
    slack = deployment.slack
    root = await slack.say("G1", "U2", "the deploy failed")
    ts = await slack.say("G1", "U1", f"{BOT} help us", thread=root)
    await deployment.answered("G1", root, "echo: help us")
    assert slack.called("conversations.replies")
    await slack.say("G1", "U1", f"{BOT} more", thread=root)
    await deployment.answered("G1", root, "echo: more")
    await slack.edit("G1", ts, f"{BOT} help me")
    remembered = ["the deploy failed", "help me", "echo: help us", "more", "echo: more"]

    async def edited() -> bool:
        return await deployment.stores().texts(deployment.key("G1", root)) == remembered

    await until(edited)


async def test_an_app_without_the_scope_for_group_messages_still_starts(redis: Redis) -> None:
    async with slack_deployment(redis) as deployment:
        slack = deployment.slack
        app = slack.workspace.installations[slack.bot_token]
        app.scopes = app.scopes - {"mpim:history"}
        await deployment.core()
        await deployment.adapter()
        ts = await slack.say("C1", "U1", f"{BOT} hi")
        await deployment.answered("C1", ts, "echo: hi")


async def test_stop_at_the_top_of_a_direct_message_reaches_the_reply(redis: Redis) -> None:
    async with slack_deployment(redis, minute=30) as deployment:
        slack = deployment.slack
        await deployment.core(pace=20)
        await deployment.adapter()
        ts = await slack.say("D1", "U1", "すこし長い文章です。" * 12)
        [reply] = await slack.until(lambda: slack.replies("D1", ts))
        await slack.say("D1", "U1", "stop")
        await slack.until(lambda: components.CONTINUE in reply.buttons())
        await deployment.at_rest()


async def test_reset_at_the_top_of_a_direct_message_forgets_all_of_it(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    threads = [await slack.say("D1", "U1", text) for text in ("one", "two")]
    for ts, text in zip(threads, ("one", "two"), strict=True):
        await deployment.answered("D1", ts, f"echo: {text}")
    await slack.say("D1", "U1", "reset")
    messages = slack.workspace.messages.values()
    await slack.until(lambda: any("記憶を消しました" in m.text for m in messages))
    for ts in threads:
        assert await deployment.stores().texts(deployment.key("D1", ts)) == []


async def test_the_log_says_which_workspace_the_bot_is_connected_to(redis: Redis) -> None:
    def lines() -> list[object]:
        return [(line["workspace"], line["bot"]) for line in logs if line["event"] == CONNECTED]

    async def connected() -> bool:
        return bool(lines())

    with capture_logs() as logs:
        async with slack_deployment(redis) as deployment:
            await deployment.adapter()
            await until(connected)
    assert set(lines()) == {("Local", "henji")}
