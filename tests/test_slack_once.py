"""One reply for each message in Slack: no doubles and no losses, and a memory that follows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from bots.slack import setup_checks
from bots.slack.platform import SlackPlatform
from bots.slack.settings import SlackSettings
from core.errors import OperatorError
from core.ports import Secrets
from tests.local_slack.deployment import LANE, SlackDeployment, slack_at_work, slack_deployment
from tests.waiting import until

BOT = "<@U0HENJI>"


@pytest.fixture
async def deployment(redis: Redis) -> AsyncIterator[SlackDeployment]:
    async with slack_at_work(redis) as deployment:
        yield deployment


# -- once ------------------------------------------------------------------------------------


async def test_duplicates_and_lost_acknowledgements_are_one_reply(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    slack.delivery.retry_delays = (0.0, 0.0)
    slack.delivery.acknowledge_seconds = 0.3
    slack.delivery.faults.duplicate = 2
    slack.delivery.faults.lose_acknowledgements = 3
    ts = await deployment.asks("hi")
    await deployment.settled()
    assert len(slack.replies("C1", ts)) == 1
    assert max(e.attempts for e in slack.delivery.envelopes) > 1


async def test_events_in_the_wrong_order_are_one_conversation(deployment: SlackDeployment) -> None:
    slack = deployment.slack
    slack.delivery.faults.shuffle = True
    ts = await slack.say("C1", "U1", f"{BOT} hi")
    await slack.edit("C1", ts, f"{BOT} hello")
    slack.delivery.release()
    await deployment.answered("C1", ts, "echo: hello")
    await deployment.settled()
    assert len(slack.replies("C1", ts)) == 1


async def test_only_stored_events_are_acknowledged(deployment: SlackDeployment) -> None:
    slack = deployment.slack
    slack.delivery.retry_delays = (0.0,) * 100
    slack.delivery.acknowledge_seconds = 0.3
    await deployment.redis.config_set("maxmemory", "1")  # Redis takes no writes
    ts = await slack.say("C1", "U1", f"{BOT} hi")
    try:
        await slack.until(lambda: slack.delivery.envelopes[0].attempts >= 3)
        assert not slack.delivery.envelopes[0].acknowledged
    finally:
        await deployment.redis.config_set("maxmemory", "0")
    await deployment.answered("C1", ts, "echo: hi")
    await deployment.settled()
    assert len(slack.replies("C1", ts)) == 1


async def test_a_lost_connection_loses_no_message(deployment: SlackDeployment) -> None:
    slack = deployment.slack
    ts = await deployment.asks("one")
    await deployment.stop("adapter")
    await slack.until(lambda: slack.delivery.sockets == 0)
    slack.delivery.deaf = True  # the events of this time never come
    await slack.say("C1", "U1", "two", thread=ts)
    slack.delivery.deaf = False
    await deployment.adapter()
    await deployment.answered("C1", ts, "echo: two")


async def test_a_silently_dropped_connection_loses_no_message(redis: Redis) -> None:
    async with slack_deployment(redis, minute=3) as deployment:
        slack = deployment.slack
        await deployment.core()
        await deployment.adapter()
        ts = await deployment.asks("one")
        slack.delivery.deaf = True  # events without a listener are lost
        await slack.delivery.drop()
        await slack.say("C1", "U1", "two", thread=ts)
        slack.delivery.deaf = False
        await deployment.answered("C1", ts, "echo: two")
        await deployment.at_rest()


async def test_an_announced_disconnect_with_a_gap_loses_no_message(redis: Redis) -> None:
    async with slack_deployment(redis, minute=3) as deployment:
        slack = deployment.slack
        await deployment.core()
        await deployment.adapter()
        ts = await deployment.asks("one")
        slack.api.slow["apps.connections.open"] = 1.0
        await slack.delivery.disconnect()
        slack.delivery.deaf = True  # events without a listener are lost
        await slack.say("C1", "U1", "two", thread=ts)
        slack.delivery.deaf = False
        await deployment.answered("C1", ts, "echo: two")
        await deployment.at_rest()


async def test_a_second_bot_with_the_same_token_is_noticed(
    deployment: SlackDeployment, capsys: pytest.CaptureFixture[str]
) -> None:
    warning = "other processes use SLACK_APP_TOKEN"
    assert warning not in capsys.readouterr().out
    await deployment.adapter("second")
    seen = ""

    async def warned() -> bool:
        nonlocal seen
        said = capsys.readouterr()
        seen += said.out + said.err
        return warning in seen

    await until(warned)


async def test_the_doctor_counts_the_connections(deployment: SlackDeployment) -> None:
    settings = SlackSettings(
        slack_bot_token=SecretStr(deployment.slack.bot_token),
        slack_app_token=SecretStr(deployment.slack.app_token),
        slack_api_url=deployment.slack.api_url,
    )
    assert "; 1 connected" in await setup_checks.examine(settings, no_secrets)
    await deployment.adapter("second")
    with pytest.raises(OperatorError, match="2 processes are connected"):
        await setup_checks.examine(settings, no_secrets)


def no_secrets() -> AbstractAsyncContextManager[Secrets]:
    raise AssertionError


async def test_slow_api_calls_delay_no_acknowledgement(deployment: SlackDeployment) -> None:
    slack = deployment.slack
    slack.api.slow |= {"users.info": 2.0, "assistant.threads.setStatus": 1.0}
    await deployment.asks("hi")
    mentions = [e for e in slack.delivery.envelopes if e.payload["event"]["user"] == "U1"]
    assert len(mentions) == 2
    assert max(e.acknowledged - e.sent for e in mentions) < 1.0


async def test_an_unreadable_thread_does_not_stop_the_catch_up(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    threads = [await slack.say("C1", "U1", f"{BOT} {n}") for n in range(2)]
    for n, ts in enumerate(threads):
        await deployment.answered("C1", ts, f"echo: {n}")
    await deployment.stop("adapter")
    await slack.until(lambda: slack.delivery.sockets == 0)
    slack.delivery.deaf = True
    for ts in threads:
        await slack.say("C1", "U1", "more", thread=ts)
    slack.delivery.deaf = False
    slack.api.lost["conversations.replies"] = 2  # aiohttp itself tries once more
    await deployment.adapter()
    answered = await slack.until(  # which of the two is read first is not fixed
        lambda: [ts for ts in threads if slack.finished("C1", ts, "echo: more")]
    )
    assert sorted(len(slack.replies("C1", ts)) for ts in threads) == [1, 2]
    assert len(answered) == 1


async def test_two_adapters_share_the_work(deployment: SlackDeployment) -> None:
    slack = deployment.slack
    await deployment.adapter("second")
    threads = [await slack.say("C1", "U1", f"{BOT} {n}") for n in range(3)]
    for n, ts in enumerate(threads):
        await deployment.answered("C1", ts, f"echo: {n}")
    assert [len(slack.replies("C1", ts)) for ts in threads] == [1, 1, 1]


async def test_without_a_core_the_person_gets_a_notice_at_once(redis: Redis) -> None:
    async with slack_deployment(redis) as deployment:
        await deployment.adapter()
        ts = await deployment.slack.say("C1", "U1", f"{BOT} hi")
        [reply] = await deployment.slack.until(lambda: deployment.slack.replies("C1", ts))
        assert "言語モデルが動いていません" in reply.shown


async def test_a_double_post_of_two_processes_is_removed_but_not_the_next_reply(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SlackPlatform, "call_seconds", 1.0)
    async with slack_deployment(redis) as deployment:
        deployment.lease = 1.0
        slack = deployment.slack
        await deployment.core()
        process = await deployment.adapter_process(redis_url)
        slack.methods.streaming = False
        slack.api.slow["chat.postMessage"] = 30.0
        ts = await slack.say("C1", "U1", f"{BOT} hi")
        [reply] = await slack.until(lambda: slack.replies("C1", ts))
        process.kill()
        await process.wait()
        slack.api.slow.clear()
        double = replace(reply, ts=slack.workspace.next_ts())  # of a process that was stopped
        begun = replace(double, ts=slack.workspace.next_ts(), blocks=[], metadata=None)
        slack.workspace.messages |= {("C1", more.ts): more for more in (double, begun)}
        await deployment.adapter()

        async def closed() -> bool:
            return not await redis.exists("henji:{0}:deliveries:slack")

        await until(closed)
        assert slack.replies("C1", ts) == [reply, begun]
        assert slack.workspace.violations == []


# -- memory follows the channel --------------------------------------------------------------


async def test_the_search_for_a_lost_reply_skips_the_bots_notices(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    slack.methods.streaming = False
    await deployment.stop("core")
    await deployment.stores().queue.announce(LANE, "busy", 60)
    ts = await slack.say("D1", "U1", "hi")
    await slack.say("D1", "U1", "help", ts)
    [notice] = await slack.until(lambda: slack.replies("D1", ts))
    slack.workspace.without_answer.add("chat.postMessage")
    calls = len(slack.called("chat.postMessage"))
    await deployment.core()
    await slack.until(lambda: len(slack.called("chat.postMessage")) > calls)
    slack.workspace.without_answer.clear()
    await deployment.answered("D1", ts, "echo: hi")
    assert len(slack.replies("D1", ts)) == 2
    assert notice.edits == 0


async def test_a_deleted_prompt_and_a_deleted_reply_are_forgotten(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    first = await deployment.asks("one")
    await slack.delete("C1", first)
    second = await slack.say("C1", "U1", f"{BOT} two")
    reply = await deployment.answered("C1", second, "echo: two")
    await slack.delete("C1", reply.ts)
    await deployment.settled()
    assert await deployment.stores().texts(deployment.key("C1", first)) == []
    assert await deployment.stores().texts(deployment.key("C1", second)) == ["two"]


async def test_missed_edits_and_deletions_reach_the_history(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    first = await deployment.asks("one")
    second = await slack.say("C1", "U1", "two", thread=first)
    await deployment.answered("C1", first, "echo: two")
    await deployment.stop("adapter")
    await slack.until(lambda: slack.delivery.sockets == 0)
    slack.delivery.deaf = True
    await slack.edit("C1", first, f"{BOT} uno")
    await slack.delete("C1", second)
    slack.delivery.deaf = False
    await deployment.adapter()

    async def followed() -> bool:
        return await deployment.stores().texts(deployment.key("C1", first)) == ["uno", "echo: one"]

    await until(followed)
    await deployment.stop("adapter")
    read = len(slack.called("conversations.replies"))
    await deployment.adapter()  # reads it again, and changes nothing
    await slack.until(lambda: len(slack.called("conversations.replies")) > read)
    ts = await slack.say("D9", "U1", "the last")
    await deployment.answered("D9", ts, "echo: the last")
    assert [m.shown for m in slack.replies("C1", first)] == ["echo: one", "echo: two"]
    assert await followed()
