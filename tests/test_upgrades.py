"""A release reads the data of every earlier one, and a backup is as good as the original."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from core.access_policy import Policy
from core.queue_types import Commit, Place, Regeneration
from core.types import Cancelled, Done, Failed, Queued, Started, Usage
from storage import codec, keys
from storage.embedded_server import embedded_server
from storage.queue import RedisQueue
from storage.rules import RedisAudit, RedisRules
from tests.fixtures import scene
from tests.processes import finish, start_in
from tests.servers import free_port, running
from tests.store_fixture import LANE, THREAD, StoreFixture, ends
from tests.waiting import until

RELEASES = sorted(scene.RELEASED.glob("*.json"))


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.stem)
async def test_conversations_of_an_earlier_release_go_on(redis: Redis, release: Path) -> None:
    await scene.load(redis, scene.read(release))
    await _upgrade_within_the_hour(redis)
    await _goes_on(redis)


async def test_conversations_of_this_release_go_on(redis: Redis) -> None:
    await scene.play(redis)
    entries = await scene.dump(redis)
    await redis.flushall()
    await scene.load(redis, entries)
    await _goes_on(redis)


async def _upgrade_within_the_hour(redis: Redis) -> None:
    """What was dumped long ago is not past its deadline."""
    later = round(1000 * time.time()) + 3_600_000
    for job in map(str, await redis.zrange(keys.key("deadlines", 0), 0, -1)):
        await redis.zadd(keys.key("deadlines", 0), {job: later})
        await redis.hset(keys.key("job", 0, job), "deadline", str(later))


async def _goes_on(redis: Redis) -> None:
    """Everything in the scene is understood: turns, jobs, deliveries, events, letters, rules."""
    stores = StoreFixture.over(redis, max_attempts=3)
    await stores.queue.announce(LANE, "a newer core", 60)
    assert "日本の首都は?" in await stores.texts()
    await _takes_over_what_was_running(stores)
    rules = await RedisRules(stores.store, Policy()).rules(THREAD)
    assert rules.temperature == 0.2
    acts = {entry.act for entry in await RedisAudit(stores.store).entries(Place("slack", "T9"), 9)}
    assert acts == {"reset"}
    (letter,) = await stores.queue.dead(10)
    assert (letter.turn, letter.code) == ("m2", "internal")
    assert (await stores.queue.requeue(letter, LANE)).outcome == "queued"


async def _takes_over_what_was_running(stores: StoreFixture) -> None:
    await stores.redis.zadd(keys.key("leases", 0), {str(THREAD): 1})
    await stores.queue.sweep()
    for turn, text in (("m3", "streamed"), ("m4", "waited for")):
        claim = await stores.claim()
        assert claim.job.turn == turn
        assert await stores.reply(claim, text) == "ok"
        events = await stores.events(claim.job.id)
        assert isinstance(events[0], Queued)
        assert isinstance(events[-1], Done)
    await stores.redis.zadd(
        keys.key("deliveries", 0, "slack"),
        dict.fromkeys(await stores.redis.zrange(keys.key("deliveries", 0, "slack"), 0, -1), 1),
    )
    taken = await stores.deliveries.take_over("slack", "a newer bot")
    assert {delivery.turn for delivery in taken} == {"m1", "m2", "m3", "m4"}
    assert (await stores.texts())[:2] == ["日本の首都は?", "東京です。"]


def test_events_of_the_first_release_are_read() -> None:
    """As 0.1.0 wrote them, for events that may get more fields."""
    told = {
        '{"t":"queued","position":3}': Queued(3),
        '{"t":"started","attempt":2}': Started(2),
        '{"t":"failed","code":"busy","message":"7"}': Failed("busy", "7"),
        '{"t":"cancelled","by":"reset"}': Cancelled("reset"),
    }
    for text, event in told.items():
        assert codec.decode_event(text) == event


async def test_a_record_of_a_later_release_is_refused_and_not_guessed_at(redis: Redis) -> None:
    stores = StoreFixture.over(redis)
    record = {"v": "2", "role": "user", "author": "U1", "text": "x", "at": "1.0", "name": ""}
    with pytest.raises(codec.Undecodable, match="version 2"):
        codec.decode_turn("m1", codec.dump(record))
    with pytest.raises(codec.Undecodable, match="version 2"):
        codec.decode_job("j1", {"v": "2"})
    assert await stores.texts() == []


async def test_a_backup_is_restored_as_the_readme_says(tmp_path: Path) -> None:
    home, saved, anew = tmp_path / "home", tmp_path / "backup.rdb", tmp_path / "anew"
    home.mkdir()
    anew.mkdir()
    async with running(home, free_port(), "--appendonly", "yes") as redis:
        await scene.play(redis)
        before = await scene.dump(redis)
        await redis.bgsave()
        await until(lambda: _saved(redis))
        shutil.copy(home / "dump.rdb", saved)
        stores = StoreFixture.over(redis)
        await stores.history.reset(THREAD, "U1")  # what the backup is for
    shutil.copy(saved, anew / "dump.rdb")
    async with running(anew, free_port(), "--appendonly", "no") as redis:
        await redis.config_set("appendonly", "yes")
        await until(lambda: _rewritten(redis))
        after = await scene.dump(redis)
    assert [_still(entry) for entry in after] == [_still(entry) for entry in before]
    async with running(anew, free_port(), "--appendonly", "yes") as redis:
        await _goes_on(redis)


async def test_the_embedded_servers_folder_is_its_backup(tmp_path: Path) -> None:
    home, anew = tmp_path / "home", tmp_path / "anew"
    async with embedded_server(home) as url, client_of(url) as redis:
        await scene.play(redis)
        before = await scene.dump(redis)
    shutil.copytree(home / "redis", anew / "redis")
    async with embedded_server(home) as url, client_of(url) as redis:
        await StoreFixture.over(redis).history.reset(THREAD, "U1")
    async with embedded_server(anew) as url, client_of(url) as redis:
        after = await scene.dump(redis)
        assert [_still(entry) for entry in after] == [_still(entry) for entry in before]
        await _goes_on(redis)


def client_of(url: str) -> Redis:
    return Redis.from_url(url, decode_responses=True, socket_timeout=None)


def _still(entry: dict[str, object]) -> tuple[object, object]:
    return entry["key"], entry["value"]


async def _saved(redis: Redis) -> bool:
    info = await redis.info("persistence")
    return not info["rdb_bgsave_in_progress"] and info["rdb_last_bgsave_status"] == "ok"


async def _rewritten(redis: Redis) -> bool:
    info = await redis.info("persistence")
    return bool(info["aof_enabled"]) and not info["aof_rewrite_in_progress"]


async def test_usage_without_new_fields_is_read(redis: Redis) -> None:
    stores = await StoreFixture.serving(redis)
    await stores.say("hello")
    claim = await stores.claim()
    done = Done("hi", "stop", Usage(1, 1))
    assert await stores.queue.commit(claim, Commit(done, None, "chars")) == "ok"
    assert (await stores.events(claim.job.id))[-1] == done


# -- an upgrade, process by process -------------------------------------------------------------

FIRST_RELEASE = "75cca552ed93"
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def first_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source tree of 0.1.0, whose core and bots run as processes."""
    if shutil.which("git") is None or not _git("cat-file", "-e", f"{FIRST_RELEASE}^{{commit}}"):
        pytest.skip("0.1.0 is taken from git's history, which is not here")
    folder = tmp_path_factory.mktemp("first-release")
    assert _git("archive", "-o", str(folder / "tree.tar"), FIRST_RELEASE)
    shutil.unpack_archive(folder / "tree.tar", folder / "tree")
    return folder / "tree"


def _git(*words: str) -> bool:
    return subprocess.run(["git", "-C", ROOT, *words], capture_output=True).returncode == 0


@pytest.fixture(params=["an old core, a new bot", "a new core, an old bot"])
def trees(request: pytest.FixtureRequest, first_release: Path) -> tuple[Path, Path]:
    """The trees of the core and of the bot."""
    pair = (first_release, ROOT)
    return pair if request.param.startswith("an old") else (pair[1], pair[0])


@asynccontextmanager
async def core_of(tree: Path, **environment: str) -> AsyncIterator[None]:
    """A core of a release, from when it serves until it is left."""
    core = await start_in(tree, "core", **environment)
    try:
        yield
    finally:
        core.terminate()
        await finish(core)


async def test_a_running_core_and_a_bot_of_another_release_talk(
    redis: Redis, redis_url: str, trees: tuple[Path, Path]
) -> None:
    core, bot = trees
    queue = StoreFixture.over(redis).queue
    async with core_of(core, REDIS_URL=redis_url):
        await until(lambda: _serves(queue))
        for text in ("hello", "and again"):
            ran = await finish(await start_in(bot, "chat", "--once", text, REDIS_URL=redis_url))
            assert (ran.status, ran.out.strip()) == (0, f"echo: {text}"), ran.err


async def _serves(queue: RedisQueue) -> bool:
    return await queue.cores("echo") > 0


async def test_this_release_regenerates_a_reply_of_the_first_release(
    redis: Redis, redis_url: str, first_release: Path
) -> None:
    stores = StoreFixture.over(redis)
    async with core_of(first_release, REDIS_URL=redis_url):
        await until(lambda: _serves(stores.queue))
        asked = await stores.say("hello", lane="echo")
        assert isinstance(await ends(stores, asked.job), Done)
        again = Regeneration(THREAD, asked.job or "", "press", "an admin", lane="echo")
        receipt = await stores.queue.regenerate(again, "adapter")
        assert isinstance(await ends(stores, receipt.job), Done)
        assert (await stores.delivery(receipt.job)).owner == "U1"
        assert await stores.texts() == ["hello", "echo: hello"]


async def test_a_reply_that_the_first_release_opened_is_governed_by_its_author(
    redis: Redis,
) -> None:
    stores = StoreFixture.over(redis)
    await scene.load(redis, scene.read(RELEASES[0]))
    owed = await stores.queue.open_jobs(THREAD)
    assert set(owed.values()) == {"U1", "U2"}
    for job, asker in owed.items():
        assert (await stores.delivery(job)).owner == asker
