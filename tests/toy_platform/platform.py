"""The toy as a `Platform`: the whole reply is sent as one line when it has ended."""

from __future__ import annotations

from asyncio import StreamWriter
from collections.abc import Sequence

from bots.attachments import File
from bots.platform import Incoming, Part, PlaceNames, PlatformRefused, Status
from bots.text import split
from core.queue_types import Delivery
from core.types import ThreadKey


class ToyPlatform:
    """Lines to the people who are connected."""

    name = "toy"
    part_length = 10_000
    call_seconds = 1.0

    def __init__(self) -> None:
        self.connected: dict[str, StreamWriter] = {}
        """By the person's name, which is the name of their thread too."""

    def split(self, delivery: Delivery, text: str, limit: int) -> Sequence[str]:
        return split(text, limit)

    async def pace(self, delivery: Delivery, *, final: bool) -> None:
        """There is no limit."""

    async def status(self, delivery: Delivery, status: Status) -> None:
        """There is no sign of life."""

    async def post(self, delivery: Delivery, part: Part) -> str:
        await self._send(delivery, part)
        return f"{delivery.job}.{part.index}"

    async def edit(self, delivery: Delivery, message: str, part: Part) -> None:
        await self._send(delivery, part)

    async def remove(self, delivery: Delivery, message: str) -> None:
        """A line that was sent stays."""

    async def find(self, delivery: Delivery, index: int) -> str | None:
        return None

    async def fetch(self, thread: ThreadKey, file: File, most: int) -> bytes:
        raise PlatformRefused("a line has no files")

    async def names(self, thread: ThreadKey) -> PlaceNames:
        return PlaceNames("the counter", "Henji")

    async def linked(self, thread: ThreadKey, address: str) -> Incoming | None:
        return None

    async def earlier(self, thread: ThreadKey, before: str, after: float) -> Sequence[Incoming]:
        return ()

    async def _send(self, delivery: Delivery, part: Part) -> None:
        if part.end is not None:
            writer = self.connected[delivery.thread.thread]
            writer.write(f"{part.text}\n".encode())
            await writer.drain()
