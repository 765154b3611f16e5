"""The remote engine: another server computes the replies.

``completions``: OpenAI's completions, on a server that takes token ids, such as vLLM. Prompt and
reply travel as ids (`return_token_ids`), so that typed text cannot become a control token. From a
server that gives no ids, the reply comes as text.

``llama.cpp``: the same with its server's own ``/completion``, which gives ids too.

``chat``: a server that takes only messages, such as ollama or a hosted one. Its template makes the
prompt: the number of tokens is unknown, and typed control tokens may not stay text.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, TypeAlias
from urllib.parse import urljoin, urlsplit, urlunsplit

import aiohttp

from core.dialogue.echo import END, USER, messages_in
from core.engine.openai_events import RemoteReply, events_of, message_of, usage_of
from core.engine_types import Chunk, EngineStats, GenerationRequest, Throughput
from core.errors import EngineError, EngineRefused, ModelError, without_secret
from core.types import Sampling, Thinking

log = logging.getLogger(__name__)

_ATTEMPTS = 4
_FIRST_PAUSE = 0.25
"""Seconds before the second attempt; each later pause is twice as long."""
_MOST_BYTES = 1 << 20
"""Of an error, or of the list of models."""
Api: TypeAlias = Literal["completions", "llama.cpp", "chat"]


@dataclass(frozen=True, slots=True)
class RemoteServer:
    """A server, and how it is to be used."""

    base_url: str
    """Up to and with ``/v1``."""
    key: str | None = None
    model: str | None = None
    """What the server calls the model; None: the first that it lists."""
    slots: int = 64
    seeds: bool = True
    """Whether a request says its seed."""
    api: Api = "completions"
    silence: float = 300.0
    """Seconds without an event after which the server is given up."""

    @property
    def shown(self) -> str:
        """Its address without the password."""
        parts = urlsplit(self.base_url.rstrip("/"))
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


class _RetryableError(Exception):
    """Nothing was generated yet, and the fault may pass."""


class OpenAIEngine:
    """Streams replies from a `RemoteServer`. `open` creates an engine and probes the server."""

    def __init__(self, remote: RemoteServer, model: str, http: aiohttp.ClientSession) -> None:
        self._remote = remote
        self._model = model
        self._http = http
        self._running = 0
        self._throughput = Throughput()
        self._left_out: set[str] = set()
        """Parameters that the server does not know, or a parameter with such a value."""

    @classmethod
    async def open(cls, remote: RemoteServer) -> Self:
        """ModelError, in one sentence, if there is no server or it refuses token ids."""
        headers = {"Authorization": f"Bearer {remote.key}"} if remote.key else {}
        http = aiohttp.ClientSession(
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None, connect=10, sock_read=remote.silence),
        )
        try:
            listed = remote.model or (
                "" if remote.api == "llama.cpp" else await _first_model(http, remote)
            )
            engine = cls(remote, listed, http)
            await engine._probe()
        except BaseException:
            await http.close()
            raise
        return engine

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        """See `Engine`. Closing the iterator closes the connection, which ends the work there."""
        self._running += 1
        arrived = time.monotonic()
        tokens = 0
        try:
            async for chunk in self._with_retries(request):
                now = time.monotonic()
                if not tokens:
                    self._throughput.started(now - arrived)
                tokens += len(chunk.ids) or 1
                self._throughput.sampled(len(chunk.ids) or 1, now)
                yield chunk
        finally:
            self._running -= 1

    def stats(self) -> EngineStats:
        """See `Engine`; nothing is known of the server's cache."""
        return EngineStats(
            running=self._running,
            slots=max(0, self._remote.slots - self._running),
            tokens_per_second=self._throughput.tokens_per_second(time.monotonic()),
            time_to_first_token=self._throughput.first_token,
        )

    async def close(self) -> None:
        """Closes every connection."""
        await self._http.close()

    async def _probe(self) -> None:
        """Generate one token from one id, or from one word."""
        chats = self._remote.api == "chat"
        prompt = (USER, *map(ord, "Hi"), END) if chats else (0,)
        request = GenerationRequest("probe", prompt, Sampling(temperature=0), 1, seed=0)
        try:
            async for _ in self._with_retries(request):
                pass
        except EngineRefused as error:
            sent = "a message" if chats else "a prompt of token ids"
            raise ModelError(
                f"the server at {self._remote.shown} refuses {sent} ({error}){_ADVICE[chats]}"
            ) from None
        except EngineError as error:
            raise ModelError(str(error)) from None

    async def _with_retries(self, request: GenerationRequest) -> AsyncIterator[Chunk]:
        for attempt in range(_ATTEMPTS):
            try:
                async for chunk in self._without_unknown_parameters(request):
                    yield chunk
            except _RetryableError as error:
                if attempt == _ATTEMPTS - 1:
                    raise EngineError(f"{self._remote.shown}: {error}") from None
                await asyncio.sleep(_FIRST_PAUSE * 2**attempt)
            except EngineError as error:
                raise type(error)(without_secret(str(error), self._remote.key)) from None
            else:
                return

    async def _without_unknown_parameters(self, request: GenerationRequest) -> AsyncIterator[Chunk]:
        """One attempt, without the parameters that the server names in its refusal."""
        while True:
            body = self._body(request)
            try:
                async for chunk in self._stream(request, body):
                    yield chunk
            except EngineRefused as error:
                named = name_of_unknown(str(error), body)
                if not named:
                    raise
                log.warning("the server does not take %s, which is left out from now on", named)
                self._left_out.add(named)
            else:
                return

    def _body(self, request: GenerationRequest) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self._model} if self._model else {}
        if self._remote.api == "llama.cpp":
            body |= _llama_cpp_body(request)
        elif self._remote.api == "chat":
            body |= {"messages": messages_in(request.prompt), **_common_body(request)}
            body |= {"stream_options": self._stream_options}
            body |= _thinking_body(request.thinking, self._left_out)
        else:
            body |= {"prompt": list(request.prompt), "return_token_ids": True}
            body |= _common_body(request)
            if request.stop_ids:
                body["stop_token_ids"] = sorted(request.stop_ids)
        if self._remote.seeds:
            body["seed"] = (
                request.seed % 2**31 if self._remote.api != "completions" else request.seed
            )
        if "max_tokens" in self._left_out and "max_tokens" in body:
            body["max_completion_tokens"] = body["max_tokens"]
        return {name: value for name, value in body.items() if name not in self._left_out}

    @property
    def _stream_options(self) -> dict[str, bool]:
        """vLLM, SGLang and others tell the cost so far with each event, also of a stopped reply."""
        names = ("include_usage", _COST_SO_FAR)
        return {name: True for name in names if name not in self._left_out}

    @property
    def _url(self) -> str:
        base = self._remote.base_url.rstrip("/")
        if self._remote.api == "llama.cpp":
            return f"{base.removesuffix('/v1')}/completion"
        return f"{base}/{'chat/completions' if self._remote.api == 'chat' else 'completions'}"

    async def _stream(
        self, request: GenerationRequest, body: Mapping[str, Any]
    ) -> AsyncIterator[Chunk]:
        """One attempt: `_RetryableError` before its first chunk, `EngineError` after it."""
        reply = RemoteReply(request, tells_usage=self._remote.api == "chat")
        try:
            # a client that followed a redirect would ask by GET, or take the key to another host
            async with self._http.post(self._url, json=body, allow_redirects=False) as response:
                try:
                    await _check(response, self._remote)
                    events = events_of(response)
                    async for event in events:
                        chunk = reply.read(event)
                        if chunk is not None:
                            usage = await usage_of(events, reply) if reply.ended else reply.usage
                            yield replace(chunk, usage=usage)
                        if reply.ended:
                            return
                finally:
                    response.close()  # a connection that is kept would let the server go on
            raise aiohttp.ClientPayloadError("the reply broke off")
        except (aiohttp.ClientError, TimeoutError) as error:
            sentence = str(error) or "the server was silent for too long"
            if not reply.begun:
                raise _RetryableError(sentence) from None
            raise EngineError(f"{self._remote.shown}: {sentence}") from None


_UNKNOWN = re.compile(
    r"unsupported|unrecognized|unknown|not (supported|permitted|allowed|support thinking)|extra"
    r"|input should be '",
    re.I,
)


def name_of_unknown(sentence: str, body: Mapping[str, Any]) -> str:
    """The parameter that a refusal calls unknown, for `reasoning_effort` with its value; empty for
    another refusal."""
    if not _UNKNOWN.search(sentence):
        return ""
    known = [name for name in _OPTIONAL if name in sentence]
    told = any(name in sentence for name in ("stream_options", _COST_SO_FAR))
    if told and _COST_SO_FAR in body.get("stream_options", ()):
        return _COST_SO_FAR
    if "think" in sentence:  # ollama names no parameter
        known += _THINKING
    named = next((name for name in known if name in body), "")
    return f"{named} {body[named]}" if named == "reasoning_effort" else named


_ADVICE = (
    ": llama.cpp's server takes them with HENJI_OPENAI_API=llama.cpp, and a server that takes "
    "messages alone is served by HENJI_OPENAI_API=chat",
    "",
)
_COST_SO_FAR = "continuous_usage_stats"
_THINKING = ("reasoning_effort", "chat_template_kwargs", "thinking")
_OPTIONAL = (
    "max_tokens", "temperature", "top_p", "top_k", "repetition_penalty", "seed", "stop_token_ids",
    "return_token_ids", "stream_options", *_THINKING,
)  # fmt: skip
"""The parameters that a server may not know. ``max_tokens`` has another name for some models."""


def _common_body(request: GenerationRequest) -> dict[str, Any]:
    """The parameters that completions and chat share."""
    sampling = request.sampling
    body: dict[str, Any] = {
        "max_tokens": request.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "stream": True,
    }
    # not OpenAI's own parameters: sent only if they have an effect
    if sampling.top_k:
        body["top_k"] = sampling.top_k
    if sampling.repetition_penalty != 1:
        body["repetition_penalty"] = sampling.repetition_penalty
    return body


_EFFORTS: Mapping[Thinking, Sequence[str]] = {
    "off": ("none", "minimal", "low"),
    "on": ("medium", "high"),
}
"""The first that the server takes is sent."""


def _thinking_body(thinking: Thinking, left_out: Collection[str]) -> dict[str, Any]:
    """The switches of servers: an effort for hosted ones and ollama, the variables of chat
    templates for vLLM, SGLang and llama.cpp, and a table for DeepSeek and others."""
    if thinking == "default":
        return {}
    on = thinking == "on"
    body: dict[str, Any] = {
        "chat_template_kwargs": {"enable_thinking": on, "thinking": on},
        "thinking": {"type": "enabled" if on else "disabled"},
    }
    for effort in _EFFORTS[thinking]:
        if f"reasoning_effort {effort}" not in left_out:
            return {**body, "reasoning_effort": effort}
    return body


def _llama_cpp_body(request: GenerationRequest) -> dict[str, Any]:
    """llama.cpp's own names. What its server would add by default is turned off."""
    sampling = request.sampling
    return {
        "prompt": list(request.prompt),
        "n_predict": request.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": 0,
        "repeat_penalty": sampling.repetition_penalty,
        "repeat_last_n": -1,
        "stream": True,
        "return_tokens": True,
        "cache_prompt": True,
    }


async def _check(response: aiohttp.ClientResponse, remote: RemoteServer) -> None:
    if 300 <= response.status < 400:
        target = urljoin(str(response.url), response.headers.get("Location", ""))
        raise EngineRefused(f"it redirects to {target}: set HENJI_OPENAI_BASE_URL to that server")
    if response.status < 300 and response.content_type == "text/html":
        raise EngineRefused("it answers with a web page: HENJI_OPENAI_BASE_URL ends in /v1, mostly")
    if response.status < 400:
        return
    text = (await _beginning(response)).decode(errors="replace")
    try:
        text = message_of(json.loads(text))
    except (ValueError, RecursionError):
        text = text.strip()
    sentence = f"status {response.status}: {without_secret(text, remote.key)[:300]}"
    if response.status in (408, 409, 425, 429) or response.status >= 500:
        raise _RetryableError(sentence)
    raise EngineRefused(sentence)


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    """The body, or its first `_MOST_BYTES` or a little more."""
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) >= _MOST_BYTES:
            break
    return bytes(body)


async def _first_model(http: aiohttp.ClientSession, remote: RemoteServer) -> str:
    url = f"{remote.base_url.rstrip('/')}/models"
    try:
        async with http.get(url) as response:
            await _check(response, remote)
            listed = json.loads(await _beginning(response))
            return str(listed["data"][0]["id"])
    except (aiohttp.ClientError, TimeoutError, _RetryableError, EngineRefused) as error:
        hint = ""
        if "status 404" in str(error) and not remote.base_url.rstrip("/").endswith("/v1"):
            hint = "; HENJI_OPENAI_BASE_URL ends in /v1, mostly"
        where = f"{remote.shown}/models"
        raise ModelError(f"no model server answers at {where}: {error}{hint}") from None
    except (ValueError, LookupError, TypeError, RecursionError):
        raise ModelError(f"{remote.shown}/models lists no model") from None
