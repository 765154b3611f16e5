"""Henji in Discord."""

from typing import Final

PLATFORM: Final = "discord"
"""The platform of this folder's thread keys and places."""
DIRECT: Final = "dm"
"""The space of direct messages, which belong to no guild."""
