"""What goes wrong, and what people are told then."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import discord
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from bots.delivery import NOTE_LENGTH
from bots.discord import error_codes
from bots.discord.platform import DiscordPlatform, text_of
from bots.discord.rate_limits import RateLimiter
from bots.platform import Part
from bots.strings import say
from core.observe import metrics
from core.queue_types import Delivery
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


async def test_fifty_people_get_a_notice_in_time_if_redis_does_not_answer(
    deployment: DiscordDeployment, general: str
) -> None:
    await deployment.stores.redis.client_pause(4000)
    used = [
        await deployment.discord.uses(
            p.user(f"70000000000000{number:04}", f"P{number}"), general, "ask", {"prompt": "hello"}
        )
        for number in range(50)
    ]
    for question in used:
        assert await told(deployment, question) in (say("store_down", "en"), say("no_time", "en"))
        assert question.acknowledged_after < 2.9


async def test_every_command_and_button_says_in_time_that_redis_does_not_answer(
    deployment: DiscordDeployment, general: str
) -> None:
    asked = await deployment.discord.uses(ALICE, general, "ask", {"prompt": "hi"})
    reply = await with_its_buttons(deployment, await the_answer(deployment, asked, "echo: hi"))
    await deployment.stores.redis.client_pause(3000)
    used = [
        await deployment.discord.presses(ALICE, reply, AGAIN, locale="ja"),
        *[
            await deployment.discord.uses(ALICE, general, command, locale="ja")
            for command in ("reset", "stop", "regenerate", "admin status", "admin reset server")
        ],
    ]
    for interaction in used:
        await deployment.discord.until(partial(_said_privately, deployment, interaction))
        assert _said_privately(deployment, interaction) == say("store_down", "ja")
        assert interaction.acknowledged_after < 2.5


def _said_privately(deployment: DiscordDeployment, used: Interaction) -> str:
    """The sentence of an answer, or of a deferred one, or that of a follow-up to it."""
    messages = deployment.discord.world.messages[used.channel]
    said = [messages[ident]["content"] for ident in used.messages]
    return next((text for text in reversed(said) if text), "")


@pytest.mark.parametrize("command", ["admin status", "admin reset channel"])
async def test_a_deferred_answer_ends_with_a_sentence_where_redis_fails(
    deployment: DiscordDeployment, general: str, command: str
) -> None:
    for name in ("threads", "resets"):
        await deployment.stores.redis.set(keys.key(name, 0), "not what is expected there")
    used = await deployment.discord.uses(ALICE, general, command)
    assert await told(deployment, used) == say("store_down", "en")


async def test_the_person_gets_a_notice_of_a_failing_export(
    deployment: DiscordDeployment, general: str
) -> None:
    guild = deployment.discord.world.guild_of(general)
    person = keys.key("person", 0, f"discord:{guild}:{ALICE['id']}")
    await deployment.stores.redis.set(person, "not what is expected there", ex=keys.HOUR)
    shown = await deployment.discord.uses(ALICE, general, "privacy", locale="ja")
    await told(deployment, shown)
    message = deployment.discord.world.messages[general][shown.original]
    used = await deployment.discord.presses(ALICE, message, 0, locale="ja")
    assert await told(deployment, used) == say("store_down", "ja")


# -- permissions --------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [50013, 160006, 30013, 50008, 240000])
async def test_where_no_thread_can_be_opened_the_reply_stays_in_the_channel(
    deployment: DiscordDeployment, general: str, code: int
) -> None:
    deployment.discord.make_trouble("thread", times=9, status=400, code=code)
    said = await deployment.discord.says(ALICE, general, "<@bot> hello")
    [reply] = await deployment.discord.until(lambda: deployment.discord.replies(general))
    await with_its_buttons(deployment, reply)
    assert reply["content"] == "echo: hello"
    assert reply["message_reference"]["message_id"] == said["id"]
    guild = str(deployment.discord.world.guild_of(general))
    thread = ThreadKey("discord", guild, general, str(said["id"]))
    await deployment.discord.deletes(reply)

    async def forgotten() -> bool:
        return await deployment.stores.texts(thread) == ["hello"]

    await until(forgotten)


@pytest.mark.parametrize("code", [20031, 200001])
async def test_a_thread_whose_title_is_blocked_has_a_plain_one(
    deployment: DiscordDeployment, general: str, code: int
) -> None:
    deployment.discord.make_trouble("thread", status=400, code=code)
    said = await deployment.discord.says(ALICE, general, "<@bot> a word that is not allowed")
    [reply] = await deployment.discord.until(lambda: deployment.discord.replies(said["id"]))
    await with_its_buttons(deployment, reply)
    assert deployment.discord.world.channels[said["id"]]["name"] == "Henji"


async def test_a_chat_that_cannot_be_opened_says_so(
    deployment: DiscordDeployment, general: str
) -> None:
    deployment.discord.make_trouble("thread", status=400, code=160006)
    used = await deployment.discord.uses(ALICE, general, "chat")
    await the_answer(deployment, used, say("chat_not_here", "en"))


async def test_a_chat_is_refused_where_the_bot_may_not_open_threads(
    deployment: DiscordDeployment, general: str
) -> None:
    used = await deployment.discord.uses(
        ALICE, general, "chat", app_permissions=SILENT, locale="ja"
    )
    assert await told(deployment, used) == say("chat_not_here", "ja")


async def test_where_the_bot_may_not_write_a_long_reply_goes_through_the_token(
    deployment: DiscordDeployment, general: str
) -> None:
    deployment.discord.world.mute.add(general)
    used = await deployment.discord.uses(
        ALICE, general, "ask", {"prompt": LONG}, app_permissions=SILENT
    )
    await answered(deployment, used)
    where = deployment.discord.world.messages[general]
    await deployment.discord.until(lambda: len(used.messages) == 2)
    await with_its_buttons(deployment, where[used.messages[1]])
    assert "".join(where[ident]["content"] for ident in used.messages) == f"echo: {LONG}"


async def test_a_long_reply_of_a_user_installed_app_ends_in_a_file(
    deployment: DiscordDeployment,
) -> None:
    general = deployment.discord.add_channel(deployment.discord.add_guild())
    await deployment.start_core(context_length=65_536)
    await deployment.start_bot()
    long = words(1700)
    alone = {"app_permissions": SILENT, "authorizing_integration_owners": {"1": ALICE["id"]}}
    used = await deployment.discord.uses(ALICE, general, "ask", {"prompt": long}, **alone)
    await deployment.discord.until(lambda: len(used.messages) == 6)
    where = deployment.discord.world.messages[general]
    last = await with_its_buttons(deployment, where[used.messages[5]])
    assert last["files"] == {"reply.md": f"echo: {long}"}
    assert last["content"].endswith(f"-# {say('rest_in_file', 'en')}")
    assert not any("files" in where[ident] for ident in used.messages[:5])


@pytest.mark.parametrize("length", [116, 117, 120, 121, 400])
def test_a_note_fits_under_the_longest_part(length: int) -> None:
    platform = DiscordPlatform(
        discord.Client(intents=discord.Intents.none()), RateLimiter(), _never, _never
    )
    delivery = Delivery("f" * 24, ThreadKey("discord", "1", "2", "3"), "4", "5", token=1)
    room = platform.part_length - max(0, length - NOTE_LENGTH)
    [words] = platform.split(delivery, "  - " + "x" * (room - 4), room)
    assert len(text_of(Part(0, words, last=True, note="n" * length))) <= 2000


async def _never(*_: object) -> bool:
    return False


async def test_a_long_reply_of_a_user_installed_app_has_room_for_a_long_note(
    deployment: DiscordDeployment,
) -> None:
    general = deployment.discord.add_channel(deployment.discord.add_guild())
    await deployment.start_core(context_length=65_536)
    await deployment.start_bot()
    long = words(1340)
    name = f"{'n' * 72}.txt"
    file = deployment.discord.add_file(general, name, b"x")
    links = [f"https://discord.com/channels/1/2/{number}" for number in range(3)]
    alone = {"app_permissions": SILENT, "authorizing_integration_owners": {"1": ALICE["id"]}}
    asked = {"prompt": f"{' '.join(links)} {long}", "file": file}
    used = await deployment.discord.uses(ALICE, general, "ask", asked, **alone)
    await deployment.discord.until(lambda: len(used.messages) == 6)
    where = deployment.discord.world.messages[general]
    last = await with_its_buttons(deployment, where[used.messages[5]])
    assert len(used.messages) == 6
    assert f"`{name}`" in last["content"]
    assert "word1339" in last["files"]["reply.md"]


async def test_where_the_bot_may_not_write_a_reply_is_regenerated_by_the_token(
    deployment: DiscordDeployment, general: str
) -> None:
    deployment.discord.world.mute.add(general)
    asked = {"prompt": "hi"}
    used = await deployment.discord.uses(ALICE, general, "ask", asked, app_permissions=SILENT)
    reply = await with_its_buttons(deployment, await the_answer(deployment, used, "echo: hi"))
    before = reply["components"][0]["components"][AGAIN]["custom_id"]
    await deployment.discord.presses(ALICE, reply, AGAIN, app_permissions=SILENT)

    def is_written_anew() -> bool:
        rows = reply["components"]
        return bool(rows) and rows[0]["components"][AGAIN]["custom_id"] != before

    await deployment.discord.until(is_written_anew)
    assert deployment.discord.sent("edit") == []
    assert deployment.discord.replies(general) == [reply]


# -- refusals of Discord ------------------------------------------------------------------------


async def test_where_an_acknowledgement_comes_too_late_the_reply_comes_all_the_same(
    deployment: DiscordDeployment, general: str
) -> None:
    direct = deployment.discord.add_direct(ALICE)
    for asked, channel in (
        ({"prompt": "one"}, general),
        ({"prompt": "two", "private": True}, direct),
    ):
        deployment.discord.make_trouble("callback", status=404, code=10062)
        await deployment.discord.uses(ALICE, general, "ask", asked)
        [reply] = await deployment.discord.until(partial(deployment.discord.replies, channel))
        await with_its_buttons(deployment, reply)
        assert reply["content"] == f"echo: {asked['prompt']}"


async def test_a_reply_to_a_message_that_cannot_be_read_comes_without_its_reference(
    deployment: DiscordDeployment,
) -> None:
    general = deployment.discord.add_channel(deployment.discord.add_guild())
    await deployment.start_core()
    await deployment.start_bot(discord_answers="reply")
    deployment.discord.make_trouble("post", status=400, code=160002)
    await deployment.discord.says(ALICE, general, "<@bot> hello")
    [reply] = await deployment.discord.until(lambda: deployment.discord.replies(general))
    await with_its_buttons(deployment, reply)
    assert "message_reference" not in reply


async def test_a_message_that_accepts_no_more_edits_is_sent_again_at_the_end(
    deployment: DiscordDeployment,
) -> None:
    general = await deployment.ready(tokens_per_second=100)
    deployment.discord.make_trouble("edit", times=9, status=400, code=30046)
    said = await deployment.discord.says(ALICE, general, f"<@bot> {words(40)}")
    await deployment.discord.until(lambda: len(deployment.discord.replies(said["id"])) == 2)
    whole = await with_its_buttons(deployment, deployment.discord.replies(said["id"])[1])
    assert whole["content"] == f"echo: {words(40)}"


async def test_a_reply_whose_message_somebody_deleted_stops_and_is_not_posted_again(
    deployment: DiscordDeployment,
) -> None:
    general = await deployment.ready(tokens_per_second=100)
    deployment.discord.make_trouble("edit", times=9, status=404, code=10008)
    with capture_logs() as logs:
        said = await deployment.discord.says(ALICE, general, f"<@bot> {words(40)}")
        await deployment.discord.until(
            lambda: any("deleted while it was written" in log["event"] for log in logs)
        )
        await until(deployment.nothing_owed)
    assert len(deployment.discord.replies(said["id"])) == 1
    guild = str(deployment.discord.world.guild_of(general))
    thread = ThreadKey("discord", guild, general, said["id"])
    assert all(t.turn.role == "user" for t in await deployment.stores.history.turns(thread))


LOCKED, AUTOMOD, HARMFUL_LINK, INVALID_FORM, LATE_TOKEN = 160005, 200000, 240000, 50035, 10062


async def has_written_directly(deployment: DiscordDeployment) -> str:
    """Alice's direct channel, where the bot has answered her."""
    direct = deployment.discord.add_direct(ALICE)
    await deployment.discord.says(ALICE, direct, "hi")
    [reply] = await deployment.discord.until(lambda: deployment.discord.replies(direct))
    await with_its_buttons(deployment, reply)
    return direct


@pytest.mark.parametrize("code", [AUTOMOD, HARMFUL_LINK, INVALID_FORM])
async def test_a_reply_that_discord_blocks_is_tried_once_and_the_channel_gets_a_notice(
    deployment: DiscordDeployment, general: str, code: int
) -> None:
    deployment.discord.make_trouble("post", status=400, code=code)
    counted = metrics.REFUSALS.labels("discord", str(code))
    before = counted._value.get()
    with capture_logs() as logs:
        said = await deployment.discord.says(ALICE, general, "<@bot> hello")
        [told] = await deployment.discord.until(lambda: deployment.discord.replies(said["id"]))
        await deployment.discord.until(lambda: counted._value.get() == before + 1)
        await until(deployment.nothing_owed)
    key = "reply_not_accepted" if code == INVALID_FORM else "reply_blocked"
    assert told["content"] == say(key, "en")
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == [
        "the platform refused a reply"
    ]


PASSING = {20016, 20022, 20028, 20029, 40003, 40004, 40006, 40062, 110000, 110001, 130000}
"""Those of the published codes that speak of a limit, of overload, or of a while."""
FINAL = {
    10003, 10004, 10008, 10015, 10062, 20009, 20012, 20018, 20024, 20031, 30013, 30033, 30046,
    40005, 40007, 40058, 40060, 40094, 40333, 50001, 50003, 50005, 50006, 50007, 50008, 50009,
    50013, 50021, 50024, 50027, 50035, 50055, 50068, 50083, 50095, 50109, 50132, 50278, 160002,
    160005, 160006, 160007, 200000, 200001, 240000, 340015, 400001,
}  # fmt: skip


@pytest.mark.parametrize("code", sorted(PASSING | FINAL))
def test_a_published_code_is_final_or_passes(code: int) -> None:
    """From discord/discord-api-docs, topics/opcodes-and-status-codes, of 2026-08-06."""
    answer: Any = SimpleNamespace(status=400, reason="Bad Request")
    error = discord.HTTPException(answer, {"code": code, "message": "refused"})
    assert error_codes.is_final(error) is (code in FINAL)


@pytest.mark.parametrize("code", [LOCKED, 50083])
async def test_a_reply_to_a_locked_thread_becomes_a_direct_notice(
    deployment: DiscordDeployment, general: str, code: int
) -> None:
    direct = await has_written_directly(deployment)
    before = len(deployment.discord.replies(direct))
    deployment.discord.make_trouble("post", status=400, code=code)
    said = await deployment.discord.says(ALICE, general, "<@bot> hello")
    await deployment.discord.until(lambda: len(deployment.discord.replies(direct)) > before)
    told = deployment.discord.replies(direct)[-1]
    assert told["content"] == say("thread_locked", "en", channel=f"<#{said['id']}>")
    assert (
        len([r for r in deployment.discord.rest.requests if r.kind == "post" and r.status == 400])
        == 1
    )


async def test_a_person_who_never_wrote_directly_gets_no_direct_message(
    deployment: DiscordDeployment, general: str
) -> None:
    direct = deployment.discord.add_direct(ALICE)
    deployment.discord.make_trouble("post", times=99, status=400, code=LOCKED)
    await deployment.discord.says(ALICE, general, "<@bot> hello")
    await deployment.discord.until(lambda: deployment.discord.sent("post", 400))
    await until(deployment.nothing_owed)
    assert deployment.discord.replies(direct) == []


async def test_a_locked_thread_costs_no_model_call_and_its_notice_goes_after_replies(
    deployment: DiscordDeployment, general: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct = await has_written_directly(deployment)
    before = len(deployment.discord.replies(direct))
    acquire = RateLimiter.acquire
    asked: set[tuple[str, bool]] = set()

    async def note(self: RateLimiter, key: str, *, final: bool) -> None:
        asked.add((key, final))
        await acquire(self, key, final=final)

    monkeypatch.setattr(RateLimiter, "acquire", note)
    thread = deployment.discord.add_thread(general, locked=True)
    await deployment.discord.says(ALICE, thread, "<@bot> hello")
    await deployment.discord.until(lambda: len(deployment.discord.replies(direct)) > before)
    told = deployment.discord.replies(direct)[-1]
    assert told["content"] == say("thread_locked", "en", channel=f"<#{thread}>")
    guild = str(deployment.discord.world.guild_of(general))
    assert await deployment.stores.texts(ThreadKey("discord", guild, general, thread)) == []
    assert {final for key, final in asked if key == f"POST {direct}"} == {False}


async def test_a_reply_continues_without_a_token_that_discord_no_longer_knows(
    deployment: DiscordDeployment, general: str
) -> None:
    deployment.discord.make_trouble("webhook", status=404, code=LATE_TOKEN)
    await deployment.discord.uses(ALICE, general, "ask", {"prompt": "hello"})

    def is_answered() -> bool:
        return any(m["content"] == "echo: hello" for m in deployment.discord.replies(general))

    await deployment.discord.until(is_answered)


# -- odd messages of people ---------------------------------------------------------------------


async def test_a_message_without_text_cannot_be_asked_about(
    deployment: DiscordDeployment, general: str
) -> None:
    said = await deployment.discord.says(ALICE, general, "")
    used = await deployment.discord.asks_about(ALICE, said, "Ask Henji about this")
    assert await told(deployment, used) == say("no_text_there", "en")


async def test_the_question_for_a_reason_names_the_readers_of_the_answer(
    deployment: DiscordDeployment, general: str
) -> None:
    used = await deployment.discord.uses(ALICE, general, "ask", {"prompt": "hi"})
    message = await with_its_buttons(deployment, await the_answer(deployment, used, "echo: hi"))
    bad = await deployment.discord.presses(ALICE, message, 2, locale="ja")
    [label] = (await answered(deployment, bad))["data"]["components"]
    assert label["description"] == say("feedback_reason_hint", "ja")


async def test_a_chat_without_the_intent_says_to_mention_the_bot_and_says_it_once(
    redis: Redis,
) -> None:
    async with discord_deployment(redis, message_content=False) as deployment:
        general = deployment.discord.add_channel(deployment.discord.add_guild())
        await deployment.start_core()
        await deployment.start_bot()
        used = await deployment.discord.uses(ALICE, general, "chat")
        thread = await deployment.discord.until(lambda: used.original)
        [hint] = await deployment.discord.until(lambda: deployment.discord.replies(thread))
        assert hint["content"] == say("chat_mention", "en", mention="@Henji")
        await deployment.discord.says(ALICE, thread, "<@bot> hello")
        await deployment.discord.until(lambda: len(deployment.discord.replies(thread)) == 2)
        reply = await with_its_buttons(deployment, deployment.discord.replies(thread)[1])
        assert reply["content"] == "echo: hello"
        assert len(deployment.discord.replies(thread)) == 2


async def test_a_reply_in_a_channel_does_not_say_how_to_continue(redis: Redis) -> None:
    async with discord_deployment(redis, message_content=False) as deployment:
        general = deployment.discord.add_channel(deployment.discord.add_guild())
        await deployment.start_core()
        await deployment.start_bot(discord_answers="reply")
        await deployment.discord.says(ALICE, general, "<@bot> hello")
        [reply] = await deployment.discord.until(lambda: deployment.discord.replies(general))
        await with_its_buttons(deployment, reply)
        assert len(deployment.discord.replies(general)) == 1
