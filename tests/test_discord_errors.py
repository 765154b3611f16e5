"""What goes wrong, and what people are told then."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from bots.strings import say
from core.observe import metrics
from core.types import ThreadKey
from storage import keys
from tests.local_discord import payloads as p
from tests.local_discord.deployment import ALICE, DiscordDeployment, discord_deployment, words
from tests.local_discord.expectations import AGAIN, answered, the_answer, told, with_its_buttons
from tests.local_discord.world import Interaction
from tests.waiting import until

SILENT = str(1 << 10)
"""The bot's permissions in a channel that it may see and not write in."""
LONG = "。".join(f"{number}番目の長い文" for number in range(200))[:1950]


# -- Redis --------------------------------------------------------------------------------------


async def test_while_redis_is_silent_each_of_a_hundred_is_told_in_time(
    team: DiscordDeployment, general: str
) -> None:
    await team.house.redis.client_pause(4000)
    used = [
        await team.discord.uses(
            p.user(f"70000000000000{number:04}", f"P{number}"), general, "ask", {"prompt": "hello"}
        )
        for number in range(100)
    ]
    for question in used:
        assert await told(team, question) in (say("store_down", "en"), say("no_time", "en"))
        assert question.acknowledged_after < 2.9


async def test_while_redis_is_silent_every_command_and_button_is_told_in_time(
    team: DiscordDeployment, general: str
) -> None:
    asked = await team.discord.uses(ALICE, general, "ask", {"prompt": "hi"})
    reply = await with_its_buttons(team, await the_answer(team, asked, "echo: hi"))
    await team.house.redis.client_pause(3000)
    used = [
        await team.discord.presses(ALICE, reply, AGAIN, locale="ja"),
        *[
            await team.discord.uses(ALICE, general, command, locale="ja")
            for command in ("reset", "stop", "regenerate", "admin status", "admin reset server")
        ],
    ]
    for interaction in used:
        await team.discord.until(partial(_said_privately, team, interaction))
        assert _said_privately(team, interaction) == say("store_down", "ja")
        assert interaction.acknowledged_after < 2.5


def _said_privately(team: DiscordDeployment, used: Interaction) -> str:
    """The sentence of an answer, or of a deferred one, or that of a follow-up to it."""
    messages = team.discord.world.messages[used.channel]
    said = [messages[ident]["content"] for ident in used.messages]
    return next((text for text in reversed(said) if text), "")


@pytest.mark.parametrize("command", ["admin status", "admin reset channel"])
async def test_a_deferred_answer_does_not_think_for_ever_where_redis_fails(
    team: DiscordDeployment, general: str, command: str
) -> None:
    for name in ("threads", "resets"):
        await team.house.redis.set(keys.key(name, 0), "not what is expected there")
    used = await team.discord.uses(ALICE, general, command)
    assert await told(team, used) == say("store_down", "en")


async def test_nor_does_an_export(team: DiscordDeployment, general: str) -> None:
    guild = team.discord.world.guild_of(general)
    person = keys.key("person", 0, f"discord:{guild}:{ALICE['id']}")
    await team.house.redis.set(person, "not what is expected there")
    shown = await team.discord.uses(ALICE, general, "privacy", locale="ja")
    await told(team, shown)
    message = team.discord.world.messages[general][shown.original]
    used = await team.discord.presses(ALICE, message, 0, locale="ja")
    assert await told(team, used) == say("store_down", "ja")


# -- permissions --------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [50013, 160006])
async def test_where_no_thread_can_be_opened_the_reply_stays_in_the_channel(
    team: DiscordDeployment, general: str, code: int
) -> None:
    team.discord.make_trouble("thread", times=9, status=400, code=code)
    said = await team.discord.says(ALICE, general, "<@bot> hello")
    [reply] = await team.discord.until(lambda: team.discord.replies(general))
    await with_its_buttons(team, reply)
    assert reply["content"] == "echo: hello"
    assert reply["message_reference"]["message_id"] == said["id"]
    guild = str(team.discord.world.guild_of(general))
    thread = ThreadKey("discord", guild, general, str(said["id"]))
    await team.discord.deletes(reply)

    async def forgotten() -> bool:
        return await team.house.texts(thread) == ["hello"]

    await until(forgotten)


async def test_a_chat_that_cannot_be_opened_says_so(team: DiscordDeployment, general: str) -> None:
    team.discord.make_trouble("thread", status=400, code=160006)
    used = await team.discord.uses(ALICE, general, "chat")
    await the_answer(team, used, say("chat_not_here", "en"))


async def test_a_chat_is_refused_where_the_bot_may_not_open_threads(
    team: DiscordDeployment, general: str
) -> None:
    used = await team.discord.uses(ALICE, general, "chat", app_permissions=SILENT, locale="ja")
    assert await told(team, used) == say("chat_not_here", "ja")


async def test_where_the_bot_may_not_write_a_long_reply_goes_through_the_token(
    team: DiscordDeployment, general: str
) -> None:
    team.discord.world.mute.add(general)
    used = await team.discord.uses(ALICE, general, "ask", {"prompt": LONG}, app_permissions=SILENT)
    await answered(team, used)
    where = team.discord.world.messages[general]
    await team.discord.until(lambda: len(used.messages) == 2)
    await with_its_buttons(team, where[used.messages[1]])
    assert "".join(where[ident]["content"] for ident in used.messages) == f"echo: {LONG}"


async def test_where_the_app_is_only_the_persons_a_long_reply_ends_in_a_file(
    team: DiscordDeployment,
) -> None:
    general = team.discord.add_channel(team.discord.add_guild())
    await team.start_core(context_length=65_536)
    await team.start_bot()
    long = words(1700)
    alone = {"app_permissions": SILENT, "authorizing_integration_owners": {"1": ALICE["id"]}}
    used = await team.discord.uses(ALICE, general, "ask", {"prompt": long}, **alone)
    await team.discord.until(lambda: len(used.messages) == 6)
    where = team.discord.world.messages[general]
    last = await with_its_buttons(team, where[used.messages[5]])
    assert last["files"] == {"reply.md": f"echo: {long}"}
    assert last["content"].endswith(f"-# {say('rest_in_file', 'en')}")
    assert not any("files" in where[ident] for ident in used.messages[:5])


async def test_where_the_bot_may_not_write_a_reply_is_written_anew_through_the_token(
    team: DiscordDeployment, general: str
) -> None:
    team.discord.world.mute.add(general)
    asked = {"prompt": "hi"}
    used = await team.discord.uses(ALICE, general, "ask", asked, app_permissions=SILENT)
    reply = await with_its_buttons(team, await the_answer(team, used, "echo: hi"))
    before = reply["components"][0]["components"][AGAIN]["custom_id"]
    await team.discord.presses(ALICE, reply, AGAIN, app_permissions=SILENT)

    def is_written_anew() -> bool:
        rows = reply["components"]
        return bool(rows) and rows[0]["components"][AGAIN]["custom_id"] != before

    await team.discord.until(is_written_anew)
    assert team.discord.sent("edit") == []
    assert team.discord.replies(general) == [reply]


# -- what Discord refuses -----------------------------------------------------------------------


async def test_where_an_acknowledgement_comes_too_late_the_reply_comes_all_the_same(
    team: DiscordDeployment, general: str
) -> None:
    direct = team.discord.add_direct(ALICE)
    for asked, channel in (
        ({"prompt": "one"}, general),
        ({"prompt": "two", "private": True}, direct),
    ):
        team.discord.make_trouble("callback", status=404, code=10062)
        await team.discord.uses(ALICE, general, "ask", asked)
        [reply] = await team.discord.until(partial(team.discord.replies, channel))
        await with_its_buttons(team, reply)
        assert reply["content"] == f"echo: {asked['prompt']}"


async def test_a_reply_to_a_message_that_cannot_be_read_comes_without_its_reference(
    team: DiscordDeployment,
) -> None:
    general = team.discord.add_channel(team.discord.add_guild())
    await team.start_core()
    await team.start_bot(answers="reply")
    team.discord.make_trouble("post", status=400, code=160002)
    await team.discord.says(ALICE, general, "<@bot> hello")
    [reply] = await team.discord.until(lambda: team.discord.replies(general))
    await with_its_buttons(team, reply)
    assert "message_reference" not in reply


async def test_a_message_that_takes_no_more_edits_is_said_anew_at_the_end(
    team: DiscordDeployment,
) -> None:
    general = team.discord.add_channel(team.discord.add_guild())
    await team.start_core(tokens_per_second=100)
    await team.start_bot()
    team.discord.make_trouble("edit", times=9, status=400, code=30046)
    said = await team.discord.says(ALICE, general, f"<@bot> {words(40)}")
    await team.discord.until(lambda: len(team.discord.replies(said["id"])) == 2)
    whole = await with_its_buttons(team, team.discord.replies(said["id"])[1])
    assert whole["content"] == f"echo: {words(40)}"


LOCKED, AUTOMOD, HARMFUL_LINK, INVALID_FORM, LATE_TOKEN = 160005, 200000, 240000, 50035, 10062


async def has_written_directly(team: DiscordDeployment) -> str:
    """Alice's direct channel, where the bot has answered her."""
    direct = team.discord.add_direct(ALICE)
    await team.discord.says(ALICE, direct, "hi")
    [reply] = await team.discord.until(lambda: team.discord.replies(direct))
    await with_its_buttons(team, reply)
    return direct


@pytest.mark.parametrize("code", [AUTOMOD, HARMFUL_LINK, INVALID_FORM])
async def test_a_reply_that_discord_blocks_is_tried_once_and_the_channel_is_told(
    team: DiscordDeployment, general: str, code: int
) -> None:
    team.discord.make_trouble("post", status=400, code=code)
    counted = metrics.REFUSALS.labels("discord", str(code))
    before = counted._value.get()
    with capture_logs() as logs:
        said = await team.discord.says(ALICE, general, "<@bot> hello")
        [told] = await team.discord.until(lambda: team.discord.replies(said["id"]))
        await team.discord.until(lambda: counted._value.get() == before + 1)
        await until(team.nothing_owed)
    key = "reply_not_accepted" if code == INVALID_FORM else "reply_blocked"
    assert told["content"] == say(key, "en")
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == [
        "the platform refused a reply"
    ]


@pytest.mark.parametrize("code", [LOCKED, 50083])
async def test_a_reply_to_a_thread_that_was_locked_meanwhile_is_told_directly(
    team: DiscordDeployment, general: str, code: int
) -> None:
    direct = await has_written_directly(team)
    before = len(team.discord.replies(direct))
    team.discord.make_trouble("post", status=400, code=code)
    said = await team.discord.says(ALICE, general, "<@bot> hello")
    await team.discord.until(lambda: len(team.discord.replies(direct)) > before)
    told = team.discord.replies(direct)[-1]
    assert told["content"] == say("thread_locked", "en", channel=f"<#{said['id']}>")
    assert len([r for r in team.discord.rest.requests if r.kind == "post" and r.status == 400]) == 1


async def test_whoever_never_wrote_to_the_bot_directly_gets_no_direct_message(
    team: DiscordDeployment, general: str
) -> None:
    direct = team.discord.add_direct(ALICE)
    team.discord.make_trouble("post", times=99, status=400, code=LOCKED)
    await team.discord.says(ALICE, general, "<@bot> hello")
    await until(team.nothing_owed)
    assert team.discord.replies(direct) == []


async def test_a_locked_thread_costs_no_model_call(team: DiscordDeployment, general: str) -> None:
    direct = await has_written_directly(team)
    before = len(team.discord.replies(direct))
    thread = team.discord.add_thread(general, locked=True)
    await team.discord.says(ALICE, thread, "<@bot> hello")
    await team.discord.until(lambda: len(team.discord.replies(direct)) > before)
    told = team.discord.replies(direct)[-1]
    assert told["content"] == say("thread_locked", "en", channel=f"<#{thread}>")
    guild = str(team.discord.world.guild_of(general))
    assert await team.house.texts(ThreadKey("discord", guild, general, thread)) == []


async def test_a_token_that_discord_does_not_know_any_more_is_done_without(
    team: DiscordDeployment, general: str
) -> None:
    team.discord.make_trouble("webhook", status=404, code=LATE_TOKEN)
    await team.discord.uses(ALICE, general, "ask", {"prompt": "hello"})

    def is_answered() -> bool:
        return any(m["content"] == "echo: hello" for m in team.discord.replies(general))

    await team.discord.until(is_answered)


# -- what people write --------------------------------------------------------------------------


async def test_a_file_is_not_passed_over_in_silence(team: DiscordDeployment, general: str) -> None:
    file: dict[str, Any] = {
        "id": p.snowflake(), "filename": "a.txt", "size": 1, "url": "http://x", "proxy_url": "http://x",
    }  # fmt: skip
    said = await team.discord.says(ALICE, general, "<@bot> hello", attachments=[file])
    [note] = await team.discord.until(lambda: team.discord.replies(general))
    assert note["content"] == say("files_not_read", "en")
    [reply] = await team.discord.until(lambda: team.discord.replies(said["id"]))
    await with_its_buttons(team, reply)


async def test_a_message_without_text_cannot_be_asked_about(
    team: DiscordDeployment, general: str
) -> None:
    said = await team.discord.says(ALICE, general, "")
    used = await team.discord.asks_about(ALICE, said, "Ask Henji about this")
    assert await told(team, used) == say("no_text_there", "en")


async def test_whoever_is_asked_why_is_told_who_reads_it(
    team: DiscordDeployment, general: str
) -> None:
    used = await team.discord.uses(ALICE, general, "ask", {"prompt": "hi"})
    message = await with_its_buttons(team, await the_answer(team, used, "echo: hi"))
    bad = await team.discord.presses(ALICE, message, 2, locale="ja")
    [label] = (await answered(team, bad))["data"]["components"]
    assert label["description"] == say("feedback_reason_hint", "ja")


async def test_a_chat_without_the_intent_says_to_mention_the_bot_and_says_it_once(
    redis: Redis,
) -> None:
    async with discord_deployment(redis, message_content=False) as team:
        general = team.discord.add_channel(team.discord.add_guild())
        await team.start_core()
        await team.start_bot()
        used = await team.discord.uses(ALICE, general, "chat")
        thread = await team.discord.until(lambda: used.original)
        [hint] = await team.discord.until(lambda: team.discord.replies(thread))
        assert hint["content"] == say("chat_mention", "en", mention="@Henji")
        await team.discord.says(ALICE, thread, "<@bot> hello")
        await team.discord.until(lambda: len(team.discord.replies(thread)) == 2)
        reply = await with_its_buttons(team, team.discord.replies(thread)[1])
        assert reply["content"] == "echo: hello"
        assert len(team.discord.replies(thread)) == 2


async def test_a_reply_in_a_channel_needs_no_word_on_how_to_go_on(redis: Redis) -> None:
    async with discord_deployment(redis, message_content=False) as team:
        general = team.discord.add_channel(team.discord.add_guild())
        await team.start_core()
        await team.start_bot(answers="reply")
        await team.discord.says(ALICE, general, "<@bot> hello")
        [reply] = await team.discord.until(lambda: team.discord.replies(general))
        await with_its_buttons(team, reply)
        assert len(team.discord.replies(general)) == 1
