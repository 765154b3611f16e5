"""What Discord's error codes mean for a reply: whether to try again, another way, or not at all."""

from __future__ import annotations

UNKNOWN_CHANNEL = 10003
UNKNOWN_MESSAGE = 10008
UNKNOWN_WEBHOOK = 10015
INVALID_WEBHOOK_TOKEN = 50027
MISSING_PERMISSIONS = 50013
MISSING_ACCESS = 50001
CANNOT_MESSAGE_USER = 50007
CANNOT_READ_REPLIED = 160002
THREAD_EXISTS = 160004
TOO_MANY_EDITS = 30046
ARCHIVED = 50083
WRONG_KIND_OF_CHANNEL = 50024
TOO_MANY_THREADS = (160006, 160007)

HOPELESS = (
    MISSING_ACCESS,
    MISSING_PERMISSIONS,
    CANNOT_MESSAGE_USER,
    UNKNOWN_CHANNEL,
    UNKNOWN_MESSAGE,
)
"""Discord's codes for what no second try will do."""
DEAD_TOKEN = (UNKNOWN_WEBHOOK, INVALID_WEBHOOK_TOKEN)
"""And for a token that was never acknowledged, or has ended: another way may be open."""
NO_THREAD = (MISSING_PERMISSIONS, WRONG_KIND_OF_CHANNEL, *TOO_MANY_THREADS)
"""For a thread that cannot be opened: the reply stays in the channel then."""
REASONS = {
    UNKNOWN_CHANNEL: "the channel is gone",
    UNKNOWN_MESSAGE: "the message is gone",
    MISSING_ACCESS: "the bot may not see the channel",
    MISSING_PERMISSIONS: "the bot may not write there, or may not open threads",
    CANNOT_MESSAGE_USER: "the person takes no direct messages",
}
