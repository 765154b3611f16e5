"""The ways of serving that `henji bench engine` compares, each in a process of its own.

Run as ``python -m tests.benchmarks._engine_contenders NAME`` with a `Task` as JSON on standard
input; prints a `Result` as JSON on its last line.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from glob import glob
from typing import Any, Protocol, TypeAlias, cast

import torch
from transformers import GenerationConfig, GPTNeoXConfig, GPTNeoXForCausalLM

from core.engine.openai import OpenAIEngine, RemoteServer
from core.engine.torch import Limits, TorchEngine
from core.engine.torch.attention import CacheShape
from core.engine_types import GenerationRequest
from core.ports import Engine
from core.types import Sampling

SAMPLING = Sampling(temperature=0.7, repetition_penalty=1.1)


@dataclass(frozen=True, slots=True)
class Task:
    """What a contender is to do."""

    layers: int
    hidden: int
    heads: int
    dtype: str
    device: str
    threads: int
    concurrent: list[int]
    new_tokens: int
    conversations: list[list[tuple[int, int]]]
    """Of each thread, the lengths of the user's turns and of the replies; none: leave it out."""
    vocabulary: int = 32_000
    context: int = 2048


@dataclass(slots=True)
class Result:
    """Tokens a second by the number of concurrent requests; seconds for the conversations."""

    tokens_per_second: dict[int, float] = field(default_factory=dict)
    whole_run: float | None = None
    first_token: list[float] = field(default_factory=list)
    """Median seconds to the first token, turn by turn."""


@dataclass(frozen=True, slots=True)
class Reply:
    ids: list[int]
    first_token: float
    """Seconds; nan where the contender gives a reply only whole."""


class Contender(Protocol):
    """Takes prompts, with the length of the reply to each; all of them at once."""

    async def replies(self, asked: list[tuple[list[int], int]]) -> list[Reply]: ...

    rounds: bool
    """It answers only whole batches, so that conversations go on in step."""


def model_for(task: Task) -> Any:
    """Random weights, the same for every contender."""
    torch.set_num_threads(task.threads)
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=task.vocabulary,
        hidden_size=task.hidden,
        num_hidden_layers=task.layers,
        num_attention_heads=task.heads,
        intermediate_size=4 * task.hidden,
        max_position_embeddings=task.context,
        use_parallel_residual=False,
        bos_token_id=2,
        eos_token_id=3,
    )
    with torch.device(task.device):
        model = GPTNeoXForCausalLM(config)
    model.to(getattr(torch, task.dtype))
    model.requires_grad_(requires_grad=False)
    return model.train(mode=False)


# -- the contenders -------------------------------------------------------------------------------


@dataclass(slots=True)
class Streaming:
    """An engine of ours."""

    engine: Engine
    rounds: bool = False

    async def replies(self, asked: list[tuple[list[int], int]]) -> list[Reply]:
        return await asyncio.gather(*(self._reply(*one) for one in asked))

    async def _reply(self, prompt: list[int], new: int) -> Reply:
        start, first, ids = time.perf_counter(), 0.0, list[int]()
        request = GenerationRequest(str(id(prompt)), prompt, SAMPLING, new, seed=len(prompt))
        async for chunk in self.engine.generate(request):
            first = first or time.perf_counter() - start
            ids += chunk.ids
        return Reply(ids, first)


@dataclass(slots=True)
class Generate:
    """transformers' `generate`: one prompt after the other, or all of them in a padded batch."""

    model: Any
    together: bool
    rounds: bool = True

    async def replies(self, asked: list[tuple[list[int], int]]) -> list[Reply]:
        if self.together:
            return self._batch(asked)
        return [reply for one in asked for reply in self._batch([one])]

    def _batch(self, asked: list[tuple[list[int], int]]) -> list[Reply]:
        longest, new = max(len(p) for p, _ in asked), max(n for _, n in asked)
        ids = torch.zeros(len(asked), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, (prompt, _) in enumerate(asked):
            ids[row, -len(prompt) :] = torch.tensor(prompt)
            mask[row, -len(prompt) :] = 1
        out = self.model.generate(
            ids.to(self.model.device),
            attention_mask=mask.to(self.model.device),
            generation_config=_generation(new),
        )
        rows = out[:, longest:].tolist()
        return [Reply(row[:n], float("nan")) for row, (_, n) in zip(rows, asked, strict=True)]


def _generation(new: int) -> Any:
    return cast("Any", GenerationConfig)(
        max_new_tokens=new,
        do_sample=True,
        temperature=SAMPLING.temperature,
        repetition_penalty=SAMPLING.repetition_penalty,
        top_k=0,
        eos_token_id=None,
        pad_token_id=0,
    )


class Continuous:
    """transformers' continuous batching. It knows no repetition penalty for single requests."""

    rounds = False

    def __init__(self, model: Any) -> None:
        config = _generation(64)
        config.repetition_penalty = 1.0
        config.eos_token_id = -1
        self._manager = model.init_continuous_batching(generation_config=config)
        self._manager.start()
        self._waiting: dict[str, Callable[[Any], object]] = {}
        self._count = 0
        threading.Thread(target=self._collect, daemon=True).start()

    async def replies(self, asked: list[tuple[list[int], int]]) -> list[Reply]:
        return await asyncio.gather(*(self._reply(*one) for one in asked))

    async def _reply(self, prompt: list[int], new: int) -> Reply:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        self._count += 1
        name, start = f"r{self._count}", time.perf_counter()
        self._waiting[name] = lambda out: loop.call_soon_threadsafe(done.set_result, out)
        self._manager.add_request(prompt, name, max_new_tokens=new, record_timestamps=True)
        out = await done
        stamps = out.timestamps or [float("nan")]
        return Reply(list(out.generated_tokens), stamps[0] - start)

    def _collect(self) -> None:
        while True:
            out = self._manager.get_result(timeout=0.05)
            if out is not None and out.is_finished():
                self._waiting.pop(out.request_id)(out)


class CTranslate2:
    """CTranslate2 in int8: another precision, set apart in the table."""

    rounds = True

    def __init__(self, model: Any, task: Task) -> None:
        # Behind our own packages: it has a numpy beside it.
        sys.path += glob(".venv-peers/engine/lib/python*/site-packages")
        import ctranslate2  # type: ignore[import-not-found]  # a peer, in an environment of its own
        from ctranslate2.converters.transformers import (  # type: ignore[import-not-found]
            GPTNeoXLoader,
        )

        model.embed_out = model.lm_head  # the names that its converter knows
        model.config.rotary_pct = 1.0
        spec = GPTNeoXLoader().get_model_spec(model)
        spec.config.layer_norm_epsilon = model.config.layer_norm_eps
        spec.register_vocabulary([str(id_) for id_ in range(task.vocabulary)])
        spec.config.bos_token, spec.config.eos_token, spec.config.unk_token = "2", "3", "1"
        spec.validate()
        spec.optimize(quantization="int8")
        with tempfile.TemporaryDirectory() as directory:
            spec.save(directory)
            self._generator = ctranslate2.Generator(
                directory, device="cpu", compute_type="int8", intra_threads=task.threads
            )

    async def replies(self, asked: list[tuple[list[int], int]]) -> list[Reply]:
        new = max(n for _, n in asked)
        results = self._generator.generate_batch(
            [[str(id_) for id_ in prompt] for prompt, _ in asked],
            max_length=new,
            min_length=new,
            sampling_topk=0,
            sampling_temperature=SAMPLING.temperature,
            repetition_penalty=SAMPLING.repetition_penalty,
            include_prompt_in_result=False,
        )
        ids = [[int(id_) for id_ in result.sequences[0]] for result in results]
        return [Reply(row[:n], float("nan")) for row, (_, n) in zip(ids, asked, strict=True)]


@asynccontextmanager
async def vllm(task: Task) -> AsyncIterator[Streaming]:
    """vLLM's server from the environment of `make bench-vllm`, through our remote engine."""
    with tempfile.TemporaryDirectory() as directory:
        model = model_for(task)
        # Random weights say this id too, and nobody's reply is to end with it.
        model.config.eos_token_id = model.generation_config.eos_token_id = None
        model.save_pretrained(directory)
        server = await asyncio.create_subprocess_exec(
            ".venv-peers/vllm/bin/python", "-m", "vllm.entrypoints.openai.api_server",
            "--model", directory,
            "--skip-tokenizer-init", "--dtype", task.dtype, "--port", "8917",
            "--gpu-memory-utilization", "0.3",  # of the machine's memory, where there is no GPU
            stdout=sys.stderr, stderr=sys.stderr,
        )  # fmt: skip
        try:
            engine = await _when_up(server, RemoteServer("http://127.0.0.1:8917/v1", seeds=False))
            yield Streaming(engine)
            await engine.close()
        finally:
            with suppress(ProcessLookupError):
                server.terminate()
            await server.wait()


async def _when_up(server: asyncio.subprocess.Process, remote: RemoteServer) -> OpenAIEngine:
    from core.errors import ModelError

    for _ in range(300):
        try:
            return await OpenAIEngine.open(remote)
        except ModelError:
            if server.returncode is not None:
                raise
            await asyncio.sleep(1)
    raise TimeoutError("the server did not come up in five minutes")


@asynccontextmanager
async def contender(name: str, task: Task) -> AsyncIterator[Contender]:
    match name:
        case "henji" | "henji int8":
            int8 = name == "henji int8"
            limits = Limits(task.context, cache_bytes=3 << 30, int8_weights=int8)
            if task.device == "cuda":
                limits = Limits(task.context, slots=256, step_tokens=2048, cache_bytes=40 << 30)
            engine = await TorchEngine.open(lambda: model_for(task), lambda _: limits)
            yield Streaming(engine)
            await engine.close()
        case "one by one" | "static batch":
            yield Generate(model_for(task), together=name == "static batch")
        case "continuous":
            yield Continuous(model_for(task))
        case "ctranslate2 int8":
            yield CTranslate2(model_for(task), task)
        case "vllm":
            async with vllm(task) as streaming:
                yield streaming
        case _:
            raise LookupError(name)


# -- the loads ------------------------------------------------------------------------------------

_Draw: TypeAlias = random.Random


def _prompt(draw: _Draw, task: Task, length: int) -> list[int]:
    return [draw.randrange(8, task.vocabulary) for _ in range(length)]


async def at_once(runner: Contender, task: Task, count: int, new: int, seed: int) -> float:
    """Tokens a second of `count` requests that arrive together, prompts of 40 to 120 tokens."""
    draw = random.Random(seed)
    asked = [(_prompt(draw, task, draw.randint(40, 120)), new) for _ in range(count)]
    start = time.perf_counter()
    replies = await runner.replies(asked)
    seconds = time.perf_counter() - start
    got = sum(len(reply.ids) for reply in replies)
    if got != count * new:
        raise RuntimeError(f"{got} tokens came instead of {count * new}")
    return got / seconds


async def conversations(runner: Contender, task: Task, result: Result) -> None:
    """Every thread asks, waits for the reply and asks again, with all that was said before."""
    draw = random.Random(1)
    threads = [[_prompt(draw, task, q) for q, _ in thread] for thread in task.conversations]
    said: list[list[int]] = [[] for _ in threads]
    firsts: list[list[float]] = [[] for _ in task.conversations[0]]

    async def turn(numbers: list[int], at: int) -> None:
        for number in numbers:
            said[number] += threads[number][at]
        asked = [(list(said[n]), task.conversations[n][at][1]) for n in numbers]
        for number, reply in zip(numbers, await runner.replies(asked), strict=True):
            said[number] += reply.ids
            firsts[at].append(reply.first_token)

    async def whole(numbers: list[int]) -> None:
        for at in range(len(firsts)):
            await turn(numbers, at)

    everyone = list(range(len(threads)))
    groups = [everyone] if runner.rounds else [[number] for number in everyone]
    start = time.perf_counter()
    await asyncio.gather(*(whole(group) for group in groups))
    result.whole_run = time.perf_counter() - start
    result.first_token = [statistics.median(of_turn) for of_turn in firsts]


def limit(task: Task) -> Result:
    """What the memory allows: a decoding step reads every weight and every sequence's cache once.

    The bandwidth is that of a copy, what is read and written together. Prompts cost nothing here.
    """
    model = model_for(task)
    shared = model.get_input_embeddings().weight  # of which a step reads a row for each sequence
    weights = sum(one.nbytes for one in model.parameters() if one is not shared)
    ids = 80 + task.new_tokens / 2  # of a sequence, on average
    cache = CacheShape.of(model).bytes_per_token * ids
    bandwidth = _copy_bandwidth(task.device)
    return Result({n: n * bandwidth / (weights + n * cache) for n in task.concurrent})


def _copy_bandwidth(device: str) -> float:
    """Bytes a second, the best of a few."""
    source = torch.ones(1 << 30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        target.copy_(source)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return 2 * source.nbytes / min(seconds)


async def run(name: str, task: Task) -> Result:
    if name == "limit":
        return limit(task)
    result = Result()
    async with contender(name, task) as runner:
        for count in task.concurrent:
            if name == "one by one" and count > 8:
                continue  # the same speed as with one, and minutes of it
            await at_once(runner, task, count, 8, seed=1)
            speed = await at_once(runner, task, count, task.new_tokens, seed=count + 2)
            result.tokens_per_second[count] = speed
        if task.conversations and name != "one by one":
            await conversations(runner, task, result)
    return result


def main() -> None:
    task = Task(**json.load(sys.stdin))
    result = asyncio.run(run(sys.argv[1], task))
    print(json.dumps(asdict(result)), flush=True)


if __name__ == "__main__":
    main()
    # Contenders leave threads behind that would keep the process.
    cast("Any", sys.stdout).flush()
    import os

    os._exit(0)
