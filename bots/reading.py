"""What a message points at: its files, read within limits and stored as text, and its quote."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TypeAlias
from weakref import WeakValueDictionary

import structlog

from bots import attachments
from bots.attachments import (
    MOST_BYTES,
    File,
    ReadFile,
    Unreadable,
    check,
    clean_name,
    text_of,
    to_read,
    with_files,
)
from bots.platform import Incoming, Platform, PlatformRefused
from bots.quotes import BOT_LABEL, Quote, pointing, without_words
from core.access_policy import Asker
from core.background import cancel, retry_while_away
from core.errors import StoreUnavailable
from core.ports import ConversationStores, History
from core.queue_types import Delivery, QuotedTurn
from core.types import ThreadKey, Turn

log = structlog.get_logger()

SECONDS = 10.0
"""For one try to read one file."""
PAUSES = (0.5, 2.0)
"""Seconds between tries."""

MOST_LINKS, MOST_LINKED = 3, 16_000
"""Of one message: linked messages that are read, and the bytes of each."""
PAST_FILES, PAST_SECONDS = 5, 3.0
"""For earlier messages: a thread waits a few seconds longer than this."""

Fetch: TypeAlias = Callable[[File, int], Awaitable[bytes]]
"""A file's content, up to one byte more than the limit. PlatformRefused if the platform refuses,
OSError if a retry may help."""


async def read_files(files: Sequence[File], fetch: Fetch) -> tuple[ReadFile, ...]:
    """All files, text files with their text. Unreadable names the first that cannot be read."""
    wanted = to_read(files)
    check([file for file in wanted if file.kind != "link"])
    room, read = MOST_BYTES, []
    links = [file for file in files if file.kind == "link"]
    for file in files:
        if file.kind == "link":
            read.append(
                await _linked(file, fetch) if file in links[:MOST_LINKS] else ReadFile(file)
            )
            continue
        if file not in wanted:
            read.append(ReadFile(file))
            continue
        content = await _content(file, fetch, room)
        room -= len(content)
        if room < 0:
            raise Unreadable("file_too_large", file.name)
        # decoding may take milliseconds: do not block the event loop
        read.append(await asyncio.to_thread(text_of, file, content))
    return tuple(read)


async def _linked(file: File, fetch: Fetch) -> ReadFile:
    """A linked message; only named if it cannot be read."""
    try:
        content = await _content(file, fetch, MOST_LINKED)
    except Unreadable:
        return ReadFile(file)
    return ReadFile(file, content[:MOST_LINKED].decode(errors="ignore"))


async def _content(file: File, fetch: Fetch, most: int) -> bytes:
    for pause in (*PAUSES, None):
        try:
            async with asyncio.timeout(SECONDS):
                return await fetch(file, most)
        except PlatformRefused as error:
            log.info("a file was refused", error=str(error))
            raise Unreadable("file_gone", file.name) from error
        except OSError as error:  # a timeout is one too
            log.warning("a file was not loaded", error=type(error).__name__)
        if pause is None:
            break
        await asyncio.sleep(pause)
    raise Unreadable("file_failed", file.name)


async def read_some(files: Sequence[File], fetch: Fetch) -> tuple[ReadFile, ...]:
    """The same, but a file that cannot be read is only named."""
    read: list[ReadFile] = []
    for file in files:
        try:
            read += await read_files([file], fetch)
        except Unreadable:
            read.append(ReadFile(replace(file, kind="other")))
    return tuple(read)


async def turn_to_read(message: Incoming, history: History) -> Turn:
    """The turn of a message that is read from the platform, without words that it quotes of a
    person who had them forgotten."""
    turn, quote = message.turn, message.quote
    if quote is None or quote.turn is None:
        return turn
    if not await history.is_forgotten(message.thread, quote.turn.author, quote.turn.at):
        return turn
    return replace(turn, text=without_words(quote, turn.text))


async def read_past(said: Sequence[tuple[Turn, Sequence[File]]], fetch: Fetch) -> list[Turn]:
    """Earlier turns with their files, oldest first. Only the newest files are read, in a few
    seconds."""
    every = [file for _, files in said for file in to_read(files)]
    reading = {
        file: asyncio.ensure_future(read_some([file], fetch)) for file in every[-PAST_FILES:]
    }
    if reading:
        _, late = await asyncio.wait(reading.values(), timeout=PAST_SECONDS)
        await cancel(*late)

    def of(file: File) -> ReadFile:
        done = reading.get(file)
        return done.result()[0] if done and not done.cancelled() else ReadFile(file)

    return [with_files(turn, list(map(of, files))) for turn, files in said]


# -- quotes ---------------------------------------------------------------------------------------


class QuoteReader:
    """Separates a message from the message that it quotes, which may be known to its thread."""

    def __init__(
        self, stores: ConversationStores, may_read: Callable[[Asker], Awaitable[bool]]
    ) -> None:
        """`may_read` says whether a person's messages may be read."""
        self._history = stores.history
        self._deliveries = stores.deliveries
        self._may_read = may_read

    async def separate(self, incoming: Incoming) -> tuple[Turn, QuotedTurn | None]:
        """The turn without its quote, and the quote.

        The quote stays in the turn's text if there are no other words, since the question is about
        it; if nobody asks; and if its author's messages are not read, since it counts as the
        quoter's words then.
        """
        quote, turn = incoming.quote, incoming.turn
        if quote is None or not quote.id or not turn.text.startswith(quote.whole):
            return turn, None
        words = quote.without(turn.text)
        alone = await self._quoted_turn(incoming, quote) if words and incoming.addressed else None
        pointer = pointing(quote, turn.text)
        said = replace(turn, text=words if alone else turn.text)
        return said, QuotedTurn(quote.id, alone, pointer, turn.text)

    async def files_of(
        self, incoming: Incoming, quote: QuotedTurn | None
    ) -> tuple[Sequence[File], Sequence[File]]:
        """The files of a message's turn, and those of the turn that it quotes. Where the quote is
        all that is asked about, its files are the message's."""
        quoted = incoming.quote
        if quote is None or quoted is None or not quoted.files or not incoming.addressed:
            return incoming.files, ()
        if attachments.to_read(quoted.files) and await self.known(incoming.thread, quote.id):
            return incoming.files, ()
        if quote.turn is not None:
            return incoming.files, quoted.files
        is_read = await self._quoted_turn(incoming, quoted) is not None
        asked_about = is_read and not quoted.without(incoming.turn.text)
        return incoming.files_with_quoted if asked_about else incoming.files, ()

    async def _quoted_turn(self, incoming: Incoming, quote: Quote) -> Turn | None:
        """The quoted message as a separate turn; None if its author's messages are not read."""
        if quote.turn is None:
            return None
        asker = Asker(incoming.thread, quote.turn.author, quote.roles)
        if not await self._may_read(asker):
            return None
        return attachments.with_files(quote.turn, attachments.unread(quote.files))

    async def in_form_of(self, thread: ThreadKey, quote: Quote | None, text: str) -> str:
        """The text of an edited message, with its quote in the form that its turn had."""
        if quote is None or not quote.id or not text.startswith(quote.whole):
            return text
        known = await self.known(thread, quote.id)
        if known is None:
            return text
        return (quote.without(text) or text) if known.quoted else pointing(quote, text)

    async def known(self, thread: ThreadKey, message: str) -> Turn | None:
        """The turn that a thread has of a platform's message."""
        kept = {stored.turn.id: stored.turn for stored in await self._history.turns(thread)}
        if message in kept:
            return kept[message]
        found = await self._deliveries.locate(thread, message)
        return kept.get(found[1]) if found and found[0] == thread else None


# -- into the store -------------------------------------------------------------------------------


AT_ONCE, KEPT_AT_ONCE = 4, 2
"""Messages whose files are read at the same time: of people who ask, and of others, so that a flood
of files in a conversation holds up nobody who asks. One person's messages take turns."""
EDIT_TRIES = 60
"""Tries where another process may have the delivery."""


class FileReader:
    """Reads the files of messages that are stored already, and stores their text."""

    def __init__(
        self,
        platform: Platform,
        stores: ConversationStores,
        is_read: Callable[[Incoming], Awaitable[bool]],
    ) -> None:
        """`is_read` says whether a message may be remembered."""
        self._platform = platform
        self._queue = stores.queue
        self._history = stores.history
        self._is_read = is_read
        self._reading = asyncio.Semaphore(AT_ONCE)
        self._reading_kept = asyncio.Semaphore(KEPT_AT_ONCE)
        self._of_person = WeakValueDictionary[str, asyncio.Lock]()
        """Held while a message of that person is read."""

    async def read_asked(
        self, delivery: Delivery, past: asyncio.Task[None] | None, goes_on: Callable[[], bool]
    ) -> None:
        """Read the files of a message that waits for an answer, after the thread's earlier
        messages.

        The process that holds the delivery does this, so that a takeover continues it.
        """
        if past is not None:
            await asyncio.wait({past})
        job, files = delivery.job, attachments.unpack(delivery.note)
        quoted, its_files = attachments.unpack_quoted(delivery.note)
        if its_files:
            step = await self._read(
                delivery.thread, quoted, job, its_files, delivery.author, quoted
            )
            await _until_stored(step, goes_on)
        step = await self._read(delivery.thread, delivery.turn, job, files, delivery.author, quoted)
        await _until_stored(step, goes_on)

    async def read_edited(
        self, thread: ThreadKey, turn: str, job: str, files: Sequence[File], person: str
    ) -> None:
        """Read the files that an edit gave a message. Its reply may be under way in any process."""
        step = await self._read(thread, turn, job, files, person)
        tries = iter(range(EDIT_TRIES))
        await _until_stored(step, lambda: next(tries, None) is not None)

    async def read_kept(self, thread: ThreadKey, turn: str, files: Sequence[File]) -> None:
        """Read the files of a message that needs no answer. On failure they are only named."""
        async with self._reading_kept:
            read = await read_some(files, partial(self._fetch, thread))
        with suppress(StoreUnavailable):
            await self._queue.attach(thread, attachments.turn_of_files(turn, read))

    async def _read(
        self,
        thread: ThreadKey,
        turn: str,
        job: str,
        files: Sequence[File],
        person: str,
        quoted: str = "",
    ) -> Callable[[], Awaitable[bool]]:
        """Read the files of a person's message. Returns the step that stores them, or that
        refuses the message.

        `quoted`: the id of the quoted message. Storing its files does not start the job, which
        also waits for the files of the message itself.
        """
        turns = self._of_person.setdefault(person, asyncio.Lock())
        try:
            async with turns, self._reading:
                read = await read_files(files, partial(self._fetch, thread))
        except Unreadable as fault:
            named = attachments.turn_of_files(turn, attachments.unread(files))
            sources = () if turn == quoted else [file.source for file in named.files]
            told = (thread, job, fault.code, fault.name, sources, quoted)
            return partial(self._queue.turn_away, *told)
        whole = attachments.turn_of_files(turn, read)
        return partial(self._queue.attach, thread, whole, "" if turn == quoted else job)

    async def _fetch(self, thread: ThreadKey, file: File, most: int) -> bytes:
        """A file's content, or a linked message's text."""
        if file.kind != "link":
            return await self._platform.fetch(thread, file, most)
        found = await self._platform.linked(thread, file.address)
        here = replace(found, thread=thread) if found else None
        if not (found and here and await self._is_read(found) and await self._is_read(here)):
            raise PlatformRefused("a linked message is not read here")
        turn = await turn_to_read(found, self._history)
        if await self._history.is_forgotten(found.thread, turn.author, turn.at):
            raise PlatformRefused("a linked message is forgotten")
        by = "" if turn.text.startswith(BOT_LABEL) else f"{clean_name(turn.name or turn.author)}:\n"
        return f"{by}{turn.text}".strip().encode(errors="replace")


async def _until_stored(step: Callable[[], Awaitable[bool]], goes_on: Callable[[], bool]) -> None:
    """Take a step, retried while Redis is away and `goes_on` says so."""
    if goes_on():
        with suppress(StoreUnavailable):
            await retry_while_away(step, goes_on)
