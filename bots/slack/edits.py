"""Edits and deletions: memory follows the channel."""

from __future__ import annotations

from bots.slack import convert
from bots.slack.context import Desk
from bots.slack.convert import Bot, Deleted, Edited, Said
from bots.slack.messages import Messages
from core.types import ThreadKey


class Edits:
    """Carries edits and deletions of messages over into the history."""

    def __init__(self, desk: Desk, messages: Messages) -> None:
        self._desk = desk
        self._messages = messages

    async def edited(self, edited: Edited, bot: Bot) -> None:
        """A person's message has a new text; one that now names the bot is a new question."""
        if edited.newly_mentioned:
            await self._messages.said(edited.said, bot)
        else:
            await self._reworded(edited.said, bot)

    async def deleted(self, deleted: Deleted) -> None:
        """A message is gone: a person's, or the bot's own."""
        await self._desk.relay.deleted(deleted.key, deleted.ts)

    async def catch_up(self, message: convert.Json, key: ThreadKey, bot: Bot) -> None:
        """Apply an edit that may have been missed; a known one changes nothing."""
        said = convert.happening({"event": {**message, "channel": key.channel}}, bot)
        if isinstance(said, Said):
            await self._reworded(said, bot)

    async def _reworded(self, said: Said, bot: Bot) -> None:
        names = await self._desk.people.names(bot.team, convert.people_in(said))
        words = convert.plain(said.text, bot, names)
        await self._desk.relay.edited(said.key, said.ts, words, said.edited, said.user)
