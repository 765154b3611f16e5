"""Every sentence that a person can see, in Japanese and in English.

`say` is the one way to them. Both languages have every key, with the same values in it; a test
holds them to that.
"""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime, tzinfo
from typing import Literal, TypeAlias

from bots.strings.en import ENGLISH
from bots.strings.ja import JAPANESE
from core.types import FileRead

Locale: TypeAlias = Literal["ja", "en"]

FAILURES = frozenset((
    "no_core", "busy", "too_long", "prompt_gone", "deadline", "internal", "store_down", "stopped",
    "not_allowed", "stranger", "quota", "quota_channel", "file_binary", "file_empty", "file_failed",
    "file_gone", "file_too_large", "file_too_many",
))  # fmt: skip
"""The codes that a reply may fail with: each is a sentence."""

_SENTENCES: dict[Locale, dict[str, str]] = {"ja": JAPANESE, "en": ENGLISH}


def say(key: str, locale: str, **values: object) -> str:
    """The sentence `key` in the language of `locale`, with `values` filled in."""
    return _SENTENCES[language(locale)][key].format(**values)


def about(key: str, locale: str, hosts: str, **values: object) -> str:
    """A sentence about the bot that says where its model runs: here, or at these hosts."""
    kind = "host" if hosts else "here"
    places = {name: say(f"{name}_{kind}", locale, host=hosts) for name in ("runs", "stays")}
    return say(key, locale, **places, **values)


def failure(
    code: str,
    locale: str,
    until: float = 0.0,
    zone: tzinfo = UTC,
    waiting: int = 0,
    detail: str = "",
) -> str:
    """The sentence of a failure; an unknown code gets the sentence for an internal fault.

    `until`: when it can be asked again, in seconds since the epoch, told as a time in `zone`;
    `waiting`: how many others wait already; `detail`: the name of the file that cannot be read, or
    for a message that is too long, a text with its tokens and the most that there may be.
    """
    if code not in FAILURES:
        return say("internal", locale)
    at = clock(until, zone) if until else say("tomorrow", locale)
    numbers = [int(number) for number in re.findall(r"\d+", detail)]
    if code == "too_long" and len(numbers) == 2:
        return say("too_long_by", locale, tokens=numbers[0], limit=numbers[1])
    return say(code, locale, time=at, waiting=waiting, name=detail)


def clock(at: float, zone: tzinfo) -> str:
    """A time of day, with its zone."""
    return f"{datetime.fromtimestamp(at, zone):%H:%M (%Z)}"


def file_line(read: FileRead, locale: str) -> str:
    """How much of a file was read."""
    key = "file_read" if read.whole else "file_named"
    key = key if read.name else "words_read"
    return say(key, locale, name=read.name, tokens=read.tokens, whole=read.whole)


_VALUE, _ENDS = re.compile(r"\{\w+(?::[^}]*)?\}"), (".", "!", "?", "…", "。", "！", "？", "）", ")")
_JAPANESE = re.compile(
    r"[\u3041-\u3096\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff々]"  # hiragana, kanji
    r"|[\u30a1-\u30fa][\u30a1-\u30faー]"  # two katakana: one alone may be a face's, as in (ツ)
    r"|[\uff66-\uff6f\uff71-\uff9d]{2}"
)


def guess(text: str) -> Locale:
    """The language of a text, by its letters. Marks such as ``・`` and ``ー`` do not count: they
    occur in emoticons and in English texts, too."""
    return "ja" if _JAPANESE.search(text) else "en"


def locale_for(setting: str, told: str = "", text: str = "") -> str:
    """The language for a person: the setting, else the platform's language for them, else the
    language of their text."""
    if setting != "auto":
        return setting
    return language(told) if told else guess(text)


@functools.cache
def _own_sentences() -> re.Pattern[str]:
    """A pattern of every sentence in both languages, and of its lines, with any values. Labels are
    left out."""
    whole = {text for sentences in _SENTENCES.values() for text in sentences.values()}
    texts = whole | {line for text in whole for line in text.splitlines()}
    sentences = [text for text in texts if text.endswith(_ENDS) and len(_VALUE.sub("", text)) > 8]
    patterns = (".+?".join(map(re.escape, _VALUE.split(text))) for text in sentences)
    return re.compile("|".join(patterns), re.DOTALL)


def is_own_sentence(text: str) -> bool:
    """Whether a text consists of the bot's sentences, and was not written by a model."""
    if len(text) > 2000 or not text.strip():
        return False
    own = _own_sentences()
    return bool(own.fullmatch(text)) or all(map(own.fullmatch, filter(None, text.splitlines())))


def language(locale: str) -> Locale:
    """The language for a tag such as ``ja-JP`` or ``en_US``: English for all but Japanese."""
    return "ja" if locale.lower().startswith("ja") else "en"
