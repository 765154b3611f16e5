"""Conversations in Slack, as people see them: the real adapter, the real relay, a real Valkey."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from zoneinfo import ZoneInfo

import aiohttp
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from bots.slack import components
from bots.slack.manifest import BRANCH_SHORTCUT
from bots.slack.platform import SlackPlatform
from bots.strings import say
from core.access_policy import Policy
from core.place_rules import Rules
from core.queue_types import Place
from tests.local_slack import Message
from tests.local_slack.deployment import SlackDeployment, slack_at_work, slack_deployment
from tests.waiting import until

CONNECTED = "connected to slack"
BOT = "<@U0HENJI>"
TOKYO = ZoneInfo("Asia/Tokyo")


@pytest.fixture
async def deployment(redis: Redis) -> AsyncIterator[SlackDeployment]:
    async with slack_at_work(redis) as deployment:
        yield deployment


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
    ts = await deployment.asks("one")
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
            await deployment.answered(channel, ts, text)
        assert all(len(slack.replies(place[0], ts)) == 1 for ts, place in asked.items())
        early = [call for call in slack.api.calls if call.error == "ratelimited"]
        assert len(early) <= 2  # on a busy machine, a call that was slow makes the next one early
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
        await deployment.asks("hi")


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


# -- the rest of a quota, and fitting help -------------------------------------------------------


async def said_to(deployment: SlackDeployment, text: str) -> str:
    """The answer to a command that has this text in it."""

    def found() -> str | None:
        answers = [str(one["text"]) for one in deployment.slack.workspace.responses]
        return next((answer for answer in answers if text in answer), None)

    return str(await deployment.slack.until(found))


async def test_a_person_sees_what_they_have_used_what_is_left_and_when_it_starts_again(
    redis: Redis,
) -> None:
    policy = Policy(everywhere=Rules(person_messages=3, channel_tokens=9000), zone=TOKYO)
    async with slack_deployment(redis) as deployment:
        deployment.policy = policy
        await deployment.core()
        await deployment.adapter()
        await deployment.asks("one", "U2")
        deployment.slack.command("U2", "C1", "usage")
        said = await said_to(deployment, "What was used today")
        assert "• messages (you, here): 1 of 3 used, 2 left." in said
        assert said.splitlines()[2].startswith("• tokens (you, here): ")
        assert "without a limit" in said.splitlines()[2]
        assert said.splitlines()[3].startswith("• tokens (this channel, everybody): ")
        assert "of 9,000 used" in said
        assert "It starts again at 00:00 (JST)." in said
        deployment.slack.command("U2", "C2", "help")
        said = await said_to(deployment, "Here are three examples")
        assert "left today: messages 2, tokens 9,000. It starts again at 00:00 (JST)." in said


async def test_help_names_what_a_place_offers_its_own_model_and_what_admins_have(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    place = Place("slack", slack.workspace.team, "C1")
    await deployment.rulebook.change(place, "models", ("house",), "UADMIN")
    await deployment.rulebook.change(place, "retention_days", 7.0, "UADMIN")
    slack.command("U2", "C1", "help")
    said = await said_to(deployment, "Here are three examples")
    assert "You can choose who answers in a conversation: house (away)." in said
    assert "for 7 days" in said
    assert "about 7 pages in one go (5,120 tokens)" in said
    assert "As an admin" not in said
    slack.workspace.responses.clear()
    await deployment.rulebook.change(place, "model", "house", "UADMIN")
    slack.workspace.people["UADMIN"].locale = "en-US"
    slack.command("UADMIN", "C1", "help")
    said = await said_to(deployment, "As an admin, you also have `config`, `audit`.")
    assert "(house)" in said
    assert "in one go" not in said  # without a core, the length that a model reads is unknown


async def test_a_denied_person_is_told_what_is_still_open_to_them(
    deployment: SlackDeployment,
) -> None:
    space = Place("slack", deployment.slack.workspace.team)
    await deployment.rulebook.change(space, "deny_people", ["U2"], "UADMIN")
    deployment.slack.command("U2", "C1", "help")
    said = await said_to(deployment, "I am not set up to answer you here")
    assert "have everything that you said forgotten, on my home page" in said
    deployment.slack.command("U2", "C1", "usage")
    said = await said_to(deployment, "I am not set up to answer you here")
    assert "messages" not in said


async def test_the_first_words_in_a_direct_message_are_the_help_once(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    slack.open_home("U2", tab="messages")

    def greetings() -> list[str]:
        return [m.text for m in slack.workspace.channel("DU2") if "images, PDFs" in m.text]

    await slack.until(greetings)
    await deployment.stop("adapter")
    await deployment.adapter()
    slack.open_home("U2", tab="messages")
    await slack.until(lambda: len(slack.called("assistant.threads.setSuggestedPrompts")) == 2)
    await deployment.settled()
    assert len(greetings()) == 1


# -- a long reply as one file ---------------------------------------------------------------------

LONG = "。".join(f"{number}番目の長い文" for number in range(250))


async def a_long_reply(deployment: SlackDeployment, channel: str = "C1") -> tuple[str, Message]:
    """A thread with a reply of four messages or more, and its last message."""
    slack = deployment.slack
    mention = "" if channel.startswith("D") else f"{BOT} "
    ts = await slack.say(channel, "U2", f"{mention}{LONG}")

    def last() -> Message | None:
        replies = slack.replies(channel, ts)
        return replies[-1] if replies and components.FILE in replies[-1].buttons() else None

    return ts, await slack.until(last)


@pytest.fixture
async def long_replies(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[SlackDeployment]:
    """A deployment whose messages hold 1,500 bytes."""
    monkeypatch.setattr(SlackPlatform, "part_length", 1500)
    async with slack_deployment(redis, max_new_tokens=4000) as deployment:
        await deployment.core(tokens=4000)
        await deployment.adapter()
        yield deployment
        await deployment.at_rest()


def files_in(deployment: SlackDeployment, channel: str) -> list[str]:
    """The texts of the files that stand in a channel."""
    held = deployment.slack.workspace
    shared = [file for message in held.channel(channel) for file in message.files]
    return [held.files[file["id"]].decode() for file in shared]


async def test_a_long_reply_is_one_file_for_the_person_who_presses(
    long_replies: SlackDeployment,
) -> None:
    slack = long_replies.slack
    ts, last = await a_long_reply(long_replies)
    assert len(slack.replies("C1", ts)) >= 4
    assert all(components.FILE not in m.buttons() for m in slack.replies("C1", ts)[:-1])
    slack.press("U1", last, components.FILE)
    await slack.until(lambda: files_in(long_replies, "DU1"))
    assert files_in(long_replies, "DU1") == [f"echo: {LONG}"]
    assert files_in(long_replies, "C1") == []
    await slack.until(lambda: say("file_is_sent", "ja") in [m.text for m in slack.whispers("U1")])
    await long_replies.stores().history.reset(long_replies.key("C1", ts), "U2")
    slack.press("U2", last, components.FILE)
    gone = say("file_gone_by_now", "en")
    await slack.until(lambda: gone in [m.text for m in slack.whispers("U2")])
    assert files_in(long_replies, "DU2") == []


async def test_in_a_direct_message_the_file_is_in_its_thread(long_replies: SlackDeployment) -> None:
    slack = long_replies.slack
    ts, last = await a_long_reply(long_replies, "D1")
    slack.press("U2", last, components.FILE)
    await slack.until(lambda: files_in(long_replies, "D1"))
    [shared] = [m for m in slack.workspace.channel("D1") if m.files]
    assert shared.thread_ts == ts
    assert files_in(long_replies, "D1") == [f"echo: {LONG}"]


async def test_an_app_that_may_not_write_files_says_so(long_replies: SlackDeployment) -> None:
    slack = long_replies.slack
    app = slack.workspace.installations[slack.bot_token]
    app.scopes = app.scopes - {"files:write"}
    _, last = await a_long_reply(long_replies)
    slack.press("U2", last, components.FILE)
    await slack.until(lambda: any("files:write" in m.text for m in slack.whispers("U2")))
    assert files_in(long_replies, "DU2") == []


# -- continue from here ---------------------------------------------------------------------------


async def branch_of(deployment: SlackDeployment, user: str, message: Message) -> str:
    """The thread that a person continues in."""
    slack = deployment.slack
    known = {m.ts for m in slack.workspace.channel(message.channel)}
    slack.shortcut(user, BRANCH_SHORTCUT, message)

    def opened() -> str | None:
        new = [m for m in slack.workspace.channel(message.channel) if m.ts not in known]
        roots = [m.ts for m in new if m.thread_ts is None and m.user == slack.bot_user]
        if not roots or len(slack.workspace.thread(message.channel, roots[0])) < 2:
            return None
        return roots[0]

    return str(await slack.until(opened))


async def test_a_conversation_is_continued_from_a_message_in_a_new_thread(
    deployment: SlackDeployment,
) -> None:
    slack, stores = deployment.slack, deployment.stores()
    ts = await slack.say("C1", "U1", f"{BOT} one")
    first = await deployment.answered("C1", ts, "echo: one")
    await slack.say("C1", "U1", f"{BOT} two", thread=ts)
    await deployment.answered("C1", ts, "echo: two")
    root = await branch_of(deployment, "U2", first)
    opener, said = slack.workspace.thread("C1", root)
    assert "<@U2> continues from <https://local.slack.com/archives/C1/p" in opener.text
    assert "Mention me in your first message here: @henji." in said.text
    await slack.until(lambda: root.replace(".", "") in str(slack.workspace.responses))
    assert await stores.texts(deployment.key("C1", root)) == ["one", "echo: one"]
    await slack.say("C1", "U2", f"{BOT} three", thread=root)
    await deployment.answered("C1", root, "echo: three")
    await slack.say("C1", "U2", "four", thread=root)  # and without a mention from then on
    await deployment.answered("C1", root, "echo: four")
    assert await stores.texts(deployment.key("C1", ts)) == ["one", "echo: one", "two", "echo: two"]
    await slack.edit("C1", ts, f"{BOT} uno")

    async def edited() -> bool:
        texts = await stores.texts(deployment.key("C1", root))
        return texts[:3] == ["uno", "echo: one", "three"]

    await until(edited)
    await slack.delete("C1", first.ts)

    async def deleted() -> bool:
        return "echo: one" not in await stores.texts(deployment.key("C1", root))

    await until(deleted)


async def test_a_direct_message_is_continued_in_a_new_conversation(
    deployment: SlackDeployment,
) -> None:
    ts = await deployment.slack.say("D1", "U2", "one")
    reply = await deployment.answered("D1", ts, "echo: one")
    root = await branch_of(deployment, "U2", reply)
    await deployment.slack.say("D1", "U2", "two", thread=root)
    await deployment.answered("D1", root, "echo: two")
    texts = await deployment.stores().texts(deployment.key("D1", root))
    assert texts == ["one", "echo: one", "two", "echo: two"]


async def test_what_is_not_remembered_is_not_continued_and_nothing_is_posted(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    ts = await slack.say("C1", "U1", "among ourselves")
    slack.shortcut("U2", BRANCH_SHORTCUT, slack.workspace.messages["C1", ts])
    await said_to(deployment, say("branch_gone", "en"))
    assert [m.ts for m in slack.workspace.channel("C1")] == [ts]


async def test_who_cannot_read_the_channel_cannot_continue_from_it(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    slack.workspace.members["C7"] = {"U1", "U0HENJI"}
    ts = await slack.say("C7", "U1", f"{BOT} private")
    reply = await deployment.answered("C7", ts, "echo: private")
    slack.shortcut("U2", BRANCH_SHORTCUT, reply)
    await said_to(deployment, say("catchup_no_access", "en"))
    assert len(slack.workspace.channel("C7")) == 2
