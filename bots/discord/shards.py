"""Shards: each is one connection, owned by one process under a lease.

A process takes every shard that nobody holds, up to its own limit, and waits for the others: when
an owner dies, its lease ends and the next process connects.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from bots.discord.client import HenjiClient
from bots.discord.setup_checks import faults_told
from core.errors import StoreUnavailable
from core.observe import metrics
from core.ports import Leases

log = structlog.get_logger()

LEASE_SECONDS = 15.0
IDENTIFY_SECONDS = 5.0
"""Discord lets one connection of a bot open a session every five seconds."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Which shards there are, and how many this process takes."""

    count: int
    most: int
    holder: str
    lease: float = LEASE_SECONDS
    identify: float = IDENTIFY_SECONDS


class Shards:
    """The connections of this process."""

    def __init__(
        self, plan: Plan, leases: Leases, token: str, connect: Callable[[int], HenjiClient]
    ) -> None:
        self._plan = plan
        self._leases = leases
        self._token = token
        self._connect = connect
        self._room = asyncio.Semaphore(plan.most)
        self._sessions = itertools.count()

    async def run(self) -> None:
        """Serve what can be had, until cancelled. OperatorError where Discord will not have us."""
        async with asyncio.TaskGroup() as group:
            for shard in range(self._plan.count):
                group.create_task(self._serve(shard), name=f"shard {shard}")

    async def _serve(self, shard: int) -> None:
        while True:
            async with self._room:
                if await self._hold(shard):
                    await self._own(shard)
            await asyncio.sleep(self._plan.lease / 3)

    async def _own(self, shard: int) -> None:
        """Be connected for as long as the lease is ours."""
        client = self._connect(shard)
        with metrics.gateway_connection("discord", lambda: client.standing, str(shard)):
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
        with faults_told():
            client.before_session = self._wait_to_identify
            await client.login(self._token)
            await client.connect()

    async def _wait_to_identify(self) -> None:
        """One session at a time may be opened, among all processes."""
        turn, me = self._plan.identify, f"{self._plan.holder} {next(self._sessions)}"
        while True:
            try:
                if await self._leases.hold("discord identify", me, turn):
                    return
            except StoreUnavailable:
                log.warning("redis is away; no session is opened")
            await asyncio.sleep(turn / 5)

    async def _renew(self, shard: int) -> None:
        """Return when another process has the lease.

        While Redis is away the connection stays: nobody else can take the shard, and people must
        be told.
        """
        there = True
        while True:
            await asyncio.sleep(self._plan.lease / 4)
            try:
                if not await self._leases.hold(_name(shard), self._plan.holder, self._plan.lease):
                    break
                there = True
            except StoreUnavailable:
                if there:
                    log.warning("redis is away; people are told so", shard=shard)
                there = False
        log.warning("another process owns this shard now", shard=shard)

    async def _hold(self, shard: int) -> bool:
        try:
            return await self._leases.hold(_name(shard), self._plan.holder, self._plan.lease)
        except StoreUnavailable as error:
            log.warning("redis is away; trying again", error=str(error))
            return False


def _name(shard: int) -> str:
    return f"discord shard {shard}"
