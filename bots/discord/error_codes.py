"""What Discord's error codes mean for a reply: try again, try another way, or give up.

Source: discord/discord-api-docs, topics/opcodes-and-status-codes (JSON error codes), 2026-11.
"""

from __future__ import annotations

import discord

UNKNOWN_CHANNEL = 10003
UNKNOWN_MESSAGE = 10008
UNKNOWN_WEBHOOK = 10015
UNKNOWN_INTERACTION = 10062
TOO_MANY_EDITS = 30046
"""Of a message older than an hour."""
TOO_MANY_FOLLOW_UPS = 40094
"""Of an interaction with an app that is installed for the person alone."""
MISSING_ACCESS = 50001
CANNOT_MESSAGE_USER = 50007
MISSING_PERMISSIONS = 50013
INVALID_WEBHOOK_TOKEN = 50027
ARCHIVED = 50083
CANNOT_READ_REPLIED = 160002
THREAD_EXISTS = 160004
LOCKED = 160005
AUTOMOD = 200000
HARMFUL_LINK = 240000

PASSING = frozenset(
    (20016, 20022, 20028, 20029, 40003, 40004, 40006, 40062, 110000, 110001, 130000)
)
"""Codes of 4xx answers that a retry can pass: slow mode, limits, overload, what is switched off for
a while.
"""
_PASSING_STATUS = (408, 425, 429)

INVALID_TOKEN = (UNKNOWN_WEBHOOK, UNKNOWN_INTERACTION, INVALID_WEBHOOK_TOKEN)
"""The interaction's token was never acknowledged, or has ended: another way may be open."""
BLOCKED_TITLE = (20031, AUTOMOD, 200001)
"""The words of a thread's name are not allowed."""
NOWHERE = (UNKNOWN_CHANNEL, UNKNOWN_MESSAGE, MISSING_ACCESS)
"""A thread cannot be opened there, nor anything written: else the reply stays in the channel."""
CLOSED_CHANNEL = (
    UNKNOWN_CHANNEL,
    MISSING_ACCESS,
    CANNOT_MESSAGE_USER,
    MISSING_PERMISSIONS,
    ARCHIVED,
    LOCKED,
)
"""Nothing else can be written there either."""
REASONS = {
    UNKNOWN_CHANNEL: "the channel is gone",
    UNKNOWN_MESSAGE: "the message is gone",
    TOO_MANY_FOLLOW_UPS: "the interaction has no follow-ups left",
    MISSING_ACCESS: "the bot may not see the channel",
    CANNOT_MESSAGE_USER: "the person accepts no direct messages",
    MISSING_PERMISSIONS: "the bot may not write there, or may not open threads",
    ARCHIVED: "the thread is archived",
    LOCKED: "the thread is locked",
    AUTOMOD: "an AutoMod rule of the server blocks it",
    HARMFUL_LINK: "Discord takes a link in it for harmful",
}
"""For the operator."""


def is_final(error: discord.HTTPException) -> bool:
    """Whether a retry cannot succeed: a 4xx that is no limit and does not pass."""
    if not 400 <= error.status < 500 or error.status in _PASSING_STATUS:
        return False
    # without a code of Discord's, a 401 is the bot's token, and a 403 a proxy in between
    return error.code not in PASSING and (error.code != 0 or error.status not in (401, 403))


def reason_for(code: int) -> str:
    """Why Discord refused a reply, for the operator."""
    reason = REASONS.get(code)
    return f"Discord answers {code}: {reason}" if reason else f"Discord answers {code}"


def sentence_for(code: int) -> str:
    """The key of the sentence that tells a person so. It names the channel."""
    if code in (LOCKED, ARCHIVED):
        return "thread_locked"
    if code in CLOSED_CHANNEL:
        return "cannot_post_here"
    return "reply_blocked" if code in (AUTOMOD, HARMFUL_LINK) else "reply_not_accepted"
