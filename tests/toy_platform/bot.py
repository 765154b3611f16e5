"""The toy's process: it listens on a port, and answers each line with a line."""

from __future__ import annotations

import asyncio
import time
from asyncio import StreamReader, StreamWriter
from uuid import uuid4

from bots.relay import Relay, RelaySettings
from core.ports import Stores

from .convert import incoming
from .platform import ToyPlatform
from .settings import ToySettings


async def serve(
    settings: ToySettings, stores: Stores, relay_settings: RelaySettings, stop: asyncio.Event
) -> None:
    """Serve people until `stop` is set."""
    settings.require()
    platform = ToyPlatform()
    relay = Relay(platform, stores, relay_settings)

    async def listen(reader: StreamReader, writer: StreamWriter) -> None:
        person = uuid4().hex
        platform.connected[person] = writer
        while line := await reader.readline():
            await relay.submit(incoming(line.decode(), person, uuid4().hex, time.time()))

    drained = asyncio.Event()
    relaying = asyncio.create_task(relay.run(drained))
    async with await asyncio.start_server(listen, "127.0.0.1", settings.toy_port):
        await stop.wait()
    drained.set()
    await relaying
