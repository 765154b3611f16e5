"""The requests of Discord's REST API that the bot makes, one method each.

Every message's body is built here, so that none can ping anybody, show a link preview or be sent
twice: no allowed mentions, embeds suppressed, and a nonce that Discord de-duplicates by.
discord.py's own `send` and `edit` are not used: they cannot suppress embeds in an edit of
`@original`, and keep an object in memory for every message with buttons.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import discord
from discord.http import Route

from bots.actions import FILE_NAME
from bots.discord.components import Component
from bots.discord.error_codes import CANNOT_READ_REPLIED, THREAD_EXISTS
from bots.discord.rate_limits import GLOBAL, RateLimiter, post_key, threads_key, typing_key
from bots.downloads import download, host_of

Json: TypeAlias = Mapping[str, Any]

SUPPRESS_EMBEDS, EPHEMERAL = 1 << 2, 1 << 6
MESSAGE, MODAL = 4, 9
"""Kinds of callback to an interaction."""
ORIGINAL = "@original"
HISTORY_LIMIT = 100
"""The most messages that Discord returns at once."""
ARCHIVE_MINUTES = 1440

_MESSAGES = "/channels/{channel_id}/messages"
_WEBHOOK = "/webhooks/{webhook_id}/{webhook_token}"


class DiscordApi:
    """Discord's REST API, as one bot uses it."""

    def __init__(self, client: discord.Client, limiter: RateLimiter) -> None:
        self._client = client
        self._limiter = limiter
        self.revoked = asyncio.Event()
        """Discord does not accept the bot's token any more."""

    async def acquire(self) -> None:
        """Wait until discord.py may send one more request itself."""
        await self._limiter.acquire(GLOBAL, final=False)

    # -- messages -------------------------------------------------------------------------------

    async def post(
        self,
        channel: str,
        text: str,
        components: Sequence[Component] = (),
        *,
        nonce: str,
        reply_to: str = "",
        notice: bool = False,
    ) -> Json:
        """A new message, or the one that was sent with this nonce a short while ago; a notice goes
        after replies.
        """
        body = {**message_body(text, components), "nonce": nonce, "enforce_nonce": True}
        if reply_to:
            body["message_reference"] = {"message_id": reply_to, "fail_if_not_exists": False}
        route = Route("POST", _MESSAGES, channel_id=channel)
        await self._limiter.acquire(post_key(channel), final=not notice)
        try:
            sent: Json = await self._request(route, body, final=not notice)
        except discord.HTTPException as error:
            if not reply_to or error.code != CANNOT_READ_REPLIED:
                raise
            del body["message_reference"]
            sent = await self._request(route, body, final=not notice)
        return sent

    async def edit(
        self, channel: str, ident: str, text: str, components: Sequence[Component] = ()
    ) -> None:
        """Replace a message's text and buttons. The caller has acquired its bucket."""
        body = message_body(text, components)
        await self._send(_message_route("PATCH", channel, ident), body)

    async def remove(self, channel: str, ident: str) -> None:
        await self._request(_message_route("DELETE", channel, ident), final=False)

    async def history(self, channel: str, **bounds: str) -> Sequence[Json]:
        """A channel's messages between `before` and `after`, newest first, at most 100."""
        route = Route("GET", _MESSAGES, channel_id=channel)
        return list(await self._request(route, params={"limit": str(HISTORY_LIMIT), **bounds}))

    async def file(self, address: str, most: int) -> bytes:
        """The content of an attachment (`downloads.download`)."""
        return await download(address, most, file_hosts())

    # -- channels -------------------------------------------------------------------------------

    async def typing(self, channel: str) -> None:
        """Show the typing indicator for ten seconds; skipped where requests are scarce."""
        if self._limiter.try_acquire(typing_key(channel)) and self._limiter.try_acquire(GLOBAL):
            route = Route("POST", "/channels/{channel_id}/typing", channel_id=channel)
            await self._send(route)

    async def open_thread(
        self, channel: str, starter: str, name: str, *, notice: bool = False
    ) -> None:
        """Make the thread under a message; an existing one is no error. One that is made for a
        `notice` goes after those of replies."""
        route = Route("POST", f"{_MESSAGES}/{{message_id}}/threads", channel_id=channel,
                      message_id=starter)  # fmt: skip
        body = {"name": name, "auto_archive_duration": ARCHIVE_MINUTES}
        await self._limiter.acquire(threads_key(channel), final=not notice)
        try:
            await self._request(route, body, final=not notice)
        except discord.HTTPException as error:
            if error.code != THREAD_EXISTS:
                raise

    async def unarchive(self, thread: str) -> None:
        """Open an archived thread again: its messages cannot be edited until then."""
        route = Route("PATCH", "/channels/{channel_id}", channel_id=thread)
        await self._request(route, {"archived": False})

    async def direct_channel(self, person: str, *, notice: bool = False) -> str:
        """The channel of direct messages with a person; for a notice, after replies."""
        route, body = Route("POST", "/users/@me/channels"), {"recipient_id": person}
        made = await self._request(route, body, final=not notice)
        return str(made["id"])

    # -- interactions: by their token, exempt from the limit over all channels --------------------

    async def answer(self, interaction: str, token: str, kind: int, data: Json) -> None:
        """Answer an interaction with a callback of this kind."""
        path = "/interactions/{webhook_id}/{webhook_token}/callback"
        route = Route("POST", path, webhook_id=interaction, webhook_token=token)
        body = {"type": kind, "data": dict(data)}
        await self._send(route, body, params={"with_response": "1"})

    async def follow_up(
        self,
        app: str,
        token: str,
        text: str,
        components: Sequence[Component] = (),
        *,
        private: bool,
        file: str = "",
    ) -> Json:
        """A new message by an interaction's token; `file`: the text of a file to attach."""
        body = message_body(text, components, private=private)
        route = Route("POST", _WEBHOOK, webhook_id=app, webhook_token=token)
        sent: Json = await self._send(route, body, file=file, params={"wait": "1"})
        return sent

    async def edit_by_token(
        self,
        app: str,
        token: str,
        ident: str,
        text: str,
        components: Sequence[Component] = (),
        *,
        file: str = "",
    ) -> Json:
        route = _token_route("PATCH", app, token, ident)
        edited: Json = await self._send(route, message_body(text, components), file=file)
        return edited

    async def remove_by_token(self, app: str, token: str, ident: str) -> None:
        await self._send(_token_route("DELETE", app, token, ident))

    # -- one request ----------------------------------------------------------------------------

    async def _request(
        self, route: Route, body: Json | None = None, *, final: bool = True, **more: Any
    ) -> Any:
        await self._limiter.acquire(GLOBAL, final=final)
        return await self._send(route, body, **more)

    async def _send(
        self, route: Route, body: Json | None = None, *, file: str = "", **more: Any
    ) -> Any:
        given: dict[str, Any] = {"json": dict(body)} if body is not None else {}
        if file:
            given = {"form": _with_file(given["json"], file)}
        try:
            return await self._client.http.request(route, **given, **more)
        except discord.HTTPException as error:
            if error.status == 401 and not error.code:  # an interaction's token has a code
                self.revoked.set()
            raise


def file_hosts() -> frozenset[str]:
    """The hosts of attachments: Discord's, or the test server's."""
    if host_of(Route.BASE) == "https://discord.com":
        return frozenset(("https://cdn.discordapp.com", "https://media.discordapp.net"))
    return frozenset((host_of(Route.BASE),))


def message_body(
    text: str, components: Sequence[Component] = (), *, private: bool = False
) -> dict[str, Any]:
    """A message's body. It replaces the buttons of an edited message, with none too."""
    return {
        "content": text,
        "flags": SUPPRESS_EMBEDS | (EPHEMERAL if private else 0),
        "allowed_mentions": {"parse": [], "replied_user": False},
        "components": list(components),
    }


def _with_file(body: Json, text: str) -> list[dict[str, Any]]:
    """The form of a message with one file, which replaces the files that an edited message has."""
    described = {**body, "attachments": [{"id": "0", "filename": FILE_NAME}]}
    content = {"value": text.encode(), "filename": FILE_NAME, "content_type": "text/markdown"}
    payload = {"name": "payload_json", "value": json.dumps(described)}
    return [payload, {"name": "files[0]", **content}]


def nonce_for(job: str, index: int) -> str:
    """The nonce of one part of one reply; Discord accepts 25 characters."""
    return f"{job[:22]}.{index:02}" if index < 100 else f"{job[:20]}.{index:04}"


def _message_route(method: str, channel: str, ident: str) -> Route:
    return Route(method, f"{_MESSAGES}/{{message_id}}", channel_id=channel, message_id=ident)


def _token_route(method: str, app: str, token: str, ident: str) -> Route:
    # discord.py would quote the @ of @original
    last = ORIGINAL if ident == ORIGINAL else "{message_id}"
    path = f"{_WEBHOOK}/messages/{last}"
    return Route(method, path, webhook_id=app, webhook_token=token, message_id=ident)
