"""The buttons under replies: Stop, Regenerate, Continue, and feedback.

All that a press needs is in the button's value: it works in every process, after every restart.
"""

from __future__ import annotations

import structlog

from bots.slack import blocks
from bots.slack.blocks import Handle
from bots.slack.desk import Desk
from bots.slack.interactions import Pressed, Submitted
from bots.strings import say

REASON = "henji_reason"

log = structlog.get_logger()


class Controls:
    """What happens when a button is pressed."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def on_press(self, press: Pressed) -> None:
        """Any button under a reply."""
        if press.action == blocks.FEEDBACK:
            await self._feedback(press)
            return
        handle = Handle.parse(press.value)
        if not await self._desk.may_govern(handle.thread, press.user, handle.author):
            self._desk.later(self._desk.tell(handle.thread, press.user, "not_yours"))
        elif press.action == blocks.STOP:
            await self._stop(press, handle)
        else:
            await self._again(press, handle, resumes=press.action == blocks.CONTINUE)

    async def _stop(self, press: Pressed, handle: Handle) -> None:
        if not await self._desk.relay.stop(handle.thread, handle.job):
            self._desk.later(self._desk.tell(handle.thread, press.user, "too_late"))

    async def _again(self, press: Pressed, handle: Handle, *, resumes: bool) -> None:
        revision = "continue" if resumes else "again"
        receipt = await self._desk.relay.regenerate(
            handle.thread, handle.job, revision, press.user, resumes=resumes
        )
        if receipt.outcome == "refused":
            locale = await self._desk.people.locale(handle.thread.space, press.user)
            sentence = self._desk.relay.refusal(receipt, locale)
            self._desk.later(self._desk.whisper(handle.thread, press.user, sentence))

    # -- feedback -------------------------------------------------------------------------------

    async def _feedback(self, press: Pressed) -> None:
        verdict, _, value = press.value.partition(" ")
        handle = Handle.parse(value)
        self._keep(handle, press.user, verdict)
        if not self._desk.terms.reasons:
            self._desk.later(self._desk.tell(handle.thread, press.user, "feedback_thanks"))
            return
        locale = await self._desk.people.locale(handle.thread.space, press.user)
        view = blocks.modal(
            REASON,
            say("feedback_title", locale),
            locale,
            blocks.question(
                "reason",
                say("feedback_reason", locale),
                {"type": "plain_text_input", "multiline": True, "max_length": 2000},
                optional=True,
            ),
            blocks.context(say("feedback_reason_hint", locale)),
            data=press.value,
        )
        self._desk.later(self._desk.open_modal(press.team, press.trigger, view))

    async def on_reason(self, sent: Submitted) -> None:
        """The modal behind a thumb was sent."""
        verdict, _, value = sent.data.partition(" ")
        handle = Handle.parse(value)
        self._keep(handle, sent.user, verdict, sent.values.get("reason", ""))
        self._desk.later(self._desk.tell(handle.thread, sent.user, "feedback_thanks"))

    def _keep(self, handle: Handle, user: str, verdict: str, reason: str = "") -> None:
        """Write it down for whoever runs the bot; a reason only where logs may hold words."""
        model = self._desk.terms.model
        words = {"reason": reason} if reason else {}
        log.info("feedback", job=handle.job, by=user, verdict=verdict, model=model, **words)
