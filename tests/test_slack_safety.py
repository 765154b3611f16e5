"""What must not happen in Slack: doubles, losses, pings, loops, and strangers who are answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from bots.slack import blocks, checks
from core.errors import OperatorError, UsageError
from core.settings import Settings
from tests.slack_house import SlackHouse, slack_house
from tests.waiting import until

BOT = "<@U0HENJI>"


@pytest.fixture
async def house(redis: Redis) -> AsyncIterator[SlackHouse]:
    async with slack_house(redis) as house:
        await house.core()
        await house.adapter()
        yield house
        await house.at_rest()


async def settled(house: SlackHouse) -> None:
    """Everything that was sent has been acknowledged, and a later message was answered."""
    async with asyncio.timeout(10):
        for envelope in list(house.slack.delivery.envelopes):
            await envelope.done.wait()
    ts = await house.slack.say("D9", "U1", "the last")
    await house.answered("D9", ts, "echo: the last")


# -- once ------------------------------------------------------------------------------------


async def test_duplicates_and_lost_acknowledgements_are_one_reply(house: SlackHouse) -> None:
    slack = house.slack
    slack.delivery.retry_delays = (0.0, 0.0)
    slack.delivery.acknowledge_seconds = 0.3
    slack.delivery.faults.duplicate = 2
    slack.delivery.faults.lose_acknowledgements = 3
    ts = await slack.say("C1", "U1", f"{BOT} hi")
    await house.answered("C1", ts, "echo: hi")
    await settled(house)
    assert len(slack.replies("C1", ts)) == 1
    assert max(e.attempts for e in slack.delivery.envelopes) > 1


async def test_events_in_the_wrong_order_are_one_conversation(house: SlackHouse) -> None:
    slack = house.slack
    slack.delivery.faults.shuffle = True
    ts = await slack.say("C1", "U1", f"{BOT} hi")
    await slack.edit("C1", ts, f"{BOT} hello")
    slack.delivery.release()
    await house.answered("C1", ts, "echo: hello")
    await settled(house)
    assert len(slack.replies("C1", ts)) == 1


async def test_nothing_is_acknowledged_that_is_not_stored(house: SlackHouse) -> None:
    slack = house.slack
    slack.delivery.retry_delays = (0.0,) * 100
    slack.delivery.acknowledge_seconds = 0.3
    await house.redis.config_set("maxmemory", "1")  # Redis takes no writes
    ts = await slack.say("C1", "U1", f"{BOT} hi")
    try:
        await slack.until(lambda: slack.delivery.envelopes[0].attempts >= 3)
        assert not slack.delivery.envelopes[0].acknowledged
    finally:
        await house.redis.config_set("maxmemory", "0")
    await house.answered("C1", ts, "echo: hi", within=20)
    await settled(house)
    assert len(slack.replies("C1", ts)) == 1


async def test_a_lost_connection_loses_no_message(house: SlackHouse) -> None:
    slack = house.slack
    ts = await slack.say("C1", "U1", f"{BOT} one")
    await house.answered("C1", ts, "echo: one")
    await house.stop("adapter")
    await slack.until(lambda: slack.delivery.sockets == 0)
    slack.delivery.deaf = True  # the events of this time never come
    await slack.say("C1", "U1", "two", thread=ts)
    slack.delivery.deaf = False
    await house.adapter()
    await house.answered("C1", ts, "echo: two")


async def test_a_connection_that_is_cut_without_a_word_loses_no_message(redis: Redis) -> None:
    async with slack_house(redis, minute=3) as house:
        slack = house.slack
        await house.core()
        await house.adapter()
        ts = await slack.say("C1", "U1", f"{BOT} one")
        await house.answered("C1", ts, "echo: one")
        slack.delivery.deaf = True  # what is sent while nobody listens is lost
        await slack.delivery.drop()
        await slack.say("C1", "U1", "two", thread=ts)
        slack.delivery.deaf = False
        await house.answered("C1", ts, "echo: two")
        await house.at_rest()


async def test_a_slack_that_is_slow_holds_no_acknowledgement_up(house: SlackHouse) -> None:
    slack = house.slack
    slack.api.slow |= {"users.info": 2.0, "assistant.threads.setStatus": 1.0}
    ts = await slack.say("C1", "U1", f"{BOT} hi")
    await house.answered("C1", ts, "echo: hi")
    mentions = [e for e in slack.delivery.envelopes if e.payload["event"]["user"] == "U1"]
    assert len(mentions) == 2
    assert max(e.acknowledged - e.sent for e in mentions) < 1.0


async def test_a_thread_that_cannot_be_read_keeps_nobody_from_the_others(
    house: SlackHouse,
) -> None:
    slack = house.slack
    threads = [await slack.say("C1", "U1", f"{BOT} {n}") for n in range(2)]
    for n, ts in enumerate(threads):
        await house.answered("C1", ts, f"echo: {n}")
    await house.stop("adapter")
    await slack.until(lambda: slack.delivery.sockets == 0)
    slack.delivery.deaf = True
    for ts in threads:
        await slack.say("C1", "U1", "more", thread=ts)
    slack.delivery.deaf = False
    slack.api.lost["conversations.replies"] = 2  # aiohttp itself tries once more
    await house.adapter()
    await house.answered("C1", threads[0], "echo: more")
    assert len(slack.replies("C1", threads[1])) == 1


async def test_two_adapters_share_the_work(house: SlackHouse) -> None:
    slack = house.slack
    await house.adapter("second")
    threads = [await slack.say("C1", "U1", f"{BOT} {n}") for n in range(3)]
    for n, ts in enumerate(threads):
        await house.answered("C1", ts, f"echo: {n}", within=20)
    assert [len(slack.replies("C1", ts)) for ts in threads] == [1, 1, 1]


async def test_without_a_core_the_person_is_told_at_once(redis: Redis) -> None:
    async with slack_house(redis) as house:
        await house.adapter()
        ts = await house.slack.say("C1", "U1", f"{BOT} hi")
        [reply] = await house.slack.until(lambda: house.slack.replies("C1", ts))
        assert "言語モデルが動いていません" in reply.shown


# -- memory follows the channel --------------------------------------------------------------


async def test_a_deleted_prompt_and_a_deleted_reply_are_forgotten(house: SlackHouse) -> None:
    slack = house.slack
    first = await slack.say("C1", "U1", f"{BOT} one")
    await house.answered("C1", first, "echo: one")
    await slack.delete("C1", first)
    second = await slack.say("C1", "U1", f"{BOT} two")
    reply = await house.answered("C1", second, "echo: two")
    await slack.delete("C1", reply.ts)
    await settled(house)
    assert await house.storehouse().texts(house.key("C1", first)) == []
    assert await house.storehouse().texts(house.key("C1", second)) == ["two"]


async def test_what_was_edited_and_deleted_meanwhile_is_so_in_the_memory(house: SlackHouse) -> None:
    slack = house.slack
    first = await slack.say("C1", "U1", f"{BOT} one")
    await house.answered("C1", first, "echo: one")
    second = await slack.say("C1", "U1", "two", thread=first)
    await house.answered("C1", first, "echo: two")
    await house.stop("adapter")
    await slack.until(lambda: slack.delivery.sockets == 0)
    slack.delivery.deaf = True
    await slack.edit("C1", first, f"{BOT} uno")
    await slack.delete("C1", second)
    slack.delivery.deaf = False
    await house.adapter()

    async def followed() -> bool:
        return await house.storehouse().texts(house.key("C1", first)) == ["uno", "echo: one"]

    await until(followed)
    await house.stop("adapter")
    read = len(slack.called("conversations.replies"))
    await house.adapter()  # reads it again, and changes nothing
    await slack.until(lambda: len(slack.called("conversations.replies")) > read)
    ts = await slack.say("D9", "U1", "the last")
    await house.answered("D9", ts, "echo: the last")
    assert [m.shown for m in slack.replies("C1", first)] == ["echo: one", "echo: two"]
    assert await followed()


# -- who is answered -------------------------------------------------------------------------


async def test_people_who_talk_among_themselves_are_left_alone(house: SlackHouse) -> None:
    slack = house.slack
    ts = await slack.say("C1", "U1", f"{BOT} one")
    await house.answered("C1", ts, "echo: one")
    await slack.say("C1", "U2", "what do you think?", thread=ts)
    await slack.say("C1", "U1", "<@U2> fine", thread=ts)
    await slack.say("C1", "U1", "and a thread of people", thread=ts)
    await settled(house)
    assert len(slack.replies("C1", ts)) == 1
    await slack.say("C1", "U1", f"{BOT} two", thread=ts)
    await house.answered("C1", ts, "echo: two")


@pytest.mark.parametrize(
    ("follow_ups", "answered"),
    [("always", ["more", "and you"]), ("alone", ["more"]), ("mention", [])],
)
async def test_who_is_answered_without_a_mention_is_a_setting(
    redis: Redis, follow_ups: str, answered: list[str]
) -> None:
    async with slack_house(redis, slack_follow_ups=follow_ups) as house:
        slack = house.slack
        await house.core()
        await house.adapter()
        ts = await slack.say("C1", "U1", f"{BOT} hi")
        await house.answered("C1", ts, "echo: hi")
        for user, text in (("U1", "more"), ("U2", "and you")):
            await slack.say("C1", user, text, thread=ts)
            if text in answered:
                await house.answered("C1", ts, f"echo: {text}")
        await settled(house)
        expected = ["echo: hi", *(f"echo: {text}" for text in answered)]
        assert [reply.shown for reply in slack.replies("C1", ts)] == expected
        await house.at_rest()


async def test_other_bots_are_ignored(house: SlackHouse) -> None:
    ts = await house.slack.say("C1", "UBOT", f"{BOT} hi", bot_id="B1")
    await settled(house)
    assert house.slack.replies("C1", ts) == []


async def test_bots_that_are_allowed_are_cut_off_in_a_loop(redis: Redis) -> None:
    async with slack_house(redis, slack_allowed_bots={"B1"}) as house:
        await house.core()
        await house.adapter()
        slack = house.slack
        ts = await slack.say("C1", "U1", f"{BOT} start")
        await house.answered("C1", ts, "echo: start")
        for n in range(5):
            await slack.say("C1", "UBOT", f"{BOT} {n}", thread=ts, bot_id="B1")
            if n < 3:
                await house.answered("C1", ts, f"echo: {n}")
        await settled(house)
        assert len(slack.replies("C1", ts)) == 4


async def test_strangers_of_a_shared_channel_get_a_sentence(house: SlackHouse) -> None:
    slack = house.slack
    slack.person("U7", "Stranger", team="T0OTHER", locale="en-US")
    ts = await slack.say("C1", "U7", f"{BOT} hi")
    await slack.until(lambda: slack.whispers("U7"))
    assert "members of the workspace" in slack.whispers("U7")[0].text
    await settled(house)
    assert slack.replies("C1", ts) == []


@pytest.mark.parametrize("strangers", ["answer", "ignore"])
async def test_strangers_are_answered_or_ignored_by_a_setting(redis: Redis, strangers: str) -> None:
    async with slack_house(redis, slack_strangers=strangers) as house:
        slack = house.slack
        await house.core()
        await house.adapter()
        slack.person("U7", "Stranger", team="T0OTHER", locale="en-US")
        ts = await slack.say("C1", "U7", f"{BOT} hi")
        if strangers == "answer":
            await house.answered("C1", ts, "echo: hi")
        await settled(house)
        assert len(slack.replies("C1", ts)) == (strangers == "answer")
        assert slack.whispers("U7") == []
        await house.at_rest()


async def test_an_admin_of_another_workspace_is_none_here(house: SlackHouse) -> None:
    slack = house.slack
    slack.person("U7", "Stranger", team="T0OTHER", locale="en-US", admin=True)
    ts = await slack.say("C1", "U1", f"{BOT} hi")
    reply = await house.answered("C1", ts, "echo: hi")
    slack.press("U7", reply, blocks.REGENERATE)
    await slack.until(lambda: any("Only the person" in m.text for m in slack.whispers("U7")))
    assert reply.edits == 0


async def test_files_are_acknowledged_as_not_read(house: SlackHouse) -> None:
    slack = house.slack
    ts = await slack.say("C1", "U2", f"{BOT} see this", files=[{"id": "F1"}])
    await house.answered("C1", ts, "echo: see this")
    await slack.until(lambda: any("cannot read files" in m.text for m in slack.whispers("U2")))


async def test_a_mention_and_nothing_else_is_asked_back(house: SlackHouse) -> None:
    await house.slack.say("C1", "U2", BOT)
    await house.slack.until(lambda: house.slack.whispers("U2"))
    assert "Write your question" in house.slack.whispers("U2")[0].text


# -- what a reply may do ---------------------------------------------------------------------


async def test_a_reply_pings_nobody(house: SlackHouse) -> None:
    slack = house.slack
    ts = await slack.say("D1", "U1", "&lt;!channel&gt; &lt;@U2&gt; &lt;!subteam^S1&gt;")
    [reply] = await slack.until(
        lambda: [m for m in slack.replies("D1", ts) if m.shown.endswith(">") and m.buttons()]
    )
    for ping in ("<!channel", "<@U2", "<!subteam"):
        assert ping not in str(reply.blocks)
        assert ping not in reply.text
    assert "channel" in reply.shown


async def test_a_long_reply_with_code_becomes_whole_messages(redis: Redis) -> None:
    async with slack_house(redis, max_new_tokens=20_000) as house:
        await house.core(tokens=20_000)
        await house.adapter()
        code = "".join(f"line_{n} = {n}\n" for n in range(900))
        ts = await house.slack.say("C1", "U1", f"{BOT} see\n```python\n{code}```")
        slack = house.slack
        parts = await slack.until(
            lambda: [m for m in slack.replies("C1", ts) if m.buttons()] and slack.replies("C1", ts)
        )
        assert len(parts) == 2
        assert all(part.shown.count("```") == 2 for part in parts)
        assert not parts[0].buttons()
        assert slack.workspace.violations == []


async def test_what_slack_will_not_lay_out_is_sent_as_plain_text(house: SlackHouse) -> None:
    slack = house.slack
    slack.methods.layout = False
    ts = await slack.say("C1", "U1", f"{BOT} 1 &lt; 2")
    await slack.until(lambda: [m.text for m in slack.replies("C1", ts)] == ["echo: 1 &lt; 2"])


# -- bad input -------------------------------------------------------------------------------


async def test_what_is_unknown_or_malformed_is_acknowledged_and_harms_nobody(
    house: SlackHouse, capsys: pytest.CaptureFixture[str]
) -> None:
    slack = house.slack
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
    await settled(house)
    assert max(envelope.attempts for envelope in slack.delivery.envelopes) == 1
    assert "a secret" not in "".join(capsys.readouterr())


async def test_a_revoked_token_ends_in_a_sentence_at_the_start(house: SlackHouse) -> None:
    slack = house.slack
    slack.workspace.installations[slack.bot_token].revoked = True
    with pytest.raises(OperatorError, match=r"was revoked.*Reinstall"):
        await house.adapter("second")


async def test_a_token_that_is_revoked_while_it_runs_is_named_and_costs_no_later_reply(
    house: SlackHouse, capsys: pytest.CaptureFixture[str]
) -> None:
    slack = house.slack
    app = slack.workspace.installations[slack.bot_token]
    app.revoked = True
    lost = await slack.say("C1", "U1", f"{BOT} lost")
    await slack.until(lambda: [c for c in slack.called("chat.postMessage") if c.error])
    app.revoked = False
    ts = await slack.say("C1", "U1", f"{BOT} hi")
    await house.answered("C1", ts, "echo: hi")
    assert slack.replies("C1", lost) == []
    assert "SLACK_BOT_TOKEN was revoked: at api.slack.com/apps" in capsys.readouterr().out


async def test_an_app_token_that_is_revoked_while_it_runs_is_named(
    house: SlackHouse, capsys: pytest.CaptureFixture[str]
) -> None:
    slack = house.slack
    slack.api.app_token = "xapp-another"
    await slack.delivery.disconnect()
    said = ""

    async def named() -> bool:
        nonlocal said
        said += capsys.readouterr().out
        return "SLACK_APP_TOKEN is not a token that Slack knows" in said

    await until(named)


async def test_a_missing_scope_is_named(redis: Redis) -> None:
    async with slack_house(redis) as house:
        app = house.slack.workspace.installations[house.slack.bot_token]
        app.scopes -= {"users:read"}
        with pytest.raises(OperatorError, match=r"lacks users:read.*OAuth & Permissions"):
            await house.adapter()


async def test_a_wrong_bot_token_is_named(redis: Redis) -> None:
    async with slack_house(redis, slack_bot_token="xoxb-wrong") as house:
        with pytest.raises(OperatorError, match="SLACK_BOT_TOKEN is not a token"):
            await house.adapter()


async def test_a_bot_token_in_the_place_of_the_app_token_is_named(redis: Redis) -> None:
    async with slack_house(redis, slack_app_token="xoxb-local") as house:
        with pytest.raises(OperatorError, match=r"SLACK_APP_TOKEN.*app-level token"):
            await house.adapter()


async def test_a_slack_that_cannot_be_reached_is_named(redis: Redis) -> None:
    async with slack_house(redis, slack_api_url="http://127.0.0.1:9/api/") as house:
        with pytest.raises(OperatorError, match=r"cannot be reached at http://127\.0\.0\.1:9/api/"):
            await house.adapter()


async def test_a_slack_that_is_unwell_is_no_fault_of_the_token(redis: Redis) -> None:
    async with slack_house(redis) as house:
        house.slack.limits.refuse_next("auth.test")
        with pytest.raises(OperatorError, match=r"ratelimited.*try again"):
            await house.adapter()


async def test_an_app_without_socket_mode_says_where_to_turn_it_on(redis: Redis) -> None:
    async with slack_house(redis) as house:
        house.slack.api.socket_mode = False
        with pytest.raises(OperatorError, match="Enable Socket Mode"):
            await house.adapter()


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
        checks.required_tokens(Settings(data_dir=tmp_path, **given))
