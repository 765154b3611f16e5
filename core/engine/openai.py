"""The remote engine: another server computes the replies.

``completions``: a server that speaks OpenAI's completions and takes token ids, as vLLM does and
those that follow it. The prompt goes out as ids and the reply comes back as ids
(`return_token_ids`), so that text stays only text: what a person typed cannot become a control
token on the way. Replies come as text only from a server that gives no ids.

``llama.cpp``: the same through its server's own ``/completion``, which gives ids too.

``chat``: a server that takes messages alone, as ollama and hosted ones. Its own template makes the
prompt: nothing here knows how many tokens that has, or keeps typed control tokens text.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, TypeAlias
from urllib.parse import urljoin

import aiohttp

from core.dialogue.echo import END, USER, messages_in
from core.engine_types import Chunk, EngineStats, GenerationRequest, Throughput
from core.errors import EngineError, EngineRefused, ModelError
from core.types import FinishReason, Sampling, Thinking, Usage

log = logging.getLogger(__name__)

_ATTEMPTS = 4
_FIRST_PAUSE = 0.25
"""Seconds before the second attempt; each later pause is twice as long."""
Api: TypeAlias = Literal["completions", "llama.cpp", "chat"]

_LINE_BYTES = 1 << 26
"""The longest line: the first event may repeat the prompt's ids, or its log probabilities."""
_USAGE_SECONDS = 2.0
"""For so long at most, the cost of a chat's reply is awaited behind its end."""


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


class _RetryableError(Exception):
    """Nothing was generated yet, and the fault may pass."""


class OpenAIEngine:
    """Streams replies from a `RemoteServer`. `open` makes one and probes the server."""

    def __init__(self, remote: RemoteServer, model: str, http: aiohttp.ClientSession) -> None:
        self._remote = remote
        self._model = model
        self._http = http
        self._running = 0
        self._throughput = Throughput()
        self._left_out: set[str] = set()
        """Parameters, or values of them, that the server has said it does not know."""

    @classmethod
    async def open(cls, remote: RemoteServer) -> Self:
        """ModelError, one sentence, where the server is not there or takes no token ids."""
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
        """See `Engine`. Closing the iterator closes the connection, and so ends the work there."""
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
        """See `Engine`; of the server's cache nothing is known."""
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
                f"the server at {self._remote.base_url} refuses {sent} ({error}){_ADVICE[chats]}"
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
                    raise EngineError(f"{self._remote.base_url}: {error}") from None
                await asyncio.sleep(_FIRST_PAUSE * 2**attempt)
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
        """vLLM, SGLang and others tell the cost so far with each event: a reply may be stopped."""
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
        reply = _RemoteReply(request, tells_usage=self._remote.api == "chat")
        try:
            # a client that followed a redirect would ask by GET, or take the key to another host
            async with self._http.post(self._url, json=body, allow_redirects=False) as response:
                try:
                    await _check(response)
                    events = _events(response)
                    async for event in events:
                        chunk = reply.read(event)
                        if chunk is not None:
                            usage = await _usage(events, reply) if reply.ended else reply.usage
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
            raise EngineError(f"{self._remote.base_url}: {sentence}") from None


_UNKNOWN = re.compile(
    r"unsupported|unrecognized|unknown|not (supported|permitted|allowed|support thinking)|extra"
    r"|input should be '",
    re.I,
)


def name_of_unknown(sentence: str, body: Mapping[str, Any]) -> str:
    """The parameter that a server says it does not know, with the value of an effort; empty where
    it says something else."""
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
    # beyond OpenAI's own words: sent only where they say something
    if sampling.top_k:
        body["top_k"] = sampling.top_k
    if sampling.repetition_penalty != 1:
        body["repetition_penalty"] = sampling.repetition_penalty
    return body


_EFFORTS: Mapping[Thinking, Sequence[str]] = {
    "off": ("none", "minimal", "low"),
    "on": ("medium", "high"),
}
"""Of which the first that the server takes is sent."""


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


class _RemoteReply:
    """One reply so far, held against the request's own stops and length."""

    def __init__(self, request: GenerationRequest, *, tells_usage: bool = False) -> None:
        """`tells_usage`: the server was asked for the cost of the reply."""
        self.begun = False
        self.ended = False
        self.usage: Usage | None = None
        self._tells_usage = tells_usage
        self._request = request
        self._ids: list[int] = []
        self._thinking = False
        """The server sends a thought in a separate field."""
        self._texts = 0
        """Events with text alone: each has at least a token."""

    def read(self, event: Mapping[str, Any] | None) -> Chunk | None:
        """The chunk of an event; None: the server says that it has sent everything."""
        if event is None:
            self.ended = self.begun  # some servers give no reason
            return Chunk(finish_reason="stop") if self.begun else None
        if event.get("error") or event.get("object") == "error":
            raise EngineError(f"the server gave up: {_message(event)}")
        self.read_usage(event)
        if "content" in event and "choices" not in event:
            event = {"choices": [_of_llama_cpp(event)]}
        if not event.get("choices"):
            return None
        try:
            return self._read_choice(event["choices"][0])
        except (TypeError, ValueError, LookupError, AttributeError):
            shown = json.dumps(event)[:200]
            raise EngineError(f"the server sent an event that makes no sense: {shown}") from None

    @property
    def awaits_usage(self) -> bool:
        return self._tells_usage and self.usage is None

    def read_usage(self, event: Mapping[str, Any]) -> None:
        """Keep what an event says of the cost; some servers say it in every event."""
        told = event.get("usage")
        if not self._tells_usage or not isinstance(told, dict):
            return
        details = told.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        prompt, reply = map(_count, (told.get("prompt_tokens"), told.get("completion_tokens")))
        if prompt is not None and reply is not None:
            self.usage = Usage(prompt, reply, _count(cached) or 0)

    def _read_choice(self, choice: Mapping[str, Any]) -> Chunk | None:
        ids, reason = self._until_end([int(id_) for id_ in choice.get("token_ids") or ()])
        text = None if self._ids or ids else self._text_of(choice)
        if text:
            self._texts += 1
            reason = "length" if self._texts >= self._request.max_new_tokens else None
        reason = reason or _reason(choice.get("finish_reason"))
        self.ended = reason is not None
        if not (ids or text or reason):
            return None
        self.begun = True
        return Chunk(ids=ids, text=text, finish_reason=reason)

    def _text_of(self, choice: Mapping[str, Any]) -> str | None:
        """The text of a choice. A thought in a separate field gets its tags back."""
        said = choice.get("delta") or choice.get("message") or {}
        text = choice.get("text") or said.get("content") or ""
        thought = next((said[key] for key in _THOUGHT_KEYS if said.get(key)), "")
        if isinstance(text, list):
            thought, text = _of_parts(text)
        if not isinstance(text, str) or not isinstance(thought, str):
            raise TypeError("text is expected")
        return self._with_tags(thought, text) or None

    def _with_tags(self, thought: str, text: str) -> str:
        written = ""
        if thought:
            written = ("" if self._thinking else "<think>") + thought.replace("</think>", "")
            self._thinking = True
        if text and self._thinking:
            written, self._thinking = written + "</think>", False
        return written + text

    def _until_end(self, ids: list[int]) -> tuple[tuple[int, ...], FinishReason | None]:
        """The ids up to a stop or the longest reply, and which of them it was.

        Servers differ in whether a stop id is part of the reply; ours never are.
        """
        kept: list[int] = []
        for id_ in ids:
            if id_ in self._request.stop_ids:
                return tuple(kept), "stop"
            kept.append(id_)
            self._ids.append(id_)
            if any(tuple(self._ids[-len(run) :]) == run for run in self._request.stop_sequences):
                return tuple(kept), "stop"
            if len(self._ids) >= self._request.max_new_tokens:
                return tuple(kept), "length"
        return tuple(kept), None


def _count(given: object) -> int | None:
    return given if isinstance(given, int) and given >= 0 else None


_THOUGHT_KEYS = ("reasoning_content", "reasoning", "thinking")
"""vLLM renamed the first to the second (its issue 27755); others have either."""


def _of_parts(parts: Sequence[Any]) -> tuple[str, str]:
    """The thought and the text of a content in parts, as Mistral's servers send it."""
    found = {"thinking": "", "text": ""}
    for part in parts:
        kind, inner = part["type"], part.get("thinking", part.get("text"))
        if isinstance(inner, list):
            inner = "".join(str(piece.get("text", "")) for piece in inner)
        if kind in found:
            found[kind] += inner
    return found["thinking"], found["text"]


def _of_llama_cpp(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """An event of llama.cpp's ``/completion`` as a choice."""
    reason = None
    if event.get("stop"):
        limited = event.get("stop_type") == "limit" or event.get("stopped_limit")
        reason = "length" if limited else "stop"
    return {
        "text": event["content"],
        "token_ids": event.get("tokens") or (),
        "finish_reason": reason,
    }


_STOPPED = ("stop", "eos", "eos_token", "stop_token", "stop_sequence", "end_turn", "completed")
_TOO_LONG = ("length", "max_tokens", "max_length", "limit")


def _reason(given: object) -> FinishReason | None:
    """A server's reason in our words; none of them is empty for an event in the middle."""
    if not given:
        return None
    if given in _STOPPED:
        return "stop"
    if given in _TOO_LONG:
        return "length"
    raise EngineError(f"the server ended the reply: {given}")


async def _usage(
    events: AsyncIterator[Mapping[str, Any] | None], reply: _RemoteReply
) -> Usage | None:
    """The cost of a reply that has ended, which most servers tell behind its end."""
    with suppress(aiohttp.ClientError, TimeoutError):
        async with asyncio.timeout(_USAGE_SECONDS):
            while reply.awaits_usage and (event := await anext(events, None)) is not None:
                reply.read_usage(event)
    return reply.usage


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[Mapping[str, Any] | None]:
    """The server-sent events of a response; None for ``[DONE]``, the last."""
    if response.content_type == "application/json":  # it does not stream
        yield _parsed(await response.read())
        yield None
        return
    async for line in _lines(response):
        if not line.startswith(b"data:"):
            continue
        data = line.removeprefix(b"data:").strip()
        if data == b"[DONE]":
            yield None
            return
        yield _parsed(data)


def _parsed(data: bytes) -> Mapping[str, Any]:
    try:
        event = json.loads(data)
    except ValueError:
        raise aiohttp.ClientPayloadError("the server sent an event that is not JSON") from None
    if not isinstance(event, dict):
        raise aiohttp.ClientPayloadError("the server sent an event that is no JSON object")
    return event


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The lines of a response: aiohttp's own may not be longer than its buffer."""
    parts: list[bytes] = []
    length = 0
    async for piece in response.content.iter_any():
        *whole, rest = piece.split(b"\n")
        for line in whole:
            yield b"".join((*parts, line))
            parts, length = [], 0
        parts.append(rest)
        length += len(rest)
        if length > _LINE_BYTES:
            raise aiohttp.ClientPayloadError("the server sent a line that is too long")
    yield b"".join(parts)


async def _check(response: aiohttp.ClientResponse) -> None:
    if 300 <= response.status < 400:
        target = urljoin(str(response.url), response.headers.get("Location", ""))
        raise EngineRefused(f"it redirects to {target}: set HENJI_OPENAI_BASE_URL to that server")
    if response.status < 300 and response.content_type == "text/html":
        raise EngineRefused("it answers with a web page: HENJI_OPENAI_BASE_URL ends in /v1, mostly")
    if response.status < 400:
        return
    text = await response.text()
    try:
        text = _message(json.loads(text))
    except ValueError:
        text = text.strip()
    sentence = f"status {response.status}: {text[:300]}"
    if response.status in (408, 409, 425, 429) or response.status >= 500:
        raise _RetryableError(sentence)
    raise EngineRefused(sentence)


def _message(answer: Any) -> str:
    """The message in the body of an error: OpenAI nests it, others do not."""
    error = answer.get("error", answer) if isinstance(answer, dict) else answer
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or error
    return str(error)


async def _first_model(http: aiohttp.ClientSession, remote: RemoteServer) -> str:
    url = f"{remote.base_url.rstrip('/')}/models"
    try:
        async with http.get(url) as response:
            await _check(response)
            listed = await response.json(content_type=None)
            return str(listed["data"][0]["id"])
    except (aiohttp.ClientError, TimeoutError, _RetryableError, EngineRefused) as error:
        hint = ""
        if "status 404" in str(error) and not remote.base_url.rstrip("/").endswith("/v1"):
            hint = "; HENJI_OPENAI_BASE_URL ends in /v1, mostly"
        raise ModelError(f"no model server answers at {url}: {error}{hint}") from None
    except (ValueError, LookupError, TypeError):
        raise ModelError(f"{url} lists no model") from None
