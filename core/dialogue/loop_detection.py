"""Noticing that a model has fallen into a loop, in the text that it writes.

The limits are set on 160 published answers of rinna's PPO and SFT-v2 models: they end the two that
go on for hundreds of characters, and leave alone the 158 that come back to a phrase, rule a line
with dashes or count in zeros.
"""

from __future__ import annotations

import re
from collections import Counter

WINDOW = 8192
"""Characters at the end of the text that are looked at: a round is a third of them at most."""
_PROBE = 16
"""Characters at the end of the text that are looked for before it."""
_PATTERN_WINDOW = 400
_GRAM = 10
_FEWEST = 0.34
"""A window of which less than this part is new n-grams is a loop, whatever changes in it."""
_SENTENCE_END = re.compile(r"[。.!?！？\n]")


def first_round(text: str) -> int | None:
    """Where the first round of the loop ends that `text` has fallen into; None: it is in none."""
    before = max(0, len(text) - WINDOW)
    end = _of_a_period(text[before:]) or _of_a_pattern(text[before:])
    return None if end is None else before + end


def _of_a_period(text: str) -> int | None:
    """Of a loop that says the very same again and again up to the end of the text."""
    end = len(text)
    probe = text[-_PROBE:]
    place = text.rfind(probe, 0, end - 1)
    for _ in range(4):
        if place < 0:
            return None
        period = end - _PROBE - place
        length = _long_enough(period)
        if length <= end and text[end - length : end - period] == text[end - length + period :]:
            return _end_of_round(text, _beginning(text, period), period)
        place = text.rfind(probe, 0, place + _PROBE - 1)
    return None


def _long_enough(period: int) -> int:
    """Characters that must repeat: a ruled line is no loop, a sentence said four times is one."""
    if period <= 4:
        return 160
    return max(120, period * (4 if period < 60 else 3))


def _beginning(text: str, period: int) -> int:
    """Where the run with this period, which reaches the end of the text, begins."""
    place = len(text) - period - 1
    while place >= 0 and text[place] == text[place + period]:
        place -= 1
    return place + 1


def _end_of_round(text: str, start: int, period: int) -> int:
    """The end of a round, or of the sentence that it ends in."""
    end = start + period
    sentence = _SENTENCE_END.search(text, end - 1, end + period)
    return sentence.end() if sentence and period > 4 else end


def _of_a_pattern(text: str) -> int | None:
    """Of a loop that changes a number or a name each time."""
    if len(text) < _PATTERN_WINDOW:
        return None
    window = text[-_PATTERN_WINDOW:]
    grams = Counter(window[place : place + _GRAM] for place in range(_PATTERN_WINDOW - _GRAM + 1))
    if len(grams) > _FEWEST * (_PATTERN_WINDOW - _GRAM + 1):
        return None
    gram = grams.most_common(1)[0][0]
    first = text.find(gram)
    second = text.find(gram, first + _GRAM)
    sentence = _SENTENCE_END.search(text, first, second + _GRAM)
    return sentence.end() if sentence else second
