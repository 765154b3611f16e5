"""Slack without pings, loops, and answers to strangers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from bots.slack import components
from tests.local_slack.deployment import SlackDeployment, slack_at_work, slack_deployment

BOT = "<@U0HENJI>"


@pytest.fixture
async def deployment(redis: Redis) -> AsyncIterator[SlackDeployment]:
    async with slack_at_work(redis) as deployment:
        yield deployment


# -- which messages are answered -------------------------------------------------------------


async def test_people_who_talk_among_themselves_are_left_alone(
    deployment: SlackDeployment, redis: Redis
) -> None:
    slack = deployment.slack
    lunch = await slack.say("C1", "U2", "lunch?")
    await slack.edit("C1", lunch, "lunch at one?")
    ts = await deployment.asks("one")
    await slack.say("C1", "U2", "what do you think?", thread=ts)
    await slack.say("C1", "U1", "<@U2> fine", thread=ts)
    await slack.say("C1", "U1", "and a thread of people", thread=ts)
    await deployment.settled()
    assert len(slack.replies("C1", ts)) == 1
    await slack.say("C1", "U1", f"{BOT} two", thread=ts)
    await deployment.answered("C1", ts, "echo: two")
    kept = await redis.keys("*edited*")
    assert not any(lunch in name for name in kept)


@pytest.mark.parametrize(
    ("follow_ups", "answered"),
    [("always", ["more", "and you"]), ("alone", ["more"]), ("mention", [])],
)
async def test_follow_ups_without_a_mention_are_a_setting(
    redis: Redis, follow_ups: str, answered: list[str]
) -> None:
    async with slack_deployment(redis, slack_follow_ups=follow_ups) as deployment:
        slack = deployment.slack
        await deployment.core()
        await deployment.adapter()
        ts = await deployment.asks("hi")
        for user, text in (("U1", "more"), ("U2", "and you")):
            await slack.say("C1", user, text, thread=ts)
            if text in answered:
                await deployment.answered("C1", ts, f"echo: {text}")
        await deployment.settled()
        expected = ["echo: hi", *(f"echo: {text}" for text in answered)]
        assert [reply.shown for reply in slack.replies("C1", ts)] == expected
        await deployment.at_rest()


async def test_other_bots_are_ignored(deployment: SlackDeployment) -> None:
    ts = await deployment.slack.say("C1", "UBOT", f"{BOT} hi", bot_id="B1")
    await deployment.settled()
    assert deployment.slack.replies("C1", ts) == []


async def test_allowed_bots_are_not_answered_in_an_endless_loop(redis: Redis) -> None:
    async with slack_deployment(redis, slack_allowed_bots={"B1"}) as deployment:
        await deployment.core()
        await deployment.adapter()
        slack = deployment.slack
        ts = await deployment.asks("start")
        for n in range(5):
            await slack.say("C1", "UBOT", f"{BOT} {n}", thread=ts, bot_id="B1")
            if n < 3:
                await deployment.answered("C1", ts, f"echo: {n}")
        await deployment.settled()
        assert len(slack.replies("C1", ts)) == 4


async def test_strangers_of_a_shared_channel_get_a_sentence(deployment: SlackDeployment) -> None:
    slack = deployment.slack
    slack.person("U7", "Stranger", team="T0OTHER", locale="en-US")
    ts = await slack.say("C1", "U7", f"{BOT} hi")
    await slack.until(lambda: slack.whispers("U7"))
    assert "members of the workspace" in slack.whispers("U7")[0].text
    await deployment.settled()
    assert slack.replies("C1", ts) == []


@pytest.mark.parametrize("strangers", ["answer", "ignore"])
async def test_strangers_are_answered_or_ignored_by_a_setting(redis: Redis, strangers: str) -> None:
    async with slack_deployment(redis, slack_strangers=strangers) as deployment:
        slack = deployment.slack
        await deployment.core()
        await deployment.adapter()
        slack.person("U7", "Stranger", team="T0OTHER", locale="en-US")
        ts = await slack.say("C1", "U7", f"{BOT} hi")
        if strangers == "answer":
            await deployment.answered("C1", ts, "echo: hi")
        await deployment.settled()
        assert len(slack.replies("C1", ts)) == (strangers == "answer")
        assert slack.whispers("U7") == []
        await deployment.at_rest()


@pytest.mark.parametrize("person", ["U7", "W7"])
@pytest.mark.parametrize(("enterprise", "answered"), [("E0OURS", True), ("E0OTHER", False)])
async def test_a_colleague_of_the_organization_is_no_stranger(
    redis: Redis, enterprise: str, answered: bool, person: str
) -> None:
    async with slack_deployment(redis) as deployment:
        slack = deployment.slack
        slack.workspace.enterprise = "E0OURS"
        await deployment.core()
        await deployment.adapter()
        more = {"enterprise": enterprise, "only_global": person == "W7"}
        slack.person(person, "Colleague", team="T0SISTER", **more)
        ts = await slack.say("C1", person, f"{BOT} hi")
        if answered:
            await deployment.answered("C1", ts, "echo: hi")
        else:
            await slack.until(lambda: slack.whispers(person))
            assert slack.replies("C1", ts) == []
        await deployment.at_rest()


async def test_an_admin_of_another_workspace_is_no_admin_here(deployment: SlackDeployment) -> None:
    slack = deployment.slack
    slack.person("U7", "Stranger", team="T0OTHER", locale="en-US", admin=True)
    ts = await slack.say("C1", "U1", f"{BOT} hi")
    reply = await deployment.answered("C1", ts, "echo: hi")
    slack.press("U7", reply, components.REGENERATE)
    await slack.until(
        lambda: any("members of the workspace" in m.text for m in slack.whispers("U7"))
    )
    assert reply.edits == 0


async def test_an_empty_mention_is_answered_with_a_hint(deployment: SlackDeployment) -> None:
    await deployment.slack.say("C1", "U2", BOT)
    await deployment.slack.until(lambda: deployment.slack.whispers("U2"))
    assert "Write your question" in deployment.slack.whispers("U2")[0].text


async def test_a_person_gets_a_direct_notice_if_the_bot_cannot_post(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    direct = await slack.say("DU2", "U2", "hello")
    await deployment.answered("DU2", direct, "echo: hello")
    slack.workspace.without_app.add("C1")
    ts = await slack.say("C1", "U2", f"{BOT} hi")

    def told() -> list[str]:
        messages = [m for m in slack.workspace.messages.values() if m.channel == "DU2"]
        return [m.text for m in messages if m.thread_ts is None and m.bot_id]

    await slack.until(told)
    assert told() == ["I am not allowed to write in <#C1>. Please invite me there."]
    assert slack.replies("C1", ts) == []


# -- replies ---------------------------------------------------------------------------------


async def test_a_reply_pings_nobody(deployment: SlackDeployment) -> None:
    slack = deployment.slack
    ts = await slack.say("D1", "U1", "&lt;!channel&gt; &lt;@U2&gt; &lt;!subteam^S1&gt;")
    [reply] = await slack.until(
        lambda: [m for m in slack.replies("D1", ts) if m.shown.endswith(">") and m.buttons()]
    )
    for ping in ("<!channel", "<@U2", "<!subteam"):
        assert ping not in str(reply.blocks)
        assert ping not in reply.text
    assert "channel" in reply.shown


async def test_a_long_reply_with_code_becomes_complete_messages(redis: Redis) -> None:
    async with slack_deployment(redis, max_new_tokens=20_000) as deployment:
        await deployment.core(tokens=20_000)
        await deployment.adapter()
        code = "".join(f"line_{n} = {n}\n" for n in range(900))
        ts = await deployment.slack.say("C1", "U1", f"{BOT} see\n```python\n{code}```")
        slack = deployment.slack
        parts = await slack.until(
            lambda: [m for m in slack.replies("C1", ts) if m.buttons()] and slack.replies("C1", ts)
        )
        assert len(parts) == 2
        assert all(part.shown.count("```") == 2 for part in parts)
        assert not parts[0].buttons()
        assert slack.workspace.violations == []


async def test_a_reply_with_refused_blocks_is_sent_as_plain_text(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    slack.methods.layout = False
    ts = await slack.say("C1", "U1", f"{BOT} 1 &lt; 2")
    await slack.until(lambda: [m.text for m in slack.replies("C1", ts)] == ["echo: 1 &lt; 2"])
