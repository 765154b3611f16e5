"""Replies cut into messages: nothing lost, nothing broken, and nothing moved as they grow."""

from __future__ import annotations

import re
import time

import pytest
import regex
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from bots.text import block_lines, closed, split, without_code

LINKS = ["[返事](https://example.com/a(b))", "https://example.com/a?b=c&d=e", "<@U024BE7LH>"]
MENTIONS = ["<#C024BE7LR|general>", "@hanako", "<https://example.com|名前>", "`x = y`", ":tada:"]
PROSE = [
    "こんにちは。",
    "返事を書きます、",
    "本当に？",
    "Yes. ",
    "No! ",
    "word ",
    "é́",
    "👩‍👩‍👧",
    "🇯🇵🇫🇷",
    "が",
]
QUOTES = ["\n> ", "\n>>> ", "||"]
LINES = ["\n", "\n\n", "\n\n\n", "\n- ", "\n    indented ", "\n# Heading\n", "\r\n"]
CODE = ["\n```python\n", "\n```\n", "\n~~~\n", "\n````\n", "x = [1, 2]\n", "    return x\n", "```"]
ODD_CODE = ["\nHere: ```py\n", " end```", "\n> ```py\n> x\n> ```\n"]

pieces = st.sampled_from(LINKS + MENTIONS + PROSE + LINES + QUOTES + CODE + ODD_CODE)
replies = st.lists(pieces | st.text(max_size=12), max_size=120).map("".join)
limits = st.integers(min_value=100, max_value=300)
AMID = re.compile(r"[^`\s>][^`\n]*`{3,8}[^`\n]*[^`\s]")
"""Backticks between other characters of a line: they end no code."""
FENCE_LINE = re.compile(r"^[ \t]*(?:`{3,}|~{3,})[^`\n]*$", re.MULTILINE)


def words(text: str) -> str:
    """What must survive: everything but white space and the lines that open and close code."""
    return re.sub(r"[\s`~>|]|python|py", "", text)


@settings(max_examples=200)
@given(replies, limits)
@example("```python\n" + "x = 1\n" * 100 + "```\nそして。", 100)
@example("é́" * 200, 100)
@example("```[返事](https://a.b/c(d))\n" + "[返事](https://a.b/c(d))" * 9, 100)
def test_a_split_reply_fits_and_loses_nothing(reply: str, limit: int) -> None:
    parts = split(reply, limit)
    assert all(len(closed(part)) <= limit and part.strip() for part in parts)
    said = words("".join(parts))
    if FENCE_LINE.search(reply):  # what names a language is said again in each part of the code
        rest = iter(said)
        assert all(character in rest for character in words(reply))
    else:
        assert said == words(reply)


@settings(max_examples=200)
@given(replies, limits)
def test_a_growing_reply_leaves_its_earlier_messages_alone(reply: str, limit: int) -> None:
    shown: list[str] = []
    for end in range(0, len(reply) + 1, 7):
        parts = split(reply[:end], limit)
        assert parts[: len(shown) - 1] == shown[:-1]
        shown = parts


@given(replies, limits)
def test_a_reply_is_never_cut_inside_a_character(reply: str, limit: int) -> None:
    assume("`" not in reply and "~" not in reply)
    parts = ["", *split(reply, limit)]
    whole, *cut = (regex.findall(r"\X", re.sub(r"[\s>|]", "", text)) for text in (reply, *parts))
    assert [character for part in cut for character in part] == whole


@given(
    st.lists(st.sampled_from(LINKS + MENTIONS), min_size=1, max_size=40),
    st.text("あいx", max_size=9),
)
def test_links_mentions_and_inline_code_stay_whole(kept: list[str], between: str) -> None:
    parts = split(f"{between} ".join(kept), 100)
    assert sorted(w for w in kept if any(w in part for part in parts)) == sorted(kept)
    assert sum(part.count("](") for part in parts) == sum("](" in w for w in kept)
    for part in parts:
        assert part.count("[返事]") == part.count("[返事](https://example.com/a(b))")
        assert part.count("<@") == part.count("<@U024BE7LH>")
        assert part.count("`") % 2 == 0


@given(st.integers(min_value=1, max_value=60), st.sampled_from(["python", "", "c++"]))
def test_code_goes_on_in_its_language(lines: int, language: str) -> None:
    code = "".join(f"    line_{n} = {n}\n" for n in range(lines))
    parts = split(f"```{language}\n{code}```", 120)
    for part in parts:
        assert part.startswith(f"```{language}\n")
        assert part.endswith("\n```")
    inside = "\n".join("\n".join(part.split("\n")[1:-1]) for part in parts)
    assert inside + "\n" == code


@given(replies, limits)
def test_every_message_has_as_many_ends_of_code_as_beginnings(reply: str, limit: int) -> None:
    assume(not any(odd in reply for odd in ("~~~", "````", "> ```")))
    for part in split(reply, limit):
        assert closed(closed(part)) == closed(part)
        if not AMID.search(reply):
            assert len(re.findall(r"(?<!`)`{3,8}(?!`)", closed(part))) % 2 == 0


@pytest.mark.parametrize("opening", ["Here: ```py", "> ```py", "```" + "p" * 60, ">>> ```py"])
def test_code_goes_on_wherever_it_was_opened(opening: str) -> None:
    quote = "> " if opening.startswith("> ") else ""
    lines = [f"{quote}line_{n} = {n}" for n in range(40)]
    text = "\n".join([opening, *lines, f"{quote}```", "after"])
    parts = split(text, 150)
    assert len(parts) > 3
    for part in parts:
        inside = part.split("```")[1::2]
        assert part.count("```") % 2 == 0
        code = [line for block in inside for line in block.split("\n") if "=" in line]
        assert code == [line for line in part.split("\n") if "=" in line]
    assert [line for part in parts for line in part.split("\n") if "=" in line] == lines
    language = opening.partition("```")[2]
    assert all(part.partition("```")[2].startswith(language) for part in parts[:-1])


@given(st.integers(40, 400), st.integers(100, 300))
def test_a_spoiler_hides_its_words_in_every_message(count: int, limit: int) -> None:
    secret = " ".join(f"word{n}" for n in range(count))
    parts = split(f"It was ||{secret}||, and a || b is no spoiler.", limit)
    hidden = [match for part in parts for match in re.findall(r"\|\|(?=\S)(.+?)(?<=\S)\|\|", part)]
    assert " ".join(hidden).split() == secret.split()


@given(st.integers(40, 300), st.integers(100, 300), st.sampled_from(["> ", ">>> "]))
def test_a_quote_is_quoted_in_every_message(count: int, limit: int, mark: str) -> None:
    quoted = " ".join(f"word{n}" for n in range(count))
    parts = split(f"He said:\n{mark}{quoted}", limit)
    lines = [line for part in parts for line in part.split("\n") if "word" in line]
    assert all(line.startswith(mark) for line in lines)
    assert " ".join(line.removeprefix(mark) for line in lines).split() == quoted.split()


@given(st.lists(st.integers(1, 30), min_size=5, max_size=40), st.integers(100, 200))
def test_an_indented_list_item_keeps_its_indentation(sizes: list[int], limit: int) -> None:
    items = [f"    - {' '.join(['word'] * size)}" for size in sizes]
    for part in split("\n".join(["- list", *items]), limit):
        found = [line for line in part.split("\n") if line.lstrip().startswith("- word")]
        assert all(line.startswith("    - ") for line in found)


def test_a_reply_is_cut_between_its_paragraphs() -> None:
    first, second = "一つ目の段落です。" * 8, "二つ目の段落です。" * 8
    assert split(f"{first}\n\n{second}", 100) == [first, second]


def test_a_paragraph_is_cut_after_a_japanese_sentence_and_its_quote() -> None:
    sentence = "彼は「そうですね。」と言いました。そして笑いました！"
    parts = split(sentence * 10, 100)
    assert all(part.endswith(("。", "！")) for part in parts)


def test_a_number_a_decimal_and_an_address_end_no_sentence() -> None:
    parts = split("It costs 3.14 at example.com today " * 8, 100)
    assert all("3.14" in part or "3." not in part for part in parts)
    assert not any(part.endswith((".", "3")) for part in parts)


def test_a_heading_stays_with_its_text() -> None:
    parts = split("あ" * 60 + "\n\n## 次の話\n\n" + "い" * 60, 100)
    assert parts == ["あ" * 60, "## 次の話\n\n" + "い" * 60]


def test_the_first_line_of_an_indented_list_keeps_its_indentation() -> None:
    parts = split("- " + "a" * 90 + "\n    - " + "b" * 60, 100)
    assert parts == ["- " + "a" * 90, "    - " + "b" * 60]


def test_one_overlong_address_is_cut_all_the_same() -> None:
    address = "https://example.com/" + "a" * 500
    parts = split(address, 100)
    assert "".join(parts) == address
    assert max(map(len, parts)) <= 100


def test_a_platform_counts_in_its_own_way() -> None:
    parts = split("𠮷野家。" * 100, 100, lambda text: len(text.encode("utf-16-le")) // 2)
    assert all(len(part.encode("utf-16-le")) // 2 <= 100 for part in parts)
    assert "".join(parts) == "𠮷野家。" * 100


def test_an_open_block_grows_open_and_can_be_closed() -> None:
    assert split("```python\nx = 1", 100) == ["```python\nx = 1"]
    assert closed("```python\nx = 1") == "```python\nx = 1\n```"
    assert closed("no code") == "no code"


def test_blank_text_is_no_message() -> None:
    assert split("", 100) == []
    assert split(" \n\n ", 100) == []


def test_a_limit_that_holds_no_code_is_refused() -> None:
    with pytest.raises(ValueError, match="100"):
        split("text", 99)


# -- code in a text -----------------------------------------------------------------------------


@given(st.text("`a\n", max_size=60))
def test_a_text_without_code_has_its_length_and_its_lines_of_prose(text: str) -> None:
    left = without_code(text)
    assert len(left) == len(text)
    assert all(kept in (was, " ") for kept, was in zip(left, text, strict=True))


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a `b` c", "a     c"),
        ("a `b c", "a `b c"),
        ("``a ` b`` c", "          c"),
        ("```\nx\n``` c", "          c"),
        ("`a`` b`", "       "),
    ],
)
def test_code_ends_at_as_many_backticks_as_began_it(text: str, left: str) -> None:
    assert without_code(text) == left


def test_finding_code_costs_no_more_than_the_length_of_a_text() -> None:
    odd = " ".join("`" * (1 + n % 700) for n in range(1400))
    began = time.perf_counter()
    without_code(odd)
    assert time.perf_counter() - began < 1.0


def test_a_long_first_line_of_code_is_no_language_that_is_said_again() -> None:
    long = '{"key": 1}, ' * 300
    parts = split(f"```{long}\n{{}}\n```", 1880)
    assert len(parts) == 2
    assert "".join(parts).count('"key"') == 300
    language = "a" * 90
    parts = split(f"```{language}\n" + "x = 1\n" * 40 + "```", 100)
    assert len(parts) < 10
    assert "".join(parts).count("x = 1") == 40


def test_backticks_amid_a_line_of_code_do_not_end_it() -> None:
    code = "a = '```'\n" * 20
    for part in split(f"```py\n{code}```\nAnd more.", 100)[:-1]:
        assert part.startswith("```py\n")
        assert part.endswith("\n```")
    assert list(block_lines("```py\na = '```'\nb\n```")) == [
        ("```py", "fence"), ("a = '```'", "code"), ("b", "code"), ("```", "fence"),
    ]  # fmt: skip


@pytest.mark.parametrize("mark", ["```", "~~~"])
def test_code_in_a_quote_goes_on_there(mark: str) -> None:
    code = "".join(f"> line {n}\n" for n in range(30))
    parts = split(f"> {mark}py\n{code}> {mark}\n> end", 100)
    assert all(line.startswith(">") for part in parts for line in part.split("\n"))
    assert all(part.startswith(f"> {mark}py\n") for part in parts[:-1])


def test_no_message_ends_behind_the_mark_of_a_quote() -> None:
    parts = split("> a **b** c\n> ```" + "l" * 45 + "\n" + "> x = 1\n" * 9 + "> ```", 100)
    assert not any(part.endswith(("\n>", "\n> ")) for part in parts)
    assert all(line.startswith(">") for part in parts for line in part.split("\n"))


def test_a_long_line_of_code_goes_on_in_its_quote_or_out_of_one() -> None:
    parts = split("> ```py\n> " + "x" * 300 + "\n> y\n> ```", 100)
    assert all(line.startswith("> ") for part in parts for line in part.split("\n"))
    assert all(part.startswith("> ```py\n") and part.endswith("\n> ```") for part in parts)
    parts = split("```\n> " + "x" * 300 + "\ny\n```", 100)
    assert all(part.startswith("```\n") and part.endswith("\n```") for part in parts)
