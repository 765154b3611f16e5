"""People choose the model and the persona of a thread, from what admins offer in a place."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from redis.asyncio import Redis

from bots.slack import components
from bots.strings import say
from core.access_policy import Policy
from core.dialogue import Dialogue
from core.errors import UsageError
from core.models.catalogue import CATALOGUE
from core.place_rules import Choice, Persona, Rules, filled, persona_from_text
from core.queue_types import Place
from core.types import Done, ThreadKey
from storage.rules import RedisRules
from tests.local_discord.deployment import ALICE, DiscordDeployment
from tests.local_discord.expectations import NOBODY, answered, told
from tests.local_slack.deployment import SlackDeployment, slack_at_work, slack_deployment
from tests.local_slack.workspace import Json
from tests.store_fixture import THREAD, StoreFixture
from tests.waiting import until

BOT = "<@U0HENJI>"
CHANNEL = Place("slack", "T1", "C1")
BRIEF = Persona(max_new_tokens=7)


# -- the date and the place in a system prompt --------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "result"),
    [
        ("Be brief.", "Be brief."),
        ("You are {bot} in {channel}.", "You are Henji in general."),
        ("Today is {date}. You are {bot}.", "You are Henji. Today is 2026-11-29."),
        ("You are {bot}. Today is {date}.", "You are Henji. Today is 2026-11-29."),
        ("今日は{date}です。あなたは{bot}です。", "あなたはHenjiです。今日は2026-11-29です。"),
        ("Date: {date}\nBe brief.\nBe kind.", "Be brief.\nBe kind. Date: 2026-11-29"),
        ("{date}", "2026-11-29"),
        ('Answer {"as": {json}} to {0} and {}.', 'Answer {"as": {json}} to {0} and {}.'),
        ("Is it v1.2?!no, {date}. So!what?", "So!what? Is it v1.2?!no, 2026-11-29."),
        ("{channel} {{date}} {Date}", "general {2026-11-29} {Date}"),
        ("", ""),
    ],
)  # fmt: skip
def test_the_date_goes_last_and_other_braces_stay(prompt: str, result: str) -> None:
    assert filled(prompt, "2026-11-29", "general", "Henji") == result


def test_only_what_stands_behind_the_date_differs_tomorrow() -> None:
    prompt = "It is {date}. " + "You answer briefly. " * 50
    today, tomorrow = (filled(prompt, f"2026-11-{day}", "", "") for day in (29, 30))
    same = next(at for at, pair in enumerate(zip(today, tomorrow, strict=True)) if len({*pair}) > 1)
    assert same > len(prompt) - 20


def test_a_long_prompt_is_filled_in_no_more_time_than_its_length() -> None:
    for words in ("{date", "?a", "! ", ".", "。", " ", "\n"):
        prompt = words * (8000 // len(words))
        assert filled(f"{prompt}{{date}}", "d", "c", "b").replace("d", "") in (
            prompt.replace("d", ""),
            prompt.strip(),
        )


async def test_the_prompt_of_a_place_is_filled_in_with_its_names_and_the_hosts_too(
    redis: Redis,
) -> None:
    stores = StoreFixture.over(redis)
    rulebook = RedisRules(stores.store, Policy(system_prompt="You are {bot}: {date}."))
    today = datetime.now(UTC).date().isoformat()
    assert (await rulebook.rules(THREAD)).system_prompt == f"You are Henji: {today}."
    await rulebook.remember_names(THREAD, "general", "返事")
    await rulebook.change(CHANNEL, "system_prompt", "{bot} in {channel} {here}", "U9")
    here = await rulebook.in_thread(THREAD)
    assert (here.rules.system_prompt, here.names_place) == ("返事 in general {here}", True)


# -- personas as admins write them ---------------------------------------------------------------


def test_a_persona_is_written_rule_by_rule() -> None:
    personas = persona_from_text("poet", "system_prompt", "Answer in verse.", {})
    personas = persona_from_text("poet", "temperature", "0.9", personas)
    assert personas == {"poet": Persona(system_prompt="Answer in verse.", temperature=0.9)}
    for word in ("default", "unset"):
        assert persona_from_text("poet", "temperature", word, personas)["poet"].temperature is None
        assert persona_from_text("poet", word, "", personas) is None
    quick = persona_from_text("poet", "thinking", "default", personas)
    assert quick["poet"].thinking == "default"
    assert persona_from_text("poet", "thinking", "unset", quick)["poet"].thinking is None


@pytest.mark.parametrize(
    ("name", "rule", "text", "said"),
    [
        ("poet", "enabled", "off", "no rule of a persona"),
        ("poet", "temperature", "hot", "temperature is wrong"),
        ("a:b", "temperature", "1", "a name of up to 32 characters"),
        ("x" * 33, "temperature", "1", "a name of up to 32 characters"),
        ("default", "temperature", "1", "default is what a place has without one"),
    ],
)
def test_a_persona_that_is_wrong_is_said_in_one_sentence(
    name: str, rule: str, text: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said) as fault:
        persona_from_text(name, rule, text, {})
    assert "\n" not in str(fault.value)


def test_a_place_offers_at_most_as_many_personas_as_a_picker_shows() -> None:
    personas = {f"p{number}": BRIEF for number in range(25)}
    with pytest.raises(UsageError, match="at most 25"):
        persona_from_text("another", "top_k", "1", personas)


def test_a_choice_holds_while_its_place_offers_it() -> None:
    choice = Choice("house", "brief")
    rules = Rules(model="echo", models=("house",), personas={"brief": BRIEF}, temperature=0.5)
    held = choice.over(rules)
    assert (held.model, held.max_new_tokens, held.temperature) == ("house", 7, 0.5)
    assert choice.lost(rules) == ()
    closed = Rules(model="echo")
    assert choice.over(closed) == closed
    assert choice.lost(closed) == ("house", "brief")


def test_a_persona_stays_under_the_hosts_ceiling() -> None:
    policy = Policy(ceilings=Rules(max_new_tokens=5))
    rules = policy.rules(THREAD, Rules(), Rules(personas={"brief": BRIEF}), Choice("", "brief"))
    assert rules.max_new_tokens == 5


def test_the_personas_of_a_space_and_of_its_channel_are_both_offered() -> None:
    space, channel = Rules(personas={"a": BRIEF, "b": BRIEF}), Rules(personas={"b": Persona()})
    rules = Policy().rules(THREAD, space, channel)
    assert rules.personas == {"a": BRIEF, "b": Persona()}


# -- in Slack ------------------------------------------------------------------------------------


@pytest.fixture
async def slack(redis: Redis) -> AsyncIterator[SlackDeployment]:
    async with slack_at_work(redis) as deployment:
        yield deployment


async def offer(deployment: SlackDeployment | DiscordDeployment, place: Place) -> None:
    rulebook = deployment.rulebook
    await rulebook.change(place, "models", ("house", "gone"), "UADMIN")
    await rulebook.change(place, "personas", {"brief": BRIEF}, "UADMIN")


async def picker(deployment: SlackDeployment, ts: str, text: str, user: str = "U2") -> Json:
    """The modal that the menu under a reply opens."""
    reply = await deployment.answered("C1", ts, text)
    deployment.slack.press(user, reply, components.MENU, value="model")
    views = deployment.slack.workspace.views
    find = lambda: [v for v in views.values() if v.get("callback_id") == "henji_chosen"]  # noqa: E731
    return (await deployment.slack.until(find))[-1]  # type: ignore[no-any-return]


def chosen(**values: str) -> Json:
    return {
        name: {name: {"type": "static_select", "selected_option": {"value": value}}}
        for name, value in values.items()
    }


async def test_a_thread_chooses_its_model_and_persona_in_the_menu_under_a_reply(
    slack: SlackDeployment,
) -> None:
    await slack.core(name="another", model="house")
    await offer(slack, Place("slack", slack.slack.workspace.team, "C1"))
    ts = await slack.slack.say("C1", "U2", f"{BOT} good morning")
    view = await picker(slack, ts, "echo: good morning")
    model, persona = (block["element"] for block in view["blocks"])
    labels = [option["text"]["text"] for option in model["options"]]
    assert labels == ["the default here", "house", "gone (away)"]
    assert [option["value"] for option in persona["options"]] == ["default", "brief"]
    slack.slack.submit("U2", view, chosen(model="house", persona="brief"))
    await slack.slack.until_whispered("U2", "From now on in this conversation: house.")
    await slack.slack.say("C1", "U2", "and good night", thread=ts)
    reply = await slack.answered("C1", ts, "echo: a")
    assert "AI (house)" in str(reply.blocks)
    other = await slack.slack.say("C1", "U2", f"{BOT} good morning")
    reply = await slack.answered("C1", other, "echo: good morning")
    assert "AI (echo)" in str(reply.blocks)


async def test_a_model_that_is_away_is_refused_with_a_sentence(slack: SlackDeployment) -> None:
    await offer(slack, Place("slack", slack.slack.workspace.team, "C1"))
    ts = await slack.slack.say("C1", "U2", f"{BOT} hi")
    view = await picker(slack, ts, "echo: hi")
    for name, said in (("gone", "No core runs gone"), ("nobodys", "“nobodys” is not offered here")):
        slack.slack.submit("U2", view, chosen(model=name))
        await slack.slack.until_whispered("U2", said)
    await slack.slack.say("C1", "U2", "still there?", thread=ts)
    await slack.answered("C1", ts, "echo: still there?")


async def test_a_persona_that_is_removed_while_a_thread_uses_it_is_told_once(
    slack: SlackDeployment,
) -> None:
    place = Place("slack", slack.slack.workspace.team, "C1")
    await offer(slack, place)
    ts = await slack.slack.say("C1", "U2", f"{BOT} hi")
    view = await picker(slack, ts, "echo: hi")
    slack.slack.submit("U2", view, chosen(persona="brief"))
    await slack.slack.until_whispered("U2", "brief")
    await slack.rulebook.change(place, "personas", None, "UADMIN")
    await slack.slack.say("C1", "U2", "the first", thread=ts)
    reply = await slack.answered("C1", ts, "echo: the first")
    assert "“brief” is not offered here any more" in str(reply.blocks)
    await slack.slack.say("C1", "U2", "the second", thread=ts)
    reply = await slack.answered("C1", ts, "echo: the second")
    assert "brief" not in str(reply.blocks)


async def test_where_nothing_is_offered_the_menu_says_what_answers(slack: SlackDeployment) -> None:
    ts = await slack.slack.say("C1", "U2", f"{BOT} hi")
    reply = await slack.answered("C1", ts, "echo: hi")
    slack.slack.press("U2", reply, components.MENU, value="model")
    await slack.slack.until_whispered("U2", "The model that answers here is echo.")


@pytest.mark.parametrize("user", ["U1", "U2"])
async def test_the_fullest_picker_is_within_slacks_limits(
    slack: SlackDeployment, user: str
) -> None:
    place = Place("slack", slack.slack.workspace.team, "C1")
    lanes = tuple(f"{number:02}{'長' * 73}" for number in range(25))
    personas = {f"{number:02}{'長' * 30}": BRIEF for number in range(25)}
    await slack.rulebook.change(place, "models", lanes, "UADMIN")
    await slack.rulebook.change(place, "personas", personas, "UADMIN")
    space = replace(place, channel=None)
    more = {f"s{name[1:]}{number}": BRIEF for number, name in enumerate(personas)}
    await slack.rulebook.change(space, "personas", {k[:32]: v for k, v in more.items()}, "UADMIN")
    ts = await slack.slack.say("C1", user, f"{BOT} hi")
    view = await picker(slack, ts, "echo: hi", user)
    assert len(view["blocks"][0]["element"]["options"]) == 26
    assert slack.slack.workspace.violations == []


async def test_a_slash_command_says_what_can_be_chosen(slack: SlackDeployment) -> None:
    await offer(slack, Place("slack", slack.slack.workspace.team, "C1"))
    for word, said in (("model", "gone (away)"), ("persona", "brief")):
        slack.slack.command("U2", "C1", word)
        await slack.slack.until(lambda said=said: said in str(slack.slack.workspace.responses))


async def test_the_prompt_of_a_channel_knows_its_name_in_slack(slack: SlackDeployment) -> None:
    place = Place("slack", slack.slack.workspace.team, "C1")
    await slack.rulebook.change(place, "system_prompt", "You are {bot} in {channel}.", "UADMIN")
    for _ in range(2):
        ts = await slack.slack.say("C1", "U2", f"{BOT} hi")
        await slack.answered("C1", ts, "echo: hi")
    rules = await slack.rulebook.rules(slack.key("C1", ts))
    assert rules.system_prompt == "You are henji in channel-c1."
    assert len(slack.slack.called("conversations.info")) == 1


# -- a prompt that is too long -------------------------------------------------------------------


async def configured(deployment: SlackDeployment, words: str) -> str:
    before = len(deployment.slack.workspace.responses)
    deployment.slack.command("UADMIN", "C1", f"config {words}")
    responses = deployment.slack.workspace.responses
    await deployment.slack.until(lambda: len(responses) > before)
    return str(responses[-1]["text"])


async def test_a_prompt_over_half_of_the_context_is_refused_with_both_numbers(
    redis: Redis,
) -> None:
    async with slack_deployment(redis) as slack:
        slack.slack.workspace.people["UADMIN"].locale = "en-US"
        await slack.core()
        await slack.adapter()
        half = (4096 + 2 * 1024) // 2
        place = Place("slack", slack.slack.workspace.team, "C1")
        for words in ("system_prompt", "persona poet system_prompt"):
            said = await configured(slack, f"{words} {'あ' * (half + 1)}")
            assert f"takes {half + 1:,} tokens" in said
            assert f"{half:,}" in said
            assert await slack.rulebook.set_here(place) == Rules()
        assert "From now on" in await configured(slack, f"persona poet system_prompt {'あ' * half}")
        assert await left_of_errands(redis) == []


async def left_of_errands(redis: Redis) -> list[str]:
    """The keys that a one-off job has left behind."""
    return [key async for key in redis.scan_iter("*errand*")]


async def test_without_a_core_a_prompt_is_taken_with_a_warning(redis: Redis) -> None:
    async with slack_deployment(redis) as slack:
        slack.slack.workspace.people["UADMIN"].locale = "en-US"
        await slack.adapter()
        assert "No core could count" in await configured(slack, "system_prompt Be brief.")


# -- in Discord ----------------------------------------------------------------------------------


def guild_place(deployment: DiscordDeployment, channel: str) -> Place:
    return Place("discord", str(deployment.discord.world.guild_of(channel)), channel)


async def a_guild(deployment: DiscordDeployment) -> str:
    channel = deployment.discord.add_channel(deployment.discord.add_guild())
    await deployment.start_core()
    await deployment.start_bot(policy=Policy())
    await offer(deployment, guild_place(deployment, channel))
    return channel


async def test_discord_completes_what_is_typed(deployment: DiscordDeployment) -> None:
    general = await a_guild(deployment)
    typed = await deployment.discord.types(ALICE, general, "model", "name", "HO")
    answer = await answered(deployment, typed)
    assert answer["data"]["choices"] == [{"name": "house (away)", "value": "house"}]
    typed = await deployment.discord.types(ALICE, general, "persona", "name", "", locale="ja")
    names = [choice["name"] for choice in (await answered(deployment, typed))["data"]["choices"]]
    assert names == ["ここの既定", "brief"]


async def test_on_discord_a_choice_holds_in_the_conversation(deployment: DiscordDeployment) -> None:
    general = await a_guild(deployment)
    await deployment.start_core(lane="house")
    for command, name in (("model", "house"), ("persona", "brief")):
        used = await deployment.discord.uses(ALICE, general, command, {"name": name})
        assert await told(deployment, used) == say("choice_set", "en", name=name)
    used = await deployment.discord.uses(ALICE, general, "ask", {"prompt": "good morning"})
    where = deployment.discord.world.messages[general]
    await deployment.discord.until(
        lambda: where.get(used.original, {}).get("content", "").startswith("echo: g")
    )
    place = guild_place(deployment, general)
    thread = ThreadKey("discord", place.space, general, f"@{ALICE['id']}")
    kept = (await deployment.rulebook.in_thread(thread)).kept
    assert kept == Choice("house", "brief")
    used = await deployment.discord.uses(ALICE, general, "model")
    assert "house" in await told(deployment, used)


async def test_on_discord_what_is_not_offered_or_away_is_refused(
    deployment: DiscordDeployment,
) -> None:
    general = await a_guild(deployment)
    for name, key in (("gone", "choice_refused"), ("x" * 300, "choice_unknown")):
        used = await deployment.discord.uses(ALICE, general, "model", {"name": name})
        assert await told(deployment, used) == say(key, "en", name=name[:75])


async def test_who_may_not_use_the_bot_is_shown_no_completion(
    deployment: DiscordDeployment,
) -> None:
    general = await a_guild(deployment)
    place = guild_place(deployment, general)
    await deployment.rulebook.change(place, "deny_people", (str(ALICE["id"]),), "admin")
    await deployment.discord.types(ALICE, general, "model", "name", "h", permissions=NOBODY)
    used = await deployment.discord.uses(ALICE, general, "model", permissions=NOBODY)
    assert await told(deployment, used) == say("not_allowed", "en")
    typed = [i for i in deployment.discord.world.interactions.values() if i.kind == 4]
    assert [interaction.answer for interaction in typed] == [None]


async def test_the_prompt_of_a_channel_knows_its_name_in_discord(
    deployment: DiscordDeployment,
) -> None:
    general = await a_guild(deployment)
    place = guild_place(deployment, general)
    await deployment.rulebook.change(place, "system_prompt", "In {channel}.", "admin")
    await deployment.discord.uses(ALICE, general, "ask", {"prompt": "hi"})

    async def named() -> bool:
        return (await deployment.rulebook.rules(place.any_thread)).system_prompt == "In general."

    await until(named)


# -- counting ------------------------------------------------------------------------------------


def test_a_core_counts_each_text_and_says_what_it_reads() -> None:
    from core.window import count_tokens

    dialogue = Dialogue.load(CATALOGUE["echo"], None)
    found = json.loads(count_tokens(dialogue, json.dumps(["", "abc", "日本"])))
    assert found == [CATALOGUE["echo"].context_length, 0, 3, 2]


def test_an_old_reply_has_lost_nothing() -> None:
    from storage.codec import decode_event

    usage = {"prompt_tokens": 1, "reply_tokens": 1}
    end = {"t": "done", "text": "a", "finish_reason": "stop", "usage": usage}
    done = decode_event(json.dumps(end))
    assert isinstance(done, Done)
    assert done.lost == ()
