"""Edits and deletions: memory follows the channel."""

from __future__ import annotations

from bots.slack import convert
from bots.slack.context import Context
from bots.slack.convert import Bot, MessageDeleted, MessageEdited, MessagePosted
from bots.slack.messages import MessageHandler
from core.access_policy import Asker


class EditHandler:
    """Applies edits and deletions to the stored messages."""

    def __init__(self, context: Context, messages: MessageHandler) -> None:
        self._context = context
        self._messages = messages

    async def on_edited(self, edited: MessageEdited, bot: Bot) -> None:
        """A person's message has a new text, or other files. If it now mentions the bot, it is a
        new question."""
        if edited.newly_mentioned:
            await self._messages.handle(edited.posted, bot)
        else:
            await self.apply(edited.posted, bot, was_mentioned=edited.was_mentioned)

    async def on_deleted(self, deleted: MessageDeleted) -> None:
        """A message is gone: a person's, or the bot's own."""
        await self._context.relay.deleted(deleted.key, deleted.ts)

    async def apply(self, posted: MessagePosted, bot: Bot, *, was_mentioned: bool = False) -> None:
        """Store an edited message; an edit that is stored already changes nothing."""
        names = await self._context.users.names(bot.team, convert.user_ids_in(posted))
        command = convert.text_command(posted, bot)  # no longer a question, and not run either
        words = "" if command else convert.whole_text(posted, bot, names)
        stranger = await self._context.users.is_stranger(bot, posted.user, posted.user_team)
        asker = Asker(posted.key, posted.user, stranger=stranger)
        files = () if command else convert.pointed_at(posted)
        addressed = posted.direct or posted.mentioned or was_mentioned
        await self._context.relay.edited(
            asker, posted.ts, words, posted.edited, files, addressed=addressed
        )
