"""The buttons under replies: Stop, Regenerate, Continue, and feedback.

All that a press needs is in the button's value: it works in every process, after every restart.
"""

from __future__ import annotations

from typing import cast

import structlog

from bots.slack import components
from bots.slack.components import ReplyRef
from bots.slack.context import Context
from bots.slack.convert import Malformed, ModalSubmission, Press
from bots.strings import say
from core.queue_types import Rating, Regeneration

REASON = "henji_reason"

log = structlog.get_logger()


class ButtonHandlers:
    """What happens when a button is pressed."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def on_press(self, press: Press) -> None:
        """Any button under a reply."""
        if press.action == components.FEEDBACK:
            await self._feedback(press)
            return
        ref = ReplyRef.parse(press.value)
        if not await self._context.may_govern(ref.thread, press.user, ref.author):
            self._context.spawn(self._context.tell(ref.thread, press.user, "not_yours"))
        elif press.action == components.STOP:
            await self._stop(press, ref)
        else:
            await self._regenerate(press, ref, resumes=press.action == components.CONTINUE)

    async def _stop(self, press: Press, ref: ReplyRef) -> None:
        if not await self._context.relay.stop(ref.thread, ref.job):
            self._context.spawn(self._context.tell(ref.thread, press.user, "too_late"))

    async def _regenerate(self, press: Press, ref: ReplyRef, *, resumes: bool) -> None:
        revision = "continue" if resumes else "again"
        wanted = Regeneration(ref.thread, ref.job, revision, press.user, resumes=resumes)
        receipt = await self._context.relay.regenerate(wanted)
        if receipt.outcome == "refused":
            locale = await self._context.users.locale(ref.thread.space, press.user)
            sentence = self._context.relay.refusal(receipt, locale)
            self._context.spawn(self._context.send_privately(ref.thread, press.user, sentence))

    # -- feedback -------------------------------------------------------------------------------

    async def _feedback(self, press: Press) -> None:
        """Keep a thumb, and ask for a reason."""
        verdict, ref = _parse_feedback(press.value)
        await self._keep(ref, press.user, verdict)
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
        """The modal behind a thumb was sent."""
        verdict, ref = _parse_feedback(sent.data)
        if reason := sent.values.get("reason", ""):
            await self._keep(ref, sent.user, verdict, reason)
        self._context.spawn(self._context.tell(ref.thread, sent.user, "feedback_thanks"))

    async def _keep(self, ref: ReplyRef, user: str, verdict: Rating, reason: str = "") -> None:
        await self._context.feedback.keep(ref.thread, ref.job, user, verdict, reason)
        log.info("feedback", job=ref.job, by=user, verdict=verdict, reasoned=bool(reason))


def _parse_feedback(value: str) -> tuple[Rating, ReplyRef]:
    """What a thumb carries; Malformed where it is none."""
    verdict, _, ref = value.partition(" ")
    if verdict not in ("good", "bad"):
        raise Malformed("value")
    return cast("Rating", verdict), ReplyRef.parse(ref)
