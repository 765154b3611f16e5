"""Two answers in a Discord channel, and people who vote on them."""

from __future__ import annotations

from copy import deepcopy

import pytest

from bots.strings import say
from core.access_policy import Policy
from core.place_rules import Rules
from core.queue_types import Place
from storage.feedback import RedisPreferences
from storage.rules import RedisRules
from tests.local_discord import payloads as p
from tests.local_discord.deployment import ALICE, BOB, LANE, DiscordDeployment, words
from tests.local_discord.expectations import answered, the_answer, told

OTHER = "other-model"
POLICY = Policy(
    everywhere=Rules(duel=f"{OTHER}:1", duel_votes=2, collect=True),
    training_permitted=("discord",),
)
A, TIE, B, BAD = range(4)


async def a_channel(deployment: DiscordDeployment, policy: Policy = POLICY) -> str:
    channel = deployment.discord.add_channel(deployment.discord.add_guild())
    for lane in (LANE, OTHER):
        await deployment.start_core(lane=lane, policy=policy)
    await deployment.start_bot(policy=policy)
    return channel


def labels(message: p.Payload) -> list[str]:
    return [
        button.get("label", "")
        for row in message.get("components", ())
        for button in row["components"]
    ]


async def a_duel(deployment: DiscordDeployment, channel: str) -> p.Payload:
    used = await deployment.discord.uses(ALICE, channel, "ask", {"prompt": "why?"})
    await answered(deployment, used)
    where = deployment.discord.world.messages[channel]
    await deployment.discord.until(lambda: "Both bad" in labels(where[used.original]))
    return where[used.original]


def preferences(deployment: DiscordDeployment) -> RedisPreferences:
    store = deployment.stores.store
    return RedisPreferences(store, RedisRules(store, POLICY))


async def test_people_vote_on_two_answers_and_the_models_are_named(
    deployment: DiscordDeployment,
) -> None:
    general = await a_channel(deployment)
    message = deepcopy(await a_duel(deployment, general))  # as people see it before the end
    assert message["content"].startswith("**A**\n\necho: why?\n\n**B**\n\necho: why?")
    assert say("collects", "en") in message["content"]
    assert OTHER not in message["content"]
    assert labels(message) == ["A", "Tie", "B", "Both bad"]
    place = Place("discord", str(deployment.discord.world.guild_of(general)))
    for person, number, key in ((ALICE, A, "voted_a"), (ALICE, BAD, "voted_bad"),
                                (BOB, TIE, "voted_tie")):  # fmt: skip
        used = await deployment.discord.presses(person, message, number)
        assert await told(deployment, used) == say(key, "en")
    where, ident = deployment.discord.world.messages[general], str(message["id"])
    await deployment.discord.until(lambda: OTHER in where[ident]["content"])
    assert "A 0 · Tie 1 · B 0 · Both bad 1" in where[ident]["content"]
    assert labels(where[ident]) == ["Regenerate"]
    used = await deployment.discord.presses(BOB, message, A)
    assert await told(deployment, used) == say("duel_over", "en")
    [sample] = [sample async for sample in preferences(deployment).samples(place)]
    assert sample.votes == {str(ALICE["id"]): "bad", str(BOB["id"]): "tie"}


async def test_a_mention_becomes_a_duel_in_its_thread(deployment: DiscordDeployment) -> None:
    general = await a_channel(deployment)
    await deployment.discord.says(BOB, general, "<@bot> why?")
    world = deployment.discord.world

    def shown() -> bool:
        found = [m for messages in world.messages.values() for m in messages.values()]
        return any("Both bad" in labels(m) and "**A**" in m["content"] for m in found)

    await deployment.discord.until(shown)


async def test_a_duel_can_be_stopped_while_it_is_written(deployment: DiscordDeployment) -> None:
    general = deployment.discord.add_channel(deployment.discord.add_guild())
    for lane in (LANE, OTHER):
        await deployment.start_core(20, lane=lane, policy=POLICY, thinking=0.2)
    await deployment.start_bot(policy=POLICY)
    said = await deployment.discord.says(ALICE, general, f"<@bot> {words(60)}")

    def waiting() -> p.Payload | None:
        found = deployment.discord.replies(said["id"])
        return next((m for m in found if labels(m) == [say("stop", "en")]), None)

    message = await deployment.discord.until(waiting)
    assert "word" not in message["content"]
    await deployment.discord.presses(ALICE, message, 0)
    await deployment.discord.until(lambda: say("stopped", "en") in message["content"])
    assert len(deployment.discord.replies(said["id"])) == 1
    assert "**A**" not in message["content"]


async def test_a_private_question_is_no_duel(deployment: DiscordDeployment) -> None:
    general = await a_channel(deployment)
    used = await deployment.discord.uses(ALICE, general, "ask", {"prompt": "why?", "private": True})
    message = await the_answer(deployment, used, f"echo: why?\n-# {say('collects', 'en')}")
    assert "Regenerate" in labels(message)


@pytest.mark.parametrize("denied", [[], [ALICE["id"]]], ids=["member", "denied person"])
async def test_people_say_no_to_training_with_privacy(
    deployment: DiscordDeployment, denied: list[str]
) -> None:
    general = await a_channel(deployment)
    guild = Place("discord", str(deployment.discord.world.guild_of(general)))
    await deployment.rulebook.change(guild, "deny_people", denied, "admin")
    used = await deployment.discord.uses(ALICE, general, "privacy")
    assert say("privacy_training", "en") in await told(deployment, used)
    assert used.answer is not None
    card = {**used.answer["data"], "channel_id": general, "id": "1"}
    assert say("opt_out", "en") in labels(card)
    pressed = await deployment.discord.presses(ALICE, card, 2)
    assert await told(deployment, pressed) == say("opted_out", "en")
    assert await preferences(deployment).has_opted_out(guild, str(ALICE["id"]))
    await deployment.rulebook.change(guild, "deny_people", [], "admin")
    message = await a_duel(deployment, general)
    await told(deployment, await deployment.discord.presses(BOB, message, A))
    assert [one async for one in preferences(deployment).samples(guild)] == []
    used = await deployment.discord.uses(ALICE, general, "privacy")
    await told(deployment, used)
    assert used.answer is not None
    assert say("opt_in", "en") in labels(used.answer["data"])
