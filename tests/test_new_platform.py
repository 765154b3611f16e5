"""A platform is one folder: a toy is put into a copy of the tree, and everything finds it."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.processes import Ran, finish, listens, start_in
from tests.servers import free_port
from tests.waiting import until

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree with one folder more."""
    copy = tmp_path_factory.mktemp("tree")
    for room in ("bots", "core", "storage"):
        shutil.copytree(ROOT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tests" / "toy_platform", copy / "bots" / "toy")
    return copy


async def henji(tree: Path, *words: str, **variables: str) -> Ran:
    return await finish(await start_in(tree, *words, **variables))


async def test_the_command_line_has_a_command_for_it(tree: Path) -> None:
    assert "  toy       Be a bot in Toy." in (await henji(tree, "--help")).out
    assert "HENJI_TOY_TOKEN=... henji toy" in (await henji(tree, "toy", "--help")).out


async def test_henji_up_starts_it_and_people_chat_through_it(
    tree: Path, redis_url: str, redis: Redis
) -> None:
    port = free_port()
    variables = {"HENJI_TOY_TOKEN": "toy-hidden", "HENJI_TOY_PORT": str(port)}
    up = await start_in(tree, "up", REDIS_URL=redis_url, **variables)
    try:
        await until(lambda: listens(port), 90)
        await until(lambda: _a_core_serves(redis), 90)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for text in ("hello", "こんにちは"):
            writer.write(f"{text}\n".encode())
            reply = await asyncio.wait_for(reader.readline(), 90)
            assert reply.decode() == f"echo: {text}\n"
        writer.close()
        up.terminate()
        ran = await finish(up)
    finally:
        if up.returncode is None:
            up.kill()
    assert ran.status == 0
    assert "hidden" not in ran.err


async def test_henji_doctor_checks_it(tree: Path, redis_url: str, redis: Redis) -> None:
    well = await henji(tree, "doctor", REDIS_URL=redis_url, HENJI_TOY_TOKEN="toy-1")
    assert "ok     Toy      the token is good on port 7070" in well.out
    sick = await henji(tree, "doctor", REDIS_URL=redis_url, HENJI_TOY_TOKEN="1")
    assert "FAULT  Toy      HENJI_TOY_TOKEN is not one of the toy shop" in sick.out
    assert sick.status == 1


async def test_its_settings_are_known_and_near_misses_are_named(tree: Path) -> None:
    (tree / "henji.toml").write_text("toy_port = 7071\n")
    toml = {"HENJI_CONFIG": "henji.toml", "HENJI_TOY_TOKEN": "toy-1"}
    assert "port 7071" in (await henji(tree, "doctor", **toml)).out
    (tree / "henji.toml").write_text("toy_prot = 7071\n")
    wrong = await henji(tree, "models", **toml)
    assert (wrong.status, wrong.out) == (2, "")
    assert "toy_prot in henji.toml is not a setting of henji; did you mean toy_port?" in wrong.err
    misspelt = await henji(tree, "models", HENJI_TOY_TOKN="toy-1")
    assert "did you mean HENJI_TOY_TOKEN?" in misspelt.err
    half = await henji(tree, "toy")
    assert half.err == "henji: HENJI_TOY_TOKEN is not set: buy one at the toy shop\n"


async def test_its_places_and_people_have_rules(tree: Path, redis_url: str, redis: Redis) -> None:
    place = ("admin", "config", "toy:shop", "temperature", "0.5")
    assert (await henji(tree, *place, REDIS_URL=redis_url)).out == "temperature = 0.5\n"
    wrong = await henji(tree, "admin", "config", "tyo:shop", REDIS_URL=redis_url)
    assert "there is no platform tyo, only console, discord, slack, toy" in wrong.err


async def _a_core_serves(redis: Redis) -> bool:
    return bool(await redis.exists("henji:{0}:lane:echo"))
