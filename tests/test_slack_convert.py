"""Conversion of Slack's payloads: pure."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bots.platform import Part
from bots.slack import components, convert, markdown
from bots.slack.convert import (
    Bot,
    Malformed,
    MessageDeleted,
    MessageEdited,
    MessagePosted,
    SessionStopped,
)
from bots.slack.users import User
from core.queue_types import Delivery
from core.types import Done, ThreadKey, Turn, Usage

BOT = Bot("T1", "UBOT", "BBOT")
KEY = ThreadKey("slack", "T1", "C1", "1.0")


def event(**changes: Any) -> dict[str, Any]:
    message = {"type": "message", "channel": "C1", "user": "U1", "ts": "2.0", "text": "hi"}
    return {"team_id": "T1", "event_id": "Ev1", "event": message | changes}


def said(**changes: Any) -> MessagePosted:
    parse_event = convert.parse_event(event(**changes), BOT)
    assert isinstance(parse_event, MessagePosted)
    return parse_event


def test_a_message_belongs_to_the_thread_that_it_begins_or_is_in() -> None:
    assert said().key == ThreadKey("slack", "T1", "C1", "2.0")
    assert not said().inside
    assert said(thread_ts="1.0").key.thread == "1.0"
    assert said(thread_ts="1.0").inside


@pytest.mark.parametrize("kind", ["message", "app_mention"])
def test_addressing_is_read_from_the_text_and_not_from_the_event(kind: str) -> None:
    assert said(type=kind, text="<@UBOT> hi").mentioned
    assert not said(type=kind, text="<@U2> hi").mentioned
    assert said(type=kind, text="<@UBOT|henji> and <@U2>").others == {"U2"}


def test_the_bots_own_messages_are_ignored() -> None:
    assert convert.parse_event(event(user="UBOT"), BOT) is None
    assert convert.parse_event(event(bot_id="BBOT"), BOT) is None
    assert convert.parse_event(event(subtype="channel_join"), BOT) is None


def test_only_a_changed_text_is_an_edit() -> None:
    message = {"user": "U1", "ts": "2.0", "text": "new", "edited": {"ts": "3.0"}}
    before = {"text": "old"}
    changed = event(subtype="message_changed", message=message, previous_message=before)
    parse_event = convert.parse_event(changed, BOT)
    assert isinstance(parse_event, MessageEdited)
    assert (parse_event.posted.ts, parse_event.posted.edited) == ("2.0", "3.0")
    unfurled = event(
        subtype="message_changed",
        message=message | {"text": "old"},
        previous_message=before,
    )
    assert convert.parse_event(unfurled, BOT) is None


def test_a_deletion_names_the_thread_that_the_message_stood_in() -> None:
    gone = event(subtype="message_deleted", deleted_ts="2.0", previous_message={"thread_ts": "1.0"})
    assert convert.parse_event(gone, BOT) == MessageDeleted(
        ThreadKey("slack", "T1", "C1", "1.0"), "2.0"
    )


def test_a_message_with_replies_under_it_is_deleted_by_a_tombstone() -> None:
    tombstone = {"subtype": "tombstone", "ts": "1.0", "thread_ts": "1.0", "user": "USLACKBOT"}
    gone = event(subtype="message_changed", message=tombstone, previous_message={"text": "hi"})
    assert convert.parse_event(gone, BOT) == MessageDeleted(
        ThreadKey("slack", "T1", "C1", "1.0"), "1.0"
    )


def test_a_message_without_text_says_nothing() -> None:
    assert said(text=None, files=[{"id": "F1"}]).text == ""


def test_slacks_stop_button_names_its_streams() -> None:
    pressed = event(type="agent_session_stopped", thread_ts="1.0", streaming_message_ts=["2.0"])
    key = ThreadKey("slack", "T1", "C1", "1.0")
    assert convert.parse_event(pressed, BOT) == SessionStopped(key, "U1", ("2.0",))


@given(
    st.dictionaries(
        st.sampled_from(["ts", "channel", "user", "text"]), st.none() | st.text("aé 3.\n")
    )
)
def test_a_payload_of_any_shape_is_parsed_or_malformed(changes: dict[str, Any]) -> None:
    try:
        convert.parse_event(event(**changes), BOT)
    except Malformed as error:
        assert str(error) in changes  # noqa: PT017 -- either is right


@pytest.mark.parametrize(
    ("raw", "readable"),
    [
        ("<@UBOT> こんにちは", "こんにちは"),
        ("<@UBOT>, hi", "hi"),
        ("<@UBOT>、こんにちは", "こんにちは"),
        ("hi <@UBOT>!", "hi!"),
        ("hi <@UBOT>　there", "hi there"),
        ("<@UBOT>さん、こんにちは", "こんにちは"),
        ("<@UBOT> さん　質問です", "質問です"),
        ("<@UBOT> さんまの焼き方は？", "さんまの焼き方は？"),
        ("ありがとう<@UBOT>さん！", "ありがとう！"),
        ("hi <@U2>, hi <@U3>", "hi @花子, hi @U3"),
        ("see <#C1|general>", "see #general"),
        ("<!here> <!subteam^S1|@team>", "@here @team"),
        ("in <#C1|> or <#C2>", "in #C1 or #C2"),
        ("<!date^1392734382^{date_short}|Feb 18, 2014> it is", "Feb 18, 2014 it is"),
        ("<https://a.example/x|a.example/x>", "a.example/x"),
        ("<https://a.example|this>", "this (https://a.example)"),
        ("<https://a.example>", "https://a.example"),
        ("<https://a.example/guide/install|guide>", "guide (https://a.example/guide/install)"),
        ("<https://a.example/|a.example>", "a.example"),
        ("<!subteam^S1>", "@S1"),
        (
            "<ftp://a.example/f|the file> <slack://open>",
            "the file (ftp://a.example/f) slack://open",
        ),
        ("<tel:+8190|090> <tel:+8190> <mailto:a@b.c>", "090 +8190 a@b.c"),
        ("<!date^1392734382^{date_short}>", "2014-02-18 14:39 UTC"),
        ("<not markup> <>", "<not markup> <>"),
        ("1 &lt; 2 &amp;&amp; 3 &gt; 2", "1 < 2 && 3 > 2"),
        ("&lt;@U2&gt;", "<@U2>"),
        ("```\nif x:\n    y\n```", "```\nif x:\n    y\n```"),
    ],
)
def test_markup_is_read_as_people_see_it(raw: str, readable: str) -> None:
    assert convert.readable(raw, BOT, {"U2": "花子"}) == readable


def test_a_message_is_identified_by_its_event_and_an_edit_by_its_timestamp() -> None:
    first = convert.incoming(
        said(), BOT, {"U1": "花子"}, addressed=True, stranger=False, note={"locale": "ja"}
    )
    assert (first.event_ids, first.revision, first.turn.name) == (("Ev1",), "", "花子")
    later = convert.incoming(
        said(edited={"ts": "3.0"}), BOT, {}, addressed=True, stranger=False, note={"locale": "ja"}
    )
    assert (later.event_ids, later.revision) == ((), "3.0")


@pytest.mark.parametrize("word", ["reset", "Reset.", "<@UBOT> リセット", "<@UBOT>, reset!"])
def test_a_text_command_is_the_whole_message(word: str) -> None:
    assert convert.text_command(said(text=word), BOT) == "reset"
    assert convert.text_command(said(text=f"{word} the router"), BOT) is None


def test_a_threads_past_is_people_bots_and_the_bots_own_replies() -> None:
    def turn(message: convert.Json) -> Turn | None:
        found = convert.earlier(message, KEY, BOT, {}, stranger=False)
        return found.turn if found else None

    person = {"ts": "1.0", "user": "U1", "text": "hi"}
    assert turn(person) is not None
    reply = {
        "ts": "1.1",
        "user": "UBOT",
        "text": "hello",
        "metadata": {"event_type": "henji_reply"},
    }
    own = turn(reply)
    assert own is not None
    assert own.role == "assistant"
    markup = turn(reply | {"text": "1 &lt; 2 <@\u2060U1>"})
    assert markup is not None
    assert markup.text == "1 < 2 <@U1>"
    assert turn({"ts": "1.2", "user": "UBOT", "text": "Something went wrong"}) is None
    other = turn({"ts": "1.3", "bot_id": "B2", "text": "The build is broken"})
    assert other is not None
    assert (other.role, other.author) == ("user", "B2")


@pytest.mark.parametrize(
    ("user", "is_colleague"),
    [
        (User(team="T1"), True),
        (User(team="T2"), False),
        (User(team="T2", enterprise="E1"), True),
        (User(team="T2", enterprise="E2"), False),
        (User(team="T2", enterprise="E1", is_stranger=True), False),
        (User(), False),
    ],
)
def test_a_colleague_is_of_the_workspace_or_of_its_organization(
    user: User, is_colleague: bool
) -> None:
    assert user.belongs_to(replace(BOT, enterprise="E1")) is is_colleague


def test_a_button_value_names_reply_author_and_thread() -> None:
    handle = components.ReplyRef("f" * 24, "U1", ThreadKey("slack", "T1", "C1", "1.0"))
    assert components.ReplyRef.parse(str(handle)) == handle


def test_the_small_print_under_a_reply_is_none_of_its_words() -> None:
    delivery = Delivery("f" * 24, KEY, "1.0", "U1", token=1)
    done = Done("**「二」**です", "stop", Usage(1, 1))
    note = "The oldest 3 messages no longer fit."
    part = Part(0, "**「二」**です", last=True, note=note, end=done)
    blocks = components.reply(part, delivery, "a model", "en")
    message: dict[str, Any] = {"ts": "1.1", "user": "UBOT", "bot_id": "BBOT", "text": "…"}
    message |= {"blocks": blocks, "metadata": {"event_type": "henji_reply"}}
    found = convert.earlier(message, KEY, BOT, {}, stranger=False)
    assert found is not None
    assert found.turn.text == "**「二」**です"


@pytest.mark.parametrize(
    ("text", "to_others"),
    [
        ("<@UBOT> hi", False), ("<@U2> hi", True), ("<!subteam^S1|@ops> hi", True), ("hi", False),
        ("<!here> lunch?", True), ("<!channel|@channel> lunch?", True), ("<!everyone> hi", True),
        ("it was <!date^1392734382^{date_short}|Feb 18>", False),
    ],
)  # fmt: skip
def test_a_mention_of_a_person_or_of_a_group_is_to_others(text: str, to_others: bool) -> None:
    assert said(text=text).to_others is to_others


def test_pings_are_removed_and_growing_text_only_grows() -> None:
    text = "<!channel> <!here|x> <!everyone> <!subteam^S1> <@U1> <@W1> <!doctype html> a<b"
    safe = components.without_pings(text)
    assert not any(
        ping in safe for ping in ("<!channel", "<!here", "<!every", "<!sub", "<@U", "<@W")
    )
    assert "<!doctype html> a<b" in safe
    grown = [components.without_pings(text[:end]) for end in range(len(text) + 1)]
    assert all(after.startswith(before) for before, after in pairwise(grown))


def test_mentions_in_a_list_become_ids() -> None:
    assert convert.ids("<@U1> <@U2|taro>,U3").split() == ["U1", "U2", ",U3"]


@pytest.mark.parametrize("text", ["ask\u3000質問", "ask\n質問", " ask  質問 ", "ask\t質問"])
def test_a_command_and_its_text_may_be_split_by_any_space(text: str) -> None:
    body = {"command": "/henji", "text": text, "user_id": "U1", "team_id": "T1", "channel_id": "C1"}
    told = convert.parse_command(body)
    assert (told.word, told.rest) == ("ask", "質問")


def rich(*elements: dict[str, Any]) -> dict[str, Any]:
    return {"text": "raw", "blocks": [{"type": "rich_text", "elements": list(elements)}]}


def section(*elements: dict[str, Any], kind: str = "section", **more: Any) -> dict[str, Any]:
    return {"type": f"rich_text_{kind}", "elements": list(elements), **more}


def words(text: str, **style: bool) -> dict[str, Any]:
    return {"type": "text", "text": text, **({"style": style} if style else {})}


def test_rich_text_is_read_as_a_person_reads_it() -> None:
    message = rich(
        section({"type": "user", "user_id": "UBOT"}, words(" see "), words("x < 1", code=True)),
        section(section(words("one")), section(words("two", bold=True)), kind="list"),
        section(section(words("deep")), kind="list", style="ordered", indent=1, offset=2),
        section(words("said\nthat"), kind="quote"),
        section(words("if a:\n    b"), kind="preformatted"),
        section(
            {"type": "emoji", "name": "tada", "unicode": "1f389"},
            {"type": "emoji", "name": "our_own"},
            {"type": "link", "url": "https://a.example/x", "text": "here"},
            {"type": "broadcast", "range": "here"},
        ),
    )
    read = convert.readable(markdown.written(message), BOT, {})
    assert read.split("\n") == [
        "see `x < 1`", "- one", "- two", "  3. deep", "> said", "> that", "```", "if a:", "    b",
        "```", "🎉:our_own:here (https://a.example/x)@here",
    ]  # fmt: skip


def test_an_address_in_code_is_code() -> None:
    """Slack makes it a link, also there."""
    address: dict[str, Any] = {"type": "link", "url": "https://a.example/?x=1&y=2"}
    in_code = address | {"style": {"code": True}}
    message = rich(
        section(words("run "), words("curl ", code=True), in_code, words(" -v", code=True)),
        section(words("GET "), address, kind="preformatted"),
    )
    read = convert.readable(markdown.written(message), BOT, {})
    code = "`curl https://a.example/?x=1&y=2 -v`"
    assert read == f"run {code}\n```\nGET https://a.example/?x=1&y=2\n```"


def test_other_blocks_leave_the_text_as_it_is() -> None:
    assert markdown.written({"text": "hi", "blocks": [{"type": "section"}]}) == "hi"
    assert markdown.written(rich(section())) == "raw"


def nested(kind: str) -> dict[str, Any]:
    inner = section(words("deep"))
    for _ in range(3000):
        inner = {"type": kind, "elements": [inner]}
    return inner


@pytest.mark.parametrize(
    "part",
    [
        section(section(words("a")), kind="list", indent=float("inf")),
        section(section(words("a")), kind="list", style="ordered", offset=float("inf")),
        nested("rich_text_list"),
    ],
    ids=["too far right", "too high a number", "too deep"],
)
def test_blocks_that_cannot_be_shown_leave_the_text(part: dict[str, Any]) -> None:
    posted = convert.parse_event(event(**rich(part)), BOT)
    assert isinstance(posted, MessagePosted)
    assert posted.text == "raw"


def test_a_list_is_indented_as_deep_as_slack_shows_it() -> None:
    part = section(section(words("a")), kind="list", indent=10**6)
    posted = convert.parse_event(event(**rich(part)), BOT)
    assert isinstance(posted, MessagePosted)
    assert posted.text == f"{' ' * 16}- a"
