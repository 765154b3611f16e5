"""Commands, buttons and modals, over real sockets, in both languages."""

from __future__ import annotations

import pytest

from bots.strings import about, say
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


async def asks(deployment: DiscordDeployment, channel: str, prompt: str) -> p.Payload:
    """Alice asks by the command; the message with her answer."""
    used = await deployment.discord.uses(ALICE, channel, "ask", {"prompt": prompt})
    return await the_answer(deployment, used, f"echo: {prompt}")


async def remembered(deployment: DiscordDeployment, channel: str) -> list[str]:
    """The texts of Alice's conversation in a channel."""
    guild = str(deployment.discord.world.guild_of(channel))
    thread = ThreadKey("discord", guild, channel, f"@{ALICE['id']}")
    return await deployment.stores.texts(thread)


# -- /ask ---------------------------------------------------------------------------------------


async def test_a_question_is_stored_deferred_and_answered_in_the_deferred_message(
    deployment: DiscordDeployment, general: str
) -> None:
    used = await deployment.discord.uses(ALICE, general, "ask", {"prompt": "hello"})
    assert (await answered(deployment, used))["type"] == 5
    await the_answer(deployment, used, "echo: hello")
    assert await remembered(deployment, general) == ["hello", "echo: hello"]


async def test_a_private_question_is_seen_by_its_person_alone(
    deployment: DiscordDeployment, general: str
) -> None:
    asked = {"prompt": "hello", "private": True}
    used = await deployment.discord.uses(ALICE, general, "ask", asked)
    assert (await answered(deployment, used))["data"]["flags"] == EPHEMERAL
    await the_answer(deployment, used, "echo: hello")
    assert deployment.discord.replies(general) == []


async def test_a_private_question_is_not_part_of_the_open_conversation(
    deployment: DiscordDeployment, general: str
) -> None:
    used = await deployment.discord.uses(
        ALICE, general, "ask", {"prompt": "secret", "private": True}
    )
    await the_answer(deployment, used, "echo: secret")
    assert await remembered(deployment, general) == []


async def test_questions_of_one_person_are_never_answered_together(
    deployment: DiscordDeployment, general: str
) -> None:
    used = [
        await deployment.discord.uses(ALICE, general, "ask", {"prompt": f"question {number}"})
        for number in range(5)
    ]
    for number, question in enumerate(used):
        await the_answer(deployment, question, f"echo: question {number}")


async def test_an_empty_question_gets_instructions(
    deployment: DiscordDeployment, general: str
) -> None:
    used = await deployment.discord.uses(ALICE, general, "ask", {"prompt": "  "})
    assert await told(deployment, used) == say("nothing_asked_here", "en")


async def test_without_a_core_a_person_gets_a_notice_at_once(deployment: DiscordDeployment) -> None:
    general = deployment.discord.add_channel(deployment.discord.add_guild())
    await deployment.start_bot()
    used = await deployment.discord.uses(ALICE, general, "ask", {"prompt": "hello"}, locale="ja")
    await the_answer(deployment, used, say("no_core", "ja"))


async def test_while_redis_is_silent_a_person_gets_a_notice_within_three_seconds(
    deployment: DiscordDeployment, general: str
) -> None:
    await deployment.stores.redis.client_pause(2500)
    used = await deployment.discord.uses(ALICE, general, "ask", {"prompt": "hello"})
    assert await told(deployment, used) == say("store_down", "en")
    assert 1.0 <= used.acknowledged_after < 2.0
    assert deployment.discord.replies(general) == []


async def test_the_token_is_in_no_log_and_deleted_from_the_store_after_the_reply(
    deployment: DiscordDeployment,
    general: str,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level("DEBUG")
    # discord.py logs the address of a 429
    deployment.discord.make_trouble("webhook", retry_after=0.1)
    used = await deployment.discord.uses(ALICE, general, "ask", {"prompt": "hello"})
    await the_answer(deployment, used, "echo: hello")
    assert used.token not in caplog.text + "".join(capsys.readouterr())
    deliveries = [key async for key in deployment.stores.redis.scan_iter("henji:*:delivery:*")]

    async def kept() -> str:
        return str([await deployment.stores.redis.hgetall(key) for key in deliveries])

    async def gone() -> bool:
        return "secret_token" not in await kept()

    await until(gone)
    assert used.token not in await kept()


# -- past the token -----------------------------------------------------------------------------


async def test_a_reply_that_outlives_its_token_goes_on_as_an_ordinary_message(
    deployment: DiscordDeployment,
) -> None:
    general = await deployment.ready(tokens_per_second=40)
    used = await deployment.discord.uses(ALICE, general, "ask", {"prompt": words(20)})
    await deployment.discord.until(lambda: deployment.discord.sent("webhook"))
    deployment.discord.world.token_life = 0.0
    await the_answer(deployment, used, f"echo: {words(20)}")
    assert len(deployment.discord.replies(general)) == 1
    assert deployment.discord.sent("edit")


async def test_a_private_reply_that_outlives_its_token_goes_to_the_direct_messages(
    deployment: DiscordDeployment,
) -> None:
    general = deployment.discord.add_channel(deployment.discord.add_guild())
    direct = deployment.discord.add_direct(ALICE)
    await deployment.start_core(tokens_per_second=40)
    await deployment.start_bot()
    asked = {"prompt": words(20), "private": True}
    await deployment.discord.uses(ALICE, general, "ask", asked)
    await deployment.discord.until(lambda: deployment.discord.sent("webhook"))
    deployment.discord.world.token_life = 0.0
    await deployment.discord.until(
        lambda: [m for m in deployment.discord.replies(direct) if m["content"].count("word") == 20]
    )
    assert deployment.discord.replies(general) == []


async def test_a_private_reply_leaves_for_the_direct_messages_before_its_token_ends(
    deployment: DiscordDeployment,
) -> None:
    general = deployment.discord.add_channel(deployment.discord.add_guild())
    direct = deployment.discord.add_direct(ALICE)
    await deployment.start_core(tokens_per_second=40)
    await deployment.start_bot()
    used = await deployment.discord.uses(
        ALICE, general, "ask", {"prompt": words(20), "private": True}, id=p.nearly_over()
    )
    await deployment.discord.until(
        lambda: [m for m in deployment.discord.replies(direct) if m["content"].count("word") == 20]
    )
    assert deployment.discord.world.messages[general][used.original]["content"] == say(
        "moved_there", "en"
    )


async def test_in_a_user_installation_a_reply_is_cut_before_the_token_ends(
    deployment: DiscordDeployment,
) -> None:
    general = await deployment.ready(tokens_per_second=40)
    used = await deployment.discord.uses(
        ALICE,
        general,
        "ask",
        {"prompt": words(200)},
        id=p.nearly_over(),
        authorizing_integration_owners={"1": ALICE["id"]},
    )
    where = deployment.discord.world.messages
    await answered(deployment, used)
    await deployment.discord.until(
        lambda: say("stopped", "en") in where[general][used.original]["content"]
    )
    assert deployment.discord.sent("post") == []


# -- the other commands -------------------------------------------------------------------------


@pytest.mark.parametrize("locale", ["en-US", "ja"])
@pytest.mark.parametrize(
    ("command", "key"),
    [
        ("reset", "reset_nothing"),
        ("stop", "nothing_to_stop"),
        ("regenerate", "nothing_to_regenerate"),
        ("model", "model"),
        ("privacy", "privacy"),
        ("admin audit", "audit_nothing"),
        ("admin reset thread", "not_in_thread"),
    ],
)
async def test_every_command_answers_in_the_persons_language(
    deployment: DiscordDeployment, general: str, command: str, key: str, locale: str
) -> None:
    used = await deployment.discord.uses(ALICE, general, command, locale=locale)
    assert await told(deployment, used) == about(key, locale, "", model="echo", days="30")


async def test_the_commands_are_registered_in_both_languages(
    deployment: DiscordDeployment, general: str
) -> None:
    commands = {c["name"]: c for c in deployment.discord.world.commands[""]}
    assert set(commands) == {
        "ask", "chat", "reset", "stop", "regenerate", "model", "persona", "catchup", "privacy",
        "usage", "help", "admin", "Ask Henji about this", "Summarise thread",
        "Continue from here",
    }  # fmt: skip
    for command in commands.values():
        assert command["name_localizations"]["ja"]
    assert commands["ask"]["integration_types"] == [0, 1]
    assert commands["admin"]["default_member_permissions"] == 32


async def test_a_chat_opens_a_thread_where_no_mention_is_needed(
    deployment: DiscordDeployment, general: str
) -> None:
    used = await deployment.discord.uses(ALICE, general, "chat", locale="ja")
    await deployment.discord.until(lambda: used.original in deployment.discord.world.channels)
    await deployment.discord.until(lambda: deployment.discord.replies(used.original))
    await deployment.discord.says(ALICE, used.original, "hello")
    await deployment.discord.until(lambda: len(deployment.discord.replies(used.original)) == 2)
    reply = deployment.discord.replies(used.original)[1]
    await until_it_says(deployment, used.original, reply["id"], "echo: hello")


async def test_a_name_makes_no_link_in_the_bots_words(
    deployment: DiscordDeployment, general: str
) -> None:
    eve = p.user("700000000000000009", "[prize](https://evil.example)")
    used = await deployment.discord.uses(eve, general, "chat")
    await deployment.discord.until(lambda: used.original in deployment.discord.world.channels)
    said = deployment.discord.world.message(general, used.original)["content"]
    assert "\\[prize]" in said


async def test_a_reset_forgets_the_conversation_at_hand(
    deployment: DiscordDeployment, general: str
) -> None:
    await asks(deployment, general, "hello")
    used = await deployment.discord.uses(ALICE, general, "reset")
    assert await told(deployment, used) == say("reset_done", "en")


async def test_the_message_menu_asks_about_a_message(
    deployment: DiscordDeployment, general: str
) -> None:
    said = await deployment.discord.says(BOB, general, "the moon is far")
    used = await deployment.discord.asks_about(ALICE, said, "Ask Henji about this")
    await the_answer(deployment, used, "echo: Bob: the moon is far")


async def test_admin_commands_are_refused_to_others_even_if_discord_shows_them(
    deployment: DiscordDeployment, general: str
) -> None:
    for command in ("admin status", "admin reset server", "admin reset channel", "admin audit"):
        used = await deployment.discord.uses(BOB, general, command, permissions=NOBODY)
        assert await told(deployment, used) == say("admins_only", "en")


async def test_an_admin_resets_a_server_and_its_status_says_so(
    deployment: DiscordDeployment, general: str
) -> None:
    await asks(deployment, general, "hello")
    used = await deployment.discord.uses(ALICE, general, "admin status")
    expected = say("status_line", "en", model="echo", cores=2, waiting=0, threads=1)
    assert await told(deployment, used) == expected
    used = await deployment.discord.uses(ALICE, general, "admin reset server")
    scope = say("scope_space", "en")
    assert await told(deployment, used) == say("reset_scope_done", "en", scope=scope)
    assert await remembered(deployment, general) == []


# -- the buttons --------------------------------------------------------------------------------


async def test_only_the_asker_stops_a_reply(
    deployment: DiscordDeployment,
) -> None:
    general = await deployment.ready(tokens_per_second=30)
    used = await deployment.discord.uses(ALICE, general, "ask", {"prompt": words(100)})
    where = deployment.discord.world.messages
    await answered(deployment, used)
    await deployment.discord.until(lambda: "word" in where[general][used.original]["content"])
    message = where[general][used.original]
    refused = await deployment.discord.presses(BOB, message, STOP, permissions=NOBODY)
    assert (await answered(deployment, refused))["data"]["content"] == say("not_yours", "en")
    pressed = await deployment.discord.presses(ALICE, message, STOP)
    assert (await answered(deployment, pressed))["type"] == 6
    await deployment.discord.until(
        lambda: say("stopped", "en") in where[general][used.original]["content"]
    )
    assert where[general][used.original]["content"].startswith("echo: word")


async def test_another_process_regenerates_a_reply_in_its_place(
    deployment: DiscordDeployment, general: str
) -> None:
    said = await deployment.discord.says(ALICE, general, "<@bot> hello")
    await deployment.discord.until(lambda: deployment.discord.replies(said["id"]))
    [reply] = deployment.discord.replies(said["id"])
    await until_it_says(deployment, said["id"], reply["id"], "echo: hello")
    await deployment.discord.until(lambda: len(reply["components"][0]["components"]) == 3)
    before = reply["components"][0]["components"][AGAIN]["custom_id"]
    await deployment.bots[0].kill()
    await deployment.start_bot("another")
    pressed = await deployment.discord.presses(ALICE, reply, AGAIN)
    assert (await answered(deployment, pressed))["type"] == 6
    await deployment.discord.until(
        lambda: (
            reply["components"]
            and len(reply["components"][0]["components"]) == 3
            and reply["components"][0]["components"][AGAIN]["custom_id"] != before
        )
    )
    assert reply["content"] == "echo: hello"
    assert len(deployment.discord.replies(said["id"])) == 1


async def test_a_private_reply_is_regenerated_by_the_token_of_the_press(
    deployment: DiscordDeployment, general: str
) -> None:
    used = await deployment.discord.uses(ALICE, general, "ask", {"prompt": "hi", "private": True})
    message = await the_answer(deployment, used, "echo: hi")
    await deployment.discord.until(lambda: len(message["components"][0]["components"]) == 3)
    message["flags"] = EPHEMERAL
    del deployment.discord.world.interactions[used.token]  # its 15 minutes are over
    edits = len(deployment.discord.sent("webhook"))
    pressed = await deployment.discord.presses(ALICE, message, AGAIN)
    assert (await answered(deployment, pressed))["type"] == 6
    await deployment.discord.until(lambda: len(deployment.discord.sent("webhook")) > edits)
    await the_answer(deployment, used, "echo: hi")
    assert deployment.discord.sent("edit") == []


async def test_feedback_is_kept_with_the_reason_that_the_unhappy_are_asked_for(
    deployment: DiscordDeployment, general: str
) -> None:
    message = await asks(deployment, general, "hi")
    await deployment.discord.until(lambda: len(message["components"][0]["components"]) == 3)
    good = await deployment.discord.presses(BOB, message, GOOD, locale="ja")
    assert (await answered(deployment, good))["data"]["content"] == say("feedback_thanks", "ja")
    bad = await deployment.discord.presses(BOB, message, BAD, locale="ja")
    assert (await answered(deployment, bad))["data"]["title"] == say("feedback_title", "ja")
    guild = deployment.discord.world.channels[general]["guild_id"]
    [opinion] = await deployment.process_stores().feedback.opinions(Place("discord", guild), 10)
    assert (opinion.by, opinion.rating, opinion.reason) == (BOB["id"], "bad", "")
    sent = await deployment.discord.submits(BOB, bad, {"reason": "too short"})
    assert (await answered(deployment, sent))["data"]["content"] == say("feedback_thanks", "en")
    [opinion] = await deployment.process_stores().feedback.opinions(Place("discord", guild), 10)
    assert (opinion.rating, opinion.reason, opinion.model) == ("bad", "too short", "echo")


@pytest.mark.parametrize("command", ["privacy", "help"])
async def test_the_host_that_is_sent_people_s_words_is_named(
    deployment: DiscordDeployment, general: str, command: str
) -> None:
    await deployment.stores.queue.announce("echo", "gpu-1@llm.example.com", 60)
    used = await deployment.discord.uses(ALICE, general, command)
    assert "at llm.example.com" in await told(deployment, used)


async def test_a_person_exports_and_deletes_their_messages(
    deployment: DiscordDeployment, general: str
) -> None:
    await asks(deployment, general, "hello")
    shown = await deployment.discord.uses(ALICE, general, "privacy")
    await told(deployment, shown)
    message = deployment.discord.world.messages[general][shown.original]
    asked = await deployment.discord.presses(ALICE, message, 1)
    assert (await answered(deployment, asked))["data"]["content"] == say("forget_sure", "en")
    sure = deployment.discord.world.messages[general][asked.original]
    done = await deployment.discord.presses(ALICE, sure, 0)
    assert await told(deployment, done) == say("forget_done", "en", turns=2)


# -- a long reply as one file -------------------------------------------------------------------


async def test_a_long_reply_is_one_file_for_the_person_who_presses(
    deployment: DiscordDeployment, general: str
) -> None:
    said = await deployment.discord.says(ALICE, general, f"<@bot> {words(900)}")
    thread = str(said["id"])

    def last() -> p.Payload | None:
        parts = deployment.discord.replies(thread)
        rows = parts[-1]["components"] if parts else []
        labels = [button.get("label") for row in rows for button in row["components"]]
        return parts[-1] if say("as_file", "en") in labels else None

    reply = await deployment.discord.until(last)
    assert len(deployment.discord.replies(thread)) >= 4
    labels = [button.get("label") for button in reply["components"][0]["components"]]
    number = labels.index(say("as_file", "en"))
    pressed = await deployment.discord.presses(BOB, reply, number, locale="ja")
    assert (await answered(deployment, pressed))["data"]["flags"] == EPHEMERAL
    [sent] = await deployment.discord.until(lambda: with_files(deployment))
    assert sent["files"] == {"reply.md": f"echo: {words(900)}"}
    assert sent["content"] == say("file_is_there", "ja")
    assert sent["flags"] & EPHEMERAL
    guild = str(deployment.discord.world.guild_of(general))
    await deployment.stores.history.reset(ThreadKey("discord", guild, general, thread), "admin")
    pressed = await deployment.discord.presses(BOB, reply, number)
    assert await told(deployment, pressed) == say("file_gone_by_now", "en")
    assert len(with_files(deployment)) == 1


def with_files(deployment: DiscordDeployment) -> list[p.Payload]:
    """The bodies of the messages with a file."""
    return [sent.body for sent in deployment.discord.sent("webhook") if sent.body.get("files")]


# -- continue from here -------------------------------------------------------------------------


async def test_a_direct_message_has_no_thread_to_continue_in(
    deployment: DiscordDeployment, general: str
) -> None:
    direct = deployment.discord.add_direct(ALICE)
    said = await deployment.discord.says(ALICE, direct, "hello")
    used = await deployment.discord.asks_about(ALICE, said, "Continue from here", locale="ja")
    assert await told(deployment, used) == say("branch_not_here", "ja")
