"""The health pages of a process, requested by a real client."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from core.observe import health, metrics
from core.observe.health import Health, health_pages
from core.queue_types import Receipt
from tests.servers import free_port

HOST = "127.0.0.1"


class Process:
    """A process with health pages: its answers, and how often it looked up its numbers."""

    fault = ""
    looked_up = 0

    async def ready(self) -> str:
        return self.fault

    async def refresh(self) -> None:
        self.looked_up += 1
        if self.fault:
            raise OSError(self.fault)
        metrics.JOBS_WAITING.labels("tested").set(self.looked_up)


@pytest.fixture
async def process() -> AsyncIterator[tuple[Process, str]]:
    process, port = Process(), free_port()
    async with health_pages(HOST, port, Health(process.ready, process.refresh)):
        yield process, f"http://{HOST}:{port}"


async def get(url: str, method: str = "GET") -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.request(method, url) as answer:
        return answer.status, await answer.text()


async def test_a_process_is_alive_and_ready(process: tuple[Process, str]) -> None:
    _, url = process
    assert await get(f"{url}/healthz") == (200, "alive\n")
    assert await get(f"{url}/readyz?verbose") == (200, "ready\n")


async def test_a_process_that_is_not_ready_says_why_and_lives(process: tuple[Process, str]) -> None:
    asked, url = process
    asked.fault = "Redis does not answer"
    assert await get(f"{url}/readyz") == (503, "Redis does not answer\n")
    assert (await get(f"{url}/healthz"))[0] == 200


async def test_a_scrape_reads_shared_numbers(process: tuple[Process, str]) -> None:
    asked, url = process
    await get(f"{url}/metrics")
    status, text = await get(f"{url}/metrics")
    assert (status, asked.looked_up) == (200, 2)
    assert sample(text, "henji_jobs_waiting", lane="tested") == 2


async def test_a_scrape_goes_on_where_nothing_can_be_looked_up(
    process: tuple[Process, str],
) -> None:
    asked, url = process
    asked.fault = "Redis does not answer"
    metrics.count_receipt("tested", Receipt("duplicate"))
    status, text = await get(f"{url}/metrics")
    assert status == 200
    assert sample(text, "henji_events_total", platform="tested", outcome="duplicate") >= 1


async def test_only_three_pages_are_there_to_be_read(process: tuple[Process, str]) -> None:
    _, url = process
    assert (await get(f"{url}/secrets"))[0] == 404
    assert (await get(f"{url}/metrics", "POST"))[0] == 405
    assert await get(f"{url}/healthz", "HEAD") == (200, "")


@pytest.mark.parametrize("request_", [b"\x1b]0;hello\r\n\r\n", b"x" * 100_000 + b"\r\n\r\n"])
async def test_a_request_that_cannot_be_read_is_refused_and_not_logged(
    process: tuple[Process, str], request_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "core")
    port = int(process[1].rpartition(":")[2])
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(request_)
    answer = await reader.read()
    assert b" 400 " in answer.splitlines()[0]
    assert not caplog.records
    writer.close()


@pytest.mark.parametrize("request_", [b"", b"\r\n\r\n", b"GET /healthz HT"])
async def test_a_connection_with_an_incomplete_request_is_closed(
    process: tuple[Process, str], request_: bytes
) -> None:
    port = int(process[1].rpartition(":")[2])
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(request_)
    assert await asyncio.wait_for(reader.read(), 2 * health.IDLE_SECONDS) == b""
    writer.close()


async def test_a_port_that_is_taken_is_said_and_the_process_goes_on() -> None:
    process = Process()
    with socket.socket() as taken, capture_logs() as logs:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with health_pages(HOST, port, Health(process.ready, process.refresh)):
            pass
    assert "HENJI_METRICS_PORT" in logs[0]["event"]
    assert logs[0]["port"] == port


async def test_without_a_port_nothing_is_served() -> None:
    process = Process()
    with capture_logs() as logs:
        async with health_pages(HOST, 0, Health(process.ready, process.refresh)):
            pass
    assert logs == []


def sample(text: str, name: str, **labels: str) -> float:
    """The value of one series in a scrape."""
    for family in text_string_to_metric_families(text):
        for found in family.samples:
            if found.name == name and found.labels == labels:
                return float(found.value)
    raise AssertionError(f"no {name} with {labels}")
