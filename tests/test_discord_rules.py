"""A company's rules on Discord: admins by list and by role, and access by role."""

from __future__ import annotations

import pytest

from bots.strings import say
from core.access_policy import AccessLists, Policy
from core.place_rules import Rules
from core.queue_types import Place
from tests.local_discord import payloads as p
from tests.local_discord.deployment import ALICE, BOB, DiscordDeployment
from tests.local_discord.expectations import NOBODY, STOP, answered, the_answer, told

STAFF = "9077"


async def a_channel(
    deployment: DiscordDeployment, policy: Policy, tokens_per_second: float = 0.0
) -> str:
    """A channel of a guild with a role, and a bot that keeps these rules."""
    guild = deployment.discord.add_guild()
    deployment.discord.world.guilds[guild]["roles"].append(p.role(STAFF, "staff"))
    channel = deployment.discord.add_channel(guild)
    await deployment.start_core(tokens_per_second)
    await deployment.start_bot(policy=policy)
    return channel


def with_role(role: str) -> p.Payload:
    return p.member([role])


async def until_said(deployment: DiscordDeployment, channel: str, text: str) -> None:
    await deployment.discord.until(
        lambda: any(text in message["content"] for message in deployment.discord.replies(channel))
    )


@pytest.mark.parametrize("admins", [(str(BOB["id"]),), (f"discord:{BOB['id']}",)])
async def test_a_listed_admin_needs_no_permission_of_discord(
    deployment: DiscordDeployment, admins: tuple[str, ...]
) -> None:
    general = await a_channel(deployment, Policy(admins=admins))
    used = await deployment.discord.uses(
        BOB, general, "admin config", {"rule": "temperature 0.2"}, permissions=NOBODY
    )
    assert await told(deployment, used) == say("config_set", "en", name="temperature", value="0.2")
    guild = str(deployment.discord.world.guild_of(general))
    assert await deployment.rulebook.set_here(Place("discord", guild, general)) == Rules(
        temperature=0.2
    )
    used = await deployment.discord.uses(ALICE, general, "admin config", permissions=NOBODY)
    assert await told(deployment, used) == say("admins_only", "en")


async def test_a_listed_admin_may_stop_another_persons_reply(deployment: DiscordDeployment) -> None:
    general = await a_channel(deployment, Policy(admins=(str(BOB["id"]),)), tokens_per_second=30)
    used = await deployment.discord.uses(ALICE, general, "ask", {"prompt": "word " * 100})
    await answered(deployment, used)
    where = deployment.discord.world.messages[general]
    await deployment.discord.until(lambda: "word" in where[used.original]["content"])
    await deployment.discord.presses(BOB, where[used.original], STOP, permissions=NOBODY)
    stopped = say("stopped", "en")
    await deployment.discord.until(lambda: stopped in where[used.original]["content"])


async def test_a_mention_of_a_person_or_a_role_becomes_an_id(
    deployment: DiscordDeployment,
) -> None:
    general = await a_channel(deployment, Policy())
    rules = f"deny_people <@{BOB['id']}>"
    used = await deployment.discord.uses(ALICE, general, "admin config", {"rule": rules})
    assert str(BOB["id"]) in await told(deployment, used)
    await deployment.discord.says(BOB, general, "<@bot> hello")
    await until_said(deployment, general, say("not_allowed", "en"))


async def test_a_refusal_goes_to_a_person_with_a_direct_channel_directly(
    deployment: DiscordDeployment,
) -> None:
    general = await a_channel(deployment, Policy())
    direct = deployment.discord.add_direct(BOB)
    await deployment.discord.says(BOB, direct, "hello")
    await until_said(deployment, direct, "echo: hello")
    rules = f"deny_people {BOB['id']}"
    await told(
        deployment, await deployment.discord.uses(ALICE, general, "admin config", {"rule": rules})
    )
    await deployment.discord.says(BOB, general, "<@bot> hello")
    await until_said(deployment, direct, say("not_allowed", "en"))
    assert deployment.discord.replies(general) == []


async def test_an_edit_is_judged_by_its_authors_roles(deployment: DiscordDeployment) -> None:
    general = await a_channel(deployment, Policy(everywhere=Rules(allow_roles=(STAFF,))))
    asked = await deployment.discord.says(ALICE, general, "<@bot> one", member=with_role(STAFF))
    await until_said(deployment, str(asked["id"]), "echo: one")
    await deployment.discord.edits(asked, "<@bot> another")
    await until_said(deployment, str(asked["id"]), "echo: another")


async def test_a_rule_says_when_a_follow_up_needs_no_mention(deployment: DiscordDeployment) -> None:
    general = await a_channel(deployment, Policy(everywhere=Rules(follow_up="alone")))
    thread = str((await deployment.discord.says(ALICE, general, "<@bot> one"))["id"])
    await until_said(deployment, thread, "echo: one")
    await deployment.discord.says(ALICE, thread, "two")
    await until_said(deployment, thread, "echo: two")
    await deployment.discord.says(BOB, thread, "what do you think, Alice?")
    await deployment.discord.says(ALICE, thread, "I agree with you")
    await deployment.discord.says(BOB, thread, "<@bot> and you?")
    await until_said(deployment, thread, "echo: and you?")
    texts = [message["content"] for message in deployment.discord.replies(thread)]
    assert not any("I agree" in text or "what do you" in text for text in texts)


async def test_an_export_is_in_the_audit_log(
    deployment: DiscordDeployment,
) -> None:
    general = await a_channel(deployment, Policy())
    used = await deployment.discord.uses(ALICE, general, "privacy")
    await told(deployment, used)
    shown = deployment.discord.world.messages[general][used.original]
    await told(deployment, await deployment.discord.presses(ALICE, shown, 0))
    used = await deployment.discord.uses(ALICE, general, "admin audit")
    assert f"{ALICE['id']} · export" in await told(deployment, used)


ALONE = {"authorizing_integration_owners": {"1": ALICE["id"]}}
"""The bot is installed for Alice, not in the server where she uses it."""


async def test_an_app_installed_for_a_person_has_one_quota_in_all_servers(
    deployment: DiscordDeployment,
) -> None:
    first = await a_channel(deployment, Policy(everywhere=Rules(person_messages=1)))
    second = deployment.discord.add_channel(deployment.discord.add_guild())
    used = await deployment.discord.uses(ALICE, first, "ask", {"prompt": "one"}, **ALONE)
    await the_answer(deployment, used, "echo: one")
    used = await deployment.discord.uses(ALICE, second, "ask", {"prompt": "two"}, **ALONE)
    assert (await told(deployment, used)).startswith(say("quota", "en", time="")[:30])


async def test_a_denied_role_holds_where_the_app_is_installed_for_a_person(
    deployment: DiscordDeployment,
) -> None:
    general = await a_channel(deployment, Policy(access=AccessLists(deny_roles=(STAFF,))))
    elsewhere = deployment.discord.add_channel(deployment.discord.add_guild())
    await deployment.discord.says(ALICE, general, "<@bot> hi", member=with_role(STAFF))
    await deployment.discord.until(lambda: deployment.discord.sent("direct"))
    used = await deployment.discord.uses(ALICE, elsewhere, "ask", {"prompt": "one"}, **ALONE)
    assert await told(deployment, used) == say("not_allowed", "en")
