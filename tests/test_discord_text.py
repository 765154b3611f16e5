"""The text of Discord's messages for the model: the shapes are those of real ones."""

from __future__ import annotations

from typing import Any

import discord
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bots.discord import convert
from bots.discord.convert import Bot
from bots.discord.extract import files_of
from bots.discord.markdown import RULE, TABLE_WIDTH, rendered, width
from tests.local_discord import payloads as p

HENJI = p.user(p.BOT_ID, "Henji", bot=True)
BOB = p.user("700000000000000002", "Bob")
ALERTS = p.user("800000000000000001", "Watchtower", bot=True)
ME = Bot(int(p.BOT_ID))


STATE = discord.Client(intents=discord.Intents.none())._connection
STATE.user = discord.ClientUser(state=STATE, data=HENJI)  # type: ignore[arg-type]
DIRECT = discord.DMChannel(me=STATE.user, state=STATE, data=p.direct("5", BOB))  # type: ignore[arg-type]


def message(author: p.Payload, content: str = "", **more: Any) -> discord.Message:
    """A message as discord.py makes it of what the gateway sends."""
    body: Any = p.message(p.snowflake(), "5", author, content, **more)
    return discord.Message(state=STATE, channel=DIRECT, data=body)


def embed(**parts: Any) -> p.Payload:
    return {"type": "rich", **parts}


def field(name: str, value: str) -> p.Payload:
    return {"name": name, "value": value, "inline": True}


def snapshot(content: str = "", **more: Any) -> p.Payload:
    body = {"type": 0, "content": content, "embeds": [], "attachments": [], "components": []}
    body |= {"timestamp": "2026-01-01T00:00:00+00:00", "edited_timestamp": None, "flags": 0}
    return {"message": body | more}


def forward(*snapshots: p.Payload) -> p.Payload:
    reference = {"type": 1, "message_id": "9", "channel_id": "8", "guild_id": "7"}
    return {"message_snapshots": list(snapshots), "message_reference": reference}


def answering(author: p.Payload, content: str, **more: Any) -> p.Payload:
    return {"answers": p.message("42", "5", author, content, **more)}


GONE = {"type": 19, "message_reference": {"type": 0, "message_id": "1", "channel_id": "5"},
        "referenced_message": None}  # fmt: skip
FILE = {"id": "1", "filename": "trace.log", "size": 4, "url": "https://x", "proxy_url": "https://x"}

POLL = {
    "question": {"text": "Lunch?"}, "allow_multiselect": False, "layout_type": 1,
    "expiry": "2030-01-01T00:00:00+00:00",
    "answers": [
        {"answer_id": 1, "poll_media": {"text": "Curry", "emoji": {"id": None, "name": "🍛"}}},
        {"answer_id": 2, "poll_media": {"text": "Noodles"}},
    ],
}  # fmt: skip

PEOPLE: dict[str, tuple[p.Payload, str, str]] = {
    "words": ({}, "see there", "see there"),
    "a poll": ({"poll": POLL}, "", "[poll]\nLunch?\n- 🍛 Curry\n- Noodles"),
    "a poll that has ended": (
        {"poll": {**POLL, "results": {"is_finalized": True, "answer_counts": [
            {"id": 1, "count": 3, "me_voted": False}, {"id": 2, "count": 0, "me_voted": False}]}}},
        "", "[poll]\nLunch?\n- 🍛 Curry: 3\n- Noodles: 0",
    ),
    "a reply to a poll": (
        answering(BOB, "", poll=POLL), "which is cheaper?",
        "[in reply to Bob]\n> [poll]\n> Lunch?\n> - 🍛 Curry\n> - Noodles\n\nwhich is cheaper?",
    ),
    "the preview of a link": (
        {"embeds": [{"type": "link", "title": "A page", "description": "About it"}]},
        "https://example.com",
        "https://example.com",
    ),
    "a post that a site shows as rich": (
        {"embeds": [embed(title="A short post")]}, "https://example.com/1", "https://example.com/1",
    ),
    "a forward": (forward(snapshot("the disk is\nfull")), "",
                  "[forwarded]\n> the disk is\n> full"),
    "a forward of an alert": (
        forward(snapshot(embeds=[embed(title="Disk full", fields=[field("host", "db-1")])])), "",
        "[forwarded]\n> Disk full\n> host: db-1",
    ),
    "a forward without text": (forward(snapshot()), "", ""),
    "a forward of a forward": (forward(snapshot("", message_snapshots=[snapshot("deep")])), "", ""),
    "a reply to a person": (answering(BOB, "I restarted it"), "why?",
                            "[in reply to Bob]\n> I restarted it\n\nwhy?"),
    "a reply to the bot": (
        answering(HENJI, "Restart it.\n-# `a.txt`: not read"), "why?",
        "[in reply to Henji]\n> Restart it.\n\nwhy?",
    ),
    "a reply to an alert": (
        answering(ALERTS, "", embeds=[embed(title="Disk full")]), f"<@{p.BOT_ID}>",
        "[in reply to Watchtower]\n> [bot: Watchtower]\n> Disk full",
    ),
    "a reply to a file": (
        answering(BOB, "", attachments=[FILE]), "read it",
        "[in reply to Bob]\n> [file: trace.log]\n\nread it",
    ),
    "a reply to a deleted message": (
        GONE, "why?", "[in reply to a message that cannot be read]\n\nwhy?",
    ),
    "a bare mention as a reply to a deleted message": (GONE, f"<@{p.BOT_ID}>", ""),
    "a reply to a message that mentions the bot": (
        answering(BOB, f"<@{p.BOT_ID}> is down"), "is it?",
        "[in reply to Bob]\n> is down\n\nis it?",
    ),
}  # fmt: skip

BOTS: dict[str, tuple[p.Payload, str, str]] = {
    "words": ({}, "Deploy finished", "Deploy finished"),
    "an alert that fires": (
        {"embeds": [embed(
            title="[FIRING:1] HighLatency", description="p99 over 2 s on **api**",
            fields=[field("severity", "critical"), field("region", "tokyo")],
            footer={"text": "Watchtower · rule 7"},
        )]}, "",
        "[FIRING:1] HighLatency\np99 over 2 s on **api**\nseverity: critical\nregion: tokyo\n"
        "Watchtower · rule 7",
    ),
    "a build that failed": (
        {"embeds": [embed(author={"name": "team/app"}, title="Build 812 failed",
                          url="https://ci.example.com/812",
                          fields=[field("Branch", "main"), field("Step", "tests")])]},
        "",
        "team/app\nBuild 812 failed\nBranch: main\nStep: tests",
    ),
    "an issue that was opened": (
        {"embeds": [embed(author={"name": "kana"}, title="[app] Issue opened: #12 Login loops",
                          description="Steps:\n1. log in\n2. wait")]},
        "",
        "kana\n[app] Issue opened: #12 Login loops\nSteps:\n1. log in\n2. wait",
    ),
    "a calendar of several embeds": (
        {"embeds": [embed(title="10:00 Stand-up"), embed(title="14:00 Review")]}, "Today:",
        "Today:\n\n10:00 Stand-up\n\n14:00 Review",
    ),
    "a field without a name": (
        {"embeds": [embed(fields=[field("\u200b", "left"), field("right", "\u200b")])]}, "",
        "left\nright",
    ),
    "fifty fields": (
        {"embeds": [embed(fields=[field(f"f{n}", str(n)) for n in range(50)])]}, "",
        "\n".join(f"f{n}: {n}" for n in range(25)),
    ),
    "text in components": (
        {"flags": 1 << 15, "components": [
            {"type": 17, "id": 1, "components": [{"type": 10, "id": 2, "content": "# Backup"},
                                                 {"type": 10, "id": 3, "content": "took 4 min"}]}]},
        "", "# Backup\n\ntook 4 min",
    ),
    "a deploy in components": (
        {"flags": 1 << 15, "components": [
            {"type": 9, "id": 1, "components": [{"type": 10, "id": 2, "content": "## Deployed 4.2"},
                                                {"type": 10, "id": 3, "content": "by <@5>"}],
             "accessory": {"type": 2, "id": 4, "style": 5, "label": "Log", "url": "https://x.org"}},
            {"type": 14, "id": 5, "divider": True, "spacing": 1},
            {"type": 12, "id": 6, "items": [
                {"media": {"url": "https://x.org/a.png"}, "description": "errors [after]"},
                {"media": {"url": "https://x.org/g/latency.png?x=1"}}]}]},
        "",
        "## Deployed 4.2\n\nby @unknown-user\n\n[image: errors after]\n\n[image: latency.png]",
    ),
    "a file in components": (
        {"flags": 1 << 15, "components": [{"type": 13, "id": 1, "name": "trace`.log", "size": 4,
                                           "file": {"url": "attachment://trace.log"}}]},
        "", "[file: trace .log]",
    ),
    "a graph of an alert": (
        {"embeds": [embed(title="CPU above 90 %", image={"url": "https://x.org/render/cpu.png"})]},
        "", "CPU above 90 %\n[image: cpu.png]",
    ),
    "an event of a calendar, with its time": (
        {"embeds": [embed(title="Review", description="<t:1767348000:t>, room 4",
                          timestamp="2026-01-02T19:00:00+09:00", footer={"text": "Team"})]},
        "", "Review\n10:00 UTC, room 4\nTeam · 2026-01-02 10:00 UTC",
    ),
    "an uptime alert": (
        {"embeds": [embed(title="shop is down", timestamp="2026-01-02T10:04:00+00:00",
                          fields=[field("Check", "https://shop.example.com"),
                                  field("Reason", "`502`")])]},
        "",
        "shop is down\nCheck: https://shop.example.com\nReason: `502`\n2026-01-02 10:04 UTC",
    ),
    "an incident of a status page": (
        {"embeds": [embed(author={"name": "Status"}, title="Cards are slow",
                          description="**Investigating** - we look into it",
                          thumbnail={"url": "https://x.org/logo.png"})]},
        "", "Status\nCards are slow\n**Investigating** - we look into it",
    ),
    "a page to who is on call": (
        {"embeds": [embed(title="P1: db-1", fields=[field("Assigned", "<@&9> <#8>")])]},
        "<@&9> please look", "@unknown-role please look\n\nP1: db-1\n"
        "Assigned: @unknown-role #unknown",
    ),
    "a review of code": (
        {"embeds": [embed(author={"name": "kana"}, title="[app] Changes asked for: #31 Retry",
                          description="```diff\n- sleep(1)\n+ backoff()\n```")]},
        "",
        "kana\n[app] Changes asked for: #31 Retry\n```diff\n- sleep(1)\n+ backoff()\n```",
    ),
    "a pushed commit": (
        {"embeds": [embed(title="[app:main] 2 new commits",
                          description="[`1a2b3c4`](https://x.org/1) Fix retry - kana")]},
        "", "[app:main] 2 new commits\n[`1a2b3c4`](https://x.org/1) Fix retry - kana",
    ),
    "the answer to a command": ({"type": 20}, "Uptime: 3 days", "Uptime: 3 days"),
    "a webhook's own name": (
        {"webhook_id": "77", "author_": p.user("77", "Ledger")}, "Paid", "Paid",
    ),
    "nothing but a picture of a link": ({"embeds": [{"type": "image"}]}, "", ""),
    "a mention of the bot": ({}, f"<@{p.BOT_ID}> hello", "hello"),
    "an everyone ping": ({"mention_everyone": True}, "@everyone down", "@everyone down"),
}  # fmt: skip


@pytest.mark.parametrize("shape", PEOPLE)
def test_a_person_s_message_reads(shape: str) -> None:
    more, content, expected = PEOPLE[shape]
    assert convert.text_of(message(BOB, content, **more), ME) == expected


@pytest.mark.parametrize("shape", BOTS)
def test_a_bot_s_message_reads_with_its_name(shape: str) -> None:
    more, content, expected = BOTS[shape]
    author = more.pop("author_", ALERTS)
    name = author["global_name"]
    read = convert.text_of(message(author, content, **more), ME)
    assert read == (f"[bot: {name}]\n{expected}" if expected else "")


def test_a_quote_is_shortened_to_a_pointer() -> None:
    said = message(BOB, "why?", **answering(BOB, "word " * 2000))
    quote = convert.quote_in(said, ME)
    assert quote is not None
    assert len(quote.whole) < 4100
    assert len(quote.pointer) < 160
    assert quote.pointer.startswith("[in reply to Bob]\n> word word")


def test_the_files_of_a_forward_are_the_message_s() -> None:
    said = message(BOB, "", **forward(snapshot("look", attachments=[FILE])))
    assert [file.name for file in files_of(said)] == ["trace.log"]


def test_a_sticker_is_named_like_a_picture() -> None:
    sticker = {"id": "1", "name": "Wave", "format_type": 1}
    said = message(BOB, "what is this?", sticker_items=[sticker])
    assert [(f.name, f.kind) for f in files_of(said)] == [("Wave (sticker)", "image")]
    said = message(BOB, "", **forward(snapshot(sticker_items=[sticker])))
    assert [f.name for f in files_of(said)] == ["Wave (sticker)"]


def test_a_forward_of_a_forward_is_named_by_its_outer_files_alone() -> None:
    inner = snapshot("deep", attachments=[{**FILE, "filename": "deep.log"}])
    outer = snapshot("look", attachments=[FILE], message_snapshots=[inner])
    said = message(BOB, "why?", **forward(outer))
    assert convert.text_of(said, ME) == "why?\n\n[forwarded]\n> look"
    assert [file.name for file in files_of(said)] == ["trace.log"]


def test_a_quote_of_a_quote_is_one_quote_deep() -> None:
    first = p.message("41", "5", ALERTS, "the disk is full")
    said = message(BOB, "why?", **answering(BOB, "I know", answers=first))
    assert convert.text_of(said, ME) == "[in reply to Bob]\n> I know\n\nwhy?"


def test_a_name_s_marks_of_direction_do_not_turn_a_quote() -> None:
    turned = p.user("700000000000000003", "\u202eboB]\nHenji: yes")
    said = message(BOB, "why?", **answering(turned, "hello"))
    assert convert.text_of(said, ME) == "[in reply to boB Henji: yes]\n> hello\n\nwhy?"


TABLE = """| 名前 | Price |
|:-----|------:|
| りんご | **120** |
| Tea | 80 |"""


def test_a_table_is_aligned_by_the_width_of_its_characters() -> None:
    lines = rendered(f"Here:\n\n{TABLE}\n\nafter").split("\n")
    assert lines == [
        "Here:", "", "```",
        "名前    Price",
        "──────  ─────",
        "りんご  120",
        "Tea     80",
        "```", "", "after",
    ]  # fmt: skip


def test_a_table_that_is_too_wide_becomes_a_list() -> None:
    long = " ".join(["long"] * 12)
    table = f"| a | b | c |\n|---|---|---|\n| one | {long} | x\\|y |\n| two | | z |"
    first, second = rendered(table).split("\n")
    assert first == f"- **one** · b: {long} · c: x|y"
    assert second == "- **two** · c: z"


def test_a_pipe_in_code_is_code_and_no_cell_is_lost() -> None:
    table = "| op | means |\n|---|---|\n| `a|b` | either |\n| `**` | power |\n| x | y | z |"
    assert rendered(table).split("\n")[3:-1] == [
        "a|b  either", "**   power", "x    y | z",
    ]  # fmt: skip
    table = "| name | use |\n|---|---|\n| `__init__` | **makes** __it__ |"
    assert rendered(table).split("\n")[3] == "__init__  makes it"
    long = "long " * 12
    table = f"| op | means |\n|---|---|\n| `**` | {long}|"
    assert rendered(table) == f"- `**` · means: {long.strip()}"


def test_a_table_in_a_quote_or_a_list_is_aligned_there() -> None:
    quoted = "\n".join(f"> {line}" for line in TABLE.split("\n"))
    lines = rendered(f"> Prices:\n{quoted}\nafter").split("\n")
    assert lines[1:4] == ["> ```", "> 名前    Price", "> ──────  ─────"]
    assert lines[-2:] == ["> ```", "after"]
    nested = "\n".join(f"    {line}" for line in TABLE.split("\n"))
    assert rendered(f"- Prices:\n\n{nested}").split("\n")[2:4] == ["```", "名前    Price"]


def test_a_table_within_code_stays_as_it_is() -> None:
    assert rendered(f"```\n{TABLE}\n```") == f"```\n{TABLE}\n```"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("#### Title", "**Title**"),
        ("###### Title ##", "**Title**"),
        ("### Title", "### Title"),
        ("> ##### Title", "> **Title**"),
        ("- #### Title", "- **Title**"),
        ("Title\n=====\ntext", "# Title\ntext"),
        ("a == b\n- c\n===", "a == b\n- c\n==="),
        ("> ---", f"> {RULE}"),
        ("one<BR>two", "one\ntwo"),
        ("[![built](https://x.org/b.png)](https://x.org)", "[built](https://x.org)"),
        ("> ~~~py\n> x\n> ~~~", "> ```py\n> x\n> ```"),
        ("```py\na = '```'\n#### b\n```", "```py\na = '``\u200b`'\n#### b\n```"),
        ("a\n\n---\nb", f"a\n\n{RULE}\nb"),
        ("* * *", RULE),
        ("- one\n- two", "- one\n- two"),
        ("one<br>two<br/>three", "one\ntwo\nthree"),
        ("`one<br>two`", "`one<br>two`"),
        ("![a cat](https://x.org/c.png)", "[a cat](https://x.org/c.png)"),
        ("![](https://x.org/c.png)", "https://x.org/c.png"),
        (r"so \(x^2\) and $a_1 + b$ hold", "so `x^2` and `a_1 + b` hold"),
        ("it costs $5 or $6, from $7 to $8", "it costs $5 or $6, from $7 to $8"),
        ("$$x = 1$$", "`x = 1`"),
        ("$$\nx = 1\n$$", "```latex\nx = 1\n```"),
        ("$$x = 1\n+ 2$$\nso", "```latex\nx = 1\n+ 2\n```\nso"),
        ("\\[ a\n= b\n\\]", "```latex\n a\n= b\n```"),
        (
            "$$\\begin{aligned}\na\n\\end{aligned}$$",
            "```latex\n\\begin{aligned}\na\n\\end{aligned}\n```",
        ),
        ("\\begin{align*}\na\n\\end{align*}", "```latex\n\\begin{align*}\na\n\\end{align*}\n```"),
        ("it costs $$5\nand $$6", "it costs $$5\nand $$6"),
        ("$$x\nis open", "$$x\nis open"),
        ("\\[\nx = 1", "\\[\nx = 1"),
        ("````md\n```py\nx\n```\n````", "```md\n``\u200b`py\nx\n``\u200b`\n```"),
        ("```py\na = '``````'\n```", "```py\na = '``\u200b``\u200b``'\n```"),
        ("~~~py\nx # ####\n~~~", "```py\nx # ####\n```"),
        ("```\n#### x\n---\n<br>\n```", "```\n#### x\n---\n<br>\n```"),
        ("a | b", "a | b"),
        ("so:\n\n    a = __b__\n\n      # c\n\nend", "so:\n\n```\na = __b__\n\n  # c\n```\n\nend"),
        ("- one\n    - two\n\n      more", "- one\n    - two\n\n      more"),
        ("- one\n\n\t    x = *y", "- one\n\n```\nx = *y\n```"),
        (">one\n>\n>- two", "> one\n> \n> - two"),
        (">>> all\nrest", ">>> all\nrest"),
        (">_< and >= 5\n>= 5", ">_< and >= 5\n>= 5"),
        (">```py\n>x = {}\n>{}\n>```\n>so", "> ```py\n> x = {}\n> {}\n> ```\n> so"),
        ("```\n>x\n```", "```\n>x\n```"),
        ("#### C#", "**C#**"),
        ("## F#", "## F#\u200b"),
        ("## Title ##", "## Title ##"),
        ("- ### About C#", "- ### About C#\u200b"),
        ("``` python\nx\n```", "```python\nx\n```"),
        ("[https://x.org/a](https://x.org/a)です", "<https://x.org/a>です"),
        (
            "[x.org](https://x.org/) and [**b**](https://x.org 'c')",
            "[x.org](https://x.org/) and [**b**](https://x.org 'c')",
        ),
        ("[see https://x.org](https://y.org)", "see https://x.org (<https://y.org>)"),
        (
            "[a `b`](https://x.org) ![c `d`](https://x.org)",
            "[a `b`](https://x.org) [c `d`](https://x.org)",
        ),
        ("詳細はhttps://x.org/a_bを、", "詳細は<https://x.org/a_b>を、"),
        (
            "（https://x.org/a(b)）と(https://x.org)です",
            "（<https://x.org/a(b)>）と(<https://x.org>)です",
        ),
        (
            "**https://x.org/a**を見て https://y.org 。",
            "**<https://x.org/a>**を見て https://y.org 。",
        ),
        (
            "https://ja.wikipedia.org/wiki/お茶 https://x.org/東京を見る",
            "https://ja.wikipedia.org/wiki/お茶 <https://x.org/東京>を見る",
        ),
        (
            "`https://x.orgを` <https://x.org>を [a](https://x.org)を",
            "`https://x.orgを` <https://x.org>を [a](https://x.org)を",
        ),
        ("[[1]](https://x.org/a)、次に", "[[1]](https://x.org/a)、次に"),
        ("https://a.orgとhttps://b.org/?c=d#eが", "<https://a.org>と<https://b.org/?c=d#e>が"),
    ],
)
def test_markdown_that_discord_does_not_show_is_replaced(text: str, shown: str) -> None:
    assert rendered(text) == shown


odd = [
    ">one",
    ">",
    ">```",
    "## C#",
    "[https://x.y](https://x.y)と",
    "（https://x.y）",
    "===",
    "> #### b",
    "> | a | b |",
    "> |---|---|",
    "- #### c",
    "| `a|b` | ** | c |",
    "~~~",
]
pieces = st.sampled_from(
    [*TABLE.split("\n"), "#### a", "---", "word", "$$", "<br>", "", "> ~~~", "```", "> ```", *odd]
)


@given(st.lists(pieces, max_size=20))
@example(["$$", "~~~", "$$", "#### a"])
@example(["---", "==="])
def test_rendering_twice_is_rendering_once(lines: list[str]) -> None:
    once = rendered("\n".join(lines))
    assert rendered(once) == once


@given(st.lists(st.lists(st.text("aあ|😀 ", max_size=12), min_size=2, max_size=4), min_size=1))
def test_no_table_is_wider_than_a_code_block(rows: list[list[str]]) -> None:
    head = "| " + " | ".join("h" for _ in rows[0]) + " |"
    rule = "|" + "---|" * len(rows[0])
    table = [head, rule, *("| " + " | ".join(row) + " |" for row in rows)]
    lines = rendered("\n".join(table)).split("\n")
    if lines[0] == "```":
        assert all(width(line) <= TABLE_WIDTH for line in lines)
