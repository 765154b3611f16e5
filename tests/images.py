"""Each image without a container engine: its install steps in a clean environment, its command.

python -m tests.images FOLDER [bot|core ...]

The steps are read from the Dockerfile, so that what is tried is what is built. Then each command
that a compose file starts from it is started with the echo engine and a Redis, and asked how it is.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from storage.embedded_server import embedded_server
from tests.local_discord.server import TOKEN, LocalDiscord
from tests.local_slack import LocalSlack
from tests.servers import free_port
from tests.waiting import until

ROOT = Path(__file__).parents[1]
MEGABYTES = {"bot": 100, "core": 1500}
"""The most that an image's packages may take above its base; a core's with torch's CPU build."""

COPIED = ("pyproject.toml", "constraints.txt", "README.md", "LICENSE", "core", "storage", "bots")


def steps(dockerfile: Path, home: Path) -> list[str]:
    """The commands of the RUN that installs, with the image's folder led elsewhere."""
    text = dockerfile.read_text().replace("\\\n", " ")
    (run,) = re.findall(r"^RUN (python -m venv .*)$", text, re.MULTILINE)
    return [step.strip().replace("/opt/henji", str(home)) for step in run.split("&&")]


def install(image: str, home: Path) -> None:
    """Do the steps of the Dockerfile, on a copy of the files that it copies."""
    with tempfile.TemporaryDirectory() as source:
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, Path(source) / name)
        for step in steps(ROOT / "docker" / f"{image}.Dockerfile", home):
            words = step.replace("python -m", f"{sys.executable} -m", 1)
            subprocess.run(["sh", "-c", words], cwd=source, check=True)


def measure(image: str, home: Path) -> None:
    """Print the size of an image's packages. AssertionError if its page says less."""
    size = sum(file.stat().st_size for file in home.rglob("*") if file.is_file()) / 1e6
    print(f"{image}: {size:.0f} MB installed", flush=True)
    most = MEGABYTES[image]
    assert size < most or _torch_of_a_gpu(home), f"{image}: {size:.0f} of {most} MB"


def _torch_of_a_gpu(home: Path) -> bool:
    return any(home.glob("lib/python3*/site-packages/nvidia"))


def without_models(home: Path) -> None:
    """AssertionError where a bot's environment has a library of the model."""
    code = (
        "from importlib.util import find_spec\n"
        "print([name for name in ('torch', 'transformers', 'numpy') if find_spec(name)])"
    )
    found = subprocess.check_output([home / "bin/python", "-c", code], text=True).strip()
    assert found == "[]", found


async def serves(commands: Sequence[str], home: Path) -> None:
    """Start each command from an environment, and wait until it says that it is ready."""
    with tempfile.TemporaryDirectory() as folder:
        async with (
            embedded_server(Path(folder)) as url,
            LocalSlack() as slack,
            LocalDiscord() as discord,
        ):
            environment = {
                "PATH": f"{home}/bin:{os.environ['PATH']}",
                "HOME": folder,
                "REDIS_URL": url,
                "HENJI_ENGINE": "echo",
                "HENJI_DATA_DIR": folder,
                "HENJI_METRICS_PORT": str(free_port()),
                "SLACK_BOT_TOKEN": slack.bot_token,
                "SLACK_APP_TOKEN": slack.app_token,
                "SLACK_API_URL": slack.api_url,
                "DISCORD_BOT_TOKEN": TOKEN,
                "DISCORD_API_URL": discord.api_url,
                "DISCORD_GATEWAY_URL": discord.gateway_url,
            }
            for command in commands:
                await _ready(command, home, environment)
                print(f"`henji {command}` is ready, and stops when it is told to", flush=True)


def commands_of(image: str) -> list[str]:
    """What the compose files start from an image, its own command first."""
    text = (ROOT / "docker" / f"{image}.Dockerfile").read_text()
    (own,) = re.findall(r'^CMD \["(\w+)"\]$', text, re.MULTILINE)
    files = [ROOT / "docker" / "compose.yaml", *(ROOT / "docker" / "scale-out").glob("*.yaml")]
    services = [s for file in files for s in yaml.safe_load(file.read_text())["services"].values()]
    started = {s["command"][0] for s in services if s["image"].startswith(f"henji-{image}:")}
    return [own, *sorted(started - {own})]


async def _ready(command: str, home: Path, environment: dict[str, str]) -> None:
    process = await asyncio.create_subprocess_exec(
        str(home / "bin/henji"), command, env=environment, cwd="/"
    )
    try:
        await until(lambda: _healthy(home, environment), 60)
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 60)
    assert process.returncode == 0, process.returncode


async def _healthy(home: Path, environment: dict[str, str]) -> bool:
    """Asked as the container's health check asks."""
    asking = await asyncio.create_subprocess_exec(
        str(home / "bin/python"), "-m", "core.observe.healthcheck", "/readyz",
        env=environment, cwd="/",
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    return await asking.wait() == 0


def main() -> None:
    folder, *images = sys.argv[1:]
    for image in images or ("bot", "core"):
        home = Path(folder).resolve() / image
        shutil.rmtree(home, ignore_errors=True)
        install(image, home)
        measure(image, home)
        if image == "bot":
            without_models(home)
        asyncio.run(serves(commands_of(image), home))


if __name__ == "__main__":
    main()
