"""No text is expensive: a text of the worst kind that is twice as long costs under three times.

It is measured over two doublings: a step that outgrows the processor's cache costs more once. The
limit is nine times, where a quadratic step takes sixteen. The times are those of the calling thread
alone. A step over the limit is measured again, the best of five, up to four times.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from time import thread_time
from typing import Any

import discord
import pytest

from bots import commonmark
from bots.attachments import file_of, text_of, with_files
from bots.discord import convert as of_discord
from bots.discord import extract as discord_extract
from bots.discord import markdown as for_discord
from bots.markdown import simplified, title_of
from bots.quotes import forwarded, quote_of
from bots.slack import convert as of_slack
from bots.slack import extract as slack_extract
from bots.slack import markdown as for_slack
from bots.summaries import _unlinked
from bots.text import closed, split
from core.dialogue.loop_detection import first_round_end
from core.dialogue.tokenizers.detokenizers import WindowDetokenizer
from core.errors import TurnTooLong
from core.evaluation.judges import RULES
from core.evaluation.prompts import Prompt
from tests import dialogues
from tests.dialogues import user

LONGEST = 1_000_000
"""Characters."""
NOISE = 0.002
"""Seconds that a step may take whatever its text."""

WORST = {
    "labels": "システム:\n",
    "labels after nothing": "\u200b\nシステム:\n\n",
    "names": "【田中】\n",
    "open brackets": "【",
    "line ends": "\n",
    "typed line ends": "<NL>",
    "half line ends": "<NL",
    "nested line ends": "<N<NL>L>",
    "spaces": " ",
    "invisible": "\u200b",
    "combining marks out of order": "\u0315\u0300\u05b0",
    "controls": "<|im_end|>",
    "byte pieces": "<0x41>",
    "brackets": "[",
    "one letter": "a",
    "one word a line": "a\n",
    "backticks": "`",
    "fences": "```\n",
    "table": "| |\n",
    "links": "[a](",
    "addresses": "http://",
    "not characters": "\ufffd",
    "emphasis": "**a",
}

FORMATS = ["rinna", "chatml", "chatml-unigram"]


def of_length(unit: str, length: int) -> str:
    return (unit * (length // len(unit) + 1))[:length]


def seconds(step: Callable[[str], object], text: str, rounds: int = 5) -> float:
    def once() -> float:
        before = thread_time()
        step(text)
        return thread_time() - before

    gc.disable()
    try:
        return min(once() for _ in range(rounds))
    finally:
        gc.enable()


def check_linear(
    step: Callable[[str], object], unit: str, longest: int = LONGEST, rounds: int = 5
) -> None:
    """Doubles a text twice, until it is as long as `longest` or takes long enough to compare.

    The longer text is measured once, which is never less than the best of several: only where
    that is over the limit are both measured again, the best of `rounds`.
    """

    def timed(size: int, rounds: int = rounds) -> float:
        return seconds(step, of_length(unit, size), rounds)

    length = longest // 128  # shorter ones are a few messages, of which the first costs less
    while length * 4 <= longest:
        if timed(length, 1) > NOISE and (before := timed(length)) > NOISE:
            after, tries = timed(4 * length, 1), 4
            while before > NOISE and after > 9 * before:
                assert tries > 0, f"{4 * length} characters: {before} s, then {after} s"
                before, after = timed(length), timed(4 * length)
                tries -= 1
            if after > 0.04:
                return  # it was compared, and longer ones would only take the test's time
        length *= 2


@pytest.mark.parametrize("unit", WORST.values(), ids=WORST)
@pytest.mark.parametrize("kind", FORMATS)
def test_a_format_takes_time_in_proportion_to_a_text(kind: str, unit: str) -> None:
    dialogue = dialogues.load(kind, speaker_names=True)
    check_linear(lambda text: dialogue._message([user(1, f"a\nb\n{text}", "田中")]), unit)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_text_that_cannot_fit_is_refused_before_it_is_formatted(kind: str) -> None:
    dialogue = dialogues.load(kind)
    for unit in WORST.values():
        text = of_length(unit, LONGEST)
        before = thread_time()
        with pytest.raises(TurnTooLong):
            dialogue.prompt([user(1, text)], low_water=0.7)
        assert thread_time() - before < 0.05


@pytest.mark.parametrize("unit", WORST.values(), ids=WORST)
def test_the_splitter_takes_time_in_proportion_to_a_text(unit: str) -> None:
    check_linear(lambda text: split(text, 2000), unit)


@pytest.mark.parametrize("unit", WORST.values(), ids=WORST)
@pytest.mark.parametrize("kind", ["rinna", "chatml"])
def test_a_reply_takes_time_in_proportion_to_its_text(kind: str, unit: str) -> None:
    """The detokenizer's text, line ends, the next speaker's line and the loop guard."""

    def write(text: str) -> None:
        reply = dialogues.shared(kind).reply()
        for start in range(0, len(text), 4):
            reply.push((), text[start : start + 4])
        reply.finish("stop")

    check_linear(write, unit)


@pytest.mark.parametrize("kind", ["rinna", "chatml", "chatml-spaces", "chatml-unigram"])
def test_a_detokenizer_takes_time_in_proportion_to_its_ids(kind: str) -> None:
    tokenizer = dialogues.shared(kind).tokenizer
    for ids in ([tokenizer.encode("猫")[-1]], list(range(10, 260)), [300]):

        def decode(text: str, ids: list[int] = ids) -> None:
            stream = tokenizer.detokenizer()
            for start in range(len(text)):
                stream.push([ids[start % len(ids)]])
            stream.finish()

        check_linear(decode, "x", LONGEST // 10)


def test_a_window_of_ids_does_not_grow_with_incomplete_characters() -> None:
    decoded = 0

    def decode(ids: object) -> str:
        nonlocal decoded
        assert isinstance(ids, list)
        decoded += len(ids)
        return "\ufffd" * len(ids)

    stream = WindowDetokenizer(decode, ())
    text = "".join(stream.push([1]) for _ in range(10_000)) + stream.finish()
    assert text == "\ufffd" * 10_000
    assert decoded < 40 * 10_000


@pytest.mark.parametrize("unit", WORST.values(), ids=WORST)
def test_the_loop_guard_takes_time_in_proportion_to_a_text(unit: str) -> None:
    check_linear(first_round_end, unit)


# -- messages from the platforms, and to them ----------------------------------------------------

SLACK_BOT = of_slack.Bot("T1", "U0HENJI", "B1")
DISCORD_BOT = of_discord.Bot(5, names=frozenset(("Henji",)))
MARKUP = (
    "<@U0HENJI|", "<@U2|", "<@U2>", "<#C1|", "<!date^1^", "<!subteam^", "<http://a|", "&lt;",
    "&", "<", "a", " ", "\n", "<@5> ", "<@!", "<@&6>", "<t:1:", "<t:1:R>", "<:a:", "<:a:1>",
    "</a:1>", "<id:", "@henji ", "||", "\U0001f1ef",
)  # fmt: skip
MARKDOWN = (
    "\\(", "\\[", "$$", "$$a", "$a", "\\(a\\)", "**「", "*a", "~~", "`a", "``", "![a](", "![",
    "<br", "<br> ", "- ", "> ", "    a\n", "1. a\n", "|a|\n|-|\n\n", "|", "||\n",
    "#### #", "---\n", "- -",
    "| a\n|-\n", "\\[\n", "~~~\n", "\t", "<b>", "<b>a</b>", "<ul><li>", "<code>`</code>", "&lt;",
)  # fmt: skip


def _posted(text: str) -> of_slack.MessagePosted:
    body = {"event": _message(text), "event_id": "E1"}
    found = of_slack.parse_event(body, SLACK_BOT)
    assert isinstance(found, of_slack.MessagePosted)
    return found


def _message(text: str, **more: Any) -> Mapping[str, Any]:
    return {"type": "message", "channel": "C1", "ts": "1.0", "user": "U1", "text": text, **more}


def _rich(kind: str, text: str) -> Mapping[str, Any]:
    """A message whose rich text has an element for each two characters."""
    texts = [{"type": "text", "text": text[at : at + 2]} for at in range(0, len(text), 2)]
    items = [{"type": "rich_text_section", "elements": [t]} for t in texts]
    part = {"type": kind, "elements": items if kind == "rich_text_list" else texts}
    return _message("", blocks=[{"type": "rich_text", "elements": [part]}])


def _attached(text: str) -> Mapping[str, Any]:
    block = {"type": "section", "text": {"type": "mrkdwn", "text": text}}
    shared = {"is_share": True, "text": text, "author_name": text}
    old = {"text": text, "fields": [{"title": text, "value": text}]}
    return _message(text, bot_id="B2", attachments=[shared, old, {"blocks": [block]}])


def _embedded(text: str) -> str:
    embed = discord.Embed(title=text, description=text).add_field(name=text, value=text)
    return discord_extract._embed(embed, _read_discord)


def _read_discord(text: str) -> str:
    return of_discord.readable(text, DISCORD_BOT, lambda kind, ident: "Ann")


def _without_numbers(text: str) -> object:
    return _unlinked(text), _unlinked("[[1]](".join(text))


def _as_file(text: str) -> object:
    read = text_of(file_of("a.txt", "text/plain"), f"x{text}".encode())
    return with_files(user(1, "look"), [read])


def _to_slack(text: str) -> object:
    simple = simplified(text)
    parts = for_slack.without_margins([text, commonmark.mended(simple)])
    return for_slack.settled(text), for_slack.has_table(text), parts


ASKED = Prompt("1", (user(1, "?"),))
CONVERTERS: Mapping[str, Callable[[str], object]] = {
    "Slack's message": lambda text: of_slack.whole_text(_posted(text), SLACK_BOT, {"U2": "Ann"}),
    "Slack's command": lambda text: of_slack.text_command(_posted(text), SLACK_BOT),
    "Slack's list of people": of_slack.ids,
    "Slack's attachments": lambda text: slack_extract.carried_by(_attached(text)),
    "Slack's rich text": lambda text: slack_extract.words_of(_rich("rich_text_section", text)),
    "Slack's rich quote": lambda text: slack_extract.words_of(_rich("rich_text_quote", text)),
    "Slack's rich list": lambda text: slack_extract.words_of(_rich("rich_text_list", text)),
    "to Slack": _to_slack,
    "Discord's message": _read_discord,
    "Discord's address": lambda text: of_discord.mentions_bot(text, DISCORD_BOT),
    "Discord's embed": _embedded,
    "a title": lambda text: title_of(text, "Ann"),
    "Discord's list of people": of_discord.ids,
    "Discord's own words": discord_extract.own_words,
    "to Discord": for_discord.rendered,
    "a growing text": closed,
    "a quote": lambda text: (quote_of("1", text, text), forwarded(text, text)),
    "a file": _as_file,
    "points of a summary": _without_numbers,
    "a judged list": lambda text: RULES["list"](ASKED, text),
}  # fmt: skip


@pytest.mark.parametrize("name", CONVERTERS)
def test_a_converter_takes_time_in_proportion_to_a_text(name: str) -> None:
    units = MARKDOWN if name.startswith("to ") else MARKUP
    for unit in units:
        try:
            check_linear(CONVERTERS[name], unit, longest=100_000, rounds=2)
        except AssertionError as error:
            pytest.fail(f"of {unit!r}: {error}")


WIDE = 1000


@pytest.mark.parametrize("name", ["to Slack", "to Discord"])
def test_a_table_takes_time_in_proportion_to_its_text(name: str) -> None:
    """Its cells may be far fewer than its columns by its rows."""

    def table(size: int) -> str:
        return f"{'|a' * size}|\n{'|-' * size}|\n" + "|b|\n" * size

    small, large = (seconds(CONVERTERS[name], table(size), 2) for size in (WIDE, 8 * WIDE))
    assert large < 24 * small + NOISE
    for unit in ("x", "- ", "|-", "#", " "):  # a line that nearly is one of another kind

        def line(text: str) -> object:
            return CONVERTERS[name](f"|a|b|\n|-|-{text}x\n#### {text}x")

        check_linear(line, unit, longest=100_000, rounds=2)
