"""The copies of a message in other threads: quoted turns, and threads that began as a copy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.ports import ConversationStores
from core.types import ThreadKey, Turn

MOST_FORMS = 50
"""How often a reply was regenerated, at most, where its copies are looked for."""


@dataclass(frozen=True, slots=True)
class MessageCopies:
    """Edits and deletes the copies of a message. Nobody is answered for a copy."""

    stores: ConversationStores
    lane: str
    holder: str

    async def edit_quotes(self, thread: ThreadKey, turn: str, text: str, revision: str) -> None:
        """Edit a message where another one is a reply to it."""
        for copy in await self._quotes(thread, turn):
            await self._edit(copy, turn, text, revision)

    async def edit_branches(
        self, thread: ThreadKey, turn: str, text: str, revision: str, files: Turn
    ) -> None:
        """Edit a message in the copies of its thread; `files`: a turn with its new files."""
        for copy in await self.stores.history.branches(thread):
            await self._edit(copy, turn, text, revision, files)

    async def _edit(
        self, thread: ThreadKey, turn: str, text: str, revision: str, files: Turn | None = None
    ) -> None:
        await self.stores.queue.edit(
            thread, turn, text, revision, self.lane, self.holder, files=files, copied=True
        )

    async def delete(self, thread: ThreadKey, turn: str, message: str) -> None:
        """Delete a turn's message where another one is a reply to it, and in the copies of its
        thread, where a reply may stand as it was before it was regenerated."""
        for copy in await self._quotes(thread, message):
            await self.stores.queue.delete(copy, message)
        branches = await self.stores.history.branches(thread)
        for form in await self._forms(thread, turn) if branches else ():
            for branch in branches:
                await self.stores.queue.delete(branch, form)

    async def delete_thread(self, thread: ThreadKey) -> None:
        """Delete a thread's messages in its copies."""
        for copy in await self.stores.history.branches(thread):
            for stored in await self.stores.history.turns(copy):
                found = await self.stores.deliveries.locate(copy, stored.turn.id)
                if stored.turn.role == "user" and (found is None or found[0] == thread):
                    await self.stores.queue.delete(copy, stored.turn.id)

    async def _quotes(self, thread: ThreadKey, message: str) -> Sequence[ThreadKey]:
        """The threads that quote a message, and their copies."""
        threads = await self.stores.deliveries.quoting(thread, message)
        found = [
            copy for quoting in threads for copy in await self.stores.history.branches(quoting)
        ]
        return list(dict.fromkeys((*threads, *found)))

    async def _forms(self, thread: ThreadKey, turn: str) -> Sequence[str]:
        """A turn, and the replies that it was written in place of, one after the other."""
        forms: list[str] = []
        form: str | None = turn
        while form and form not in forms and len(forms) < MOST_FORMS:
            forms.append(form)
            delivery = await self.stores.deliveries.get(thread, form)
            form = delivery.replaces if delivery else None
        return forms
