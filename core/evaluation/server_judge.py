"""A judge behind an OpenAI-compatible server: any chat model, both orders, temperature 0."""

from __future__ import annotations

import asyncio
import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeAlias
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from core.errors import OperatorError, in_brief
from core.evaluation.prompts import Language, Prompt

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
"""What the judge is told and asked, in the language of the prompt."""

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
    """The last verdict in a judge's words, in wide letters too; its thoughts do not count."""
    words = unicodedata.normalize("NFKC", text).rpartition("</think>")[2]
    found = _VERDICT.findall(words)
    if not found and words.strip() in _CHOICES:
        found = [words.strip()]
    return _CHOICES[found[-1]] if found else "unreadable"


@dataclass(frozen=True, slots=True)
class JudgeServer:
    """Where the judge is."""

    base_url: str
    """Up to and with ``/v1``."""
    key: str | None = None
    model: str | None = None
    """What the server calls it; None: the first that it lists."""
    silence: float = 120.0
    """Seconds that a verdict may take."""

    @property
    def shown(self) -> str:
        """Its address without a password in it."""
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
        """OperatorError, one sentence, where no server answers."""
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
        """The judge's words on two answers.

        Raises OperatorError, one sentence, where it gives none after several attempts.
        """
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
                return ""  # it thought until its room was used up, or it refused
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
            except ValueError:
                raise self._fault(f"it does not speak JSON: {text.strip()[:80]!r}") from None

    async def _text(self, response: aiohttp.ClientResponse) -> str:
        body = bytearray()
        async for piece in response.content.iter_any():
            body += piece
            if len(body) > _MOST_BYTES:
                raise self._fault(f"its answer is longer than {_MOST_BYTES} bytes")
        return body.decode(errors="replace")

    def _fault(self, what: str) -> OperatorError:
        return OperatorError(f"the judge at {self._server.shown}: {what}")


class _MayPassError(Exception):
    """A fault that another attempt may not meet."""
