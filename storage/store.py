"""The base of the stores: the scripts, and one Redis with its buckets."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import resources
from typing import Any, Protocol, TypeVar

from redis import exceptions
from redis.asyncio import RedisCluster
from redis.exceptions import NoScriptError, RedisClusterException, RedisError

from core.errors import StoreUnavailable
from core.queue_types import Place
from core.types import DIRECT, ThreadKey
from storage import keys
from storage.codec import dump

FOLDER = resources.files("storage") / "scripts"
LIBRARY = (
    "base", "events", "fair_order", "quotas", "jobs", "turns", "kept", "duels", "threads", "marks",
    "new_jobs",
)  # fmt: skip
"""Files of lib/: each uses only those before it."""

QUEUES = 2
"""For steps with a thread. Other steps, mostly claims, have one more queue."""

MOST_AT_ONCE = 8
"""Steps of one queue in one round trip."""

REPLICATED_SCRIPTS = frozenset((
    "submit", "commit", "edit", "attach", "delete", "regenerate", "read_beginning", "reset",
    "forget", "vote", "opt_out", "branch",
))  # fmt: skip
"""Steps whose effects must last once they have returned."""


@dataclass(frozen=True, slots=True)
class Script:
    sha: str
    text: str


@dataclass(frozen=True, slots=True)
class Replication:
    """How many replicas must have a change before it is acknowledged, and the longest wait (ms)."""

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
    """Steps to send, and the task that sends them."""

    steps: list[Step] = field(default_factory=list)
    flusher: asyncio.Task[None] | None = None


def as_text(packed: str) -> str:
    """`packed` without lone surrogates, which JSON may carry and UTF-8 may not."""
    try:
        packed.encode()
    except UnicodeEncodeError:
        return packed.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return packed


@cache
def read_scripts(preamble: str) -> Mapping[str, Script]:
    """Name -> script: each file, after the table of keys and the shared definitions."""
    library = "\n".join((FOLDER / "lib" / f"{name}.lua").read_text() for name in LIBRARY)
    definitions = [Definition.of(text) for text in re.split(r"\n(?=local )", library)]
    scripts = {}
    for file in FOLDER.iterdir():
        if file.name.endswith(".lua"):
            text = preamble + with_needed_definitions(file.read_text(), definitions)
            sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
            scripts[file.name.removesuffix(".lua")] = Script(sha, text)
    return scripts


@dataclass(frozen=True, slots=True)
class Definition:
    """A function or value of the library; without a name, a comment before the first."""

    text: str
    name: str | None
    words: frozenset[str]

    @classmethod
    def of(cls, text: str) -> Definition:
        name = re.match(r"local (?:function )?(\w+)", text)
        return cls(text, name and name[1], words_of(text))


def words_of(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text))


def with_needed_definitions(script: str, library: Sequence[Definition]) -> str:
    """A script after the library definitions that it needs, directly or not.

    Others are left out: Redis creates every function of a script at each run.
    """
    words, needed = set(words_of(script)), [script]
    for definition in reversed(library):
        if definition.name is None or definition.name in words:
            words |= definition.words
            needed.append(definition.text)
    return "\n".join(reversed(needed))


class Scripts:
    """Runs the scripts on one client by their hash, several in one round trip.

    Steps wait in a few queues, each sent by one task: while Redis runs the steps of one queue, the
    answers of another are read. Steps of one thread go into one queue, so that they run in the
    order of their calls. If a caller is cancelled, its step may or may not run, but no answer stays
    on a connection.
    """

    def __init__(self, client: Any, preamble: str, replication: Replication = NO_REPLICAS) -> None:
        """`replication` needs one server with replicas: a Cluster has no WAIT over its nodes."""
        self._client = client
        self._replication = replication
        self._scripts = read_scripts(preamble)
        self._queues = [ScriptQueue() for _ in range(QUEUES + 1)]

    async def run(self, name: str, base: str, arguments: Mapping[str, Any]) -> Any:
        """Run a script over the keys that begin with `base`; its error where it raises one."""
        loop = asyncio.get_running_loop()
        packed = as_text(dump(arguments))
        step = Step(name, self._scripts[name], base, packed, loop.create_future())
        thread = arguments.get("thread")
        queue = self._queues[1 + hash(thread) % QUEUES if thread else 0]
        queue.steps.append(step)
        if queue.flusher is None or queue.flusher.done():
            # shared by all callers: it must not inherit the first one's context (trace, log fields)
            queue.flusher = loop.create_task(self._flush(queue), context=Context())
        return await step.answer

    async def _flush(self, queue: ScriptQueue) -> None:
        while queue.steps:
            steps, queue.steps = queue.steps[:MOST_AT_ONCE], queue.steps[MOST_AT_ONCE:]
            try:
                answers = await self._send(steps)
            except Exception as error:  # else the callers would wait for ever
                answers = [error] * len(steps)
            for step, answer in zip(steps, answers, strict=True):
                if step.answer.done():
                    continue  # its caller was cancelled
                if isinstance(answer, BaseException):
                    step.answer.set_exception(answer)
                else:
                    step.answer.set_result(answer)

    async def _send(self, steps: Sequence[Step]) -> Sequence[Any]:
        """The answer or the error of each step; raises the error of a single step."""
        waiting = self._replication.replicas and any(
            step.name in REPLICATED_SCRIPTS for step in steps
        )
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
            answers = self._check_replication(steps, answers)
        return [
            await self._load_and_send(step) if isinstance(answer, NoScriptError) else answer
            for step, answer in zip(steps, answers, strict=True)
        ]

    def _check_replication(self, steps: Sequence[Step], answers: Sequence[Any]) -> Sequence[Any]:
        """The answers, with an error for each change that reached too few replicas."""
        *answers, reached = answers
        if isinstance(reached, int) and reached >= self._replication.replicas:
            return answers
        late = RedisError(f"only {reached} replicas have it")
        return [
            late
            if step.name in REPLICATED_SCRIPTS and not isinstance(answer, Exception)
            else answer
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


# -- one Redis ------------------------------------------------------------------------------------


T = TypeVar("T")

REDIS_FAULTS = (RedisError, RedisClusterException, OSError)
NO_WRITES: Mapping[str, str] = {
    "OOM": "its memory is full (see maxmemory)",
    "MISCONF": "it cannot write its files: is its disk full?",
    "READONLY": "it is a replica",
    "NOREPLICAS": "it has too few replicas",
}
"""Reasons why Redis refuses to write, by the first word of its error."""


def sentence(error: BaseException, where: str = "Redis", remedy: str = "") -> str:
    """A sentence about an error of Redis; `remedy`: its end if Redis does not answer."""
    said = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    # redis-py takes the word OOM away
    code = "OOM" if isinstance(error, exceptions.OutOfMemoryError) else said.partition(" ")[0]
    code = "READONLY" if isinstance(error, exceptions.ReadOnlyError) else code
    if code in NO_WRITES:
        return f"{where} takes no writes: {NO_WRITES[code]}"
    if isinstance(error, exceptions.AuthenticationError):
        return f"{where} refuses the password, or wants one: correct REDIS_URL"
    if isinstance(error, (exceptions.ConnectionError, exceptions.TimeoutError, OSError)):
        return f"{where} does not answer: {said}{remedy}"
    return f"{where} refuses: {said}"


class Connection(Protocol):
    """Redis as `storage.connect` gives it; answers are text."""

    @property
    def client(self) -> Any:
        """For commands that return at once."""
        ...

    def blocking(self) -> Any:
        """For commands that block: each has its own connection."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """The most open jobs. Over a limit, a message is refused as busy."""

    all: int = 10_000
    channel: int = 1_000
    person: int = 100
    thread: int = 20
    mailbox: int = 500
    """The most unread turns of a thread."""


@dataclass(frozen=True)
class Store:
    """One Redis, with the limits and lifetimes in use. Times are in seconds."""

    connection: Connection
    buckets: int = 1
    lease: float = 15.0
    delivery_lease: float = 15.0
    deadline: float = 3600.0
    retention: float = 30.0 * keys.DAY
    audit: float = 365.0 * keys.DAY
    """How long the audit log is kept."""
    max_attempts: int = 3
    backoff: float = 1.0
    limits: Limits = Limits()
    answer_together: bool = True
    replication: Replication = NO_REPLICAS

    def bucket(self, thread: ThreadKey) -> int:
        return keys.bucket_of(thread, self.buckets)

    def all_buckets(self) -> Iterable[int]:
        return range(self.buckets)

    def buckets_of(self, place: Place) -> Iterable[int]:
        """The buckets of a place's threads: all of them for direct messages without a space."""
        if place.space == DIRECT and place.channel is None:
            return self.all_buckets()
        return [self.bucket(place.any_thread)]

    @cached_property
    def _scripts(self) -> Scripts:
        head = keys.preamble(self.retention, self.audit)
        return Scripts(self.connection.client, head, self.replication)

    async def run(self, script: str, bucket: int, **arguments: Any) -> Any:
        """Run one atomic step in one bucket. StoreUnavailable if Redis fails."""
        try:
            return await self._scripts.run(script, keys.base(bucket), arguments)
        except REDIS_FAULTS as error:
            raise StoreUnavailable(sentence(error)) from error

    async def run_on(self, script: str, thread: ThreadKey, **arguments: Any) -> Any:
        """Run one atomic step on a thread, in its bucket. StoreUnavailable if Redis fails."""
        return await self.run(script, self.bucket(thread), thread=str(thread), **arguments)

    async def each(
        self, buckets: Iterable[int], step: Callable[[int], Awaitable[T]]
    ) -> tuple[Mapping[int, T], StoreUnavailable | None]:
        """Run a step in several buckets at once. Returns the answers by bucket, and a fault if any.

        A server that is away does not delay the steps of other buckets, though all answers come
        together. StoreUnavailable if all servers are away.
        """
        asked = list(buckets)
        answers = await asyncio.gather(*map(step, asked), return_exceptions=True)
        done, fault = {}, None
        for bucket, answer in zip(asked, answers, strict=True):
            if isinstance(answer, StoreUnavailable):
                fault = answer
            elif isinstance(answer, BaseException):
                raise answer
            else:
                done[bucket] = answer
        if fault and not done:
            raise fault
        return done, fault

    async def rewrite_file(self, bucket: int) -> None:
        """Rewrite the append-only file, to remove deleted text from it.

        Not every Redis has such a file, or lets a client rewrite it.
        """
        client = self.connection.client
        with suppress(*REDIS_FAULTS):
            if isinstance(client, RedisCluster):
                node = client.get_node_from_key(keys.base(bucket))
                await client.execute_command("BGREWRITEAOF", target_nodes=node)
            else:
                await client.bgrewriteaof()

    async def command(self, name: str, *arguments: Any) -> Any:
        """One plain command. StoreUnavailable if Redis fails."""
        try:
            return await getattr(self.connection.client, name)(*arguments)
        except REDIS_FAULTS as error:
            raise StoreUnavailable(sentence(error)) from error
