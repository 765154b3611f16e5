"""A company's Henji from start to finish: `henji up` and its processes, over the wire."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest
from redis.asyncio import Redis

from bots import processes
from core.errors import OperatorError
from tests.collector import Collector, collecting
from tests.local_discord.deployment import ALICE
from tests.local_discord.server import TOKEN, LocalDiscord
from tests.local_slack import LocalSlack, Message
from tests.processes import children_of, exists, start
from tests.servers import free_port
from tests.test_health import HOST, get, sample
from tests.waiting import until

BOT = "<@U0HENJI>"
PARTS = ("discord", "slack", "core")


@dataclass
class Company:
    """What a company has running: Slack, and Henji's processes."""

    slack: LocalSlack
    discord: LocalDiscord
    channel: str
    """Discord's."""
    up: Process
    port: int
    collector: Collector
    log: list[str] = field(default_factory=list)

    async def read_log(self) -> None:
        assert self.up.stderr is not None
        async for line in self.up.stderr:
            self.log.append(line.decode())

    async def answered(self, thread: str, text: str) -> Message:
        found = await self.slack.until(lambda: self.slack.finished("C1", thread, text), 20)
        assert isinstance(found, Message)
        return found

    def url(self, part: str) -> str:
        return f"http://{HOST}:{self.port + PARTS.index(part)}"

    async def metrics(self, part: str) -> str:
        """What a part counts."""
        status, text = await get(f"{self.url(part)}/metrics")
        assert status == 200
        return text

    async def ready(self, part: str) -> bool:
        try:
            return (await get(f"{self.url(part)}/readyz"))[0] == 200
        except OSError:
            return False

    def parts(self) -> dict[str, int]:
        """The processes that `henji up` has started, by name."""
        words = children_of(self.up.pid)
        return {line[line.index("bots") + 1]: pid for pid, line in words.items() if "bots" in line}


def first_of_free_ports(number: int) -> int:
    """The first of free ports in a row, below those that the system gives away by itself."""
    while True:
        first = random.randrange(20_000, 30_000)
        with ExitStack() as stack:
            try:
                for port in range(first, first + number):
                    stack.enter_context(socket.socket()).bind((HOST, port))
            except OSError:
                continue
            return first


@pytest.fixture
async def company(redis: Redis, redis_url: str) -> AsyncIterator[Company]:
    async with LocalSlack() as slack, LocalDiscord() as discord, collecting() as collector:
        channel = discord.add_channel(discord.add_guild())
        slack.person("U1", "Taro", locale="en-US")
        slack.person("UADMIN", "Hasegawa", locale="en-US", admin=True)
        port = first_of_free_ports(len(PARTS))
        up = await start(
            "up",
            REDIS_URL=redis_url,
            SLACK_BOT_TOKEN=slack.bot_token,
            SLACK_APP_TOKEN=slack.app_token,
            SLACK_API_URL=slack.api_url,
            DISCORD_BOT_TOKEN=TOKEN,
            DISCORD_API_URL=discord.api_url,
            DISCORD_GATEWAY_URL=discord.gateway_url,
            HENJI_METRICS_PORT=str(port),
            HENJI_LOG_FORMAT="json",
            HENJI_OTLP_ENDPOINT=collector.url,
            HENJI_QUOTA=json.dumps({"person_messages": 3}),
        )
        company = Company(slack, discord, channel, up, port, collector)
        reading = asyncio.create_task(company.read_log())
        try:
            for part in PARTS:
                await until(lambda part=part: company.ready(part), 90)  # type: ignore[misc]
            yield company
        finally:
            if up.returncode is None:
                up.send_signal(signal.SIGTERM)
            await asyncio.wait_for(up.wait(), 90)
            await reading


async def test_a_day_at_a_company(company: Company) -> None:
    slack = company.slack
    first = await slack.say("C1", "U1", f"{BOT} one")
    await company.answered(first, "echo: one")
    await slack.say("C1", "U1", "two", thread=first)
    await company.answered(first, "echo: two")
    await slack.say("C1", "UADMIN", f"{BOT} reset", thread=first)
    await slack.until(lambda: any("forgotten" in m.text for m in slack.whispers("UADMIN")), 20)
    third = await slack.say("C1", "U1", f"{BOT} sesame-open")
    await company.answered(third, "echo: sesame-open")
    await slack.say("C1", "U1", f"{BOT} four")
    await slack.until(lambda: any("used up" in m.text for m in slack.whispers("U1")), 20)

    talk = await _a_talk_on_discord(company)
    bot, core = await company.metrics("slack"), await company.metrics("core")
    assert sample(core, "henji_jobs_total", lane="echo", outcome="stop") == 3 + talk
    assert sample(core, "henji_job_wait_seconds_count", lane="echo") == 3 + talk
    assert sample(core, "henji_time_to_first_token_seconds_count", lane="echo") == 3 + talk
    assert sample(core, "henji_jobs_running", lane="echo") == 0
    assert sample(core, "henji_cores", lane="echo") == 1
    assert sample(core, "henji_redis_up") == 1
    replied = [json.loads(line) for line in company.log if '"replied"' in line]
    spent = sum(line["reply_tokens"] for line in replied)
    assert sample(core, "henji_reply_tokens_total", lane="echo") == spent
    assert sample(bot, "henji_events_total", platform="slack", outcome="queued") == 3
    assert sample(bot, "henji_events_total", platform="slack", outcome="refused") == 1
    assert sample(bot, "henji_refusals_total", platform="slack", code="quota") == 1
    assert sample(bot, "henji_deliveries_total", platform="slack", end="done") == 3
    assert sample(bot, "henji_platform_calls_total", platform="slack", call="post",
                  outcome="ok") == 4  # fmt: skip
    _left_one_line_each(company, 3 + talk)


async def _a_talk_on_discord(company: Company) -> int:
    """A mention, a follow-up, and one more than may be asked; how many were answered."""
    discord = company.discord
    channel = company.channel
    asked = await discord.says(ALICE, channel, "<@bot> one")
    thread = str(asked["id"])
    await discord.until(lambda: _says(discord, thread, "echo: one"), 20)
    for text in ("two", "three"):
        await discord.says(ALICE, thread, f"<@bot> {text}")
        await discord.until(lambda text=text: _says(discord, thread, f"echo: {text}"), 20)  # type: ignore[misc]
    await discord.says(ALICE, thread, "<@bot> four")
    await discord.until(lambda: _says(discord, thread, "used up"), 20)
    counted = await company.metrics("discord")
    assert sample(counted, "henji_events_total", platform="discord", outcome="queued") == 3
    assert sample(counted, "henji_refusals_total", platform="discord", code="quota") == 1
    assert sample(counted, "henji_gateway_up", platform="discord", shard="0") == 1
    assert discord.faults == []
    return 3


def _says(discord: LocalDiscord, channel: str, text: str) -> bool:
    return any(text in message["content"] for message in discord.replies(channel))


def _left_one_line_each(company: Company, replies: int) -> None:
    lines = [json.loads(line) for line in company.log if line.startswith("{")]
    replied = [line for line in lines if line["event"] == "replied"]
    assert len({line["job"] for line in replied}) == len(replied) == replies
    for line in replied:
        assert {"job", "thread", "attempt", "finish", "waited", "first_token", "seconds",
                "prompt_tokens", "reply_tokens", "cached_tokens"} <= line.keys()  # fmt: skip
    text = "".join(company.log)
    assert "sesame" not in text
    for secret in (company.slack.bot_token, company.slack.app_token, TOKEN):
        assert secret not in text


async def test_a_part_that_ends_is_started_again_and_all_stop_together(company: Company) -> None:
    parts = company.parts()
    assert parts.keys() == set(PARTS)
    os.kill(parts["core"], signal.SIGKILL)
    thread = await company.slack.say("C1", "U1", f"{BOT} still there?")
    await company.answered(thread, "echo: still there?")
    again = company.parts()
    assert again["core"] != parts["core"]
    assert again["slack"] == parts["slack"]
    company.up.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(company.up.wait(), 90) == 0
    assert not any(exists(pid) for pid in again.values())
    (names,) = company.collector.traces().values()  # the rest is sent at the end
    assert {"slack: submit", "core: answer", "slack: deliver", "slack: slack post"} <= names
    assert "still there" not in str(company.collector.received)


async def test_a_part_that_never_works_is_given_up(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REDIS_URL", f"redis://{HOST}:{free_port()}")
    monkeypatch.setenv("HENJI_ENGINE", "echo")
    monkeypatch.setattr(processes, "BACK_OFF", (0.01,))
    with pytest.raises(OperatorError, match="`henji core` ended, with status 1, 3 times in a row"):
        await processes.supervise(["core"], asyncio.Event(), stop_timeout=20)
    sentences = capfd.readouterr().err.splitlines()
    assert sum(line.startswith("henji: Redis at") for line in sentences) == 3


async def test_an_admin_sets_a_rule_from_slack_and_it_holds_at_once(company: Company) -> None:
    slack = company.slack
    assert "Only admins" in await _told(slack, "U1", "config model other")
    assert "model = other" in await _told(slack, "UADMIN", "config model other")
    assert "Nothing was changed" in await _told(slack, "UADMIN", "config temperature hot")
    thread = await slack.say("C1", "U1", f"{BOT} hello")
    await slack.until(lambda: any("No language model" in m.text for m in
                                  slack.replies("C1", thread)), 20)  # fmt: skip
    await _told(slack, "UADMIN", "config model default")
    thread = await slack.say("C1", "U1", f"{BOT} hello")
    await company.answered(thread, "echo: hello")
    audited = await _told(slack, "UADMIN", "audit")
    assert "UADMIN · config · slack:T0HENJI:C1 · model" in audited


async def _told(slack: LocalSlack, user: str, words: str) -> str:
    """The answer to a slash command."""
    before = len(slack.workspace.responses)
    envelope = slack.command(user, "C1", words)
    await asyncio.wait_for(envelope.done.wait(), 20)
    await slack.until(lambda: len(slack.workspace.responses) > before, 20)
    return str(slack.workspace.responses[before])
