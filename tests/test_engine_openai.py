"""The remote engine, against a small server that speaks completions on the wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from aiohttp import web

from core.dialogue import Dialogue
from core.engine import open_engine
from core.engine.openai import OpenAIEngine, RemoteServer
from core.engine_types import Chunk, GenerationRequest
from core.errors import EngineError, EngineRefused, ModelError
from core.models.catalogue import CATALOGUE, find_model
from core.settings import Settings
from core.types import Sampling, Usage
from tests.dialogues import said

REPLY = (101, 102, 103, 104)


@dataclass
class Server:
    """Answers every prompt with `REPLY`, one id an event, and with the faults it was told."""

    takes_ids: bool = True
    gives_ids: bool = True
    failures: list[int] = field(default_factory=list)
    """Statuses of the next requests."""
    breaks_after: int | None = None
    """Events after which the connection is cut."""
    stalls: bool = False
    """Sends one event and then nothing."""
    script: list[str] | None = None
    """The events to send instead."""
    never_ends: bool = False
    """Its next answers are an error without an end."""
    answer: web.Response | None = None
    """What to answer instead."""
    unknown: tuple[str, ...] = ()
    """Parameters that it refuses."""
    refuses_cost_so_far: str = ""
    """What it says to those that ask for the cost with each event."""
    refusals: list[str] = field(default_factory=list)
    """What it says to the next requests that ask for thinking."""
    paths: list[str] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """A client has gone before its reply was through."""

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "the-model"}]})

    async def completions(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        self.requests.append(asked)
        self.paths.append(request.path)
        self.keys.append(request.headers.get("Authorization"))
        if self.failures:
            return web.json_response({"error": {"message": "busy"}}, status=self.failures.pop(0))
        if self.never_ends:
            return await self._never_end(request)
        if self.refuses_cost_so_far and "continuous_usage_stats" in str(asked):
            said = {"error": {"message": self.refuses_cost_so_far}}
            return web.json_response(said, status=400)
        for name in self.unknown:
            if name in asked:
                said = {"error": {"message": f"Unsupported parameter: '{name}' is not supported"}}
                return web.json_response(said, status=400)
        if self.refusals and asked.keys() & {"reasoning_effort", "chat_template_kwargs"}:
            said = {"error": {"message": self.refusals.pop(0)}}
            return web.json_response(said, status=400)
        if self.answer is not None:
            return self.answer
        if not self.takes_ids and "prompt" in asked:
            return web.json_response({"error": {"message": "text is expected"}}, status=400)
        return await self._stream(request, asked)

    async def _stream(self, request: web.Request, asked: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        if self.script is not None:
            for line in self.script:
                named = line if line.startswith("error: ") else f"data: {line}"
                await response.write(f"{named}\r\n\r\n".encode())
            if self.stalls:
                await asyncio.Event().wait()
            return response
        ids = REPLY[: asked.get("max_tokens") or asked.get("n_predict") or 99]
        try:
            for number, id_ in enumerate(ids):
                if self.breaks_after == number and request.transport is not None:
                    request.transport.abort()
                await response.write(self._event(id_, "length" if id_ == ids[-1] else None))
                if self.stalls and len(ids) > 1:
                    await asyncio.Event().wait()
            await response.write(b"data: [DONE]\n\n")
        except (ConnectionError, asyncio.CancelledError):
            self.left.set()
            raise
        return response

    @staticmethod
    async def _never_end(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=400)
        await response.prepare(request)
        while True:
            await response.write(b"no " * 100_000)

    def _event(self, id_: int, reason: str | None) -> bytes:
        choice: dict[str, Any] = {"index": 0, "text": f"<{id_}>", "finish_reason": reason}
        if self.gives_ids:
            choice["token_ids"] = [id_]
        return b": a comment\n\ndata: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[str]:
    """The server's base URL."""
    app = web.Application()
    app.router.add_get("/v1/models", server.models)
    for path in ("/v1/completions", "/v1/chat/completions", "/completion"):
        app.router.add_post(path, server.completions)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}/v1"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def opened(server: Server, **more: Any) -> AsyncIterator[OpenAIEngine]:
    async with serving(server) as url:
        engine = await OpenAIEngine.open(RemoteServer(url, **more))
        server.requests.clear()
        try:
            yield engine
        finally:
            await engine.close()


def request_for(**more: Any) -> GenerationRequest:
    given: dict[str, Any] = {
        "sampling": Sampling(temperature=0.7),
        "max_new_tokens": 10,
        "seed": 5,
        **more,
    }
    return GenerationRequest("r", (7, 8, 9), **given)


async def replied(engine: OpenAIEngine, request: GenerationRequest) -> list[Chunk]:
    return [chunk async for chunk in engine.generate(request)]


async def test_ids_go_out_and_ids_come_back() -> None:
    server = Server()
    async with opened(server, key="sesame") as engine:
        chunks = await replied(engine, request_for())
    assert [id_ for chunk in chunks for id_ in chunk.ids] == list(REPLY)
    assert {chunk.text for chunk in chunks} == {None}
    assert [chunk.finish_reason for chunk in chunks] == [None, None, None, "length"]
    asked = server.requests[0]
    assert asked["prompt"] == [7, 8, 9]
    assert asked["model"] == "the-model"
    assert asked["return_token_ids"] is asked["stream"] is True
    assert (asked["temperature"], asked["seed"], asked["max_tokens"]) == (0.7, 5, 10)
    assert not {"top_k", "repetition_penalty", "stop_token_ids"} & asked.keys()
    assert set(server.keys) == {"Bearer sesame"}


async def test_a_server_that_cannot_seed_is_told_no_seed() -> None:
    server = Server()
    async with opened(server, seeds=False) as engine:
        await replied(engine, request_for())
    assert "seed" not in server.requests[0]


async def test_the_card_s_sampling_is_asked_for_in_the_server_s_words() -> None:
    server = Server()
    sampling = Sampling(temperature=0.7, top_k=50, top_p=0.9, repetition_penalty=1.1)
    async with opened(server, model="named") as engine:
        await replied(engine, request_for(sampling=sampling, stop_ids=frozenset([3, 2])))
    asked = server.requests[0]
    assert (asked["top_k"], asked["top_p"], asked["repetition_penalty"]) == (50, 0.9, 1.1)
    assert asked["stop_token_ids"] == [2, 3]
    assert asked["model"] == "named"


async def test_text_comes_only_from_a_server_without_ids() -> None:
    async with opened(Server(gives_ids=False)) as engine:
        chunks = await replied(engine, request_for())
    assert "".join(chunk.text or "" for chunk in chunks) == "<101><102><103><104>"
    assert not any(chunk.ids for chunk in chunks)


def event(**choice: Any) -> str:
    return json.dumps({"choices": [{"index": 0, **choice}]})


# As the servers' own threads report their streams, on github: vllm-project/vllm issues 2266 (a
# reason twice) and 27755, sgl-project/sglang pull 30917 (ids on request), ggml-org/llama.cpp pulls
# 15001 (ids in) and 10853 (ids out), huggingface/text-generation-inference pulls 2336 (an empty
# reason), 2344 (`eos_token`) and 2221 (no [DONE]), mudler/LocalAI issues 1194 (no reason) and 5102
# (an empty one), ollama/ollama pull 6188 (a prompt is a string), QwenLM/qwen-code issue
# 9882 (capitals).
DIALECTS: dict[str, tuple[list[str], list[int], str, str]] = {
    "vLLM: ids beside text, and an end with what was held back": (
        [
            json.dumps({"choices": [], "usage": None}),
            event(text="a", token_ids=[1, 2], prompt_token_ids=[7] * 200_000, finish_reason=None),
            event(text="b", token_ids=[3], finish_reason=None),
            event(text="\ufffd", token_ids=[], finish_reason="stop"),
            "[DONE]",
        ],
        [1, 2, 3], "", "stop",
    ),
    "vLLM of before: no ids": (
        [event(text="a", finish_reason=None), event(text="", finish_reason="stop"), "[DONE]"],
        [], "a", "stop",
    ),
    "vLLM: a reason twice, then what it cost": (
        [
            event(text="0", finish_reason=None),
            event(text="", finish_reason="stop"),
            json.dumps({"choices": [{"text": "", "finish_reason": "stop"}], "usage": {}}),
            "[DONE]",
        ],
        [], "0", "stop",
    ),
    "TGI of before: no [DONE]": (
        [event(text="a", finish_reason=""), event(text="b", finish_reason="length")],
        [], "ab", "length",
    ),
    "SGLang: ids are null": (
        [
            event(text="a", token_ids=None, matched_stop=None, finish_reason=None),
            event(text="b", token_ids=None, finish_reason=""),
            event(text="", token_ids=None, finish_reason="stop"),
            "[DONE]",
        ],
        [], "ab", "stop",
    ),
    "llama.cpp: no reason in the middle, and an empty error": (
        [
            json.dumps({"error": None, "choices": [{"text": "a", "logprobs": None}]}),
            event(text="b", finish_reason="length"),
            "[DONE]",
        ],
        [], "ab", "length",
    ),
    "TGI: reasons of its own": (
        [event(text="a", finish_reason=""), event(text="b", finish_reason="eos_token"), "[DONE]"],
        [], "ab", "stop",
    ),
    "LocalAI: deltas, and no reason at all": (
        [event(delta={"content": "a"}), event(delta={"content": "b"}), "[DONE]"],
        [], "ab", "stop",
    ),
    "ollama: everything at once, and no reason": (
        [event(text="a b c", finish_reason=None), "[DONE]"],
        [], "a b c", "stop",
    ),
    "a gateway to Gemini: reasons in capitals": (
        [event(text="a", finish_reason=None), event(text="b", finish_reason="MAX_TOKENS")],
        [], "ab", "length",
    ),
    "a server that knows no limit": (
        [event(token_ids=list(range(1, 9))), event(token_ids=list(range(9, 20)))],
        list(range(1, 11)), "", "length",
    ),
    "a server that knows no limit and gives no ids": (
        [event(text=str(number)) for number in range(20)],
        [], "0123456789", "length",
    ),
}  # fmt: skip


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
async def test_the_dialects_of_real_servers_are_understood(
    dialect: tuple[list[str], list[int], str, str],
) -> None:
    events, ids, text, reason = dialect
    server = Server()
    async with opened(server) as engine:
        server.script = events
        chunks = await replied(engine, request_for())
    assert [id_ for chunk in chunks for id_ in chunk.ids] == ids
    assert "".join(chunk.text or "" for chunk in chunks) == text
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == [reason]


def delta(reason: str | None = None, **said: Any) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": said, "finish_reason": reason}]})


# mistralai's servers send a content in parts (docs.mistral.ai, capabilities/reasoning, 2026); the
# costs and thoughts as in vllm-project/vllm issues 6083 and 7262 (costs behind the end, or in every
# event), openai-php/client issue 780 (llama.cpp: `reasoning_content` and `timings`), ollama's
# openai/openai.go (`reasoning`, costs in an event without choices) and api-docs.deepseek.com
# (thinking_mode: costs in the last choice's event).
CHATS: dict[str, tuple[list[str], str, str]] = {
    "ollama: a role, deltas, a reason": (
        [delta(role="assistant", content="a"), delta(content="b"), delta("stop", content="")],
        "ab", "stop",
    ),
    "a hosted one: null in the middle, and the costs behind the reason": (
        [
            delta(role="assistant", content="", refusal=None),
            delta(content="a"),
            delta("length"),
            json.dumps({"choices": [], "usage": {"prompt_tokens": 3}}),
            "[DONE]",
        ],
        "a", "length",
    ),
    "vLLM: a thought in `reasoning`": (
        [delta(reasoning="hm"), delta(reasoning=" so"), delta(content="a"), delta("stop")],
        "<think>hm so</think>a", "stop",
    ),
    "SGLang: a thought in `reasoning_content`, and both at once": (
        [
            delta(reasoning_content="hm", content=None),
            delta("stop", reasoning_content="!", content="a"),
        ],
        "<think>hm!</think>a", "stop",
    ),
    "Mistral: a content in parts": (
        [
            delta(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]),
            delta(content=[{"type": "text", "text": "a"}]),
            delta("stop", content=""),
        ],
        "<think>hm</think>a", "stop",
    ),
    "LocalAI: an empty reason": (
        [delta("", content="a"), delta("", content="b"), "[DONE]"],
        "ab", "stop",
    ),
    "ollama's own name for a thought": (
        [delta(content="", thinking="hm"), delta(content="a"), delta("stop", content="")],
        "<think>hm</think>a", "stop",
    ),
    "vLLM on the way to its new name: a thought twice": (
        [delta(reasoning="hm", reasoning_content="hm"), delta(content="a"), delta("stop")],
        "<think>hm</think>a", "stop",
    ),
}  # fmt: skip


def costs(prompt: int, reply: int, **more: Any) -> dict[str, Any]:
    whole = {"prompt_tokens": prompt, "completion_tokens": reply, "total_tokens": prompt + reply}
    return {"usage": {**whole, **more}}


def with_costs(event: str, prompt: int, reply: int, **more: Any) -> str:
    return json.dumps(json.loads(event) | costs(prompt, reply, **more))


COSTS: dict[str, tuple[list[str], Usage | None]] = {
    "vLLM: behind the end, null before": (
        [
            json.dumps(json.loads(delta(content="a")) | {"usage": None}),
            delta("stop"),
            json.dumps({
                "choices": [], **costs(21, 5, prompt_tokens_details={"cached_tokens": 16}),
            }),
            "[DONE]",
        ],
        Usage(21, 5, 16),
    ),
    "vLLM: in every event": (
        [
            with_costs(delta(content="a"), 21, 1),
            with_costs(delta("stop", content="b"), 21, 2),
            json.dumps({"choices": [], **costs(21, 2, prompt_tokens_details=None)}),
            "[DONE]",
        ],
        Usage(21, 2),
    ),
    "llama.cpp: with its timings": (
        [
            delta(reasoning_content="hm"),
            delta(content="a"),
            delta("stop"),
            json.dumps({"choices": [], "timings": {"cache_n": 7}, **costs(9, 3)}),
            "[DONE]",
        ],
        Usage(9, 3),
    ),
    "DeepSeek: in the event of the end": (
        [
            delta(reasoning_content="hm"),
            with_costs(
                delta("stop", content="a"), 9, 30,
                completion_tokens_details={"reasoning_tokens": 28}, prompt_cache_hit_tokens=0,
            ),
            "[DONE]",
        ],
        Usage(9, 30),
    ),
    "a server that tells none": ([delta(content="a"), delta("stop"), "[DONE]"], None),
    "a server that breaks off behind the end": ([delta(content="a"), delta("stop")], None),
    "costs that make no sense": (
        [
            delta("stop", content="a"),
            json.dumps({"choices": [], "usage": {"prompt_tokens": "9", "completion_tokens": -1}}),
            "[DONE]",
        ],
        None,
    ),
    "costs that no counter holds": (
        [
            delta("stop", content="a"),
            json.dumps({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 1e30}}),
            json.dumps({"choices": [], "usage": {"prompt_tokens": 10**30, "completion_tokens": 1}}),
            "[DONE]",
        ],
        None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("dialect", COSTS.values(), ids=COSTS)
async def test_the_costs_of_a_chat_are_those_that_the_server_tells(
    dialect: tuple[list[str], Usage | None],
) -> None:
    events, usage = dialect
    server = Server(takes_ids=False, gives_ids=False)
    async with opened(server, api="chat") as engine:
        server.script = events
        chunks = await replied(engine, chat_request())
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["stop"]
    assert chunks[-1].usage == usage
    asked = server.requests[-1]["stream_options"]
    assert asked == {"include_usage": True, "continuous_usage_stats": True}


async def test_the_cost_so_far_is_told_with_each_piece_of_a_chat() -> None:
    server = Server(takes_ids=False, gives_ids=False)
    async with opened(server, api="chat") as engine:
        server.script = COSTS["vLLM: in every event"][0]
        chunks = await replied(engine, chat_request())
    assert [chunk.usage for chunk in chunks] == [Usage(21, 1), Usage(21, 2)]


# OpenAI's, Groq's and Gemini's sentences, those of pydantic, and one that names only the whole.
@pytest.mark.parametrize(
    "said",
    [
        "Unknown parameter: 'stream_options.continuous_usage_stats'.",
        "property 'continuous_usage_stats' is unsupported",
        "Unknown name \"continuous_usage_stats\" at 'stream_options': Cannot find field.",
        "extra_forbidden: ['body', 'stream_options', 'continuous_usage_stats']",
        "stream_options: Extra inputs are not permitted",
    ],
)
async def test_a_server_that_tells_the_cost_at_the_end_alone_is_asked_for_that(said: str) -> None:
    server = Server(takes_ids=False, gives_ids=False, refuses_cost_so_far=said)
    async with opened(server, api="chat") as engine:
        server.script = COSTS["vLLM: behind the end, null before"][0]
        chunks = await replied(engine, chat_request())
    assert [chunk.usage for chunk in chunks] == [None, Usage(21, 5, 16)]
    assert [one["stream_options"] for one in server.requests] == [{"include_usage": True}]


async def test_a_server_that_tells_no_cost_is_not_asked_for_it() -> None:
    server = Server(takes_ids=False, gives_ids=False, unknown=("stream_options",))
    async with opened(server, api="chat") as engine:
        await replied(engine, chat_request())
    assert ["stream_options" in one for one in server.requests] == [False]


async def test_a_server_that_keeps_the_costs_to_itself_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("core.engine.openai_events._USAGE_SECONDS", 0.05)
    server = Server(takes_ids=False, gives_ids=False)
    async with opened(server, api="chat") as engine:
        server.script, server.stalls = [delta("stop", content="a")], True
        chunks = await asyncio.wait_for(replied(engine, chat_request()), 10)
    assert (chunks[-1].finish_reason, chunks[-1].usage) == ("stop", None)


ON: dict[str, Any] = {
    "chat_template_kwargs": {"enable_thinking": True, "thinking": True},
    "thinking": {"type": "enabled"},
    "reasoning_effort": "medium",
}
OFF: dict[str, Any] = {
    "chat_template_kwargs": {"enable_thinking": False, "thinking": False},
    "thinking": {"type": "disabled"},
    "reasoning_effort": "none",
}


def switches(asked: dict[str, Any]) -> dict[str, Any]:
    return {name: asked[name] for name in ON if name in asked}


async def test_a_chat_server_is_asked_to_think_or_not() -> None:
    server = Server(gives_ids=False)
    async with opened(server, api="chat") as engine:
        for thinking in ("default", "on", "off"):
            await replied(engine, chat_request(thinking=thinking))
    assert list(map(switches, server.requests)) == [{}, ON, OFF]


# The refusals of hosted models (langchain_dart issue 712, toponymy pull 148, llm_wiki issue 336),
# of ollama (its issue 12561, llm-ollama pull 54), and of servers that validate with pydantic.
REFUSALS: dict[str, tuple[str, list[str], dict[str, Any]]] = {
    "a hosted model that does not reason": (
        "on",
        [f"Unrecognized request argument supplied: {name}" for name in ON]
        + ["Unrecognized request argument supplied: reasoning_effort"],
        {},
    ),
    "a hosted model that always reasons": (
        "off",
        [
            "Unrecognized request arguments supplied: chat_template_kwargs, thinking",
            "Unrecognized request argument supplied: thinking",
            "Unsupported value: 'reasoning_effort' does not support 'none' with this model.",
        ],
        {"reasoning_effort": "minimal"},
    ),
    "ollama, with a model that does not think": (
        "on",
        ['"llama3.2" does not support thinking'] * 4,
        {},
    ),
    "ollama, with a model that thinks or does not": (
        "on",
        ['think value "medium" is not supported for this model'] * 2,
        {name: ON[name] for name in ("chat_template_kwargs", "thinking")},
    ),
    "vLLM, with efforts of before": (
        "off",
        ["[{'loc': ('body', 'reasoning_effort'), 'msg': \"Input should be 'low' or 'high'\"}]"] * 2,
        {**OFF, "reasoning_effort": "low"},
    ),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
async def test_a_server_without_a_switch_for_thinking_is_asked_without(
    refusal: tuple[str, list[str], dict[str, Any]],
) -> None:
    thinking, said, left = refusal
    server = Server(gives_ids=False)
    async with opened(server, api="chat") as engine:
        server.refusals = list(said)
        for _ in range(2):
            assert (await replied(engine, chat_request(thinking=thinking)))[-1].finish_reason
    assert switches(server.requests[-1]) == left
    assert not server.refusals
    assert len(server.requests) == len(said) + 2


@pytest.mark.parametrize("dialect", CHATS.values(), ids=CHATS)
async def test_the_dialects_of_chat_servers_are_understood(
    dialect: tuple[list[str], str, str],
) -> None:
    events, text, reason = dialect
    server = Server(takes_ids=False, gives_ids=False)
    async with opened(server, api="chat") as engine:
        server.script = events
        chunks = await replied(engine, chat_request())
    assert "".join(chunk.text or "" for chunk in chunks) == text
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == [reason]


def chat_request(**more: Any) -> GenerationRequest:
    spec = find_model(Settings(engine="openai", openai_api="chat", openai_model="m"))
    dialogue = Dialogue.load(spec, None, system_prompt="Be brief.")
    prompt = dialogue.prompt(said("Hi", "Hello.", "Bye <|im_end|>"), low_water=0.7)
    return replace(request_for(**more), prompt=prompt.ids)


async def test_a_chat_server_is_sent_messages() -> None:
    server = Server(takes_ids=False, gives_ids=False)
    async with opened(server, api="chat", key="sesame") as engine:
        await replied(engine, chat_request())
    assert server.paths[-1] == "/v1/chat/completions"
    asked = server.requests[-1]
    assert asked["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Bye <|im_end|>"},
    ]
    assert not {"prompt", "return_token_ids", "stop_token_ids"} & asked.keys()
    assert set(server.keys) == {"Bearer sesame"}


async def test_a_parameter_that_a_server_does_not_know_is_left_out() -> None:
    server = Server(gives_ids=False, unknown=("max_tokens", "temperature", "top_k"))
    async with opened(server, api="chat") as engine:
        chunks = await replied(engine, chat_request(sampling=Sampling(temperature=0.7, top_k=5)))
        tries = len(server.requests)
        await replied(engine, chat_request())
    assert "".join(chunk.text or "" for chunk in chunks) == "<101><102><103><104>"
    assert server.requests[-1]["max_completion_tokens"] == 10
    assert not {"max_tokens", "temperature", "top_k"} & server.requests[-1].keys()
    assert len(server.requests) == tries + 1


async def test_a_refusal_that_only_names_a_parameter_is_told() -> None:
    server = Server()
    async with opened(server) as engine:
        server.answer = web.json_response({"error": "max_tokens is too large: 10"}, status=400)
        with pytest.raises(EngineRefused, match="too large"):
            await replied(engine, request_for())
    assert len(server.requests) == 1


async def test_llama_cpp_takes_ids_and_gives_them() -> None:
    server = Server()
    async with opened(server, api="llama.cpp") as engine:
        server.script = [
            json.dumps({"index": 0, "content": "a", "tokens": [5], "stop": False}),
            json.dumps({"index": 0, "content": "b", "tokens": [6], "stop": False}),
            json.dumps({"content": "", "tokens": [], "stop": True, "stop_type": "limit"}),
        ]
        chunks = await replied(engine, request_for(sampling=Sampling(repetition_penalty=1.1)))
    assert server.paths[-1] == "/completion"
    assert [id_ for chunk in chunks for id_ in chunk.ids] == [5, 6]
    assert chunks[-1].finish_reason == "length"
    asked = server.requests[-1]
    assert (asked["prompt"], asked["n_predict"]) == ([7, 8, 9], 10)
    assert (asked["repeat_penalty"], asked["repeat_last_n"]) == (1.1, -1)
    assert (asked["top_k"], asked["min_p"], asked["return_tokens"]) == (0, 0, True)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda: web.Response(text="<html>hello</html>", content_type="text/html"), "a web page"),
        (
            lambda: web.Response(status=301, headers={"Location": "https://other/v1/completions"}),
            "redirects to https://other/v1/completions",
        ),
        (lambda: web.json_response({"error": {"message": "no memory"}}), "no memory"),
        (lambda: web.json_response({"detail": "Not Found"}, status=404), "Not Found"),
        (lambda: web.json_response([1]), "no JSON object"),
        (lambda: web.Response(text="{", content_type="application/json"), "not JSON"),
        (lambda: web.Response(text=": ping\n\n: ping\n\n"), "broke off"),
        (lambda: web.Response(status=400, body="満員".encode("cp932")), "status 400"),
        (
            lambda: web.Response(
                status=400, body=b"61", headers={"Content-Type": "text/plain; charset=hex"}
            ),
            "status 400",
        ),
        (lambda: web.Response(status=400, text="[" * 100_000), "status 400"),
        (lambda: web.Response(text=f"data: {'[' * 100_000}\n\n"), "not JSON"),
    ],
)
async def test_what_is_no_stream_is_told_in_one_sentence(
    answer: Any, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.engine.openai._FIRST_PAUSE", 0.001)
    server = Server()
    async with opened(server) as engine:
        server.answer = answer()
        monkeypatch.setattr(Server, "answer", property(lambda _: answer(), lambda *_: None))
        with pytest.raises((EngineError, EngineRefused), match=told) as caught:
            await replied(engine, request_for())
    assert "\n" not in str(caught.value)


async def test_a_whole_answer_in_place_of_a_stream_is_read() -> None:
    whole = {
        "choices": [{"message": {"content": "Paris.", "reasoning": "hm"}, "finish_reason": "stop"}]
    }
    server = Server()
    async with opened(server, api="chat") as engine:
        server.answer = web.json_response(whole)
        chunks = await replied(engine, chat_request())
    assert "".join(chunk.text or "" for chunk in chunks) == "<think>hm</think>Paris."
    assert chunks[-1].finish_reason == "stop"


async def test_half_of_a_character_is_replaced() -> None:
    server = Server(takes_ids=False, gives_ids=False)
    async with opened(server, api="chat") as engine:
        server.script = [delta(content="a\ud83d"), delta("stop", content="\ud83d\ude00")]
        chunks = await replied(engine, chat_request())
    assert [chunk.text for chunk in chunks] == ["a\ufffd", "\U0001f600"]


async def test_a_thought_of_a_chat_server_is_no_part_of_the_reply() -> None:
    spec = find_model(Settings(engine="openai", openai_api="chat", openai_model="m"))
    reply = Dialogue.load(spec, None).reply()
    shown = "".join(reply.push((), text) for text in ("<think>hm", " so", "</think>Paris", "."))
    assert (shown, reply.finish("stop")) == ("Paris.", ("Paris.", "stop"))


@pytest.mark.parametrize(
    "odd",
    [
        "[]", "3", "null", '{"choices": 3}', '{"choices": [3]}', '{"choices": [{"text": 3}]}',
        '{"choices": [{"token_ids": "abc"}]}', '{"choices": [{"token_ids": [null]}]}',
        '{"choices": [{"token_ids": [1e999]}]}',
        '{"error": {"message": "out of memory"}}', '{"object": "error", "message": "no"}',
        '{"choices": [{"text": "", "finish_reason": "abort"}]}', "not JSON",
    ],
)  # fmt: skip
async def test_an_odd_event_is_an_error_of_one_sentence(odd: str) -> None:
    server = Server()
    async with opened(server) as engine:
        server.script = [event(text="a"), odd]
        with pytest.raises(EngineError, match="server") as caught:
            await replied(engine, request_for())
    assert "\n" not in str(caught.value)


async def test_an_error_in_a_field_of_its_own_is_told() -> None:
    """As llama.cpp's server sent it before its pull 16109."""
    server = Server()
    async with opened(server) as engine:
        server.script = [event(text="a"), 'error: {"code": 400, "message": "no room"}', "[DONE]"]
        with pytest.raises(EngineError, match=r"gave up: no room$"):
            await replied(engine, request_for())


async def test_a_server_that_refuses_ids_is_refused_in_one_sentence() -> None:
    async with serving(Server(takes_ids=False)) as url:
        with pytest.raises(ModelError, match=r"refuses a prompt of token ids .*text is expected"):
            await OpenAIEngine.open(RemoteServer(url))


async def test_an_address_without_its_end_is_told() -> None:
    async with serving(Server()) as url:
        with pytest.raises(ModelError, match=r"404.*HENJI_OPENAI_BASE_URL ends in /v1"):
            await OpenAIEngine.open(RemoteServer(url.removesuffix("/v1")))


async def test_a_server_that_is_not_there_is_named() -> None:
    async with serving(Server()) as url:
        pass
    with pytest.raises(ModelError, match=url):
        await OpenAIEngine.open(RemoteServer(url))


async def test_stops_hold_even_where_the_server_does_not_know_them() -> None:
    server = Server()
    async with opened(server) as engine:
        by_id = await replied(engine, request_for(stop_ids=frozenset([103])))
        by_run = await replied(engine, request_for(stop_sequences=((102, 103),)))
    assert [id_ for chunk in by_id for id_ in chunk.ids] == [101, 102]
    assert [id_ for chunk in by_run for id_ in chunk.ids] == [101, 102, 103]
    assert by_id[-1].finish_reason == by_run[-1].finish_reason == "stop"


async def test_a_busy_server_is_asked_again_before_the_first_token() -> None:
    server = Server()
    async with opened(server) as engine:
        server.failures = [503, 429]
        chunks = await replied(engine, request_for())
    assert len(server.requests) == 3
    assert [id_ for chunk in chunks for id_ in chunk.ids] == list(REPLY)


async def test_a_reply_that_breaks_off_is_not_begun_again() -> None:
    server = Server()
    async with opened(server) as engine:
        server.breaks_after = 2
        seen: list[int] = []
        with pytest.raises(EngineError):  # noqa: PT012  # what came before it is kept
            async for chunk in engine.generate(request_for()):
                seen += chunk.ids
        assert engine.stats().running == 0
    assert seen == [101, 102]
    assert len(server.requests) == 1


async def test_a_request_that_the_server_will_never_take_is_refused_at_once() -> None:
    server = Server()
    async with opened(server) as engine:
        server.failures = [400]
        with pytest.raises(EngineRefused, match="busy"):
            await replied(engine, request_for())
    assert len(server.requests) == 1


async def test_a_key_that_the_server_repeats_is_told_to_nobody() -> None:
    server, key = Server(), "sk-open-sesame-1001"
    async with opened(server, key=key) as engine:
        for refusal in (f"Incorrect API key: {key}", " " * 280 + key):
            server.answer = web.json_response({"error": {"message": refusal}}, status=401)
            with pytest.raises(EngineError) as refused:
                await replied(engine, request_for())
            server.answer = None
            server.script = [json.dumps({"error": {"message": refusal}})]
            with pytest.raises(EngineError) as ended:
                await replied(engine, request_for())
            assert "sk-open" not in f"{refused.value} {ended.value}"


async def test_an_error_without_an_end_is_read_only_in_part() -> None:
    server = Server()
    async with opened(server) as engine:
        server.never_ends = True
        with pytest.raises(EngineRefused, match="status 400: no no no"):
            await asyncio.wait_for(replied(engine, request_for()), 10)


async def test_a_silent_server_is_given_up() -> None:
    async with opened(Server(stalls=True), silence=0.2) as engine:
        with pytest.raises(EngineError):
            await asyncio.wait_for(replied(engine, request_for()), 10)


async def test_closing_the_iterator_closes_the_connection() -> None:
    server = Server(stalls=True)
    async with opened(server, slots=4) as engine:
        stream = engine.generate(request_for())
        assert (await anext(stream)).ids == (101,)
        assert (engine.stats().running, engine.stats().slots) == (1, 3)
        await stream.aclose()
        await asyncio.wait_for(server.left.wait(), 10)
        assert engine.stats().running == 0


async def test_a_model_with_an_adapter_is_asked_for_by_the_adapters_name() -> None:
    server, spec = Server(), replace(CATALOGUE["rinna-ppo"], adapter="liked")
    async with serving(server) as url:
        settings = Settings(engine="openai", openai_base_url=url, openai_model="the-model")
        engine = await open_engine(settings, spec, pytest.fail, pytest.fail)
        async for _ in engine.generate(request_for()):
            pass
        await engine.close()
    assert {asked["model"] for asked in server.requests} == {"liked"}
