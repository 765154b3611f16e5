"""`henji chat`: one conversation in the terminal. It starts a core if none serves the lane."""

from __future__ import annotations

import asyncio
import getpass
import locale
import signal
from collections.abc import Coroutine
from contextlib import AsyncExitStack, aclosing, suppress
from typing import Any

from bots import strings
from bots.actions import Actions
from bots.console.convert import Conversation
from bots.console.messages import Chat
from bots.console.platform import ConsolePlatform
from bots.console.terminal import (
    Interrupt,
    MarkdownScreen,
    Screen,
    interrupts,
    new_screen,
    open_lines,
    without_echo,
)
from bots.guide import Guide
from bots.processes import LocalCore, stop_on_signals
from bots.services import Stores, open_relay, open_stores
from core.background import cancel, first_of
from core.errors import OperatorError
from core.settings import Settings

OTHER_MODEL = "HENJI_MODEL=rinna-ppo henji chat"


async def run_chat(
    settings: Settings, text: str | None, thread: str, *, plain: bool = False
) -> None:
    """Talk in the thread until the person leaves; with `text`, for one reply.

    `plain`: show replies as the model wrote them, not as Markdown.
    """
    conversation = Conversation(_user(), thread, _language(settings))
    screen = new_screen(plain=plain)
    async with AsyncExitStack() as stack:
        stores = await stack.enter_async_context(open_stores(settings))
        local_core = _local_core(settings, stores, screen)
        await stack.enter_async_context(aclosing(local_core))
        shown = screen.write_reply if text is None else _discard
        platform = ConsolePlatform(shown, screen.tell, screen.end_reply, screen.hint)
        relay = await stack.enter_async_context(
            open_relay(settings, stores, platform, conversation.locale)
        )
        pressed = await stack.enter_async_context(interrupts())
        actions = Actions(relay, stores)
        guide = Guide(relay, actions, settings.retention_days)
        served = local_core.served
        chat = Chat(conversation, relay, actions, guide, platform, stores.history, pressed, served)
        if text is not None:
            await _run_until_exit(local_core, _once(chat, text, screen))
        else:
            await _greet(settings, stores, conversation, screen)
            await _run_until_exit(local_core, _talk(chat, local_core, screen))


def _local_core(settings: Settings, stores: Stores, screen: Screen) -> LocalCore:
    async def serves() -> bool:
        if await stores.queue.cores(settings.job_lane) > 0:
            return True
        await stores.queue.check_writes()  # a core could not say that it serves
        return False

    return LocalCore(
        serves,
        screen.tell,
        stop_timeout=settings.drain_seconds + 5.0,
        progress=screen.set_progress,
    )


async def _run_until_exit(local_core: LocalCore, work: Coroutine[Any, Any, None]) -> None:
    """Do `work` while the lane is kept served. A signal, or a core that cannot start, ends it."""
    leave = stop_on_signals((signal.SIGTERM, signal.SIGHUP))
    serving = asyncio.ensure_future(local_core.keep())
    working = asyncio.ensure_future(work)
    await first_of(working, serving, leave.wait())
    await asyncio.wait({working, serving})
    for task in (working, serving):
        if not task.cancelled():
            task.result()


async def _once(chat: Chat, text: str, screen: Screen) -> None:
    reply = await chat.once(text)
    screen.write_reply(reply)
    screen.end_reply()
    if not isinstance(screen, MarkdownScreen):
        screen.write("\n")


async def _talk(chat: Chat, local_core: LocalCore, screen: Screen) -> None:
    with suppress(Interrupt), without_echo():
        showing = asyncio.ensure_future(screen.show_progress())
        try:
            await chat.uninterrupted(local_core.served())
        finally:
            await cancel(showing)
        await chat.talk(open_lines(), screen.write)


async def _greet(
    settings: Settings, stores: Stores, conversation: Conversation, screen: Screen
) -> None:
    if settings.engine == "torch" and settings.model == "smollm2":
        screen.tell(strings.say("console_small_model", conversation.locale, model=settings.model))
        screen.tell(f"  {OTHER_MODEL}")
    screen.tell(strings.say("console_commands", conversation.locale))
    if turns := len(await stores.history.turns(conversation.key)):
        screen.tell(strings.say("console_remembered", conversation.locale, turns=turns))


def _discard(text: str) -> None:
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
