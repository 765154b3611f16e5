"""Discord as the relay sees it: `bots.platform.Platform`, which writes a reply's messages."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import discord
import structlog

from bots.attachments import File
from bots.delivery import NOTE_LENGTH
from bots.discord import DIRECT, PLATFORM, components, error_codes
from bots.discord.api import ORIGINAL, DiscordApi, nonce_for
from bots.discord.backfill import Backfill
from bots.discord.components import Component
from bots.discord.error_codes import (
    BLOCKED_TITLE,
    INVALID_TOKEN,
    NOWHERE,
    is_final,
    reason_for,
)
from bots.discord.markdown import rendered
from bots.discord.rate_limits import GLOBAL, RateLimiter, edit_key, token_key
from bots.discord.replies import (
    ELSEWHERE,
    PLAIN_TITLE,
    ByDirectMessage,
    ByToken,
    InChannel,
    InteractionTokens,
    RefusalNotices,
    ReplyAddress,
    TokenExpiry,
    Unreachable,
    where_to_edit,
    where_to_post,
)
from bots.discord.status import StatusIndicator
from bots.platform import Incoming, MessageGone, Part, PlaceNames, PlatformRefused, Status
from bots.strings import say
from bots.summaries import RecentMessages
from bots.text import split
from core.errors import StoreUnavailable
from core.queue_types import OPENED, Delivery
from core.types import Bounded, Done, ThreadKey

log = structlog.get_logger()

T = TypeVar("T")

MESSAGE_LENGTH = 2000
"""Characters of a bot's message: Discord counts code points, as Python does."""
ROOM_FOR_NOTE = NOTE_LENGTH + len("\n-# ") + len("\u200b\n")
"""Of them, reserved for what `text_of` adds to a part."""
CALL_SECONDS = 15.0
"""The longest call: discord.py waits for rate limits inside a request."""
TOKEN_ENDED = "the interaction's token has ended, and there is no other way to this person"  # noqa: S105
MAX_REPLACED = 1024
MAX_BY_TOKEN = 6
"""Messages of an interaction whose app is installed for the person alone: its answer, and five
follow-ups (developers/docs, interactions/receiving-and-responding, 2026-11).
"""
LONGEST_NOTE = 700
"""The room under the last of them: nothing can go on in another."""


@dataclass(slots=True)
class OpenReply:
    """The state of a reply that this process is writing."""

    delivery: Delivery
    has_text: bool = False
    placeholder: str = ""
    """The message that shows the place in the queue, until there is text."""
    channel: str = ""
    """Where the reply goes: its thread, or the channel where none could be opened."""


@dataclass(slots=True)
class ReplacedMessages:
    """A reply whose recorded messages are out of reach, kept until its end has been confirmed."""

    moved: bool = False
    """It continues in direct messages."""
    messages: dict[int, str] = field(default_factory=dict)
    """Part -> the message that replaced the recorded one."""


class DiscordPlatform:
    """Discord, as the relay sees it."""

    name = PLATFORM
    part_length = MESSAGE_LENGTH - ROOM_FOR_NOTE
    call_seconds = CALL_SECONDS

    def __init__(
        self,
        client: discord.Client,
        limiter: RateLimiter,
        stop: Callable[[ThreadKey, str], Awaitable[object]],
        takes_part: Callable[[ThreadKey], Awaitable[bool]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`stop` ends a reply; `takes_part` says whether a conversation is stored; tokens expire by
        `clock`.
        """
        self._stop = stop
        self._limiter = limiter
        self._clock = clock
        self.api = DiscordApi(client, limiter)
        self._backfill = Backfill(client, self.api)
        self._typing = StatusIndicator(self.api.typing)
        self._expiry = TokenExpiry(stop, self._move, clock)
        self._open: dict[str, OpenReply] = {}
        self._replaced = Bounded[str, ReplacedMessages](MAX_REPLACED)
        self._cut = Bounded[str, None](MAX_REPLACED)
        """Replies whose last message does not reach their end."""
        self._refused: Bounded[str, str] = Bounded(MAX_REPLACED)
        """Reply -> why Discord refuses it for good."""
        self.tokens = InteractionTokens()
        self.notices = RefusalNotices(self.api, takes_part, clock)

    def split(self, delivery: Delivery, text: str, limit: int) -> Sequence[str]:
        parts = split(rendered(text), limit)
        if not ReplyAddress.unpack(delivery.note).limited or len(parts) < MAX_BY_TOKEN:
            self._cut.pop(delivery.job, None)
            return parts
        fits, *rest = split(parts[MAX_BY_TOKEN - 1], limit - LONGEST_NOTE)
        if rest or len(parts) > MAX_BY_TOKEN:
            self._cut[delivery.job] = None
        return [*parts[: MAX_BY_TOKEN - 1], fits]

    async def close(self) -> None:
        """End the tasks beside the deliveries."""
        self._typing.close()
        self._expiry.close()

    # -- before there is text -------------------------------------------------------------------

    async def pace(self, delivery: Delivery, *, final: bool) -> None:
        address = ReplyAddress.unpack(delivery.note)
        if isinstance(where_to_edit(address, 0, "", self._clock()), ByToken):
            await self._limiter.acquire(token_key(address.token), final=final)
            return
        reply = self._open.get(delivery.job)
        channel = (reply and reply.channel) or address.channel
        await self._limiter.acquire(edit_key(channel), final=final)
        await self._limiter.acquire(GLOBAL, final=final)

    async def status(self, delivery: Delivery, status: Status) -> None:
        address = await self._address(delivery)
        async with self._refusals(delivery, address):
            reply = self._reply(delivery)
            if not address.token:
                address = await self._with_thread(delivery, address)
                self._typing.start(delivery.job, address.channel)
            if delivery.messages or not (_shows_placeholder(status, delivery) or reply.placeholder):
                return
            next_in_line = status.kind == "queued" and status.position <= 1
            shown = Status("thinking") if next_in_line else status
            part = Part(0, shown.sentence(address.locale), last=True)
            await self._show_placeholder(reply, address, part)

    async def _show_placeholder(self, reply: OpenReply, address: ReplyAddress, part: Part) -> None:
        """Show a line that the reply will replace. It is updated only if the rate limits allow
        it."""
        if not reply.placeholder:
            reply.placeholder = await self._send(reply.delivery, address, part)
            return
        way = where_to_edit(address, 0, reply.placeholder, self._clock())
        by_token = isinstance(way, ByToken)
        keys = (token_key(address.token),) if by_token else (edit_key(address.channel), GLOBAL)
        if all(self._limiter.try_acquire(key) for key in keys):
            await self._update(reply.delivery, address, reply.placeholder, part)

    async def withdraw(self, thread: ThreadKey, turn: str, open_jobs: Collection[str]) -> None:
        """A question was deleted: remove the placeholder of its reply, unless that reply also
        answers others.
        """
        for reply in list(self._open.values()):
            delivery = reply.delivery
            if reply.has_text or delivery.job in open_jobs:
                continue
            if (delivery.thread, delivery.turn) == (thread, turn):
                self._close(delivery.job)
                if reply.placeholder:
                    await self.remove(delivery, reply.placeholder)

    # -- text -----------------------------------------------------------------------------------

    async def post(self, delivery: Delivery, part: Part) -> str:
        posted = await self._with_token_or_without(
            delivery, lambda address: self._post_or_replace(delivery, address, part)
        )
        self._written(delivery, part)
        return posted

    async def edit(self, delivery: Delivery, message: str, part: Part) -> None:
        await self._with_token_or_without(
            delivery, lambda address: self._update(delivery, address, message, part)
        )
        self._written(delivery, part)

    async def _with_token_or_without(
        self, delivery: Delivery, write: Callable[[ReplyAddress], Awaitable[T]]
    ) -> T:
        """Write; where Discord does not know the token, once more without it."""
        address = await self._address(delivery)
        async with self._refusals(delivery, address):
            try:
                return await write(address)
            except discord.HTTPException as error:
                if error.code not in INVALID_TOKEN or not address.token:
                    raise
                self.tokens.mark_invalid(address.token)
                return await write(replace(address, token=""))

    async def _post_or_replace(self, delivery: Delivery, address: ReplyAddress, part: Part) -> str:
        """The first part replaces the placeholder, of this process or another."""
        if part.private and not address.token and delivery.thread.space != DIRECT:
            return await self._send_refusal(delivery, address, part)
        shown = await self._placeholder(delivery) if part.index == 0 else None
        if not shown:
            return await self._send(delivery, address, part)
        await self._update(delivery, address, shown, part)
        return shown

    async def _placeholder(self, delivery: Delivery) -> str | None:
        shown = self._reply(delivery).placeholder
        if delivery.token > OPENED and not shown:
            return await self.find(delivery, 0)
        return shown

    async def _address(self, delivery: Delivery) -> ReplyAddress:
        """Where a reply goes now. Pending acknowledgements go first."""
        await self.tokens.wait_for_acknowledgements()
        address = await self.tokens.address_of(delivery)
        self._expiry.watch(delivery, address)
        return address

    async def remove(self, delivery: Delivery, message: str) -> None:
        address = await self.tokens.address_of(delivery)
        with contextlib.suppress(discord.NotFound):  # it was deleted before
            async with asyncio.timeout(CALL_SECONDS):
                match where_to_edit(address, 1, message, self._clock()):
                    case ByToken(app, token, ident):
                        await self.api.remove_by_token(app, token, ident)
                    case InChannel(channel, ident):
                        await self.api.remove(channel, ident)
                    case _:
                        return

    async def _send(self, delivery: Delivery, address: ReplyAddress, part: Part) -> str:
        """Write a new message, or `@original`; its id."""
        buttons = self._buttons(delivery, address, part)
        text, whole = self._text_and_file(delivery, address, part)
        address = await self._with_thread(delivery, address)
        moved = self._has_moved(delivery)
        match where_to_post(address, part.index, self._clock(), moved=moved):
            case ByToken(app, token, "", private):
                sent = await self.api.follow_up(
                    app, token, text, buttons, private=private, file=whole
                )
                return str(sent["id"])
            case ByToken(app, token, ident):
                sent = await self.api.edit_by_token(app, token, ident, text, buttons)
                return str(sent["id"])
            case InChannel(channel):
                reply_to = "" if address.opens or part.index else address.reply_to
                ident = await self._post(delivery, channel, part, buttons, reply_to)
                at_home = channel == ReplyAddress.unpack(delivery.note).channel
                return ident if at_home else f"{channel}{ELSEWHERE}{ident}"
            case ByDirectMessage():
                return await self._send_directly(delivery, part, buttons)
            case Unreachable():
                raise PlatformRefused(TOKEN_ENDED)

    async def _update(
        self, delivery: Delivery, address: ReplyAddress, message: str, part: Part
    ) -> None:
        """Replace a message's text; where it is out of reach, send a new one in its place."""
        buttons = self._buttons(delivery, address, part)
        if replaced := self._replaced.get(delivery.job):
            message = replaced.messages.get(part.index, message)
        moved = self._has_moved(delivery)
        match where_to_edit(address, part.index, message, self._clock(), moved=moved):
            case ByToken() as way:
                text, whole = self._text_and_file(delivery, address, part)
                sent = await self._update_by_token(way, text, buttons, whole)
            case InChannel(channel, ident):
                sent = await self._edit(delivery, channel, ident, part, buttons)
            case ByDirectMessage():
                sent = await self._send_directly(delivery, part, buttons)
                self._replacement(delivery).moved = True
            case Unreachable():
                raise PlatformRefused(TOKEN_ENDED)
        if sent:
            self._replacement(delivery).messages[part.index] = sent

    async def _update_by_token(
        self, way: ByToken, text: str, buttons: Sequence[Component], whole: str
    ) -> str:
        """Edit a message by the token; the id of the follow-up sent instead, or none."""
        if way.message:
            try:
                await self.api.edit_by_token(
                    way.app, way.token, way.message, text, buttons, file=whole
                )
            except discord.NotFound as error:
                if error.code != error_codes.UNKNOWN_MESSAGE or way.message == ORIGINAL:
                    raise
            else:
                return ""
        sent = await self.api.follow_up(
            way.app, way.token, text, buttons, private=way.private, file=whole
        )
        return str(sent["id"])

    def _text_and_file(
        self, delivery: Delivery, address: ReplyAddress, part: Part
    ) -> tuple[str, str]:
        """The text of a message, and the whole reply as its file where its last message is cut."""
        if not (delivery.job in self._cut and part.last and isinstance(part.end, Done)):
            return text_of(part), ""
        return f"{text_of(part)}\n-# {say('rest_in_file', address.locale)}", part.end.text

    async def _post(
        self,
        delivery: Delivery,
        channel: str,
        part: Part,
        buttons: Sequence[Component],
        reply_to: str = "",
    ) -> str:
        """An ordinary message. Its nonce makes a repeated request the same message."""
        nonce, text = nonce_for(delivery.job, part.index), text_of(part)
        sent = await self.api.post(
            channel, text, buttons, nonce=nonce, reply_to=reply_to, notice=part.private
        )
        ident = str(sent["id"])
        if sent.get("content", text).strip() != text.strip():  # another process had sent it before
            await self._edit(delivery, channel, ident, part, buttons)
        return ident

    async def _send_directly(
        self, delivery: Delivery, part: Part, buttons: Sequence[Component]
    ) -> str:
        channel = await self.api.direct_channel(delivery.author)
        return f"{channel}{ELSEWHERE}{await self._post(delivery, channel, part, buttons)}"

    async def _send_refusal(self, delivery: Delivery, address: ReplyAddress, part: Part) -> str:
        """As a direct message to a person who has sent one before; else in the channel itself."""
        direct = await self.api.direct_channel(delivery.author, notice=True)
        key = ThreadKey(PLATFORM, DIRECT, delivery.author, direct)
        if await self.notices.takes_part(key):
            return f"{direct}{ELSEWHERE}{await self._post(delivery, direct, part, ())}"
        channel = delivery.thread.channel if address.opens else address.channel
        ident = await self._post(delivery, channel, part, (), address.reply_to)
        return f"{channel}{ELSEWHERE}{ident}"

    async def _edit(
        self,
        delivery: Delivery,
        channel: str,
        ident: str,
        part: Part,
        buttons: Sequence[Component],
    ) -> str:
        """Edit an ordinary message; the id of the message sent instead, or none."""
        text = text_of(part)
        try:
            await self.api.edit(channel, ident, text, buttons)
        except discord.HTTPException as error:
            if error.code == error_codes.ARCHIVED:
                await self.api.unarchive(channel)
                await self.api.edit(channel, ident, text, buttons)
            elif error.code != error_codes.TOO_MANY_EDITS:
                raise
            elif part.end is not None:  # a message older than an hour takes few edits
                nonce = nonce_for(delivery.job[::-1], part.index)
                sent = await self.api.post(channel, text, buttons, nonce=nonce)
                return str(sent["id"])
        return ""

    async def _with_thread(self, delivery: Delivery, address: ReplyAddress) -> ReplyAddress:
        """The address once the reply's thread is open; the channel's where none can be opened."""
        if not address.opens:
            return address
        reply = self._reply(delivery)
        if not reply.channel:
            reply.channel = await self._open_thread(delivery, address)
        if reply.channel == address.channel:
            return address
        return replace(address, channel=reply.channel, opens="")

    async def _open_thread(self, delivery: Delivery, address: ReplyAddress) -> str:
        channel = delivery.thread.channel
        try:
            await self.api.open_thread(channel, address.reply_to, address.opens)
        except discord.HTTPException as error:
            if error.code in BLOCKED_TITLE and address.opens != PLAIN_TITLE:
                return await self._open_thread(delivery, replace(address, opens=PLAIN_TITLE))
            if not is_final(error) or error.code in NOWHERE:
                raise
            log.warning("a thread could not be opened", channel=channel, code=error.code)
            return channel
        return address.channel

    @contextlib.asynccontextmanager
    async def _refusals(self, delivery: Delivery, address: ReplyAddress) -> AsyncIterator[None]:
        """Limit a call's time, and turn a final refusal into `PlatformRefused`."""
        if reason := self._refused.get(delivery.job):
            raise PlatformRefused(reason)
        try:
            async with asyncio.timeout(CALL_SECONDS):
                yield
        except discord.HTTPException as error:
            if not is_final(error):
                raise
            if error.code == error_codes.UNKNOWN_MESSAGE:  # people deleted it
                self._close(delivery.job)
                raise MessageGone(reason_for(error.code)) from error
            await self._give_up(delivery, address, error.code)
            raise PlatformRefused(self._refused[delivery.job]) from error

    async def _give_up(self, delivery: Delivery, address: ReplyAddress, code: int) -> None:
        """Stop a reply that Discord refuses, and tell its person, if they can be reached."""
        self._refused[delivery.job] = reason_for(code)
        reply = self._open.get(delivery.job)
        address = replace(address, channel=(reply and reply.channel) or address.channel)
        self._close(delivery.job)
        nonce = nonce_for(delivery.job[::-1], 0)
        await self.notices.send(delivery.author, address, code, nonce)
        with contextlib.suppress(StoreUnavailable):
            await self._stop(delivery.thread, delivery.job)

    # -- open replies -----------------------------------------------------------------------------

    def _reply(self, delivery: Delivery) -> OpenReply:
        return self._open.setdefault(delivery.job, OpenReply(delivery))

    def _written(self, delivery: Delivery, part: Part) -> None:
        self._typing.stop(delivery.job)
        reply = self._reply(delivery)
        reply.has_text, reply.placeholder = True, ""
        if part.end is None or not part.last:
            return
        if delivery.token == OPENED:  # after a takeover, the end is written once more
            self._replaced.pop(delivery.job, None)
        self._close(delivery.job)

    def _close(self, job: str) -> None:
        """Nothing more will come of a reply."""
        self._typing.stop(job)
        self._expiry.cancel(job)
        self._open.pop(job, None)

    def _replacement(self, delivery: Delivery) -> ReplacedMessages:
        return self._replaced.setdefault(delivery.job, ReplacedMessages())

    def _has_moved(self, delivery: Delivery) -> bool:
        replaced = self._replaced.get(delivery.job)
        return replaced is not None and replaced.moved

    def _buttons(
        self, delivery: Delivery, address: ReplyAddress, part: Part
    ) -> Sequence[Component]:
        """Only the last part has buttons."""
        actions = components.actions_of(part) if part.last else ()
        if not actions:
            return ()
        locale = address.locale
        return components.reply_buttons(actions, delivery.thread, delivery.job, part.index, locale)

    async def _move(self, delivery: Delivery, address: ReplyAddress) -> None:
        """Let a private reply continue in the person's direct messages."""
        part = Part(0, say("moved_here", address.locale), last=True)
        buttons = self._buttons(delivery, address, part)
        sent = await self._send_directly(delivery, part, buttons)
        replaced = self._replacement(delivery)
        replaced.moved, replaced.messages[0] = True, sent
        text = say("moved_there", address.locale)
        await self.api.edit_by_token(address.app, address.token, ORIGINAL, text)

    # -- reading --------------------------------------------------------------------------------

    async def find(self, delivery: Delivery, index: int) -> str | None:
        address = await self.tokens.address_of(delivery)
        way = where_to_post(address, index, self._clock())
        reply = self._open.get(delivery.job)
        if not isinstance(way, InChannel) or (index == 0 and reply and reply.placeholder):
            return None  # @original may be written twice, and a follow-up cannot be found
        async with asyncio.timeout(CALL_SECONDS):
            return await self._find_in(way.channel, delivery, index)

    async def _find_in(self, channel: str, delivery: Delivery, index: int) -> str | None:
        """The message with this reply's buttons: its newest part always has some."""
        replaced = self._replaced.get(delivery.job, ReplacedMessages())
        known = {*delivery.messages, *replaced.messages.values()}
        try:
            messages = await self.api.history(channel, after=delivery.turn)
        except discord.NotFound:  # the thread has not been opened
            return None
        for message in messages:
            if str(message["id"]) in known:
                continue
            for button in components.button_ids_in(message.get("components", ())):
                if (button.job, button.index) == (delivery.job, index):
                    return str(message["id"])
        return None

    async def fetch(self, thread: ThreadKey, file: File, most: int) -> bytes:
        return await self.api.file(file.address, most)

    async def recent(self, place: ThreadKey, after: float, most: int) -> RecentMessages:
        """The newest messages of a place, for a summary."""
        return await self._backfill.recent(place, after, most)

    async def names(self, thread: ThreadKey) -> PlaceNames:
        return await self._backfill.names(thread)

    async def linked(self, thread: ThreadKey, address: str) -> Incoming | None:
        return await self._backfill.linked(thread, address)

    async def earlier(self, thread: ThreadKey, before: str, after: float) -> Sequence[Incoming]:
        return await self._backfill.earlier(thread, before, after)


def _shows_placeholder(status: Status, delivery: Delivery) -> bool:
    """Whether a status is shown as a message; for others the typing indicator is enough."""
    if status.kind == "queued":
        return status.position > 1
    return status.seconds > 0 and delivery.replaces is None


def text_of(part: Part) -> str:
    """A part as Discord shows it, with the bot's sentence in small print."""
    text = part.text if part.text.strip() else "…"  # Discord refuses a message that shows nothing
    if text[0].isspace():  # Discord trims messages: an indented list item would lose its indent
        text = f"\u200b\n{text}"
    return f"{text}\n-# {part.note}" if part.note else text
