"""Interaction tokens: which are acknowledged, and which are good for nothing.

A reply can be there before its interaction's acknowledgement is, and Discord does not know the
token until then; one that was never acknowledged never will be known.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from bots.discord.api import hook_key
from bots.discord.note import Note
from core.queue_types import Delivery

MOST_DEAD = 1024
YIELD_SECONDS = 0.5
"""For no longer than this does a reply's message make way."""


@dataclass(slots=True)
class Acknowledgement:
    """Whether an interaction has been acknowledged."""

    given: bool = False


class Tokens:
    """What this process knows of the tokens in its deliveries; never the tokens themselves."""

    def __init__(self) -> None:
        self._pending: dict[str, asyncio.Future[None]] = {}
        self._dead: dict[str, None] = {}

    @contextlib.contextmanager
    def acknowledging(self, token: str) -> Iterator[Acknowledgement]:
        """Hold what goes by this token back until the acknowledgement is given, or failed."""
        key, outcome = hook_key(token), Acknowledgement()
        self._pending[key] = asyncio.get_running_loop().create_future()
        try:
            yield outcome
        finally:
            if not outcome.given:
                self.bury(token)
            self._pending.pop(key).set_result(None)

    async def quiet(self) -> None:
        """Let those go first who are acknowledged now: it is due in 3 s, a reply is not."""
        if self._pending:
            await asyncio.wait(list(self._pending.values()), timeout=YIELD_SECONDS)

    def bury(self, token: str) -> None:
        """Discord does not take this token, and will not."""
        self._dead[hook_key(token)] = None
        while len(self._dead) > MOST_DEAD:
            del self._dead[next(iter(self._dead))]

    async def note(self, delivery: Delivery) -> Note:
        """A delivery's note, once its token is known; without it if it is good for nothing."""
        note = Note.unpack(delivery.note)
        if not note.token:
            return note
        key = hook_key(note.token)
        if (pending := self._pending.get(key)) is not None:
            await asyncio.shield(pending)
        return replace(note, token="") if key in self._dead else note
