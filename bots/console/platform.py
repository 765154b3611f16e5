"""The terminal as a platform: a reply is written as it grows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from bots.attachments import File
from bots.platform import Incoming, Part, PlaceNames, PlatformRefused, Status
from bots.text import split
from core.queue_types import Delivery
from core.types import ThreadKey


class ConsolePlatform:
    """`bots.platform.Platform` for one terminal.

    Only replies that this terminal asked for are shown; others are in their conversation's history.
    """

    name = "console"
    part_length = 1_000_000
    call_seconds = 1.0

    def __init__(
        self,
        write: Callable[[str], None],
        tell: Callable[[str], None],
        ended: Callable[[], None] = lambda: None,
        hint: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`write` gets the pieces of a reply's text; `tell` gets a line about it;
        `ended` is called when all of it is written; `hint` gets a line that the next one, or the
        reply, replaces."""
        self._hint = hint
        self._write = write
        self._tell = tell
        self._ended = ended
        self._ends: dict[str, asyncio.Future[Part]] = {}
        self._shown: dict[str, str] = {}

    def expect(self, job: str, shown: str = "") -> asyncio.Future[Part]:
        """The end of a reply that is about to be asked for. `shown`: its text so far."""
        end = asyncio.get_running_loop().create_future()
        self._ends[job], self._shown[job] = end, shown
        return end

    def split(self, delivery: Delivery, text: str, limit: int) -> Sequence[str]:
        return split(text, limit)

    async def pace(self, delivery: Delivery, *, final: bool) -> None:
        """A terminal has no limit."""

    async def status(self, delivery: Delivery, status: Status) -> None:
        if delivery.job not in self._ends:
            return
        sentence = status.sentence(delivery.note.get("locale", "en"))
        if status.seconds:
            self._hint(sentence)
        elif status.position > 1:
            self._tell(sentence)

    async def post(self, delivery: Delivery, part: Part) -> str:
        self._show(delivery.job, part)
        return f"{delivery.job}.{part.index}"

    async def edit(self, delivery: Delivery, message: str, part: Part) -> None:
        self._show(delivery.job, part)

    async def remove(self, delivery: Delivery, message: str) -> None:
        """Text in a terminal cannot be removed."""

    async def find(self, delivery: Delivery, index: int) -> str | None:
        return None

    async def fetch(self, thread: ThreadKey, file: File, most: int) -> bytes:
        raise PlatformRefused("a terminal has no files")

    async def names(self, thread: ThreadKey) -> PlaceNames:
        return PlaceNames(thread.channel, "Henji")

    async def linked(self, thread: ThreadKey, address: str) -> Incoming | None:
        return None

    async def earlier(self, thread: ThreadKey, before: str, after: float) -> Sequence[Incoming]:
        return ()

    def _show(self, job: str, part: Part) -> None:
        end = self._ends.get(job)
        if end is None or end.done():
            return
        shown = self._shown.get(job, "")
        if part.end is None and shown.startswith(part.text):
            return  # another core began again, with the same text so far
        grown = part.text.startswith(shown)
        try:
            self._write(part.text[len(shown) :] if grown else f"\n{part.text}")
        except OSError as error:  # the reader is gone, or the disk is full
            end.set_exception(error)
            return
        self._shown[job] = part.text
        if part.end is not None and part.last:
            del self._ends[job], self._shown[job]
            self._ended()
            end.set_result(part)
