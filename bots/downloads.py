"""Files read from a platform's own hosts: within bounds of bytes and seconds, and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias
from urllib.parse import urlsplit

import aiohttp
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
"""For one try at one file."""
PAUSES = (0.5, 2.0)
"""Seconds between tries."""

PAST_FILES, PAST_SECONDS = 5, 3.0
"""Of what was said before: a thread is held for a few seconds more than this."""

Fetch: TypeAlias = Callable[[File, int], Awaitable[bytes]]
"""A file's content, and at most one byte more than are wanted; PlatformRefused where the platform
will not give it."""


async def read_files(files: Sequence[File], fetch: Fetch) -> tuple[ReadFile, ...]:
    """Every file, those of text with their text. Unreadable names the first that cannot be read."""
    wanted = to_read(files)
    check(wanted)
    room, read = MOST_BYTES, []
    for file in files:
        if file not in wanted:
            read.append(ReadFile(file))
            continue
        content = await _content(file, fetch, room)
        room -= len(content)
        if room < 0:
            raise Unreadable("file_too_large", file.name)
        # a quarter of a megabyte takes milliseconds to decode: others need not wait for it
        read.append(await asyncio.to_thread(text_of, file, content))
    return tuple(read)


async def _content(file: File, fetch: Fetch, most: int) -> bytes:
    for pause in (*PAUSES, None):
        try:
            async with asyncio.timeout(SECONDS):
                return await fetch(file, most)
        except PlatformRefused as error:
            log.info("a file was refused", error=str(error))
            raise Unreadable("file_gone", file.name) from error
        except (aiohttp.ClientError, OSError) as error:  # a timeout is one too
            log.warning("a file was not loaded", error=type(error).__name__)
        if pause is None:
            break
        await asyncio.sleep(pause)
    raise Unreadable("file_failed", file.name)


async def read_some(files: Sequence[File], fetch: Fetch) -> tuple[ReadFile, ...]:
    """The same for files of the past: one that cannot be read is only named."""
    read: list[ReadFile] = []
    for file in files:
        try:
            read += await read_files([file], fetch)
        except Unreadable:
            read.append(ReadFile(replace(file, kind="other")))
    return tuple(read)


async def read_past(said: Sequence[tuple[Turn, Sequence[File]]], fetch: Fetch) -> list[Turn]:
    """Earlier turns, oldest first, with their files: the newest few are read, within seconds."""
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


async def download(
    address: str,
    most: int,
    hosts: frozenset[str],
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """The content of an address at one of `hosts`: at most `most` bytes, and one more where there
    are more.

    A host is ``https://cdn.example.com``: its scheme, and its port if that is unusual. Redirects
    are not followed: they could lead anywhere, with the headers. PlatformRefused where the address
    is another host's, or the host does not give the file.
    """
    if host_of(address) not in hosts:
        raise PlatformRefused("a file is not on the platform's own host")
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.get(address, headers=headers, allow_redirects=False) as answer,
    ):
        _check_answer(answer, address)
        content = bytearray()
        async for piece in answer.content.iter_chunked(64 * 1024):
            content += piece
            if len(content) > most:
                break
        return bytes(content[: most + 1])


def host_of(address: str) -> str:
    """The scheme and the host of an address, as `download` takes it."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}".lower()


def _check_answer(answer: aiohttp.ClientResponse, address: str) -> None:
    if answer.status >= 500 or answer.status == 429:
        raise aiohttp.ClientError(f"status {answer.status}")
    if answer.status != 200:
        raise PlatformRefused(f"a file's host answered {answer.status}")
    page = urlsplit(address).path.lower().endswith((".html", ".htm"))
    if answer.content_type == "text/html" and not page:
        raise PlatformRefused("a file's host answered with a page: the bot may not read files")
