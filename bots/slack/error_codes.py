"""What Slack's refusals mean, and what to click in its settings: one sentence each."""

from __future__ import annotations

from collections.abc import Sequence

APP = "at api.slack.com/apps, in your app"

BOT_TOKEN_FAULTS = {
    "not_authed": "is empty",
    "invalid_auth": "is not a token that Slack knows",
    "token_revoked": "was revoked",
    "token_expired": "has expired",
    "account_inactive": "belongs to an app that was taken out of the workspace",
}


def bot_token_sentence(error: str) -> str:
    """What to do about a bot token that Slack does not take."""
    fault = BOT_TOKEN_FAULTS.get(error, f"is refused by Slack ({error})")
    return f"SLACK_BOT_TOKEN {fault}: {APP}: Install App > Reinstall to Workspace, and copy it anew"


def missing_scopes(scopes: Sequence[str]) -> str:
    """What to do where the app may not do what it needs to."""
    return (
        f"the app lacks {', '.join(scopes)}: {APP}: OAuth & Permissions > Scopes > Add an "
        "OAuth Scope, then Install App > Reinstall to Workspace"
    )


def sentence(error: str, needed: str = "") -> str:
    """What a refused call means, with what to click where that would mend it."""
    if error in BOT_TOKEN_FAULTS:
        return bot_token_sentence(error)
    if error == "missing_scope" and needed:
        return missing_scopes([needed])
    return f"Slack answers {error}"
