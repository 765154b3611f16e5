"""The events of a remote server, as the chunks of a reply and its cost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import aiohttp

from core.engine_types import Chunk, GenerationRequest
from core.errors import EngineError
from core.types import FinishReason, Usage

_LINE_BYTES = 1 << 26
"""The longest line: the first event may repeat the prompt's ids, or its log probabilities."""
_MOST_TOKENS = 1 << 32
"""The largest cost that is believed: Redis adds costs as 64-bit numbers."""
_USAGE_SECONDS = 2.0
"""The longest wait for the cost of a chat's reply after its end."""


class RemoteReply:
    """One reply so far. It ends at the request's own stops and length."""

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
            raise EngineError(f"the server gave up: {message_of(event)}")
        self.read_usage(event)
        if "content" in event and "choices" not in event:
            event = {"choices": [_of_llama_cpp(event)]}
        if not event.get("choices"):
            return None
        try:
            return self._read_choice(event["choices"][0])
        except (TypeError, ValueError, LookupError, AttributeError, OverflowError):
            shown = json.dumps(event)[:200]
            raise EngineError(f"the server sent an event that makes no sense: {shown}") from None

    @property
    def awaits_usage(self) -> bool:
        return self._tells_usage and self.usage is None

    def read_usage(self, event: Mapping[str, Any]) -> None:
        """Keep the cost that an event tells; some servers tell it in every event."""
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
        said = self._with_tags(thought, text)
        # half of a character, as of a server that counts in UTF-16, has no encoding
        return said.encode("utf-16", "surrogatepass").decode("utf-16", "replace") or None

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
    return given if isinstance(given, int) and 0 <= given <= _MOST_TOKENS else None


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
    """A server's finish reason as ours; None for an event before the end."""
    if not given:
        return None
    known = str(given).lower()
    if known in _STOPPED:
        return "stop"
    if known in _TOO_LONG:
        return "length"
    raise EngineError(f"the server ended the reply: {given}")


async def usage_of(
    events: AsyncIterator[Mapping[str, Any] | None], reply: RemoteReply
) -> Usage | None:
    """The cost of a reply that has ended. Most servers tell it after the end."""
    with suppress(aiohttp.ClientError, TimeoutError):
        async with asyncio.timeout(_USAGE_SECONDS):
            while reply.awaits_usage and (event := await anext(events, None)) is not None:
                reply.read_usage(event)
    return reply.usage


async def events_of(response: aiohttp.ClientResponse) -> AsyncIterator[Mapping[str, Any] | None]:
    """The server-sent events of a response; None for ``[DONE]``, the last."""
    if response.content_type == "application/json":  # it does not stream
        yield _parsed(await response.read())
        yield None
        return
    async for line in _lines(response):
        if line.startswith(b"error:"):  # llama.cpp's server before its pull 16109
            yield {"error": _parsed(line.removeprefix(b"error:"))}
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
    except (ValueError, RecursionError):
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


def message_of(answer: Any) -> str:
    """The message in the body of an error: OpenAI nests it, others do not."""
    error = answer.get("error", answer) if isinstance(answer, dict) else answer
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or error
    return str(error)
