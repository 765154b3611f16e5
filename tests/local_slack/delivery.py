"""How Slack delivers events to an app: over one of its sockets, or by signed POST.

An envelope goes to one socket only. Without an acknowledgement within three seconds it is delivered
again: at once, after one minute and after five, with the number and the reason of the attempt. That
is so of events; of commands and presses the person is shown an error.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlencode

import aiohttp
from aiohttp import web

from tests.local_slack.workspace import Json, Workspace

ACKNOWLEDGE_SECONDS = 3.0
RETRY_DELAYS = (0.0, 60.0, 300.0)


@dataclass(slots=True)
class Faults:
    """Faults of the delivery, on purpose."""

    duplicate: int = 0
    """How many of the next envelopes are delivered twice."""
    lose_acknowledgements: int = 0
    """How many of the next acknowledgements do not arrive."""
    shuffle: bool = False
    """Hold events until `release`, which delivers them newest first."""
    held: list[Envelope] = field(default_factory=list)


@dataclass(slots=True)
class Envelope:
    """One payload; `answer` is the payload of the app's acknowledgement."""

    id: str
    kind: Literal["events_api", "interactive", "slash_commands"]
    payload: Json
    sent: float = 0.0
    acknowledged: float = 0.0
    attempts: int = 0
    answer: Json | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def body(self) -> Json:
        retries = {"retry_attempt": self.attempts - 1, "retry_reason": "timeout"}
        return {
            "envelope_id": self.id,
            "type": self.kind,
            "payload": self.payload,
            "accepts_response_payload": self.kind != "events_api",
            **(retries if self.attempts > 1 else {}),
        }


class Delivery:
    """The open sockets, the address for HTTP, and the envelopes."""

    def __init__(self, workspace: Workspace, signing_secret: str) -> None:
        self.workspace = workspace
        self.faults = Faults()
        self.envelopes: list[Envelope] = []
        self.retry_delays: Sequence[float] = RETRY_DELAYS
        self.acknowledge_seconds = ACKNOWLEDGE_SECONDS
        self.request_url: str | None = None
        self.deaf = False
        """Nothing is delivered: events sent meanwhile are lost."""
        self.newest_socket_only = False
        """Everything goes to the process that connected last, which does not hold the replies."""
        self._secret = signing_secret
        self._sockets: list[web.WebSocketResponse] = []
        self._turn = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def sockets(self) -> int:
        return len(self._sockets)

    def send(
        self,
        kind: Literal["events_api", "interactive", "slash_commands"],
        payload: Json,
        *,
        is_subscribed: bool = True,
    ) -> Envelope:
        envelope = Envelope(self.workspace.serial("envelope-"), kind, payload, time.monotonic())
        self.envelopes.append(envelope)
        if self.deaf:
            return envelope
        if not is_subscribed:
            envelope.done.set()
            return envelope
        if self.faults.shuffle:
            self.faults.held.append(envelope)
        else:
            self._start(envelope)
        return envelope

    def release(self) -> None:
        """Deliver the held envelopes, newest first."""
        held, self.faults.held, self.faults.shuffle = self.faults.held, [], False
        for envelope in reversed(held):
            self._start(envelope)

    def again(self, envelope: Envelope) -> None:
        """Deliver an envelope once more, as Slack does when an acknowledgement was lost."""
        envelope.done.clear()
        self._start(envelope)

    def _start(self, envelope: Envelope) -> None:
        task = asyncio.create_task(self._deliver(envelope))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, envelope: Envelope) -> None:
        retries = self.retry_delays if envelope.kind == "events_api" else ()
        for delay in (0.0, *retries):
            await asyncio.sleep(delay)
            envelope.attempts += 1
            copies = 2 if self.faults.duplicate > 0 else 1
            self.faults.duplicate -= copies - 1
            for _ in range(copies):
                await self._attempt(envelope)
            try:
                async with asyncio.timeout(self.acknowledge_seconds):
                    await envelope.done.wait()
            except TimeoutError:
                continue
            return

    async def _attempt(self, envelope: Envelope) -> None:
        if self.request_url is not None:
            await self._post(envelope)
            return
        await self.workspace.until(lambda: self._sockets, within=3600)
        self._turn += 1
        which = -1 if self.newest_socket_only else self._turn % len(self._sockets)
        socket = self._sockets[which]
        try:
            await socket.send_str(json.dumps(envelope.body()))
        except ConnectionError:
            self._forget(socket)

    def _acknowledge(self, envelope_id: str, answer: Json | None) -> None:
        if self.faults.lose_acknowledgements > 0:
            self.faults.lose_acknowledgements -= 1
            return
        envelope = next((e for e in self.envelopes if e.id == envelope_id), None)
        if envelope is None:
            self.workspace.violations.append(f"an unknown envelope was acknowledged: {envelope_id}")
        elif not envelope.done.is_set():
            envelope.acknowledged = envelope.acknowledged or time.monotonic()
            envelope.answer = answer
            envelope.done.set()

    # -- Socket Mode ------------------------------------------------------------------------

    async def socket(self, request: web.Request) -> web.WebSocketResponse:
        """One connection of the app, from its hello to its end."""
        socket = web.WebSocketResponse(autoping=True)
        await socket.prepare(request)
        hello = {"type": "hello", "num_connections": self.sockets + 1, "connection_info": {}}
        await socket.send_str(json.dumps(hello | {"debug_info": {"host": "local"}}))
        self._sockets.append(socket)
        await self.workspace.changed()
        try:
            async for message in socket:
                if message.type == aiohttp.WSMsgType.TEXT:
                    self._receive(message.data)
        finally:
            self._forget(socket)
            await self.workspace.changed()
        return socket

    def _receive(self, data: str) -> None:
        body = json.loads(data)
        if "envelope_id" not in body:
            self.workspace.violations.append(f"an acknowledgement without an envelope: {data[:80]}")
            return
        self._acknowledge(body["envelope_id"], body.get("payload"))

    def _forget(self, socket: web.WebSocketResponse) -> None:
        if socket in self._sockets:
            self._sockets.remove(socket)

    async def disconnect(self, reason: str = "refresh_requested") -> None:
        """Ask every socket to reconnect, as Slack does every few hours."""
        for socket in list(self._sockets):
            self._forget(socket)
            await socket.send_str(json.dumps({"type": "disconnect", "reason": reason}))

    async def drop(self) -> None:
        """Drop every socket without a disconnect message."""
        for socket in list(self._sockets):
            self._forget(socket)
            if socket._req is not None and socket._req.transport is not None:
                socket._req.transport.abort()

    # -- HTTP -------------------------------------------------------------------------------

    def signed(self, body: str, secret: str | None = None, age: float = 0.0) -> dict[str, str]:
        """The headers that sign a request."""
        stamp = str(int(time.time() - age))
        key = (secret or self._secret).encode()
        digest = hmac.new(key, f"v0:{stamp}:{body}".encode(), hashlib.sha256).hexdigest()
        return {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": f"v0={digest}"}

    async def _post(self, envelope: Envelope) -> None:
        body, content_type = self._http_body(envelope)
        headers = self.signed(body) | {"Content-Type": content_type}
        if envelope.attempts > 1:
            headers |= {
                "X-Slack-Retry-Num": str(envelope.attempts - 1),
                "X-Slack-Retry-Reason": "http_error",
            }
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.post(str(self.request_url), data=body, headers=headers) as response,
            ):
                text = await response.text()
                if response.status == 200:
                    plain = {"text": text} if text else None  # Slack takes plain text, too
                    is_json = response.content_type == "application/json" and text
                    self._acknowledge(envelope.id, json.loads(text) if is_json else plain)
        except aiohttp.ClientError:
            return

    def _http_body(self, envelope: Envelope) -> tuple[str, str]:
        if envelope.kind == "events_api":
            return json.dumps(envelope.payload), "application/json"
        form = envelope.payload
        if envelope.kind == "interactive":
            form = {"payload": json.dumps(envelope.payload)}
        return urlencode(form), "application/x-www-form-urlencoded"

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        for socket in list(self._sockets):
            await socket.close()
