"""The local Discord as tests use it: start it, act as people, break it, inspect it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from aiohttp import web

from bots.strings import say
from tests.local_discord import payloads as p
from tests.local_discord.gateway import (
    DIRECT_MESSAGES,
    GUILD_MESSAGES,
    GUILDS,
    MESSAGE_CONTENT,
    Gateway,
)
from tests.local_discord.rest import Request, Rest, Trouble
from tests.local_discord.world import Interaction, World

TOKEN = "a-token-of-the-local-discord"
LOCALES = ("en", "ja")
CONTENT_FLAG = 1 << 19
"""An application's flag: Message Content is granted (limited, below 100 guilds)."""


class LocalDiscord:
    """One Discord: a server on a free port of the loopback."""

    def __init__(self, *, message_content: bool = True, compressed: bool = True) -> None:
        self.world = World()
        self._turn = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self.gateway = Gateway(
            token=TOKEN,
            granted=MESSAGE_CONTENT if message_content else 0,
            guilds=self._guilds,
            url=lambda: self.gateway_url,
            changed=self.look_again,
            compressed=compressed,
        )
        self.rest = Rest(self.world, self._tell, TOKEN, lambda: self.gateway_url, self.look_again)
        self.rest.application_flags = CONTENT_FLAG if message_content else 0
        self._runner: web.AppRunner | None = None
        self._port = 0

    # -- running --------------------------------------------------------------------------------

    async def __aenter__(self) -> LocalDiscord:
        app = web.Application()
        app.router.add_routes(list(self.rest.routes()))
        app.router.add_get("/gw/", self.gateway.serve)
        app.router.add_get("/attachments/{channel}/{id}/{name}", self._give_file)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.gateway.drop()
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/api/v10"

    @property
    def gateway_url(self) -> str:
        return f"ws://127.0.0.1:{self._port}/gw/"

    # -- inspection -----------------------------------------------------------------------------

    async def until(self, happened: Callable[[], Any], seconds: float = 90.0) -> Any:
        """Wait for a result and return it; TimeoutError shows the state instead."""
        async with self._turn:
            try:
                await asyncio.wait_for(self._turn.wait_for(happened), seconds)
            except TimeoutError:
                raise TimeoutError(self.transcript()) from None
        return happened()

    def replies(self, channel: str) -> Sequence[p.Payload]:
        """The bot's public messages in a channel; without the help that begins a direct one."""
        own = [m for m in self.world.visible(channel) if m["author"]["id"] == p.BOT_ID]
        return [m for m in own if not any(say("guide_blind", to) in m["content"] for to in LOCALES)]

    def sent(self, kind: str, status: int = 200) -> Sequence[Request]:
        return [r for r in self.rest.requests if r.kind == kind and r.status == status]

    def throttled(self) -> Sequence[Request]:
        return [r for r in self.rest.requests if r.status == 429]

    @property
    def faults(self) -> Sequence[str]:
        """Every breach of Discord's rules so far."""
        return self.rest.faults

    def transcript(self) -> str:
        lines = [
            f"{r.method} {r.path} {r.status} {str(r.body)[:200]}" for r in self.rest.requests[-30:]
        ]
        return "\n".join(["it did not happen; the newest requests were:", *lines])

    # -- faults ---------------------------------------------------------------------------------

    def make_trouble(self, kind: str, **what: Any) -> Trouble:
        trouble = Trouble(kind, **what)
        self.rest.trouble.append(trouble)
        return trouble

    # -- places and people ----------------------------------------------------------------------

    def add_guild(self, *, shard_of: int = 0, shards: int = 1) -> str:
        """A guild, of the shard that is asked for."""
        ident = next(i for i in _ids() if (int(i) >> 22) % shards == shard_of)
        self.world.guilds[ident] = {"roles": []}
        return ident

    def add_channel(self, guild: str, name: str = "general") -> str:
        made = p.channel(p.snowflake(), name, guild)
        self.world.channels[made["id"]] = made
        return str(made["id"])

    def add_thread(
        self, parent: str, name: str = "A talk", owner: str = "1", *, locked: bool = False
    ) -> str:
        guild = str(self.world.guild_of(parent))
        made = p.thread(p.snowflake(), name, guild, parent, owner)
        made["thread_metadata"]["locked"] = locked
        self.world.channels[made["id"]] = made
        return str(made["id"])

    def add_direct(self, person: p.Payload) -> str:
        made = p.direct(p.snowflake(), person)
        self.world.channels[made["id"]] = made
        return str(made["id"])

    # -- files ----------------------------------------------------------------------------------

    def add_file(
        self, channel: str, name: str, content: bytes, type_: str | None = None, **more: Any
    ) -> p.Payload:
        """An upload, as an attachment of a message: its address is signed, and has no login."""
        ident = p.snowflake()
        self.world.files[ident] = content
        place = f"http://127.0.0.1:{self._port}/attachments/{channel}/{ident}/{quote(name)}"
        address = f"{place}?ex=7fffffff&is=1&hm={'0' * 64}"
        made = {"id": ident, "filename": name, "size": len(content), "url": address}
        made |= {"proxy_url": address, "content_type": type_} if type_ else {"proxy_url": address}
        return made | more

    async def _give_file(self, request: web.Request) -> web.Response:
        self.world.downloads.append(str(request.rel_url))
        content = self.world.files.get(request.match_info["id"])
        if content is None or "hm" not in request.query:
            return web.Response(status=404, text="This content is no longer available.")
        return web.Response(body=content, content_type="application/octet-stream")

    # -- actions of people ----------------------------------------------------------------------

    async def says(
        self, person: p.Payload, channel: str, text: str, *, at: datetime | None = None, **more: Any
    ) -> p.Payload:
        """Write a message; ``<@bot>`` in the text stands for the bot's mention."""
        text = text.replace("<@bot>", f"<@{p.BOT_ID}>")
        me = [p.user(p.BOT_ID, "Henji", bot=True)] if f"<@{p.BOT_ID}>" in text else []
        mentions = [*me, *more.pop("mentions", [])]
        guild = self.world.guild_of(channel)
        message = p.message(
            p.snowflake(at), channel, person, text, guild_id=guild, mentions=mentions, **more
        )
        if "webhook_id" in message:  # Discord tells no member of one
            message.pop("member", None)
        await self._tell("MESSAGE_CREATE", self.world.keep(message), channel)
        return message

    async def makes_thread(self, person: p.Payload, message: p.Payload, name: str) -> str:
        """Make a thread from a message, whose id it gets (resources/channel, start thread from
        message); the thread begins with a message that points to it (resources/message, type 21).
        """
        parent, ident = message["channel_id"], str(message["id"])
        made = p.thread(ident, name, str(self.world.guild_of(parent)), parent, person["id"])
        made["thread_metadata"]["create_timestamp"] = p.when(p.snowflake())
        self.world.channels[ident], self.world.people[person["id"]] = made, person
        await self._tell("THREAD_CREATE", {**made, "newly_created": True}, parent)
        message |= {"flags": message["flags"] | 1 << 5, "thread": made}
        await self._tell("MESSAGE_UPDATE", message, parent)
        pointer: dict[str, Any] = {"type": 21, "message_reference": p.reference(message)}
        await self.says(person, ident, "", referenced_message=message, **pointer)
        return ident

    async def edits(self, message: p.Payload, text: str, **more: Any) -> None:
        message |= {
            "content": text.replace("<@bot>", f"<@{p.BOT_ID}>"),
            "edited_timestamp": datetime.now(UTC).isoformat(),
            **more,
        }
        await self._tell("MESSAGE_UPDATE", message, message["channel_id"])

    async def deletes(self, *messages: p.Payload) -> None:
        """One by one is MESSAGE_DELETE; several at once MESSAGE_DELETE_BULK."""
        channel = messages[0]["channel_id"]
        for message in messages:
            self.world.messages[channel].pop(message["id"], None)
        where = _without_none(channel_id=channel, guild_id=self.world.guild_of(channel))
        if len(messages) == 1:
            await self._tell("MESSAGE_DELETE", {"id": messages[0]["id"], **where}, channel)
        else:
            ids = {"ids": [message["id"] for message in messages]}
            await self._tell("MESSAGE_DELETE_BULK", {**ids, **where}, channel)

    async def deletes_channel(self, channel: str) -> None:
        gone = self.world.channels.pop(channel)
        event = "THREAD_DELETE" if gone["type"] == p.THREAD else "CHANNEL_DELETE"
        await self.gateway.dispatch(event, gone, gone["guild_id"], GUILDS)

    async def throws_the_bot_out(self, guild: str) -> None:
        del self.world.guilds[guild]
        await self.gateway.dispatch("GUILD_DELETE", {"id": guild}, guild, GUILDS)

    async def uses(
        self,
        person: p.Payload,
        channel: str,
        command: str,
        options: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Interaction:
        """A slash command, ``admin reset thread`` for one in groups."""
        name, *path = command.split(" ")
        files = {v["id"]: v for v in (options or {}).values() if isinstance(v, dict)}
        given: list[p.Payload] = [_option(n, v) for n, v in (options or {}).items()]
        for depth, sub in reversed(list(enumerate(path))):
            group = depth == 0 and len(path) == 2
            given = [{"name": sub, "type": 2 if group else 1, "options": given}]
        data: p.Payload = {"id": p.snowflake(), "name": name, "type": 1, "options": given}
        if files:
            data["resolved"] = {"attachments": files}
        return await self._interacts(2, data, person, channel, **more)

    async def types(
        self, person: p.Payload, channel: str, command: str, option: str, text: str, **more: Any
    ) -> Interaction:
        """Type into an option of a command that completes what is typed."""
        given = [{"name": option, "type": 3, "value": text, "focused": True}]
        data = {"id": p.snowflake(), "name": command, "type": 1, "options": given}
        return await self._interacts(4, data, person, channel, **more)

    async def asks_about(
        self, person: p.Payload, message: p.Payload, command: str, **more: Any
    ) -> Interaction:
        """The context menu of a message."""
        ident = message["id"]
        data = {
            "id": p.snowflake(),
            "name": command,
            "type": 3,
            "target_id": ident,
            "resolved": {"messages": {ident: message}},
        }
        return await self._interacts(2, data, person, message["channel_id"], **more)

    async def presses(
        self, person: p.Payload, message: p.Payload, number: int, **more: Any
    ) -> Interaction:
        """The button with this number under a message."""
        button = message["components"][0]["components"][number]
        data = {"component_type": 2, "custom_id": button["custom_id"]}
        channel = message["channel_id"]
        return await self._interacts(3, data, person, channel, message=message, **more)

    async def submits(
        self, person: p.Payload, asked: Interaction, values: Mapping[str, str]
    ) -> Interaction:
        """Fill in the modal that an interaction was answered with."""
        assert asked.answer is not None
        fields = [
            {"type": 18, "component": {"type": 4, "custom_id": name, "value": value}}
            for name, value in values.items()
        ]
        data = {"custom_id": asked.answer["data"]["custom_id"], "components": fields}
        return await self._interacts(5, data, person, asked.channel)

    async def _interacts(
        self, kind: int, data: p.Payload, person: p.Payload, channel: str, **more: Any
    ) -> Interaction:
        place, guild = self.world.channel(channel), self.world.guild_of(channel)
        body = p.interaction(kind, data, place, person, guild_id=guild, **more)
        body["token"] = f"token-of-{body['id']}"
        found = Interaction(
            body["id"], body["token"], kind, channel, person["id"], time.monotonic()
        )
        found.user_installed = "0" not in body["authorizing_integration_owners"]
        found.original = body.get("message", {}).get("id", "")
        self.world.interactions[found.token] = found
        await self.gateway.dispatch("INTERACTION_CREATE", body, guild, 0)
        return found

    # -- inside ---------------------------------------------------------------------------------

    async def _tell(self, event: str, data: p.Payload, channel: str) -> None:
        guild = self.world.guild_of(channel)
        need = GUILD_MESSAGES if guild else DIRECT_MESSAGES
        need = GUILDS if event.startswith(("THREAD", "CHANNEL")) else need
        await self.gateway.dispatch(event, data, guild, need)
        self.look_again()

    def _guilds(self) -> Sequence[p.Payload]:
        return [self.guild(ident) for ident in self.world.guilds]

    def guild(self, ident: str) -> p.Payload:
        """A guild's object in the gateway's events."""
        mine = [c for c in self.world.channels.values() if c.get("guild_id") == ident]
        return p.guild(
            ident,
            channels=[c for c in mine if c["type"] == p.TEXT],
            threads=[c for c in mine if c["type"] == p.THREAD],
            roles=self.world.guilds[ident]["roles"],
        )

    def look_again(self) -> None:
        """Wake everybody who waits for a change."""
        task = asyncio.ensure_future(self._notify())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _notify(self) -> None:
        async with self._turn:
            self._turn.notify_all()


def _option(name: str, value: Any) -> p.Payload:
    if isinstance(value, dict):
        return {"name": name, "type": 11, "value": value["id"]}
    return {"name": name, "type": 5 if isinstance(value, bool) else 3, "value": value}


def _ids() -> Iterator[str]:
    base = int(p.snowflake())
    return (str(base + (step << 22)) for step in range(1 << 20))


def _without_none(**values: str | None) -> p.Payload:
    return {name: value for name, value in values.items() if value is not None}
