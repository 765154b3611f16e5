"""The Redis of the compose file, started by its own command where no container engine runs.

Each script of docker/redis is a copy whose paths lead into a folder of the test.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from redis.asyncio import Redis

from storage.embedded_server import find_binary
from tests.optional import tool
from tests.servers import answers, free_port
from tests.waiting import until

DOCKER = Path(__file__).parents[1] / "docker"
ROOMS = r"/(?:run/)?(secrets|tmp|data)\b"
"""What a container has at its top, and a test in its folder."""

URL = "redis://:sesame@redis:6379/0"


@dataclass(slots=True)
class ComposeRedis:
    """One container's folder: its data, its secret, its scripts."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: asyncio.subprocess.Process = field(init=False)
    client: Redis = field(init=False)

    def lay_out(self, url: str) -> None:
        for name in ("data", "tmp", "secrets", "henji", "bin"):
            (self.folder / name).mkdir(exist_ok=True)
        (self.folder / "secrets" / "redis_url").write_text(url)
        for script in (DOCKER / "redis").glob("*.sh"):
            copy = self.folder / "henji" / script.name
            copy.write_text(
                re.sub(ROOMS, lambda found: str(self.folder / found[1]), script.read_text())
            )
            copy.chmod(0o700)
        server = self.folder / "bin" / "valkey-server"
        server.unlink(missing_ok=True)
        server.symlink_to(find_binary())

    def environment(self, *, cli: bool) -> dict[str, str]:
        """Debian has the command line of Redis, which speaks to Valkey."""
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        client = self.folder / "bin" / "valkey-cli"
        if cli and not client.exists():
            client.write_text(f'#!/bin/sh\nexec {tool("redis-cli")} "$@"\n')
            client.chmod(0o700)
        return {"PATH": path}

    def arguments(self) -> str:
        """What every process of the host can read of the server."""
        return Path(f"/proc/{self.process.pid}/cmdline").read_text()

    async def script(self, name: str, *words: str, given: bytes = b"") -> bytes:
        """What a script prints, as ``docker compose exec -T redis`` would run it."""
        at = ("-p", str(self.port)) if name == "cli.sh" else ()
        process = await asyncio.create_subprocess_exec(
            self.folder / "henji" / name, *at, *words,
            env=self.environment(cli=True), stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        said, complaint = await asyncio.wait_for(process.communicate(given), 30)
        assert process.returncode == 0, complaint.decode()
        return said


@asynccontextmanager
async def compose_redis(folder: Path, url: str = URL) -> AsyncIterator[ComposeRedis]:
    """The server, from when it answers until it is left. AssertionError where it does not start."""
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    script, *words = compose["services"]["redis"]["command"]
    here = ComposeRedis(folder)
    here.lay_out(url)
    here.process = await asyncio.create_subprocess_exec(
        here.folder / script.lstrip("/"), *words, "--port", str(here.port), "--bind", "127.0.0.1",
        env=here.environment(cli=False), stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    here.client = Redis(port=here.port, password="sesame", decode_responses=True)
    try:
        await until(lambda: _answers_or_ended(here))
        if here.process.returncode is not None:
            assert here.process.stderr is not None
            raise AssertionError((await here.process.stderr.read()).decode())
        yield here
    finally:
        await here.client.aclose()
        if here.process.returncode is None:
            here.process.terminate()
        await here.process.wait()


async def _answers_or_ended(here: ComposeRedis) -> bool:
    return here.process.returncode is not None or await answers(here.client)
