"""What Discord's error codes mean for a reply: whether to try again, another way, or not at all."""

from __future__ import annotations

from bots.discord import api

HOPELESS = (
    api.MISSING_ACCESS,
    api.MISSING_PERMISSIONS,
    api.CANNOT_MESSAGE_USER,
    api.UNKNOWN_CHANNEL,
    api.UNKNOWN_MESSAGE,
)
"""Discord's codes for what no second try will do."""
DEAD_TOKEN = (api.UNKNOWN_WEBHOOK, api.INVALID_WEBHOOK_TOKEN)
"""And for a token that was never acknowledged, or has ended: another way may be open."""
NO_THREAD = (api.MISSING_PERMISSIONS, api.WRONG_KIND_OF_CHANNEL, *api.TOO_MANY_THREADS)
"""For a thread that cannot be opened: the reply stays in the channel then."""
REASONS = {
    api.UNKNOWN_CHANNEL: "the channel is gone",
    api.UNKNOWN_MESSAGE: "the message is gone",
    api.MISSING_ACCESS: "the bot may not see the channel",
    api.MISSING_PERMISSIONS: "the bot may not write there, or may not open threads",
    api.CANNOT_MESSAGE_USER: "the person takes no direct messages",
}
