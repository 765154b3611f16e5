"""Two answers in a Slack thread, and people who vote on them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from bots.slack import components
from bots.slack.app_home import OPT_IN, OPT_OUT
from bots.strings import say
from core.access_policy import Policy
from core.place_rules import Rules
from core.queue_types import Place
from storage import codec
from storage.feedback import RedisPreferences
from tests.local_slack import Message
from tests.local_slack.deployment import SlackDeployment, slack_deployment
from tests.waiting import until

BOT = "<@U0HENJI>"
OTHER = "other-model"
POLICY = Policy(
    everywhere=Rules(duel=f"{OTHER}:1", duel_votes=2, collect=True), training_permitted=("slack",)
)
A, TIE, B, BAD = (f"henji_vote_{verdict}" for verdict in ("a", "tie", "b", "bad"))


@pytest.fixture
async def deployment(redis: Redis) -> AsyncIterator[SlackDeployment]:
    async with slack_deployment(redis) as deployment:
        deployment.policy = POLICY
        await deployment.core(tokens=6000)
        await deployment.core(name="core of the other", model=OTHER, tokens=6000)
        await deployment.adapter()
        yield deployment
        await deployment.at_rest()


def told(message: Message) -> str:
    """All that can be read of a message."""
    return f"{message.text} {message.blocks}"


async def a_duel(deployment: SlackDeployment, text: str = "why?") -> Message:
    slack = deployment.slack
    ts = await slack.say("C1", "U2", f"{BOT} {text}")

    def voted_on() -> Message | None:
        return next((m for m in slack.replies("C1", ts) if A in m.buttons()), None)

    message: Message = await slack.until(voted_on)
    return message


async def until_told(deployment: SlackDeployment, user: str, key: str) -> None:
    """U1 speaks Japanese."""
    sentence = say(key, "ja" if user == "U1" else "en")
    await deployment.slack.until_whispered(user, sentence)


async def named(deployment: SlackDeployment, message: Message) -> None:
    await deployment.slack.until(lambda: OTHER in told(message))


async def test_two_answers_are_shown_at_once_and_name_no_model(
    deployment: SlackDeployment,
) -> None:
    message = await a_duel(deployment)
    [shown] = [block["text"] for block in message.blocks if block["type"] == "markdown"]
    assert shown == "**A**\n\necho: why?\n\n**B**\n\necho: why?"
    assert list(message.buttons()) == [A, TIE, B, BAD]
    assert [button["text"]["text"] for button in message.buttons().values()] == [
        "A", "Tie", "B", "Both bad",
    ]  # fmt: skip
    assert say("ai_notice_blind", "en") in told(message)
    assert say("collects", "en") in told(message)
    assert OTHER not in told(message)
    assert message.edits == 0  # nothing was seen of the first answer alone
    key = deployment.key("C1", message.thread_ts or "")
    assert await deployment.stores().texts(key) == ["why?", "echo: why?"]


async def test_votes_are_private_and_after_enough_of_them_the_models_are_named(
    deployment: SlackDeployment,
) -> None:
    slack, message = deployment.slack, await a_duel(deployment)
    slack.press("U2", message, A)
    await until_told(deployment, "U2", "voted_a")
    slack.press("U2", message, TIE)  # one vote a person
    await until_told(deployment, "U2", "voted_tie")
    assert message.edits == 0  # no running totals
    slack.press("U1", message, B)
    await until_told(deployment, "U1", "voted_b")
    await named(deployment, message)
    assert "A 0 · Tie 1 · B 1 · Both bad 0" in told(message)
    assert set(message.buttons()) == {components.REGENERATE, components.MENU}
    value = message.buttons()[components.REGENERATE]["value"]
    slack.press("U2", message, components.REGENERATE, action_id=A, value=value)
    await until_told(deployment, "U2", "duel_over")


async def test_a_duel_can_be_stopped_while_it_is_written(redis: Redis) -> None:
    async with slack_deployment(redis) as deployment:
        deployment.policy = POLICY
        for name, model in (("core", "echo"), ("core of the other", OTHER)):
            await deployment.core(20, name=name, model=model, thinking=0.2)
        await deployment.adapter()
        slack = deployment.slack
        ts = await slack.say("C1", "U2", f"{BOT} {'a long question ' * 20}")
        await slack.until(lambda: "processing" in slack.workspace.sessions.values())
        assert slack.replies("C1", ts) == []
        slack.stop("U2", "C1", ts)
        await slack.until(lambda: say("stopped", "en") in str(slack.replies("C1", ts)))
        assert "**A**" not in told(slack.replies("C1", ts)[0])
        await deployment.at_rest()


async def test_a_press_works_in_another_process_and_twice_is_once(
    deployment: SlackDeployment,
) -> None:
    slack, message = deployment.slack, await a_duel(deployment)
    await deployment.stop("adapter")
    await deployment.adapter("another")
    slack.press("U2", message, B)
    slack.press("U2", message, B)
    await until_told(deployment, "U2", "voted_b")
    preferences = RedisPreferences(deployment.store(), deployment.rulebook)
    place = Place("slack", slack.workspace.team, "C1")
    [duel] = [duel async for duel in preferences.duels(place)]
    assert duel.votes == {"U2": "b"}
    assert {answer.model for answer in duel.answers} == {"echo", OTHER}
    [sample] = [sample async for sample in preferences.samples(place)]
    assert list(sample.votes) == ["U2"]
    assert {trace.model for trace in sample.traces if trace} == {"echo", OTHER}


async def test_a_person_who_may_not_ask_may_not_vote(deployment: SlackDeployment) -> None:
    slack, message = deployment.slack, await a_duel(deployment)
    place = Place("slack", slack.workspace.team)
    await deployment.rulebook.change(place, "deny_people", ["U1"], "UADMIN")
    slack.press("U1", message, A)
    await until_told(deployment, "U1", "not_allowed")
    preferences = RedisPreferences(deployment.store(), deployment.rulebook)
    [duel] = [duel async for duel in preferences.duels(place)]
    assert duel.votes == {}


async def test_long_answers_become_separate_messages(deployment: SlackDeployment) -> None:
    text = " ".join(f"word{number}" for number in range(700))  # 5 kB
    message = await a_duel(deployment, text)
    first, last = deployment.slack.replies("C1", message.thread_ts or "")
    assert "**A**" in told(first)
    assert "**B**" in told(last)
    assert not first.buttons()
    assert last is message


async def test_a_deleted_duel_takes_no_more_votes(deployment: SlackDeployment) -> None:
    slack, message = deployment.slack, await a_duel(deployment)
    slack.press("U1", message, A)
    await until_told(deployment, "U1", "voted_a")  # the bot has recorded its message by then
    await slack.delete("C1", message.ts)
    key = deployment.key("C1", message.thread_ts or "")
    stores = deployment.stores()

    async def forgotten() -> bool:
        return await stores.texts(key) == ["why?"]

    await until(forgotten)
    slack.press("U2", message, A)
    await until_told(deployment, "U2", "duel_over")


@pytest.mark.parametrize("denied", [[], ["U2"]], ids=["member", "denied person"])
async def test_people_say_no_to_training_on_the_home_page(
    deployment: SlackDeployment, denied: list[str]
) -> None:
    slack = deployment.slack
    space = Place("slack", slack.workspace.team)
    await deployment.rulebook.change(space, "deny_people", denied, "admin")
    slack.open_home("U2")
    await slack.until(lambda: OPT_OUT in str(slack.workspace.views.get("U2")))
    slack.press_home("U2", OPT_OUT)
    await slack.until(lambda: OPT_IN in str(slack.workspace.views["U2"]))
    assert say("opted_out", "en")[:30] in codec.dump(slack.workspace.views["U2"])
    await deployment.rulebook.change(space, "deny_people", [], "admin")
    message = await a_duel(deployment)
    slack.press("U1", message, A)
    await until_told(deployment, "U1", "voted_a")
    preferences = RedisPreferences(deployment.store(), deployment.rulebook)
    assert [one async for one in preferences.samples(space)] == []
    slack.press_home("U2", OPT_IN)
    await slack.until(lambda: OPT_OUT in str(slack.workspace.views["U2"]))


async def test_without_permission_collecting_cannot_be_set(deployment: SlackDeployment) -> None:
    await deployment.stop("adapter")
    deployment.policy = Policy()
    await deployment.adapter("another")
    slack = deployment.slack
    slack.command("UADMIN", "C1", "config collect on")
    await slack.until(
        lambda: any("training_permitted" in r["text"] for r in slack.workspace.responses)
    )
    assert (
        await deployment.rulebook.set_here(Place("slack", slack.workspace.team, "C1"))
    ) == Rules()
