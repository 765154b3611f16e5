"""A model's HTML and formulas, as chat platforms show them."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from bots.commonmark import mended
from bots.discord.markdown import rendered
from bots.markdown import TITLE_LENGTH, complete, simplified, title_of
from bots.slack.markdown import settled

COMMON_MARK = MarkdownIt("commonmark").enable("strikethrough")


def code_in(text: str) -> list[str]:
    """The inline code of a line, as a CommonMark parser sees it."""
    inline = COMMON_MARK.parse(f"x {text}")
    return [t.content for block in inline for t in block.children or () if t.type == "code_inline"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<b>a</b>, <STRONG>b</STRONG>, <i>c</i>, <em>d</em>", "**a**, **b**, *c*, *d*"),
        ("<s>a</s> <del>b</del> <u>c</u>", "~~a~~ ~~b~~ __c__"),
        ("<b><i>a</i></b> <b>a</b><b>b</b>", "***a*** **a**\u200b**b**"),
        ("<b>Note: </b>this", "**Note:** this"),
        ("Write <b> and </b> around it, or <b>.", "Write <b> and </b> around it, or <b>."),
        ("a Vec<i> and `<b>x</b>`", "a Vec<i> and `<b>x</b>`"),
        ("```\n<b>x</b><br>\n```", "```\n<b>x</b><br>\n```"),
        ("Code:\n\n    <b>x</b>", "Code:\n\n    <b>x</b>"),
        ("- a\n\n    <b>x</b>", "- a\n\n    **x**"),
        ("Press <kbd>Ctrl</kbd>+<kbd>C</kbd>", "Press `Ctrl`+`C`"),
        ("<code>a_b</code>, <code>`x`</code>, <code>&lt;b&gt;</code>", "`a_b`, `` `x` ``, `<b>`"),
        ("H<sub>2</sub>O, x<sup>n-1</sup>, x<sub>最大</sub>", "H₂O, xⁿ⁻¹, x_(最大)"),
        ("a<br>b<br/>c <BR /> d", "a\nb\nc\nd"),
        ("> a<br>b", "> a\n> b"),
        ("| a<br>b | <b>c</b> |", "| a b | **c** |"),
        ("a\n<hr>\nb", "a\n***\nb"),
        ("<h2>Title</h2>\n<p>One.</p>\n<p>Two.</p>\nEnd", "## Title\nOne.\n\nTwo.\n\nEnd"),
        ("<p> is the tag of a paragraph.", "<p> is the tag of a paragraph."),
        ("<ul>\n  <li>a</li>\n  <li>b</li>\n</ul>\nend", "- a\n- b\nend"),
        ("<ol><li>a</li><li>b<ul><li>c</li></ul></li></ol>", "1. a\n1. b\n   - c"),
        ("<ul>\n<li>a\n<li>b\n</ul>", "- a\n- b"),
        (
            "<details>\n<summary><b>More</b></summary>\n\ntext\n\n</details>\nend",
            "**More**\n\ntext\n\nend",
        ),
        ("<details><summary>More</summary>text</details>", "**More**\ntext"),
        ('<div align="center">\n<span style="color:red">a</span>\n</div>', "a"),
        ('<a href="https://x.org">here</a>', "[here](https://x.org)"),
        ("<a name='x'>here</a>", "<a name='x'>here</a>"),
        ("<img src='https://x.org/c.png' alt='a cat'>", "![a cat](https://x.org/c.png)"),
        ("<blockquote>a</blockquote>", "> a"),
        ("a &lt;b&gt; c &amp; d&nbsp;e `&lt;`", "a \\<b\\> c & d e `&lt;`"),
        ("a < b and c > d", "a < b and c > d"),
        ("\\<b>a\\</b>", "\\<b>a\\</b>"),
    ],
)
def test_html_for_plain_formatting_is_markdown(text: str, shown: str) -> None:
    assert simplified(text, "__") == shown


def test_a_platform_without_underlines_shows_the_words() -> None:
    assert simplified("<u>a</u> and <ins>b</ins>") == "a and b"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"面積は \(\pi r_1^2\) です", r"面積は `\pi r_1^2` です"),
        (r"$$a_1 + b_1$$ である", r"`a_1 + b_1` である"),
        ("\\[\nx_1 \\\\\ny\n\\]\nend", "```latex\nx_1 \\\\\ny\n```\nend"),
        ("$$\nx\n$$", "```latex\nx\n```"),
        ("so $$x = 1$$", "so `x = 1`"),
        ("$$x = 1\n+ 2$$\nso", "```latex\nx = 1\n+ 2\n```\nso"),
        ("1. a\n\n   \\[ x\n   = 1 \\]\n2. b", "1. a\n\n   ```latex\n x\n   = 1\n   ```\n2. b"),
        ("\\[\nx\n```\n\\]\n```", "\\[\nx\n```\n\\]\n```"),
        ("`\\(x\\)`", "`\\(x\\)`"),
        ("costs $5 and $6", "costs $5 and $6"),
        ("$a_1$ costs $5", "`a_1` costs $5"),
        (r"`f(x)` gives \(x_1\), `g` \(y_1\).", "`f(x)` gives `x_1`, `g` `y_1`."),
        (r"the code `\(x\)` is \(x\)", r"the code `\(x\)` is `x`"),
        (r"a lone ` before \(x_1\)", "a lone ` before ``x_1``"),
        (r"``a ` b`` and $$x_1$$", "``a ` b`` and `x_1`"),
        (r"\(x\)$$y$$`c`", "`x`\u200b`y`\u200b`c`"),
        (r"\(a `b` c\)", "``a `b` c``"),
        (r"a `` b ` c \(x\) `", r"a `` b ` c \(x\) `"),
    ],
)
def test_formulas_stay_readable(text: str, expected: str) -> None:
    assert simplified(text) == expected


@given(st.lists(st.sampled_from([r"\(x_1\)", "$$y$$", "`c`", "``c ` d``", "`", "a", " "])))
def test_formulas_beside_code_are_code_and_the_code_stays(parts: list[str]) -> None:
    line = "".join(parts)
    assume("```" not in line)  # a block of code may begin within a line
    assume(not line.startswith("    "))  # that is a block of code too
    code = [span for span in code_in(line) if "(" not in span and "$" not in span]
    assert all(span in code_in(simplified(line)) for span in code)
    if "`" not in parts and "``" not in line.replace("``c ` d``", ""):
        formulas = sum(part.startswith(("\\", "$")) for part in parts)
        assert len(code_in(simplified(line))) == len(code) + formulas


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a <b>bo", "a "),
        ("a <b>bold</b> <st", "a <b>bold</b> "),
        ("a <br", "a "),
        (r"so \(x", "so "),
        ("so $a_1", "so "),
        ("a\n\\[\nx = 1", "a\n"),
        ("$$\nx\n$$\nso", "$$\nx\n$$\nso"),
        ("a &am", "a "),
        ("a &amp;", "a "),
        ("so\n\\begin{ali", "so\n"),
        (r"a \bet", r"a \bet"),
        ("a `<b", "a "),
        ("a`b` これは$", "a`b` これは"),
        ("```\n<b", "```\n<b"),
        ("$$\n" + "x\n" * 50, "$$\n" + "x\n" * 50),
        ("<b>" + "a" * 2000, "<b>" + "a" * 2000),
    ],
)
def test_what_has_no_end_yet_waits_but_not_for_ever(text: str, shown: str) -> None:
    assert complete(text) == shown


PIECES = (
    "これは", "a ", "word", "。\n", "\n", "\n\n", "<b>x</b>", "<i>「y」</i>", "<br>", "<u>z</u>",
    "- ", r"\(x_1\)", "$$y$$", "\n$$\nx\n$$\n", "\n\\[ a\n= b\n\\]\n", "$a_1$ ",
    "\n<ul>\n<li>a</li>\n</ul>\n",
    "**「z」**", "`c`", "H<sub>2</sub>O", "\n```\n<b>\n```\n", "&lt;", "\n<p>a</p>\n",
    "<code>d</code>", " &amp; ", "\n\\begin{cases}\na\n\\end{cases}\n",
    "\n$$\n\\begin{cases}\na\n\\end{cases}\n$$\n", "<details>\n",
)  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=8), st.integers(0, 90))
def test_a_growing_reply_only_grows(pieces: list[str], at: int) -> None:
    text = "".join(pieces)
    assert mended(simplified(text)).startswith(mended(settled(simplified(text[:at]))))


ODD = (
    "<b>", "</b>", "<ul>", "<li>", "</p>", "<p>", "</sub>", "<code>", "&amp;lt;", "|", "<hr>", "`",
    "####", "\\", "$$", "\n", " ", "a", "&lt;b>", "<a href='b'>", "</a>", "~~~", "> ",
)  # fmt: skip


@given(st.lists(st.sampled_from((*PIECES, *ODD)), max_size=12))
@example(["<ol>", "<ul>", "<li>", "a", "</ul>"])
def test_no_word_is_lost(pieces: list[str]) -> None:
    def words(text: str) -> list[str]:
        return re.findall(r"これは|word|[「」]", text)

    assert words(rendered("".join(pieces))) == words("".join(pieces))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("one\ntwo", "one"),
        ("", "x"),
        ("\u200b\u2060\n \n**two**", "two"),
        ("```python\nprint(1)\n```", "print(1)"),
        ("# A [link](https://example.org) and `code`", "A link and code"),
        ("> quoted ||secret|| and ||more||", "quoted … and …"),
        (r"\*not bold\* a\_b", "*not bold* a_b"),
        ("a<br>b<BR />c", "a b c"),
        ("- 2 * 3 * 4 in snake_case", "2 * 3 * 4 in snake_case"),
        ("-# small", "small"),
        ("```\n```", "x"),
    ],
)
def test_a_title_is_the_first_line_that_shows_something(text: str, name: str) -> None:
    assert title_of(text, "x") == name


def test_a_title_is_cut_between_characters() -> None:
    family = "👨‍👩‍👧‍👦"
    name = title_of(family * 40, "x")
    assert len(name) <= TITLE_LENGTH
    assert name == family * (len(name) // len(family)) + "…"
