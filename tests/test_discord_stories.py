"""Dialogues with the unmodified bot in a simulated guild: permissions, intents, commands."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, replace
from typing import Any

import discord
import pytest
import simcord
from redis.asyncio import Redis

from bots.discord.adapter import build
from bots.discord.client import HenjiClient
from bots.discord.desk import Desk
from bots.discord.pace import Pace
from bots.relay import Relay
from bots.relay import Terms as RelayTerms
from bots.strings import say
from tests.local_discord.team import LANE, TERMS, Team
from tests.storehouse import Storehouse

SAID = (
    discord.MessageType.default,
    discord.MessageType.reply,
    discord.MessageType.chat_input_command,
    discord.MessageType.context_menu_command,
)


@dataclass(frozen=True, slots=True)
class Story:
    """A guild with a channel, two people and the bot."""

    env: simcord.Env
    guild: Any
    general: Any
    alice: Any
    bob: Any
    desk: Desk

    @property
    def mention(self) -> str:
        assert self.env.bot.user is not None
        return self.env.bot.user.mention

    def said(self, channel: Any) -> list[str]:
        """What the bot has said in a channel, for all to see."""
        return [message.content for message in self.messages(channel)]

    def messages(self, channel: Any) -> list[discord.Message]:
        bot = self.env.bot.user
        spoken = [m for m in channel.history() if m.author == bot and m.type in SAID]
        return [message for message in spoken if not message.flags.ephemeral]

    async def hears(self, channel: Any, text: str) -> discord.Message:
        async with asyncio.timeout(10):
            while text not in self.said(channel):
                await self.env.settle()
        return next(m for m in self.messages(channel) if m.content == text)

    async def commands(self) -> list[discord.app_commands.AppCommand]:
        assert isinstance(self.env.bot, HenjiClient)
        return await self.env.bot.tree.fetch_commands()

    async def finished(self, channel: Any) -> discord.Message:
        """The bot's one message in a channel, when its controls are those of a finished reply."""
        async with asyncio.timeout(10):
            while not any(_button(message, "a") for message in self.messages(channel)):
                await self.env.settle()
        [message] = self.messages(channel)
        return message

    async def is_answered(self, used: Any, text: str) -> None:
        """The deferred answer to a command becomes this."""
        async with asyncio.timeout(10):
            while used.response is None or used.response.content != text:
                await self.env.settle()


def _button(message: discord.Message, letter: str) -> str | None:
    """The custom id of the button with this verb's letter, if it is there."""
    rows = [row for row in message.components if isinstance(row, discord.ActionRow)]
    buttons = [button for row in rows for button in row.children]
    ids = [button.custom_id for button in buttons if isinstance(button, discord.Button)]
    return next((ident for ident in ids if ident and ident.split(".")[1] == letter), None)


class ApartRelay(Relay):
    """A relay whose deliveries live by the real clock, though the simulation's moves by itself.

    simcord waits for all that an event has started, and deliveries wait for a core that it does
    not know of.
    """

    def _spawn(self, work: Awaitable[None]) -> None:
        contextvars.Context().run(super()._spawn, work)


@contextlib.asynccontextmanager
async def a_story(redis: Redis, *, reads: bool = True, **terms: Any) -> AsyncIterator[Story]:
    """`reads`: the Message Content intent is granted."""
    team = Team(None, Storehouse.over(redis))  # type: ignore[arg-type]  # nothing goes over a wire
    await team.start_core()
    pace = Pace()
    client = HenjiClient(pace, reads=reads)
    relay = RelayTerms(lane=LANE, holder="bot", take=0.05, positions=0.1, drain=1.0)
    stores = team.stores()
    envs: list[simcord.Env] = []
    terms_ = replace(TERMS, reads=reads, **terms)
    desk = build(client, pace, stores, terms_, relay, lambda: envs[0].now().timestamp())
    apart = ApartRelay(desk.platform, stores.queue, stores.history, stores.deliveries, relay)
    desk = replace(desk, relay=apart)
    client.serve(desk)
    stop = asyncio.Event()
    intents = discord.Intents.all() if reads else discord.Intents.default()
    async with simcord.run(client, settle_timeout=10, approved_intents=intents) as env:
        envs.append(env)
        relaying = asyncio.create_task(desk.relay.run(stop))
        guild = env.create_guild()
        people = [guild.add_member(env.create_user(name)) for name in ("alice", "bob")]
        try:
            general = guild.create_text_channel("general")
            yield Story(env, guild, general, people[0], people[1], desk)
        finally:
            stop.set()
            await relaying
            await desk.platform.close()
            await team.close()


# -- where people talk --------------------------------------------------------------------------


async def test_a_mention_is_answered_in_a_thread_of_its_own(redis: Redis) -> None:
    async with a_story(redis) as story:
        await story.alice.send(story.general, f"{story.mention} hello")
        [thread] = story.general.threads
        await story.hears(thread, "echo: hello")
        assert thread.name == "hello"
        assert story.said(story.general) == []


async def test_a_mention_is_answered_by_a_reply_where_that_is_set(redis: Redis) -> None:
    async with a_story(redis, answers="reply") as story:
        asked = await story.alice.send(story.general, f"{story.mention} hello")
        reply = await story.hears(story.general, "echo: hello")
        assert reply.reference is not None
        assert reply.reference.message_id == asked.id
        assert story.general.threads == []


async def test_a_conversation_goes_on_without_mentions_and_remembers(redis: Redis) -> None:
    async with a_story(redis) as story:
        await story.alice.send(story.general, f"{story.mention} one")
        [thread] = story.general.threads
        await story.hears(thread, "echo: one")
        await story.bob.send(thread, "two")
        await story.hears(thread, "echo: two")
        [summary] = [found async for found in story.desk.history.threads("discord")]
        assert summary.turns == 4


async def test_where_mentions_are_asked_for_others_are_only_remembered(redis: Redis) -> None:
    async with a_story(redis, followups="mention") as story:
        await story.alice.send(story.general, f"{story.mention} one")
        [thread] = story.general.threads
        await story.hears(thread, "echo: one")
        await story.bob.send(thread, "psst")
        await story.alice.send(thread, f"{story.mention} two")
        await story.hears(thread, "echo: two")
        assert "echo: psst" not in story.said(thread)
        [summary] = [found async for found in story.desk.history.threads("discord")]
        assert summary.turns == 5


async def test_a_direct_message_needs_no_mention(redis: Redis) -> None:
    async with a_story(redis) as story:
        await story.alice.send_dm("hello")
        await story.hears(story.alice.user.dm_channel, "echo: hello")


# -- what the bot may not do --------------------------------------------------------------------


async def test_without_the_right_to_open_threads_it_answers_in_the_channel(redis: Redis) -> None:
    async with a_story(redis) as story:
        closed = story.guild.create_text_channel(
            "closed", overwrites={story.guild.default_role: _denied(create_public_threads=False)}
        )
        await story.alice.send(closed, f"{story.mention} hello")
        await story.hears(closed, "echo: hello")
        assert closed.threads == []


async def test_without_the_right_to_write_it_tells_the_person_directly(redis: Redis) -> None:
    async with a_story(redis) as story:
        member = story.guild.create_role("member", permissions=discord.Permissions.all())
        carol = story.guild.add_member(story.env.create_user("carol"), roles=[member])
        silent = story.guild.create_text_channel(
            "silent", overwrites={story.guild.default_role: _denied(send_messages=False)}
        )
        await carol.send(silent, f"{story.mention} hello")
        told = say("cannot_post_here", "en", channel=silent.mention)
        await story.hears(carol.user.dm_channel, told)
        assert story.said(silent) == []


async def test_without_message_content_it_says_once_how_to_go_on(redis: Redis) -> None:
    async with a_story(redis, reads=False) as story:
        await story.alice.send(story.general, f"{story.mention} one")
        [thread] = story.general.threads
        await story.hears(thread, "echo: one")
        await story.alice.send(thread, "this text does not reach the bot")
        await story.alice.send(thread, f"{story.mention} two")
        await story.hears(thread, "echo: two")
        name = story.env.bot.user.display_name if story.env.bot.user else ""
        hint = say("mention_again", "en", mention=f"@{name}")
        assert sorted(story.said(thread)) == sorted([hint, "echo: one", "echo: two"])


def _denied(**rights: bool) -> discord.PermissionOverwrite:
    return discord.PermissionOverwrite(**rights)


# -- commands and buttons -----------------------------------------------------------------------


async def test_a_question_is_deferred_and_answered(redis: Redis) -> None:
    async with a_story(redis) as story:
        used = await story.alice.slash(story.general, "ask", prompt="hello")
        assert used.acknowledged
        await story.is_answered(used, "echo: hello")


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
        [thread] = story.general.threads
        await story.alice.send(thread, "hello")
        await story.hears(thread, "echo: hello")


@pytest.mark.parametrize(
    ("command", "key"),
    [
        ("reset", "reset_nothing"),
        ("stop", "nothing_to_stop"),
        ("regenerate", "nothing_to_regenerate"),
        ("model", "model"),
        ("privacy", "privacy"),
        ("help", "discord_help"),
    ],
)
async def test_every_other_command_answers_its_person_alone(
    redis: Redis, command: str, key: str
) -> None:
    async with a_story(redis) as story:
        used = await story.alice.slash(story.general, command)
        await story.is_answered(used, say(key, "en", model="echo", days="30"))
        assert used.ephemeral


async def test_admin_commands_are_hidden_and_checked_again(redis: Redis) -> None:
    async with a_story(redis) as story:
        assert "admin" not in " ".join(story.bob.available_commands(story.general))
        [admin] = [c for c in await story.commands() if c.name == "admin"]
        story.guild.set_command_permissions(admin, {story.bob: True})
        used = await story.bob.slash(story.general, "admin status")
        await story.is_answered(used, say("admins_only", "en"))
        manager = story.guild.create_role(
            "manager", permissions=discord.Permissions(manage_guild=True)
        )
        carol = story.guild.add_member(story.env.create_user("carol"), roles=[manager])
        used = await carol.slash(story.general, "admin reset server")
        scope = say("scope_space", "en")
        await story.is_answered(used, say("reset_scope_done", "en", scope=scope))


async def test_buttons_work_after_a_restart(redis: Redis) -> None:
    async with a_story(redis) as story:
        await story.alice.send(story.general, f"{story.mention} hello")
        [thread] = story.general.threads
        reply = await story.hears(thread, "echo: hello")
        fresh = HenjiClient(Pace(), reads=True)
        fresh.serve(story.desk)
        await story.env.restart_bot(fresh)
        reply = await story.finished(thread)
        pressed = await story.alice.click(reply, label=say("regenerate", "en"))
        assert pressed.acknowledged
        await story.hears(thread, "echo: hello")
        assert len(story.messages(thread)) == 1


async def test_a_bad_mark_asks_for_the_reason(redis: Redis) -> None:
    async with a_story(redis) as story:
        await story.alice.send(story.general, f"{story.mention} hello")
        [thread] = story.general.threads
        reply = await story.hears(thread, "echo: hello")
        reply = await story.finished(thread)
        shown = await story.bob.click(reply, custom_id=_button(reply, "b"))
        assert shown.modal is not None
        sent = await story.bob.submit_modal(shown, {"reason": "too short"})
        await story.is_answered(sent, say("feedback_thanks", "en"))


# -- memory -------------------------------------------------------------------------------------


async def test_an_edited_question_is_answered_again_in_place(redis: Redis) -> None:
    async with a_story(redis) as story:
        asked = await story.alice.send(story.general, f"{story.mention} one")
        [thread] = story.general.threads
        await story.hears(thread, "echo: one")
        await story.alice.edit(asked, f"{story.mention} two")
        await story.hears(thread, "echo: two")
        assert story.said(thread) == ["echo: two"]


async def test_a_deleted_question_is_forgotten(redis: Redis) -> None:
    async with a_story(redis) as story:
        asked = await story.alice.send(story.general, f"{story.mention} one")
        [thread] = story.general.threads
        await story.hears(thread, "echo: one")
        await story.alice.delete(asked)
        [summary] = [found async for found in story.desk.history.threads("discord")]
        assert summary.turns == 0
