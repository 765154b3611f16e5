"""Runs the Lua scripts: by their hash, and those that are wanted at one time in one round trip.

A few lines of steps are written at one time, each by one task: while Redis works at one, the
answers to another are read. Steps of one thread stand in one line, and are done in the order in
which they were wanted. A caller that is cancelled leaves its step to be done or not, but never a
connection with an answer nobody reads.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from redis.asyncio import RedisCluster
from redis.exceptions import NoScriptError, RedisError

from storage.codec import dump

FOLDER = resources.files("storage") / "scripts"
LIBRARY = (
    "base", "events", "fair_order", "quotas", "jobs", "turns", "threads", "marks", "new_jobs"
)  # fmt: skip
"""Files of lib/: each stands on those before it."""

LINES = 2
"""For the steps of threads. Those of none, claims above all, have a line of their own."""

MOST_AT_ONCE = 8
"""Steps of one line in one round trip."""

PROMISES = frozenset(("submit", "commit", "edit", "delete", "regenerate", "reset", "forget"))
"""Steps that somebody relies on once they have returned."""


@dataclass(frozen=True, slots=True)
class Script:
    sha: str
    text: str


@dataclass(frozen=True, slots=True)
class Replication:
    """How many replicas must have a promise before it is one, and for how long to wait (ms)."""

    replicas: int = 0
    milliseconds: int = 1000


NO_REPLICAS = Replication()


@dataclass(frozen=True, slots=True)
class Step:
    """A script to run, and where its answer goes."""

    name: str
    script: Script
    base: str
    packed: str
    answer: asyncio.Future[Any]


@dataclass(slots=True)
class ScriptQueue:
    """Steps that wait to be sent, and the task that sends them."""

    steps: list[Step] = field(default_factory=list)
    flusher: asyncio.Task[None] | None = None


def as_text(packed: str) -> str:
    """`packed` without lone surrogates, which JSON may carry and UTF-8 may not."""
    try:
        packed.encode()
    except UnicodeEncodeError:
        return packed.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return packed


def read_scripts(preamble: str) -> dict[str, Script]:
    """Name -> script: each file behind the table of keys and what all scripts share."""
    library = "\n".join((FOLDER / "lib" / f"{name}.lua").read_text() for name in LIBRARY)
    scripts = {}
    for file in FOLDER.iterdir():
        if file.name.endswith(".lua"):
            text = preamble + with_what_it_needs(file.read_text(), library)
            sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
            scripts[file.name.removesuffix(".lua")] = Script(sha, text)
    return scripts


def with_what_it_needs(script: str, library: str) -> str:
    """A script behind those definitions of the library that it needs, and that these need.

    Redis makes every function of a script anew each time it runs it.
    """
    for definition in reversed(re.split(r"\n(?=local )", library)):
        name = re.match(r"local (?:function )?(\w+)", definition)
        if name is None or re.search(rf"\b{name[1]}\b", script):
            script = f"{definition}\n{script}"
    return script


class Scripts:
    """The scripts on one client."""

    def __init__(self, client: Any, preamble: str, replication: Replication = NO_REPLICAS) -> None:
        """`replication` needs one server and its replicas: a Cluster has no WAIT over its nodes."""
        self._client = client
        self._replication = replication
        self._scripts = read_scripts(preamble)
        self._lines = [ScriptQueue() for _ in range(LINES + 1)]

    async def run(self, name: str, base: str, arguments: Mapping[str, Any]) -> Any:
        """Run a script over the keys that begin with `base`; its error where it raises one."""
        loop = asyncio.get_running_loop()
        packed = as_text(dump(arguments))
        step = Step(name, self._scripts[name], base, packed, loop.create_future())
        thread = arguments.get("thread")
        line = self._lines[1 + hash(thread) % LINES if thread else 0]
        line.steps.append(step)
        if line.flusher is None or line.flusher.done():
            # It works for all: nothing of its first caller's (a trace, names in a log) is its own.
            line.flusher = loop.create_task(self._flush(line), context=Context())
        return await step.answer

    async def _flush(self, line: ScriptQueue) -> None:
        while line.steps:
            steps, line.steps = line.steps[:MOST_AT_ONCE], line.steps[MOST_AT_ONCE:]
            try:
                answers = await self._send(steps)
            except Exception as error:  # or those who ask would wait without end
                answers = [error] * len(steps)
            for step, answer in zip(steps, answers, strict=True):
                if step.answer.done():
                    continue  # its caller was cancelled
                if isinstance(answer, BaseException):
                    step.answer.set_exception(answer)
                else:
                    step.answer.set_result(answer)

    async def _send(self, steps: Sequence[Step]) -> Sequence[Any]:
        """The answer or the error of each step; raises where the one step there is does."""
        waiting = self._replication.replicas and any(step.name in PROMISES for step in steps)
        if len(steps) == 1 and not waiting:
            return [await self._send_one(steps[0])]
        if isinstance(self._client, RedisCluster):  # it takes no EVALSHA in a pipeline
            return await asyncio.gather(*map(self._send_one, steps), return_exceptions=True)
        pipeline = self._client.pipeline(transaction=False)
        for step in steps:
            pipeline.evalsha(step.script.sha, 1, step.base, step.packed)
        if waiting:
            pipeline.wait(self._replication.replicas, self._replication.milliseconds)
        try:
            answers = await pipeline.execute(raise_on_error=False)
        except Exception as error:
            return [error] * len(steps)
        if waiting:
            answers = self._kept_promises(steps, answers)
        return [
            await self._load_and_send(step) if isinstance(answer, NoScriptError) else answer
            for step, answer in zip(steps, answers, strict=True)
        ]

    def _kept_promises(self, steps: Sequence[Step], answers: Sequence[Any]) -> Sequence[Any]:
        """The answers, but an error for a promise that too few replicas have."""
        *answers, reached = answers
        if isinstance(reached, int) and reached >= self._replication.replicas:
            return answers
        late = RedisError(f"only {reached} replicas have it")
        return [
            late if step.name in PROMISES and not isinstance(answer, Exception) else answer
            for step, answer in zip(steps, answers, strict=True)
        ]

    async def _send_one(self, step: Step) -> Any:
        try:
            return await self._client.evalsha(step.script.sha, 1, step.base, step.packed)
        except NoScriptError:
            return await self._client.eval(step.script.text, 1, step.base, step.packed)

    async def _load_and_send(self, step: Step) -> Any:
        """The answer or the error."""
        try:
            await self._client.script_load(step.script.text)
            return (await self._send([step]))[0]
        except Exception as error:
            return error
