"""Dialogues with the unmodified bot in a simulated guild: permissions, intents, commands."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

import discord
import pytest
from redis.asyncio import Redis

from bots.discord.client import HenjiClient
from bots.discord.rate_limits import RateLimiter
from bots.guide import EXAMPLES
from bots.strings import about, is_own_sentence, say
from core.types import ThreadKey
from tests.local_discord.deployment import words
from tests.local_discord.story import Story, a_story, button_of
from tests.waiting import until

# -- where people talk --------------------------------------------------------------------------


async def test_a_mention_is_answered_in_a_new_thread(redis: Redis) -> None:
    async with a_story(redis) as story:
        await story.alice.send(story.general, f"{story.mention} hello")
        thread = await story.thread()
        await story.hears(thread, "echo: hello")
        assert thread.name == "hello"
        assert story.said(story.general) == []


async def test_a_mention_is_answered_by_a_reply_where_that_is_set(redis: Redis) -> None:
    async with a_story(redis, discord_answers="reply") as story:
        asked = await story.alice.send(story.general, f"{story.mention} hello")
        reply = await story.hears(story.general, "echo: hello")
        assert reply.reference is not None
        assert reply.reference.message_id == asked.id
        assert story.general.threads == []


async def test_a_conversation_goes_on_without_mentions_and_remembers(redis: Redis) -> None:
    async with a_story(redis) as story:
        await story.alice.send(story.general, f"{story.mention} one")
        thread = await story.thread()
        await story.hears(thread, "echo: one")
        await story.bob.send(thread, "two")
        await story.hears(thread, "echo: two")
        [summary] = [found async for found in story.context.stores.history.threads("discord")]
        assert summary.turns == 4


async def test_where_mentions_are_asked_for_others_are_only_remembered(redis: Redis) -> None:
    async with a_story(redis, discord_followups="mention") as story:
        await story.alice.send(story.general, f"{story.mention} one")
        thread = await story.thread()
        await story.hears(thread, "echo: one")
        await story.bob.send(thread, "psst")
        await story.alice.send(thread, f"{story.mention} two")
        await story.hears(thread, "echo: two")
        assert "echo: psst" not in story.said(thread)
        [summary] = [found async for found in story.context.stores.history.threads("discord")]
        assert summary.turns == 5


async def test_a_direct_message_needs_no_mention(redis: Redis) -> None:
    async with a_story(redis) as story:
        await story.alice.send_dm("hello")
        await story.hears(story.alice.user.dm_channel, "echo: hello")


async def test_earlier_messages_of_a_thread_are_read(redis: Redis) -> None:
    async with a_story(redis, discord_followups="mention") as story:
        started = await story.bob.send(story.general, "the moon is far")
        thread = await started.create_thread(name="the moon")
        await story.env.settle()
        await story.alice.send(story.general.threads[0], "very far")
        await story.alice.send(story.general.threads[0], f"{story.mention} how far?")
        await story.hears(story.general.threads[0], "echo: how far?")
        key = ThreadKey("discord", str(story.guild.id), str(story.general.id), str(thread.id))
        texts = [stored.turn.text for stored in await story.context.stores.history.turns(key)]
        assert texts == ["the moon is far", "very far", "how far?", "echo: how far?"]


async def test_people_who_talk_among_themselves_are_left_alone(redis: Redis) -> None:
    async with a_story(redis) as story:
        await story.alice.send(story.general, f"{story.mention} one")
        thread = await story.thread()
        await story.hears(thread, "echo: one")
        await story.bob.send(thread, f"{story.alice.mention} lunch?")
        await story.alice.send(thread, "two")
        await story.hears(thread, "echo: two")
        assert story.said(thread) == ["echo: one", "echo: two"]


async def test_other_bots_are_ignored(redis: Redis) -> None:
    async with a_story(redis) as story:
        other = story.guild.add_member(story.env.create_user("other", bot=True))
        await other.send(story.general, f"{story.mention} hello")
        await story.alice.send(story.general, f"{story.mention} hello")
        thread = await story.thread()
        await story.hears(thread, "echo: hello")


async def test_a_table_is_shown_in_columns(redis: Redis) -> None:
    async with a_story(redis) as story:
        table = "| a | b |\n|---|---|\n| one | two |"
        await story.alice.send(story.general, f"{story.mention} look:\n\n{table}")
        thread = await story.thread()
        await story.hears(thread, "echo: look:\n\n```\na    b\n───  ───\none  two\n```")


async def test_a_long_reply_with_code_becomes_complete_messages(redis: Redis) -> None:
    async with a_story(redis) as story:
        code = "```python\n" + "\n".join(f"line_{n} = {n}" for n in range(140)) + "\n```"
        await story.alice.send(story.general, f"{story.mention} look:\n{code}")
        thread = await story.thread()
        async with asyncio.timeout(10):
            while len(story.said(thread)) < 2 or not button_of(story.messages(thread)[-1], "a"):
                await story.env.settle()
        parts = story.said(thread)
        assert all(len(part) <= 2000 and part.count("```") % 2 == 0 for part in parts)
        assert sum(part.count("line_") for part in parts) == 140


# -- missing permissions ------------------------------------------------------------------------


async def test_without_the_right_to_open_threads_it_answers_in_the_channel(redis: Redis) -> None:
    async with a_story(redis) as story:
        closed = story.guild.create_text_channel(
            "closed", overwrites={story.guild.default_role: _denied(create_public_threads=False)}
        )
        await story.alice.send(closed, f"{story.mention} hello")
        await story.hears(closed, "echo: hello")
        assert closed.threads == []


async def test_without_message_content_it_says_once_how_to_go_on(redis: Redis) -> None:
    async with a_story(redis, reads=False) as story:
        await story.alice.send(story.general, f"{story.mention} one")
        thread = await story.thread()
        await story.hears(thread, "echo: one")
        await story.alice.send(thread, "this text does not reach the bot")
        await story.alice.send(thread, f"{story.mention} two")
        await story.hears(thread, "echo: two")
        name = story.env.bot.user.display_name if story.env.bot.user else ""
        hint = say("mention_again", "en", mention=f"@{name}")
        assert sorted(story.said(thread)) == sorted([hint, "echo: one", "echo: two"])


async def test_without_message_content_everything_else_works(redis: Redis) -> None:
    async with a_story(redis, reads=False) as story:
        await story.alice.send_dm("hello")
        await story.hears(story.alice.user.dm_channel, "echo: hello")
        used = await story.alice.slash(story.general, "ask", prompt="two")
        await story.is_answered(used, "echo: two")
        said = await story.bob.send(story.general, "the moon is far")
        used = await story.alice.context_menu(story.general, "Ask Henji about this", said)
        await story.is_answered(used, "echo: bob: the moon is far")


def manager_of(story: Story) -> Any:
    """Carol, who may manage the server."""
    rights = discord.Permissions(manage_guild=True)
    manager = story.guild.create_role("manager", permissions=rights)
    return story.guild.add_member(story.env.create_user("carol"), roles=[manager])


def _denied(**rights: bool) -> discord.PermissionOverwrite:
    return discord.PermissionOverwrite(**rights)


# -- commands and buttons -----------------------------------------------------------------------


async def test_a_question_is_deferred_and_answered(redis: Redis) -> None:
    async with a_story(redis) as story:
        used = await story.alice.slash(story.general, "ask", prompt="hello")
        assert used.acknowledged
        await story.is_answered(used, "echo: hello")


async def test_a_reply_that_outlives_its_token_goes_on_in_its_message(redis: Redis) -> None:
    async with a_story(redis, speed=120) as story:
        used = await story.alice.slash(story.general, "ask", prompt=words(20))
        async with asyncio.timeout(10):
            while not any("word" in text for text in story.said(story.general)):
                await story.env.settle()
        await story.env.advance_time(15 * 60 + 1)
        reply = await story.hears(story.general, f"echo: {words(20)}")
        assert story.messages(story.general) == [reply]
        assert used.acknowledged


async def test_a_private_question_stays_private(redis: Redis) -> None:
    async with a_story(redis) as story:
        used = await story.alice.slash(story.general, "ask", prompt="hello", private=True)
        await story.is_answered(used, "echo: hello")
        assert used.ephemeral
        assert story.said(story.general) == []


async def test_a_reply_is_asked_about_by_the_message_menu(redis: Redis) -> None:
    async with a_story(redis) as story:
        said = await story.bob.send(story.general, "the moon is far")
        used = await story.alice.context_menu(story.general, "Ask Henji about this", said)
        await story.is_answered(used, "echo: bob: the moon is far")


async def test_a_chat_opens_a_thread(redis: Redis) -> None:
    async with a_story(redis) as story:
        await story.alice.slash(story.general, "chat")
        thread = await story.thread()
        await story.alice.send(thread, "hello")
        await story.hears(thread, "echo: hello")


@pytest.mark.parametrize("locale", ["en", "ja"])
async def test_every_other_command_answers_its_person_alone(redis: Redis, locale: str) -> None:
    async with a_story(redis, locale=locale) as story:
        for command, key in {
            "reset": "reset_nothing",
            "stop": "nothing_to_stop",
            "regenerate": "nothing_to_regenerate",
            "model": "model",
            "privacy": "privacy",
        }.items():
            used = await story.alice.slash(story.general, command)
            await story.is_answered(used, about(key, locale, "", model="echo", days="30"))
            assert used.ephemeral


@pytest.mark.parametrize("locale", ["en", "ja"])
async def test_help_says_what_this_person_can_do_with_which_model(
    redis: Redis, locale: str
) -> None:
    async with a_story(redis, locale=locale) as story:
        used = await story.alice.slash(story.general, "help")
        said = await answer_to(story, used)
        lines = said.splitlines()
        assert said.startswith(about("discord_help", locale, "", model="echo"))
        assert say("guide_reads", locale, pages=12, tokens=8_192) in lines
        assert say("guide_blind", locale) in lines
        assert say("guide_remembers", locale, days="30") in lines
        assert lines[-3:] == [say(key, locale) for key in EXAMPLES]
        assert say("help_admins", locale, commands="`/admin`") not in lines
        carol = await manager_of(story).slash(story.general, "help")
        assert say("help_admins", locale, commands="`/admin`") in await answer_to(story, carol)


async def test_usage_says_what_was_used_and_when_it_starts_again(redis: Redis) -> None:
    async with a_story(redis, locale="en") as story:
        await story.alice.send(story.general, f"{story.mention} one")
        await story.hears(await story.thread(), "echo: one")
        used = await story.alice.slash(story.general, "usage")
        said = await answer_to(story, used)
        assert "• messages (you, here): 1 used, without a limit." in said
        assert "It starts again at 00:00 (UTC)." in said
        assert used.ephemeral


async def test_the_first_words_in_a_direct_message_are_the_help_once(redis: Redis) -> None:
    async with a_story(redis, locale="en") as story:
        await story.alice.send_dm("hello")
        direct = story.alice.user.dm_channel
        await story.hears(direct, "echo: hello")
        await story.alice.send_dm("again")
        await story.hears(direct, "echo: again")
        greetings = [text for text in story.said(direct) if say("guide_blind", "en") in text]
        assert len(greetings) == 1
        assert is_own_sentence(greetings[0])  # it is never read back as the model's words


async def answer_to(story: Story, used: Any) -> str:
    """The answer that a command gets."""
    async with asyncio.timeout(10):
        while used.response is None or not used.response.content:
            await story.env.settle()
    return str(used.response.content)


@pytest.mark.parametrize("locale", ["en", "ja"])
async def test_every_admin_command_answers_its_admin_alone(redis: Redis, locale: str) -> None:
    async with a_story(redis, locale=locale) as story:
        carol = manager_of(story)
        await story.alice.send(story.general, f"{story.mention} one")
        thread = await story.thread()
        await story.hears(thread, "echo: one")
        counts = {"model": "echo", "cores": 2, "waiting": 0, "threads": 1}
        status = await carol.slash(story.general, "admin status")
        await story.is_answered(status, say("status_line", locale, **counts))
        outside = await carol.slash(story.general, "admin reset thread")
        await story.is_answered(outside, say("not_in_thread", locale))
        for place, command, given in (
            (thread, "admin reset thread", {}),
            (thread, "admin reset channel", {}),
            (thread, "admin reset user", {"user": story.alice}),
            (thread, "admin reset server", {}),
        ):
            used = await carol.slash(place, command, **given)
            scope = command.rsplit(" ", 1)[1].replace("server", "space")
            told = say("reset_scope_done", locale, scope=say(f"scope_{scope}", locale))
            told = say("reset_done", locale) if scope == "thread" else told
            await story.is_answered(used, told)
            assert used.ephemeral
        audit = await carol.slash(story.general, "admin audit")
        await story.is_answered(audit, say("audit_nothing", locale))
        [summary] = [found async for found in story.context.stores.history.threads("discord")]
        assert summary.turns == 0


async def test_admin_commands_are_hidden_and_checked_again(redis: Redis) -> None:
    async with a_story(redis) as story:
        assert "admin" not in " ".join(story.bob.available_commands(story.general))
        [admin] = [c for c in await story.commands() if c.name == "admin"]
        story.guild.set_command_permissions(admin, {story.bob: True})
        used = await story.bob.slash(story.general, "admin status")
        await story.is_answered(used, say("admins_only", "en"))
        carol = manager_of(story)
        used = await carol.slash(story.general, "admin reset server")
        scope = say("scope_space", "en")
        await story.is_answered(used, say("reset_scope_done", "en", scope=scope))


async def test_buttons_work_after_a_restart(redis: Redis) -> None:
    async with a_story(redis) as story:
        await story.alice.send(story.general, f"{story.mention} hello")
        thread = await story.thread()
        reply = await story.hears(thread, "echo: hello")
        fresh = HenjiClient(RateLimiter(), reads=True)
        fresh.serve(story.context)
        await story.env.restart_bot(fresh)
        reply = await story.finished(thread)
        pressed = await story.alice.click(reply, label=say("regenerate", "en"))
        assert pressed.acknowledged
        await story.hears(thread, "echo: hello")
        assert len(story.messages(thread)) == 1


async def test_only_the_asker_and_admins_may_press(redis: Redis) -> None:
    async with a_story(redis) as story:
        await story.alice.send(story.general, f"{story.mention} hello")
        thread = await story.thread()
        await story.hears(thread, "echo: hello")
        again = say("regenerate", "en")
        refused = await story.bob.click(await story.finished(thread), label=again)
        await story.is_answered(refused, say("not_yours", "en"))
        pressed = await manager_of(story).click(await story.finished(thread), label=again)
        assert pressed.acknowledged
        assert not pressed.ephemeral


async def test_a_bad_mark_asks_for_the_reason(redis: Redis) -> None:
    async with a_story(redis) as story:
        await story.alice.send(story.general, f"{story.mention} hello")
        thread = await story.thread()
        reply = await story.hears(thread, "echo: hello")
        reply = await story.finished(thread)
        shown = await story.bob.click(reply, custom_id=button_of(reply, "b"))
        assert shown.modal is not None
        sent = await story.bob.submit_modal(shown, {"reason": "too short"})
        await story.is_answered(sent, say("feedback_thanks", "en"))


# -- memory -------------------------------------------------------------------------------------


async def test_an_edited_question_is_answered_again_in_place(redis: Redis) -> None:
    async with a_story(redis) as story:
        asked = await story.alice.send(story.general, f"{story.mention} one")
        thread = await story.thread()
        await story.hears(thread, "echo: one")
        await story.alice.edit(asked, f"{story.mention} two")
        await story.hears(thread, "echo: two")
        assert story.said(thread) == ["echo: two"]


async def test_a_deleted_question_is_forgotten(redis: Redis) -> None:
    async with a_story(redis) as story:
        asked = await story.alice.send(story.general, f"{story.mention} one")
        thread = await story.thread()
        await story.hears(thread, "echo: one")
        await story.alice.delete(asked)
        [summary] = [found async for found in story.context.stores.history.threads("discord")]
        assert summary.turns == 0


# -- continue from here ---------------------------------------------------------------------------


async def branch_of(story: Story, person: Any, message: discord.Message, place: Any) -> Any:
    """The thread that a person continues in."""
    known = {thread.id for thread in story.general.threads}
    used = await person.context_menu(place, "Continue from here", message)
    said = await answer_to(story, used)
    assert used.ephemeral
    [opened] = [thread for thread in story.general.threads if thread.id not in known]
    assert said == say("branch_told", "en", link=f"<#{opened.id}>")
    return opened


async def test_a_conversation_is_continued_from_a_message_in_a_new_thread(redis: Redis) -> None:
    async with a_story(redis, locale="en") as story:
        await story.alice.send(story.general, f"{story.mention} one")
        thread = await story.thread()
        first = await story.hears(thread, "echo: one")
        await story.alice.send(thread, "two")
        await story.hears(thread, "echo: two")
        branch = await branch_of(story, story.bob, first, thread)
        assert story.said(branch) == [say("branch_done", "en")]
        [opener] = story.said(story.general)
        assert opener.startswith("bob continues from [an earlier message](https://discord.com/")
        await story.bob.send(branch, "three")
        await story.hears(branch, "echo: three")
        key = ThreadKey("discord", str(story.guild.id), str(story.general.id), str(branch.id))
        texts = [s.turn.text for s in await story.context.stores.history.turns(key)]
        assert texts == ["one", "echo: one", "three", "echo: three"]
        old = replace(key, thread=str(thread.id))
        assert len(await story.context.stores.history.turns(old)) == 4
        assert "echo: three" not in story.said(thread)


async def test_a_reply_in_the_channel_is_continued_in_a_thread(redis: Redis) -> None:
    async with a_story(redis, locale="en") as story:
        used = await story.alice.slash(story.general, "ask", prompt="one")
        await story.is_answered(used, "echo: one")
        [reply] = story.messages(story.general)
        branch = await branch_of(story, story.bob, reply, story.general)
        await story.bob.send(branch, "two")
        await story.hears(branch, "echo: two")


async def _is_recorded(story: Story, message: discord.Message) -> bool:
    """Whether the bot knows which reply a message of its own belongs to."""
    place = ThreadKey("discord", str(story.guild.id), str(story.general.id), "-")
    found = await story.context.stores.deliveries.locate(place, str(message.id))
    return bool(found and len(await story.context.stores.history.turns(found[0])) == 2)


@pytest.mark.parametrize("where", ["a private thread", "a forum"])
async def test_where_no_thread_can_be_opened_beside_it_a_conversation_is_not_continued(
    redis: Redis, where: str
) -> None:
    async with a_story(redis, locale="en") as story:
        place, key = story.general, "branch_private"
        if where == "a forum":
            place, key = story.guild.create_forum_channel("questions"), "branch_not_here"
        channel: Any = story.env.bot.get_channel(place.id)
        if where == "a forum":
            await channel.create_thread(name="one", content="one")
        else:
            opened = await channel.create_thread(
                name="one", type=discord.ChannelType.private_thread
            )
            await opened.add_user(discord.Object(story.alice.id))
        await story.env.settle()
        [place] = place.threads
        await story.alice.send(place, f"{story.mention} hello")
        message = await story.hears(place, "echo: hello")
        used = await story.alice.context_menu(place, "Continue from here", message)
        assert await answer_to(story, used) == say(key, "en")
        assert story.said(story.general) == []


@pytest.mark.parametrize("where", ["a private answer", "an unread message", "a closed channel"])
async def test_what_others_may_not_read_or_the_bot_has_not_read_is_not_continued(
    redis: Redis, where: str
) -> None:
    async with a_story(redis, locale="en") as story:
        place = story.general
        if where == "a private answer":
            used = await story.alice.slash(place, "ask", prompt="secret", private=True)
            await story.is_answered(used, "echo: secret")
            message, key = used.response, "branch_private"
            await until(partial(_is_recorded, story, message))
        elif where == "a closed channel":
            denied = _denied(create_public_threads=False)
            rights = {story.guild.default_role: denied}
            place = story.guild.create_text_channel("closed", overwrites=rights)
            await story.alice.send(place, f"{story.mention} hello")
            message, key = await story.hears(place, "echo: hello"), "branch_not_here"
        else:
            message, key = await story.bob.send(place, "among ourselves"), "branch_gone"
        used = await story.alice.context_menu(place, "Continue from here", message)
        assert await answer_to(story, used) == say(key, "en")
        assert story.general.threads == []
        assert story.said(story.general) == []
