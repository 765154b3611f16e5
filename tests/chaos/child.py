"""A process of the chaos: ``python -m tests.chaos.child core|adapter NAME REDIS_URL SOCKET``."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

import structlog

from bots import relay as relays
from bots.platform import Incoming
from bots.relay import Relay
from core import worker as workers
from core.access_policy import Asker
from core.dialogue import Dialogue
from core.engine.echo import EchoEngine
from core.models.catalogue import CATALOGUE
from core.ports import ConversationStores
from core.queue_types import Regeneration
from core.types import ThreadKey, Turn
from core.worker import Worker
from storage.connect import Connection
from storage.history import RedisHistory
from storage.queue import RedisQueue
from storage.store import Store
from tests.chaos.board_server import Line, RemotePlatform
from tests.chaos.schedule import KeptEvents
from tests.open_access import EVERYBODY, OPEN_RULES

PLATFORM = "chaos"
LANE = "chaos"
LEASE = 1.0


def store_at(url: str) -> Store:
    return Store(Connection(url), lease=LEASE, delivery_lease=LEASE, backoff=0.05, max_attempts=10)


async def core(name: str, url: str, socket: str) -> None:
    store = store_at(url)
    process_settings = workers.WorkerSettings(
        LANE, name, lease=LEASE, announced_for=30, publish=0.02, retry=0.1
    )
    dialogue = Dialogue.load(CATALOGUE["echo"], None)
    worker = Worker(
        RedisQueue(store),
        RedisHistory(store),
        EchoEngine(300),
        dialogue,
        process_settings,
        rulebook=OPEN_RULES,
    )
    await worker.run(asyncio.Event())


async def adapter(name: str, url: str, socket: str) -> None:
    store = store_at(url)
    reader, writer = await asyncio.open_unix_connection(socket)
    writer.write(name.encode() + b"\n")
    process_settings = relays.RelaySettings(
        LANE,
        name,
        lease=LEASE,
        take_over=0.3,
        backfill_wait=0.3,
        access=EVERYBODY,
    )

    async def answer(kind: str, arguments: list[Any]) -> Any:
        return await _event(relay, kind, arguments)

    line = Line(reader, writer, answer)
    relay = Relay(
        RemotePlatform(line, PLATFORM),
        ConversationStores(RedisQueue(store), RedisHistory(store), KeptEvents(store)),
        process_settings,
    )
    working = asyncio.create_task(relay.run(asyncio.Event()))
    await line.run()
    working.cancel()


async def _event(relay: Relay, kind: str, arguments: list[Any]) -> Any:
    place, *rest = arguments
    thread = ThreadKey.parse(place)
    if kind == "submit":
        turn, addressed, events, has_past = rest
        incoming = Incoming(
            thread, Turn(*turn), addressed, event_ids=tuple(events), has_past=has_past
        )
        await relay.submit(incoming)
    elif kind == "regenerate":
        await relay.regenerate(Regeneration(thread, *rest))
    elif kind == "edited":
        person, *edit = rest
        await relay.edited(Asker(thread, person), *edit)
    else:
        await getattr(relay, kind)(thread, *rest)


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    asyncio.run({"core": core, "adapter": adapter}[sys.argv[1]](*sys.argv[2:]))
