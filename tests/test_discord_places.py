"""Where commands are used: direct messages, group chats, threads; and while people wait there."""

from __future__ import annotations

import asyncio
import itertools

from bots.discord.status import StatusIndicator
from bots.strings import say
from core.types import ThreadKey
from tests.local_discord import payloads as p
from tests.local_discord.deployment import ALICE, BOB, DiscordDeployment, words
from tests.local_discord.expectations import answered, the_answer, told, with_its_buttons

# -- places -------------------------------------------------------------------------------------


async def test_a_command_in_direct_messages_goes_on_with_the_conversation_there(
    team: DiscordDeployment, general: str
) -> None:
    direct = team.discord.add_direct(ALICE)
    await team.discord.says(ALICE, direct, "one")
    [reply] = await team.discord.until(lambda: team.discord.replies(direct))
    await with_its_buttons(team, reply)
    used = await team.discord.uses(ALICE, direct, "ask", {"prompt": "two"})
    await the_answer(team, used, "echo: two")
    thread = ThreadKey("discord", "dm", ALICE["id"], direct)
    assert await team.house.texts(thread) == ["one", "echo: one", "two", "echo: two"]
    chat = await team.discord.uses(ALICE, direct, "chat", locale="ja")
    assert await told(team, chat) == say("chat_here", "ja")


async def test_in_a_group_chat_the_bot_speaks_through_its_token_alone(
    team: DiscordDeployment, general: str
) -> None:
    group = team.discord.add_direct(ALICE)
    owner = {"authorizing_integration_owners": {"1": ALICE["id"]}, "context": 2}
    used = await team.discord.uses(ALICE, group, "ask", {"prompt": "hello"}, **owner)
    await the_answer(team, used, "echo: hello")
    assert team.discord.sent("post") == []
    assert team.discord.sent("edit") == []


async def test_a_command_in_a_thread_is_of_its_conversation_and_a_private_one_is_not(
    team: DiscordDeployment, general: str
) -> None:
    talk = team.discord.add_thread(general)
    used = await team.discord.uses(ALICE, talk, "ask", {"prompt": "one"})
    await the_answer(team, used, "echo: one")
    private = await team.discord.uses(ALICE, talk, "ask", {"prompt": "two", "private": True})
    await the_answer(team, private, "echo: two")
    guild = str(team.discord.world.guild_of(general))
    thread = ThreadKey("discord", guild, general, talk)
    assert await team.house.texts(thread) == ["one", "echo: one"]


async def test_a_private_reply_to_someone_without_direct_messages_ends_with_a_sentence(
    team: DiscordDeployment,
) -> None:
    general = team.discord.add_channel(team.discord.add_guild())
    team.discord.world.closed.add(ALICE["id"])
    await team.start_core(tokens_per_second=30)
    await team.start_bot()
    used = await team.discord.uses(
        ALICE, general, "ask", {"prompt": words(200), "private": True}, id=p.nearly_over()
    )
    await answered(team, used)
    message = team.discord.world.messages[general][used.original]
    await team.discord.until(lambda: say("stopped", "en") in message["content"])
    assert team.discord.replies(general) == []


# -- while people wait --------------------------------------------------------------------------


async def test_a_command_that_waits_shows_its_place_in_the_queue(team: DiscordDeployment) -> None:
    general = team.discord.add_channel(team.discord.add_guild())
    await team.house.queue.announce("echo", "a core that is busy", 60)
    await team.start_bot()
    await team.discord.says(BOB, general, "<@bot> one")
    used = await team.discord.uses(ALICE, general, "ask", {"prompt": "two"}, locale="ja")
    await the_answer(team, used, say("queued", "ja", position=2))
    await team.start_core()
    await the_answer(team, used, "echo: two")


async def test_typing_is_shown_until_there_is_text(team: DiscordDeployment) -> None:
    general = team.discord.add_channel(team.discord.add_guild())
    await team.house.queue.announce("echo", "a core that is busy", 60)
    await team.start_bot()
    said = await team.discord.says(ALICE, general, "<@bot> one")
    await team.discord.until(lambda: team.discord.world.typing)
    assert team.discord.world.typing[0][1] == said["id"]


async def test_typing_is_kept_alive_and_a_failure_does_not_end_it() -> None:
    shown = itertools.count(1)
    often = asyncio.Event()

    async def show(channel: str) -> None:
        if next(shown) == 2:
            raise RuntimeError("Discord has hiccups")
        if next(shown) > 5:
            often.set()

    typing = StatusIndicator(show, interval=0.001)
    typing.start("job", "channel")
    await asyncio.wait_for(often.wait(), 5)
    typing.stop("job")
    left = next(shown)
    await asyncio.sleep(0)
    assert next(shown) == left + 1
