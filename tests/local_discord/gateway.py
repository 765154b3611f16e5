"""The gateway: sessions that can be resumed, broken, refused and compressed.

Opcodes and close codes: developers/docs, topics/opcodes-and-status-codes.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from tests.local_discord import payloads as p

DISPATCH, HEARTBEAT, IDENTIFY, RESUME, RECONNECT = 0, 1, 2, 6, 7
INVALID_SESSION, HELLO, HEARTBEAT_ACK = 9, 10, 11
GUILDS, GUILD_MESSAGES, DIRECT_MESSAGES, MESSAGE_CONTENT = 1 << 0, 1 << 9, 1 << 12, 1 << 15


@dataclass(slots=True)
class Session:
    """One shard's session: what was sent in it, and the socket it is on now."""

    id: str
    intents: int
    shard: tuple[int, int]
    socket: web.WebSocketResponse | None = None
    deflate: Any = None
    sequence: int = 0
    sent: list[p.Payload] = field(default_factory=list)
    resumable: bool = True

    def sees(self, guild: str | None) -> bool:
        index, count = self.shard
        return index == (int(guild) >> 22) % count if guild else index == 0

    async def dispatch(self, event: str, data: Any) -> None:
        """Send an event, and keep it for a RESUME; a broken socket loses nothing."""
        self.sequence += 1
        frame = {"op": DISPATCH, "t": event, "s": self.sequence, "d": data}
        self.sent.append(frame)
        await self.send(frame)

    async def send(self, frame: p.Payload) -> None:
        if self.socket is None or self.socket.closed:
            return
        text = json.dumps(frame)
        try:
            if self.deflate is None:
                await self.socket.send_str(text)
            else:
                packed = self.deflate.compress(text.encode()) + self.deflate.flush(
                    zlib.Z_SYNC_FLUSH
                )
                await self.socket.send_bytes(packed)
        except ConnectionError:
            self.socket = None


@dataclass(slots=True)
class Gateway:
    """All sessions of one local Discord."""

    token: str
    granted: int
    """The privileged intents that the developer portal grants."""
    guilds: Callable[[], Sequence[p.Payload]]
    url: Callable[[], str]
    changed: Callable[[], None]
    compressed: bool = True
    """Honour the client's wish for zlib-stream; False: plain text frames."""
    heartbeat_ms: int = 41_250
    refuse_with: int | None = None
    """A close code that answers the next IDENTIFY."""
    sessions: dict[str, Session] = field(default_factory=dict)
    identified: int = 0
    resumed: int = 0
    heartbeats: int = 0

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        packs = self.compressed and request.query.get("compress") == "zlib-stream"
        line = Session("", 0, (0, 1), socket, zlib.compressobj() if packs else None)
        await line.send({"op": HELLO, "d": {"heartbeat_interval": self.heartbeat_ms}})
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                line = await self._received(json.loads(message.data), line)
        return socket

    async def dispatch(self, event: str, data: p.Payload, guild: str | None, need: int) -> None:
        """Send an event to the shard of the guild, where the intents `need` were asked for."""
        for session in list(self.sessions.values()):
            if session.sees(guild) and session.intents & need == need:
                await session.dispatch(event, _readable(data, session.intents))

    # -- faults -------------------------------------------------------------------------------

    async def drop(self, *, resumable: bool = True, code: int = 4000) -> None:
        """Break every connection; the sessions can be resumed, or not."""
        for session in list(self.sessions.values()):
            session.resumable = resumable
            if session.socket is not None:
                await session.socket.close(code=code)
                session.socket = None

    async def ask_to_reconnect(self) -> None:
        for session in list(self.sessions.values()):
            await session.send({"op": RECONNECT, "d": None})

    # -- messages of clients ---------------------------------------------------------------------

    async def _received(self, frame: p.Payload, line: Session) -> Session:
        match frame["op"]:
            case 1:
                self.heartbeats += 1
                await line.send({"op": HEARTBEAT_ACK})
            case 2:
                return await self._identify(frame["d"], line)
            case 6:
                return await self._resume(frame["d"], line)
        return line

    async def _identify(self, data: p.Payload, line: Session) -> Session:
        if (code := self._refusal(data)) is not None:
            assert line.socket is not None
            await line.socket.close(code=code)
            return line
        line.id, line.intents = secrets.token_hex(8), int(data["intents"])
        line.shard = tuple(data.get("shard", (0, 1)))
        self.sessions[line.id] = line
        await self._ready(line)
        self.identified += 1
        self.changed()
        return line

    def _refusal(self, data: p.Payload) -> int | None:
        code, self.refuse_with = self.refuse_with, None
        if code is not None:
            return code
        if data["token"] != self.token:
            return 4004
        index, count = data.get("shard", (0, 1))
        if not 0 <= index < count:
            return 4010
        return 4014 if int(data["intents"]) & MESSAGE_CONTENT & ~self.granted else None

    async def _ready(self, session: Session) -> None:
        mine = [guild for guild in self.guilds() if session.sees(guild["id"])]
        ready = {
            "v": 10,
            "user": p.user(p.BOT_ID, "Henji", bot=True),
            "guilds": [{"id": guild["id"], "unavailable": True} for guild in mine],
            "session_id": session.id,
            "resume_gateway_url": self.url(),
            "shard": list(session.shard),
            "application": {"id": p.APP_ID, "flags": 0},
        }
        await session.dispatch("READY", ready)
        for guild in mine:
            await session.dispatch("GUILD_CREATE", guild)

    async def _resume(self, data: p.Payload, line: Session) -> Session:
        session = self.sessions.get(data["session_id"])
        if session is None or not session.resumable:
            await line.send({"op": INVALID_SESSION, "d": False})
            return line
        session.socket, session.deflate = line.socket, line.deflate
        for frame in [frame for frame in session.sent if frame["s"] > data["seq"]]:
            await session.send(frame)
            await asyncio.sleep(0)
        self.resumed += 1
        await session.dispatch("RESUMED", {})
        self.changed()
        return session


def _readable(data: p.Payload, intents: int) -> p.Payload:
    """Without Message Content, only direct messages, mentions and the bot's own have content."""
    if "content" not in data or intents & MESSAGE_CONTENT or "guild_id" not in data:
        return data
    mine = data["author"]["id"] == p.BOT_ID or any(u["id"] == p.BOT_ID for u in data["mentions"])
    return data if mine else {**data, "content": "", "components": [], "attachments": []}
