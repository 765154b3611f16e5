"""A process of the chaos: all that its tasks do to Redis and to the platform passes through one
`Process`, which may fail a call, hold all of them for a while, or end them for good."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, TypeVar

from core.errors import StoreUnavailable

T = TypeVar("T")

OWNER: ContextVar[Process | None] = ContextVar("OWNER", default=None)

Kind = Literal["die", "hold", "raise", "land"]
"""``land``: the process dies, and its last call takes effect a little later."""

KINDS: tuple[Kind, ...] = ("die", "hold", "hold", "raise", "land", "land")


@dataclass(frozen=True, slots=True)
class Fault:
    kind: Kind
    done: bool
    """It strikes when the call has taken effect, and not before it is made."""
    seconds: float = 0.0


def _without_deaths(faults: Mapping[tuple[str, int], Fault]) -> dict[tuple[str, int], Fault]:
    return {at: fault for at, fault in faults.items() if fault.kind not in ("die", "land")}


@dataclass
class Process:
    """`faults`: target (``redis`` or ``platform``) and number of the call -> the fault."""

    name: str
    faults: dict[tuple[str, int], Fault] = field(default_factory=dict)
    hardy: bool = False
    """Once it was held, nothing else happens to it; to others, no death. That is the one window:
    who is stopped in front of an edit wakes up, edits what is another's, and is killed before it
    can look. (As it is with a post, where the platform posts twice.)"""
    dead: bool = False
    calls: Counter[str] = field(default_factory=Counter)
    died: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    _awake: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._awake.set()

    @property
    def held(self) -> bool:
        return not self.dead and not self._awake.is_set()

    def doing(self) -> str:
        names = sorted(repr(task.get_coro()) for task in self.tasks if not task.done())
        return f"{self.name}{' (held)' if self.held else ''}: {', '.join(names)}"

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run `work` as this process; the tasks that it starts are the process's too."""
        context = copy_context()
        context.run(OWNER.set, self)
        return asyncio.get_running_loop().create_task(work, context=context)

    async def redis(self, name: str, effect: Callable[[], Awaitable[T]]) -> T:
        return await self._call("redis", effect, StoreUnavailable(f"chaos: {name}"))

    async def platform(self, name: str, effect: Callable[[], Awaitable[T]]) -> T:
        return await self._call("platform", effect, OSError(f"chaos: {name}"))

    async def _call(self, whom: str, effect: Callable[[], Awaitable[T]], error: Exception) -> T:
        await self._awake.wait()
        self.calls[whom] += 1
        fault = self.faults.pop((whom, self.calls[whom]), None)
        if fault and fault.kind == "land":
            _outside(lambda: _later(fault.seconds, effect))
            await self._strike(fault, error)
        if fault and not fault.done:
            await self._strike(fault, error)
        result = await _outside(effect)
        if fault and fault.done:
            await self._strike(fault, error)
        await self._awake.wait()
        return result

    async def _strike(self, fault: Fault, error: Exception) -> None:
        match fault.kind:
            case "raise":
                raise error
            case "hold":
                self._awake.clear()
                self.faults = {} if self.hardy else _without_deaths(self.faults)
                asyncio.get_running_loop().call_later(fault.seconds, self._wake)
            case "die" | "land":
                self.die()
        await self._awake.wait()

    def _wake(self) -> None:
        if not self.dead:
            self._awake.set()

    def die(self) -> None:
        """As kill -9: whatever its tasks do next, they never come back from it."""
        self.dead = True
        self.died.set()
        self._awake.clear()

    async def cancel_tasks(self) -> None:
        """Cancel its remaining tasks."""
        self.die()
        while left := [task for task in self.tasks if not task.done()]:
            for task in left:
                task.cancel()
            await asyncio.sleep(0)


def owned(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
    """A loop's task factory: a task belongs to the process that it is started in."""
    task = asyncio.Task(work, loop=loop, **options)
    context = options.get("context")
    owner = context.get(OWNER) if context is not None else OWNER.get()
    if owner is not None:
        owner.tasks.add(task)
        task.add_done_callback(owner.tasks.discard)
    return task


def _outside(effect: Callable[[], Awaitable[T]]) -> asyncio.Task[T]:
    """Run a step of Redis or the platform: the death of a process does not interrupt it."""
    return asyncio.get_running_loop().create_task(_await(effect), context=Context())


async def _await(effect: Callable[[], Awaitable[T]]) -> T:
    return await effect()


async def _later(seconds: float, effect: Callable[[], Awaitable[Any]]) -> None:
    await asyncio.sleep(seconds)
    await effect()


class Gated:
    """A port of the store whose every call passes through a process."""

    def __init__(self, port: object, process: Process) -> None:
        self._port = port
        self._process = process

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)
        if name == "follow":
            return self._following(method)
        if name in ("listen", "wait"):
            return method  # news and wakes are hints only, and what listens ends with the process

        def call(*arguments: Any, **options: Any) -> Awaitable[Any]:
            return self._process.redis(name, lambda: method(*arguments, **options))

        return call

    def _following(self, method: Callable[..., AsyncIterator[Any]]) -> Any:
        async def follow(*arguments: Any) -> AsyncIterator[Any]:
            async for event in method(*arguments):
                await self._process.redis("follow", _nothing)
                yield event

        return follow


async def _nothing() -> None:
    """An answer that was there."""


def some_faults(random: Random, lease: float, call_seconds: float) -> dict[tuple[str, int], Fault]:
    """A few faults among the first calls of a process."""
    faults = {}
    for _ in range(random.randint(0, 3)):
        whom, calls = random.choice((("redis", 80), ("platform", 8), ("platform", 8)))
        kind = random.choice(KINDS)
        seconds = random.uniform(0.2, 5) * lease if kind == "hold" else call_seconds
        seconds *= random.uniform(0.2, 1)
        faults[whom, random.randint(1, calls)] = Fault(kind, random.random() < 0.5, seconds)
    return faults
