"""Conversion of Discord's payloads for the relay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import discord
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bots.discord import components, convert
from bots.discord.replies import PLAIN_TITLE, ReplyAddress
from bots.platform import Incoming
from core.types import ThreadKey
from storage.deliveries import SECRET
from tests.local_discord import payloads as p

GUILD, GENERAL, THREAD, DIRECT = "800000000000000001", "800000000000000002", "1", "8000000003"
BOT_ROLE, SALES = "800000000000000009", "800000000000000010"
ALICE = p.user("700000000000000001", "Alice")
BOB = p.user("700000000000000002", "Bob")
HENJI = p.user(p.BOT_ID, "Henji", bot=True)
ME = convert.Bot(int(p.BOT_ID), frozenset({int(BOT_ROLE)}))
MENTION = f"<@{p.BOT_ID}>"


class World:
    """A guild with one channel and one thread, as discord.py's objects."""

    def __init__(self) -> None:
        self.state = discord.Client(intents=discord.Intents.none())._connection
        me = discord.ClientUser(state=self.state, data=_any(HENJI))
        self.state.user = me
        roles = [
            {**p.role(BOT_ROLE, "Henji"), "tags": {"bot_id": p.BOT_ID}},
            p.role(SALES, "sales"),
        ]
        data: Any = p.guild(GUILD, channels=[p.channel(GENERAL, "general", GUILD)], roles=roles)
        self.guild = discord.Guild(data=data, state=self.state)
        self.state._guilds[self.guild.id] = self.guild
        thread: Any = p.thread("800000000000000004", "A talk", GUILD, GENERAL, p.BOT_ID)
        self.thread = discord.Thread(guild=self.guild, state=self.state, data=thread)
        direct: Any = p.direct("800000000000000003", ALICE)
        self.direct = discord.DMChannel(me=me, state=self.state, data=direct)

    def says(
        self, text: str, author: Mapping[str, Any] = ALICE, *, where: Any = None, **more: Any
    ) -> discord.Message:
        channel = where or self.guild.get_channel(int(GENERAL))
        guild_id = None if channel is self.direct else GUILD
        data = p.message(
            p.snowflake(), str(_any(channel).id), dict(author), text, guild_id=guild_id, **more
        )
        return discord.Message(state=self.state, channel=_any(channel), data=_any(data))


def _any(value: Any) -> Any:
    return value


@pytest.fixture
def world() -> World:
    return World()


def taken(message: discord.Message, answers: convert.Answers = "thread") -> Incoming:
    found = convert.incoming(message, ME, answers, "ja")
    assert found is not None
    return found


def test_a_mention_in_a_channel_opens_a_thread_that_has_its_id(world: World) -> None:
    message = world.says(f"{MENTION} hello", mentions=[HENJI])
    incoming = taken(message)
    assert incoming.thread == ThreadKey("discord", GUILD, GENERAL, str(message.id))
    assert (incoming.turn.id, incoming.turn.text) == (str(message.id), "hello")
    assert incoming.addressed
    note = ReplyAddress.unpack(incoming.note)
    assert note.channel == str(message.id)
    assert (note.opens, note.reply_to) == ("hello", str(message.id))


def test_a_mention_that_is_answered_in_the_channel_is_the_persons_conversation(
    world: World,
) -> None:
    incoming = taken(world.says(f"{MENTION} hello"), "reply")
    assert incoming.thread == ThreadKey("discord", GUILD, GENERAL, f"@{ALICE['id']}")
    assert ReplyAddress.unpack(incoming.note).opens == ""
    assert convert.is_personal(incoming.thread)


def test_a_mention_inside_a_thread_is_answered_there(world: World) -> None:
    incoming = taken(world.says(f"hi {MENTION}", where=world.thread))
    assert incoming.thread == ThreadKey("discord", GUILD, GENERAL, str(world.thread.id))
    assert ReplyAddress.unpack(incoming.note).channel == str(world.thread.id)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("@Henji how far is it?", "how far is it?\n\nThe moon, I mean."),
        (f"{MENTION}, how far?", "how far?\n\nThe moon, I mean."),
        ("Moon (@henji)", "Moon ()\n\nThe moon, I mean."),
    ],
)
def test_a_post_that_names_the_bot_in_its_title_alone_is_for_it(
    world: World, name: str, text: str
) -> None:
    bot = replace(ME, names=frozenset({"Henji"}))
    world.thread.name = name
    message = world.says("The moon, I mean.", where=world.thread, id=str(world.thread.id))
    incoming = convert.incoming(message, bot, "thread", "en")
    assert incoming is not None
    assert (incoming.addressed, incoming.turn.text) == (True, text)
    assert ReplyAddress.unpack(incoming.note).opens == ""
    later = world.says("And Mars?", where=world.thread, position=3)
    assert not convert.is_addressed(later, bot)
    first = world.says("And Mars?", where=world.thread, position=0)
    assert convert.is_addressed(first, bot)


def test_a_title_with_another_name_is_not_for_the_bot(world: World) -> None:
    world.thread.name = "@Henjiro how far is it?"
    message = world.says("The moon.", where=world.thread, id=str(world.thread.id))
    bot = replace(ME, names=frozenset({"Henji"}))
    assert not convert.is_addressed(message, bot)
    assert convert.text_of(message, bot) == "@Henjiro how far is it?\n\nThe moon."


def test_a_direct_message_is_always_addressed(world: World) -> None:
    incoming = taken(world.says("hello", where=world.direct))
    assert incoming.addressed
    assert incoming.thread == ThreadKey("discord", "dm", ALICE["id"], str(world.direct.id))


def test_a_message_to_others_in_a_thread_is_not_addressed_and_in_a_channel_nothing(
    world: World,
) -> None:
    assert not taken(world.says("lunch?", where=world.thread)).addressed
    assert convert.incoming(world.says("lunch?"), ME, "thread", "ja") is None


def test_a_reply_to_the_bot_is_addressed_without_its_name(world: World) -> None:
    said = p.message(p.snowflake(), GENERAL, HENJI, "I think so")
    assert taken(world.says("why?", answers=said)).addressed


def test_a_reply_to_someone_else_is_not(world: World) -> None:
    said = p.message(p.snowflake(), GENERAL, BOB, "I think so")
    assert convert.incoming(world.says("why?", answers=said), ME, "thread", "ja") is None


def test_a_mention_of_the_bots_managed_role_addresses_it(world: World) -> None:
    bot = convert.bot_of(int(p.BOT_ID), world.guild)
    assert bot.roles == {int(BOT_ROLE)}
    incoming = taken(world.says(f"<@&{BOT_ROLE}> hello", mention_roles=[BOT_ROLE]))
    assert (incoming.addressed, incoming.turn.text) == (True, "hello")


def test_a_mention_of_another_role_addresses_the_bot_only_by_a_setting(world: World) -> None:
    message = world.says(f"<@&{SALES}> please fill in the survey", where=world.thread)
    assert not convert.is_addressed(message, convert.bot_of(int(p.BOT_ID), world.guild))
    named = convert.bot_of(int(p.BOT_ID), world.guild, frozenset({int(SALES)}))
    assert convert.is_addressed(message, named)


@pytest.mark.parametrize(
    "text",
    [f"use `{MENTION}` to call it", f"```\n{MENTION} hi\n```", f"``a ` {MENTION}`` says it all"],
)
def test_a_mention_in_code_is_code(world: World, text: str) -> None:
    message = world.says(text, where=world.thread, mentions=[HENJI])
    assert not convert.is_addressed(message, ME)
    assert convert.text_of(message, ME) == text


@pytest.mark.parametrize(
    "text", [f"` {MENTION} hello", f"`a` {MENTION} hello `b`", f"``` {MENTION}"]
)
def test_a_mention_beside_code_is_a_mention(world: World, text: str) -> None:
    assert convert.is_addressed(world.says(text, where=world.thread), ME)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (f"{MENTION} ask <@{BOB['id']}> in <#{GENERAL}>", "ask @Bob in #general"),
        (
            f"ask <@9> or <@&9> in <#9>, {MENTION}",
            "ask @unknown-user or @unknown-role in #unknown,",
        ),
        ("<:party:123> <a:dance:1234567890123456789> hi", ":party: :dance: hi"),
        ("<t:1700000000:s>, <t:1700000000:S>", "2023-11-14 22:13 UTC, 2023-11-14 22:13:20 UTC"),
        (
            "see <https://example.org/a_b> and <id:linked-roles:12>",
            "see https://example.org/a_b and Linked Roles",
        ),
        (f"**{MENTION}** hi, ||{MENTION}||", "hi,"),
        (f"ask *{MENTION}*: why?", "ask: why?"),
        ("at <t:1700000000:R> or <t:1700000000:t>", "at 2023-11-14 22:13 UTC or 22:13 UTC"),
        ("on <t:1700000000:D>, not <t:99999999999999>", "on 2023-11-14, not <t:99999999999999>"),
        ("use </ask:1> or </admin reset thread:123>", "use /ask or /admin reset thread"),
        ("see <id:guide> and <id:customize>", "see Server Guide and Channels & Roles"),
        (f"{MENTION}, hi", "hi"),
        (f"{MENTION}：こんにちは", "こんにちは"),
        (f"hi {MENTION}!", "hi!"),
        (f"{MENTION}さん、こんにちは", "こんにちは"),
        (f"what does {MENTION} say", "what does say"),
        ("a <b> c `<:party:123>`", "a <b> c `<:party:123>`"),
    ],
)
def test_markup_is_read_as_people_see_it(world: World, text: str, read: str) -> None:
    assert convert.text_of(world.says(text, mentions=[HENJI, BOB]), ME) == read


@pytest.mark.parametrize("answered", ["own", "deleted"])
def test_a_reply_to_ones_own_or_to_a_deleted_message_is_not_to_others(
    world: World, answered: str
) -> None:
    said = p.message(p.snowflake(), str(world.thread.id), ALICE, "first")
    more = {"answers": said} if answered == "own" else {
        "type": 19, "message_reference": p.reference(said), "referenced_message": None,
    }  # fmt: skip
    message = world.says("and then?", where=world.thread, **more)
    assert not convert.speaks_to_others(message, ME)


def test_a_reply_to_somebody_else_in_a_thread_is_to_others(world: World) -> None:
    said = p.message(p.snowflake(), str(world.thread.id), BOB, "first")
    assert convert.speaks_to_others(world.says("why?", where=world.thread, answers=said), ME)


def test_a_mention_of_a_role_of_people_is_to_others(world: World) -> None:
    said = world.says(f"<@&{SALES}> please fill this in", where=world.thread)
    assert convert.speaks_to_others(said, ME)
    assert not convert.speaks_to_others(world.says(f"<@&{BOT_ROLE}> hi", where=world.thread), ME)


def test_a_message_to_everyone_is_to_others(world: World) -> None:
    said = world.says("@here lunch?", where=world.thread, mention_everyone=True)
    assert convert.speaks_to_others(said, ME)


def test_indentation_of_code_survives_the_names(world: World) -> None:
    text = f"{MENTION} see\n```py\nif x:\n    return 1\n```"
    assert "\n    return 1" in taken(world.says(text)).turn.text


@pytest.mark.parametrize(
    "more",
    [{"author": {**BOB, "bot": True}}, {"webhook_id": "55"}, {"type": 7}],
    ids=["a bot", "a webhook", "a notice"],
)
def test_messages_that_no_person_wrote_are_ignored(world: World, more: dict[str, Any]) -> None:
    assert convert.incoming(world.says(f"{MENTION} hi", **more), ME, "thread", "ja") is None


def test_an_edit_has_a_revision_and_a_first_form_has_none(world: World) -> None:
    assert convert.revision_of(world.says("hi")) == ""
    edited = world.says("hi", edited_timestamp="2026-11-22T12:00:00.123000+00:00")
    assert convert.revision_of(edited) == "1795348800123"


# -- the data of a delivery and of a button -----------------------------------------------------

ids = st.integers(10**15, 2**64 - 1).map(str)


@given(
    st.sampled_from(["stop", "regenerate", "continue", "good", "bad"]),
    st.one_of(ids, st.just("dm")),
    ids,
    st.tuples(st.sampled_from(["", "@", "!"]), ids).map("".join),
    st.text("0123456789abcdef", min_size=24, max_size=24),
    st.integers(0, 99),
)
def test_a_custom_id_contains_its_parts_and_fits(
    action: components.Action, space: str, channel: str, thread: str, job: str, index: int
) -> None:
    press = components.ButtonId(action, ThreadKey("discord", space, channel, thread), job, index)
    assert components.ButtonId.parse(str(press)) == press
    assert len(str(press)) <= 100


@pytest.mark.parametrize(
    "custom_id", ["", "h1.s", "h2.s.a.0.1.1.1", "h1.z.a.0.1.1.1", "h1.s.a.0.?.1.1"]
)
def test_a_foreign_custom_id_is_ignored(custom_id: str) -> None:
    assert components.ButtonId.parse(custom_id) is None


@given(
    st.builds(
        ReplyAddress,
        channel=ids,
        reply_to=ids,
        opens=st.text(max_size=20),
        app=ids,
        token=st.text(max_size=20),
        until=st.floats(0, 2e9),
        original=ids,
        private=st.booleans(),
        token_only=st.booleans(),
        locale=st.sampled_from(["ja", "en", ""]),
    )
)
def test_a_note_comes_back_as_it_was_packed(note: ReplyAddress) -> None:
    assert ReplyAddress.unpack(note.pack()) == note


def test_of_the_name_of_a_thread_only_a_plain_one_outlives_its_delivery() -> None:
    note = ReplyAddress(channel="1", reply_to="1", opens="the words of a person")
    kept = {name: text for name, text in note.pack().items() if not name.startswith(SECRET)}
    assert ReplyAddress.unpack(kept) == replace(note, opens=PLAIN_TITLE)


def test_a_note_does_not_print_its_token() -> None:
    assert "secret" not in repr(ReplyAddress(token="secret", until=1.0))


def test_mentions_in_a_list_become_ids() -> None:
    person, role = "<@!123456789012345678>", "<@&223456789012345678>"
    assert convert.ids(f"{person}{role}").split() == ["123456789012345678", "223456789012345678"]
