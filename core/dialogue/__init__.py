"""Turns in, token ids out; token ids in, text that may be shown out. Pure, and without torch."""

from core.dialogue.dialogue import Dialogue, Prompt
from core.dialogue.reply import Reply

__all__ = ["Dialogue", "Prompt", "Reply"]
