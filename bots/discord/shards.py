"""Shards: each is one connection, which one process owns by a lease."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from bots.discord.client import HenjiClient
from bots.discord.setup_checks import explained_errors
from core.errors import HenjiError, StoreUnavailable
from core.observe import metrics
from core.ports import Leases

log = structlog.get_logger()

LEASE_SECONDS = 15.0
IDENTIFY_SECONDS = 5.0
"""Discord lets one connection of a bot open a session every five seconds."""


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """The number of shards, and the most that this process takes."""

    count: int
    maximum: int
    holder: str
    lease: float = LEASE_SECONDS
    identify: float = IDENTIFY_SECONDS


class Shards:
    """The connections of this process: one for each shard whose lease it holds.

    A process takes every free shard, up to its limit, and waits for the others: when an owner dies,
    its lease ends and another process connects.
    """

    def __init__(
        self, plan: ShardPlan, leases: Leases, token: str, connect: Callable[[int], HenjiClient]
    ) -> None:
        self._plan = plan
        self._leases = leases
        self._token = token
        self._connect = connect
        self._places = asyncio.Semaphore(plan.maximum)
        self._sessions = itertools.count()

    async def run(self) -> None:
        """Serve free shards until cancelled. OperatorError where Discord refuses."""
        async with asyncio.TaskGroup() as group:
            for shard in range(self._plan.count):
                group.create_task(self._serve(shard), name=f"shard {shard}")

    async def _serve(self, shard: int) -> None:
        while True:
            async with self._places:
                if await self._take(shard):
                    await self._serve_or_log(shard)
            await asyncio.sleep(self._plan.lease / 3)

    async def _serve_or_log(self, shard: int) -> None:
        """A defect ends this connection alone: another is opened, and catches up."""
        try:
            await self._serve_owned(shard)
        except HenjiError:
            raise
        except Exception:
            log.exception("a connection failed; a new one is opened", shard=shard)

    async def _serve_owned(self, shard: int) -> None:
        """Stay connected while this process has the lease."""
        client = self._connect(shard)
        with metrics.gateway_connection("discord", lambda: client.connected, str(shard)):
            await self._connected(shard, client)

    async def _connected(self, shard: int, client: HenjiClient) -> None:
        running = asyncio.create_task(self._run(client), name=f"connection {shard}")
        renewing = asyncio.create_task(self._renew(shard), name=f"lease {shard}")
        try:
            await asyncio.wait({running, renewing}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
        finally:
            for task in (running, renewing):
                task.cancel()
            await client.close()
            await asyncio.gather(running, renewing, return_exceptions=True)
            with contextlib.suppress(StoreUnavailable):
                await self._leases.give_up(_name(shard), self._plan.holder)

    async def _run(self, client: HenjiClient) -> None:
        with explained_errors():
            client.before_session = self._wait_to_identify
            await client.login(self._token)
            await client.connect()

    async def _wait_to_identify(self) -> None:
        """Open one session at a time, among all processes."""
        turn, me = self._plan.identify, f"{self._plan.holder} {next(self._sessions)}"
        while True:
            try:
                if await self._leases.acquire("discord identify", me, turn):
                    return
            except StoreUnavailable:
                log.warning("redis is away; no session is opened")
            await asyncio.sleep(turn / 5)

    async def _renew(self, shard: int) -> None:
        """Return when another process has the lease.

        While Redis is away the connection stays: no other process can take the shard, and people
        are told.
        """
        reachable = True
        while True:
            await asyncio.sleep(self._plan.lease / 4)
            try:
                if not await self._leases.acquire(
                    _name(shard), self._plan.holder, self._plan.lease
                ):
                    break
                reachable = True
            except StoreUnavailable:
                if reachable:
                    log.warning("redis is away; people are told so", shard=shard)
                reachable = False
        log.warning("another process owns this shard now", shard=shard)

    async def _take(self, shard: int) -> bool:
        try:
            return await self._leases.acquire(_name(shard), self._plan.holder, self._plan.lease)
        except StoreUnavailable as error:
            log.warning("redis is away; trying again", error=str(error))
            return False


def _name(shard: int) -> str:
    return f"discord shard {shard}"
