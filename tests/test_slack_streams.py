"""Replies while they are written: streams, edits, limits, and the end that always arrives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from bots.slack import components, streams
from core.types import Failed
from tests.local_slack import Message
from tests.local_slack.deployment import SlackDeployment, slack_deployment

BOT = "<@U0HENJI>"
LONG = "すこし長い文章です。" * 12


@pytest.fixture
async def deployment(redis: Redis) -> AsyncIterator[SlackDeployment]:
    """With a core that takes more than a second for `LONG`, where a minute has 30 seconds."""
    async with slack_deployment(redis, minute=30) as deployment:
        await deployment.core(pace=90)
        await deployment.adapter()
        yield deployment
        await deployment.at_rest()


async def test_a_reply_is_streamed_and_its_stream_is_stopped(deployment: SlackDeployment) -> None:
    slack = deployment.slack
    ts = await slack.say("C1", "U1", f"{BOT} {LONG}")
    await slack.until(lambda: slack.workspace.sessions.get(("C1", ts)) == "processing")
    reply = await deployment.answered("C1", ts, f"echo: {LONG}")
    assert reply.streaming == "over"
    assert slack.replies("C1", ts) == [reply]
    assert len(slack.called("chat.appendStream")) >= 1
    assert slack.called("chat.update") == []
    assert slack.workspace.sessions["C1", ts] == "active"
    assert [c.error for c in slack.called("chat.stopStream")] == [""]


async def test_html_and_formulas_are_streamed_once_they_are_complete(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    said = "\\[ x_1\n= 2 \\]\nand &lt;b&gt;bold words&lt;/b&gt; of \\(y_1\\). "
    ts = await slack.say("C1", "U1", f"{BOT} a\n{said * 4}end")
    shown = "```latex\n x_1\n= 2\n```\nand **bold words** of `y_1`. "
    rest = "\\[ x_1\n= 2 \\]\nand **bold words** of `y_1`. " * 3
    reply = await deployment.answered("C1", ts, f"echo: a\n{shown}{rest}end")
    assert reply.streaming == "over"
    assert len(slack.called("chat.appendStream")) >= 1
    assert slack.called("chat.update") == []


async def test_a_reply_is_posted_and_edited_where_there_are_no_streams(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    slack.methods.streaming = False
    ts = await slack.say("C1", "U1", f"{BOT} {LONG}")
    posted = await slack.until(lambda: slack.replies("C1", ts))
    assert components.STOP in posted[0].buttons()
    reply = await deployment.answered("C1", ts, f"echo: {LONG}")
    assert slack.replies("C1", ts) == [reply]
    assert len(slack.called("chat.startStream")) == 1
    assert len(slack.called("chat.update")) >= 2


async def test_an_expired_stream_continues_with_updates(deployment: SlackDeployment) -> None:
    slack = deployment.slack
    ts = await slack.say("C1", "U1", f"{BOT} {LONG}")
    await slack.until(lambda: slack.replies("C1", ts))
    slack.expire_streams()
    reply = await deployment.answered("C1", ts, f"echo: {LONG}")
    assert slack.replies("C1", ts) == [reply]
    assert reply.edits >= 1


async def test_a_429_during_a_stream_loses_no_text(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    slack.limits.refuse_next("chat.appendStream", 2)
    slack.limits.refuse_next("chat.stopStream", 1)
    ts = await slack.say("C1", "U1", f"{BOT} {LONG}")
    reply = await deployment.answered("C1", ts, f"echo: {LONG}")
    assert slack.replies("C1", ts) == [reply]
    assert "ratelimited" in [c.error for c in slack.called("chat.stopStream")]


async def test_a_post_whose_answer_was_lost_is_not_posted_twice(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    slack.methods.streaming = False
    slack.api.lost["chat.postMessage"] = 1
    ts = await slack.say("C1", "U1", f"{BOT} {LONG}")
    reply = await deployment.answered("C1", ts, f"echo: {LONG}")
    assert slack.replies("C1", ts) == [reply]


async def test_a_stream_whose_start_answer_was_lost_is_found(deployment: SlackDeployment) -> None:
    slack = deployment.slack
    slack.api.lost["chat.startStream"] = 1
    ts = await slack.say("C1", "U1", f"{BOT} {LONG}")
    reply = await deployment.answered("C1", ts, f"echo: {LONG}")
    assert slack.replies("C1", ts) == [reply]


async def test_stop_ends_the_reply_at_once(deployment: SlackDeployment) -> None:
    slack = deployment.slack
    slack.methods.streaming = False
    ts = await slack.say("C1", "U1", f"{BOT} {LONG}")
    [reply] = await slack.until(lambda: slack.replies("C1", ts))
    refused = slack.press("U2", reply, components.STOP)
    await asyncio.wait_for(refused.done.wait(), 5)
    await slack.until(lambda: slack.whispers("U2"))
    slack.press("U1", reply, components.STOP)
    await slack.until(lambda: components.CONTINUE in reply.buttons())
    assert "停止しました。" in str(reply.blocks)
    assert f"echo: {LONG}".startswith(reply.shown)
    assert len(reply.shown) < len(LONG)
    assert (await deployment.stores().texts(deployment.key("C1", ts)))[-1] == reply.shown


async def test_slacks_own_stop_button_ends_work_and_session(deployment: SlackDeployment) -> None:
    slack = deployment.slack
    ts = await slack.say("C1", "U1", f"{BOT} {LONG}")
    await slack.until(lambda: slack.workspace.sessions.get(("C1", ts)) == "processing")
    slack.stop("U1", "C1", ts)
    await slack.until(lambda: slack.workspace.sessions["C1", ts] == "active")
    [reply] = slack.replies("C1", ts)
    await slack.until(lambda: components.CONTINUE in reply.buttons())
    assert len(reply.shown) < len(LONG)


async def test_stop_works_as_a_word(deployment: SlackDeployment) -> None:
    slack = deployment.slack
    ts = await slack.say("C1", "U1", f"{BOT} {LONG}")
    [reply] = await slack.until(lambda: slack.replies("C1", ts))
    await slack.say("C1", "U1", f"{BOT} 停止", thread=ts)
    await slack.until(lambda: components.CONTINUE in reply.buttons())


async def test_a_stopped_reply_is_continued_in_place(deployment: SlackDeployment) -> None:
    slack = deployment.slack
    ts = await slack.say("C1", "U1", f"{BOT} {LONG}")
    [reply] = await slack.until(lambda: slack.replies("C1", ts))
    await slack.say("C1", "U1", f"{BOT} stop", thread=ts)
    await slack.until(lambda: components.CONTINUE in reply.buttons())
    stopped = reply.shown
    slack.press("U1", reply, components.CONTINUE)
    await slack.until(lambda: reply.shown != stopped and components.FEEDBACK in reply.buttons())
    assert reply.shown.startswith(stopped)
    assert slack.replies("C1", ts) == [reply]


async def test_editing_the_newest_prompt_answers_again_in_place(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    ts = await slack.say("C1", "U1", f"{BOT} {LONG}")
    [reply] = await slack.until(lambda: slack.replies("C1", ts))
    await slack.edit("C1", ts, f"{BOT} 短く")
    await deployment.answered("C1", ts, "echo: 短く")
    assert slack.replies("C1", ts) == [reply]
    assert await deployment.stores().texts(deployment.key("C1", ts)) == ["短く", "echo: 短く"]


async def test_a_killed_adapter_leaves_its_replies_to_the_next(
    redis: Redis, redis_url: str
) -> None:
    async with slack_deployment(redis) as deployment:
        deployment.lease = 1.0
        slack = deployment.slack
        await deployment.core(pace=50)
        process = await deployment.adapter_process(redis_url)
        ts = await slack.say("C1", "U1", f"{BOT} {LONG}")
        [reply] = await slack.until(lambda: slack.replies("C1", ts))
        process.kill()
        await process.wait()
        assert reply.streaming == "open"
        await deployment.adapter()
        await deployment.answered("C1", ts, f"echo: {LONG}")
        assert slack.replies("C1", ts) == [reply]
        assert slack.workspace.violations == []


# -- task cards -----------------------------------------------------------------------------------


def titles(chunks: list[streams.Chunk]) -> list[str]:
    return [chunk["title"] for chunk in chunks]


def test_a_reply_that_comes_soon_has_no_cards() -> None:
    assert streams.opening([], 9.0, "en") == []
    assert streams.opening([("thinking", 7.0)], 9.0, "en") == []


def test_cards_say_how_long_each_step_took() -> None:
    steps = [("thinking", 1.0), ("queued", 1.2), ("thinking", 14.2)]
    assert titles(streams.opening(steps, 16.2, "en"))[1:] == [
        "Waited in line: 13 s",
        "Read and thought: 2 s",
        "Writing the reply",
    ]
    alone = streams.opening([("thinking", 1.0), ("queued", 1.2)], 16.2, "ja")
    assert titles(alone)[1:] == ["順番待ち: 15秒", "返事を書く"]


@pytest.fixture
async def carded(deployment: SlackDeployment, monkeypatch: pytest.MonkeyPatch) -> SlackDeployment:
    """Every streamed reply has cards."""
    monkeypatch.setattr(streams, "CARD_SECONDS", 0.0)
    monkeypatch.setattr(streams, "SHORTEST_STEP", 0.0)
    return deployment


def states(message: Message) -> dict[str, str]:
    return {id_: status for id_, (_, status) in message.cards.items()}


async def test_a_late_reply_shows_its_wait(carded: SlackDeployment) -> None:
    slack = carded.slack
    ts = await slack.say("C1", "U1", f"{BOT} {LONG}")
    await slack.until(lambda: slack.replies("C1", ts))
    assert states(slack.replies("C1", ts)[0])["writing"] == "in_progress"
    reply = await carded.answered("C1", ts, f"echo: {LONG}")
    assert states(reply) == dict.fromkeys(("queued", "thinking", "writing"), "complete")
    assert slack.replies("C1", ts) == [reply]
    assert slack.called("chat.update") == []


async def test_a_workspace_without_cards_gets_the_stream_alone(carded: SlackDeployment) -> None:
    slack = carded.slack
    slack.methods.cards = False
    for _ in range(2):
        ts = await slack.say("C1", "U1", f"{BOT} {LONG}")
        reply = await carded.answered("C1", ts, f"echo: {LONG}")
        assert reply.cards == {}
    assert [c.error for c in slack.called("chat.startStream")] == ["invalid_chunks", "", ""]


@pytest.mark.parametrize("method", ["chat.appendStream", "chat.stopStream"])
@pytest.mark.parametrize("error", ["invalid_chunks", "streaming_mode_mismatch"])
async def test_cards_that_are_refused_later_lose_no_text(
    carded: SlackDeployment, method: str, error: str
) -> None:
    slack = carded.slack
    slack.refuse(method, error)
    ts = await slack.say("C1", "U1", f"{BOT} {LONG}")
    reply = await carded.answered("C1", ts, f"echo: {LONG}")
    assert slack.replies("C1", ts) == [reply]
    assert reply.streaming == "over"
    assert states(reply)["writing"] == "complete"


async def test_a_stream_ends_though_its_cards_are_refused_to_the_last(
    carded: SlackDeployment,
) -> None:
    slack = carded.slack
    ts = await slack.say("C1", "U1", f"{BOT} {LONG}")
    reply = await slack.until(lambda: slack.replies("C1", ts))
    slack.methods.cards = False
    await carded.answered("C1", ts, f"echo: {LONG}")
    assert reply[0].streaming == "over"
    assert slack.workspace.violations == ["a stream ended with the card writing in_progress"]
    slack.workspace.violations.clear()


async def test_a_stopped_reply_closes_its_cards(carded: SlackDeployment) -> None:
    slack = carded.slack
    ts = await slack.say("C1", "U1", f"{BOT} {LONG}")
    (reply,) = await slack.until(lambda: slack.replies("C1", ts))
    await slack.say("C1", "U1", f"{BOT} stop", thread=ts)
    await slack.until(lambda: reply.streaming == "over")
    assert states(reply)["writing"] == "complete"


def test_a_reply_that_fails_says_so_in_its_cards() -> None:
    (card,) = streams.ending(Failed("internal"), "en")
    assert card["status"] == "error"


async def test_a_reply_of_two_parts_has_cards_once(carded: SlackDeployment) -> None:
    slack = carded.slack
    await carded.stop("core")
    await carded.core(pace=4000, tokens=20_000)
    text = "長い文章。" * 900
    ts = await slack.say("C1", "U1", f"{BOT} {text}")
    await slack.until(lambda: len(slack.replies("C1", ts)) == 2)
    await slack.until(lambda: slack.replies("C1", ts)[1].buttons())
    first, second = slack.replies("C1", ts)
    assert states(first)["writing"] == "complete"
    assert second.cards == {}
