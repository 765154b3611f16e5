"""Links to messages in a question: read where it leaks nothing, else named as unread."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import TypeAlias

import pytest
from redis.asyncio import Redis

from bots.attachments import linked_message
from bots.discord import convert as discord_convert
from bots.platform import Incoming
from bots.slack import convert as slack_convert
from bots.slack.extract import carried_by
from core.access_policy import Policy
from core.queue_types import Place
from core.types import ThreadKey, Turn
from storage.rules import RedisRules
from tests.local_discord.deployment import ALICE, BOB, DiscordDeployment, discord_deployment
from tests.local_slack.deployment import SlackDeployment, slack_at_work, slack_deployment
from tests.simulated_platform import Board
from tests.store_fixture import StoreFixture
from tests.test_quotes import THREAD, relay_over
from tests.waiting import until

BOT = "<@U0HENJI>"
LINK = "https://local.slack.com/archives/C2/p1766000000000100"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (f"see <{LINK}>", ["C2/p1766000000000100"]),
        (f"see <{LINK}?thread_ts=1766000000.000001&amp;cid=C2|this>", ["C2/p1766000000000100"]),
        (f"<{LINK}> and <{LINK}>", ["C2/p1766000000000100"]),
        (f"`<{LINK}>`", []),
        (f"```\n<{LINK}>\n```", []),
        ("<https://example.com/archives/C2/p1766000000000100>", []),
        ("<https://local.slack.com/archives/C2>", []),
    ],
)
def test_slack_s_links_to_messages_outside_code_are_found(text: str, names: list[str]) -> None:
    assert [file.name for file in slack_convert.links_in(text)] == names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("see https://discord.com/channels/1/22/333", ["22/333"]),
        ("<https://ptb.discord.com/channels/@me/22/333>", ["22/333"]),
        ("`https://discord.com/channels/1/22/333`", []),
        ("https://discord.com/channels/1/22", []),
        ("https://discord.com.evil.example/channels/1/22/333", []),
    ],
)
def test_discord_s_links_to_messages_outside_code_are_found(text: str, names: list[str]) -> None:
    assert [file.name for file in discord_convert.links_in(text)] == names


@pytest.mark.parametrize(
    ("said", "attachment", "read"),
    [
        (f"<{LINK}>", {"from_url": LINK}, False),
        (f"<{LINK}>", {"is_share": True, "from_url": LINK}, True),
        ("<https://app.slack.com/client/T1/C1/thread/C1-1.0>", {"from_url": LINK}, False),
        ("it", {"from_url": LINK}, True),
    ],
)
def test_the_preview_of_a_linked_message_is_no_forward(
    said: str, attachment: dict[str, object], read: bool
) -> None:
    """Slack's preview shows a message that not everyone in the channel may be able to read."""
    carried = {"is_msg_unfurl": True, **attachment, "text": "a secret"}
    message = {"text": f"look: {said}", "attachments": [carried]}
    assert ("a secret" in carried_by(message)) is read


# -- forgotten messages, and people who are denied ----------------------------------------------

Before: TypeAlias = Callable[[StoreFixture], Awaitable[None]]
PLACE = Place("stand-in", "T1")
THERE = replace(THREAD, channel="C2", thread="7.0")


async def reset_thread(stores: StoreFixture) -> None:
    await stores.history.reset(THERE, "U1")


async def reset_channel(stores: StoreFixture) -> None:
    await stores.history.reset_place(replace(PLACE, channel="C2"), "U1")


async def reset_space(stores: StoreFixture) -> None:
    await stores.history.reset_place(PLACE, "U1")


async def forget_author(stores: StoreFixture) -> None:
    await stores.history.forget(PLACE, "U2")


def denied(place: Place) -> Before:
    async def change(stores: StoreFixture) -> None:
        rules = RedisRules(stores.store, Policy())
        await rules.change(place, "deny_people", ["U2"], "admin")

    return change


async def nothing(stores: StoreFixture) -> None:
    pass


async def reset_another(stores: StoreFixture) -> None:
    await stores.history.reset(THREAD, "U1")
    await stores.history.forget(PLACE, "U3")


@pytest.mark.parametrize(
    ("before", "is_read"),
    [
        (nothing, True),
        (reset_another, True),
        (reset_thread, False),
        (reset_channel, False),
        (reset_space, False),
        (forget_author, False),
        (denied(PLACE), False),
        (denied(replace(PLACE, channel="C1")), False),
        (denied(replace(PLACE, channel="C2")), False),
        (denied(replace(PLACE, channel="C3")), True),
    ],
)
async def test_a_linked_message_is_read_unless_it_is_forgotten_or_its_author_not_read(
    redis: Redis, before: Before, is_read: bool
) -> None:
    stores = await StoreFixture.serving(redis)
    board = Board()
    relay = relay_over(stores, board)
    said = Turn("q1", "user", "U2", "the disk is full", time.time() - 5, "Bob")
    board.linked["there"] = Incoming(THERE, said, addressed=False)
    await before(stores)
    asked = Turn("m1", "user", "U1", "why?", time.time())
    link = linked_message("there", "there")
    receipt = await relay.submit(Incoming(THREAD, asked, addressed=True, alone=True, files=(link,)))
    assert receipt.outcome == "queued"

    async def read() -> bool:
        return not await stores.nothing_to_do()

    await until(read)
    text = "[linked message: there]" + ("\n~~~\nBob:\nthe disk is full\n~~~" if is_read else "")
    assert await stores.texts(THREAD) == [f"why?\n\n{text}"]


async def test_half_of_a_character_in_a_linked_message_is_read_as_a_question_mark(
    redis: Redis,
) -> None:
    stores = await StoreFixture.serving(redis)
    board = Board()
    said = Turn("q1", "user", "U2", "full \ud83d", time.time() - 5, "Bob")
    board.linked["there"] = Incoming(THERE, said, addressed=False)
    asked = Turn("m1", "user", "U1", "why?", time.time())
    asks = Incoming(
        THREAD, asked, addressed=True, alone=True, files=(linked_message("there", "there"),)
    )
    await relay_over(stores, board).submit(asks)

    async def read() -> bool:
        return not await stores.nothing_to_do()

    await until(read)
    assert "Bob:\nfull ?\n" in (await stores.texts(THREAD))[0]


# -- in Slack -----------------------------------------------------------------------------------


@pytest.fixture
async def slack(redis: Redis) -> AsyncIterator[SlackDeployment]:
    async with slack_at_work(redis) as deployment:
        yield deployment


def link_of(channel: str, ts: str) -> str:
    return f"https://local.slack.com/archives/{channel}/p{ts.replace('.', '')}"


async def question(slack: SlackDeployment, channel: str, to: str, ts: str, user: str = "U1") -> str:
    """The question with a link as the model reads it."""
    asked = await slack.slack.say(channel, user, f"{BOT} what is <{link_of(to, ts)}>?")
    key = slack.key(channel, asked)

    async def answered() -> bool:
        return len(await slack.stores().texts(key)) == 2

    try:
        await until(answered, 60)
    except TimeoutError:
        pytest.fail(f"remembered: {await slack.stores().texts(key)}")
    text = (await slack.stores().texts(key))[0]
    await slack.answered(channel, asked, f"echo: {text}")
    return text


async def test_in_slack_a_link_is_read_only_where_everyone_may_read_it(
    slack: SlackDeployment,
) -> None:
    workspace = slack.slack.workspace
    said = {c: await slack.slack.say(c, "U2", "the disk is full") for c in ("C1", "C2", "C3")}
    workspace.members["C3"] = {"U2", slack.slack.bot_user}
    read = "~~~\nTaro:\nthe disk is full\n~~~"
    assert read in await question(slack, "C1", "C1", said["C1"])
    assert read in await question(slack, "C1", "C2", said["C2"])
    unread = await question(slack, "C1", "C3", said["C3"])  # the asker is no member
    assert "disk" not in unread
    assert unread.endswith(f"[linked message: C3/p{said['C3'].replace('.', '')}]")
    slack.slack.person("U7", "Guest", guest=True)
    workspace.members["C4"] = {"U1", "U7", slack.slack.bot_user}
    await slack.stop("adapter")  # guests are cached for a while
    await slack.adapter()
    assert "disk" not in await question(slack, "C4", "C2", said["C2"])
    workspace.shared.add("C5")
    assert "disk" not in await question(slack, "C5", "C2", said["C2"])
    assert "disk" not in await question(slack, "C1", "C2", "1766000000.000100")


async def test_in_a_direct_message_in_slack_a_link_is_read_where_its_person_may(
    slack: SlackDeployment,
) -> None:
    local, workspace = slack.slack, slack.slack.workspace
    local.person("U7", "Guest", guest=True)
    workspace.members |= {
        "D1": {"U1", local.bot_user}, "D7": {"U7", local.bot_user},
        "G1": {"U1", "U2", local.bot_user}, "C3": {"U2", local.bot_user},
    }  # fmt: skip
    said = {c: await local.say(c, "U2", "the disk is full") for c in ("C2", "C3", "G1")}
    mine = await local.say("D1", "U1", "the disk is full")
    await slack.answered("D1", mine, "echo: the disk is full")
    assert "disk" in await question(slack, "D1", "C2", said["C2"])
    assert "disk" in await question(slack, "D1", "D1", mine)
    assert "disk" in await question(slack, "G1", "C2", said["C2"])
    for other in ("C3", "G1"):  # the bot may read there, and not the person
        assert "disk" not in await question(slack, "D1", other, said[other])
    assert "disk" not in await question(slack, "D7", "C2", said["C2"], "U7")
    assert "disk" not in await question(slack, "C1", "D1", mine)


async def test_a_link_is_read_with_the_token_of_an_organization(redis: Redis) -> None:
    async with slack_deployment(redis) as deployment:
        deployment.slack.install_org_wide("E0OURS")
        await deployment.core()
        await deployment.adapter()
        said = await deployment.slack.say("C2", "U2", "the disk is full")
        assert "disk" in await question(deployment, "C1", "C2", said)


# -- in Discord ---------------------------------------------------------------------------------


@pytest.fixture
async def discord(redis: Redis) -> AsyncIterator[DiscordDeployment]:
    async with discord_deployment(redis) as deployment:
        yield deployment
        assert deployment.discord.faults == []


async def test_in_discord_a_link_is_read_only_where_everyone_may_read_it(
    discord: DiscordDeployment,
) -> None:
    here = discord.discord
    guild, other = here.add_guild(), here.add_guild()
    general, public, secret, voice = (here.add_channel(guild, name) for name in "abcd")
    elsewhere = here.add_channel(other)
    hidden = {"id": guild, "type": 0, "allow": "0", "deny": str(1 << 10)}
    here.world.channels[secret]["permission_overwrites"] = [hidden]
    locked = {**hidden, "deny": str(1 << 20)}
    here.world.channels[voice] |= {"type": 2, "permission_overwrites": [locked]}
    await discord.start_core()
    await discord.start_bot()
    said = {
        channel: await here.says(BOB, channel, "the disk is full")
        for channel in (general, public, secret, voice, elsewhere)
    }

    async def question(channel: str, of: str) -> str:
        link = f"https://discord.com/channels/{of}/{channel}/{said[channel]['id']}"
        asked = await here.says(ALICE, general, f"<@bot> what is {link} ?")
        key = ThreadKey("discord", guild, general, asked["id"])

        async def answered() -> bool:
            return len(await discord.stores.texts(key)) == 2

        await until(answered, 60)
        return (await discord.stores.texts(key))[0]

    read = "~~~\nBob:\nthe disk is full\n~~~"
    assert read in await question(general, guild)
    assert read in await question(public, guild)
    unread = await question(secret, guild)
    assert "disk" not in unread
    assert unread.endswith(f"[linked message: {secret}/{said[secret]['id']}]")
    assert "disk" not in await question(voice, guild)  # one must be able to connect
    assert "disk" not in await question(elsewhere, other)
    assert "disk" not in await question(elsewhere, guild)


async def test_in_discord_a_link_leads_nowhere_behind_a_reset_and_works_in_direct_messages(
    discord: DiscordDeployment,
) -> None:
    here = discord.discord
    guild = here.add_guild()
    general, public = here.add_channel(guild), here.add_channel(guild, "b")
    thread, direct = here.add_thread(public), here.add_direct(ALICE)
    await discord.start_core()
    await discord.start_bot()
    said = {c: await here.says(BOB, c, "the disk is full") for c in (public, thread)}
    mine = await here.says(ALICE, direct, "the disk is full")

    async def read(key: ThreadKey, link: str) -> str:
        async def answered() -> bool:
            return any(link in text for text in (await discord.stores.texts(key))[1::2])

        await until(answered, 20)
        return next(t for t in await discord.stores.texts(key) if link in t)

    async def asked(channel: str) -> str:
        link = f"{guild}/{channel}/{said[channel]['id']}"
        text = f"<@bot> what is https://discord.com/channels/{link} ?"
        question = await here.says(ALICE, general, text)
        return await read(ThreadKey("discord", guild, general, question["id"]), link)

    async def asked_directly(link: str) -> str:
        await here.says(ALICE, direct, f"what is https://discord.com/channels/{link} ?")
        return await read(ThreadKey("discord", "dm", ALICE["id"], direct), link)

    assert "disk" in await asked(thread)
    assert "disk" in await asked(public)
    bob = BOB["id"]
    await discord.stores.history.reset(ThreadKey("discord", guild, public, thread), bob)
    assert "disk" not in await asked(thread)
    assert "disk" in await asked(public)
    await discord.stores.history.reset(ThreadKey("discord", guild, public, f"@{bob}"), bob)
    assert "disk" not in await asked(public)
    assert "disk" in await asked_directly(f"@me/{direct}/{mine['id']}")
    assert "disk" not in await asked_directly(f"{guild}/{public}/{said[public]['id']}")
