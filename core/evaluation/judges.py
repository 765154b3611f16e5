"""Judges of a comparison: verifiable rules, reward models and servers.

Each verdict is kept as it comes.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
import unicodedata
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from statistics import fmean
from typing import Any, Literal, Protocol, Self, TypeAlias, TypeVar
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from core.dialogue.loop_detection import first_round_end
from core.errors import OperatorError, in_brief, without_secret
from core.evaluation.prompts import Answer, Language, Prompt
from core.evaluation.run_record import JudgeConfig, Record, StoredVerdict
from core.evaluation.statistics import SIDES, Side, Verdict, Winner

Choice: TypeAlias = Literal["first", "second", "tie", "unreadable"]

PROMPTS: Mapping[Language, tuple[str, str]] = {
    "en": (
        "You compare two answers to the same message, as an impartial judge. Weigh whether each "
        "is correct, helps with what was asked, fits the wish behind it, and reads well. Neither "
        "the order nor the length of the answers may count. First give your reasons in two or "
        "three sentences. Then end with your verdict alone on the last line: [[A]] if answer A is "
        "better, [[B]] if answer B is better, [[C]] if they are equally good.",
        "[Message]\n{prompt}\n\n[Answer A]\n{first}\n[End of answer A]\n\n"
        "[Answer B]\n{second}\n[End of answer B]",
    ),
    "ja": (
        "あなたは公平な審判です。同じメッセージへの2つの回答を比べてください。"
        "内容が正しいか、質問の役に立つか、相手の意図に合っているか、読みやすいかを見ます。"
        "回答の順番や長さで判断してはいけません。まず理由を2、3文で述べてください。"
        "最後の行には判定だけを書いてください。回答Aが優れていれば [[A]]、"
        "回答Bが優れていれば [[B]]、同じくらいなら [[C]] です。",
        "【メッセージ】\n{prompt}\n\n【回答A】\n{first}\n【回答Aの終わり】\n\n"
        "【回答B】\n{second}\n【回答Bの終わり】",
    ),
}
"""The judge's instructions and question, in the language of the prompt."""

_VERDICT = re.compile(r"\[\[\s*(A|B|C)\s*\]\]")
_CHOICES: Mapping[str, Choice] = {"A": "first", "B": "second", "C": "tie"}

_ATTEMPTS = 4
_FIRST_PAUSE = 0.5
"""Seconds before the second attempt; each later pause is twice as long."""
_LONGEST = 1024
"""Tokens of a verdict with its reasons."""
_MOST_BYTES = 1 << 20
"""Of an answer."""


def read_verdict(text: str) -> Choice:
    """The last verdict in a judge's text, even in full-width letters; thoughts do not count."""
    words = unicodedata.normalize("NFKC", text).rpartition("</think>")[2]
    found = _VERDICT.findall(words)
    if not found and words.strip() in _CHOICES:
        found = [words.strip()]
    return _CHOICES[found[-1]] if found else "unreadable"


@dataclass(frozen=True, slots=True)
class JudgeServer:
    """The address of a judge."""

    base_url: str
    """Up to and with ``/v1``."""
    key: str | None = None
    model: str | None = None
    """The model's name on the server; None: the first that it lists."""
    silence: float = 120.0
    """Seconds that a verdict may take."""

    @property
    def shown(self) -> str:
        """Its address without the password."""
        parts = urlsplit(self.base_url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


class ServerJudge:
    """Asks a `JudgeServer`. Made with `open`, closed with `close`."""

    def __init__(self, server: JudgeServer, model: str, http: aiohttp.ClientSession) -> None:
        self.model = model
        self._server = server
        self._http = http

    @classmethod
    async def open(cls, server: JudgeServer) -> Self:
        """OperatorError if no server answers."""
        headers = {"Authorization": f"Bearer {server.key}"} if server.key else {}
        timeout = aiohttp.ClientTimeout(total=server.silence, connect=10)
        http = aiohttp.ClientSession(headers=headers, timeout=timeout)
        judge = cls(server, server.model or "", http)
        try:
            judge.model = judge.model or await judge._first_model()
        except BaseException:
            await http.close()
            raise
        return judge

    async def close(self) -> None:
        await self._http.close()

    async def say(self, prompt: Prompt, first: str, second: str) -> str:
        """The judge's text on two answers; OperatorError after several failed attempts."""
        told, asked = PROMPTS[prompt.language]
        filled = asked.format(prompt=prompt.text, first=first, second=second)
        body = {
            "model": self.model,
            "messages": [
                {"role": "system", "content": told},
                {"role": "user", "content": filled},
            ],
            "temperature": 0,
            "max_tokens": _LONGEST,
        }
        answer = await self._ask("POST", "chat/completions", body)
        match answer:
            case {"choices": [{"message": {"content": str(text)}}, *_]}:
                return text
            case {"choices": [{"message": {"content": None}}, *_]}:
                return ""  # it thought up to its limit, or refused
        raise self._fault("its answer is not a chat completion")

    async def _first_model(self) -> str:
        match await self._ask("GET", "models", None):
            case {"data": [{"id": str(name)}, *_]}:
                return name
        raise self._fault("it lists no model: name one with --judge-model")

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        fault = "it does not answer"
        for attempt in range(_ATTEMPTS):
            if attempt:
                await asyncio.sleep(_FIRST_PAUSE * 2 ** (attempt - 1))
            try:
                return await self._once(method, path, body)
            except _MayPassError as error:
                fault = str(error)
            except TimeoutError:
                fault = f"it was silent for {self._server.silence:g} seconds"
            except aiohttp.ClientError as error:
                fault = in_brief(error)
        raise self._fault(fault)

    async def _once(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        url = f"{self._server.base_url.rstrip('/')}/{path}"
        async with self._http.request(method, url, json=body) as response:
            text = await self._text(response)
            if response.status in (408, 409, 425, 429) or response.status >= 500:
                raise _MayPassError(f"status {response.status}: {text.strip()[:200]}")
            if response.status >= 400:
                raise self._fault(f"status {response.status}: {text.strip()[:200]}")
            try:
                return json.loads(text)
            except (ValueError, RecursionError):
                raise self._fault(f"it does not speak JSON: {text.strip()[:80]!r}") from None

    async def _text(self, response: aiohttp.ClientResponse) -> str:
        body = bytearray()
        async for piece in response.content.iter_any():
            body += piece
            if len(body) > _MOST_BYTES:
                raise self._fault(f"its answer is longer than {_MOST_BYTES} bytes")
        return without_secret(body.decode(errors="replace"), self._server.key)

    def _fault(self, what: str) -> OperatorError:
        return OperatorError(f"the judge at {self._server.shown}: {what}")


class _MayPassError(Exception):
    """A temporary fault."""


class Scorer(Protocol):
    """Scores an answer to a prompt: higher is better. May compute for long."""

    def __call__(self, prompt: Prompt, text: str) -> float: ...


def better(scores: tuple[float, float]) -> Winner:
    """The side with the higher score; unreadable if one is not a number."""
    a, b = scores
    if isnan(a) or isnan(b):
        return "unreadable"
    winner: Side | None = "a" if a > b else "b" if b > a else None
    return winner or "tie"


_WORD = re.compile(r"[^\W\d_]+")
_LIST_ITEM = re.compile(r"^[^\S\n]*(?:[-*・•]|\d+[.．、)])", re.MULTILINE)
_SENTENCE = re.compile(r"[^。.!?！？\n]+[。.!?！？\n]?")
_POLITE = re.compile(
    r"(?:です|ます|でした|ました|ません|ましょう|ください)(?:か|ね|よ|が)?[。.!?！？\s]*$"
)


def _short_words(prompt: Prompt, text: str) -> float:
    words = [len(word) for word in _WORD.findall(text)]
    return -fmean(words) if words else -float("inf")


def _same_language(prompt: Prompt, text: str) -> float:
    """The share of letters in the prompt's language."""
    letters = [unicodedata.name(char, "") for char in text if char.isalpha()]
    japanese = ("HIRAGANA", "KATAKANA", "CJK", "HALFWIDTH KATAKANA")
    own = japanese if prompt.language == "ja" else ("LATIN",)
    return sum(name.startswith(own) for name in letters) / len(letters) if letters else 0.0


def _polite(prompt: Prompt, text: str) -> float:
    """The share of sentences with a polite ending, in Japanese."""
    sentences = [found for found in _SENTENCE.findall(text) if found.strip()]
    return fmean(bool(_POLITE.search(found)) for found in sentences) if sentences else 0.0


RULES: Mapping[str, Scorer] = {
    "shorter": lambda prompt, text: -len(text),
    "longer": lambda prompt, text: len(text),
    "short-words": _short_words,
    "same-language": _same_language,
    "polite": _polite,
    "no-loop": lambda prompt, text: -bool(first_round_end(text)),
    "list": lambda prompt, text: min(2, len(_LIST_ITEM.findall(text))),
}
"""Properties that need no judge. Rules are easily gamed: none says which answer is better."""


T = TypeVar("T")

AT_ONCE = 4
"""Questions to a server at a time."""


def winner_of(choice: Choice, first: Side) -> Winner:
    """The side whose answer was chosen; `first` is the side that was shown first."""
    if choice in ("tie", "unreadable"):
        return choice
    return first if choice == "first" else other(first)


def other(side: Side) -> Side:
    return "b" if side == "a" else "a"


async def judge_by_server(
    record: Record, config: JudgeConfig, judge: ServerJudge, progress: Callable[[int, int], None]
) -> None:
    """Have every pair judged in both orders, except those that were judged before."""
    known = {(s.verdict.prompt, s.verdict.first) for s in record.verdicts_of(config.name)}
    asked = [
        (prompt, pair, first)
        for prompt, pair in answered(record)
        for first in SIDES
        if (prompt.id, first) not in known
    ]

    async def ask(question: tuple[Prompt, tuple[Answer, Answer], Side]) -> None:
        prompt, (a, b), first = question
        shown = (a.text, b.text) if first == "a" else (b.text, a.text)
        text = await judge.say(prompt, *shown)
        verdict = Verdict(prompt.id, winner_of(read_verdict(text), first), first)
        record.add_verdict(StoredVerdict(config.name, verdict, time.time(), text))
        progress(len(record.verdicts_of(config.name)), 2 * len(answered(record)))

    await _some_at_a_time(AT_ONCE, ask, asked)


def judge_by_score(
    record: Record, config: JudgeConfig, scorer: Scorer, progress: Callable[[int, int], None]
) -> None:
    """Judge every pair by the scores of its answers."""
    known = {stored.verdict.prompt for stored in record.verdicts_of(config.name)}
    pairs = answered(record)
    for place, (prompt, (a, b)) in enumerate(pairs, 1):
        if prompt.id in known:
            continue
        scores = (float(scorer(prompt, a.text)), float(scorer(prompt, b.text)))
        verdict = Verdict(prompt.id, better(scores), None)
        kept = None if verdict.winner == "unreadable" else scores  # JSON cannot hold NaN
        record.add_verdict(StoredVerdict(config.name, verdict, time.time(), scores=kept))
        progress(place, len(pairs))


def answered(record: Record) -> list[tuple[Prompt, tuple[Answer, Answer]]]:
    """The prompts that both models answered, with the answers."""
    found = ((prompt, record.both_answers(prompt.id)) for prompt in record.prompts)
    return [(prompt, pair) for prompt, pair in found if pair is not None]


async def _some_at_a_time(
    most: int, work: Callable[[T], Awaitable[None]], items: Sequence[T]
) -> None:
    """Work on all items, `most` of them at once; the first fault ends it."""
    waiting: Iterable[T] = iter(items)

    async def go_on() -> None:
        for item in waiting:
            await work(item)

    workers = [asyncio.create_task(go_on()) for _ in range(most)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
