"""No text is expensive: a text of the worst kind that is twice as long costs under three times.

It is measured over two doublings: a step that outgrows the processor's cache costs more once. The
limit is nine times, where a quadratic step takes sixteen. The times are those of the calling thread
alone, the best of five. A step over the limit is measured again, up to three times.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from time import thread_time

import pytest

from bots.text import split
from core.dialogue.loop_detection import first_round_end
from core.dialogue.tokenizers.detokenizers import WindowDetokenizer
from core.errors import TurnTooLong
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


def seconds(step: Callable[[str], object], text: str) -> float:
    def once() -> float:
        before = thread_time()
        step(text)
        return thread_time() - before

    gc.disable()
    try:
        return min(once() for _ in range(5))
    finally:
        gc.enable()


def check_linear(step: Callable[[str], object], unit: str, longest: int = LONGEST) -> None:
    """Doubles a text twice, until it is as long as `longest` or takes long enough to compare."""
    length = longest // 256
    while length * 4 <= longest:
        before, after = (seconds(step, of_length(unit, size)) for size in (length, 4 * length))
        tries = 3
        while before > NOISE and after > 9 * before:
            assert tries > 0, f"{4 * length} characters: {before} s, then {after} s"
            before, after = (seconds(step, of_length(unit, size)) for size in (length, 4 * length))
            tries -= 1
        if before > NOISE and after > 0.08:
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
