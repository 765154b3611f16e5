"""Memory follows the channel, and what happens where the bot may not do what it would like to."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis

from bots.strings import say
from core.types import ThreadKey
from storage import keys
from tests.local_discord import payloads as p
from tests.local_discord.deployment import (
    ALICE,
    BOB,
    DiscordDeployment,
    discord_deployment,
    words,
)
from tests.store_fixture import StoreFixture
from tests.waiting import until


async def talk(
    deployment: DiscordDeployment, general: str, *more: str
) -> tuple[p.Payload, ThreadKey]:
    """A conversation in a thread: `one`, and what follows it; every message answered."""
    said = await deployment.discord.says(ALICE, general, "<@bot> one")
    await reply_to(deployment, said["id"], "one")
    for text in more:
        await deployment.discord.says(ALICE, said["id"], text)
        await reply_to(deployment, said["id"], text)
    guild = str(deployment.discord.world.guild_of(general))
    return said, ThreadKey("discord", guild, general, str(said["id"]))


async def reply_to(deployment: DiscordDeployment, channel: str, text: str) -> p.Payload:
    found: list[p.Payload] = await deployment.discord.until(
        lambda: [
            m
            for m in deployment.discord.replies(channel)
            if m["content"] == f"echo: {text}" and len(m["components"][0]["components"]) == 3
        ]
    )
    return found[0]


async def until_remembered(deployment: DiscordDeployment, thread: ThreadKey, *texts: str) -> None:
    async def so() -> bool:
        return await deployment.stores.texts(thread) == list(texts)

    await until(so)


# -- edits and deletions ------------------------------------------------------------------------


async def test_editing_the_newest_question_answers_it_again_in_place(
    deployment: DiscordDeployment, general: str
) -> None:
    said, thread = await talk(deployment, general)
    await deployment.discord.edits(said, "<@bot> another")
    await reply_to(deployment, said["id"], "another")
    assert len(deployment.discord.replies(said["id"])) == 1
    await until_remembered(deployment, thread, "another", "echo: another")


async def test_editing_an_older_question_changes_only_the_history(
    deployment: DiscordDeployment, general: str
) -> None:
    said, thread = await talk(deployment, general, "two")
    await deployment.discord.edits(said, "<@bot> first")
    await until_remembered(deployment, thread, "first", "echo: one", "two", "echo: two")


async def test_a_reply_that_becomes_shorter_is_still_remembered(
    deployment: DiscordDeployment, general: str
) -> None:
    long = "。".join(f"{number}番目の長い文" for number in range(200))[:1950]
    said = await deployment.discord.says(ALICE, general, f"<@bot> {long}")
    await deployment.discord.until(
        lambda: (
            len(replies := deployment.discord.replies(said["id"])) == 2
            and replies[1]["components"]
            and len(replies[1]["components"][0]["components"]) == 3
        )
    )
    await deployment.discord.edits(said, "<@bot> short")
    await reply_to(deployment, said["id"], "short")
    await deployment.discord.until(lambda: len(deployment.discord.replies(said["id"])) == 1)
    await deployment.discord.says(ALICE, said["id"], "two")
    await reply_to(deployment, said["id"], "two")
    thread = ThreadKey(
        "discord", str(deployment.discord.world.guild_of(general)), general, said["id"]
    )
    await until_remembered(deployment, thread, "short", "echo: short", "two", "echo: two")


async def test_a_part_that_begins_with_an_indented_list_item_keeps_the_indent(
    deployment: DiscordDeployment, general: str
) -> None:
    items = "\n".join(f"    - item {number} of the list" for number in range(120))
    said = await deployment.discord.says(ALICE, general, f"<@bot> list:\n- all\n{items}")
    await deployment.discord.until(
        lambda: (
            len(replies := deployment.discord.replies(said["id"])) == 2
            and replies[1]["components"]
            and len(replies[1]["components"][0]["components"]) == 3
        )
    )
    lines = "\n".join(m["content"] for m in deployment.discord.replies(said["id"])).split("\n")
    assert [line for line in lines if "item" in line] == items.split("\n")


async def test_the_bots_own_notices_are_not_read_as_earlier_turns(
    deployment: DiscordDeployment, general: str
) -> None:
    direct = deployment.discord.add_direct(ALICE)
    bot = p.user(p.BOT_ID, "Henji", bot=True)
    other = p.user("5", "Another", bot=True)
    for author, text in (
        (ALICE, "one"),
        (bot, f"echo: one\n-# {say('cut_short', 'en')}"),
        (bot, say("files_not_read", "ja", files="`a.png`")),
        (bot, say("busy", "en", waiting=7)),
        (bot, say("cannot_post_here", "en", channel="<#5>")),
        (other, "beep"),
    ):
        said = p.message(p.snowflake(), direct, author, text)
        deployment.discord.world.keep(said)
    await deployment.discord.says(ALICE, direct, "two")
    await reply_to(deployment, direct, "two")
    thread = ThreadKey("discord", "dm", ALICE["id"], direct)
    await until_remembered(
        deployment, thread, "one", "echo: one", "[bot: Another]\nbeep", "two", "echo: two"
    )


ALTER = p.user("466", "Alter")
PROXIED: p.Payload = {"webhook_id": "466", "application_id": "466"}
"""What a proxy posts for Alice by its webhook, under another name."""


@pytest.mark.parametrize("first", ["copy", "deletion"])
async def test_a_proxied_message_is_answered_once_as_its_persons(
    deployment: DiscordDeployment, first: str
) -> None:
    general = await deployment.ready(tokens_per_second=20)
    original = await deployment.discord.says(ALICE, general, f"A: <@bot> {words(9)}")
    if first == "deletion":
        await deployment.discord.deletes(original)
    text = f"<@{p.BOT_ID}> {words(9)}"
    copy = await deployment.discord.says(ALTER, general, text, **PROXIED)
    if first == "copy":
        await deployment.discord.deletes(original)
    await reply_to(deployment, copy["id"], words(9))
    thread = ThreadKey(
        "discord", str(deployment.discord.world.guild_of(general)), general, copy["id"]
    )
    await until_remembered(deployment, thread, words(9), f"echo: {words(9)}")
    [asked, _] = await deployment.stores.history.turns(thread)
    assert (asked.turn.author, asked.turn.name) == (ALICE["id"], "Alter")
    assert len(deployment.discord.replies(copy["id"])) == 1
    assert not any(
        f"echo: A: {words(9)}" == m["content"] for m in deployment.discord.replies(original["id"])
    )


async def test_an_edit_of_a_proxied_message_is_its_persons(
    deployment: DiscordDeployment, general: str
) -> None:
    original = await deployment.discord.says(ALICE, general, "A: <@bot> one")
    copy = await deployment.discord.says(ALTER, general, f"<@{p.BOT_ID}> one", **PROXIED)
    await deployment.discord.deletes(original)
    await reply_to(deployment, copy["id"], "one")
    guild = str(deployment.discord.world.guild_of(general))
    thread = ThreadKey("discord", guild, general, copy["id"])
    await until_remembered(deployment, thread, "one", "echo: one")
    await deployment.discord.edits(copy, "<@bot> two")
    await until_remembered(deployment, thread, "two", "echo: two")
    assert len(deployment.discord.replies(copy["id"])) == 1


async def test_a_proxied_file_without_words_is_a_message(
    deployment: DiscordDeployment, general: str
) -> None:
    thread = str((await talk(deployment, general))[0]["id"])
    files = [deployment.discord.add_file(general, "a.txt", b"disk full") for _ in range(2)]
    original = await deployment.discord.says(ALICE, thread, "A:", attachments=files[:1])
    copy = await deployment.discord.says(ALTER, thread, "", attachments=files[1:], **PROXIED)
    await deployment.discord.deletes(original)
    read = "[file: a.txt]\n```\ndisk full\n```"  # Discord has no tildes
    await deployment.discord.until(
        lambda: any(read in m["content"] for m in deployment.discord.replies(thread))
    )
    assert copy["content"] == ""


async def test_two_proxied_messages_at_once_are_each_answered(
    deployment: DiscordDeployment, general: str
) -> None:
    people = ((ALICE, ALTER, "one"), (BOB, p.user("78", "Beta"), "two"))
    originals = [
        await deployment.discord.says(who, general, f"A: <@bot> {said}") for who, _, said in people
    ]
    copies = [
        await deployment.discord.says(name, general, f"<@{p.BOT_ID}> {said}", **PROXIED)
        for _, name, said in reversed(people)
    ]
    await deployment.discord.deletes(originals[1])
    await deployment.discord.deletes(originals[0])
    for copy, (who, _, said) in zip(reversed(copies), people, strict=True):
        await reply_to(deployment, copy["id"], said)
        guild = str(deployment.discord.world.guild_of(general))
        thread = ThreadKey("discord", guild, general, copy["id"])
        await until_remembered(deployment, thread, said, f"echo: {said}")
        assert (await deployment.stores.history.turns(thread))[0].turn.author == who["id"]


@pytest.mark.parametrize("answered", [False, True], ids=["under way", "answered"])
async def test_a_proxied_follow_up_is_answered_once_as_its_persons(
    deployment: DiscordDeployment, general: str, answered: bool
) -> None:
    _, thread = await talk(deployment, general)
    text = "two" if answered else words(9)
    original = await deployment.discord.says(ALICE, thread.thread, f"A: {text}")
    if answered:
        await reply_to(deployment, thread.thread, f"A: {text}")
    await deployment.discord.says(ALTER, thread.thread, text, **PROXIED)
    await deployment.discord.deletes(original)
    await reply_to(deployment, thread.thread, text)
    await until_remembered(deployment, thread, "one", "echo: one", text, f"echo: {text}")
    turns = await deployment.stores.history.turns(thread)
    assert turns[2].turn.author == ALICE["id"]
    shown = [message["content"] for message in deployment.discord.replies(thread.thread)]
    assert shown == ["echo: one", f"echo: {text}"]


async def test_a_webhooks_message_that_nobody_deleted_is_ignored(
    deployment: DiscordDeployment, general: str
) -> None:
    text = f"<@{p.BOT_ID}> hello"
    await deployment.discord.says(ALICE, general, f"A: {text}")
    copy = await deployment.discord.says(ALTER, general, text, **PROXIED)
    await talk(deployment, general)  # it has had all its effects
    assert deployment.discord.replies(copy["id"]) == []


async def test_a_post_that_names_the_bot_in_its_title_is_answered_in_it(
    deployment: DiscordDeployment, general: str
) -> None:
    post = deployment.discord.add_thread(general, "@Henji how far is the moon?", ALICE["id"])
    made = {**deployment.discord.world.channels[post], "newly_created": True}
    await deployment.discord.gateway.dispatch("THREAD_CREATE", made, made["guild_id"], 1)
    await deployment.discord.says(ALICE, post, "In miles.", id=post)
    reply = await reply_to(deployment, post, "how far is the moon?\n\nIn miles.")
    assert deployment.discord.sent("thread") == []
    assert reply["channel_id"] == post


@pytest.mark.parametrize("author", [ALICE, BOB], ids=["one's own", "another's"])
async def test_the_title_of_a_thread_asks_about_the_message_that_it_is_made_from(
    deployment: DiscordDeployment, general: str, author: p.Payload
) -> None:
    old = datetime.now(UTC) - timedelta(days=9)
    said = await deployment.discord.says(author, general, "the disk is full", at=old)
    thread = await deployment.discord.makes_thread(ALICE, said, "@Henji what now?")
    await reply_to(deployment, thread, "what now?")
    guild = str(deployment.discord.world.guild_of(general))
    key = ThreadKey("discord", guild, general, thread)
    await until_remembered(deployment, key, "the disk is full", "what now?", "echo: what now?")
    turns = await deployment.stores.history.turns(key)
    assert [stored.turn.author for stored in turns[:2]] == [author["id"], ALICE["id"]]
    await deployment.discord.edits(said, "the disk is slow")
    await until_remembered(deployment, key, "the disk is slow", "what now?", "echo: what now?")
    assert len(deployment.discord.replies(thread)) == 1


async def test_a_title_that_is_the_bot_s_name_alone_asks_for_an_answer_to_the_message(
    deployment: DiscordDeployment, general: str
) -> None:
    said = await deployment.discord.says(BOB, general, "how far is the moon?")
    thread = await deployment.discord.makes_thread(ALICE, said, f"<@{p.BOT_ID}>")
    [reply] = await deployment.discord.until(lambda: deployment.discord.replies(thread))
    assert reply["message_reference"]["channel_id"] == thread


async def test_the_title_of_a_thread_asks_about_a_reply_of_the_bot_s(
    deployment: DiscordDeployment, general: str
) -> None:
    deployment.discord.world.people[ALICE["id"]] = ALICE
    own = p.user(p.BOT_ID, "Henji", bot=True)
    said = await deployment.discord.says(own, general, "the moon is far")
    thread = await deployment.discord.makes_thread(ALICE, said, "how far, @henji?")
    await reply_to(deployment, thread, "[in reply to Henji]\n> the moon is far\n\nhow far, ?")


async def test_a_thread_that_asks_nothing_anew_is_not_answered(
    deployment: DiscordDeployment, general: str
) -> None:
    said = await deployment.discord.says(BOB, general, "how far is the moon?")
    thread = await deployment.discord.makes_thread(ALICE, said, "About the moon")
    asked = await deployment.discord.says(BOB, general, "<@bot> hello")
    await reply_to(deployment, asked["id"], "hello")  # in the thread that the bot has made
    assert deployment.discord.replies(thread) == []
    await deployment.discord.edits(asked, "<@bot> hello", thread=None)
    assert len(deployment.discord.replies(asked["id"])) == 1


async def test_a_link_preview_is_no_edit(deployment: DiscordDeployment, general: str) -> None:
    said, thread = await talk(deployment, general)
    sent = len(deployment.discord.sent("edit"))
    embeds = [{"type": "link", "url": "https://example.org"}]
    await deployment.discord.gateway.dispatch(
        "MESSAGE_UPDATE", {**said, "embeds": embeds}, thread.space, 0
    )
    await talk(deployment, general)  # it has had all its effects
    await until_remembered(deployment, thread, "one", "echo: one")
    assert len([r for r in deployment.discord.sent("edit") if said["id"] in r.path]) <= sent


async def test_a_deleted_question_leaves_the_memory_with_its_reply(
    deployment: DiscordDeployment, general: str
) -> None:
    said, thread = await talk(deployment, general, "two")
    await deployment.discord.deletes(said)
    await until_remembered(deployment, thread, "two", "echo: two")


async def test_a_deleted_reply_leaves_the_memory_alone(
    deployment: DiscordDeployment, general: str
) -> None:
    said, thread = await talk(deployment, general, "two")
    [reply] = [m for m in deployment.discord.replies(said["id"]) if m["content"] == "echo: two"]
    await deployment.discord.deletes(reply)
    await until_remembered(deployment, thread, "one", "echo: one", "two")


async def test_many_messages_deleted_at_once_are_all_forgotten(
    deployment: DiscordDeployment, general: str
) -> None:
    said, thread = await talk(deployment, general, "two", "three")
    where = deployment.discord.world.messages[said["id"]].values()
    two, three = (m for m in where if m["content"] in ("two", "three"))
    await deployment.discord.deletes(two, three)
    await until_remembered(deployment, thread, "one", "echo: one")


async def test_a_deleted_thread_is_forgotten(deployment: DiscordDeployment, general: str) -> None:
    said, thread = await talk(deployment, general)
    await deployment.discord.deletes_channel(said["id"])
    await until_remembered(deployment, thread)


async def test_a_deleted_channel_is_forgotten_with_all_its_threads(
    deployment: DiscordDeployment, general: str
) -> None:
    _, thread = await talk(deployment, general)
    _, another = await talk(deployment, general)
    await deployment.discord.deletes_channel(general)
    await until_remembered(deployment, thread)
    await until_remembered(deployment, another)


async def test_a_guild_that_throws_the_bot_out_is_forgotten(
    deployment: DiscordDeployment, general: str
) -> None:
    _, thread = await talk(deployment, general)
    await deployment.discord.throws_the_bot_out(thread.space)
    await until_remembered(deployment, thread)


async def test_a_question_that_is_edited_away_is_forgotten(
    deployment: DiscordDeployment, general: str
) -> None:
    said, thread = await talk(deployment, general, "two")
    await deployment.discord.edits(said, "<@bot>")
    await until_remembered(deployment, thread, "two", "echo: two")


async def test_a_message_that_names_the_bot_only_now_is_answered(
    deployment: DiscordDeployment, general: str
) -> None:
    said = await deployment.discord.says(ALICE, general, "hello")
    await deployment.discord.edits(said, "<@bot> hello")
    await reply_to(deployment, said["id"], "hello")
    await deployment.discord.edits(said, "<@bot> hello again")
    await reply_to(deployment, said["id"], "hello again")
    assert len(deployment.discord.replies(said["id"])) == 1


async def test_a_question_in_a_channel_or_in_direct_messages_is_forgotten_too(
    deployment: DiscordDeployment,
) -> None:
    general = deployment.discord.add_channel(deployment.discord.add_guild())
    direct = deployment.discord.add_direct(ALICE)
    await deployment.start_core()
    await deployment.start_bot(discord_answers="reply")
    guild, alice = str(deployment.discord.world.guild_of(general)), ALICE["id"]
    places = {
        general: ThreadKey("discord", guild, general, f"@{alice}"),
        direct: ThreadKey("discord", "dm", alice, direct),
    }
    for channel, thread in places.items():
        said = await deployment.discord.says(ALICE, channel, "<@bot> hello")
        await reply_to(deployment, channel, "hello")
        await until_remembered(deployment, thread, "hello", "echo: hello")
        await deployment.discord.deletes(said)
        await until_remembered(deployment, thread)


async def test_of_a_question_that_was_deleted_in_the_queue_nothing_is_left(
    deployment: DiscordDeployment,
) -> None:
    general = deployment.discord.add_channel(deployment.discord.add_guild())
    await deployment.stores.queue.announce("echo", "a core that is busy", 60)
    await deployment.start_bot()
    await deployment.discord.says(BOB, general, "<@bot> one")
    said = await deployment.discord.says(ALICE, general, "<@bot> two")
    [line] = await deployment.discord.until(lambda: deployment.discord.replies(said["id"]))
    assert line["content"] == say("queued", "en", position=2)
    await deployment.discord.deletes(said)
    await deployment.discord.until(lambda: not deployment.discord.replies(said["id"]))
    tasks = {task.get_name() for task in asyncio.all_tasks()}
    assert len([name for name in tasks if name.startswith("typing")]) == 1  # for one


async def test_a_guild_that_is_away_for_a_while_is_not_forgotten(
    deployment: DiscordDeployment, general: str
) -> None:
    said, thread = await talk(deployment, general)
    away = {"id": thread.space, "unavailable": True}
    await deployment.discord.gateway.dispatch("GUILD_DELETE", away, thread.space, 0)
    back = deployment.discord.guild(thread.space)
    await deployment.discord.gateway.dispatch("GUILD_CREATE", back, thread.space, 0)
    await deployment.discord.says(ALICE, said["id"], "two")
    await reply_to(deployment, said["id"], "two")
    await until_remembered(deployment, thread, "one", "echo: one", "two", "echo: two")


# -- where and how people talk ------------------------------------------------------------------


async def test_a_follow_up_in_the_bots_thread_needs_no_mention(
    deployment: DiscordDeployment, general: str
) -> None:
    _, thread = await talk(deployment, general, "two")
    await until_remembered(deployment, thread, "one", "echo: one", "two", "echo: two")


async def test_messages_between_people_in_a_thread_are_stored_and_not_answered(
    deployment: DiscordDeployment, general: str
) -> None:
    said, thread = await talk(deployment, general)
    await deployment.discord.says(ALICE, said["id"], f"<@{BOB['id']}> lunch?", mentions=[BOB])
    await deployment.discord.says(BOB, said["id"], "and now?")
    await reply_to(deployment, said["id"], "and now?")
    await until_remembered(
        deployment, thread, "one", "echo: one", "@Bob lunch?", "and now?", "echo: and now?"
    )


async def test_in_a_thread_that_people_opened_the_bot_answers_the_person_of_its_last_reply(
    deployment: DiscordDeployment,
) -> None:
    theirs = deployment.discord.add_thread(
        deployment.discord.add_channel(deployment.discord.add_guild())
    )
    await deployment.start_core()
    await deployment.start_bot()
    await deployment.discord.says(BOB, theirs, "the moon is far")
    await deployment.discord.says(ALICE, theirs, "<@bot> one")
    await reply_to(deployment, theirs, "one")
    await deployment.discord.says(ALICE, theirs, "two")
    await reply_to(deployment, theirs, "two")
    await deployment.discord.says(BOB, theirs, "very far indeed")
    await deployment.discord.says(ALICE, theirs, "<@bot> three")
    await reply_to(deployment, theirs, "three")
    texts = [reply["content"] for reply in deployment.discord.replies(theirs)]
    assert texts == ["echo: one", "echo: two", "echo: three"]


async def test_a_direct_message_is_answered_there(
    deployment: DiscordDeployment, general: str
) -> None:
    direct = deployment.discord.add_direct(ALICE)
    await deployment.discord.says(ALICE, direct, "hello")
    reply = await reply_to(deployment, direct, "hello")
    assert reply["message_reference"]


async def test_earlier_messages_of_a_thread_are_read_once(
    deployment: DiscordDeployment, general: str
) -> None:
    talk_ = deployment.discord.add_thread(general)
    guild = str(deployment.discord.world.guild_of(general))
    for bot in deployment.bots:
        await bot.kill()
    await deployment.discord.says(BOB, talk_, "the moon is far")
    await deployment.discord.says(ALICE, talk_, "very far")
    await deployment.start_bot("another")
    await deployment.discord.says(ALICE, talk_, "<@bot> how far?")
    await reply_to(deployment, talk_, "how far?")
    thread = ThreadKey("discord", guild, general, talk_)
    expected = ("the moon is far", "very far", "how far?", "echo: how far?")
    await until_remembered(deployment, thread, *expected)


async def test_a_webhook_and_a_notice_are_not_listened_to(
    deployment: DiscordDeployment, general: str
) -> None:
    for kind in ({"webhook_id": "5"}, {"type": 6}):
        said = await deployment.discord.says(BOB, general, "<@bot> hello", **kind)
        await talk(deployment, general)
        assert said["id"] not in deployment.discord.world.channels


async def test_bots_are_not_listened_to(deployment: DiscordDeployment, general: str) -> None:
    other = p.user("700000000000000009", "Other", bot=True)
    ignored = await deployment.discord.says(other, general, "<@bot> hello")
    said, _ = await talk(deployment, general)
    assert ignored["id"] not in deployment.discord.world.channels
    assert said["id"] in deployment.discord.world.channels


async def test_a_mention_without_text_gets_a_question_back(
    deployment: DiscordDeployment, general: str
) -> None:
    said = await deployment.discord.says(ALICE, general, "<@bot>")
    [reply] = await deployment.discord.until(lambda: deployment.discord.replies(general))
    assert reply["content"] == say("nothing_asked_here", "en")
    assert reply["message_reference"]["message_id"] == said["id"]


async def test_a_reply_pings_nobody_and_shows_no_link_preview(
    deployment: DiscordDeployment, general: str
) -> None:
    text = "@everyone <@&5> https://example.org"
    said = await deployment.discord.says(ALICE, general, f"<@bot> {text}")
    await reply_to(deployment, said["id"], text.replace("<@&5>", "@unknown-role"))
    for request in deployment.discord.sent("post"):
        assert request.body["allowed_mentions"]["parse"] == []
        assert request.body["flags"] & 4


async def test_where_the_bot_may_not_write_the_person_gets_a_direct_notice(
    deployment: DiscordDeployment, general: str
) -> None:
    direct = deployment.discord.add_direct(ALICE)
    await deployment.discord.says(ALICE, direct, "hi")
    await reply_to(deployment, direct, "hi")
    deployment.discord.world.mute.add(general)
    await deployment.discord.says(ALICE, general, "<@bot> hello")
    told = say("cannot_post_here", "en", channel=f"<#{general}>")
    await deployment.discord.until(
        lambda: told in [m["content"] for m in deployment.discord.replies(direct)]
    )


# -- the start ----------------------------------------------------------------------------------


async def test_a_quiet_thread_does_not_hide_those_of_other_buckets(redis: Redis) -> None:
    stores = await StoreFixture.serving(redis, buckets=4)
    threads = [ThreadKey("discord", str(space), "5", "6") for space in range(8)]
    for thread in threads:
        await stores.say("hello", thread)
    [now, *_] = [found.last_at async for found in stores.history.threads("discord")]
    quiet = threads[0]
    name = keys.key("threads", stores.store.bucket(quiet))
    await redis.zadd(name, {str(quiet): (now - 3600) * 1000})
    late = {found.thread async for found in stores.history.threads("discord", now - 60)}
    assert late == set(threads[1:])


# -- without the Message Content intent -----------------------------------------------------------


async def test_without_the_intent_the_bot_says_once_how_to_go_on(redis: Redis) -> None:
    async with discord_deployment(redis, message_content=False) as deployment:
        general = deployment.discord.add_channel(deployment.discord.add_guild())
        await deployment.start_core()
        await deployment.start_bot()
        said = await deployment.discord.says(ALICE, general, "<@bot> one")
        await reply_to(deployment, said["id"], "one")
        await deployment.discord.says(ALICE, said["id"], "<@bot> two")
        await reply_to(deployment, said["id"], "two")
        hint = say("mention_again", "en", mention="@Henji")
        texts = [reply["content"] for reply in deployment.discord.replies(said["id"])]
        assert texts.count(hint) == 1
        assert deployment.discord.faults == []
