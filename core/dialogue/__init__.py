"""Turns to a prompt's token ids, and a reply's token ids to text. Pure, and without torch."""

from core.dialogue.dialogue import Dialogue, Prompt
from core.dialogue.reply import Reply

__all__ = ["Dialogue", "Prompt", "Reply"]
