"""Commands in direct messages, group chats and threads, and while people wait there."""

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
    deployment: DiscordDeployment, general: str
) -> None:
    direct = deployment.discord.add_direct(ALICE)
    await deployment.discord.says(ALICE, direct, "one")
    [reply] = await deployment.discord.until(lambda: deployment.discord.replies(direct))
    await with_its_buttons(deployment, reply)
    used = await deployment.discord.uses(ALICE, direct, "ask", {"prompt": "two"})
    await the_answer(deployment, used, "echo: two")
    thread = ThreadKey("discord", "dm", ALICE["id"], direct)
    assert await deployment.stores.texts(thread) == ["one", "echo: one", "two", "echo: two"]
    chat = await deployment.discord.uses(ALICE, direct, "chat", locale="ja")
    assert await told(deployment, chat) == say("chat_here", "ja")


async def test_in_a_group_chat_the_bot_speaks_through_its_token_alone(
    deployment: DiscordDeployment, general: str
) -> None:
    group = deployment.discord.add_direct(ALICE)
    owner = {"authorizing_integration_owners": {"1": ALICE["id"]}, "context": 2}
    used = await deployment.discord.uses(ALICE, group, "ask", {"prompt": "hello"}, **owner)
    await the_answer(deployment, used, "echo: hello")
    assert deployment.discord.sent("post") == []
    assert deployment.discord.sent("edit") == []


async def test_a_command_in_a_thread_is_of_its_conversation_and_a_private_one_is_not(
    deployment: DiscordDeployment, general: str
) -> None:
    talk = deployment.discord.add_thread(general)
    used = await deployment.discord.uses(ALICE, talk, "ask", {"prompt": "one"})
    await the_answer(deployment, used, "echo: one")
    private = await deployment.discord.uses(ALICE, talk, "ask", {"prompt": "two", "private": True})
    await the_answer(deployment, private, "echo: two")
    guild = str(deployment.discord.world.guild_of(general))
    thread = ThreadKey("discord", guild, general, talk)
    assert await deployment.stores.texts(thread) == ["one", "echo: one"]


async def test_a_private_reply_to_someone_without_direct_messages_ends_with_a_sentence(
    deployment: DiscordDeployment,
) -> None:
    general = deployment.discord.add_channel(deployment.discord.add_guild())
    deployment.discord.world.closed.add(ALICE["id"])
    await deployment.start_core(tokens_per_second=30)
    await deployment.start_bot()
    used = await deployment.discord.uses(
        ALICE, general, "ask", {"prompt": words(200), "private": True}, id=p.nearly_over()
    )
    await answered(deployment, used)
    message = deployment.discord.world.messages[general][used.original]
    await deployment.discord.until(lambda: say("stopped", "en") in message["content"])
    assert deployment.discord.replies(general) == []


# -- while people wait --------------------------------------------------------------------------


async def test_a_command_that_waits_shows_its_place_in_the_queue(
    deployment: DiscordDeployment,
) -> None:
    general = deployment.discord.add_channel(deployment.discord.add_guild())
    await deployment.stores.queue.announce("echo", "a core that is busy", 60)
    await deployment.start_bot()
    await deployment.discord.says(BOB, general, "<@bot> one")
    used = await deployment.discord.uses(ALICE, general, "ask", {"prompt": "two"}, locale="ja")
    await the_answer(deployment, used, say("queued", "ja", position=2))
    await deployment.start_core()
    await the_answer(deployment, used, "echo: two")


async def test_typing_is_shown_until_there_is_text(deployment: DiscordDeployment) -> None:
    general = deployment.discord.add_channel(deployment.discord.add_guild())
    await deployment.stores.queue.announce("echo", "a core that is busy", 60)
    await deployment.start_bot()
    said = await deployment.discord.says(ALICE, general, "<@bot> one")
    await deployment.discord.until(lambda: deployment.discord.world.typing)
    assert deployment.discord.world.typing[0][1] == said["id"]


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
