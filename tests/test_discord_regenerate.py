"""Regenerated replies: by whom, in which place, and where only a token reaches them."""

from __future__ import annotations

from bots.strings import say
from tests.local_discord import payloads as p
from tests.local_discord.deployment import ALICE, BOB, DiscordDeployment, words
from tests.local_discord.expectations import (
    AGAIN,
    NOBODY,
    STOP,
    answered,
    the_answer,
    told,
    until_it_says,
    with_its_buttons,
)
from tests.local_discord.validation import EPHEMERAL

SOMEBODY = {"authorizing_integration_owners": {"1": ALICE["id"]}}
"""The app is installed for a person alone."""
LONG = "。".join(f"{number}番目の長い文" for number in range(200))[:1950]
"""Its echo takes two messages."""


async def a_reply_in_a_thread(deployment: DiscordDeployment, general: str) -> p.Payload:
    said = await deployment.discord.says(ALICE, general, "<@bot> hello")
    [reply] = await deployment.discord.until(lambda: deployment.discord.replies(said["id"]))
    await until_it_says(deployment, said["id"], reply["id"], "echo: hello")
    return await with_its_buttons(deployment, reply)


def button(reply: p.Payload, number: int = AGAIN) -> str:
    return str(reply["components"][0]["components"][number]["custom_id"])


async def until_rewritten(deployment: DiscordDeployment, reply: p.Payload, before: str) -> None:
    """The reply is shown with the buttons of another job."""

    def so() -> bool:
        rows = reply["components"]
        return bool(rows) and len(rows[0]["components"]) == 3 and button(reply) != before

    await deployment.discord.until(so)


# -- rights -------------------------------------------------------------------------------------


async def test_the_command_regenerates_the_newest_reply_in_its_place(
    deployment: DiscordDeployment, general: str
) -> None:
    reply = await a_reply_in_a_thread(deployment, general)
    before = button(reply)
    used = await deployment.discord.uses(ALICE, reply["channel_id"], "regenerate", locale="ja")
    assert await told(deployment, used) == say("regenerating", "ja")
    await until_rewritten(deployment, reply, before)
    assert len(deployment.discord.replies(reply["channel_id"])) == 1


async def test_the_command_is_refused_to_everybody_but_the_asker(
    deployment: DiscordDeployment, general: str
) -> None:
    reply = await a_reply_in_a_thread(deployment, general)
    used = await deployment.discord.uses(BOB, reply["channel_id"], "regenerate", permissions=NOBODY)
    assert await told(deployment, used) == say("not_yours", "en")


async def test_the_asker_still_governs_a_reply_that_an_admin_regenerated(
    deployment: DiscordDeployment, general: str
) -> None:
    reply = await a_reply_in_a_thread(deployment, general)
    before = button(reply)
    pressed = await deployment.discord.presses(BOB, reply, AGAIN)
    assert (await answered(deployment, pressed))["type"] == 6
    await until_rewritten(deployment, reply, before)
    before = button(reply)
    pressed = await deployment.discord.presses(ALICE, reply, AGAIN, permissions=NOBODY)
    assert (await answered(deployment, pressed))["type"] == 6
    await until_rewritten(deployment, reply, before)


async def test_a_reply_that_has_ended_cannot_be_stopped(
    deployment: DiscordDeployment, general: str
) -> None:
    await deployment.start_core(tokens_per_second=30)
    used = await deployment.discord.uses(ALICE, general, "ask", {"prompt": "hello"})
    message = await the_answer(deployment, used, "echo: hello")
    await with_its_buttons(deployment, message)
    stop = button(message).replace(".a.", ".s.")
    old = {**message, "components": [{"components": [{"custom_id": stop}]}]}
    pressed = await deployment.discord.presses(ALICE, old, STOP)
    assert (await answered(deployment, pressed))["data"]["content"] == say("too_late", "en")


async def test_the_stop_command_stops_ones_own_reply(deployment: DiscordDeployment) -> None:
    general = await deployment.ready(tokens_per_second=30)
    used = await deployment.discord.uses(ALICE, general, "ask", {"prompt": words(100)})
    where = deployment.discord.world.messages
    await answered(deployment, used)
    await deployment.discord.until(lambda: "word" in where[general][used.original]["content"])
    other = await deployment.discord.uses(BOB, general, "stop")
    assert await told(deployment, other) == say("nothing_to_stop", "en")
    stop = await deployment.discord.uses(ALICE, general, "stop", locale="ja")
    assert await told(deployment, stop) == say("stopping", "ja")
    await deployment.discord.until(
        lambda: say("stopped", "en") in where[general][used.original]["content"]
    )


# -- where only a token reaches -------------------------------------------------------------------


async def test_a_private_reply_is_regenerated_as_the_answer_to_the_command(
    deployment: DiscordDeployment, general: str
) -> None:
    asked = await deployment.discord.uses(ALICE, general, "ask", {"prompt": "hi", "private": True})
    await with_its_buttons(deployment, await the_answer(deployment, asked, "echo: hi"))
    used = await deployment.discord.uses(ALICE, general, "regenerate")
    assert (await answered(deployment, used))["data"]["flags"] == EPHEMERAL
    await the_answer(deployment, used, "echo: hi")
    assert deployment.discord.replies(general) == []
    assert deployment.discord.sent("edit") == []


async def test_a_reply_of_a_user_installed_app_is_regenerated_too(
    deployment: DiscordDeployment, general: str
) -> None:
    asked = await deployment.discord.uses(ALICE, general, "ask", {"prompt": "hi"}, **SOMEBODY)
    await with_its_buttons(deployment, await the_answer(deployment, asked, "echo: hi"))
    used = await deployment.discord.uses(ALICE, general, "regenerate", **SOMEBODY)
    await the_answer(deployment, used, "echo: hi")
    assert deployment.discord.sent("edit") == []
    assert deployment.discord.sent("post") == []


async def test_every_part_of_a_long_private_reply_is_regenerated(
    deployment: DiscordDeployment, general: str
) -> None:
    asked = await deployment.discord.uses(ALICE, general, "ask", {"prompt": LONG, "private": True})
    await answered(deployment, asked)
    where = deployment.discord.world.messages[general]
    mine = deployment.discord.world.interactions[asked.token].messages
    await deployment.discord.until(lambda: len(mine) == 2 and where[mine[1]]["components"])
    last = await with_its_buttons(deployment, where[mine[1]])
    last["flags"] = EPHEMERAL
    first_text = where[mine[0]]["content"]
    pressed = await deployment.discord.presses(ALICE, last, AGAIN)
    assert (await answered(deployment, pressed))["type"] == 6
    made = pressed.messages
    await deployment.discord.until(lambda: len(made) == 1 and where[made[0]]["components"])
    await with_its_buttons(deployment, where[made[0]])
    assert last["content"] == first_text  # the pressed message begins the new reply
    assert "".join(where[ident]["content"] for ident in (last["id"], *made)) == f"echo: {LONG}"


async def test_a_reply_in_an_archived_thread_is_regenerated(
    deployment: DiscordDeployment, general: str
) -> None:
    reply = await a_reply_in_a_thread(deployment, general)
    before = button(reply)
    thread = deployment.discord.world.channels[reply["channel_id"]]
    thread["thread_metadata"]["archived"] = True
    await deployment.discord.presses(ALICE, reply, AGAIN)
    await until_rewritten(deployment, reply, before)
    assert not thread["thread_metadata"]["archived"]
