"""Detects that a model repeats itself without end.

Only prose is checked: no code block, table, list or data, and no line that is repeated a few dozen
times, which somebody may have asked for. The limits are set on 160 published answers of rinna's PPO
and SFT-v2 models: the two that go on for hundreds of characters are ended, the other 158 are not.
"""

from __future__ import annotations

import re
from collections import Counter

WINDOW = 8192
"""Characters at the end of the text that are looked at: a round is a third of them at most."""
_PROBE = 16
"""Characters at the end of the text that are searched for before it."""
_PATTERN_WINDOW = 400
_GRAM = 10
_FEWEST = 0.34
"""A window with a smaller part of different n-grams is a loop, though some words change."""
_SENTENCE_END = re.compile(r"[。.!?！？\n]")
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
_ITEM = re.compile(r"[ \t]*(?:[-*+•・>#|]|\d+[.)、．:]|[(（]?\d+[)）]|[①-⑳]|[a-z]+://)|\t| {4}")
"""The beginning of a line of a list, a table, a quotation, a list of addresses, or of code."""
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_WORDS = re.compile(r"[^\W\d_]")
_LEAST_WORDS = 0.5
"""Text with a smaller part of letters is data, a drawing or code."""
_LINES, _PARAGRAPHS = 40, 4
"""Rounds of a repeated line, and of a repeated paragraph, that nobody has asked for."""
_PARAGRAPH = 120
"""Characters."""


def first_round_end(text: str) -> int | None:
    """The end of the first round of the loop that `text` has fallen into; None: there is none."""
    before = max(0, len(text) - WINDOW)
    window = text[before:]
    if len(_FENCE.findall(window)) % 2 or _ITEM.match(window, window.rfind("\n") + 1):
        return None
    end = _exact_loop(window) or _varying_loop(window)
    return None if end is None else before + end


def _exact_loop(text: str) -> int | None:
    """The end of the first round, where the same text is repeated up to the end."""
    end = len(text)
    probe = text[-_PROBE:]
    start = text.rfind(probe, 0, end - 1)
    for _ in range(4):
        if start < 0:
            return None
        period = end - _PROBE - start
        length = _long_enough(text[end - period :])
        if length <= end and text[end - length : end - period] == text[end - length + period :]:
            return _end_of_round(text, _start_of_run(text, period), period)
        if text[end - period :] == text[end - 2 * period : end - period]:
            return None  # longer periods are multiples of this one
        start = text.rfind(probe, 0, start + _PROBE - 1)
    return None


def _long_enough(repeated: str) -> int:
    """Characters of repetition that make a loop of a repeated text."""
    period = len(repeated)
    if "\n" in repeated:
        if not _is_prose(repeated):
            return WINDOW
        return period * (_LINES if period < _PARAGRAPH else _PARAGRAPHS)
    if period <= 4:
        return (
            160 if not re.search(r"[\d\s]", repeated) else 1000
        )  # a ruled line, or a row of zeros
    if not _is_prose(repeated):
        return 1000
    return max(120, period * (4 if period < 60 else 3))


def _is_prose(text: str) -> bool:
    """Whether most characters are letters outside of tags, and no line belongs to a list, a table
    or code."""
    visible = re.sub(r"\s", "", text)
    words = len(_WORDS.findall(_TAG.sub("", text)))
    if words < _LEAST_WORDS * len(visible) or "\t" in text:
        return False
    return not any(_ITEM.match(line) for line in text.split("\n"))


def _start_of_run(text: str, period: int) -> int:
    """The beginning of the run with this period that reaches the end of the text."""
    index = len(text) - period - 1
    while index >= 0 and text[index] == text[index + period]:
        index -= 1
    return index + 1


def _end_of_round(text: str, start: int, period: int) -> int:
    """The end of a round, or of the sentence that it ends in."""
    end = start + period
    sentence = _SENTENCE_END.search(text, end - 1, end + period)
    return sentence.end() if sentence and period > 4 else end


def _varying_loop(text: str) -> int | None:
    """The end of the first round, where a sentence is repeated with a changed number or name.

    Only one paragraph is searched: similar lines may be a poem or a table.
    """
    window = text[text.rfind("\n") + 1 :][-_PATTERN_WINDOW:]
    if len(window) < _PATTERN_WINDOW or not _is_prose(window):
        return None
    grams = Counter(window[index : index + _GRAM] for index in range(len(window) - _GRAM + 1))
    if len(grams) > _FEWEST * (len(window) - _GRAM + 1):
        return None
    gram = grams.most_common(1)[0][0]
    first = text.find(gram)
    second = text.find(gram, first + _GRAM)
    sentence = _SENTENCE_END.search(text, first, second + _GRAM)
    return sentence.end() if sentence else second
