"""How a reply reaches people on Discord: what `bots.platform.Platform` asks of a platform."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import replace

import discord
import structlog

from bots.discord import backfill, components, convert, error_codes
from bots.discord.api import ORIGINAL, Rest, edit_key, hook_key, nonce_for
from bots.discord.components import labels
from bots.discord.error_codes import DEAD_TOKEN, HOPELESS, NO_THREAD, REASONS
from bots.discord.rate_limits import EVERYWHERE, Pace
from bots.discord.replies import (
    ELSEWHERE,
    Alarms,
    ByToken,
    Directly,
    Note,
    Nowhere,
    Plainly,
    Tokens,
    to_edit,
    to_post,
)
from bots.discord.status import Typing
from bots.platform import Part, PlatformRefused, Status
from bots.strings import say
from core.queue_types import Delivery
from core.types import Done, ThreadKey, Turn

log = structlog.get_logger()

LENGTH = 2000
"""Characters that a bot's message holds: Discord counts code points, as Python does."""
ROOM_FOR_NOTE = 120
"""Of them, kept for a sentence of the bot's own under the last part."""
CALL_SECONDS = 15.0
"""discord.py waits for rate limits inside a request: no longer than this."""
TOKEN_ENDED = "the interaction's token has ended, and there is no other way to this person"  # noqa: S105
MOST_KEPT = 1024


class DiscordPlatform:
    """Discord, as the relay sees it."""

    name = convert.PLATFORM
    part_length = LENGTH - ROOM_FOR_NOTE
    call_seconds = CALL_SECONDS

    def __init__(
        self,
        client: discord.Client,
        pace: Pace,
        stop: Callable[[ThreadKey, str], Awaitable[object]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._pace = pace
        self._clock = clock
        self._rest = Rest(client, pace)
        self._typing = Typing(self._rest.typing)
        self._alarms = Alarms(stop, self._move, clock)
        self._textless: dict[str, Delivery] = {}
        """Replies that have no text yet."""
        self._waiting: dict[str, str] = {}
        """Reply -> the message that shows its place in the queue, until there is text."""
        self._places: dict[str, str] = {}
        """Reply -> the channel it goes to: its thread, or where none could be opened."""
        self._moved: set[str] = set()
        """Private replies that went on as direct messages."""
        self._instead: dict[str, dict[int, str]] = {}
        """Reply -> the messages that stand for those which could not be reached any more."""
        self.tokens = Tokens()

    def length_of(self, text: str) -> int:
        return len(text)

    async def close(self) -> None:
        """End what runs beside the deliveries."""
        self._typing.close()
        self._alarms.close()

    # -- before there is text -------------------------------------------------------------------

    async def pace(self, delivery: Delivery, *, final: bool) -> None:
        note = Note.unpack(delivery.note)
        if isinstance(to_edit(note, 0, "", self._clock()), ByToken):
            await self._pace.turn(hook_key(note.token), final=final)
            return
        channel = self._places.get(delivery.job, note.channel)
        await self._pace.turn(edit_key(channel), final=final)
        await self._pace.turn(EVERYWHERE, final=final)

    async def status(self, delivery: Delivery, status: Status) -> None:
        note = await self._note(delivery)
        self._textless[delivery.job] = delivery
        async with asyncio.timeout(CALL_SECONDS):
            if not note.token:
                note = await self._in_place(delivery, note)
                self._typing.start(delivery.job, note.channel)
            waits = status.kind == "queued" and status.position > 1
            if delivery.messages or not (waits or delivery.job in self._waiting):
                return
            text = say("queued" if waits else "thinking", note.locale, position=status.position)
            await self._show_waiting(delivery, note, Part(0, text, last=True))

    async def _show_waiting(self, delivery: Delivery, note: Note, part: Part) -> None:
        """A line that the reply will replace; left out where requests are scarce."""
        shown = self._waiting.get(delivery.job)
        if shown is None:
            self._waiting[delivery.job] = await self._write(delivery, note, part)
            return
        by_token = isinstance(to_edit(note, 0, shown, self._clock()), ByToken)
        keys = (hook_key(note.token),) if by_token else (edit_key(note.channel), EVERYWHERE)
        if all(self._pace.has_room(key) for key in keys):
            await self._rewrite(delivery, note, shown, part)

    async def withdraw(self, thread: ThreadKey, turn: str, owed: Collection[str]) -> None:
        """A question is gone: take back what shows that its reply is on the way, unless that is
        owed to others too.
        """
        for delivery in list(self._textless.values()):
            if (delivery.thread, delivery.turn) == (thread, turn) and delivery.job not in owed:
                line = self._waiting.get(delivery.job)
                self._forget(delivery.job)
                if line:
                    await self.remove(delivery, line)

    # -- text -----------------------------------------------------------------------------------

    async def post(self, delivery: Delivery, part: Part) -> str:
        note = await self._note(delivery)
        async with self._calling(delivery, note):
            try:
                shown = await self._put(delivery, note, part)
            except discord.HTTPException as error:
                if error.code not in DEAD_TOKEN or not note.token:
                    raise
                self.tokens.bury(note.token)
                shown = await self._put(delivery, replace(note, token=""), part)
        self._settle(delivery, part)
        return shown

    async def _put(self, delivery: Delivery, note: Note, part: Part) -> str:
        shown = await self._standing(delivery) if part.index == 0 else None
        if not shown:
            return await self._write(delivery, note, part)
        await self._rewrite(delivery, note, shown, part)
        return shown

    async def _standing(self, delivery: Delivery) -> str | None:
        """The line that stands where the first part will: shown here, or by another process."""
        if delivery.token > 1 and delivery.job not in self._waiting:
            return await self.find(delivery, 0)
        return self._waiting.get(delivery.job)

    async def edit(self, delivery: Delivery, message: str, part: Part) -> None:
        note = await self._note(delivery)
        async with self._calling(delivery, note):
            try:
                await self._rewrite(delivery, note, message, part)
            except discord.HTTPException as error:
                if error.code not in DEAD_TOKEN or not note.token:
                    raise
                self.tokens.bury(note.token)
                await self._rewrite(delivery, replace(note, token=""), message, part)
        self._settle(delivery, part)

    async def _note(self, delivery: Delivery) -> Note:
        """Where a reply goes now; whoever waits for an acknowledgement goes first."""
        await self.tokens.quiet()
        note = await self.tokens.note(delivery)
        self._alarms.set(delivery, note)
        return note

    async def remove(self, delivery: Delivery, message: str) -> None:
        note = await self.tokens.note(delivery)
        with contextlib.suppress(discord.NotFound):  # somebody took it away already
            async with asyncio.timeout(CALL_SECONDS):
                match to_edit(note, 1, message, self._clock()):
                    case ByToken(app, token, ident):
                        await self._rest.remove_by_token(app, token, ident)
                    case Plainly(channel, ident):
                        await self._rest.remove(channel, ident)
                    case _:
                        return

    async def _write(self, delivery: Delivery, note: Note, part: Part) -> str:
        buttons, text = self._buttons(delivery, note, part), text_of(part)
        note = await self._in_place(delivery, note)
        moved = delivery.job in self._moved
        match to_post(note, part.index, self._clock(), moved=moved):
            case ByToken(app, token, "", private):
                said = await self._rest.follow_up(app, token, text, buttons, private=private)
                return str(said["id"])
            case ByToken(app, token, ident):
                said = await self._rest.edit_by_token(app, token, ident, text, buttons)
                return str(said["id"])
            case Plainly(channel):
                reply_to = "" if note.opens or part.index else note.reply_to
                ident = await self._post(delivery, channel, part, buttons, reply_to)
                at_home = channel == Note.unpack(delivery.note).channel
                return ident if at_home else f"{channel}{ELSEWHERE}{ident}"
            case Directly():
                return await self._write_directly(delivery, part, buttons)
            case Nowhere():
                raise PlatformRefused(TOKEN_ENDED)

    async def _rewrite(self, delivery: Delivery, note: Note, message: str, part: Part) -> None:
        buttons = self._buttons(delivery, note, part)
        instead = self._instead.get(delivery.job, {})
        message, moved = instead.get(part.index, message), delivery.job in self._moved
        match to_edit(note, part.index, message, self._clock(), moved=moved):
            case ByToken() as way:
                posted = await self._rewrite_by_token(way, text_of(part), buttons)
            case Plainly(channel, ident):
                posted = await self._edit(delivery, channel, ident, part, buttons)
            case Directly():
                posted = await self._write_directly(delivery, part, buttons)
                self._moved.add(delivery.job)
            case Nowhere():
                raise PlatformRefused(TOKEN_ENDED)
        if posted:
            self._remember(delivery, part.index, posted)

    def _remember(self, delivery: Delivery, index: int, posted: str) -> None:
        self._instead.setdefault(delivery.job, {})[index] = posted
        while len(self._instead) > MOST_KEPT:
            del self._instead[next(iter(self._instead))]

    async def _rewrite_by_token(
        self, way: ByToken, text: str, buttons: Sequence[components.Component]
    ) -> str:
        """Edit what the token reaches; the id of the follow-up that says it instead, or none."""
        if way.message:
            try:
                await self._rest.edit_by_token(way.app, way.token, way.message, text, buttons)
            except discord.NotFound as error:
                if error.code != error_codes.UNKNOWN_MESSAGE or way.message == ORIGINAL:
                    raise
            else:
                return ""
        said = await self._rest.follow_up(way.app, way.token, text, buttons, private=way.private)
        return str(said["id"])

    async def _post(
        self,
        delivery: Delivery,
        channel: str,
        part: Part,
        buttons: Sequence[components.Component],
        reply_to: str = "",
    ) -> str:
        """An ordinary message, whose nonce makes a second sending the same message."""
        nonce, text = nonce_for(delivery.job, part.index), text_of(part)
        said = await self._rest.post(channel, text, buttons, nonce=nonce, reply_to=reply_to)
        ident = str(said["id"])
        if said.get("content", text).strip() != text.strip():  # another process had sent it before
            await self._edit(delivery, channel, ident, part, buttons)
        return ident

    async def _write_directly(
        self, delivery: Delivery, part: Part, buttons: Sequence[components.Component]
    ) -> str:
        channel = await self._rest.direct_channel(delivery.author)
        return f"{channel}{ELSEWHERE}{await self._post(delivery, channel, part, buttons)}"

    async def _edit(
        self,
        delivery: Delivery,
        channel: str,
        ident: str,
        part: Part,
        buttons: Sequence[components.Component],
    ) -> str:
        """Edit a message; the id of the one that says it instead, or none."""
        text = text_of(part)
        try:
            await self._rest.edit(channel, ident, text, buttons)
        except discord.HTTPException as error:
            if error.code == error_codes.ARCHIVED:
                await self._rest.wake(channel)
                await self._rest.edit(channel, ident, text, buttons)
            elif error.code != error_codes.TOO_MANY_EDITS:
                raise
            elif part.end is not None:  # older than an hour, it takes few edits: say it anew
                nonce = nonce_for(delivery.job[::-1], part.index)
                said = await self._rest.post(channel, text, buttons, nonce=nonce)
                return str(said["id"])
        return ""

    async def _in_place(self, delivery: Delivery, note: Note) -> Note:
        """The note, once the thread is there that the reply opens; without it where Discord will
        not have one.
        """
        if not note.opens:
            return note
        if delivery.job not in self._places:
            self._places[delivery.job] = await self._opened(delivery, note)
        place = self._places[delivery.job]
        return note if place == note.channel else replace(note, channel=place, opens="")

    async def _opened(self, delivery: Delivery, note: Note) -> str:
        channel = delivery.thread.channel
        try:
            await self._rest.open_thread(channel, note.reply_to, note.opens)
        except discord.HTTPException as error:
            if error.code not in NO_THREAD:
                raise
            log.warning("a thread could not be opened", channel=channel, code=error.code)
            return channel
        return note.channel

    @contextlib.asynccontextmanager
    async def _calling(self, delivery: Delivery, note: Note) -> AsyncIterator[None]:
        """One call of the platform: not longer than it may be, and what is hopeless not again."""
        try:
            async with asyncio.timeout(CALL_SECONDS):
                yield
        except discord.HTTPException as error:
            if error.code not in HOPELESS:
                raise
            await self._refused(delivery, note, error.code)
            raise PlatformRefused(f"Discord says {error.code}") from error

    async def _refused(self, delivery: Delivery, note: Note, code: int) -> None:
        """Say in the log what stands in the way, and to the person, if they can be reached."""
        self._forget(delivery.job)
        reason = REASONS.get(code, "")
        where = str(delivery.thread)
        log.warning("discord refused a reply", job=delivery.job, thread=where, reason=reason)
        if code in (error_codes.MISSING_ACCESS, error_codes.MISSING_PERMISSIONS):
            channel, nonce = delivery.thread.channel, nonce_for(delivery.job[::-1], 0)
            await self._rest.tell_refused(delivery.author, channel, note.locale, nonce)

    def _settle(self, delivery: Delivery, part: Part) -> None:
        self._typing.stop(delivery.job)
        self._waiting.pop(delivery.job, None)
        self._textless.pop(delivery.job, None)
        if part.end is None or not part.last:
            return
        if delivery.token == 1:  # after a takeover, the end is said once more
            self._moved.discard(delivery.job)
            self._instead.pop(delivery.job, None)
        self._forget(delivery.job)

    def _forget(self, job: str) -> None:
        """Nothing more will come of a reply."""
        self._typing.stop(job)
        self._alarms.clear(job)
        for kept in (self._textless, self._waiting, self._places):
            kept.pop(job, None)

    def _buttons(
        self, delivery: Delivery, note: Note, part: Part
    ) -> Sequence[components.Component]:
        """Stop while the reply is written; at its end, what can be done about it."""
        if not part.last:
            return ()
        words, thread = labels(note.locale), delivery.thread
        if part.end is None:
            return components.streaming(thread, delivery.job, part.index, words)
        if not isinstance(part.end, Done):
            return ()
        cut = part.end.finish_reason == "length"
        return components.finished(thread, delivery.job, part.index, words, cut=cut)

    async def _move(self, delivery: Delivery, note: Note) -> None:
        """Let a private reply go on in the person's direct messages."""
        part = Part(0, say("moved_here", note.locale), last=True)
        posted = await self._write_directly(delivery, part, self._buttons(delivery, note, part))
        self._moved.add(delivery.job)
        self._remember(delivery, 0, posted)
        text = say("moved_there", note.locale)
        await self._rest.edit_by_token(note.app, note.token, ORIGINAL, text)

    # -- what was said --------------------------------------------------------------------------

    async def find(self, delivery: Delivery, index: int) -> str | None:
        note = await self.tokens.note(delivery)
        way = to_post(note, index, self._clock())
        if not isinstance(way, Plainly) or (index == 0 and delivery.job in self._waiting):
            return None  # @original may be written twice, and a follow-up cannot be found
        async with asyncio.timeout(CALL_SECONDS):
            return await self._find_in(way.channel, delivery, index)

    async def _find_in(self, channel: str, delivery: Delivery, index: int) -> str | None:
        """The message with this reply's buttons: its newest part always has some."""
        known = {*delivery.messages, *self._instead.get(delivery.job, {}).values()}
        try:
            messages = await self._rest.history(channel, after=delivery.turn)
        except discord.NotFound:  # the thread has not been opened
            return None
        for message in messages:
            if str(message["id"]) in known:
                continue
            for press in components.presses_in(message.get("components", ())):
                if (press.job, press.index) == (delivery.job, index):
                    return str(message["id"])
        return None

    async def earlier(self, thread: ThreadKey, before: str, after: float) -> Sequence[Turn]:
        await self._rest.turn()
        return await backfill.earlier(self._client, thread, before, after)


def text_of(part: Part) -> str:
    """A part as Discord shall show it, the bot's own sentence in small print."""
    words = part.text if part.text.strip() else "…"  # Discord refuses what shows nothing
    return f"{words}\n-# {part.note}" if part.note else words
