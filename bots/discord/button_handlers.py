"""The buttons under a reply, and the modal behind 👎: who pressed, whether they may, what happens.

Nothing is kept between two presses: the custom id says it all.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import discord
import structlog

from bots.discord import components, convert
from bots.discord.components import Press, labels
from bots.discord.context import Asked, Desk, within
from bots.discord.permissions import is_shut_out
from bots.discord.replies import Note
from core.queue_types import Delivery, Rating, Receipt, Regeneration

log = structlog.get_logger()

MODAL = 9
"""The callback that opens a modal; discord.py would keep an object for each until it is sent."""


class Presses:
    """Takes in what people press."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def interacted(self, interaction: Asked) -> None:
        """A component was used, or a modal sent; others' and older ones are passed over."""
        data: Any = interaction.data or {}
        press = Press.parse(str(data.get("custom_id", "")))
        if press is None:
            return
        if interaction.type is discord.InteractionType.modal_submit:
            await self._rate(interaction, press, components.reason_in(data["components"]))
            await self._desk.tell(interaction, "feedback_thanks")
        else:
            await self._pressed(interaction, press)

    async def _pressed(self, interaction: Asked, press: Press) -> None:
        match press.verb:
            case "stop":
                await self._stop(interaction, press)
            case "again" | "more":
                await self._regenerate(interaction, press)
            case "good":
                await self._rate(interaction, press)
                await self._desk.tell(interaction, "feedback_thanks")
            case "bad":
                await self._rate(interaction, press)
                await self._ask_why(interaction, press)

    async def _stop(self, interaction: Asked, press: Press) -> None:
        if refusal := await within(self._stopped(interaction, press)):
            await self._desk.tell(interaction, refusal)
        else:
            await interaction.response.defer()

    async def _stopped(self, interaction: Asked, press: Press) -> str:
        """Stop a reply; the sentence that says why not, or none."""
        reply = await self._desk.deliveries.get(press.thread, press.job)
        if reply is None or press.job not in await self._desk.queue.owed(press.thread):
            return "too_late"
        if not await self._may(interaction, reply):
            return "not_yours"
        await self._desk.relay.stop(press.thread, press.job)
        return ""

    async def _regenerate(self, interaction: Asked, press: Press) -> None:
        if refusal := await within(self._not_again(interaction, press)):
            await self._desk.tell(interaction, refusal)
        else:
            with self._desk.platform.tokens.acknowledging(interaction.token) as acknowledgement:
                receipt = await self._again(interaction, press)
                if receipt.outcome == "refused":
                    locale = self._desk.locale_of(interaction)
                    sentence = self._desk.relay.refusal(receipt, locale)
                    await self._desk.show(interaction, sentence)
                else:
                    await interaction.response.defer()
                    acknowledgement.given = True

    async def _not_again(self, interaction: Asked, press: Press) -> str:
        """The sentence that says why a reply is not written anew, or none."""
        before = await self._desk.deliveries.get(press.thread, press.job)
        if before is None:
            return "prompt_gone"
        return "" if await self._may(interaction, before) else "not_yours"

    async def _again(self, interaction: Asked, press: Press) -> Receipt:
        wanted = Regeneration(
            press.thread,
            press.job,
            str(interaction.id),  # pressed twice is asked twice; sent twice by Discord is not
            str(interaction.user.id),
            resumes=press.verb == "more",
            note=self._note(interaction).pack(),
        )
        roles = convert.roles_of(interaction.user)
        return await within(self._desk.relay.regenerate(wanted, roles))

    def _note(self, interaction: Asked) -> Note:
        """A message that all see is edited as such; others only this press's token can reach."""
        locale, message = self._desk.locale_of(interaction), interaction.message
        private = bool(message and message.flags.ephemeral)
        shut_out = is_shut_out(interaction)
        if not private and not shut_out:
            return Note(channel=str(interaction.channel_id or ""), locale=locale)
        note = convert.token_note(interaction, locale, private=private, shut_out=shut_out)
        return replace(note, original=str(message.id) if message else "")

    async def _may(self, interaction: Asked, reply: Delivery) -> bool:
        """Whether whoever pressed may stop a reply, or have it written anew."""
        return await self._desk.may_touch(interaction, reply.thread, reply.author, reply.turn)

    # -- feedback -------------------------------------------------------------------------------

    async def _ask_why(self, interaction: Asked, press: Press) -> None:
        words = labels(self._desk.locale_of(interaction))
        await self._desk.rest.answer(
            str(interaction.id), interaction.token, MODAL, components.reason_modal(press, words)
        )

    async def _rate(self, interaction: Asked, press: Press, reason: str = "") -> None:
        by = str(interaction.user.id)
        verdict: Rating = "good" if press.verb == "good" else "bad"
        await within(self._desk.feedback.keep(press.thread, press.job, by, verdict, reason))
        log.info("feedback", job=press.job, by=by, verdict=verdict, reasoned=bool(reason))
