"""What Discord sends becomes what the relay takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import discord
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bots.discord import components, convert
from bots.discord.replies import ReplyAddress
from bots.platform import Incoming
from core.types import ThreadKey
from tests.local_discord import payloads as p

GUILD, GENERAL, THREAD, DIRECT = "800000000000000001", "800000000000000002", "1", "8000000003"
BOT_ROLE = "800000000000000009"
ALICE = p.user("700000000000000001", "Alice")
BOB = p.user("700000000000000002", "Bob")
HENJI = p.user(p.BOT_ID, "Henji", bot=True)
ME = convert.Bot(int(p.BOT_ID), frozenset({int(BOT_ROLE)}))
MENTION = f"<@{p.BOT_ID}>"


class World:
    """A guild with one channel and one thread, as discord.py's objects."""

    def __init__(self) -> None:
        self.state = discord.Client(intents=discord.Intents.none())._connection
        roles = [p.role(BOT_ROLE, "Henji")]
        data: Any = p.guild(GUILD, channels=[p.channel(GENERAL, "general", GUILD)], roles=roles)
        self.guild = discord.Guild(data=data, state=self.state)
        self.state._guilds[self.guild.id] = self.guild
        thread: Any = p.thread("800000000000000004", "A talk", GUILD, GENERAL, p.BOT_ID)
        self.thread = discord.Thread(guild=self.guild, state=self.state, data=thread)
        direct: Any = p.direct("800000000000000003", ALICE)
        me: Any = discord.ClientUser(state=self.state, data=_any(HENJI))
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


def test_the_bots_own_role_stands_for_it(world: World) -> None:
    incoming = taken(world.says(f"<@&{BOT_ROLE}> hello", mention_roles=[BOT_ROLE]))
    assert (incoming.addressed, incoming.turn.text) == (True, "hello")


def test_mentions_become_names_and_unknown_ones_stay(world: World) -> None:
    text = f"{MENTION}  ask <@{BOB['id']}> in <#{GENERAL}> or <#123456789012345678>"
    incoming = taken(world.says(text, mentions=[HENJI, BOB]))
    assert incoming.turn.text == "ask @Bob in #general or <#123456789012345678>"


def test_indentation_of_code_survives_the_names(world: World) -> None:
    text = f"{MENTION} see\n```py\nif x:\n    return 1\n```"
    assert "\n    return 1" in taken(world.says(text)).turn.text


@pytest.mark.parametrize(
    "more",
    [{"author": {**BOB, "bot": True}}, {"webhook_id": "55"}, {"type": 7}],
    ids=["a bot", "a webhook", "a notice"],
)
def test_what_no_person_wrote_is_passed_over(world: World, more: dict[str, Any]) -> None:
    assert convert.incoming(world.says(f"{MENTION} hi", **more), ME, "thread", "ja") is None


def test_a_title_is_the_first_line_shortened() -> None:
    assert convert.thread_name("one\ntwo", "x") == "one"
    assert convert.thread_name("", "x") == "x"
    assert len(convert.thread_name("長" * 200, "x")) == convert.TITLE_LENGTH


def test_an_edit_has_a_revision_and_a_first_form_has_none(world: World) -> None:
    assert convert.revision_of(world.says("hi")) == ""
    edited = world.says("hi", edited_timestamp="2026-11-22T12:00:00.123000+00:00")
    assert convert.revision_of(edited) == "1795348800123"


# -- what a delivery and a button remember ------------------------------------------------------

ids = st.integers(10**15, 2**64 - 1).map(str)


@given(
    st.sampled_from(["stop", "regenerate", "continue", "good", "bad"]),
    st.one_of(ids, st.just("dm")),
    ids,
    st.tuples(st.sampled_from(["", "@", "!"]), ids).map("".join),
    st.text("0123456789abcdef", min_size=24, max_size=24),
    st.integers(0, 99),
)
def test_a_custom_id_says_what_it_was_made_of_and_fits(
    action: components.Action, space: str, channel: str, thread: str, job: str, index: int
) -> None:
    press = components.ButtonId(action, ThreadKey("discord", space, channel, thread), job, index)
    assert components.ButtonId.parse(str(press)) == press
    assert len(str(press)) <= 100


@pytest.mark.parametrize(
    "custom_id", ["", "h1.s", "h2.s.a.0.1.1.1", "h1.z.a.0.1.1.1", "h1.s.a.0.?.1.1"]
)
def test_a_custom_id_of_another_make_is_none_of_ours(custom_id: str) -> None:
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


def test_a_note_does_not_print_its_token() -> None:
    assert "secret" not in repr(ReplyAddress(token="secret", until=1.0))


def test_mentions_in_a_list_stand_for_their_ids() -> None:
    person, role = "<@!123456789012345678>", "<@&223456789012345678>"
    assert convert.ids(f"{person}{role}").split() == ["123456789012345678", "223456789012345678"]
