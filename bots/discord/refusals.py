"""What Discord's error codes mean for a reply: whether to try again, another way, or not at all."""

from __future__ import annotations

from bots.discord import rest

HOPELESS = (
    rest.MISSING_ACCESS,
    rest.MISSING_PERMISSIONS,
    rest.CANNOT_MESSAGE_USER,
    rest.UNKNOWN_CHANNEL,
    rest.UNKNOWN_MESSAGE,
)
"""Discord's codes for what no second try will do."""
DEAD_TOKEN = (rest.UNKNOWN_WEBHOOK, rest.INVALID_WEBHOOK_TOKEN)
"""And for a token that was never acknowledged, or has ended: another way may be open."""
NO_THREAD = (rest.MISSING_PERMISSIONS, rest.WRONG_KIND_OF_CHANNEL, *rest.TOO_MANY_THREADS)
"""For a thread that cannot be opened: the reply stays in the channel then."""
REASONS = {
    rest.UNKNOWN_CHANNEL: "the channel is gone",
    rest.UNKNOWN_MESSAGE: "the message is gone",
    rest.MISSING_ACCESS: "the bot may not see the channel",
    rest.MISSING_PERMISSIONS: "the bot may not write there, or may not open threads",
    rest.CANNOT_MESSAGE_USER: "the person takes no direct messages",
}
