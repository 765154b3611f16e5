"""The buttons under replies: Stop, Regenerate, Continue, and feedback.

All that a press needs is in the button's value: it works in every process, after every restart.
"""

from __future__ import annotations

from typing import cast

import structlog

from bots.slack import components
from bots.slack.components import Handle
from bots.slack.context import Desk
from bots.slack.convert import Malformed, Pressed, Submitted
from bots.strings import say
from core.queue_types import Rating

REASON = "henji_reason"

log = structlog.get_logger()


class Controls:
    """What happens when a button is pressed."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def on_press(self, press: Pressed) -> None:
        """Any button under a reply."""
        if press.action == components.FEEDBACK:
            await self._feedback(press)
            return
        handle = Handle.parse(press.value)
        if not await self._desk.may_govern(handle.thread, press.user, handle.author):
            self._desk.later(self._desk.tell(handle.thread, press.user, "not_yours"))
        elif press.action == components.STOP:
            await self._stop(press, handle)
        else:
            await self._again(press, handle, resumes=press.action == components.CONTINUE)

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
        """Keep a thumb, and ask for a reason."""
        verdict, handle = _opinion(press.value)
        await self._keep(handle, press.user, verdict)
        locale = await self._desk.people.locale(handle.thread.space, press.user)
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
            components.context(say("feedback_reason_hint", locale)),
            data=press.value,
        )
        self._desk.later(self._desk.open_modal(handle.thread.space, press.trigger, view))

    async def on_reason(self, sent: Submitted) -> None:
        """The modal behind a thumb was sent."""
        verdict, handle = _opinion(sent.data)
        if reason := sent.values.get("reason", ""):
            await self._keep(handle, sent.user, verdict, reason)
        self._desk.later(self._desk.tell(handle.thread, sent.user, "feedback_thanks"))

    async def _keep(self, handle: Handle, user: str, verdict: Rating, reason: str = "") -> None:
        await self._desk.feedback.keep(handle.thread, handle.job, user, verdict, reason)
        log.info("feedback", job=handle.job, by=user, verdict=verdict, reasoned=bool(reason))


def _opinion(value: str) -> tuple[Rating, Handle]:
    """What a thumb carries; Malformed where it is none."""
    verdict, _, handle = value.partition(" ")
    if verdict not in ("good", "bad"):
        raise Malformed("value")
    return cast("Rating", verdict), Handle.parse(handle)
