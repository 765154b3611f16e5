"""A soak: `make soak` lets people do everything for an hour, and draws each process's memory.

python -m tests.soak FOLDER [MINUTES]

A real Redis, a core with the embedded model, and Slack's adapter, each a process; people ask
prompts of every size, edit, delete, reset, forget themselves, and workspaces install the app and
remove it. It fails where a process or Redis still grows after its warm-up.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from random import Random
from statistics import fmean

from redis.asyncio import Redis
from slack_sdk.oauth.installation_store import Bot as InstalledBot

from bots.slack.oauth import Installations
from core.queue_types import Place
from storage.embedded_server import embedded_server
from tests.benchmarks._plot import lines
from tests.local_slack.people import LocalSlack
from tests.processes import environment_with
from tests.store_fixture import StoreFixture
from tests.waiting import until

EVERY = 5.0
"""Seconds between two measurements."""
GROWTH = 1.10
"""The use at the end, as a part of the use after the warm-up."""
PEOPLE, CHANNELS, WORKSPACES = 20, 5, 30
LONGEST = 1500
"""Words of a prompt."""
CACHE = 0.2
"""Gigabytes of the core's cache of keys and values, which must be full after the warm-up."""
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
        acts: Mapping[Callable[[], Awaitable[None]], int] = {
            self.ask: 12, self.ask_again: 8, self.chat: 4, self.edit: 3, self.delete: 3,
            self.reset: 3, self.forget: 1, self.install: 2, self.remove: 2, self.reset_channel: 1,
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
        with suppress(TimeoutError):  # deleted and reset messages get no answer
            await self.slack.until(lambda: bool(self.slack.replies(channel, ts)), 20)

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


Series = dict[str, list[tuple[float, float]]]
"""Megabytes by second, of each process and of Redis's data."""


async def soak(folder: Path, minutes: float) -> Series:
    """Let people act for so long, and measure. The processes end with it."""
    async with AsyncExitStack() as stack:
        empty = stack.enter_context(tempfile.TemporaryDirectory(prefix="henji-soak-"))
        url = await stack.enter_async_context(embedded_server(Path(empty)))
        redis = await stack.enter_async_context(Redis.from_url(url, decode_responses=True))
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
                *(sys.executable, "-m", "bots", name),
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
) -> Series:
    series: Series = {name: [] for name in (*pids, "what Redis holds")}
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
    print(f"{dict(sorted(people.done.items()))}", flush=True)
    return series


def grown(rows: Sequence[tuple[float, float]]) -> float:
    """The last sixth as a part of the sixth in the middle; before that is the warm-up."""
    sixth = max(1, len(rows) // 6)
    middle, last = rows[len(rows) // 2 :][:sixth], rows[-sixth:]
    return fmean(value for _, value in last) / fmean(value for _, value in middle)


def main(folder: Path, minutes: float) -> int:
    """`folder` keeps the converted model, the logs and the figures."""
    folder.mkdir(parents=True, exist_ok=True)
    series = asyncio.run(soak(folder, minutes))
    (folder / "soak.json").write_text(json.dumps(series))
    (folder / "soak.svg").write_text(lines("Megabytes, by minute", series))
    print(f"\n{'':18}{'middle':>8}{'end':>8}{'grown':>8}")
    too_much = 0
    for name, rows in series.items():
        ratio, (_, end) = grown(rows), rows[-1]
        too_much += ratio > GROWTH
        print(f"{name:18}{rows[len(rows) // 2][1]:8.0f}{end:8.0f}{ratio:8.2f}")
    print(f"\n{folder / 'soak.svg'}")
    return 1 if too_much else 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), float([*sys.argv, "60"][2])))
