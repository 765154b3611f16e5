"""The henji command in separate processes, as a person or a supervisor runs it."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

ECHO = {"HENJI_ENGINE": "echo", "HENJI_LOCALE": "en"}


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that has ended."""

    status: int
    out: str
    err: str


Here: TypeAlias = Callable[..., Ran]
"""Runs a henji command, given as words, in the test's own process: the fixture `here`."""


async def start(*words: str, **environment: str) -> Process:
    """`henji WORDS`, with these variables beside the session's."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bots", *words),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env=environment_with(environment),
    )


async def start_in(tree: Path, *words: str, **environment: str) -> Process:
    """`henji WORDS` of another source tree."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bots", *words),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        cwd=tree,
        env=environment_with({"PYTHONPATH": str(tree), **environment}),
    )


async def in_a_shell(line: str, **environment: str) -> Ran:
    """Run a command line in which `henji` is the command."""
    process = await asyncio.create_subprocess_shell(
        f'henji() {{ {sys.executable} -m bots "$@"; }}; {line}',
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env=environment_with(environment),
    )
    return await finish(process)


def environment_with(more: Mapping[str, str]) -> dict[str, str]:
    """The session's variables, and these."""
    return {**os.environ, **ECHO, **more}


async def henji(*words: str, given: str = "", **environment: str) -> Ran:
    """Run `henji WORDS` to its end, with `given` on its standard input."""
    process = await start(*words, **environment)
    return await finish(process, given)


async def listens(port: int) -> bool:
    """Whether a process accepts connections on a port of loopback."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def finish(process: Process, given: str = "") -> Ran:
    out, err = await asyncio.wait_for(process.communicate(given.encode()), 180)
    return Ran(process.returncode or 0, out.decode(), err.decode())


def exists(pid: int) -> bool:
    """Whether a process runs: one that has ended but was not waited for does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children_of(pid: int) -> dict[int, list[str]]:
    """The children of a process, and the words of their command lines."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            found[int(child)] = Path(f"/proc/{child}/cmdline").read_text().split("\0")
    return found
