"""A company's rules on Discord: admins by list and by role, and what roles allow."""

from __future__ import annotations

import pytest

from bots.strings import say
from core.access_policy import Policy
from core.place_rules import Rules
from core.queue_types import Place
from tests.local_discord import payloads as p
from tests.local_discord.deployment import ALICE, BOB, DiscordDeployment
from tests.local_discord.expectations import NOBODY, STOP, answered, told

STAFF = "9077"


async def a_channel(team: DiscordDeployment, policy: Policy, tokens_per_second: float = 0.0) -> str:
    """A channel of a guild with a role, and a bot that keeps these rules."""
    guild = team.discord.add_guild()
    team.discord.world.guilds[guild]["roles"].append(p.role(STAFF, "staff"))
    channel = team.discord.add_channel(guild)
    await team.start_core(tokens_per_second)
    await team.start_bot(policy=policy)
    return channel


def with_role(role: str) -> p.Payload:
    return p.member([role])


async def says(team: DiscordDeployment, channel: str, text: str) -> None:
    await team.discord.until(
        lambda: any(text in message["content"] for message in team.discord.replies(channel))
    )


@pytest.mark.parametrize("admins", [(str(BOB["id"]),), (f"discord:{BOB['id']}",)])
async def test_who_is_on_the_list_administers_without_a_right_of_discords(
    team: DiscordDeployment, admins: tuple[str, ...]
) -> None:
    general = await a_channel(team, Policy(admins=admins))
    used = await team.discord.uses(
        BOB, general, "admin config", {"rule": "temperature 0.2"}, permissions=NOBODY
    )
    assert await told(team, used) == say("config_set", "en", name="temperature", value="0.2")
    guild = str(team.discord.world.guild_of(general))
    assert await team.rulebook.set_here(Place("discord", guild, general)) == Rules(temperature=0.2)
    used = await team.discord.uses(ALICE, general, "admin config", permissions=NOBODY)
    assert await told(team, used) == say("admins_only", "en")


async def test_who_is_on_the_list_may_stop_anothers_reply(team: DiscordDeployment) -> None:
    general = await a_channel(team, Policy(admins=(str(BOB["id"]),)), tokens_per_second=30)
    used = await team.discord.uses(ALICE, general, "ask", {"prompt": "word " * 100})
    await answered(team, used)
    where = team.discord.world.messages[general]
    await team.discord.until(lambda: "word" in where[used.original]["content"])
    await team.discord.presses(BOB, where[used.original], STOP, permissions=NOBODY)
    stopped = say("stopped", "en")
    await team.discord.until(lambda: stopped in where[used.original]["content"])


async def test_a_mention_of_a_person_or_a_role_stands_for_its_id(team: DiscordDeployment) -> None:
    general = await a_channel(team, Policy())
    rules = f"deny_people <@{BOB['id']}>"
    used = await team.discord.uses(ALICE, general, "admin config", {"rule": rules})
    assert str(BOB["id"]) in await told(team, used)
    await team.discord.says(BOB, general, "<@bot> hello")
    await says(team, general, say("not_allowed", "en"))


async def test_one_who_has_written_directly_before_is_refused_directly(
    team: DiscordDeployment,
) -> None:
    general = await a_channel(team, Policy())
    direct = team.discord.add_direct(BOB)
    await team.discord.says(BOB, direct, "hello")
    await says(team, direct, "echo: hello")
    rules = f"deny_people {BOB['id']}"
    await told(team, await team.discord.uses(ALICE, general, "admin config", {"rule": rules}))
    await team.discord.says(BOB, general, "<@bot> hello")
    await says(team, direct, say("not_allowed", "en"))
    assert team.discord.replies(general) == []


async def test_an_edit_is_judged_by_its_authors_roles(team: DiscordDeployment) -> None:
    general = await a_channel(team, Policy(everywhere=Rules(allow_roles=(STAFF,))))
    asked = await team.discord.says(ALICE, general, "<@bot> one", member=with_role(STAFF))
    await says(team, str(asked["id"]), "echo: one")
    await team.discord.edits(asked, "<@bot> another")
    await says(team, str(asked["id"]), "echo: another")


async def test_a_rule_says_when_a_follow_up_needs_no_mention(team: DiscordDeployment) -> None:
    general = await a_channel(team, Policy(everywhere=Rules(follow_up="alone")))
    thread = str((await team.discord.says(ALICE, general, "<@bot> one"))["id"])
    await says(team, thread, "echo: one")
    await team.discord.says(ALICE, thread, "two")
    await says(team, thread, "echo: two")
    await team.discord.says(BOB, thread, "what do you think, Alice?")
    await team.discord.says(ALICE, thread, "I agree with you")
    await team.discord.says(BOB, thread, "<@bot> and you?")
    await says(team, thread, "echo: and you?")
    texts = [message["content"] for message in team.discord.replies(thread)]
    assert not any("I agree" in text or "what do you" in text for text in texts)


async def test_who_takes_along_what_is_kept_of_them_is_in_the_audit_log(
    team: DiscordDeployment,
) -> None:
    general = await a_channel(team, Policy())
    used = await team.discord.uses(ALICE, general, "privacy")
    await told(team, used)
    shown = team.discord.world.messages[general][used.original]
    await told(team, await team.discord.presses(ALICE, shown, 0))
    used = await team.discord.uses(ALICE, general, "admin audit")
    assert f"{ALICE['id']} · export" in await told(team, used)
