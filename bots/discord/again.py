"""/regenerate: the newest reply of the conversation at hand, written anew."""

from __future__ import annotations

from bots.discord import convert
from bots.discord.context import Asked, Desk, conversations, within
from bots.discord.note import Note
from bots.discord.permissions import is_shut_out
from core.queue_types import Delivery, Receipt


class Again:
    """In its place, where the bot can write there; else as the answer to the command."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def newest(self, interaction: Asked) -> None:
        found = await within(self._find(interaction))
        if isinstance(found, str):
            await self._desk.tell(interaction, found)
        elif Note.unpack(found.note).private or is_shut_out(interaction):
            await self._by_token(interaction, found)
        elif not await self._is_refused(interaction, await self._again(interaction, found)):
            await self._desk.tell(interaction, "regenerating")

    async def _find(self, interaction: Asked) -> Delivery | str:
        """The newest reply here, open or private; the sentence that says why not."""
        turns = [
            (stored.turn.at, thread, stored.turn.id)
            for thread in conversations(interaction)
            for stored in await self._desk.history.turns(thread)
            if stored.turn.role == "assistant"
        ]
        if not turns:
            return "nothing_to_regenerate"
        _, thread, job = max(turns, key=lambda turn: turn[0])
        reply = await self._desk.deliveries.get(thread, job)
        if reply is None:
            return "prompt_gone"
        allowed = await self._desk.may_touch(interaction, thread, reply.author, reply.turn)
        return reply if allowed else "not_yours"

    async def _by_token(self, interaction: Asked, reply: Delivery) -> None:
        """What stands there can be reached no more: the new reply is this command's own."""
        locale, private = self._desk.locale_of(interaction), Note.unpack(reply.note).private
        shut_out = is_shut_out(interaction)
        note = convert.token_note(interaction, locale, private=private, shut_out=shut_out)
        with self._desk.platform.tokens.acknowledging(interaction.token) as acknowledgement:
            receipt = await self._again(interaction, reply, note)
            if receipt.outcome == "queued":
                await interaction.response.defer(ephemeral=private, thinking=True)
                acknowledgement.given = True
            elif not await self._is_refused(interaction, receipt):
                await self._desk.tell(interaction, "regenerating")

    async def _again(
        self, interaction: Asked, reply: Delivery, note: Note | None = None
    ) -> Receipt:
        work = self._desk.relay.regenerate(
            reply.thread,
            reply.job,
            str(interaction.id),
            str(interaction.user.id),
            note=note.pack() if note else None,
            roles=convert.roles_of(interaction.user),
        )
        return await within(work)

    async def _is_refused(self, interaction: Asked, receipt: Receipt) -> bool:
        """Whether it is not to be, which the person is told then."""
        if receipt.outcome != "refused":
            return False
        locale = self._desk.locale_of(interaction)
        await self._desk.show(interaction, self._desk.relay.refusal(receipt, locale))
        return True
