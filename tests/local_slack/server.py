"""The local Slack's HTTP: the Web API by POST and GET, sockets, and response_url."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.local_slack.delivery import Delivery
from tests.local_slack.errors import is_known
from tests.local_slack.limits import Limits
from tests.local_slack.methods import Methods, Refused
from tests.local_slack.validation import RULES, block_faults, faults
from tests.local_slack.workspace import Installation, Json, Workspace, channel_type


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the Web API, and how it ended: `error` is empty where it worked."""

    method: str
    arguments: Json
    at: float
    error: str = ""
    team: str = ""
    """The workspace of the token that it was made with."""


@dataclass(slots=True)
class Refusal:
    """An error for the next calls of a method; `channel`: only there, `times`: so often."""

    method: str
    error: str
    times: int = 1
    channel: str = ""

    def applies(self, method: str, arguments: Json) -> bool:
        there = self.channel in ("", arguments.get("channel"), arguments.get("channel_id"))
        return method == self.method and there and self.times > 0


@dataclass(slots=True)
class WebApi:
    """Reads a request, checks it, and answers it."""

    workspace: Workspace
    methods: Methods
    limits: Limits
    delivery: Delivery
    app_token: str
    client: tuple[str, str]
    calls: list[Call] = field(default_factory=list)
    socket_mode: bool = True
    slow: dict[str, float] = field(default_factory=dict)
    """Method -> seconds that its answer takes."""
    refusals: list[Refusal] = field(default_factory=list)
    """What the next calls are refused with."""
    lost: dict[str, int] = field(default_factory=dict)
    """Method -> how many calls are carried out, and the connection is cut before the answer."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"]
        arguments = await merged_arguments(request)
        started = time.monotonic()
        if method in self.workspace.without_answer:
            self.calls.append(Call(method, arguments, started, "", self._team_of(request)))
            await self.workspace.changed()
            await asyncio.sleep(self.slow.get(method, 0))
            raise web.HTTPServiceUnavailable
        try:
            answer, headers = self._answer(method, arguments, request)
        except Refused as refusal:
            answer, headers = refusal.answer, {}
        error = str(answer.get("error", ""))
        if error and method in RULES and not is_known(method, error):
            self.workspace.violations.append(f"{method} does not answer {error}")
        self.calls.append(Call(method, arguments, started, error, self._team_of(request)))
        await self.workspace.changed()
        if self.lost.get(method, 0) > 0:
            self.lost[method] -= 1
            if request.transport is not None:
                request.transport.abort()
        if method in self.slow:
            await asyncio.sleep(self.slow[method])
        status = 429 if error == "ratelimited" else 200
        return web.json_response(answer, status=status, headers=headers)

    def _answer(
        self, method: str, arguments: Json, request: web.Request
    ) -> tuple[Json, dict[str, str]]:
        token = arguments.pop("token", "") or request.headers.get("Authorization", "")[7:]
        if method == "oauth.v2.access":
            return self._access(arguments, request), {}
        if method == "apps.connections.open":
            return self._open_connection(token, request), {}
        app = self._installation(token)
        headers = {"x-oauth-scopes": ",".join(sorted(app.scopes))}
        self._check(method, arguments, app)
        wait = self._limit(method, arguments, app)
        if wait > 0:
            return {"ok": False, "error": "ratelimited"}, {"Retry-After": f"{max(1, round(wait))}"}
        self._refuse(method, arguments)
        return self.methods.call(method, arguments, app), headers

    def _limit(self, method: str, arguments: Json, app: Installation) -> float:
        channel = str(arguments.get("channel", ""))
        tier = RULES[method].tier
        return self.limits.wait_for(method, tier, app.team, channel, time.monotonic())

    def _check(self, method: str, arguments: Json, app: Installation) -> None:
        if method not in RULES:
            self.workspace.violations.append(f"there is no method {method}")
            raise Refused("unknown_method")
        found = list(faults(method, arguments))
        if found:
            self.workspace.violations += found
            raise Refused("invalid_arguments", message="; ".join(found))
        scope = self._scope(method, arguments)
        if scope and not self._has_scope(scope, app):
            provided = ",".join(sorted(app.scopes))
            raise Refused("missing_scope", needed=scope, provided=provided)

    def _scope(self, method: str, arguments: Json) -> str:
        """The scope that a call needs; for reading, that of the kind of channel."""
        scope, channel = RULES[method].scope, str(arguments.get("channel", ""))
        kind, _, what = scope.partition(":")
        if kind != "channels":
            return scope
        found = channel_type(channel)
        if found == "channel" and channel in self.workspace.members:
            found = "group"
        return f"{({'channel': 'channels', 'group': 'groups'}).get(found, found)}:{what}"

    def _refuse(self, method: str, arguments: Json) -> None:
        refusal = next((r for r in self.refusals if r.applies(method, arguments)), None)
        if refusal is not None:
            refusal.times -= 1
            raise Refused(refusal.error)

    def _has_scope(self, scope: str, app: Installation) -> bool:
        return scope in app.scopes

    def _team_of(self, request: web.Request) -> str:
        token = request.headers.get("Authorization", "")[7:]
        app = self.workspace.installations.get(token)
        return app.team if app else ""

    def _installation(self, token: str) -> Installation:
        if not token:
            raise Refused("not_authed")
        app = self.workspace.installations.get(token)
        if app is None:
            raise Refused("invalid_auth")
        if app.revoked:
            raise Refused("token_revoked")
        if app.expires_at is not None and time.time() > app.expires_at:
            raise Refused("token_expired")
        return app

    def _open_connection(self, token: str, request: web.Request) -> Json:
        if token != self.app_token:
            raise Refused("not_allowed_token_type" if token.startswith("xoxb") else "invalid_auth")
        if not self.socket_mode:
            raise Refused("socket_mode_not_enabled")
        return {"ok": True, "url": f"ws://{request.host}/link?ticket=local"}

    def _access(self, arguments: Json, request: web.Request) -> Json:
        given = base64.b64decode(request.headers.get("Authorization", "")[6:]).decode()
        client_id, _, secret = given.partition(":")
        if client_id != self.client[0]:
            raise Refused("invalid_client_id")
        if secret != self.client[1]:
            raise Refused("bad_client_secret")
        if arguments.get("grant_type") == "refresh_token":
            return self._rotate(arguments["refresh_token"])
        app = self.workspace.installations.get(arguments.get("code", ""))
        if app is None:
            raise Refused("invalid_code")
        return self._granted(app)

    def _rotate(self, refresh_token: str) -> Json:
        for token, app in list(self.workspace.installations.items()):
            if app.refresh_token == refresh_token:
                del self.workspace.installations[token]
                app.token, app.refresh_token = self._fresh(), self.workspace.serial("xoxe-1-")
                app.expires_at = time.time() + 43_200
                self.workspace.installations[app.token] = app
                return self._granted(app)
        raise Refused("invalid_refresh_token")

    def _fresh(self) -> str:
        return self.workspace.serial("xoxe.xoxb-")

    def _granted(self, app: Installation) -> Json:
        """The code of an authorization is the token itself: real codes have no published form."""
        rotation: Json = {}
        if app.refresh_token and app.expires_at is not None:
            left = int(app.expires_at - time.time())
            rotation = {"refresh_token": app.refresh_token, "expires_in": left}
        return {
            "ok": True,
            "app_id": "A0HENJI",
            "access_token": app.token,
            "token_type": "bot",
            "scope": ",".join(sorted(app.scopes)),
            "bot_user_id": app.bot_user,
            "team": None if app.org else {"id": app.team, "name": app.team},
            "enterprise": {"id": app.org, "name": app.org} if app.org else None,
            "authed_user": {"id": "U0INSTALLER"},
            "is_enterprise_install": bool(app.org),
            **rotation,
        }

    async def give_file(self, request: web.Request) -> web.Response:
        """A file, to a token with the scope; anybody else is sent to log in, as people would be."""
        ident = request.match_info["file"].rpartition("-")[2]
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        app = self.workspace.installations.get(token)
        content = self.workspace.files.get(ident)
        if app is None or app.revoked or "files:read" not in app.scopes:
            answer = web.Response(status=302, headers={"Location": "/login"})
        elif content is None:
            answer = web.Response(status=404)
        else:
            answer = web.Response(body=content, content_type="text/plain")
        self.workspace.downloads.append((request.path, str(answer.status)))
        return answer

    async def take_file(self, request: web.Request) -> web.Response:
        """The bytes of a file, at the address that was given for it."""
        ident = request.match_info["file"]
        if ident not in self.workspace.promised:
            return web.Response(status=404)
        content = await request.read()
        if len(content) != self.workspace.promised[ident][1]:
            self.workspace.violations.append(f"a file of {len(content)} bytes, not as announced")
        self.workspace.files[ident] = content
        return web.Response(text=f"OK - {len(content)}")

    async def respond(self, request: web.Request) -> web.Response:
        """A response_url: good for five answers."""
        body: Json = await request.json()
        used = sum(r["_url"] == request.path for r in self.workspace.responses)
        if used >= 5:
            return web.Response(status=404, text="used_url")
        self.workspace.violations += block_faults(body.get("blocks", []))
        self.workspace.responses.append(body | {"_url": request.path})
        await self.workspace.changed()
        return web.Response(text="ok")


async def merged_arguments(request: web.Request) -> Json:
    """The arguments of a call from its query string, its form and its JSON body together.

    Values that are JSON in a form or a query (blocks, views, metadata) are read as such.
    """
    arguments: Json = {name: _read(name, value) for name, value in request.query.items()}
    if request.content_type == "application/json":
        if await request.text():
            arguments |= await request.json()
    elif request.method == "POST":
        form = await request.post()
        arguments |= {name: _read(name, str(value)) for name, value in form.items()}
    return arguments


def _read(name: str, value: str) -> Any:
    structured = {"blocks", "metadata", "view", "chunks", "attachments", "prompts", "files"}
    return json.loads(value) if name in structured | {"loading_messages"} else value


def application(api: WebApi) -> web.Application:
    """The routes of the local Slack."""
    app = web.Application(client_max_size=4 * 2**20)
    app.router.add_route("*", "/api/{method}", api.handle)
    app.router.add_get("/link", api.delivery.socket)
    app.router.add_post("/response/{id}", api.respond)
    app.router.add_post("/upload/{file}", api.take_file)
    app.router.add_get("/files-pri/{file}/{name:.*}", api.give_file)
    return app
