"""Statuses, sessions and stops: nothing is left open, whichever process gets the event."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from bots.slack import components
from bots.slack.status import PendingEvents
from tests.local_slack.deployment import LANE, SlackDeployment, slack_deployment

BOT = "<@U0HENJI>"
LONG = "すこし長い文章です。" * 12


@pytest.fixture
async def deployment(redis: Redis) -> AsyncIterator[SlackDeployment]:
    """With an adapter alone, where a minute has 30 seconds."""
    async with slack_deployment(redis, minute=30) as deployment:
        await deployment.adapter()
        yield deployment
        await deployment.at_rest()


async def a_core_that_is_busy(deployment: SlackDeployment) -> None:
    """What is asked is queued, and nobody takes it up."""
    await deployment.stores().queue.announce(LANE, "busy", 60)


async def a_session(deployment: SlackDeployment, pace: float) -> str:
    """The thread of a long reply under way, for which Slack shows its Stop button."""
    slack = deployment.slack
    await deployment.core(pace=pace)
    ts = await slack.say("C1", "U1", f"{BOT} {LONG}")
    await slack.until(lambda: slack.workspace.sessions.get(("C1", ts)) == "processing")
    return ts


# -- the status ------------------------------------------------------------------------------


async def test_deleting_a_waiting_prompt_leaves_no_status(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    await a_core_that_is_busy(deployment)
    ts = await slack.say("C1", "U1", f"{BOT} hi")
    await slack.until(slack.standing)
    await slack.delete("C1", ts)
    await deployment.at_rest()
    assert slack.replies("C1", ts) == []


async def test_a_waiting_person_sees_their_place_in_the_queue(deployment: SlackDeployment) -> None:
    slack = deployment.slack
    await a_core_that_is_busy(deployment)
    first = await slack.say("C1", "U1", f"{BOT} one")
    await slack.until(slack.standing)
    second = await slack.say("C1", "U1", f"{BOT} two")
    await slack.until(lambda: "順番を待っています(2番目)…" in slack.standing())
    await slack.delete("C1", first)
    await slack.until(lambda: "順番を待っています(1番目)…" in slack.standing())
    await slack.delete("C1", second)
    await deployment.at_rest()


async def test_a_status_is_renewed_before_slack_clears_it(redis: Redis) -> None:
    async with slack_deployment(redis, minute=0.5) as deployment:
        slack = deployment.slack
        await deployment.adapter()
        await a_core_that_is_busy(deployment)
        ts = await slack.say("C1", "U1", f"{BOT} hi")
        statuses = slack.workspace.statuses
        await slack.until(lambda: len(statuses) >= 5)  # longer than Slack shows a status
        assert {thread for _, thread, _, _ in statuses} == {ts}
        times = [at for _, _, _, at in statuses]
        assert all(later - at < 2 * 0.5 for at, later in itertools.pairwise(times))
        await slack.delete("C1", ts)
        await deployment.at_rest()


async def test_a_regenerated_reply_leaves_no_status(deployment: SlackDeployment) -> None:
    slack = deployment.slack
    await deployment.core()
    ts = await slack.say("C1", "U1", f"{BOT} hi")
    reply = await deployment.answered("C1", ts, "echo: hi")
    slack.press("U1", reply, components.REGENERATE)
    await slack.until(lambda: reply.edits == 1)
    await deployment.at_rest()


async def test_a_status_waits_for_events_that_are_being_stored() -> None:
    pending, seen = PendingEvents(), []

    async def sign() -> None:
        await pending.wait_until_stored()
        seen.append("sign")

    await sign()
    with pending.storing():
        later = asyncio.create_task(sign())
        await asyncio.sleep(0)
        seen.append("event")
    await later
    assert seen == ["sign", "event", "sign"]
    with pending.storing():
        await sign()  # but not for ever


# -- the session -----------------------------------------------------------------------------


async def test_a_direct_conversation_has_a_title_and_a_beginner(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    await deployment.core(pace=90)
    text = f"\nすこし `{LONG}`\nmore"
    ts = await slack.say("D1", "U1", text)
    await slack.until(lambda: ("D1", ts) in slack.workspace.session_starts)
    title, person = slack.workspace.session_starts["D1", ts]
    assert title.startswith("すこし すこし長い")
    assert len(title) == 80
    assert person == "U1"
    await deployment.answered("D1", ts, f"echo: {text.strip()}")
    await deployment.at_rest()


async def test_a_reply_that_ends_early_leaves_no_stream_open(deployment: SlackDeployment) -> None:
    slack = deployment.slack
    ts = await a_session(deployment, pace=40)
    [reply] = await slack.until(lambda: slack.replies("C1", ts))
    slack.refuse("chat.appendStream", "not_in_channel")
    slack.refuse("chat.update", "is_inactive", times=99)
    await slack.until(lambda: reply.streaming == "over")
    await deployment.at_rest()


async def test_the_session_ends_with_a_reply_whose_stream_expired(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    ts = await a_session(deployment, pace=90)
    slack.expire_streams()
    await deployment.answered("C1", ts, f"echo: {LONG}")
    await deployment.at_rest()


async def test_only_the_asker_and_admins_may_use_slacks_stop_button(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    ts = await a_session(deployment, pace=90)
    slack.stop("U2", "C1", ts)
    await slack.until(lambda: any("Only the person" in m.text for m in slack.whispers("U2")))
    reply = await deployment.answered("C1", ts, f"echo: {LONG}")
    assert slack.replies("C1", ts) == [reply]


# -- from another process --------------------------------------------------------------------


async def test_a_stop_reaches_the_process_that_writes_the_reply(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    ts = await a_session(deployment, pace=40)
    [reply] = await slack.until(lambda: slack.replies("C1", ts))
    await deployment.adapter("another")
    slack.delivery.newest_socket_only = True
    await slack.say("C1", "U1", f"{BOT} stop", thread=ts)
    await slack.until(lambda: components.CONTINUE in reply.buttons())
    assert len(reply.shown) < len(LONG)


async def test_slacks_stop_button_reaches_the_process_that_writes_the_reply(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    ts = await a_session(deployment, pace=40)
    await deployment.adapter("another")
    slack.delivery.newest_socket_only = True
    slack.stop("U1", "C1", ts)
    [reply] = slack.replies("C1", ts)
    await slack.until(lambda: components.CONTINUE in reply.buttons())
    assert len(reply.shown) < len(LONG)


async def test_a_finished_reply_cannot_be_stopped(deployment: SlackDeployment) -> None:
    slack = deployment.slack
    await deployment.core()
    ts = await deployment.asks("hi", "U2")
    await slack.say("C1", "U2", f"{BOT} stop", thread=ts)
    await slack.until(lambda: any("Nothing of yours" in m.text for m in slack.whispers("U2")))
