"""The board behind a socket, for adapters that are real processes, and those adapters' side.

A line of JSON is a message. An adapter says which board call it makes, and gets the answer; on the
same connection it is told of events, and acknowledges them.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from bots.attachments import File
from bots.platform import Incoming, MessageGone, Part, PlaceNames, PlatformRefused, Status
from bots.text import split
from core.access_policy import Asker
from core.queue_types import Delivery, Regeneration
from core.types import Cancelled, Done, Failed, ThreadKey, Turn
from storage import codec
from tests.simulated_platform import Board

Answer = Callable[[str, list[Any]], Awaitable[Any]]

_REFUSALS = {kind.__name__: kind for kind in (PlatformRefused, MessageGone)}
"""The errors that cross the line, by the name that is sent."""


class Line:
    """One end of a connection: it calls the other end, and answers its calls."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer
    ) -> None:
        self._reader, self._writer, self._answer = reader, writer, answer
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.closed = False

    async def ask(self, name: str, *arguments: Any) -> Any:
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._send({"ask": number, "name": name, "arguments": arguments})
        return await answer

    def _send(self, message: Any) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")

    async def run(self) -> None:
        """Until the other end is gone."""
        try:
            while line := await self._reader.readline():
                self._take(json.loads(line))
        except ConnectionError:
            pass
        finally:
            self.closed = True
            self._writer.close()
            for waiting in self._waiting.values():
                waiting.cancel()

    def _take(self, message: Any) -> None:
        if "ask" in message:
            task = asyncio.create_task(self._reply(message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif not (waiting := self._waiting.pop(message["reply"])).done():
            if message["error"]:
                kind = _REFUSALS.get(message["error"], OSError)
                waiting.set_exception(kind(message["error"]))
            else:
                waiting.set_result(message["value"])

    async def _reply(self, message: Any) -> None:
        value, error = None, ""
        try:
            value = await self._answer(message["name"], message["arguments"])
        except PlatformRefused as refusal:
            error = type(refusal).__name__
        except Exception as fault:  # the other end hears of it
            error = repr(fault)
        self._send({"reply": message["ask"], "value": value, "error": error})


# -- the messages on the line -------------------------------------------------------------------


def pack_part(part: Part) -> list[Any]:
    end = codec.encode_event(part.end) if part.end else None
    return [part.index, part.text, part.last, part.note, end]


def unpack_part(packed: list[Any]) -> Part:
    index, text, last, note, end = packed
    ended = cast("Done | Failed | Cancelled", codec.decode_event(end)) if end else None
    return Part(index, text, last, note, ended)


def pack_turn(turn: Turn) -> list[Any]:
    return [turn.id, turn.role, turn.author, turn.text, turn.at]


# -- the server ---------------------------------------------------------------------------------


@dataclass
class BoardServer:
    """Boards by space, for all adapters that connect to `socket`."""

    socket: Path
    boards: dict[str, Board] = field(default_factory=dict)
    lines: dict[str, Line] = field(default_factory=dict)
    """The adapters, by name."""

    async def serve(self) -> asyncio.Server:
        return await asyncio.start_unix_server(self._connected, self.socket)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = Line(reader, writer, self._answer)
        self.lines[(await reader.readline()).decode().strip()] = line
        await line.run()

    async def _answer(self, name: str, arguments: list[Any]) -> Any:
        place, job, *rest = arguments
        thread = ThreadKey.parse(place)
        board = self.boards[thread.space]
        match name, rest:
            case "post", [part]:
                return board.post(thread, job, unpack_part(part))
            case "edit", [message, part]:
                return board.edit(message, unpack_part(part))
            case "remove", [message]:
                return board.remove(message)
            case "find", [index, known]:
                return board.find(job, index, known)
            case "earlier", [before, after]:
                return [pack_turn(turn) for turn in board.earlier(thread, before, after)]
        return None


class RemoteRelay:
    """A relay in another process, as `Schedule` tells it of events."""

    def __init__(self, line: Line) -> None:
        self._line = line

    async def submit(self, incoming: Incoming) -> None:
        await self._ask(
            "submit", str(incoming.thread), pack_turn(incoming.turn), incoming.addressed,
            list(incoming.event_ids), incoming.has_past,
        )  # fmt: skip

    async def regenerate(self, wanted: Regeneration) -> None:
        await self._ask(
            "regenerate", str(wanted.thread), wanted.reply, wanted.revision, wanted.author
        )

    async def edited(self, asker: Asker, turn: str, text: str, revision: str) -> None:
        await self._ask("edited", str(asker.thread), asker.person, turn, text, revision)

    def __getattr__(self, name: str) -> Any:
        async def ask(thread: ThreadKey, *arguments: Any) -> Any:
            return await self._ask(name, str(thread), *arguments)

        return ask

    async def _ask(self, *arguments: Any) -> Any:
        return await self._line.ask(*arguments)


# -- the adapter's side -------------------------------------------------------------------------


@dataclass
class RemotePlatform:
    """The adapter's side of a board in another process: `bots.platform.Platform`."""

    line: Line
    name: str
    part_length: int = 100
    call_seconds: float = 0.5

    def split(self, delivery: Delivery, text: str, limit: int) -> Sequence[str]:
        return split(text, limit)

    async def pace(self, delivery: Delivery, *, final: bool) -> None:
        """As fast as anybody likes."""

    async def _ask(self, name: str, delivery: Delivery, *arguments: Any) -> Any:
        async with asyncio.timeout(self.call_seconds):
            return await self.line.ask(name, str(delivery.thread), delivery.job, *arguments)

    async def status(self, delivery: Delivery, status: Status) -> None:
        await self._ask("status", delivery)

    async def post(self, delivery: Delivery, part: Part) -> str:
        return cast("str", await self._ask("post", delivery, pack_part(part)))

    async def edit(self, delivery: Delivery, message: str, part: Part) -> None:
        await self._ask("edit", delivery, message, pack_part(part))

    async def remove(self, delivery: Delivery, message: str) -> None:
        await self._ask("remove", delivery, message)

    async def find(self, delivery: Delivery, index: int) -> str | None:
        return cast("str | None", await self._ask("find", delivery, index, delivery.messages))

    async def fetch(self, thread: ThreadKey, file: File, most: int) -> bytes:
        raise PlatformRefused("the board has no files")

    async def names(self, thread: ThreadKey) -> PlaceNames:
        return PlaceNames(thread.channel, "Henji")

    async def linked(self, thread: ThreadKey, address: str) -> Incoming | None:
        return None

    async def earlier(self, thread: ThreadKey, before: str, after: float) -> list[Incoming]:
        async with asyncio.timeout(self.call_seconds):
            rows = await self.line.ask("earlier", str(thread), "", before, after)
        return [Incoming(thread, Turn(*row), addressed=False) for row in rows]
