"""`henji admin status`: the whole system at a glance."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import click

from bots.cli.common import example, open_settings, print_json, table
from bots.monitoring import REPORT_SECONDS
from bots.processes import stop_on_signals
from bots.services import Stores, open_stores
from core.errors import OperatorError, StoreUnavailable
from core.observe.logs import printable
from core.queue_types import Load, ProcessReport, ServerState
from core.settings import Settings

REFRESH_SECONDS = 2.0
SILENT_SECONDS = 3 * REPORT_SECONDS
"""A process without a report for this long counts as dead or stuck."""
HOME_AND_CLEAR = "\x1b[H\x1b[2J"


@dataclass(frozen=True, slots=True)
class SystemState:
    """A snapshot of everything that is shown."""

    at: float
    redis: ServerState
    lanes: dict[str, Load]
    oldest_wait: float
    """Seconds."""
    replies: int
    """Of all cores in the last minute."""
    processes: Sequence[ProcessReport]
    takes_writes: bool = True


@click.command(epilog=example("henji admin status", "henji admin status --watch"))
@click.option("--watch", is_flag=True, help=f"Refresh every {REFRESH_SECONDS:g} seconds.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def status(watch: bool, as_json: bool) -> None:
    """Show the cores, the bots, the queue and Redis."""
    settings = open_settings(log_level="error")

    async def run() -> None:
        # not a KeyboardInterrupt, which may be lost where it meets the end of a Redis call
        stop = stop_on_signals([signal.SIGINT]) if watch else asyncio.Event()
        async with open_stores(settings) as stores:
            while not stop.is_set():
                state = await read_state(stores, settings)
                if as_json:
                    print_json(_as_json(state))
                else:
                    head = HOME_AND_CLEAR if watch else ""
                    click.echo(head + "\n".join(map(printable, lines_of(state))))
                if not watch:
                    return
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), REFRESH_SECONDS)

    asyncio.run(run())


async def read_state(stores: Stores, settings: Settings) -> SystemState:
    """StoreUnavailable where Redis does not answer, OperatorError where it does not within 10 s."""
    try:
        async with asyncio.timeout(10):
            return await _read_state(stores, settings)
    except TimeoutError:
        raise OperatorError("Redis does not answer within 10 s") from None


async def _read_state(stores: Stores, settings: Settings) -> SystemState:
    processes = await stores.reports.reports()
    now = time.time()
    try:
        await stores.queue.check_writes()
        takes_writes = True
    except StoreUnavailable:
        takes_writes = False
    lanes = dict.fromkeys((settings.job_lane, *(report.lane for report in processes)))
    return SystemState(
        at=now,
        redis=await stores.reports.server(),
        lanes={lane: await stores.queue.load(lane) for lane in lanes},
        oldest_wait=await stores.reports.oldest_wait(),
        replies=sum(report.replies for report in processes if not is_silent(report, now)),
        processes=processes,
        takes_writes=takes_writes,
    )


def _as_json(state: SystemState) -> dict[str, Any]:
    document = asdict(state)
    for load in document["lanes"].values():
        load["owed"] = load.pop("outstanding")
    return document


def is_silent(report: ProcessReport, now: float) -> bool:
    """Whether a process seems dead or stuck: its reports have stopped."""
    return now - report.at > SILENT_SECONDS


def lines_of(state: SystemState) -> Iterator[str]:
    """The state as text."""
    redis = state.redis
    limit = f" of {_bytes(redis.limit)}" if redis.limit else ", without a limit"
    file = "" if redis.file_ok else ", CANNOT WRITE ITS FILE"
    writes = "" if state.takes_writes else ", TAKES NO WRITES"
    evicted = f", {redis.evicted} KEYS EVICTED" if redis.evicted else ""
    memory = f", {_bytes(redis.memory)}{limit}" if redis.memory else ""  # else it is not known
    yield f"Redis      {redis.name}{memory}{writes}{file}{evicted}"
    for lane, load in state.lanes.items():
        cores = f"{load.cores} core{'s' * (load.cores != 1)}" if load.cores else "NO CORE"
        yield f"lane       {lane}: {cores}, {load.waiting} waiting"
    load = next(iter(state.lanes.values()))
    oldest = f", the oldest for {_time(state.oldest_wait)}" if state.oldest_wait else ""
    yield f"owed       {load.outstanding}{oldest}; {load.dead} given up"
    yield f"replies    {state.replies} in the last minute"
    yield ""
    yield from _table(state)


def _table(state: SystemState) -> Iterator[str]:
    if not state.processes:
        yield "no process has reported in the last hour"
        return
    rows = [("part", "process", "up for", "state", "last error")]
    rows += [_row(report, state.at) for report in state.processes]
    yield from table(rows)


def _row(report: ProcessReport, now: float) -> tuple[str, str, str, str, str]:
    silent = is_silent(report, now)
    state = f"SILENT for {_time(now - report.at)}" if silent else report.state or "ready"
    error = f"{_time(now - report.error_at)} ago: {report.error}" if report.error else "-"
    return report.part, report.name, _time(report.at - report.since), state, error


def _time(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _bytes(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
