"""Links to messages in a question: read where it leaks nothing, else named as unread."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from bots.discord import convert as discord_convert
from bots.slack import convert as slack_convert
from bots.slack.extract import carried_by
from core.types import ThreadKey
from tests.local_discord.deployment import ALICE, BOB, DiscordDeployment, discord_deployment
from tests.local_slack.deployment import SlackDeployment, slack_deployment
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
    ("attachment", "read"),
    [
        ({"is_msg_unfurl": True, "from_url": LINK}, False),
        ({"is_msg_unfurl": True, "is_share": True, "from_url": LINK}, True),
        ({"is_msg_unfurl": True, "from_url": "https://local.slack.com/archives/C9/p1"}, True),
    ],
)
def test_the_preview_of_a_linked_message_is_no_forward(
    attachment: dict[str, object], read: bool
) -> None:
    """Slack's preview shows a message that not everyone in the channel may be able to read."""
    message = {"text": f"look: <{LINK}>", "attachments": [{**attachment, "text": "a secret"}]}
    assert ("a secret" in carried_by(message)) is read


# -- in Slack -----------------------------------------------------------------------------------


@pytest.fixture
async def slack(redis: Redis) -> AsyncIterator[SlackDeployment]:
    async with slack_deployment(redis) as deployment:
        await deployment.core()
        await deployment.adapter()
        yield deployment
        await deployment.at_rest()


def link_of(channel: str, ts: str) -> str:
    return f"https://local.slack.com/archives/{channel}/p{ts.replace('.', '')}"


async def question(slack: SlackDeployment, channel: str, to: str, ts: str) -> str:
    """The question with a link as the model reads it."""
    asked = await slack.slack.say(channel, "U1", f"{BOT} what is <{link_of(to, ts)}>?")
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
    await slack.stop("adapter")  # who is a guest is remembered for a while
    await slack.adapter()
    assert "disk" not in await question(slack, "C4", "C2", said["C2"])
    workspace.shared.add("C5")
    assert "disk" not in await question(slack, "C5", "C2", said["C2"])
    assert "disk" not in await question(slack, "C1", "C2", "1766000000.000100")


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
    general, public, secret = (here.add_channel(guild, name) for name in ("a", "b", "c"))
    elsewhere = here.add_channel(other)
    hidden = {"id": guild, "type": 0, "allow": "0", "deny": str(1 << 10)}
    here.world.channels[secret]["permission_overwrites"] = [hidden]
    await discord.start_core()
    await discord.start_bot()
    said = {
        channel: await here.says(BOB, channel, "the disk is full")
        for channel in (general, public, secret, elsewhere)
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
    assert "disk" not in await question(elsewhere, other)
    assert "disk" not in await question(elsewhere, guild)
