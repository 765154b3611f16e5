"""What Discord does not show becomes what it does, and code is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bots.discord.markdown import RULE, TABLE_WIDTH, rendered, width

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


def test_a_table_within_code_stays_as_it_is() -> None:
    assert rendered(f"```\n{TABLE}\n```") == f"```\n{TABLE}\n```"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("#### Title", "**Title**"),
        ("###### Title ##", "**Title**"),
        ("### Title", "### Title"),
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
        ("\\[\nx = 1", "\\[\nx = 1"),
        ("````md\n```py\nx\n```\n````", "```md\n``\u200b`py\nx\n``\u200b`\n```"),
        ("~~~py\nx # ####\n~~~", "```py\nx # ####\n```"),
        ("```\n#### x\n---\n<br>\n```", "```\n#### x\n---\n<br>\n```"),
        ("a | b", "a | b"),
    ],
)
def test_markdown_that_discord_does_not_show_is_replaced(text: str, shown: str) -> None:
    assert rendered(text) == shown


pieces = st.sampled_from([*TABLE.split("\n"), "#### a", "---", "word", "$$", "<br>", ""])


@given(st.lists(pieces, max_size=20))
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
