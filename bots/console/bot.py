"""`henji chat`: wires one conversation, and starts a core if none serves."""

from __future__ import annotations

import asyncio
import getpass
import locale
import signal
import sys
from collections.abc import Coroutine
from contextlib import AsyncExitStack, aclosing, suppress
from importlib.util import find_spec
from typing import Any

from bots import strings
from bots.actions import Actions
from bots.console.chat import Chat, Interrupt, Lines, PipedLines, TypedLines, interrupts
from bots.console.convert import Conversation
from bots.console.platform import ConsolePlatform
from bots.processes import CoreKeeper, stop_on_signals
from bots.services import Stores, open_relay, open_stores
from core.background import first_of
from core.errors import OperatorError
from core.printable import printable
from core.settings import Settings

OTHER_MODEL = "HENJI_MODEL=rinna-ppo henji chat"


async def run_chat(settings: Settings, text: str | None, thread: str) -> None:
    """Talk in the thread until the person leaves; with `text`, for one reply."""
    conversation = Conversation(_user(), thread, _language(settings))
    screen = Screen()
    async with AsyncExitStack() as stack:
        memory = await stack.enter_async_context(open_stores(settings))
        keeper = _keeper(settings, memory, screen)
        await stack.enter_async_context(aclosing(keeper))
        platform = ConsolePlatform(screen.write if text is None else _nowhere, screen.tell)
        relay = await stack.enter_async_context(
            open_relay(settings, memory, platform, conversation.locale)
        )
        pressed = await stack.enter_async_context(interrupts())
        actions = Actions(relay, memory.history, memory.deliveries, memory.feedback)
        chat = Chat(conversation, relay, actions, platform, memory.history, pressed, keeper.served)
        if text is not None:
            await _until_left(keeper, _once(chat, text, screen))
        else:
            await _greet(settings, memory, conversation, screen)
            await _until_left(keeper, _talk(chat, keeper, screen))


def _keeper(settings: Settings, memory: Stores, screen: Screen) -> CoreKeeper:
    async def serves() -> bool:
        if await memory.queue.cores(settings.job_lane) > 0:
            return True
        await memory.queue.check_writes()  # a core could not say that it serves
        return False

    return CoreKeeper(serves, screen.tell, patience=settings.drain_seconds + 5.0)


async def _until_left(keeper: CoreKeeper, work: Coroutine[Any, Any, None]) -> None:
    """Do `work` while the lane is kept served. A signal, or a core that cannot start, ends it."""
    leave = stop_on_signals((signal.SIGTERM, signal.SIGHUP))
    keeping = asyncio.ensure_future(keeper.keep())
    working = asyncio.ensure_future(work)
    await first_of(working, keeping, leave.wait())
    await asyncio.wait({working, keeping})
    for task in (working, keeping):
        if not task.cancelled():
            task.result()


async def _once(chat: Chat, text: str, screen: Screen) -> None:
    screen.write(f"{await chat.once(text)}\n")


async def _talk(chat: Chat, keeper: CoreKeeper, screen: Screen) -> None:
    with suppress(Interrupt):
        await chat.uninterrupted(keeper.served())
        await chat.talk(_lines(), screen.write)


def _lines() -> Lines:
    if sys.stdin.isatty() and sys.stdout.isatty() and find_spec("prompt_toolkit"):
        return TypedLines("> ")
    return PipedLines()


async def _greet(
    settings: Settings, memory: Stores, conversation: Conversation, screen: Screen
) -> None:
    if settings.engine == "torch" and settings.model == "smollm2":
        screen.tell(strings.say("console_small_model", conversation.locale, model=settings.model))
        screen.tell(f"  {OTHER_MODEL}")
    screen.tell(strings.say("console_commands", conversation.locale))
    if turns := len(await memory.history.turns(conversation.key)):
        screen.tell(strings.say("console_remembered", conversation.locale, turns=turns))


class Screen:
    """Replies on standard output, notices on standard error."""

    def __init__(self) -> None:
        self._in_line = False

    def write(self, text: str) -> None:
        shown = printable(text, keep="\n\t") if sys.stdout.isatty() else text
        sys.stdout.write(shown)
        sys.stdout.flush()
        if text:
            self._in_line = not text.endswith("\n")

    def tell(self, line: str) -> None:
        if self._in_line and sys.stdout.isatty():  # not inside a line of the reply
            self.write("\n")
        print(printable(line), file=sys.stderr, flush=True)


def _nowhere(text: str) -> None:
    """`--once` prints the whole reply at its end."""


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError) as error:  # a container may run as a user id without a name
        raise OperatorError(f"this user has no name: {error}; set USER to one") from None


def _language(settings: Settings) -> str:
    if settings.locale != "auto":
        return settings.locale
    return strings.language(locale.getlocale()[0] or "en")
