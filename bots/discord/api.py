"""What the bot asks of Discord's REST API, one method a request, and nothing else does.

Every message is built here, so that none can ping anybody, unfold a link or be sent twice: no
allowed mentions, embeds suppressed, and a nonce that Discord holds against a second sending.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, TypeAlias

import aiohttp
import discord
import structlog
from discord.http import Route

from bots.discord.components import Component
from bots.discord.error_codes import CANNOT_READ_REPLIED, THREAD_EXISTS
from bots.discord.rate_limits import EVERYWHERE, Pace
from bots.strings import say

log = structlog.get_logger()

Json: TypeAlias = Mapping[str, Any]

SUPPRESS_EMBEDS, EPHEMERAL = 1 << 2, 1 << 6
ORIGINAL = "@original"
HISTORY = 100
"""The most messages that Discord gives at once."""
THREAD_KEPT_MINUTES = 1440

_CHANNEL = re.compile(r"/channels/(\d+)/messages(?:/\d+)?$")
_THREADS = re.compile(r"/channels/(\d+)/messages/\d+/threads$")
_TYPING = re.compile(r"/channels/(\d+)/typing$")
_HOOK = re.compile(r"/webhooks/\d+/([^/]+)")


def edit_key(channel: str) -> str:
    """The window of a channel's edits."""
    return f"PATCH {channel}"


def post_key(channel: str) -> str:
    """The window of a channel's new messages."""
    return f"POST {channel}"


def threads_key(channel: str) -> str:
    """The window of a channel's new threads."""
    return f"threads {channel}"


def hook_key(token: str) -> str:
    """The window of an interaction's messages, without the token itself."""
    return f"hook {hashlib.sha256(token.encode()).hexdigest()[:16]}"


def tracing(pace: Pace) -> aiohttp.TraceConfig:
    """What makes every answer's rate-limit headers known to `pace`; for the client's session."""

    async def ended(
        session: aiohttp.ClientSession,
        context: SimpleNamespace,
        answer: aiohttp.TraceRequestEndParams,
    ) -> None:
        key = _key_of(answer.method, answer.url.path)
        if key:
            pace.observe(key, answer.response.headers, answer.response.status)
        if answer.response.headers.get("X-RateLimit-Global"):
            pace.observe(EVERYWHERE, answer.response.headers, answer.response.status)

    config = aiohttp.TraceConfig()
    config.on_request_end.append(ended)
    return config


def _key_of(method: str, path: str) -> str:
    if hook := _HOOK.search(path):
        return hook_key(hook[1])
    if parent := _THREADS.search(path):
        return threads_key(parent[1])
    if typed := _TYPING.search(path):
        return f"typing {typed[1]}"
    channel = _CHANNEL.search(path)
    return f"{method} {channel[1]}" if channel else ""


class Rest:
    """Discord's REST API, as one bot uses it."""

    def __init__(self, client: discord.Client, pace: Pace) -> None:
        self._client = client
        self._pace = pace

    async def turn(self) -> None:
        """Wait until one more request may go out that discord.py makes by itself."""
        await self._pace.turn(EVERYWHERE, final=False)

    # -- messages -------------------------------------------------------------------------------

    async def post(
        self,
        channel: str,
        text: str,
        components: Sequence[Component] = (),
        *,
        nonce: str,
        reply_to: str = "",
    ) -> Json:
        """A new message, or the one that was sent with this nonce a short while ago."""
        body = {**message(text, components), "nonce": nonce, "enforce_nonce": True}
        if reply_to:
            body["message_reference"] = {"message_id": reply_to, "fail_if_not_exists": False}
        route = Route("POST", "/channels/{channel_id}/messages", channel_id=channel)
        await self._pace.turn(post_key(channel), final=True)
        try:
            sent: Json = await self._ask(route, body)
        except discord.HTTPException as error:
            if not reply_to or error.code != CANNOT_READ_REPLIED:
                raise
            del body["message_reference"]
            sent = await self._ask(route, body)
        return sent

    async def edit(
        self, channel: str, ident: str, text: str, components: Sequence[Component] = ()
    ) -> None:
        route = Route(
            "PATCH",
            "/channels/{channel_id}/messages/{message_id}",
            channel_id=channel,
            message_id=ident,
        )
        await self._client.http.request(route, json=dict(message(text, components)))

    async def remove(self, channel: str, ident: str) -> None:
        route = Route(
            "DELETE",
            "/channels/{channel_id}/messages/{message_id}",
            channel_id=channel,
            message_id=ident,
        )
        await self._ask(route)

    async def history(self, channel: str, **bounds: str) -> Sequence[Json]:
        """A channel's messages between `before` and `after`, newest first, 100 at the most."""
        route = Route("GET", "/channels/{channel_id}/messages", channel_id=channel)
        return list(await self._ask(route, params={"limit": str(HISTORY), **bounds}))

    # -- channels -------------------------------------------------------------------------------

    async def typing(self, channel: str) -> None:
        """Show that the bot writes, for ten seconds; left out where requests are scarce."""
        if self._pace.has_room(f"typing {channel}") and self._pace.has_room(EVERYWHERE):
            route = Route("POST", "/channels/{channel_id}/typing", channel_id=channel)
            await self._client.http.request(route)

    async def open_thread(self, channel: str, starter: str, name: str) -> None:
        """Make the thread under a message; fine if it is there already."""
        route = Route(
            "POST",
            "/channels/{channel_id}/messages/{message_id}/threads",
            channel_id=channel,
            message_id=starter,
        )
        body = {"name": name, "auto_archive_duration": THREAD_KEPT_MINUTES}
        await self._pace.turn(threads_key(channel), final=True)
        try:
            await self._ask(route, body)
        except discord.HTTPException as error:
            if error.code != THREAD_EXISTS:
                raise

    async def wake(self, thread: str) -> None:
        """Open an archived thread again: its messages cannot be edited until then."""
        route = Route("PATCH", "/channels/{channel_id}", channel_id=thread)
        await self._ask(route, {"archived": False})

    async def direct_channel(self, person: str) -> str:
        """The channel of direct messages with a person."""
        made = await self._ask(Route("POST", "/users/@me/channels"), {"recipient_id": person})
        return str(made["id"])

    async def tell_refused(self, person: str, channel: str, locale: str, nonce: str) -> None:
        """Tell a person directly that the bot may not write in a channel, if they let it."""
        text = say("cannot_post_here", locale, channel=f"<#{channel}>")
        try:
            direct = await self.direct_channel(person)
            await self.post(direct, text, nonce=nonce)
        except discord.HTTPException as error:
            log.info("nor to the person", code=error.code)

    # -- interactions: by their token, which is exempt from the limit over all channels -----------

    async def follow_up(
        self,
        app: str,
        token: str,
        text: str,
        components: Sequence[Component] = (),
        *,
        private: bool,
    ) -> Json:
        body = dict(message(text, components))
        body["flags"] |= EPHEMERAL if private else 0
        route = Route(
            "POST", "/webhooks/{webhook_id}/{webhook_token}", webhook_id=app, webhook_token=token
        )
        return await self._by_token(route, body, params={"wait": "1"})

    async def edit_by_token(
        self, app: str, token: str, ident: str, text: str, components: Sequence[Component] = ()
    ) -> Json:
        route = _token_route("PATCH", app, token, ident)
        return await self._by_token(route, dict(message(text, components)))

    async def get_by_token(self, app: str, token: str, ident: str) -> Json:
        return await self._by_token(_token_route("GET", app, token, ident))

    async def remove_by_token(self, app: str, token: str, ident: str) -> None:
        await self._by_token(_token_route("DELETE", app, token, ident))

    async def answer(self, interaction: str, token: str, kind: int, data: Json) -> None:
        """Answer an interaction with a callback of this kind."""
        route = Route(
            "POST",
            "/interactions/{webhook_id}/{webhook_token}/callback",
            webhook_id=interaction,
            webhook_token=token,
        )
        body = {"type": kind, "data": dict(data)}
        await self._by_token(route, body, params={"with_response": "1"})

    async def _by_token(self, route: Route, body: Json | None = None, **more: Any) -> Json:
        given: dict[str, Any] = {"json": dict(body)} if body is not None else {}
        answer: Json = await self._client.http.request(route, **given, **more)
        return answer

    async def _ask(self, route: Route, body: Json | None = None, **more: Any) -> Any:
        await self._pace.turn(EVERYWHERE, final=True)
        given: dict[str, Any] = {"json": dict(body)} if body is not None else {}
        return await self._client.http.request(route, **given, **more)


def message(text: str, components: Sequence[Component] = ()) -> dict[str, Any]:
    """A message's body: it replaces buttons that stood there before, if only with none."""
    return {
        "content": text,
        "flags": SUPPRESS_EMBEDS,
        "allowed_mentions": {"parse": [], "replied_user": False},
        "components": list(components),
    }


def nonce_for(job: str, index: int) -> str:
    """What marks one part of one reply: 25 characters are the most that Discord takes."""
    return f"{job[:22]}.{index:02}" if index < 100 else f"{job[:20]}.{index:04}"


def _token_route(method: str, app: str, token: str, ident: str) -> Route:
    # discord.py would quote the @ of @original
    last = ORIGINAL if ident == ORIGINAL else "{message_id}"
    path = "/webhooks/{webhook_id}/{webhook_token}/messages/" + last
    return Route(method, path, webhook_id=app, webhook_token=token, message_id=ident)
