"""What Discord's error codes mean for a reply: try again, try another way, or give up.

Source: discord/discord-api-docs, topics/opcodes-and-status-codes (JSON error codes), 2026-11.
"""

from __future__ import annotations

UNKNOWN_CHANNEL = 10003
UNKNOWN_MESSAGE = 10008
UNKNOWN_WEBHOOK = 10015
TOO_MANY_EDITS = 30046
"""Of a message older than an hour."""
MISSING_ACCESS = 50001
CANNOT_MESSAGE_USER = 50007
MISSING_PERMISSIONS = 50013
WRONG_CHANNEL_TYPE = 50024
INVALID_WEBHOOK_TOKEN = 50027
ARCHIVED = 50083
CANNOT_READ_REPLIED = 160002
THREAD_EXISTS = 160004
TOO_MANY_THREADS = (160006, 160007)

FINAL = (
    MISSING_ACCESS,
    MISSING_PERMISSIONS,
    CANNOT_MESSAGE_USER,
    UNKNOWN_CHANNEL,
    UNKNOWN_MESSAGE,
)
"""A retry cannot succeed."""
INVALID_TOKEN = (UNKNOWN_WEBHOOK, INVALID_WEBHOOK_TOKEN)
"""The interaction's token was never acknowledged, or has ended: another way may be open."""
NO_THREAD = (MISSING_PERMISSIONS, WRONG_CHANNEL_TYPE, *TOO_MANY_THREADS)
"""The thread cannot be opened: the reply stays in the channel."""
REASONS = {
    UNKNOWN_CHANNEL: "the channel is gone",
    UNKNOWN_MESSAGE: "the message is gone",
    MISSING_ACCESS: "the bot may not see the channel",
    MISSING_PERMISSIONS: "the bot may not write there, or may not open threads",
    CANNOT_MESSAGE_USER: "the person accepts no direct messages",
}
