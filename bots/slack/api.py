"""Calling Slack within the budget, and telling apart what a retry would mend."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from slack_sdk.errors import SlackApiError

from bots.platform import PlatformRefused
from bots.slack.error_codes import sentence
from bots.slack.rate_limits import Budget
from core.observe import metrics

HOPELESS = frozenset(
    {
        "account_inactive",
        "cant_update_message",
        "channel_not_found",
        "edit_window_closed",
        "invalid_arguments",
        "invalid_auth",
        "invalid_blocks",
        "invalid_blocks_format",
        "is_archived",
        "message_not_found",
        "missing_scope",
        "msg_blocks_too_long",
        "msg_too_long",
        "no_permission",
        "not_authed",
        "not_in_channel",
        "restricted_action",
        "restricted_action_non_threadable_channel",
        "restricted_action_read_only_channel",
        "restricted_action_thread_locked",
        "restricted_action_thread_only_channel",
        "thread_not_found",
        "token_expired",
        "token_revoked",
        "user_not_found",
    }
)

UNWELCOME = frozenset(
    {
        "channel_not_found",
        "no_permission",
        "not_in_channel",
        "restricted_action",
        "restricted_action_non_threadable_channel",
        "restricted_action_read_only_channel",
        "restricted_action_thread_locked",
    }
)
"""The bot may not write in a place: elsewhere it may."""


class Refused(PlatformRefused):
    """Slack will not do it, however often it is asked. `error` is its word for why."""

    def __init__(self, error: str, needed: str = "") -> None:
        super().__init__(sentence(error, needed))
        self.error = error


class NotNow(Exception):
    """An intermediate call that the budget or Slack had no room for."""


def error_of(error: SlackApiError) -> str:
    """Slack's word for what went wrong."""
    if error.response.status_code == 429:
        return "ratelimited"
    return str(error.response.get("error", "")) if isinstance(error.response.data, dict) else ""


class Caller:
    """Makes calls of one workspace's API, each counted against its method."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget

    async def must(
        self, method: str, team: str, channel: str, call: Callable[[], Awaitable[Any]]
    ) -> Any:
        """Wait for room, as long as it takes, and call."""
        while True:
            await self.budget.take(method, team, channel)
            try:
                return await self._judged(call)
            except SlackApiError as error:
                self._put_off(error, method, team, channel)

    async def may(
        self, method: str, team: str, channel: str, call: Callable[[], Awaitable[Any]]
    ) -> Any:
        """Call if there is room now; NotNow if not."""
        if not self.budget.try_take(method, team, channel):
            raise NotNow(method)
        try:
            return await self._judged(call)
        except SlackApiError as error:
            self._put_off(error, method, team, channel)
            raise NotNow(method) from None

    async def _judged(self, call: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await call()
        except SlackApiError as error:
            if (name := error_of(error)) in HOPELESS:
                raise Refused(name, str(error.response.get("needed") or "")) from error
            raise

    def _put_off(self, error: SlackApiError, method: str, team: str, channel: str) -> None:
        """Note a 429; anything else is the caller's to see."""
        if error_of(error) != "ratelimited":
            raise error
        metrics.RATE_LIMITED.labels("slack", method).inc()
        seconds = float(error.response.headers.get("Retry-After", 1))
        self.budget.refused(method, team, channel, seconds)
