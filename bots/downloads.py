"""Files from a platform's hosts, and to them."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

import aiohttp

from bots.platform import PlatformRefused

SECONDS = 10.0


async def download(
    address: str,
    most: int,
    hosts: frozenset[str],
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """The content of an address at one of `hosts`: at most `most` bytes, and one more if it is
    longer.

    A host is written as ``https://cdn.example.com``, with its scheme and any unusual port.
    Redirects are not followed: they could send the headers anywhere. PlatformRefused for another
    host, or if the host refuses the file; OSError if a retry may help.
    """
    if host_of(address) not in hosts:
        raise PlatformRefused("a file is not on the platform's own host")
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SECONDS)) as session,
            session.get(address, headers=headers, allow_redirects=False) as answer,
        ):
            _check_answer(answer, address)
            return await _content(answer, most)
    except aiohttp.ClientError as error:
        raise ConnectionError(type(error).__name__) from error


async def upload(address: str, content: bytes, hosts: frozenset[str]) -> None:
    """Send a file's bytes to an address at one of `hosts`. PlatformRefused if it is not taken."""
    if host_of(address) not in hosts:
        raise PlatformRefused("a file is not sent to another host than the platform's own")
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SECONDS)) as session,
            session.post(address, data=content, allow_redirects=False) as answer,
        ):
            if answer.status != 200:
                raise PlatformRefused(f"a file's host answered {answer.status}")
    except (aiohttp.ClientError, TimeoutError) as error:
        raise PlatformRefused(type(error).__name__) from error


async def _content(answer: aiohttp.ClientResponse, most: int) -> bytes:
    content = bytearray()
    async for piece in answer.content.iter_chunked(64 * 1024):
        content += piece
        if len(content) > most:
            break
    return bytes(content[: most + 1])


def host_of(address: str) -> str:
    """The scheme and the host of an address, as `download` takes it; empty if it is invalid."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.netloc}".lower()


def _check_answer(answer: aiohttp.ClientResponse, address: str) -> None:
    if answer.status >= 500 or answer.status == 429:
        raise ConnectionError(f"status {answer.status}")
    if answer.status != 200:
        raise PlatformRefused(f"a file's host answered {answer.status}")
    page = urlsplit(address).path.lower().endswith((".html", ".htm"))
    if answer.content_type == "text/html" and not page:
        raise PlatformRefused("a file's host answered with a page: the bot may not read files")
