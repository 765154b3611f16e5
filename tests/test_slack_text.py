"""The text of Slack's messages for the model: the shapes are those of real ones."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from bots.commonmark import mended
from bots.markdown import ZERO_WIDTH_SPACE
from bots.slack import convert
from bots.slack.convert import Bot, MessagePosted
from bots.slack.markdown import has_table, settled, without_margins
from bots.text import closed, split
from core.types import ThreadKey

BOT = Bot("T1", "U0HENJI", "B0HENJI")
NAMES = {"U1": "Hana", "U2": "Bob"}
THREAD = ThreadKey("slack", "T1", "C1", "1.0")


def mrkdwn(text: str) -> dict[str, str]:
    return {"type": "mrkdwn", "text": text}


def plain(text: str) -> dict[str, str]:
    return {"type": "plain_text", "text": text}


def rich(text: str) -> dict[str, Any]:
    said = {"type": "rich_text_section", "elements": [{"type": "text", "text": text}]}
    return {"type": "rich_text", "elements": [said]}


def share(text: str, **more: Any) -> dict[str, Any]:
    made = {"is_share": True, "is_msg_unfurl": True, "author_name": "Bob", "text": text}
    return made | {"channel_id": "C2", "ts": "3.0", "footer": "Posted in #ops"} | more


def raw(text: str) -> dict[str, str]:
    return {"type": "raw_text", "text": text}


PRICES = {"type": "table", "rows": [
    [raw("Name"), raw("Price")],
    [{"type": "rich_text", "elements": rich("Tea &\nmilk")["elements"]},
     {"type": "raw_number", "value": 80}],
    [raw(""), raw("<none>")], [raw(""), raw("")], []]}  # fmt: skip
AS_TEXT = "Name | Price\nTea & milk | 80\n | <none>"


PEOPLE: dict[str, tuple[dict[str, Any], str]] = {
    "a table that is pasted": (
        {"text": "<@U0HENJI> which is cheapest?", "blocks": [rich("which is cheapest?")],
         "attachments": [{"id": 1, "fallback": "[no preview available]", "blocks": [PRICES]}]},
        f"which is cheapest?\n\n{AS_TEXT}",
    ),
    "a table alone": (
        {"text": "", "attachments": [{"fallback": "[no preview available]", "blocks": [PRICES]}]},
        AS_TEXT,
    ),
    "a table among the blocks": (
        {"text": "which?", "blocks": [rich("which?"), PRICES]}, f"which?\n{AS_TEXT}",
    ),
    "the preview of a link that has a table": (
        {"text": "<https://example.com>",
         "attachments": [{"from_url": "https://example.com", "blocks": [PRICES]}]},
        "https://example.com",
    ),
    "a forward of a table": (
        {"text": "", "attachments": [share("", message_blocks=[
            {"message": {"blocks": [rich("prices"), PRICES]}}])]},
        "[forwarded from Bob]\n> prices\n> Name | Price\n> Tea & milk | 80\n>  | <none>",
    ),
    "words": ({"text": "see &lt;there&gt; <@U2>"}, "see <there> @Bob"),
    "rich text": ({"text": "fallback", "blocks": [rich("it is & was")]}, "it is & was"),
    "the preview of a link": (
        {"text": "<https://example.com>",
         "attachments": [{"title": "A page", "text": "About it", "from_url": "https://example.com"}]},
        "https://example.com",
    ),
    "a forward without a comment": (
        {"text": "", "attachments": [share("the disk is\nfull")]},
        "[forwarded from Bob]\n> the disk is\n> full",
    ),
    "a forward with a comment": (
        {"text": "<@U0HENJI> why?", "attachments": [share("the disk is full")]},
        "why?\n\n[forwarded from Bob]\n> the disk is full",
    ),
    "a forward of blocks": (
        {"text": "", "attachments": [share("", message_blocks=[
            {"team": "T1", "channel": "C2", "ts": "3.0",
             "message": {"blocks": [{"type": "header", "text": plain("Disk full")},
                                    {"type": "section", "text": mrkdwn("host *db-1*")}]}}])]},
        "[forwarded from Bob]\n> Disk full\n> host *db-1*",
    ),
    "a forward that mentions the bot": (
        {"text": "look", "attachments": [share("<@U0HENJI> is down")]},
        "look\n\n[forwarded from Bob]\n> is down",
    ),
    "a forward without text": ({"text": "", "attachments": [share("")]}, ""),
    "a forward of nobody that is known": (
        {"text": "", "attachments": [share("hello", author_name="")]}, "[forwarded]\n> hello",
    ),
    "a link with names that HTML knows": (
        {"text": "fallback", "blocks": [{"type": "rich_text", "elements": [
            {"type": "rich_text_section", "elements": [
                {"type": "text", "text": "see &copy "},
                {"type": "link", "url": "https://x.org/?a=1&region=jp&timestamp=3"},
                {"type": "link", "url": "https://x.org/a|b?c&not=1", "text": "here > there"}]}]}]},
        "see &copy https://x.org/?a=1&region=jp&timestamp=3"
        "here > there (https://x.org/a%7Cb?c&not=1)",
    ),
    "parts that lack what they should have": (
        {"text": "fallback", "files": [None], "attachments": [None, {"is_share": True}], "blocks": [
            None, {"type": "rich_text", "elements": [None, {
                "type": "rich_text_section", "elements": [
                    None, {"type": "text", "text": "hello"}, {"type": "user"}, {"type": "link"},
                    {"type": "channel", "channel_id": None}]}]}]},
        "hello<>",
    ),
    "code in the items of lists": (
        {"text": "fallback", "blocks": [{"type": "rich_text", "elements": [
            {"type": "rich_text_list", "style": "ordered", "offset": 1, "elements": [
                {"type": "rich_text_section", "elements": [
                    {"type": "text", "text": "run", "style": {"bold": True}},
                    {"type": "text", "text": " it:"},
                    {"type": "rich_text_preformatted", "elements": [
                        {"type": "text", "text": "a = `b`\nif a:\n    c"}]}]},
                {"type": "rich_text_preformatted", "elements": [
                    {"type": "text", "text": "```\nd\n```"}]},
                {"type": "rich_text_quote", "elements": [{"type": "text", "text": "e"}]},
                {"type": "rich_text_section", "elements": [
                    {"type": "text", "text": "f", "style": {"code": True}},
                    {"type": "text", "text": "`", "style": {"code": True, "bold": True}},
                    {"type": "text", "text": " and\nmore"}]}]}]}]},
        "2. run it:\n   ```\n   a = `b`\n   if a:\n       c\n   ```\n"
        "3. ````\n   ```\n   d\n   ```\n   ````\n4. > e\n5. `` f` `` and\n   more",
    ),
    "a kind of list that is not known": (
        {"text": "what is *this*?", "blocks": [{"type": "rich_text", "elements": [
            {"type": "rich_text_list", "indent": "deep", "elements": []}]}]},
        "what is *this*?",
    ),
    "a name that tries to be markup": (
        {"text": "", "attachments": [share("hello", author_name="<!channel>] x & y")]},
        "[forwarded from !channel x & y]\n> hello",
    ),
}  # fmt: skip

BOTS: dict[str, tuple[dict[str, Any], str]] = {
    "words": ({"text": "Deploy finished &amp; checked"}, "Deploy finished & checked"),
    "an alert in legacy attachments": (
        {"text": "", "attachments": [
            {"fallback": "[FIRING] HighLatency", "title": "[FIRING:1] HighLatency",
             "title_link": "https://alerts.example.com", "text": "p99 over 2 s on *api*",
             "fields": [{"title": "severity", "value": "critical", "short": True},
                        {"title": "region", "value": "tokyo", "short": True}],
             "footer": "rule 7"}]},
        "[FIRING:1] HighLatency\np99 over 2 s on *api*\nseverity: critical\nregion: tokyo\nrule 7",
    ),
    "an attachment that has only a fallback": (
        {"text": "", "attachments": [{"fallback": "Disk 91 % on db-1"}]}, "Disk 91 % on db-1",
    ),
    "a build in blocks": (
        {"text": "Build 812 failed", "blocks": [
            {"type": "header", "text": plain("Build 812 failed <main>")},
            {"type": "section", "text": mrkdwn("*Step*: tests"),
             "fields": [mrkdwn("*Branch*\nmain"), plain("4 min & 2 s")]},
            {"type": "divider"},
            {"type": "context", "elements": [mrkdwn("by <@U1>"), plain("10:04")]},
            {"type": "actions", "elements": [{"type": "button", "text": plain("Retry")}]}]},
        "Build 812 failed <main>\n*Step*: tests\n*Branch*\nmain\n4 min & 2 s\nby @Hana 10:04",
    ),
    "an issue in an attachment with blocks": (
        {"text": "", "attachments": [{"color": "#36a64f", "fallback": "[no preview available]",
         "blocks": [{"type": "section",
                     "text": mrkdwn("<https://bugs.example.com/12|#12> Login loops")}]}]},
        "#12 (https://bugs.example.com/12) Login loops",
    ),
    "a calendar in rich text": (
        {"text": "Today", "blocks": [rich("10:00 Stand-up"), rich("14:00 Review")]},
        "10:00 Stand-up\n14:00 Review",
    ),
    "a summary in Markdown": (
        {"text": "Summary",
         "blocks": [{"type": "markdown", "text": "# Week 3\n\n- **2** < 3 bugs"}]},
        "# Week 3\n\n- **2** < 3 bugs",
    ),
    "a chart": (
        {"text": "Chart",
         "blocks": [{"type": "image", "image_url": "https://x", "alt_text": "CPU by host"}]},
        "[image: CPU by host]",
    ),
    "blocks without a word": (
        {"text": "Retry?", "blocks": [{"type": "actions", "elements": []}]}, "Retry?",
    ),
    "words and an attachment": (
        {"text": "New ticket", "attachments": [{"pretext": "From the form", "title": "Printer",
                                                "text": "It is out of ink"}]},
        "New ticket\n\nFrom the form\nPrinter\nIt is out of ink",
    ),
    "fifty fields and more": (
        {"text": "",
         "attachments": [{"fields": [{"title": f"f{n}", "value": str(n)} for n in range(60)]}]},
        "\n".join(f"f{n}: {n}" for n in range(50)),
    ),
    "an attachment without a preview": (
        {"text": "", "attachments": [{"fallback": "[no preview available]"}]}, "",
    ),
    "a graph of an alert, with its time": (
        {"text": "", "attachments": [
            {"title": "CPU above 90 %", "image_url": "https://x.example.com/g/cpu%3E.png?at=1",
             "footer": "Watchtower", "ts": 1767348000}]},
        "CPU above 90 %\n[image: cpu%3E.png]\nWatchtower · 2026-01-02 10:00 UTC",
    ),
    "a time that is none": (
        {"attachments": [{"title": "Up", "ts": "soon"}, {"title": "Down", "ts": 1e300}]},
        "Up\n\nDown",
    ),
    "an uptime alert": (
        {"text": "Down", "blocks": [
            {"type": "alert", "level": "error", "text": mrkdwn("*shop* is down")},
            {"type": "card", "title": mrkdwn("shop.example.com"), "subtitle": plain("since 10:04"),
             "body": mrkdwn("HTTP 502 from &lt;2 regions&gt;"),
             "actions": [{"type": "button", "text": plain("Acknowledge")}]}]},
        "*shop* is down\nshop.example.com\nsince 10:04\nHTTP 502 from <2 regions>",
    ),
    "a deploy with a table of its services": (
        {"text": "Deployed", "blocks": [{"type": "header", "text": plain("Deployed 4.2")}, PRICES]},
        f"Deployed 4.2\n{AS_TEXT}",
    ),
    "a status page in containers": (
        {"text": "Status", "blocks": [
            {"type": "container", "title": plain("Payments"), "subtitle": mrkdwn("_degraded_"),
             "child_blocks": [{"type": "section", "text": mrkdwn("Cards are slow")},
                              {"type": "alert", "text": plain("next news at 11:00")}]},
            {"type": "container", "title": plain("unseen"), "rich_text_title": rich("Mail"),
             "child_blocks": []},
            {"type": "carousel", "elements": [{"type": "card", "title": mrkdwn("Search: up")}]}]},
        "Payments\n_degraded_\nCards are slow\nnext news at 11:00\nMail\nSearch: up",
    ),
    "the plan of another agent": (
        {"text": "Plan", "blocks": [{"type": "plan", "title": "Restore db-1", "tasks": [
            {"type": "task_card", "task_id": "1", "title": "Find a backup", "status": "complete",
             "details": rich("of today"), "output": rich("3 found")}]}]},
        "Restore db-1\nFind a backup\nof today\n3 found",
    ),
    "a recording in a review": (
        {"text": "Demo", "blocks": [{"type": "video", "title": plain("Demo of #12"),
         "alt_text": "a demo", "description": plain("the new login")}]},
        "[video: Demo of #12]\nthe new login",
    ),
    "a poll to choose from": (
        {"text": "Lunch?", "blocks": [
            {"type": "input", "label": plain("Lunch?"), "element": {"type": "radio_buttons",
             "options": [{"text": plain("Curry"), "value": "1"},
                         {"text": plain("Soup & bread"), "value": "2"}]}},
            {"type": "section", "text": mrkdwn("*With*"), "accessory": {"type": "checkboxes",
             "options": [{"text": mrkdwn("_rice_"), "value": "3"}]}},
            {"type": "actions", "elements": [{"type": "button", "text": plain("Send")}]}]},
        "Lunch?\nCurry\nSoup & bread\n*With*\n_rice_",
    ),
    "an address in an attachment that nobody escaped": (
        {"text": "", "attachments": [{"text": "https://x.org/?a=1&copy=2 &amp; more"}]},
        "https://x.org/?a=1&copy=2 & more",
    ),
    "an attachment that cannot be read": (
        {"text": "Down", "attachments": [{"fallback": "db-1 is down", "fields": [7]}]},
        "Down\n\ndb-1 is down",
    ),
    "an attachment of another bot with nothing": ({"text": "", "attachments": [{"id": 1}]}, ""),
}  # fmt: skip


def posted(message: dict[str, Any]) -> MessagePosted:
    event = {"type": "message", "channel": "C1", "ts": "2.0", "thread_ts": "1.0", **message}
    found = convert.parse_event({"event": event}, BOT)
    assert isinstance(found, MessagePosted)
    return found


def read_twice(message: dict[str, Any]) -> str:
    """What is read of a message as it comes; of the past it must read the same."""
    made = {"addressed": False, "note": {}, "stranger": False}
    live = convert.incoming(posted(message), BOT, NAMES, **made).turn.text  # type: ignore[arg-type]
    said = {"type": "message", "ts": "2.0", **message}
    past = convert.earlier(said, THREAD, BOT, NAMES, stranger=False)
    assert live == (past.turn.text if past else "")
    return live


@pytest.mark.parametrize("shape", PEOPLE)
def test_a_person_s_message_reads(shape: str) -> None:
    message, expected = PEOPLE[shape]
    assert read_twice({"user": "U1", **message}) == expected


@pytest.mark.parametrize("shape", BOTS)
def test_a_bot_s_message_reads_with_its_name(shape: str) -> None:
    message, expected = BOTS[shape]
    by = {"subtype": "bot_message", "bot_id": "B9", "username": "Watchtower"}
    assert read_twice({**by, **message}) == (f"[bot: Watchtower]\n{expected}" if expected else "")


def test_a_bot_is_named_by_its_profile_or_by_its_id() -> None:
    profile = {"user": "U9", "bot_id": "B9", "bot_profile": {"name": "Ledger"}, "text": "Paid"}
    assert read_twice(profile) == "[bot: Ledger]\nPaid"
    assert read_twice({"bot_id": "B9", "text": "Paid"}) == "[bot: B9]\nPaid"


def test_a_mention_inside_a_forwarded_message_is_ignored() -> None:
    message = {"user": "U1", "text": "look", "attachments": [share("<@U0HENJI> is down")]}
    assert not posted(message).mentioned


def test_an_alert_that_is_resolved_is_an_edit() -> None:
    def alert(text: str) -> dict[str, Any]:
        by = {"user": "U9", "bot_id": "B9", "ts": "2.0", "text": ""}
        return {**by, "attachments": [{"text": text}]}

    changed: dict[str, Any] = {"type": "message", "subtype": "message_changed", "channel": "C1"}
    changed |= {"message": {**alert("resolved"), "edited": {"ts": "3.0"}}}
    changed |= {"previous_message": alert("firing")}
    found = convert.parse_event({"event": changed}, BOT)
    assert isinstance(found, convert.MessageEdited)
    assert convert.whole_text(found.posted, BOT, {}) == "[bot: U9]\nresolved"


def test_the_files_of_a_forward_are_the_message_s() -> None:
    file = {"id": "F1", "name": "trace.log", "url_private": "https://files.slack.com/x"}
    found = posted({"user": "U1", "text": "", "attachments": [share("look", files=[file])]})
    assert [file.name for file in found.files] == ["trace.log"]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ({"mimetype": "application/vnd.slack-docs", "filetype": "quip", "mode": "quip",
          "name": "Sprint_notes", "title": "Sprint notes"}, "Sprint notes"),
        ({"mimetype": "application/vnd.slack-docs", "name": "plan.md", "title": ""}, "plan.md"),
        ({"mimetype": "text/plain", "filetype": "space", "mode": "space", "name": "-",
          "title": "Old post"}, "Old post"),
        ({"mimetype": "application/vnd.slack-list", "filetype": "list", "title": "Tasks"}, "Tasks"),
    ],
)  # fmt: skip
def test_slack_s_own_documents_are_named_by_their_title_and_never_read(
    file: dict[str, str], name: str
) -> None:
    """Behind their addresses are pages of HTML."""
    found = {"id": "F1", "url_private_download": "https://files.slack.com/x", **file}
    (read,) = posted({"user": "U1", "text": "look", "files": [found]}).files
    assert (read.name, read.kind) == (name, "other")


COMMON_MARK = MarkdownIt("commonmark").enable("strikethrough")


def bold(text: str) -> list[str]:
    """The bold parts of a text, as a CommonMark parser sees them."""
    found: list[str] = []
    for block in COMMON_MARK.parse(text):
        depth = 0
        for token in block.children or ():
            if token.type == "strong_open":
                depth += 1
                found.append("")
            elif token.type == "strong_close":
                depth -= 1
            elif depth and token.type in ("text", "code_inline"):
                found[-1] += token.content
    return [part.replace(ZERO_WIDTH_SPACE, "") for part in found]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("**「先端」**のが重要", ["「先端」"]),
        ("**重要。**次に", ["重要。"]),
        ("**注意：**保存", ["注意："]),
        ("**(例)**です", ["(例)"]),
        ("これは**「先端」**です", ["「先端」"]),
        ("- **項目：**説明", ["項目："]),
        ("- 上\n    - **「深い」**項目", ["「深い」"]),
        ("**「一」**と**「二」**と", ["「一」", "「二」"]),
        ("a **bold** word", ["bold"]),
        ("詳しくは[こちら](https://example.com)**「重要」**です", ["「重要」"]),
        ("https://example.com/a`b`**「重要」**です", ["「重要」"]),
        ("これは***斜体*の100%**「引用」", ["斜体の100%"]),
        ("これは**(例)と*斜体***「引用」", ["(例)と斜体"]),
    ],
)
def test_bold_beside_japanese_is_bold(text: str, parts: list[str]) -> None:
    assert bold(mended(text)) == parts
    assert mended(text).replace(ZERO_WIDTH_SPACE, "") == text


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("*「強調」*です", "<em>「強調」</em>です"),
        ("これは~~「古い」~~です", "これは<s>「古い」</s>です"),
        ("***「両方」***です", "<em><strong>「両方」</strong></em>です"),
        ("価格*）と送料*）は別", "価格*）と送料*）は別"),
        ("5 * 3 * 2", "5 * 3 * 2"),
        ("* 項目", "<ul>\n<li>項目</li>\n</ul>"),
    ],
)
def test_other_emphasis_is_seen_and_footnotes_stay(text: str, html: str) -> None:
    seen = COMMON_MARK.render(mended(text)).replace(ZERO_WIDTH_SPACE, "").strip()
    assert seen.removeprefix("<p>").removesuffix("</p>") == html
    assert mended(text).replace(ZERO_WIDTH_SPACE, "") == text


WORDS = st.text("あ漢aZ1「」（）。、：!?()\"' ", min_size=1, max_size=8)
PIECES = st.lists(st.tuples(WORDS, st.sampled_from(("plain", "bold", "code"))), max_size=6)


def written(pieces: list[tuple[str, str]]) -> tuple[str, list[str]]:
    """A line of pieces, and those that a person means to be bold."""
    line, meant = "", []
    for words, kind in pieces:
        core = words.strip()
        if kind == "bold" and core:
            line += f"**{core}**"
            meant.append(core)
        elif kind == "code" and core:
            line += f"`**{core}**`"
        elif kind == "plain":
            line += f"、{words}" if line.endswith("*") else words
        line += "" if kind == "plain" else "と"
    return "文" + line, meant


@given(PIECES)
def test_all_that_is_meant_to_be_bold_is_bold_and_code_stays(pieces: list[tuple[str, str]]) -> None:
    line, meant = written(pieces)
    assert bold(mended(line)) == meant
    assert mended(line).replace(ZERO_WIDTH_SPACE, "") == line
    fenced = f"```\n{line}\n```"
    assert mended(fenced) == fenced


@given(PIECES, st.integers(0, 60))
def test_a_growing_line_only_grows(pieces: list[tuple[str, str]], at: int) -> None:
    line, _ = written(pieces)
    assert mended(line).startswith(mended(settled(line[:at])))


@given(st.text("*~`「」あa \n\\$[]()|-_"))
def test_no_text_loses_a_letter(text: str) -> None:
    letters = "あa「」"
    kept = [c for c in mended(text) if c in letters]
    assert kept == [c for c in text if c in letters]


def code_in(text: str) -> list[str]:
    """The inline code of a line, as a CommonMark parser sees it."""
    inline = COMMON_MARK.parse(f"x {text}")
    return [t.content for block in inline for t in block.children or () if t.type == "code_inline"]


LINES = st.sampled_from((
    "```", "```py", "~~~", "    ```", "> ```", "    x = '**「a」**b'", "- ", "    - ", "> ", "",
    "", "**「先端」**の", "`**「a」**b`", "``a`b``", "\\`", "- **「i」**の", "      **「d」**の",
    "word", "``` tail", "Here: ```py", "> **「q」**の", "1. a",
))  # fmt: skip


@given(st.lists(LINES, max_size=9))
def test_no_code_of_any_block_changes(lines: list[str]) -> None:
    text = "\n".join(lines)
    assume("- \n" not in text)  # an empty item is followed by code sooner
    assert code_of(mended(text)) == code_of(text)


LISTED = st.sampled_from((
    "word one", "- two\n- three", "```py\nfour\n    five\n```" , "1. six\n\n    ```py\n    seven\n"
    + "".join(f"      line{n}\n" for n in range(20)) + "    ```\n\n    " + "eight nine " * 30,
    "- a\n" + "".join(f"    - ten{n}\n        - twenty{n}\n" for n in range(20)),
))  # fmt: skip


@given(st.lists(LISTED, min_size=1, max_size=5), st.integers(150, 400))
def test_no_part_of_a_list_becomes_code(blocks: list[str], limit: int) -> None:
    text = "\n\n".join(blocks)
    parts = [closed(part) for part in without_margins(split(text, limit))]
    shown = " ".join(code_of(part) for part in parts)
    assert re.findall(r"\w+", shown) == re.findall(r"\w+", code_of(text))


def code_of(text: str) -> str:
    """The blocks of code in a text, as a CommonMark parser sees them."""
    kinds = ("fence", "code_block")
    return "".join(token.content for token in COMMON_MARK.parse(text) if token.type in kinds)


def test_a_table_is_one_outside_code_alone() -> None:
    table = "| a | b |\n|---|:-:|\n| 1 | 2 |"
    assert has_table(f"See:\n\n{table}")
    assert not has_table(f"```\n{table}\n```")
    assert not has_table("a | b\nand --- more")


@pytest.mark.parametrize(
    "text",
    [
        "> ~~~py\n> x = '**「a」**b'\n> ~~~",
        "```py\nprint('```')\nx = '**「a」**b'\n```",
        "[a](https://example.com)**「b」**c ``d`**「e」**f``",
    ],
)
def test_code_reads_the_same_to_a_common_mark_parser(text: str) -> None:
    def code(written: str) -> list[str]:
        blocks = [t for t in COMMON_MARK.parse(written) if t.type == "fence"]
        return [t.content for t in blocks] + code_in(written)

    assert code(mended(text)) == code(text) != []
