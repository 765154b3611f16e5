"""Commands, buttons and modals, over real sockets, in both languages."""

from __future__ import annotations

import pytest

from bots.strings import say
from core.queue_types import Place
from core.types import ThreadKey
from tests.local_discord import payloads as p
from tests.local_discord.deployment import ALICE, BOB, DiscordDeployment, words
from tests.local_discord.expectations import (
    AGAIN,
    BAD,
    GOOD,
    NOBODY,
    STOP,
    answered,
    the_answer,
    told,
    until_it_says,
)
from tests.local_discord.validation import EPHEMERAL
from tests.waiting import until

# -- /ask ---------------------------------------------------------------------------------------


async def test_a_question_is_stored_deferred_and_answered_in_the_deferred_message(
    team: DiscordDeployment, general: str
) -> None:
    used = await team.discord.uses(ALICE, general, "ask", {"prompt": "hello"})
    assert (await answered(team, used))["type"] == 5
    await the_answer(team, used, "echo: hello")
    thread = ThreadKey(
        "discord", str(team.discord.world.guild_of(general)), general, f"@{ALICE['id']}"
    )
    assert await team.house.texts(thread) == ["hello", "echo: hello"]


async def test_a_private_question_is_seen_by_its_person_alone(
    team: DiscordDeployment, general: str
) -> None:
    asked = {"prompt": "hello", "private": True}
    used = await team.discord.uses(ALICE, general, "ask", asked)
    assert (await answered(team, used))["data"]["flags"] == EPHEMERAL
    await the_answer(team, used, "echo: hello")
    assert team.discord.replies(general) == []


async def test_what_was_asked_privately_is_not_remembered_in_the_open(
    team: DiscordDeployment, general: str
) -> None:
    used = await team.discord.uses(ALICE, general, "ask", {"prompt": "secret", "private": True})
    await the_answer(team, used, "echo: secret")
    thread = ThreadKey(
        "discord", str(team.discord.world.guild_of(general)), general, f"@{ALICE['id']}"
    )
    assert await team.house.texts(thread) == []


async def test_questions_of_one_person_are_never_answered_together(
    team: DiscordDeployment, general: str
) -> None:
    used = [
        await team.discord.uses(ALICE, general, "ask", {"prompt": f"question {number}"})
        for number in range(5)
    ]
    for number, question in enumerate(used):
        await the_answer(team, question, f"echo: question {number}")


async def test_an_empty_question_is_told_what_to_do(team: DiscordDeployment, general: str) -> None:
    used = await team.discord.uses(ALICE, general, "ask", {"prompt": "  "})
    assert await told(team, used) == say("nothing_asked_here", "en")


async def test_without_a_core_a_person_is_told_at_once(team: DiscordDeployment) -> None:
    general = team.discord.add_channel(team.discord.add_guild())
    await team.start_bot()
    used = await team.discord.uses(ALICE, general, "ask", {"prompt": "hello"}, locale="ja")
    await the_answer(team, used, say("no_core", "ja"))


async def test_while_redis_is_silent_a_person_is_told_within_three_seconds(
    team: DiscordDeployment, general: str
) -> None:
    await team.house.redis.client_pause(2500)
    used = await team.discord.uses(ALICE, general, "ask", {"prompt": "hello"})
    assert await told(team, used) == say("store_down", "en")
    assert 1.0 <= used.acknowledged_after < 2.0
    assert team.discord.replies(general) == []


async def test_the_token_is_in_no_log_and_gone_from_the_store_when_the_reply_is_there(
    team: DiscordDeployment,
    general: str,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level("DEBUG")
    team.discord.make_trouble("webhook", retry_after=0.1)  # discord.py logs the address of a 429
    used = await team.discord.uses(ALICE, general, "ask", {"prompt": "hello"})
    await the_answer(team, used, "echo: hello")
    assert used.token not in caplog.text + "".join(capsys.readouterr())
    deliveries = [key async for key in team.house.redis.scan_iter("henji:*:delivery:*")]

    async def kept() -> str:
        return str([await team.house.redis.hgetall(key) for key in deliveries])

    async def gone() -> bool:
        return "secret_token" not in await kept()

    await until(gone)
    assert used.token not in await kept()


# -- past the token -----------------------------------------------------------------------------


async def test_a_reply_that_outlives_its_token_goes_on_as_an_ordinary_message(
    team: DiscordDeployment,
) -> None:
    general = team.discord.add_channel(team.discord.add_guild())
    await team.start_core(tokens_per_second=40)
    await team.start_bot()
    used = await team.discord.uses(ALICE, general, "ask", {"prompt": words(20)})
    await team.discord.until(lambda: team.discord.sent("webhook"))
    team.discord.world.token_life = 0.0
    await the_answer(team, used, f"echo: {words(20)}")
    assert len(team.discord.replies(general)) == 1
    assert team.discord.sent("edit")


async def test_a_private_reply_that_outlives_its_token_goes_to_the_direct_messages(
    team: DiscordDeployment,
) -> None:
    general = team.discord.add_channel(team.discord.add_guild())
    direct = team.discord.add_direct(ALICE)
    await team.start_core(tokens_per_second=40)
    await team.start_bot()
    asked = {"prompt": words(20), "private": True}
    await team.discord.uses(ALICE, general, "ask", asked)
    await team.discord.until(lambda: team.discord.sent("webhook"))
    team.discord.world.token_life = 0.0
    await team.discord.until(
        lambda: [m for m in team.discord.replies(direct) if m["content"].count("word") == 20]
    )
    assert team.discord.replies(general) == []


async def test_a_private_reply_leaves_for_the_direct_messages_before_its_token_ends(
    team: DiscordDeployment,
) -> None:
    general = team.discord.add_channel(team.discord.add_guild())
    direct = team.discord.add_direct(ALICE)
    await team.start_core(tokens_per_second=40)
    await team.start_bot()
    used = await team.discord.uses(
        ALICE, general, "ask", {"prompt": words(20), "private": True}, id=p.nearly_over()
    )
    await team.discord.until(
        lambda: [m for m in team.discord.replies(direct) if m["content"].count("word") == 20]
    )
    assert team.discord.world.messages[general][used.original]["content"] == say(
        "moved_there", "en"
    )


async def test_where_the_bot_is_a_persons_own_a_reply_is_cut_before_the_token_ends(
    team: DiscordDeployment,
) -> None:
    general = team.discord.add_channel(team.discord.add_guild())
    await team.start_core(tokens_per_second=40)
    await team.start_bot()
    used = await team.discord.uses(
        ALICE,
        general,
        "ask",
        {"prompt": words(200)},
        id=p.nearly_over(),
        authorizing_integration_owners={"1": ALICE["id"]},
    )
    where = team.discord.world.messages
    await answered(team, used)
    await team.discord.until(
        lambda: say("stopped", "en") in where[general][used.original]["content"]
    )
    assert team.discord.sent("post") == []


# -- the other commands -------------------------------------------------------------------------


@pytest.mark.parametrize("locale", ["en-US", "ja"])
@pytest.mark.parametrize(
    ("command", "key"),
    [
        ("reset", "reset_nothing"),
        ("stop", "nothing_to_stop"),
        ("regenerate", "nothing_to_regenerate"),
        ("model", "model"),
        ("help", "discord_help"),
        ("privacy", "privacy"),
        ("admin audit", "audit_nothing"),
        ("admin reset thread", "not_in_thread"),
    ],
)
async def test_every_command_answers_in_the_persons_language(
    team: DiscordDeployment, general: str, command: str, key: str, locale: str
) -> None:
    used = await team.discord.uses(ALICE, general, command, locale=locale)
    assert await told(team, used) == say(key, locale, model="echo", days="30")


async def test_the_commands_are_registered_in_both_languages(
    team: DiscordDeployment, general: str
) -> None:
    commands = {c["name"]: c for c in team.discord.world.commands[""]}
    assert set(commands) == {
        "ask", "chat", "reset", "stop", "regenerate", "model", "privacy", "help", "admin",
        "Ask Henji about this",
    }  # fmt: skip
    for command in commands.values():
        assert command["name_localizations"]["ja"]
    assert commands["ask"]["integration_types"] == [0, 1]
    assert commands["admin"]["default_member_permissions"] == 32


async def test_a_chat_opens_a_thread_where_no_mention_is_needed(
    team: DiscordDeployment, general: str
) -> None:
    used = await team.discord.uses(ALICE, general, "chat", locale="ja")
    await team.discord.until(lambda: used.original in team.discord.world.channels)
    await team.discord.until(lambda: team.discord.replies(used.original))
    await team.discord.says(ALICE, used.original, "hello")
    await team.discord.until(lambda: len(team.discord.replies(used.original)) == 2)
    reply = team.discord.replies(used.original)[1]
    await until_it_says(team, used.original, reply["id"], "echo: hello")


async def test_a_reset_forgets_the_conversation_at_hand(
    team: DiscordDeployment, general: str
) -> None:
    used = await team.discord.uses(ALICE, general, "ask", {"prompt": "hello"})
    await the_answer(team, used, "echo: hello")
    used = await team.discord.uses(ALICE, general, "reset")
    assert await told(team, used) == say("reset_done", "en")


async def test_the_message_menu_asks_about_a_message(team: DiscordDeployment, general: str) -> None:
    said = await team.discord.says(BOB, general, "the moon is far")
    used = await team.discord.asks_about(ALICE, said, "Ask Henji about this")
    await the_answer(team, used, "echo: Bob: the moon is far")


async def test_admin_commands_are_refused_to_others_even_if_discord_shows_them(
    team: DiscordDeployment, general: str
) -> None:
    for command in ("admin status", "admin reset server", "admin reset channel", "admin audit"):
        used = await team.discord.uses(BOB, general, command, permissions=NOBODY)
        assert await told(team, used) == say("admins_only", "en")


async def test_an_admin_resets_a_server_and_its_status_says_so(
    team: DiscordDeployment, general: str
) -> None:
    used = await team.discord.uses(ALICE, general, "ask", {"prompt": "hello"})
    await the_answer(team, used, "echo: hello")
    used = await team.discord.uses(ALICE, general, "admin status")
    expected = say("status_line", "en", model="echo", cores=2, waiting=0, threads=1)
    assert await told(team, used) == expected
    used = await team.discord.uses(ALICE, general, "admin reset server")
    scope = say("scope_space", "en")
    assert await told(team, used) == say("reset_scope_done", "en", scope=scope)
    thread = ThreadKey(
        "discord", str(team.discord.world.guild_of(general)), general, f"@{ALICE['id']}"
    )
    assert await team.house.texts(thread) == []


# -- the buttons --------------------------------------------------------------------------------


async def test_a_reply_is_stopped_by_whoever_asked_and_by_no_other(team: DiscordDeployment) -> None:
    general = team.discord.add_channel(team.discord.add_guild())
    await team.start_core(tokens_per_second=30)
    await team.start_bot()
    used = await team.discord.uses(ALICE, general, "ask", {"prompt": words(100)})
    where = team.discord.world.messages
    await answered(team, used)
    await team.discord.until(lambda: "word" in where[general][used.original]["content"])
    message = where[general][used.original]
    refused = await team.discord.presses(BOB, message, STOP, permissions=NOBODY)
    assert (await answered(team, refused))["data"]["content"] == say("not_yours", "en")
    pressed = await team.discord.presses(ALICE, message, STOP)
    assert (await answered(team, pressed))["type"] == 6
    await team.discord.until(
        lambda: say("stopped", "en") in where[general][used.original]["content"]
    )
    assert where[general][used.original]["content"].startswith("echo: word")


async def test_a_reply_is_written_anew_in_its_place_from_another_process(
    team: DiscordDeployment, general: str
) -> None:
    said = await team.discord.says(ALICE, general, "<@bot> hello")
    await team.discord.until(lambda: team.discord.replies(said["id"]))
    [reply] = team.discord.replies(said["id"])
    await until_it_says(team, said["id"], reply["id"], "echo: hello")
    await team.discord.until(lambda: len(reply["components"][0]["components"]) == 3)
    before = reply["components"][0]["components"][AGAIN]["custom_id"]
    await team.bots[0].kill()
    await team.start_bot("another")
    pressed = await team.discord.presses(ALICE, reply, AGAIN)
    assert (await answered(team, pressed))["type"] == 6
    await team.discord.until(
        lambda: (
            reply["components"]
            and len(reply["components"][0]["components"]) == 3
            and reply["components"][0]["components"][AGAIN]["custom_id"] != before
        )
    )
    assert reply["content"] == "echo: hello"
    assert len(team.discord.replies(said["id"])) == 1


async def test_a_private_reply_is_written_anew_through_the_presss_own_token(
    team: DiscordDeployment, general: str
) -> None:
    used = await team.discord.uses(ALICE, general, "ask", {"prompt": "hi", "private": True})
    message = await the_answer(team, used, "echo: hi")
    await team.discord.until(lambda: len(message["components"][0]["components"]) == 3)
    message["flags"] = EPHEMERAL
    del team.discord.world.interactions[used.token]  # its fifteen minutes are over
    edits = len(team.discord.sent("webhook"))
    pressed = await team.discord.presses(ALICE, message, AGAIN)
    assert (await answered(team, pressed))["type"] == 6
    await team.discord.until(lambda: len(team.discord.sent("webhook")) > edits)
    await the_answer(team, used, "echo: hi")
    assert team.discord.sent("edit") == []


async def test_feedback_is_kept_with_the_reason_that_the_unhappy_are_asked_for(
    team: DiscordDeployment, general: str
) -> None:
    used = await team.discord.uses(ALICE, general, "ask", {"prompt": "hi"})
    message = await the_answer(team, used, "echo: hi")
    await team.discord.until(lambda: len(message["components"][0]["components"]) == 3)
    good = await team.discord.presses(BOB, message, GOOD, locale="ja")
    assert (await answered(team, good))["data"]["content"] == say("feedback_thanks", "ja")
    bad = await team.discord.presses(BOB, message, BAD, locale="ja")
    assert (await answered(team, bad))["data"]["title"] == say("feedback_title", "ja")
    guild = team.discord.world.channels[general]["guild_id"]
    [opinion] = await team.stores().feedback.opinions(Place("discord", guild), 10)
    assert (opinion.by, opinion.verdict, opinion.reason) == (BOB["id"], "bad", "")
    sent = await team.discord.submits(BOB, bad, {"reason": "too short"})
    assert (await answered(team, sent))["data"]["content"] == say("feedback_thanks", "en")
    [opinion] = await team.stores().feedback.opinions(Place("discord", guild), 10)
    assert (opinion.verdict, opinion.reason, opinion.model) == ("bad", "too short", "echo")


async def test_a_person_exports_and_has_forgotten_what_they_wrote(
    team: DiscordDeployment, general: str
) -> None:
    used = await team.discord.uses(ALICE, general, "ask", {"prompt": "hello"})
    await the_answer(team, used, "echo: hello")
    shown = await team.discord.uses(ALICE, general, "privacy")
    await told(team, shown)
    message = team.discord.world.messages[general][shown.original]
    asked = await team.discord.presses(ALICE, message, 1)
    assert (await answered(team, asked))["data"]["content"] == say("forget_sure", "en")
    sure = team.discord.world.messages[general][asked.original]
    done = await team.discord.presses(ALICE, sure, 0)
    assert await told(team, done) == say("forget_done", "en", turns=2)
