"""The REST API: routes, permissions, rate limits, and injected faults."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from aiohttp import web

from tests.local_discord import payloads as p
from tests.local_discord import validation
from tests.local_discord.limits import Limits
from tests.local_discord.openapi import published
from tests.local_discord.world import (
    ALREADY_ACKNOWLEDGED,
    ARCHIVED,
    CANNOT_MESSAGE_USER,
    INVALID_FORM,
    LOCKED,
    MISSING_ACCESS,
    MISSING_PERMISSIONS,
    NOT_THE_AUTHOR,
    THREAD_EXISTS,
    TOO_MANY_FOLLOW_UPS,
    UNKNOWN_INTERACTION,
    UNKNOWN_MEMBER,
    UNKNOWN_MESSAGE,
    Interaction,
    Refusal,
    World,
)

Tell: TypeAlias = Callable[[str, p.Payload, str], Awaitable[None]]
"""(event, data, channel): tell the gateway."""
FOLLOW_UPS = 5
"""Of an interaction whose app is installed for the person alone."""
Handler: TypeAlias = Callable[[web.Request, p.Payload], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it was answered. `at` is the monotonic clock's."""

    at: float
    method: str
    path: str
    kind: str
    body: p.Payload
    status: int


@dataclass(slots=True)
class Trouble:
    """A fault for requests of one kind: a delay, a refusal, or a rate limit."""

    kind: str
    times: int = 1
    seconds: float = 0.0
    after: bool = False
    """Only the answer is late: the request takes effect."""
    status: int = 0
    code: int = 0
    retry_after: float = 0.0


@dataclass(slots=True)
class Rest:
    world: World
    tell: Tell
    token: str
    gateway_url: Callable[[], str]
    changed: Callable[[], None]
    limits: Limits = field(default_factory=Limits)
    requests: list[Request] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    trouble: list[Trouble] = field(default_factory=list)
    application_flags: int = 0
    shards: int = 1

    def routes(self) -> Iterable[web.RouteDef]:
        chan, hook = "/channels/{channel}", "/webhooks/{app}/{token}"
        table: list[tuple[str, str, str, Handler]] = [
            ("GET", "/users/@me", "me", self._me),
            ("GET", "/oauth2/applications/@me", "me", self._application),
            ("GET", "/gateway/bot", "me", self._gateway_bot),
            ("POST", "/users/@me/channels", "direct", self._open_direct),
            ("PUT", "/applications/{app}/commands", "commands", self._commands),
            ("PUT", "/applications/{app}/guilds/{guild}/commands", "commands", self._commands),
            ("GET", "/applications/{app}/commands", "commands", self._registered),
            ("GET", "/applications/{app}/guilds/{guild}/commands", "commands", self._registered),
            ("GET", chan, "channel", self._channel),
            ("GET", "/guilds/{guild}/roles", "channel", self._roles),
            ("GET", "/guilds/{guild}/members/{user}", "channel", self._member),
            ("PATCH", chan, "channel", self._change_channel),
            ("POST", chan + "/typing", "typing", self._typing),
            ("GET", chan + "/messages", "history", self._history),
            ("POST", chan + "/messages", "post", self._post),
            ("GET", chan + "/messages/{message}", "history", self._message),
            ("PATCH", chan + "/messages/{message}", "edit", self._edit),
            ("DELETE", chan + "/messages/{message}", "remove", self._remove),
            ("POST", chan + "/messages/{message}/threads", "thread", self._thread),
            ("POST", chan + "/threads", "thread", self._thread),
            ("POST", "/interactions/{id}/{token}/callback", "callback", self._callback),
            ("POST", hook, "webhook", self._follow_up),
            ("GET", hook + "/messages/{message}", "webhook", self._hook_message),
            ("PATCH", hook + "/messages/{message}", "webhook", self._hook_edit),
            ("DELETE", hook + "/messages/{message}", "webhook", self._hook_remove),
        ]
        for method, path, kind, handler in table:
            yield web.route(method, "/api/v10" + path, self._served(kind, handler))

    # -- one request ----------------------------------------------------------------------------

    def _served(
        self, kind: str, handler: Handler
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def serve(request: web.Request) -> web.Response:
            body = await _body_of(request)
            response = await self._answer(kind, handler, request, body)
            path = request.path.removeprefix("/api/v10")
            if document := published():
                self.faults += document.faults(request.method, path, body)
            said = body if isinstance(body, dict) else {"list": body}
            self.requests.append(
                Request(time.monotonic(), request.method, path, kind, said, response.status)
            )
            self.changed()
            return response

        return serve

    async def _answer(
        self, kind: str, handler: Handler, request: web.Request, body: p.Payload
    ) -> web.Response:
        trouble = self._trouble_with(kind)
        if trouble and not trouble.after:
            await asyncio.sleep(trouble.seconds)
        major = request.match_info.get("token") or request.match_info.get("channel", "")
        verdict = self.limits.ask(kind, major)
        wait = trouble.retry_after if trouble and trouble.retry_after else verdict.retry_after
        if wait:
            return _throttled(wait, verdict.headers, everywhere=verdict.everywhere)
        try:
            self._authorize(request)
            _refuse(trouble)
            answer = await handler(request, body)
        except Refusal as refusal:
            said = {"code": refusal.code, "message": refusal.message}
            return _json(said, refusal.status, verdict.headers)
        if trouble and trouble.after:
            await asyncio.sleep(trouble.seconds)
        return _json(answer, 200, verdict.headers)

    def _trouble_with(self, kind: str) -> Trouble | None:
        for trouble in self.trouble:
            if trouble.kind == kind and trouble.times > 0:
                trouble.times -= 1
                return trouble
        return None

    def _authorize(self, request: web.Request) -> None:
        by_token = "token" in request.match_info
        if not by_token and request.headers.get("Authorization") != f"Bot {self.token}":
            raise Refusal(401, 0, "401: Unauthorized")

    def _judge(self, faults: Iterable[str]) -> None:
        found = list(faults)
        self.faults += found
        if found:
            raise Refusal(400, INVALID_FORM, f"Invalid Form Body: {'; '.join(found)}")

    # -- the bot itself -------------------------------------------------------------------------

    async def _me(self, request: web.Request, body: p.Payload) -> Any:
        return p.user(p.BOT_ID, "Henji", bot=True)

    async def _application(self, request: web.Request, body: p.Payload) -> Any:
        return {
            "id": p.APP_ID,
            "name": "Henji",
            "icon": None,
            "description": "",
            "summary": "",
            "bot_public": True,
            "bot_require_code_grant": False,
            "verify_key": "0" * 64,
            "team": None,
            "flags": self.application_flags,
            "owner": p.user("1", "Owner"),
        }

    async def _gateway_bot(self, request: web.Request, body: p.Payload) -> Any:
        left = {"total": 1000, "remaining": 999, "reset_after": 0, "max_concurrency": 1}
        return {"url": self.gateway_url(), "shards": self.shards, "session_start_limit": left}

    async def _commands(self, request: web.Request, body: p.Payload) -> Any:
        listed: Any = body
        where = self._registrable(request)
        self._judge(validation.command_faults(listed))
        self.world.commands[where] = listed
        extra = {"application_id": p.APP_ID, "version": "1"}
        return [{"type": 1, "description": "", **c, "id": p.snowflake(), **extra} for c in listed]

    async def _registered(self, request: web.Request, body: p.Payload) -> Any:
        return self.world.commands.get(self._registrable(request), [])

    def _registrable(self, request: web.Request) -> str:
        guild = request.match_info.get("guild", "")
        if guild and guild not in self.world.guilds:
            raise Refusal(*MISSING_ACCESS)
        return guild

    # -- channels and messages ------------------------------------------------------------------

    async def _open_direct(self, request: web.Request, body: p.Payload) -> Any:
        person = str(body["recipient_id"])
        for channel in self.world.channels.values():
            if channel["type"] == p.DM and channel["recipients"][0]["id"] == person:
                return channel
        made = p.direct(p.snowflake(), p.user(person, "Someone"))
        self.world.channels[made["id"]] = made
        return made

    async def _channel(self, request: web.Request, body: p.Payload) -> Any:
        return self.world.channel(request.match_info["channel"])

    async def _roles(self, request: web.Request, body: p.Payload) -> Any:
        guild = request.match_info["guild"]
        if guild not in self.world.guilds:
            raise Refusal(*MISSING_ACCESS)
        return [p.role(guild, "@everyone"), *self.world.guilds[guild]["roles"]]

    async def _member(self, request: web.Request, body: p.Payload) -> Any:
        person = self.world.people.get(request.match_info["user"])
        if person is None:
            raise Refusal(*UNKNOWN_MEMBER)
        return {**p.member(), "user": person}

    async def _change_channel(self, request: web.Request, body: p.Payload) -> Any:
        channel = self._writable(request.match_info["channel"])
        if channel["thread_metadata"]["locked"]:
            raise Refusal(*MISSING_PERMISSIONS)
        channel["thread_metadata"] |= _only(body, "archived")
        await self.tell("THREAD_UPDATE", channel, channel["parent_id"])
        return channel

    async def _typing(self, request: web.Request, body: p.Payload) -> Any:
        channel = self._writable(request.match_info["channel"])
        self.world.typing.append((time.monotonic(), channel["id"]))

    async def _history(self, request: web.Request, body: p.Payload) -> Any:
        channel = self.world.channel(request.match_info["channel"])["id"]
        before, after = request.query.get("before"), request.query.get("after")
        found = [
            message
            for message in self.world.visible(channel)
            if (not before or int(message["id"]) < int(before))
            and (not after or int(message["id"]) > int(after))
        ]
        limit = int(request.query.get("limit", 50))
        return list(reversed(found[:limit] if after else found[-limit:]))

    async def _message(self, request: web.Request, body: p.Payload) -> Any:
        return self.world.message(request.match_info["channel"], request.match_info["message"])

    async def _post(self, request: web.Request, body: p.Payload) -> Any:
        channel = self._writable(request.match_info["channel"])["id"]
        if self.world.channel(channel).get("thread_metadata", {}).get("locked"):
            raise Refusal(*LOCKED)
        self._judge(validation.message_faults(body, new=True))
        nonce = (channel, str(body.get("nonce", "")))
        if body.get("enforce_nonce") and nonce in self.world.nonces:
            return self.world.message(channel, self.world.nonces[nonce])
        message = await self._write(channel, body)
        self.world.nonces[nonce] = message["id"]
        return message

    async def _edit(self, request: web.Request, body: p.Payload) -> Any:
        channel, ident = request.match_info["channel"], request.match_info["message"]
        message = self.world.message(channel, ident)
        if ident in self.world.private:
            raise Refusal(*UNKNOWN_MESSAGE)
        if message["author"]["id"] != p.BOT_ID:
            raise Refusal(*NOT_THE_AUTHOR)
        if self.world.channel(channel).get("thread_metadata", {}).get("archived"):
            raise Refusal(*ARCHIVED)
        self._judge(validation.message_faults(body, new=False))
        return await self._rewrite(message, body)

    async def _remove(self, request: web.Request, body: p.Payload) -> Any:
        channel, ident = request.match_info["channel"], request.match_info["message"]
        self.world.message(channel, ident)
        await self._erase(channel, ident)

    async def _thread(self, request: web.Request, body: p.Payload) -> Any:
        parent = self._writable(request.match_info["channel"])
        ident = request.match_info.get("message") or p.snowflake()
        if ident in self.world.channels:
            raise Refusal(*THREAD_EXISTS)
        if not 1 <= len(body.get("name", "")) <= 100:
            self._judge(["a thread's name has 1 to 100 characters"])
        made = p.thread(ident, body["name"], parent["guild_id"], parent["id"], p.BOT_ID)
        self.world.channels[ident] = made
        await self.tell("THREAD_CREATE", {**made, "newly_created": True}, parent["id"])
        return made

    def _writable(self, channel: str) -> p.Payload:
        found = self.world.channel(channel)
        if channel in self.world.mute:
            raise Refusal(*MISSING_PERMISSIONS)
        if found["type"] == p.DM and found["recipients"][0]["id"] in self.world.closed:
            raise Refusal(*CANNOT_MESSAGE_USER)
        return found

    async def _write(self, channel: str, body: p.Payload, *, private: bool = False) -> p.Payload:
        kept = _only(body, "components", "flags", "nonce", "files")
        if reference := body.get("message_reference"):
            kept["message_reference"] = {"channel_id": channel, **reference}
        message = p.message(
            p.snowflake(),
            channel,
            p.user(p.BOT_ID, "Henji", bot=True),
            (body.get("content") or "").strip(),  # as Discord does
            guild_id=self.world.guild_of(channel),
            **kept,
        )
        self.world.keep(message)
        if private:
            self.world.private.add(message["id"])
        else:
            await self.tell("MESSAGE_CREATE", message, channel)
        return message

    async def _rewrite(self, message: p.Payload, body: p.Payload) -> p.Payload:
        changes = _only(body, "content", "components", "flags", "files")
        if changes.get("content"):
            changes["content"] = changes["content"].strip()
        if "flags" in changes:  # an edit makes nothing public
            changes["flags"] |= message["flags"] & validation.EPHEMERAL
        message |= {**changes, "edited_timestamp": p.when(p.snowflake())}
        if message["id"] not in self.world.private:
            await self.tell("MESSAGE_UPDATE", message, message["channel_id"])
        return message

    async def _erase(self, channel: str, ident: str) -> None:
        del self.world.messages[channel][ident]
        gone = {"id": ident, "channel_id": channel, "guild_id": self.world.guild_of(channel)}
        await self.tell("MESSAGE_DELETE", {k: v for k, v in gone.items() if v}, channel)

    # -- interactions ---------------------------------------------------------------------------

    async def _callback(self, request: web.Request, body: p.Payload) -> Any:
        found = self.world.interaction(request.match_info["token"])
        if request.query.get("with_response") not in ("1", "true"):
            self.faults.append("the callback was not asked for its response")
        if found.answer is not None:
            self.faults.append("an interaction was acknowledged twice")
            raise Refusal(*ALREADY_ACKNOWLEDGED)
        if time.monotonic() > found.born + self.world.answer_within:
            raise Refusal(*UNKNOWN_INTERACTION)
        self._judge(validation.callback_faults(found.kind, body))
        found.answer, found.acknowledged_after = body, time.monotonic() - found.born
        await self._acknowledged(found, body)
        said = {"id": found.id, "type": found.kind, "response_message_id": found.original or None}
        return {"interaction": said}

    async def _acknowledged(self, found: Interaction, body: p.Payload) -> None:
        data = body.get("data") or {}
        match body["type"]:
            case 4 | 5:
                found.private = bool(data.get("flags", 0) & validation.EPHEMERAL)
                found.loading = body["type"] == 5
                made = await self._write(found.channel, data, private=found.private)
                found.original = made["id"]
                found.messages.append(made["id"])
            case 7:
                await self._rewrite(self.world.message(found.channel, found.original), data)

    async def _follow_up(self, request: web.Request, body: p.Payload) -> Any:
        found = self._acknowledged_one(request)
        self._judge(validation.message_faults(body, new=True, interaction=True))
        if found.loading:
            return await self._fill(found, body)
        if found.user_installed and len(found.messages) > FOLLOW_UPS:
            raise Refusal(*TOO_MANY_FOLLOW_UPS)
        private = bool(body.get("flags", 0) & validation.EPHEMERAL)
        made = await self._write(found.channel, body, private=private)
        found.messages.append(made["id"])
        return made

    async def _hook_message(self, request: web.Request, body: p.Payload) -> Any:
        found = self._acknowledged_one(request)
        return self.world.message(found.channel, self._which(found, request))

    async def _hook_edit(self, request: web.Request, body: p.Payload) -> Any:
        found = self._acknowledged_one(request)
        ident = self._which(found, request)
        self._judge(validation.message_faults(body, new=False))
        if ident == found.original:
            return await self._fill(found, body)
        return await self._rewrite(self.world.message(found.channel, ident), body)

    async def _hook_remove(self, request: web.Request, body: p.Payload) -> Any:
        found = self._acknowledged_one(request)
        await self._erase(found.channel, self._which(found, request))

    async def _fill(self, found: Interaction, body: p.Payload) -> p.Payload:
        found.loading = False
        return await self._rewrite(self.world.message(found.channel, found.original), body)

    def _acknowledged_one(self, request: web.Request) -> Interaction:
        found = self.world.interaction(request.match_info["token"])
        if found.answer is None:
            raise Refusal(404, 10015, "Unknown Webhook")
        return found

    def _which(self, found: Interaction, request: web.Request) -> str:
        ident = request.match_info["message"]
        ident = found.original if ident == "@original" else ident
        if ident not in (*found.messages, found.original):
            raise Refusal(*UNKNOWN_MESSAGE)
        return ident


async def _body_of(request: web.Request) -> Any:
    """A request's JSON. The texts of its files stand under ``files``, by their names."""
    if request.content_type != "multipart/form-data":
        return json.loads(await request.text() or "{}")
    form = await request.post()
    files = [field for field in form.values() if isinstance(field, web.FileField)]
    texts = {field.filename: field.file.read().decode() for field in files}
    return {**json.loads(str(form["payload_json"])), "files": texts}


def _json(data: Any, status: int, headers: Mapping[str, str]) -> web.Response:
    """discord.py reads an answer as JSON only where the type is exactly ``application/json``."""
    if data is None:
        return web.Response(status=204, headers=headers)
    return web.Response(
        body=json.dumps(data).encode(),
        status=status,
        headers=headers,
        content_type="application/json",
    )


def _throttled(wait: float, headers: Mapping[str, str], *, everywhere: bool) -> web.Response:
    """Without a Via header, discord.py takes a 429 for a ban by the network in front."""
    said = {"message": "You are being rate limited.", "retry_after": wait, "global": everywhere}
    return _json(said, 429, {**headers, "Via": "1.1 local", "Retry-After": f"{wait:.3f}"})


def _refuse(trouble: Trouble | None) -> None:
    if trouble and trouble.status:
        raise Refusal(trouble.status, trouble.code, "as the test asked")


def _only(body: p.Payload, *names: str) -> p.Payload:
    return {name: body[name] for name in names if name in body}
