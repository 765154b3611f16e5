"""The Bolt app: the handler of each payload, and the answers to errors.

With `process_before_response`, Bolt acknowledges an event after its listener has returned, so
everything acknowledged is stored. An event whose listener raised is delivered again.
"""

from __future__ import annotations

import asyncio
import logging
import re
import traceback
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import structlog
from slack_bolt.async_app import AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_bolt.context.ack.async_ack import AsyncAck
from slack_bolt.context.async_context import AsyncBoltContext
from slack_bolt.error import BoltUnhandledRequestError
from slack_bolt.request.async_request import AsyncBoltRequest
from slack_bolt.response import BoltResponse
from slack_sdk.web.async_client import AsyncWebClient

from bots.platform import PlatformRefused
from bots.slack import components, convert
from bots.slack.app_home import (
    CONFIRM,
    FORGET_ME,
    OPT_IN,
    OPT_OUT,
    RESET_CHANNEL,
    RESET_SPACE,
    RESET_USER,
    AppHome,
)
from bots.slack.button_handlers import REASON, ButtonHandlers
from bots.slack.commands import ASKED, CHOSEN, CommandHandler
from bots.slack.context import Context
from bots.slack.convert import (
    PLATFORM,
    Malformed,
    MessageDeleted,
    MessageEdited,
    MessagePosted,
    ModalSubmission,
    Press,
    SessionStopped,
    SlashCommand,
)
from bots.slack.edits import EditHandler
from bots.slack.manifest import SHORTCUTS
from bots.slack.messages import MessageHandler
from bots.slack.questions import Questions
from bots.strings import say
from core.errors import StoreUnavailable
from core.ports import Outbox
from core.types import ThreadKey

MESSAGE_EVENTS = ("message", "app_mention", "agent_session_stopped")
PAGES = (OPT_OUT, OPT_IN, RESET_CHANNEL, RESET_USER, RESET_SPACE)
CONTROLS = (
    components.STOP,
    components.REGENERATE,
    components.CONTINUE,
    components.BEGIN,
    components.FILE,
    components.FEEDBACK,
    *components.VOTES,
)

ACKNOWLEDGE_SECONDS = 0.4
"""Slack shows an error to the person after three seconds."""

log = structlog.get_logger()


class Listeners:
    """Passes every payload to its handler."""

    def __init__(self, context: Context, outbox: Outbox) -> None:
        self.questions = Questions(context, outbox)
        self.messages = MessageHandler(context)
        self.edits = EditHandler(context, self.messages)
        self._context = context
        self._app_home = AppHome(context)
        self._buttons = ButtonHandlers(context)
        self._commands = CommandHandler(context, self._app_home, self.questions)

    def register(self, app: AsyncApp) -> None:
        app.event(re.compile(r".*"))(self._event)
        app.command(re.compile(r".*"))(self._command)
        app.shortcut(re.compile("|".join(SHORTCUTS)))(self._shortcut)
        app.action(re.compile(r".*"))(self._action)
        app.view(re.compile(r".*"))(self._view)
        app.error(on_error)

    async def _event(
        self, body: dict[str, Any], context: AsyncBoltContext, request: AsyncBoltRequest
    ) -> None:
        kind = str(body["event"].get("type", ""))
        team = convert.workspace_of(body, context.team_id)
        await self._context.workspaces.note_organization(team, context.enterprise_id or "")
        if kind in MESSAGE_EVENTS:
            retries = request.headers.get("x-slack-retry-num", ["0"])
            with self._context.platform.pending_events.storing():
                await self._message_event(body, team, int(retries[0]))
        elif kind == "app_home_opened":
            await self._app_home.on_opened(body, team)
        elif (at := convert.uninstalled_at(body)) is not None:
            if context.is_enterprise_install:
                team = context.enterprise_id or team
            log.error("the app was taken out of a workspace", team=team)
            await self._context.workspaces.forget(team, at)
        else:
            log.info("an event without a handler", kind=kind)

    async def _message_event(self, body: dict[str, Any], team: str, retry: int) -> None:
        bot = await self._context.workspaces.bot(team)
        match convert.parse_event(body, bot):
            case MessagePosted() as posted:
                await self.messages.on_posted(posted, bot, retry)
            case MessageEdited() as edited:
                await self.edits.on_edited(edited, bot)
            case MessageDeleted() as deleted:
                await self.edits.on_deleted(deleted)
            case SessionStopped() as stopped:
                await self.messages.on_session_stopped(stopped)

    async def _command(self, body: dict[str, Any], ack: AsyncAck) -> None:
        await self._acknowledged(self._run_command(convert.parse_command(body)), ack)

    async def _run_command(self, told: SlashCommand) -> None:
        place = ThreadKey(PLATFORM, told.team, told.channel, "-")
        # a command works only in the workspace that the app is installed in: no look-up is needed
        refusal = await self._context.refusal(place, told.user, told.team)
        if refusal is None:
            await self._commands.on_command(told)
        elif refusal:
            if told.word.lower() in ("help", ""):
                locale = await self._context.users.locale(told.team, told.user)
                refusal = f"{refusal}\n{say('slack_help_refused', locale)}"
            self._context.spawn(self._context.respond(told.team, told.response_url, refusal))

    async def _shortcut(self, body: dict[str, Any], ack: AsyncAck) -> None:
        await self._acknowledged(self._run_shortcut(convert.parse_press(body)), ack)

    async def _run_shortcut(self, press: Press) -> None:
        if not await self._is_refused(press):
            await self._commands.on_shortcut(press)

    async def _action(self, body: dict[str, Any], ack: AsyncAck) -> None:
        await self._acknowledged(self._press(convert.parse_press(body)), ack)

    async def _press(self, press: Press) -> None:
        if press.action in CONTROLS:
            await self._buttons.on_press(press)
        elif press.action in (FORGET_ME, OPT_OUT, OPT_IN):  # open to all
            await self._app_home.on_press(press)
        elif await self._is_refused(press):
            pass
        elif press.action in PAGES:
            await self._app_home.on_press(press)
        elif press.action in (components.SUMMARISE, components.STOP_SUMMARY):
            await self._commands.on_summary(press)
        elif press.action == components.MENU:
            await self._commands.on_menu(press)

    async def _is_refused(self, press: Press) -> bool:
        """Whether the person may not use the bot; a refusal is sent to them."""
        key = ThreadKey(PLATFORM, press.team, press.channel or "-", press.thread or "-")
        refusal = await self._context.refusal(key, press.user, press.user_team)
        if refusal is None:
            return False
        if press.channel and refusal:
            self._context.spawn(self._context.send_privately(key, press.user, refusal))
        elif not press.channel:
            self._context.spawn(self._app_home.publish_refusal(press.team, press.user, refusal))
        return True

    async def _view(self, body: dict[str, Any], context: AsyncBoltContext, ack: AsyncAck) -> None:
        sent = convert.parse_submission(body)
        await self._acknowledged(self._submission(sent, context.team_id or ""), ack)

    async def _submission(self, sent: ModalSubmission, team: str) -> None:
        if sent.callback == REASON:
            await self._buttons.on_reason(sent)
        elif sent.callback == CONFIRM:
            await self._app_home.on_confirmed(team, sent)
        elif sent.callback == ASKED:
            await self._commands.on_asked(sent)
        elif sent.callback == CHOSEN:
            await self._commands.on_chosen(sent)

    async def _acknowledged(self, work: Coroutine[Any, Any, None], ack: AsyncAck) -> None:
        """Acknowledge when the work is done, or after ACKNOWLEDGE_SECONDS.

        An error before that is raised instead of the acknowledgement.
        """
        task = asyncio.ensure_future(work)
        done, _ = await asyncio.wait({task}, timeout=ACKNOWLEDGE_SECONDS)
        if done:
            task.result()
        else:
            self._context.spawn(_rest(task))
        await ack()


async def _rest(task: asyncio.Future[None]) -> None:
    await task


async def on_error(error: Exception, body: dict[str, Any]) -> BoltResponse:
    """Acknowledge, with a line in the log, unless a redelivery may help."""
    kind = _kind(body)
    match error:
        case StoreUnavailable():
            log.warning("not stored; Slack will deliver it again", kind=kind, error=str(error))
            return BoltResponse(status=503)
        case BoltUnhandledRequestError():
            log.info("a payload without a handler", kind=kind)
            return BoltResponse(status=200)
        case Malformed() | AttributeError() | KeyError() | TypeError() | ValueError():
            # without the error's message, which may quote the payload
            log.warning("a malformed payload", kind=kind, at=_where(error))
            return BoltResponse(status=200)
    log.error("a listener failed", kind=kind, exc_info=error)
    return BoltResponse(status=500)


def _where(error: Exception) -> str:
    """The line that failed, to tell our bug from a malformed payload."""
    steps = traceback.extract_tb(error.__traceback__)
    return f"{Path(steps[-1].filename).name}:{steps[-1].lineno}" if steps else ""


def _kind(body: object) -> str:
    """The payload's type, of an event or an interaction."""
    for part in (body.get("event"), body) if isinstance(body, dict) else ():
        if isinstance(part, dict) and isinstance(part.get("type"), str):
            return str(part["type"])
    return ""


def new_app(context: Context, base_client: AsyncWebClient, signing_secret: str | None) -> AsyncApp:
    """A Bolt app that authorizes from the known installations, without a call per event."""

    async def authorize(enterprise_id: str | None, team_id: str | None) -> AuthorizeResult | None:
        team = team_id or enterprise_id or ""
        try:
            await context.workspaces.note_organization(team, enterprise_id or "")
            client = await context.workspaces.client(team)
            bot = await context.workspaces.bot(team)
        except PlatformRefused:
            return None  # not installed, or uninstalled
        return AuthorizeResult(
            enterprise_id=enterprise_id,
            team_id=team,
            bot_token=client.token,
            bot_id=bot.bot_id,
            bot_user_id=bot.user,
        )

    return AsyncApp(
        client=base_client,
        authorize=authorize,  # type: ignore[arg-type]  # Bolt accepts None
        signing_secret=signing_secret,
        logger=_error_logger(),
        process_before_response=True,
        ignoring_self_events_enabled=False,  # others may delete the bot's messages
        raise_error_for_unhandled_request=True,
    )


def _error_logger() -> logging.Logger:
    """A logger without Bolt's DEBUG lines, which quote payloads."""
    logger = logging.getLogger("henji.slack_bolt")
    logger.setLevel(logging.ERROR)
    return logger
