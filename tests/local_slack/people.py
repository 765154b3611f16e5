"""What people do in the local Slack: write, edit, press buttons, open pages."""

from __future__ import annotations

import time
from typing import Any, Self
from urllib.parse import quote

from aiohttp import web

from bots.slack.manifest import EVENTS
from tests.local_slack.delivery import Delivery, Envelope
from tests.local_slack.limits import DISTRIBUTED_PAGE, Limits
from tests.local_slack.methods import Methods
from tests.local_slack.server import Call, Refusal, WebApi, application
from tests.local_slack.workspace import (
    Installation,
    Json,
    Message,
    Person,
    Workspace,
    channel_type,
)


class LocalSlack:
    """The local Slack: start it, let people act, and read its channels."""

    bot_user = "U0HENJI"
    bot_token = "xoxb-local"
    app_token = "xapp-local"
    signing_secret = "local signing secret"
    client = ("1.2", "client secret")

    def __init__(self, minute: float = 60.0) -> None:
        self.workspace = Workspace()
        self.delivery = Delivery(self.workspace, self.signing_secret)
        self.limits = Limits(minute)
        self.methods = Methods(self.workspace, self._own_event)
        self.api = WebApi(
            self.workspace, self.methods, self.limits, self.delivery, self.app_token, self.client
        )
        self.install(self.workspace.team, self.bot_token)
        self.url = ""
        self.named_team = ""
        """The workspace that events name in the place of the app's own, as in shared channels."""
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        self._runner = web.AppRunner(application(self.api), shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = self.workspace.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.delivery.close()
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def api_url(self) -> str:
        return f"{self.url}/api/"

    def install(self, team: str, token: str, **details: Any) -> Installation:
        """The app in a workspace."""
        bot_id = "B" + self.bot_user[1:]
        app = Installation(team, token, self.bot_user, bot_id, **details)
        self.workspace.installations[token] = app
        return app

    def install_org_wide(self, organization: str) -> None:
        """Install the app in a whole organization, instead of in the one workspace."""
        self.workspace.enterprise, self.workspace.is_org_wide = organization, True
        self.install("", self.bot_token, org=organization)

    def person(self, user: str, name: str, **details: Any) -> Person:
        person = Person(user, name, details.pop("team", self.workspace.team), **details)
        self.workspace.people[user] = person
        return person

    # -- the acts of people --------------------------------------------------------------------

    async def say(
        self, channel: str, user: str, text: str, thread: str | None = None, **more: Any
    ) -> str:
        """A person writes; the message's ts. A mention comes as two events, as Slack has it."""
        bot_id = more.pop("bot_id", None)
        message = Message(
            channel, self.workspace.next_ts(), user, text, thread, bot_id=bot_id, **more
        )
        self.workspace.messages[channel, message.ts] = message
        event = self._event(message)
        if f"<@{self.bot_user}>" in text and event["channel_type"] != "im":
            self._emit(event | {"type": "app_mention"})
        self._emit(event)
        await self.workspace.changed()
        return message.ts

    def upload(
        self, name: str, content: bytes, type_: str = "text/plain", mode: str = "hosted"
    ) -> Json:
        """A file as a message carries it; it is read with the app's token alone."""
        ident = self.workspace.serial("F")
        self.workspace.files[ident] = content
        place = f"{self.url}/files-pri/{self.workspace.team}-{ident}"
        return {
            "id": ident, "name": name, "title": name, "mimetype": type_, "size": len(content),
            "mode": mode, "filetype": name.rpartition(".")[2], "is_external": False,
            "url_private": f"{place}/{quote(name)}",
            "url_private_download": f"{place}/download/{quote(name)}",
        }  # fmt: skip

    async def edit(
        self, channel: str, ts: str, text: str | None = None, files: list[Json] | None = None
    ) -> None:
        """Edit a message's words, or put other files into it: that leaves no stamp."""
        message = self.workspace.messages[channel, ts]
        before = self._event(message)
        if text is not None:
            message.text, message.edited = text, self.workspace.next_ts()
        message.files = message.files if files is None else files
        message.edits += 1
        self._emit(
            self._change(message, "message_changed")
            | {"message": self._event(message), "previous_message": before}
        )

    async def delete(self, channel: str, ts: str) -> None:
        """Delete a message. One with replies leaves a tombstone and sends `message_changed`.

        Observed (matterbridge issue 600, slack-edge pull request 10), not documented.
        """
        message = self.workspace.messages[channel, ts]
        before = self._event(message)
        if len(self.workspace.thread(channel, ts)) > 1:
            message.tombstone = True
            gone = {"message": self._event(message), "previous_message": before}
            self._emit(self._change(message, "message_changed") | gone)
            return
        message.deleted = True
        deleted = {"deleted_ts": ts, "previous_message": before}
        self._emit(self._change(message, "message_deleted") | deleted)

    def press(self, user: str, message: Message, action: str, **more: Any) -> Envelope:
        """A press of a button, or with `value` another one of a pair or of a menu."""
        element = message.buttons()[action]
        if element["type"] == "overflow":
            value = more.pop("value")
            more["selected_option"] = next(o for o in element["options"] if o["value"] == value)
        pressed = {
            "type": element["type"],
            "action_id": action,
            "action_ts": self.workspace.next_ts(),
            "value": element.get("value"),
        } | more
        container = {
            "type": "message",
            "message_ts": message.ts,
            "channel_id": message.channel,
            "is_ephemeral": message.ephemeral_for is not None,
            "thread_ts": message.thread_ts,
        }
        return self._interact(
            "block_actions",
            user,
            actions=[pressed],
            container=container,
            channel={"id": message.channel, "name": "channel"},
            message=message.payload(),
        )

    def press_home(self, user: str, action: str, **more: Any) -> Envelope:
        """A press on one's home page."""
        view = self.workspace.views[user]
        pressed = {"type": "button", "action_id": action, "action_ts": self.workspace.next_ts()}
        return self._interact(
            "block_actions",
            user,
            actions=[pressed | more],
            container={"type": "view", "view_id": "V0HOME"},
            view=view | {"id": "V0HOME"},
        )

    def submit(self, user: str, view: Json, values: Json) -> Envelope:
        """A modal is sent; `values` as Slack nests them: block, action, value."""
        return self._interact("view_submission", user, view=view | {"state": {"values": values}})

    def shortcut(self, user: str, callback: str, message: Message) -> Envelope:
        """A message shortcut: the way to commands inside threads."""
        return self._interact(
            "message_action",
            user,
            callback_id=callback,
            channel={"id": message.channel, "name": "channel"},
            message=message.payload(),
            message_ts=message.ts,
            action_ts=self.workspace.next_ts(),
        )

    def command(self, user: str, channel: str, text: str, command: str = "/henji") -> Envelope:
        enterprise = self.workspace.enterprise
        return self.delivery.send(
            "slash_commands",
            {
                "command": command,
                "text": text,
                "user_id": user,
                "user_name": user.lower(),
                "team_id": self._team_of(user),
                "team_domain": "local",
                "channel_id": channel,
                "channel_name": "channel",
                "api_app_id": "A0HENJI",
                "is_enterprise_install": "true" if self.workspace.is_org_wide else "false",
                **({"enterprise_id": enterprise} if enterprise else {}),
                "trigger_id": self.workspace.serial("trigger-"),
                "response_url": f"{self.url}/response/{self.workspace.serial('r')}",
            },
        )

    def open_home(self, user: str, tab: str = "home") -> None:
        event = {"type": "app_home_opened", "user": user, "channel": f"D{user}", "tab": tab}
        self._emit(event | {"event_ts": self.workspace.next_ts()})

    def stop(self, user: str, channel: str, thread: str) -> None:
        """Slack's own Stop button: it ends the streams of the thread and tells the app."""
        streams = [m for m in self.workspace.thread(channel, thread) if m.streaming == "open"]
        for message in streams:
            message.streaming = "over"
        self._emit(
            {
                "type": "agent_session_stopped",
                "channel": channel,
                "thread_ts": thread,
                "user": user,
                "streaming_message_ts": [m.ts for m in streams],
                "event_ts": self.workspace.next_ts(),
            }
        )

    def expire_streams(self) -> None:
        """What happens to a stream after about five minutes."""
        for message in self.workspace.messages.values():
            message.stream_until = 0.0

    def event(self, event: Json, **changes: Any) -> Envelope:
        """Any event at all, also one that no app knows."""
        return self._emit(event, **changes)

    # -- the view --------------------------------------------------------------------------------

    def replies(self, channel: str, thread: str) -> list[Message]:
        """The bot's messages in a thread."""
        return [m for m in self.workspace.thread(channel, thread) if m.user == self.bot_user]

    def whispers(self, user: str) -> list[Message]:
        """The ephemeral messages that a person got."""
        return [m for m in self.workspace.messages.values() if m.ephemeral_for == user]

    async def until_whispered(self, user: str, part: str) -> None:
        """Wait until a person has got an ephemeral message with this text."""
        await self.until(lambda: any(part in message.text for message in self.whispers(user)))

    def finished(self, channel: str, thread: str, text: str) -> Message | None:
        """The reply of this text with its controls, once it is there."""
        return next(
            (m for m in self.replies(channel, thread) if text == m.shown and m.buttons()), None
        )

    def standing(self) -> list[str]:
        """The statuses that readers see now, and the sessions in ``processing``.

        A message of the app in its thread clears a status, and so do two minutes.
        """
        newest = {(channel, ts): (said, at) for channel, ts, said, at in self.workspace.statuses}
        oldest = time.monotonic() - 2 * self.limits.minute
        statuses = [said for said, at in newest.values() if said and at > oldest]
        return statuses + [s for s in self.workspace.sessions.values() if s == "processing"]

    def refuse(self, method: str, error: str, times: int = 1, channel: str = "") -> None:
        """Refuse the next calls of a method, in one channel or everywhere."""
        self.api.refusals.append(Refusal(method, error, times, channel))

    def distribute(self) -> None:
        """Treat the app as one that is distributed outside the Marketplace."""
        self.limits.distributed, self.methods.page = True, DISTRIBUTED_PAGE

    def called(self, method: str) -> list[Call]:
        return [call for call in self.api.calls if call.method == method]

    async def until(self, true: Any, within: float = 60.0) -> Any:
        return await self.workspace.until(true, within)

    # -- payloads --------------------------------------------------------------------------------

    def _event(self, message: Message) -> Json:
        place = channel_type(message.channel)
        event = message.payload() | {"channel": message.channel, "channel_type": place}
        person = self.workspace.people.get(message.user)
        team = person.team if person else self.workspace.team
        is_global = person is not None and not person.only_global and person.enterprise
        home = is_global or team
        return event | {"event_ts": message.ts, "team": team, "user_team": home}

    def _change(self, message: Message, subtype: str) -> Json:
        ts = self.workspace.next_ts()
        place = channel_type(message.channel)
        base = {"type": "message", "subtype": subtype, "hidden": True, "ts": ts, "event_ts": ts}
        return base | {"channel": message.channel, "channel_type": place}

    def _own_event(self, event: Json) -> None:
        self._emit(event)

    def _emit(self, event: Json, **changes: Any) -> Envelope:
        """Deliver an event, if the app's manifest subscribes to it."""
        team, enterprise = self.workspace.team, self.workspace.enterprise
        is_org_wide = self.workspace.is_org_wide
        authorization = {
            "enterprise_id": enterprise or None,
            "team_id": None if is_org_wide else team,
            "user_id": self.bot_user,
            "is_bot": True,
            "is_enterprise_install": is_org_wide,
        }
        payload = {
            "token": "verification",
            "team_id": self.named_team or team,
            "api_app_id": "A0HENJI",
            "event": event,
            "enterprise_id": enterprise or None,
            "context_team_id": team,
            "context_enterprise_id": enterprise or None,
            "type": "event_callback",
            "event_id": self.workspace.serial("Ev"),
            "event_time": int(time.time()),
            "authorizations": [authorization],
            "is_ext_shared_channel": False,
            **changes,
        }
        return self.delivery.send("events_api", payload, is_subscribed=_is_subscribed(event))

    def _interact(self, kind: str, user: str, **body: Any) -> Envelope:
        team = self._team_of(user)
        is_org_wide, enterprise = self.workspace.is_org_wide, self.workspace.enterprise
        payload = {
            "type": kind,
            "team": None if is_org_wide else {"id": self.workspace.team, "domain": "local"},
            "enterprise": {"id": enterprise, "name": "Org"} if enterprise else None,
            "is_enterprise_install": is_org_wide,
            "user": {"id": user, "username": user.lower(), "team_id": team},
            "api_app_id": "A0HENJI",
            "token": "verification",
            "trigger_id": self.workspace.serial("trigger-"),
            **body,
        }
        if "view" not in body:
            payload["response_url"] = f"{self.url}/response/{self.workspace.serial('r')}"
        return self.delivery.send("interactive", payload)

    def _team_of(self, user: str) -> str:
        person = self.workspace.people.get(user)
        return person.team if person else self.workspace.team


def _is_subscribed(event: Json) -> bool:
    """Whether the app gets an event: of messages, those of the kinds of channel it asked for."""
    kind = str(event.get("channel_type", ""))
    name = {"channel": "channels", "group": "groups"}.get(kind, kind)
    return event.get("type") != "message" or f"message.{name}" in EVENTS
