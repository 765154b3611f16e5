"""What Slack's error codes mean: final, temporary or about one place, and one sentence each."""

from __future__ import annotations

from collections.abc import Sequence

from bots.slack.settings import APP

BOT_TOKEN_FAULTS = {
    "not_authed": "is empty",
    "invalid_auth": "is not a token that Slack knows",
    "token_revoked": "was revoked",
    "token_expired": "has expired",
    "account_inactive": "belongs to an app that was taken out of the workspace",
}


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

CANNOT_POST_HERE = frozenset(
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
"""The bot cannot post in this channel or thread."""

CANNOT_DISPLAY = frozenset({"invalid_blocks", "invalid_blocks_format", "msg_blocks_too_long"})
"""Slack cannot render the blocks: the message is sent again as plain text."""


def bot_token_sentence(error: str) -> str:
    """What to do about a bot token that Slack refuses."""
    fault = BOT_TOKEN_FAULTS.get(error, f"is refused by Slack ({error})")
    return f"SLACK_BOT_TOKEN {fault}: {APP}: Install App > Reinstall to Workspace, and copy it anew"


def missing_scopes(scopes: Sequence[str]) -> str:
    """What to do about missing scopes."""
    return (
        f"the app lacks {', '.join(scopes)}: {APP}: OAuth & Permissions > Scopes > Add an "
        "OAuth Scope, then Install App > Reinstall to Workspace"
    )


def sentence(error: str, needed: str = "") -> str:
    """What an error code means, and what to click where that helps."""
    if error in BOT_TOKEN_FAULTS:
        return bot_token_sentence(error)
    if error == "missing_scope" and needed:
        return missing_scopes([needed])
    return f"Slack answers {error}"
