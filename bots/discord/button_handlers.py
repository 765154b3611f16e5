"""The buttons under a reply, and the modal that asks for the reason of a 👎.

No state is kept between two presses: the custom id contains everything.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import discord

from bots.actions import Outcome
from bots.discord import components, convert
from bots.discord.api import MODAL
from bots.discord.components import ButtonId
from bots.discord.context import Context, actor_of, within
from bots.discord.convert import Interaction
from bots.discord.replies import ReplyAddress
from bots.discord.summaries import SummaryHandler
from core.queue_types import Rating


class ButtonHandlers:
    """Handles presses of the buttons under replies."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._summaries = SummaryHandler(context)

    async def on_press(self, interaction: Interaction) -> None:
        """A button was pressed, or a modal sent; ids of other kinds are ignored."""
        data: Any = interaction.data or {}
        if summary := components.SummaryButton.parse(str(data.get("custom_id", ""))):
            await self._summaries.on_press(interaction, summary)
            return
        button = ButtonId.parse(str(data.get("custom_id", "")))
        if button is None:
            return
        if interaction.type is discord.InteractionType.modal_submit:
            reason = components.reason_in(data["components"])
            rated = await self._rate(interaction, button, reason)
            await self._context.tell_outcome(interaction, rated)
        else:
            await self._pressed(interaction, button)

    async def _pressed(self, interaction: Interaction, button: ButtonId) -> None:
        match button.action:
            case "stop":
                await self._stop(interaction, button)
            case "regenerate" | "continue" | "begin":
                await self._regenerate(interaction, button)
            case "as_file":
                await self._send_file(interaction, button)
            case "vote_a" | "vote_tie" | "vote_b" | "vote_bad":
                await self._vote(interaction, button)
            case "good":
                rated = await self._rate(interaction, button)
                await self._context.tell_outcome(interaction, rated)
            case "bad":
                await self._rate(interaction, button)
                await self._ask_for_reason(interaction, button)

    async def _vote(self, interaction: Interaction, button: ButtonId) -> None:
        verdict, actor = components.VOTES[button.action], actor_of(interaction)
        work = self._context.actions.vote(actor, button.thread, button.job, verdict)
        await self._context.tell_outcome(interaction, await within(work))

    async def _send_file(self, interaction: Interaction, button: ButtonId) -> None:
        """The whole reply as a file, which only the person sees."""
        work = self._context.actions.as_file(actor_of(interaction), button.thread, button.job)
        outcome = await within(work)
        if not outcome.text:
            await self._context.tell_outcome(interaction, outcome)
            return
        await interaction.response.defer(ephemeral=True, thinking=True)
        app, token = str(interaction.application_id), interaction.token
        said = outcome.sentence(self._context.locale_of(interaction))
        await self._context.api.follow_up(app, token, said, private=True, file=outcome.text)

    async def _stop(self, interaction: Interaction, button: ButtonId) -> None:
        actor = actor_of(interaction)
        outcome = await within(self._context.actions.stop(actor, button.thread, button.job))
        if outcome.done:
            await interaction.response.defer()
        else:
            await self._context.tell_outcome(interaction, outcome)

    async def _regenerate(self, interaction: Interaction, button: ButtonId) -> None:
        """Pressing twice asks twice; Discord's redelivery of one press does not."""
        tokens = self._context.platform.tokens
        with tokens.acknowledging(interaction.token) as acknowledgement:
            work = self._context.actions.regenerate(
                actor_of(interaction),
                button.thread,
                button.job,
                str(interaction.id),
                resumes=button.action == "continue",
                truncates=button.action == "begin",
                note=self._address(interaction).pack(),
            )
            outcome = await within(work)
            if outcome.done:
                await interaction.response.defer()
                acknowledgement.given = True
            else:
                await self._context.tell_outcome(interaction, outcome)

    def _address(self, interaction: Interaction) -> ReplyAddress:
        """A public message is edited as such; only this press's token reaches a private one."""
        locale, message = self._context.locale_of(interaction), interaction.message
        private = bool(message and message.flags.ephemeral)
        if not private and not convert.needs_token(interaction):
            return ReplyAddress(channel=str(interaction.channel_id or ""), locale=locale)
        address = convert.token_address(interaction, locale, private=private)
        return replace(address, original=str(message.id) if message else "")

    async def _ask_for_reason(self, interaction: Interaction, button: ButtonId) -> None:
        modal = components.reason_modal(button, self._context.locale_of(interaction))
        await self._context.api.answer(str(interaction.id), interaction.token, MODAL, modal)

    async def _rate(self, interaction: Interaction, button: ButtonId, reason: str = "") -> Outcome:
        rating: Rating = "good" if button.action == "good" else "bad"
        actor, thread, job = actor_of(interaction), button.thread, button.job
        return await within(self._context.actions.rate(actor, thread, job, rating, reason))
