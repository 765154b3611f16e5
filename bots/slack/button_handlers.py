"""The buttons under replies: Stop, Regenerate, Continue, As a file, feedback, and votes.

A button's value names its reply, so a press works in every process and after a restart.
"""

from __future__ import annotations

from typing import cast

from bots.actions import Outcome
from bots.slack import components
from bots.slack.components import ReplyRef
from bots.slack.context import Context
from bots.slack.convert import Malformed, ModalSubmission, Press
from bots.strings import say
from core.queue_types import Rating

REASON = "henji_reason"


class ButtonHandlers:
    """Handles presses of the buttons under replies."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def on_press(self, press: Press) -> None:
        """Any button under a reply."""
        if press.action == components.FEEDBACK:
            await self._feedback(press)
            return
        ref = ReplyRef.parse(press.value)
        outcome = await self._outcome(press, ref)
        if outcome.text:
            self._context.spawn(self._context.send_file(ref.thread, press.user, outcome))
        elif not outcome.done or press.action in components.VOTES:
            self._context.report(ref.thread, press.user, outcome)

    async def _outcome(self, press: Press, ref: ReplyRef) -> Outcome:
        actions = self._context.actions
        actor = await self._context.actor(ref.thread.space, press.user, press.user_team)
        if press.action == components.STOP:
            return await actions.stop(actor, ref.thread, ref.job)
        if press.action == components.FILE:
            return await actions.as_file(actor, ref.thread, ref.job)
        if verdict := components.VOTES.get(press.action):
            return await actions.vote(actor, ref.thread, ref.job, verdict)
        return await actions.regenerate(
            actor,
            ref.thread,
            ref.job,
            press.at,
            resumes=press.action == components.CONTINUE,
            truncates=press.action == components.BEGIN,
        )

    # -- feedback -------------------------------------------------------------------------------

    async def _feedback(self, press: Press) -> None:
        """Store a thumb, and ask for a reason."""
        rating, ref = _parse_feedback(press.value)
        actor = await self._context.actor(ref.thread.space, press.user, press.user_team)
        outcome = await self._context.actions.rate(actor, ref.thread, ref.job, rating)
        if not outcome.done:
            self._context.report(ref.thread, press.user, outcome)
            return
        locale = await self._context.users.locale(ref.thread.space, press.user)
        view = components.modal(
            REASON,
            say("feedback_title", locale),
            locale,
            components.question(
                "reason",
                say("feedback_reason", locale),
                {"type": "plain_text_input", "multiline": True, "max_length": 2000},
                optional=True,
            ),
            components.context_block(say("feedback_reason_hint", locale)),
            data=press.value,
        )
        self._context.spawn(self._context.open_modal(ref.thread.space, press.trigger, view))

    async def on_reason(self, sent: ModalSubmission) -> None:
        """The reason for a thumb was submitted."""
        rating, ref = _parse_feedback(sent.data)
        actor = await self._context.actor(ref.thread.space, sent.user, sent.user_team)
        reason = sent.values.get("reason", "")
        outcome = await self._context.actions.rate(actor, ref.thread, ref.job, rating, reason)
        self._context.spawn(self._context.tell(ref.thread, sent.user, outcome.key))


def _parse_feedback(value: str) -> tuple[Rating, ReplyRef]:
    """The rating and the reply in a thumb's value; Malformed where it is another value."""
    rating, _, ref = value.partition(" ")
    if rating not in ("good", "bad"):
        raise Malformed("value")
    return cast("Rating", rating), ReplyRef.parse(ref)
