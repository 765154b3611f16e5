"""One person's conversation in the terminal: messages, commands, and Ctrl-C."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar
from uuid import uuid4

from bots import strings
from bots.actions import Actions, Actor, Scope, can_continue, can_truncate
from bots.console import convert
from bots.console.convert import Conversation
from bots.console.platform import ConsolePlatform
from bots.console.terminal import Interrupt, Lines
from bots.guide import Guide
from bots.platform import Part
from bots.relay import Relay
from core.background import first_of
from core.errors import OperatorError, StoreUnavailable
from core.observe.logs import printable_block
from core.ports import History
from core.types import Done, Job, Turn

T = TypeVar("T")


@dataclass
class Chat:
    """One person's conversation with the bot."""

    conversation: Conversation
    relay: Relay
    actions: Actions
    guide: Guide
    platform: ConsolePlatform
    history: History
    interrupts: asyncio.Queue[None]
    served: Callable[[], Awaitable[None]]
    """Returns when a core serves the lane."""
    _cut: tuple[str, str] | None = None
    """The newest reply, and its text, if it can be continued."""
    _refusal: str = ""
    """The newest reply, if it refused a message that is too long."""
    _stopped: bool = False
    """Ctrl-C stopped the newest reply: another leaves."""

    @property
    def _me(self) -> Actor:
        return Actor(self.conversation.user)

    async def ask(self, line: str, *, bulk: bool = False) -> Part:
        """Send a message and return the last part of its reply, when all of it is written.

        Ctrl-C stops the reply. A second one, or one before the message is sent, is Interrupt.
        """
        await self.uninterrupted(self.served())
        message = convert.incoming(line, self.conversation, uuid4().hex, time.time(), bulk=bulk)
        end = self.platform.expect(message.job)
        await self.relay.submit(message)
        return await self._end_of(message.job, end)

    async def go_on(self, reply: str, text: str = "", *, truncates: bool = False) -> Part | None:
        """Continue a reply that was cut at its length, or with `truncates` answer the beginning of
        the message that it refused. None if that is impossible."""
        await self.uninterrupted(self.served())
        revision = uuid4().hex
        job = Job.id_for(self.conversation.key, reply, revision)
        end = self.platform.expect(job, shown=text)
        outcome = await self.actions.regenerate(
            self._me,
            self.conversation.key,
            reply,
            revision,
            resumes=not truncates,
            truncates=truncates,
        )
        return await self._end_of(job, end) if outcome.done else None

    async def _end_of(self, job: str, end: asyncio.Future[Part]) -> Part:
        try:
            part = await self.uninterrupted(asyncio.shield(end))
        except Interrupt:
            self._stopped = True
            await self.actions.stop(self._me, self.conversation.key, job)
            part = await self.uninterrupted(end)
        cut = isinstance(part.end, Done) and can_continue(part.end)
        self._cut = (job, part.end.text) if cut and isinstance(part.end, Done) else None
        self._refusal = job if can_truncate(part.end) else ""
        return part

    async def once(self, text: str) -> str:
        """One whole reply, for a script; OperatorError, with the sentence, if there is none."""
        try:
            part = await self.ask(text, bulk=True)
        except Interrupt:
            raise OperatorError(self._say("stopped")) from None
        if not isinstance(part.end, Done):
            raise OperatorError(part.text)
        if part.end.finish_reason == "cancelled":
            raise OperatorError(self._say("stopped"))
        if part.end.in_thought:
            raise OperatorError(part.text)
        return part.text

    async def uninterrupted(self, work: Awaitable[T]) -> T:
        """The result of `work`; Interrupt if Ctrl-C comes first."""
        working = asyncio.ensure_future(work)
        if await first_of(working, self.interrupts.get()) is not working:
            raise Interrupt
        return working.result()

    async def talk(self, lines: Lines, write: Callable[[str], None]) -> None:
        """Read and answer lines until their end, or until Ctrl-C twice in a row.

        A Ctrl-C that stopped a reply counts as the first; one that cleared a line does not.
        Interrupt if the second came before the reply had ended.
        """
        leaving = False
        while True:
            try:
                line = (await self.uninterrupted(lines.next())).strip()
            except EOFError:
                return
            except Interrupt as interrupt:
                if leaving and not interrupt.typed:
                    return
                leaving = True
                write(self._say("console_leave") + "\n")
                continue
            self._stopped = False
            if line:
                write(await self._answer(line) + "\n")
            leaving = self._stopped

    async def _answer(self, line: str) -> str:
        """Do what a line says. Returns the text that is still to be written."""
        try:
            if command := convert.command(line):
                return await self._run_command(command)
            return self._below(await self.ask(line))
        except StoreUnavailable:
            return self._say("store_down")

    async def _run_command(self, command: convert.Command) -> str:
        key, locale = self.conversation.key, self.conversation.locale
        match command:
            case "continue":
                part = await self.go_on(*self._cut) if self._cut else None
                return self._below(part) if part else self._say("console_nothing_cut")
            case "beginning":
                refusal = self._refusal
                part = await self.go_on(refusal, truncates=True) if refusal else None
                return self._below(part) if part else self._say("console_nothing_refused")
            case "reset":
                outcome = await self.actions.reset(self._me, Scope.of_thread(key))
                return outcome.sentence(locale)
            case "history":
                turns = await self.history.turns(key)
                said = [self._line_of(stored.turn) for stored in turns]
                return "\n".join(said) or self._say("console_no_history")
            case "usage":
                return await self.guide.usage(self._me, key, locale)
            case "help":
                lines = await self.guide.help(self._me, key, locale, has_files=False)
                model = await self.guide.model(key)
                return "\n".join((self._say("console_help", model=model), *lines))

    def _line_of(self, turn: Turn) -> str:
        name = self._say("console_you") if turn.role == "user" else turn.author
        return printable_block(f"{name}: {turn.text}")

    def _below(self, part: Part) -> str:
        """The text below a finished reply."""
        note = self._say("console_begin") if can_truncate(part.end) else part.note
        return f"\n{note}\n" if note else "\n"

    def _say(self, key: str, **details: str) -> str:
        return strings.say(key, self.conversation.locale, **details)
