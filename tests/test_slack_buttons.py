"""Buttons and commands: regenerate, feedback, reset, help; and permissions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from bots.guide import EXAMPLES
from bots.slack import components
from bots.slack.app_home import FORGET_ME, RESET_CHANNEL, RESET_SPACE
from bots.slack.manifest import ASK_SHORTCUT, RESET_SHORTCUT
from bots.strings import say
from core.models.catalogue import CATALOGUE
from core.queue_types import Place
from tests.local_slack import Json, Message
from tests.local_slack.deployment import LANE, SlackDeployment, slack_at_work, slack_deployment

BOT = "<@U0HENJI>"


@pytest.fixture
async def deployment(redis: Redis) -> AsyncIterator[SlackDeployment]:
    async with slack_at_work(redis) as deployment:
        yield deployment


async def asked(
    deployment: SlackDeployment, text: str = "一", user: str = "U1"
) -> tuple[str, Message]:
    ts = await deployment.slack.say("C1", user, f"{BOT} {text}")
    return ts, await deployment.answered("C1", ts, f"echo: {text}")


async def modal(deployment: SlackDeployment, callback: str) -> Json:
    def opened() -> Json | None:
        views = deployment.slack.workspace.views.values()
        return next((v for v in views if v.get("callback_id") == callback), None)

    view: Json = await deployment.slack.until(opened)
    return view


# -- under a reply ---------------------------------------------------------------------------


async def test_regenerate_answers_again_in_place_and_again_after_a_restart(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    ts, reply = await asked(deployment)
    slack.press("U1", reply, components.REGENERATE)
    await slack.until(lambda: reply.edits == 1 and components.FEEDBACK in reply.buttons())
    await deployment.stop("adapter")
    await deployment.adapter("another")
    slack.press("U1", reply, components.REGENERATE)
    await slack.until(lambda: reply.edits == 2 and components.FEEDBACK in reply.buttons())
    assert slack.replies("C1", ts) == [reply]
    assert await deployment.stores().texts(deployment.key("C1", ts)) == ["一", "echo: 一"]


async def test_only_the_asker_and_admins_may_regenerate(deployment: SlackDeployment) -> None:
    slack = deployment.slack
    _, reply = await asked(deployment)
    slack.press("U2", reply, components.REGENERATE)
    await deployment.slack.until_whispered("U2", "Only the person who asked")
    assert reply.edits == 0
    slack.press("UADMIN", reply, components.REGENERATE)
    await slack.until(lambda: reply.edits == 1)


async def test_a_reply_whose_prompt_is_forgotten_is_not_regenerated(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    ts, reply = await asked(deployment)
    await deployment.stores().history.reset(deployment.key("C1", ts), "test")
    slack.press("U1", reply, components.REGENERATE)
    await deployment.slack.until_whispered("U1", "もう記憶にない")


async def test_feedback_is_stored_with_model_and_reason(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    _, reply = await asked(deployment)
    await deployment.stop("adapter")
    await deployment.adapter("another")  # all that a press needs is in the button
    buttons = reply.buttons()[components.FEEDBACK]
    slack.press("U2", reply, components.FEEDBACK, value=buttons["negative_button"]["value"])
    view = await modal(deployment, "henji_reason")
    feedback, space = deployment.stores().feedback, Place("slack", slack.workspace.team)
    [opinion] = await feedback.opinions(space)
    assert (opinion.by, opinion.rating, opinion.reason) == ("U2", "bad", "")
    slack.submit("U2", view, {"reason": {"reason": {"value": "too short"}}})
    await deployment.slack.until_whispered("U2", "Thank you")
    [opinion] = await feedback.opinions(space)
    assert (opinion.rating, opinion.reason, opinion.model) == ("bad", "too short", "echo")
    assert opinion.sampling == CATALOGUE["echo"].sampling
    assert opinion.job == (reply.metadata or {})["event_payload"]["job"]
    await deployment.stores().history.forget(space, "U2")
    assert await feedback.opinions(space) == []


# -- resets ----------------------------------------------------------------------------------


async def test_reset_as_a_word_forgets_the_thread(deployment: SlackDeployment) -> None:
    ts, _ = await asked(deployment)
    await deployment.slack.say("C1", "U2", f"{BOT} reset", thread=ts)
    await deployment.slack.until_whispered("U2", "forgotten")
    assert await deployment.stores().texts(deployment.key("C1", ts)) == []


async def test_a_shortcut_resets_a_thread_after_confirmation(deployment: SlackDeployment) -> None:
    slack = deployment.slack
    ts, reply = await asked(deployment)
    slack.shortcut("U1", RESET_SHORTCUT, reply)
    view = await modal(deployment, "henji_confirm_reset")
    slack.submit("U1", view, {})
    await deployment.slack.until_whispered("U1", "忘れました")
    assert await deployment.stores().texts(deployment.key("C1", ts)) == []


async def responded(deployment: SlackDeployment, part: str) -> None:
    """A command was answered, by the address that came with it."""
    slack = deployment.slack
    answers = slack.workspace.responses
    await slack.until(lambda: any(part.lower() in r["text"].lower() for r in answers))


async def test_the_menu_under_a_reply_resets_its_thread_after_confirmation(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    ts, reply = await asked(deployment)
    slack.press("U2", reply, components.MENU, value="reset")
    view = await modal(deployment, "henji_confirm_reset")
    slack.submit("U2", view, {})
    await deployment.slack.until_whispered("U2", "This conversation is forgotten")
    assert await deployment.stores().texts(deployment.key("C1", ts)) == []


async def test_a_channel_is_reset_by_admins_and_refused_to_others(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    ts, _ = await asked(deployment)
    slack.command("U2", "C1", "reset")
    view = await modal(deployment, "henji_confirm_reset")
    slack.submit("U2", view, {})
    await responded(deployment, "Only admins")
    assert await deployment.stores().texts(deployment.key("C1", ts)) != []
    slack.submit("UADMIN", view, {})
    await responded(deployment, "消しました")
    assert await deployment.stores().texts(deployment.key("C1", ts)) == []


async def test_the_home_page_explains_the_bot_and_forgets_a_persons_messages(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    ts, _ = await asked(deployment)
    slack.open_home("U1")
    page = await slack.until(lambda: slack.workspace.views.get("U1"))
    assert "echo" in str(page)
    assert "30日間" in str(page)
    assert say("guide_blind", "ja") in str(page)
    assert all(say(key, "ja") in str(page) for key in EXAMPLES)
    assert RESET_SPACE not in str(page)
    slack.press_home("U1", FORGET_ME)
    await slack.until(lambda: "消しました" in str(slack.workspace.views["U1"]))
    assert await deployment.stores().texts(deployment.key("C1", ts)) == []


async def test_admins_choose_the_scope_of_a_reset_on_the_home_page(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    ts, _ = await asked(deployment)
    slack.open_home("UADMIN")
    await slack.until(lambda: RESET_SPACE in str(slack.workspace.views.get("UADMIN")))
    slack.press_home("UADMIN", RESET_CHANNEL)
    view = await modal(deployment, "henji_confirm_reset")
    slack.submit("UADMIN", view, {"what": {"what": {"selected_conversation": "C1"}}})
    await slack.until(lambda: "消しました" in str(slack.workspace.views["UADMIN"]))
    assert await deployment.stores().texts(deployment.key("C1", ts)) == []


# -- commands --------------------------------------------------------------------------------


async def test_a_slash_command_begins_a_new_thread(deployment: SlackDeployment) -> None:
    slack = deployment.slack
    slack.command("U1", "C1", "ask 今日は?")
    question = await slack.until(
        lambda: next((m for m in slack.workspace.messages.values() if "今日は?" in m.text), None)
    )
    assert question.thread_ts is None
    await deployment.answered("C1", question.ts, "echo: 今日は?")


async def test_a_person_gets_a_notice_if_their_question_cannot_be_posted(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    root = await slack.say("C1", "U2", "the numbers are in")
    slack.workspace.without_app.add("C1")
    slack.command("U2", "C1", "ask what now?")
    await responded(deployment, "Please invite me")
    slack.shortcut("U2", ASK_SHORTCUT, slack.workspace.messages["C1", root])
    view = await modal(deployment, "henji_asked")
    slack.submit("U2", view, {"question": {"question": {"value": "what now?"}}})
    await slack.until(lambda: len(slack.workspace.responses) == 2)
    assert "Please invite me" in slack.workspace.responses[1]["text"]


async def test_commands_are_acknowledged_before_their_questions_are_posted(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    slack.api.slow |= {"chat.postMessage": 4.0, "users.info": 4.0}
    envelopes = [slack.command("U1", "C1", f"ask {n}") for n in range(6)]
    envelopes += [slack.command("U1", "C1", word) for word in ("help", "config", "reset")]
    async with asyncio.timeout(5):
        for envelope in envelopes:
            await envelope.done.wait()
    assert max(e.acknowledged - e.sent for e in envelopes) < 0.5
    slack.api.slow.clear()
    for n in range(6):
        root = await slack.until(lambda n=n: posted(deployment, str(n)))
        await deployment.answered("C1", root.ts, f"echo: {n}")


def posted(deployment: SlackDeployment, part: str) -> Message | None:
    """The question that the bot posted for a person."""
    messages = deployment.slack.workspace.messages.values()
    return next((m for m in messages if m.metadata and m.text.endswith(part)), None)


async def test_a_question_that_is_not_stored_is_neither_acknowledged_nor_asked(
    redis: Redis,
) -> None:
    async with slack_deployment(redis, minute=0.3) as deployment:
        slack = deployment.slack
        await deployment.core()
        await deployment.adapter()
        await redis.config_set("maxmemory", "1")  # Redis takes no writes
        try:
            lost = slack.command("U1", "C1", "ask 今日は?")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(lost.done.wait(), 1.0)
        finally:
            await redis.config_set("maxmemory", "0")
        slack.command("U1", "C1", "ask 明日は?")
        root = await slack.until(lambda: posted(deployment, "明日は?"))
        await deployment.answered("C1", root.ts, "echo: 明日は?")
        assert await deployment.stores().outbox.entries("slack") == {}


@pytest.mark.parametrize("was_posted", [False, True])
async def test_a_question_of_a_killed_process_is_asked_once_by_another(
    redis: Redis, redis_url: str, was_posted: bool
) -> None:
    async with slack_deployment(redis, minute=2) as deployment:
        slack = deployment.slack
        await deployment.core()
        process = await deployment.adapter_process(redis_url)
        slack.api.slow["chat.postMessage"] = 60.0
        if not was_posted:
            slack.workspace.without_answer.add("chat.postMessage")
        envelope = slack.command("U1", "C1", "ask 今日は?")
        await envelope.done.wait()
        await slack.until(lambda: slack.called("chat.postMessage"))
        process.kill()
        await process.wait()
        slack.api.slow.clear()
        slack.workspace.without_answer.clear()
        await deployment.adapter()
        root = await slack.until(lambda: posted(deployment, "今日は?"))
        await deployment.answered("C1", root.ts, "echo: 今日は?")
        questions = [m for m in slack.workspace.messages.values() if m.text == root.text]
        assert questions == [root]


async def test_the_search_for_a_lost_reply_skips_the_posted_question(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    await deployment.stop("core")
    await deployment.stores().queue.announce(LANE, "busy", 60)
    slack.command("U1", "C1", "ask 今日は?")
    [question] = await slack.until(lambda: slack.called("chat.postMessage"))
    slack.api.lost["chat.postMessage"] = 1
    await deployment.core()
    [root] = [m for m in slack.workspace.messages.values() if m.text == question.arguments["text"]]
    await deployment.answered("C1", root.ts, "echo: 今日は?")
    assert root.edits == 0
    assert len(slack.replies("C1", root.ts)) == 2  # the question, and one reply


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("help", "Mention me"),
        ("help", "images, PDFs"),
        ("privacy", "30 days"),
        ("usage", "messages (you, here): 0 used"),
        ("model", "echo"),
        ("what", "`/henji ask`"),
    ],
)
async def test_slash_commands_are_answered_privately(
    deployment: SlackDeployment, word: str, part: str
) -> None:
    deployment.slack.command("U2", "C1", word)
    await responded(deployment, part)


@pytest.mark.parametrize("word", ["help", "privacy"])
async def test_the_host_that_is_sent_people_s_words_is_named(
    deployment: SlackDeployment, word: str
) -> None:
    await deployment.stores().queue.announce("echo", "gpu-1@llm.example.com", 60)
    deployment.slack.command("U2", "C1", word)
    await responded(deployment, "at llm.example.com")


async def test_the_home_page_names_the_host_that_is_sent_people_s_words(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    await deployment.stores().queue.announce("echo", "gpu-1@llm.example.com", 60)
    slack.open_home("U2")
    await slack.until(lambda: "llm.example.com" in str(slack.workspace.views.get("U2")))


@pytest.mark.parametrize(
    ("word", "part"), [("help", "language model"), ("privacy", "30 days"), ("model", "echo")]
)
async def test_the_menu_under_a_reply_has_the_commands_too(
    deployment: SlackDeployment, word: str, part: str
) -> None:
    _, reply = await asked(deployment)
    deployment.slack.press("U2", reply, components.MENU, value=word)
    await deployment.slack.until_whispered("U2", part)


async def test_commands_work_as_words_inside_threads(deployment: SlackDeployment) -> None:
    ts, _ = await asked(deployment)
    await deployment.slack.say("C1", "U2", f"{BOT} help", thread=ts)
    await deployment.slack.until_whispered("U2", "language model")
    assert len(deployment.slack.replies("C1", ts)) == 1


async def test_a_shortcut_asks_about_a_message(deployment: SlackDeployment) -> None:
    slack = deployment.slack
    root = await slack.say("C1", "U2", "the numbers are in")
    message = slack.workspace.messages["C1", root]
    slack.shortcut("U1", ASK_SHORTCUT, message)
    view = await modal(deployment, "henji_asked")
    slack.submit("U1", view, {"question": {"question": {"value": "つまり?"}}})
    await deployment.answered("C1", root, "echo: つまり?")
    texts = await deployment.stores().texts(deployment.key("C1", root))
    assert texts == ["the numbers are in", "つまり?", "echo: つまり?"]


async def test_the_agent_pane_suggests_what_to_ask(deployment: SlackDeployment) -> None:
    slack = deployment.slack
    slack.open_home("U1", tab="messages")
    prompts = await slack.until(lambda: slack.workspace.prompts.get("DU1"))
    assert len(prompts["prompts"]) == 3
