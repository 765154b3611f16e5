"""The shared sentences, where Discord's controls and languages need them."""

from __future__ import annotations

import re

import discord

from bots.discord.components import Labels
from bots.strings import say

_JAPANESE = re.compile(r"[\u3041-\u30ff\u3400-\u9fff]")


def labels(locale: str) -> Labels:
    """The words on the buttons."""
    return Labels(
        stop=say("stop", locale),
        again=say("regenerate", locale),
        more=say("continue", locale),
        reason_title=say("feedback_title", locale),
        reason_label=say("feedback_reason", locale),
        reason_hint=say("feedback_reason_hint", locale),
    )


def locale_for(
    text: str, told: discord.Locale | None, setting: str, guild: discord.Locale | None = None
) -> str:
    """The language to speak to a person: the setting, what Discord tells of them, their writing.

    With a message Discord tells nothing of the person, and a guild's language is rarely set.
    """
    if setting != "auto":
        return setting
    if told is not None:
        return "ja" if told is discord.Locale.japanese else "en"
    return "ja" if guild is discord.Locale.japanese or _JAPANESE.search(text) else "en"
