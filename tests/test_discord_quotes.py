"""Replies, forwards and alerts in Discord: what people point at is read with the question."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from bots.quotes import GONE
from bots.strings import say
from core.queue_types import Place
from core.types import ThreadKey
from tests.local_discord import payloads as p
from tests.local_discord.deployment import ALICE, BOB, DiscordDeployment, discord_deployment
from tests.local_discord.expectations import the_answer, with_its_buttons
from tests.waiting import until

ALERTS = p.user("800000000000000001", "Watchtower", bot=True)
FIRING = [{"type": "rich", "title": "Disk full", "fields": [{"name": "host", "value": "db-1"}]}]
READ = "[bot: Watchtower]\nDisk full\nhost: db-1"


@pytest.fixture
async def talk(redis: Redis) -> AsyncIterator[tuple[DiscordDeployment, str, ThreadKey]]:
    """A team, and a thread in which the bot has said nothing yet."""
    async with discord_deployment(redis) as deployment:
        guild = deployment.discord.add_guild()
        general = deployment.discord.add_channel(guild)
        thread = deployment.discord.add_thread(general)
        await deployment.start_core()
        await deployment.start_bot()
        yield deployment, thread, ThreadKey("discord", guild, general, thread)
        assert deployment.discord.faults == []


async def answered(deployment: DiscordDeployment, channel: str, text: str) -> p.Payload:
    """The bot's newest reply in a channel, once it says this and has ended."""
    reply = await deployment.discord.until(
        lambda: next((m for m in deployment.discord.replies(channel) if m["content"] == text), None)
    )
    return await with_its_buttons(deployment, reply)


async def test_an_alert_in_a_thread_is_read_and_wakes_nobody(
    talk: tuple[DiscordDeployment, str, ThreadKey],
) -> None:
    deployment, thread, key = talk
    await deployment.discord.says(ALERTS, thread, "", embeds=FIRING)
    await deployment.discord.says(ALICE, thread, "<@bot> investigate this")
    await answered(deployment, thread, "echo: investigate this")
    assert (await deployment.stores.texts(key))[0] == READ
    await deployment.discord.says(ALERTS, thread, f"<@{p.BOT_ID}> resolved")

    async def kept() -> bool:
        return "[bot: Watchtower]\nresolved" in await deployment.stores.texts(key)

    await until(kept, 5)
    assert len(deployment.discord.replies(thread)) == 1


async def test_a_mention_as_a_reply_asks_about_the_quoted_message(
    deployment: DiscordDeployment, general: str
) -> None:
    alert = await deployment.discord.says(ALERTS, general, "", embeds=FIRING)
    asked = await deployment.discord.says(ALICE, general, "<@bot>", answers=alert)
    quoted = "\n".join(f"> {line}" for line in READ.split("\n"))
    await answered(deployment, asked["id"], f"echo: [in reply to Watchtower]\n{quoted}")


async def test_a_quote_of_a_message_in_the_thread_is_only_a_pointer(
    talk: tuple[DiscordDeployment, str, ThreadKey],
) -> None:
    deployment, thread, key = talk
    long = "The disk of db-1 is full. " * 20
    said = await deployment.discord.says(BOB, thread, long)
    await deployment.discord.says(ALICE, thread, "<@bot> hello")
    await answered(deployment, thread, "echo: hello")
    await deployment.discord.says(ALICE, thread, "<@bot> since when?", answers=said)
    await deployment.discord.until(lambda: len(deployment.discord.replies(thread)) == 2)

    async def remembered() -> bool:
        return len(await deployment.stores.texts(key)) == 5

    await until(remembered, 5)
    question = (await deployment.stores.texts(key))[3]
    assert question.startswith("[in reply to Bob]\n> The disk of db-1 is full.")
    assert question.endswith("…\n\nsince when?")
    assert len(question) < 200


async def remembers(deployment: DiscordDeployment, key: ThreadKey, *texts: str) -> None:
    """Wait until the conversation begins so."""

    async def so() -> bool:
        return (await deployment.stores.texts(key))[: len(texts)] == list(texts)

    try:
        await until(so, 10)
    except TimeoutError:
        pytest.fail(f"remembered: {await deployment.stores.texts(key)}")


async def test_what_a_forgotten_person_said_is_not_read_through_an_older_reply_to_it(
    talk: tuple[DiscordDeployment, str, ThreadKey],
) -> None:
    deployment, thread, key = talk
    secret = await deployment.discord.says(BOB, thread, "the code is 4711")
    said = await deployment.discord.says(ALICE, thread, "really?", answers=secret)
    await deployment.stores.history.forget(Place("discord", key.space), BOB["id"])
    link = f"https://discord.com/channels/{key.space}/{thread}/{said['id']}"
    await deployment.discord.says(ALICE, thread, f"<@bot> which? {link}")
    await deployment.discord.until(lambda: deployment.discord.replies(thread))
    await until(deployment.nothing_owed)
    texts = await deployment.stores.texts(key)
    assert texts[0] == f"{GONE.whole}\n\nreally?"
    assert "4711" not in str(texts)
    assert "really?" in texts[1]


async def test_a_quote_is_a_turn_before_the_question_and_follows_its_message(
    deployment: DiscordDeployment, general: str
) -> None:
    guild = str(deployment.discord.world.guild_of(general))
    said = await deployment.discord.says(BOB, general, "I restarted it")
    keys = []
    for question in ("why?", "when?"):
        asked = await deployment.discord.says(ALICE, general, f"<@bot> {question}", answers=said)
        await answered(deployment, asked["id"], f"echo: {question}")
        key = ThreadKey("discord", guild, general, asked["id"])
        await remembers(deployment, key, "I restarted it", question, f"echo: {question}")
        keys.append(key)
    first = (await deployment.stores.history.turns(keys[0]))[0].turn
    assert (first.author, first.name, first.role, first.quoted) == (BOB["id"], "Bob", "user", True)
    await deployment.discord.edits(said, "I stopped it")
    for key in keys:
        await remembers(deployment, key, "I stopped it")
    await deployment.discord.edits(asked, "<@bot> where?")
    await answered(deployment, asked["id"], "echo: where?")
    await remembers(deployment, keys[1], "I stopped it", "where?", "echo: where?")
    await deployment.discord.deletes(said)
    await remembers(deployment, keys[0], "why?")
    await remembers(deployment, keys[1], "where?")


async def test_the_file_of_a_quoted_message_is_read(
    deployment: DiscordDeployment, general: str
) -> None:
    guild = str(deployment.discord.world.guild_of(general))
    paste = deployment.discord.add_file(general, "trace.log", b"disk full")
    said = await deployment.discord.says(BOB, general, "see", attachments=[paste])
    asked = await deployment.discord.says(ALICE, general, "<@bot> read it", answers=said)
    await answered(deployment, asked["id"], "echo: read it\n-# `trace.log`: 35 of 35 tokens")
    key = ThreadKey("discord", guild, general, asked["id"])
    read = "see\n\n[file: trace.log]\n~~~\ndisk full\n~~~"
    await remembers(deployment, key, read, "read it", "echo: read it")
    broken = deployment.discord.add_file(general, "notes.txt", b"PK\x03\x04\x00")
    said = await deployment.discord.says(BOB, general, "", attachments=[broken])
    asked = await deployment.discord.says(ALICE, general, "<@bot> read it", answers=said)
    [note] = await deployment.discord.until(lambda: deployment.discord.replies(asked["id"]))
    assert note["content"] == say("file_binary", "en", name="notes.txt")
    assert await deployment.stores.texts(ThreadKey("discord", guild, general, asked["id"])) == []


async def test_a_mention_alone_as_a_reply_to_a_file_asks_about_the_file(
    deployment: DiscordDeployment, general: str
) -> None:
    paste = deployment.discord.add_file(general, "trace.log", b"disk full")
    said = await deployment.discord.says(BOB, general, "", attachments=[paste])
    asked = await deployment.discord.says(ALICE, general, "<@bot>", answers=said)
    await deployment.discord.until(
        lambda: any("disk full" in m["content"] for m in deployment.discord.replies(asked["id"]))
    )


async def test_a_mention_alone_as_a_reply_to_a_picture_is_told_that_it_is_unread(
    deployment: DiscordDeployment, general: str
) -> None:
    photo = deployment.discord.add_file(general, "cat.png", b"\x89PNG", "image/png")
    said = await deployment.discord.says(BOB, general, "", attachments=[photo])
    await deployment.discord.says(ALICE, general, "<@bot>", answers=said)
    [note] = await deployment.discord.until(lambda: deployment.discord.replies(general))
    assert note["content"] == say("files_not_read", "en", files="`cat.png`")


async def test_a_deleted_quote_with_nothing_asked_is_no_question(
    deployment: DiscordDeployment, general: str
) -> None:
    gone = {"type": 0, "message_id": p.snowflake(), "channel_id": general}
    await deployment.discord.says(
        ALICE, general, "<@bot>", type=19, message_reference=gone, referenced_message=None
    )
    [note] = await deployment.discord.until(lambda: deployment.discord.replies(general))
    assert note["content"] == say("nothing_asked_here", "en")


async def test_a_forward_in_direct_messages_is_the_question(
    deployment: DiscordDeployment, general: str
) -> None:
    direct = deployment.discord.add_direct(ALICE)
    snapshot = {
        "type": 0, "content": "the disk is full", "embeds": [], "attachments": [], "flags": 0,
        "timestamp": "2026-01-01T00:00:00+00:00", "edited_timestamp": None, "components": [],
    }  # fmt: skip
    await deployment.discord.says(
        ALICE, direct, "", message_snapshots=[{"message": snapshot}],
        message_reference={"type": 1, "message_id": "9", "channel_id": general},
    )  # fmt: skip
    await answered(deployment, direct, "echo: [forwarded]\n> the disk is full")


async def test_a_reply_to_an_answer_of_ask_goes_on_with_that_conversation(
    deployment: DiscordDeployment, general: str
) -> None:
    used = await deployment.discord.uses(ALICE, general, "ask", {"prompt": "one"})
    answer = await the_answer(deployment, used, "echo: one")
    await with_its_buttons(deployment, answer)
    guild = str(deployment.discord.world.guild_of(general))
    key = ThreadKey("discord", guild, general, f"@{ALICE['id']}")

    async def recorded() -> bool:
        return await deployment.stores.deliveries.locate(key, answer["id"]) is not None

    await until(recorded, 5)
    await deployment.discord.says(ALICE, general, "<@bot> two", answers=answer)
    await deployment.discord.until(
        lambda: any("two" in m["content"] for m in deployment.discord.replies(general))
    )

    async def remembered() -> bool:
        return len(await deployment.stores.texts(key)) == 4

    await until(remembered, 5)
    assert (await deployment.stores.texts(key))[:3] == [
        "one", "echo: one", "[in reply to Henji]\n> echo: one\n\ntwo",
    ]  # fmt: skip
