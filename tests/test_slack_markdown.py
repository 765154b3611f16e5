"""A model's Markdown in Slack: bold beside Japanese, formulas, tables, and code as it is."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from bots.slack.markdown import ZERO_WIDTH_SPACE, has_table, mended, settled

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
        ("    - **「深い」**項目", []),
        ("**「一」**と**「二」**と", ["「一」", "「二」"]),
        ("a **bold** word", ["bold"]),
    ],
)
def test_bold_beside_japanese_is_bold(text: str, parts: list[str]) -> None:
    seen = bold(f"- 上\n{mended(text)}" if text.startswith("    ") else mended(text))
    assert seen == (parts or ["「深い」"])
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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"面積は \(\pi r_1^2\) です", r"面積は `\pi r_1^2` です"),
        (r"$$a_1 + b_1$$ である", r"`a_1 + b_1` である"),
        ("\\[\nx_1 \\\\\ny\n\\]\nend", "```\nx_1 \\\\\ny\n```\nend"),
        ("$$\nx\n$$", "```\nx\n```"),
        ("`\\(x\\)`", "`\\(x\\)`"),
        ("costs $5 and $6", "costs $5 and $6"),
        (r"`f(x)` gives \(x_1\), `g` \(y_1\).", "`f(x)` gives `x_1`, `g` `y_1`."),
        (r"the code `\(x\)` is \(x\)", r"the code `\(x\)` is `x`"),
        (r"a lone ` before \(x_1\)", "a lone ` before ``x_1``"),
        (r"``a ` b`` and $$x_1$$", "``a ` b`` and `x_1`"),
        (r"\(x\)$$y$$`c`", "`x`\u200b`y`\u200b`c`"),
        (r"a `` b ` c \(x\) `", r"a `` b ` c \(x\) `"),
    ],
)
def test_formulas_stay_readable(text: str, expected: str) -> None:
    assert mended(text) == expected


@given(st.lists(st.sampled_from([r"\(x_1\)", "$$y$$", "`c`", "``c ` d``", "`", "a", " "])))
def test_formulas_beside_code_are_code_and_the_code_stays(parts: list[str]) -> None:
    line = "".join(parts)
    assume("```" not in line)  # a block of code may begin within a line
    code = [span for span in code_in(line) if "(" not in span and "$" not in span]
    assert all(span in code_in(mended(line)) for span in code)
    if "`" not in parts and "``" not in line.replace("``c ` d``", ""):
        formulas = sum(part.startswith(("\\", "$")) for part in parts)
        assert len(code_in(mended(line))) == len(code) + formulas


def code_in(text: str) -> list[str]:
    """The inline code of a line, as a CommonMark parser sees it."""
    inline = COMMON_MARK.parse(f"x {text}")
    return [t.content for block in inline for t in block.children or () if t.type == "code_inline"]


def test_a_table_is_one_outside_code_alone() -> None:
    table = "| a | b |\n|---|:-:|\n| 1 | 2 |"
    assert has_table(f"See:\n\n{table}")
    assert not has_table(f"```\n{table}\n```")
    assert not has_table("a | b\nand --- more")
