"""Memory follows the channel, and what happens where the bot may not do what it would like to."""

from __future__ import annotations

import asyncio

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
from tests.store_fixture import LANE, StoreFixture
from tests.waiting import until


async def talk(team: DiscordDeployment, general: str, *more: str) -> tuple[p.Payload, ThreadKey]:
    """A conversation in a thread: `one`, and what follows it; every message answered."""
    said = await team.discord.says(ALICE, general, "<@bot> one")
    await reply_to(team, said["id"], "one")
    for text in more:
        await team.discord.says(ALICE, said["id"], text)
        await reply_to(team, said["id"], text)
    guild = str(team.discord.world.guild_of(general))
    return said, ThreadKey("discord", guild, general, str(said["id"]))


async def reply_to(team: DiscordDeployment, channel: str, text: str) -> p.Payload:
    found: list[p.Payload] = await team.discord.until(
        lambda: [
            m
            for m in team.discord.replies(channel)
            if m["content"] == f"echo: {text}" and len(m["components"][0]["components"]) == 3
        ]
    )
    return found[0]


async def remembered(team: DiscordDeployment, thread: ThreadKey, *texts: str) -> None:
    async def so() -> bool:
        return await team.house.texts(thread) == list(texts)

    await until(so)


# -- edits and deletions ------------------------------------------------------------------------


async def test_editing_the_newest_question_answers_it_again_in_place(
    team: DiscordDeployment, general: str
) -> None:
    said, thread = await talk(team, general)
    await team.discord.edits(said, "<@bot> another")
    await reply_to(team, said["id"], "another")
    assert len(team.discord.replies(said["id"])) == 1
    await remembered(team, thread, "another", "echo: another")


async def test_editing_an_older_question_changes_only_what_is_remembered(
    team: DiscordDeployment, general: str
) -> None:
    said, thread = await talk(team, general, "two")
    await team.discord.edits(said, "<@bot> first")
    await remembered(team, thread, "first", "echo: one", "two", "echo: two")


async def test_a_reply_that_becomes_shorter_is_still_remembered(
    team: DiscordDeployment, general: str
) -> None:
    long = "。".join(f"{number}番目の長い文" for number in range(200))[:1950]
    said = await team.discord.says(ALICE, general, f"<@bot> {long}")
    await team.discord.until(
        lambda: (
            len(replies := team.discord.replies(said["id"])) == 2
            and replies[1]["components"]
            and len(replies[1]["components"][0]["components"]) == 3
        )
    )
    await team.discord.edits(said, "<@bot> short")
    await reply_to(team, said["id"], "short")
    await team.discord.until(lambda: len(team.discord.replies(said["id"])) == 1)
    await team.discord.says(ALICE, said["id"], "two")
    await reply_to(team, said["id"], "two")
    thread = ThreadKey("discord", str(team.discord.world.guild_of(general)), general, said["id"])
    await remembered(team, thread, "short", "echo: short", "two", "echo: two")


async def test_a_part_that_begins_with_an_indented_list_item_keeps_the_indent(
    team: DiscordDeployment, general: str
) -> None:
    items = "\n".join(f"    - item {number} of the list" for number in range(120))
    said = await team.discord.says(ALICE, general, f"<@bot> list:\n- all\n{items}")
    await team.discord.until(
        lambda: (
            len(replies := team.discord.replies(said["id"])) == 2
            and replies[1]["components"]
            and len(replies[1]["components"][0]["components"]) == 3
        )
    )
    lines = "\n".join(m["content"] for m in team.discord.replies(said["id"])).split("\n")
    assert [line for line in lines if "item" in line] == items.split("\n")


async def test_the_bots_own_notices_are_no_turns_where_what_was_said_before_is_read(
    team: DiscordDeployment, general: str
) -> None:
    direct = team.discord.add_direct(ALICE)
    bot = p.user(p.BOT_ID, "Henji", bot=True)
    other = p.user("5", "Another", bot=True)
    for author, text in (
        (ALICE, "one"),
        (bot, f"echo: one\n-# {say('cut_short', 'en')}"),
        (bot, say("files_not_read", "ja")),
        (bot, say("busy", "en", waiting=7)),
        (bot, say("cannot_post_here", "en", channel="<#5>")),
        (other, "beep"),
    ):
        said = p.message(p.snowflake(), direct, author, text)
        team.discord.world.keep(said)
    await team.discord.says(ALICE, direct, "two")
    await reply_to(team, direct, "two")
    thread = ThreadKey("discord", "dm", ALICE["id"], direct)
    await remembered(team, thread, "one", "echo: one", "two", "echo: two")


ALTER = p.user("466", "Alter")
PROXIED: p.Payload = {"webhook_id": "466", "application_id": "466"}
"""What a proxy posts for Alice by its webhook, under another name."""


@pytest.mark.parametrize("first", ["copy", "deletion"])
async def test_a_message_that_a_proxy_posts_anew_is_answered_once_as_its_persons(
    team: DiscordDeployment, first: str
) -> None:
    general = team.discord.add_channel(team.discord.add_guild())
    await team.start_core(tokens_per_second=20)
    await team.start_bot()
    original = await team.discord.says(ALICE, general, f"A: <@bot> {words(9)}")
    if first == "deletion":
        await team.discord.deletes(original)
    text = f"<@{p.BOT_ID}> {words(9)}"
    copy = await team.discord.says(ALTER, general, text, **PROXIED)
    if first == "copy":
        await team.discord.deletes(original)
    await reply_to(team, copy["id"], words(9))
    thread = ThreadKey("discord", str(team.discord.world.guild_of(general)), general, copy["id"])
    await remembered(team, thread, words(9), f"echo: {words(9)}")
    [asked, _] = await team.house.history.turns(thread)
    assert (asked.turn.author, asked.turn.name) == (ALICE["id"], "Alter")
    assert len(team.discord.replies(copy["id"])) == 1
    assert not any(
        f"echo: A: {words(9)}" == m["content"] for m in team.discord.replies(original["id"])
    )


async def test_a_webhooks_message_that_nobody_deleted_is_ignored(
    team: DiscordDeployment, general: str
) -> None:
    text = f"<@{p.BOT_ID}> hello"
    await team.discord.says(ALICE, general, f"A: {text}")
    copy = await team.discord.says(ALTER, general, text, **PROXIED)
    await talk(team, general)  # whatever was to come of it has come
    assert team.discord.replies(copy["id"]) == []


async def test_a_post_that_names_the_bot_in_its_title_is_answered_in_it(
    team: DiscordDeployment, general: str
) -> None:
    post = team.discord.add_thread(general, "@Henji how far is the moon?", ALICE["id"])
    made = {**team.discord.world.channels[post], "newly_created": True}
    await team.discord.gateway.dispatch("THREAD_CREATE", made, made["guild_id"], 1)
    await team.discord.says(ALICE, post, "In miles.", id=post)
    reply = await reply_to(team, post, "how far is the moon?\n\nIn miles.")
    assert team.discord.sent("thread") == []
    assert reply["channel_id"] == post


async def test_a_link_that_unfolds_is_no_edit(team: DiscordDeployment, general: str) -> None:
    said, thread = await talk(team, general)
    sent = len(team.discord.sent("edit"))
    embeds = [{"type": "link", "url": "https://example.org"}]
    await team.discord.gateway.dispatch(
        "MESSAGE_UPDATE", {**said, "embeds": embeds}, thread.space, 0
    )
    await talk(team, general)  # whatever was to come of it has come
    await remembered(team, thread, "one", "echo: one")
    assert len([r for r in team.discord.sent("edit") if said["id"] in r.path]) <= sent


async def test_a_deleted_question_leaves_the_memory_with_its_reply(
    team: DiscordDeployment, general: str
) -> None:
    said, thread = await talk(team, general, "two")
    await team.discord.deletes(said)
    await remembered(team, thread, "two", "echo: two")


async def test_a_deleted_reply_leaves_the_memory_alone(
    team: DiscordDeployment, general: str
) -> None:
    said, thread = await talk(team, general, "two")
    [reply] = [m for m in team.discord.replies(said["id"]) if m["content"] == "echo: two"]
    await team.discord.deletes(reply)
    await remembered(team, thread, "one", "echo: one", "two")


async def test_many_messages_deleted_at_once_are_all_forgotten(
    team: DiscordDeployment, general: str
) -> None:
    said, thread = await talk(team, general, "two", "three")
    where = team.discord.world.messages[said["id"]].values()
    two, three = (m for m in where if m["content"] in ("two", "three"))
    await team.discord.deletes(two, three)
    await remembered(team, thread, "one", "echo: one")


async def test_a_deleted_thread_is_forgotten(team: DiscordDeployment, general: str) -> None:
    said, thread = await talk(team, general)
    await team.discord.deletes_channel(said["id"])
    await remembered(team, thread)


async def test_a_deleted_channel_is_forgotten_with_all_its_threads(
    team: DiscordDeployment, general: str
) -> None:
    _, thread = await talk(team, general)
    _, another = await talk(team, general)
    await team.discord.deletes_channel(general)
    await remembered(team, thread)
    await remembered(team, another)


async def test_a_guild_that_throws_the_bot_out_is_forgotten(
    team: DiscordDeployment, general: str
) -> None:
    _, thread = await talk(team, general)
    await team.discord.throws_the_bot_out(thread.space)
    await remembered(team, thread)


async def test_a_question_that_is_edited_away_is_forgotten(
    team: DiscordDeployment, general: str
) -> None:
    said, thread = await talk(team, general, "two")
    await team.discord.edits(said, "<@bot>")
    await remembered(team, thread, "two", "echo: two")


async def test_a_message_that_names_the_bot_only_now_is_answered(
    team: DiscordDeployment, general: str
) -> None:
    said = await team.discord.says(ALICE, general, "hello")
    await team.discord.edits(said, "<@bot> hello")
    await reply_to(team, said["id"], "hello")
    await team.discord.edits(said, "<@bot> hello again")
    await reply_to(team, said["id"], "hello again")
    assert len(team.discord.replies(said["id"])) == 1


async def test_a_question_in_a_channel_or_in_direct_messages_is_forgotten_too(
    team: DiscordDeployment,
) -> None:
    general = team.discord.add_channel(team.discord.add_guild())
    direct = team.discord.add_direct(ALICE)
    await team.start_core()
    await team.start_bot(answers="reply")
    guild, alice = str(team.discord.world.guild_of(general)), ALICE["id"]
    places = {
        general: ThreadKey("discord", guild, general, f"@{alice}"),
        direct: ThreadKey("discord", "dm", alice, direct),
    }
    for channel, thread in places.items():
        said = await team.discord.says(ALICE, channel, "<@bot> hello")
        await reply_to(team, channel, "hello")
        await remembered(team, thread, "hello", "echo: hello")
        await team.discord.deletes(said)
        await remembered(team, thread)


async def test_of_a_question_that_was_deleted_in_the_queue_nothing_is_left(
    team: DiscordDeployment,
) -> None:
    general = team.discord.add_channel(team.discord.add_guild())
    await team.house.queue.announce("echo", "a core that is busy", 60)
    await team.start_bot()
    await team.discord.says(BOB, general, "<@bot> one")
    said = await team.discord.says(ALICE, general, "<@bot> two")
    [line] = await team.discord.until(lambda: team.discord.replies(said["id"]))
    assert line["content"] == say("queued", "en", position=2)
    await team.discord.deletes(said)
    await team.discord.until(lambda: not team.discord.replies(said["id"]))
    tasks = {task.get_name() for task in asyncio.all_tasks()}
    assert len([name for name in tasks if name.startswith("typing")]) == 1  # for one


async def test_a_guild_that_is_away_for_a_while_is_not_forgotten(
    team: DiscordDeployment, general: str
) -> None:
    said, thread = await talk(team, general)
    away = {"id": thread.space, "unavailable": True}
    await team.discord.gateway.dispatch("GUILD_DELETE", away, thread.space, 0)
    back = team.discord.guild(thread.space)
    await team.discord.gateway.dispatch("GUILD_CREATE", back, thread.space, 0)
    await team.discord.says(ALICE, said["id"], "two")
    await reply_to(team, said["id"], "two")
    await remembered(team, thread, "one", "echo: one", "two", "echo: two")


# -- where and how people talk ------------------------------------------------------------------


async def test_a_follow_up_in_the_bots_thread_needs_no_mention(
    team: DiscordDeployment, general: str
) -> None:
    _, thread = await talk(team, general, "two")
    await remembered(team, thread, "one", "echo: one", "two", "echo: two")


async def test_what_people_say_to_each_other_in_a_thread_is_kept_and_not_answered(
    team: DiscordDeployment, general: str
) -> None:
    said, thread = await talk(team, general)
    await team.discord.says(ALICE, said["id"], f"<@{BOB['id']}> lunch?", mentions=[BOB])
    await team.discord.says(BOB, said["id"], "and now?")
    await reply_to(team, said["id"], "and now?")
    await remembered(team, thread, "one", "echo: one", "@Bob lunch?", "and now?", "echo: and now?")


async def test_in_a_thread_of_peoples_own_the_bot_answers_whom_it_spoke_to(
    team: DiscordDeployment,
) -> None:
    theirs = team.discord.add_thread(team.discord.add_channel(team.discord.add_guild()))
    await team.start_core()
    await team.start_bot()
    await team.discord.says(BOB, theirs, "the moon is far")
    await team.discord.says(ALICE, theirs, "<@bot> one")
    await reply_to(team, theirs, "one")
    await team.discord.says(ALICE, theirs, "two")
    await reply_to(team, theirs, "two")
    await team.discord.says(BOB, theirs, "very far indeed")
    await team.discord.says(ALICE, theirs, "<@bot> three")
    await reply_to(team, theirs, "three")
    texts = [reply["content"] for reply in team.discord.replies(theirs)]
    assert texts == ["echo: one", "echo: two", "echo: three"]


async def test_a_direct_message_is_answered_there(team: DiscordDeployment, general: str) -> None:
    direct = team.discord.add_direct(ALICE)
    await team.discord.says(ALICE, direct, "hello")
    await reply_to(team, direct, "hello")
    assert team.discord.replies(direct)[0]["message_reference"]


async def test_what_was_said_in_a_thread_before_is_read_once(
    team: DiscordDeployment, general: str
) -> None:
    talk_ = team.discord.add_thread(general)
    guild = str(team.discord.world.guild_of(general))
    for bot in team.bots:
        await bot.kill()
    await team.discord.says(BOB, talk_, "the moon is far")
    await team.discord.says(ALICE, talk_, "very far")
    await team.start_bot("another")
    await team.discord.says(ALICE, talk_, "<@bot> how far?")
    await reply_to(team, talk_, "how far?")
    thread = ThreadKey("discord", guild, general, talk_)
    expected = ("the moon is far", "very far", "how far?", "echo: how far?")
    await remembered(team, thread, *expected)


async def test_a_webhook_and_a_notice_are_not_listened_to(
    team: DiscordDeployment, general: str
) -> None:
    for kind in ({"webhook_id": "5"}, {"type": 6}):
        said = await team.discord.says(BOB, general, "<@bot> hello", **kind)
        await talk(team, general)
        assert said["id"] not in team.discord.world.channels


async def test_bots_are_not_listened_to(team: DiscordDeployment, general: str) -> None:
    other = p.user("700000000000000009", "Other", bot=True)
    ignored = await team.discord.says(other, general, "<@bot> hello")
    said, _ = await talk(team, general)
    assert ignored["id"] not in team.discord.world.channels
    assert said["id"] in team.discord.world.channels


async def test_a_mention_alone_is_asked_what_it_wants(
    team: DiscordDeployment, general: str
) -> None:
    said = await team.discord.says(ALICE, general, "<@bot>")
    [reply] = await team.discord.until(lambda: team.discord.replies(general))
    assert reply["content"] == say("nothing_asked_here", "en")
    assert reply["message_reference"]["message_id"] == said["id"]


async def test_a_reply_pings_nobody_and_unfolds_no_link(
    team: DiscordDeployment, general: str
) -> None:
    text = "@everyone <@&5> https://example.org"
    said = await team.discord.says(ALICE, general, f"<@bot> {text}")
    await reply_to(team, said["id"], text.replace("<@&5>", "@unknown-role"))
    for request in team.discord.sent("post"):
        assert request.body["allowed_mentions"]["parse"] == []
        assert request.body["flags"] & 4


async def test_where_the_bot_may_not_write_the_person_is_told_directly(
    team: DiscordDeployment, general: str
) -> None:
    direct = team.discord.add_direct(ALICE)
    await team.discord.says(ALICE, direct, "hi")
    await reply_to(team, direct, "hi")
    team.discord.world.mute.add(general)
    await team.discord.says(ALICE, general, "<@bot> hello")
    _, told = await team.discord.until(
        lambda: len(team.discord.replies(direct)) == 2 and team.discord.replies(direct)
    )
    assert told["content"] == say("cannot_post_here", "en", channel=f"<#{general}>")


# -- what a start looks at ----------------------------------------------------------------------


async def test_a_quiet_thread_does_not_hide_those_of_other_buckets(redis: Redis) -> None:
    house = StoreFixture.over(redis, buckets=4)
    await house.queue.announce(LANE, "core", 60)
    threads = [ThreadKey("discord", str(space), "5", "6") for space in range(8)]
    for thread in threads:
        await house.say("hello", thread)
    [now, *_] = [found.last_at async for found in house.history.threads("discord")]
    quiet = threads[0]
    name = keys.key("threads", house.store.bucket(quiet))
    await redis.zadd(name, {str(quiet): (now - 3600) * 1000})
    late = {found.thread async for found in house.history.threads("discord", now - 60)}
    assert late == set(threads[1:])


# -- without the Message Content intent -----------------------------------------------------------


async def test_without_the_intent_the_bot_says_once_how_to_go_on(redis: Redis) -> None:
    async with discord_deployment(redis, message_content=False) as team:
        general = team.discord.add_channel(team.discord.add_guild())
        await team.start_core()
        await team.start_bot()
        said = await team.discord.says(ALICE, general, "<@bot> one")
        await reply_to(team, said["id"], "one")
        await team.discord.says(ALICE, said["id"], "<@bot> two")
        await reply_to(team, said["id"], "two")
        hint = say("mention_again", "en", mention="@Henji")
        texts = [reply["content"] for reply in team.discord.replies(said["id"])]
        assert texts.count(hint) == 1
        assert team.discord.faults == []
