"""A soak: `make soak` lets people do everything for an hour, and draws each process's memory.

A real Redis, a core with the embedded model, and Slack's adapter, each a process; people ask
prompts of every size, edit, delete, reset, forget themselves, and workspaces install the app and
remove it. No key in Redis lives for longer than a twelfth of the time, so that Redis comes to
rest well before the middle. It fails where a process or Redis still grows after that, and prints
which keys hold how much.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from statistics import fmean

from redis.asyncio import Redis
from slack_sdk.oauth.installation_store import Bot as InstalledBot

from bots.slack.components import FEEDBACK, REGENERATE
from bots.slack.oauth import Installations
from core.queue_types import Place
from storage import keys
from storage.embedded_server import embedded_server
from tests.benchmarks._plot import lines
from tests.local_slack.people import LocalSlack
from tests.processes import environment_with
from tests.short_lives import shorten
from tests.store_fixture import StoreFixture
from tests.waiting import until

EVERY = 5.0
"""Seconds between two measurements."""
LIVES = 12
"""How many lifetimes of a key, at least, the whole time has; none is under a minute."""
GROWTH = 1.10
"""The use at the end, as a part of the use after the warm-up."""
PEOPLE, CHANNELS, WORKSPACES = 20, 5, 30
LONGEST = 1500
"""Words of a prompt."""
CACHE = 0.2
"""Gigabytes of the core's cache of keys and values, which must be full after the warm-up."""
AT_ONCE = 4
"""Events not yet acknowledged, and questions not yet answered, at most."""
REPLY = 16
"""Tokens of an answer, at most: it is prompts that differ in size."""


class People:
    """People who do everything that they can, each act chosen by a seed."""

    def __init__(self, slack: LocalSlack, stores: StoreFixture) -> None:
        self.slack, self.stores = slack, stores
        self.random = Random(1)
        self.installations = Installations(stores.secrets)
        self.threads: list[tuple[str, str]] = []
        self.done: dict[str, int] = {}

    async def act(self) -> None:
        """Nothing while too many wait: keys must not expire before their reply has ended."""
        unheard = sum(not envelope.done.is_set() for envelope in self.slack.delivery.envelopes)
        if unheard + await self.stores.redis.zcard(keys.key("deadlines", 0)) >= AT_ONCE:
            await asyncio.sleep(0.1)
            return
        acts: Mapping[Callable[[], Awaitable[None]], int] = {
            self.ask: 12, self.ask_again: 8, self.chat: 4, self.edit: 3, self.delete: 3,
            self.press: 4, self.reset: 3, self.forget: 1, self.install: 2, self.remove: 2,
            self.reset_channel: 1,
        }  # fmt: skip
        (act,) = self.random.choices(list(acts), list(acts.values()))
        self.done[act.__name__] = self.done.get(act.__name__, 0) + 1
        await act()

    def _text(self) -> str:
        return " ".join(["word"] * int(LONGEST ** self.random.random()))

    def _person(self) -> str:
        return f"U{self.random.randrange(PEOPLE)}"

    async def ask(self) -> None:
        channel = f"C{self.random.randrange(CHANNELS)}"
        text = f"<@{self.slack.bot_user}> {self._text()}"
        ts = await self.slack.say(channel, self._person(), text)
        self.threads = [*self.threads[-50:], (channel, ts)]

    async def ask_again(self) -> None:
        await self._say_inside(f"<@{self.slack.bot_user}> {self._text()}")

    async def chat(self) -> None:
        await self._say_inside(self._text())

    async def reset(self) -> None:
        await self._say_inside(f"<@{self.slack.bot_user}> reset")

    async def _say_inside(self, text: str) -> None:
        if self.threads:
            channel, ts = self.random.choice(self.threads)
            await self.slack.say(channel, self._person(), text, thread=ts)

    async def edit(self) -> None:
        if found := self._message():
            await self.slack.edit(found[0], found[1], f"<@{self.slack.bot_user}> {self._text()}")

    async def delete(self) -> None:
        if found := self._message():
            await self.slack.delete(*found)

    async def press(self) -> None:
        """Regenerate one of the last replies, or rate it."""
        replies = [m for m in self.slack.workspace.messages.values() if m.buttons()]
        if not replies:
            return
        reply = self.random.choice(replies[-20:])
        buttons = reply.buttons()
        if FEEDBACK in buttons and self.random.random() < 0.5:
            rating = self.random.choice(["positive_button", "negative_button"])
            value = buttons[FEEDBACK][rating]["value"]
            self.slack.press(self._person(), reply, FEEDBACK, value=value)
        elif REGENERATE in buttons and (root := reply.thread_ts):
            asker = self.slack.workspace.messages.get((reply.channel, root))
            self.slack.press(asker.user if asker else self._person(), reply, REGENERATE)

    def _message(self) -> tuple[str, str] | None:
        mine = [
            (m.channel, m.ts) for m in self.slack.workspace.messages.values()
            if m.user != self.slack.bot_user
        ]  # fmt: skip
        return self.random.choice(mine[-100:]) if mine else None

    async def forget(self) -> None:
        await self.stores.history.forget(self._space, self._person())

    async def reset_channel(self) -> None:
        place = Place("slack", self._space.space, f"C{self.random.randrange(CHANNELS)}")
        await self.stores.history.reset_place(place, "admin")

    @property
    def _space(self) -> Place:
        return Place("slack", self.slack.workspace.team)

    async def install(self) -> None:
        team = f"T{self.random.randrange(WORKSPACES)}"
        bot = InstalledBot(
            app_id="A1", team_id=team, bot_token="xoxb-soak", bot_id="B1", bot_user_id="U1",
            installed_at=time.time(),
        )  # fmt: skip
        await self.installations.async_save_bot(bot)

    async def remove(self) -> None:
        await self.installations.uninstall(f"T{self.random.randrange(WORKSPACES)}", time.time())

    def tidy(self) -> None:
        """The local Slack forgets old messages: its memory must not be counted as the bot's."""
        messages = self.slack.workspace.messages
        for place in list(messages)[:-500]:
            del messages[place]
        del self.slack.api.calls[:-100], self.slack.delivery.envelopes[:-100]


def megabytes(pid: int) -> float:
    """A process's resident memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)


_KINDS = [
    (entry.pattern, re.compile(r"henji:\{\d+\}:" + re.escape(entry.pattern).replace("%s", ".*")))
    for entry in sorted(keys.TABLE, key=lambda entry: -len(entry.pattern))
]
"""Longer patterns first: a thread's turns are no thread."""


def pattern_of(name: str) -> str:
    """The pattern of a key, as `storage/keys.py` has it; `name` itself if it has none."""
    return next((pattern for pattern, kind in _KINDS if kind.fullmatch(name)), name)


async def bytes_by_pattern(redis: Redis) -> Mapping[str, int]:
    """What Redis holds in the keys of each pattern."""
    held: dict[str, int] = {}
    async for name in redis.scan_iter(count=1000):
        size = await redis.memory_usage(name, samples=0) or 0  # 0: it has expired meanwhile
        held[pattern_of(name)] = held.get(pattern_of(name), 0) + size
    return held


Series = dict[str, list[tuple[float, float]]]
"""By second: megabytes of each process and of Redis's data, or bytes of each pattern's keys."""


async def soak(folder: Path, minutes: float) -> tuple[Series, Series]:
    """Let people act for so long, and measure. The processes end with it."""
    life = max(60 * minutes / LIVES, 60)
    shorten(life)
    async with AsyncExitStack() as stack:
        empty = stack.enter_context(tempfile.TemporaryDirectory(prefix="henji-soak-"))
        url = await stack.enter_async_context(embedded_server(Path(empty)))
        redis = await stack.enter_async_context(
            Redis.from_url(url, decode_responses=True, socket_timeout=None)  # a disk may be slow
        )
        slack = await stack.enter_async_context(LocalSlack(60.0))
        for number in range(PEOPLE):
            slack.person(f"U{number}", f"Person {number}")
        terms = {
            "REDIS_URL": url, "HENJI_DATA_DIR": str(folder), "HENJI_MODEL": "smollm2",
            "HENJI_ENGINE": "torch", "HENJI_MAX_NEW_TOKENS": str(REPLY),
            "HENJI_CACHE_GB": str(CACHE),
            "SLACK_BOT_TOKEN": slack.bot_token, "SLACK_APP_TOKEN": slack.app_token,
            "SLACK_API_URL": slack.api_url,
        }  # fmt: skip
        pids = {"redis": int((await redis.info("server"))["process_id"])}
        for name in ("core", "slack"):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.short_lives", str(life), name),
                stderr=(folder / f"{name}.log").open("wb"), env=environment_with(terms),
            )  # fmt: skip
            stack.push_async_callback(_end, process)
            pids[name] = process.pid
        people = People(slack, StoreFixture.over(redis))
        await slack.until(lambda: slack.delivery.sockets > 0, 300)
        await until(lambda: _is_served(people.stores), 900)
        return await _measured(people, redis, pids, 60 * minutes)


async def _end(process: asyncio.subprocess.Process) -> None:
    process.terminate()
    await process.wait()


async def _is_served(stores: StoreFixture) -> bool:
    return await stores.queue.cores("smollm2") > 0


async def _measured(
    people: People, redis: Redis, pids: Mapping[str, int], seconds: float
) -> tuple[Series, Series]:
    series: Series = {name: [] for name in (*pids, "what Redis holds")}
    by_pattern: Series = {entry.pattern: [] for entry in keys.TABLE}
    began = measured = time.monotonic()
    while (now := time.monotonic()) - began < seconds:
        await people.act()
        if now - measured < EVERY:
            continue
        measured = now
        people.tidy()
        for name, pid in pids.items():
            series[name].append((now - began, megabytes(pid)))
        held = int((await redis.info("memory"))["used_memory"]) / 2**20
        series["what Redis holds"].append((now - began, held))
        patterns = await bytes_by_pattern(redis)
        for pattern in {**by_pattern, **patterns}:
            size = patterns.get(pattern, 0)
            by_pattern.setdefault(pattern, []).append((now - began, size))
    print(f"{dict(sorted(people.done.items()))}", flush=True)
    return series, by_pattern


def middle_and_end(rows: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The means of the sixth after the middle, before which is the warm-up, and of the last one."""
    sixth = max(1, len(rows) // 6)
    middle, last = rows[len(rows) // 2 :][:sixth], rows[-sixth:]
    return fmean(value for _, value in middle), fmean(value for _, value in last)


def table(title: str, series: Series, digits: int) -> Mapping[str, float]:
    """Print what each holds in the middle and at the end. Returns how much each has grown."""
    print(f"\n{title:28}{'middle':>10}{'end':>10}{'grown':>8}")
    ratios = {}
    for name, rows in series.items():
        middle, end = middle_and_end(rows)
        if middle or end:
            ratios[name] = end / middle if middle else float("inf")
            print(f"{name:28}{middle:10.{digits}f}{end:10.{digits}f}{ratios[name]:8.2f}")
    return ratios


def main(folder: Path, minutes: float) -> int:
    """`folder` keeps the converted model, the logs and the figures."""
    folder.mkdir(parents=True, exist_ok=True)
    series, by_pattern = asyncio.run(soak(folder, minutes))
    (folder / "soak.json").write_text(json.dumps({**series, **by_pattern}))
    (folder / "soak.svg").write_text(lines("Megabytes, by minute", series))
    table("bytes of keys", by_pattern, 0)
    ratios = table("megabytes", series, 1)
    print(f"\n{folder / 'soak.svg'}")
    return 1 if max(ratios.values()) > GROWTH else 0


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser("python -m tests.soak", description=__doc__)
    parser.add_argument("folder", type=Path, help="for the model, the logs and the figures")
    parser.add_argument("minutes", type=float, nargs="?", default=60.0, help="60 unless given")
    return parser.parse_args(words)


if __name__ == "__main__":
    given = arguments()
    raise SystemExit(main(given.folder, given.minutes))
