"""A pseudo-terminal, for tests of typed input and shown output."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.processes import environment_with


@dataclass
class Terminal:
    """A pseudo-terminal with a henji command in it."""

    process: Process
    master: int
    seen: str = ""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    async def shows(self, pattern: str) -> None:
        """Wait until the output since the last call matches."""
        async with asyncio.timeout(60):
            while not (found := re.search(pattern, self.seen, re.DOTALL)):
                self.seen += await asyncio.to_thread(self._read)
            self.seen = self.seen[found.end() :]

    def _read(self) -> str:
        return re.sub(
            r"\x1b\[[0-9;?]*[A-Za-z]", "", os.read(self.master, 4096).decode("utf-8", "replace")
        )


@asynccontextmanager
async def terminal(*words: str, **environment: str) -> AsyncIterator[Terminal]:
    """`henji WORDS` in a new terminal, killed at the end."""
    master, slave = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bots", *words),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment_with({"TERM": "xterm", **environment}),
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        os.close(master)
