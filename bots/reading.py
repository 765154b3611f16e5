"""Reads the files of messages, within limits of bytes and seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

import structlog

from bots.attachments import (
    MOST_BYTES,
    File,
    ReadFile,
    Unreadable,
    check,
    text_of,
    to_read,
    with_files,
)
from bots.platform import PlatformRefused
from core.background import cancel
from core.types import Turn

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
