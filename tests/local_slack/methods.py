"""The Web API's methods, acting on the workspace."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.local_slack.limits import (
    BLOCKS_CHARACTERS,
    MARKDOWN_CHARACTERS,
    STREAM_BYTES,
    TEXT_BYTES,
)
from tests.local_slack.validation import block_faults, chunk_faults, total_length
from tests.local_slack.workspace import (
    Installation,
    Json,
    Message,
    Person,
    Workspace,
    channel_type,
)


class Refused(Exception):
    """Slack's ``{"ok": false, "error": ...}``."""

    def __init__(self, error: str, **details: str) -> None:
        super().__init__(error)
        self.answer: Json = {"ok": False, "error": error, **details}


@dataclass(slots=True)
class Methods:
    """What each method does. `emit` sends an event to the app."""

    workspace: Workspace
    emit: Callable[[Json], None]
    stream_seconds: float = 300.0
    streaming: bool = True
    """Off: a workspace that has no native streaming (a guess of how it refuses)."""
    cards: bool = True
    """Off: a workspace that has no task cards (a guess of how it refuses)."""
    page: int = 1000
    """The most messages of a thread in one answer."""
    layout: bool = True
    """Off: no Markdown block can be laid out."""

    def call(self, method: str, arguments: Json, app: Installation) -> Json:
        name = "do_" + method.replace(".", "_")
        answer: Json = getattr(self, name)(arguments, app)
        return {"ok": True, **answer}

    # -- messages ---------------------------------------------------------------------------

    def do_chat_postMessage(self, arguments: Json, app: Installation) -> Json:  # noqa: N802
        message = self._new(arguments, app)
        return {"channel": message.channel, "ts": message.ts, "message": message.payload()}

    def do_chat_postEphemeral(self, arguments: Json, app: Installation) -> Json:  # noqa: N802
        message = self._new(arguments, app)
        message.ephemeral_for = arguments["user"]
        return {"message_ts": message.ts}

    def _new(self, arguments: Json, app: Installation) -> Message:
        blocks = self._checked_content(arguments)
        root = arguments.get("thread_ts")
        channel = arguments["channel"]
        if channel in self.workspace.without_app:
            raise Refused("not_in_channel")
        if channel in self.workspace.people:  # a person's id means their direct channel
            channel = f"D{channel}"
        if root is not None and self.workspace.message(arguments["channel"], root) is None:
            raise Refused("thread_not_found")
        message = Message(
            channel=channel,
            ts=self.workspace.next_ts(),
            user=app.bot_user,
            bot_id=app.bot_id,
            text=_text_of(arguments),
            thread_ts=root,
            blocks=blocks,
            metadata=arguments.get("metadata"),
            unfurl=not _is_plain(arguments),
        )
        self._add(message)
        return message

    def _add(self, message: Message) -> None:
        self.workspace.messages[message.channel, message.ts] = message
        place = channel_type(message.channel)
        self.emit(message.payload() | {"channel": message.channel, "channel_type": place})
        self._clear_status(message.channel, message.thread_ts)

    def _clear_status(self, channel: str, thread: str | None) -> None:
        if thread:  # Slack takes the status away when the app answers
            self.workspace.statuses.append((channel, thread, "", time.monotonic()))

    def _checked_content(self, arguments: Json) -> list[Json]:
        blocks: list[Json] = arguments.get("blocks", [])
        if not any(arguments.get(name) for name in ("text", "blocks", "markdown_text")):
            raise Refused("no_text")
        if "markdown_text" in arguments and ("text" in arguments or blocks):
            raise Refused("markdown_text_conflict")
        faults = list(block_faults(blocks))
        if faults:
            self.workspace.violations += faults
            raise Refused("invalid_blocks", response="; ".join(faults))
        if blocks and not self.layout:
            raise Refused("invalid_blocks")
        if len(str(arguments.get("text", "")).encode()) > TEXT_BYTES:
            raise Refused("msg_too_long")
        if total_length(blocks) > BLOCKS_CHARACTERS:
            raise Refused("msg_blocks_too_long")
        return blocks

    def do_chat_update(self, arguments: Json, app: Installation) -> Json:
        """A message that streams cannot be updated: the error's name is a guess."""
        message = self._own(arguments, app)
        if self._streams(message):
            raise Refused("streaming_state_conflict")
        before = message.payload()
        message.blocks = self._checked_content(arguments)
        message.text = _text_of(arguments)
        message.metadata = arguments.get("metadata", message.metadata)
        message.edits += 1
        self._emit_changed(message, before)
        return {"channel": message.channel, "ts": message.ts, "text": message.text}

    def _emit_changed(self, message: Message, before: Json) -> None:
        self.emit(
            {
                "type": "message",
                "subtype": "message_changed",
                "channel": message.channel,
                "channel_type": channel_type(message.channel),
                "ts": self.workspace.next_ts(),
                "message": message.payload(),
                "previous_message": before,
                "hidden": True,
            }
        )

    def do_chat_delete(self, arguments: Json, app: Installation) -> Json:
        message = self._own(arguments, app)
        message.deleted = True
        self.emit(
            {
                "type": "message",
                "subtype": "message_deleted",
                "channel": message.channel,
                "channel_type": channel_type(message.channel),
                "ts": self.workspace.next_ts(),
                "deleted_ts": message.ts,
                "previous_message": message.payload(),
                "hidden": True,
            }
        )
        return {"channel": message.channel, "ts": message.ts}

    def _own(self, arguments: Json, app: Installation) -> Message:
        message = self.workspace.message(arguments["channel"], arguments["ts"])
        if message is None or message.ephemeral_for:
            raise Refused("message_not_found")
        if message.user != app.bot_user:
            raise Refused("cant_update_message")
        return message

    # -- streams ----------------------------------------------------------------------------

    def do_chat_startStream(self, arguments: Json, app: Installation) -> Json:  # noqa: N802
        if not self.streaming:
            raise Refused("access_denied")
        if not arguments["channel"].startswith("D"):
            for name in ("recipient_team_id", "recipient_user_id"):
                if not arguments.get(name):
                    raise Refused(f"missing_{name}")
        message = Message(
            channel=arguments["channel"],
            ts=self.workspace.next_ts(),
            user=app.bot_user,
            bot_id=app.bot_id,
            text="",
            thread_ts=arguments["thread_ts"],
            streaming="open",
            stream_until=time.monotonic() + self.stream_seconds,
            in_chunks="chunks" in arguments,
        )
        message.text = self._grown(message, self._streamed(arguments, message))
        self._add(message)
        return {"channel": message.channel, "ts": message.ts}

    def do_chat_appendStream(self, arguments: Json, app: Installation) -> Json:  # noqa: N802
        message = self._open_stream(arguments, app)
        text = self._streamed(arguments, message)
        if not text and not arguments.get("chunks"):
            raise Refused("no_text")
        message.text = self._grown(message, text)
        return {"channel": message.channel, "ts": message.ts}

    def do_chat_stopStream(self, arguments: Json, app: Installation) -> Json:  # noqa: N802
        message = self._open_stream(arguments, app)
        text = self._grown(message, self._streamed(arguments, message))
        blocks: list[Json] = arguments.get("blocks", [])
        faults = list(block_faults(blocks))
        if faults:
            self.workspace.violations += faults
            raise Refused("invalid_blocks", response="; ".join(faults))
        message.text = text
        message.blocks = [{"type": "markdown", "text": text}, *blocks]
        message.metadata = arguments.get("metadata")
        message.streaming = "over"
        self.workspace.violations += [
            f"a stream ended with the card {id_} {status}"
            for id_, (_, status) in message.cards.items()
            if status not in ("complete", "error")
        ]
        if "session_status" in arguments:
            place = (message.channel, message.thread_ts or "")
            self.workspace.sessions[place] = arguments["session_status"]
        return {"channel": message.channel, "ts": message.ts, "message": message.payload()}

    def _streamed(self, arguments: Json, message: Message) -> str:
        """The text of a call. Texts and chunks do not go together, in a call or in a stream."""
        chunks: list[Json] = arguments.get("chunks", [])
        if "markdown_text" in arguments and "chunks" in arguments:
            raise Refused("cannot_provide_both_markdown_text_and_chunks")
        if ("markdown_text" if message.in_chunks else "chunks") in arguments:
            raise Refused("streaming_mode_mismatch")
        if not self.cards and chunks:
            raise Refused("invalid_chunks")
        written = [str(arguments.get("markdown_text", ""))]
        written += [self._chunk(chunk, message) for chunk in chunks]
        text = "".join(written)
        if len(text) > MARKDOWN_CHARACTERS:
            raise Refused("msg_too_long")
        return text

    def _chunk(self, chunk: Json, message: Message) -> str:
        """The text of a chunk; a task or a plan's title is kept."""
        if list(chunk_faults(chunk)):
            self.workspace.violations += chunk_faults(chunk)
            raise Refused("invalid_chunks")
        if chunk["type"] == "task_update":
            message.cards[chunk["id"]] = (chunk["title"], chunk["status"])
        return str(chunk["text"]) if chunk["type"] == "markdown_text" else ""

    def _grown(self, message: Message, text: str) -> str:
        """What a stream holds with `text` appended."""
        grown = message.text + text
        if len(grown.encode()) > STREAM_BYTES:
            raise Refused("msg_too_long")
        return grown

    def _open_stream(self, arguments: Json, app: Installation) -> Message:
        message = self._own(arguments, app)
        if not self._streams(message):
            raise Refused("message_not_in_streaming_state")
        return message

    def _streams(self, message: Message) -> bool:
        if message.streaming == "open" and time.monotonic() >= message.stream_until:
            message.streaming = "over"
        return message.streaming == "open"

    # -- sessions, status and views -----------------------------------------------------------

    def do_agents_sessions_setStatus(self, arguments: Json, app: Installation) -> Json:  # noqa: N802
        """The title and the initiator count only for a new session."""
        place = (arguments["channel_id"], arguments["thread_ts"])
        if len(arguments.get("title", "")) > 200:
            raise Refused("invalid_arguments")
        if arguments.get("initiator_user_id", "") not in {"", *self.workspace.people}:
            raise Refused("user_not_found")
        if place not in self.workspace.sessions:
            about = (arguments.get("title", ""), arguments.get("initiator_user_id", ""))
            self.workspace.session_starts[place] = about
        self.workspace.sessions[place] = arguments["status"]
        return {"status": arguments["status"]}

    def do_assistant_threads_setStatus(self, arguments: Json, app: Installation) -> Json:  # noqa: N802
        if any(not 1 <= len(text) <= 50 for text in arguments.get("loading_messages", ())):
            raise Refused("invalid_arguments")
        self.workspace.statuses.append(
            (
                arguments["channel_id"],
                arguments["thread_ts"],
                arguments["status"],
                time.monotonic(),
            )
        )
        return {}

    def do_assistant_threads_setSuggestedPrompts(self, arguments: Json, app: Installation) -> Json:  # noqa: N802
        prompts = arguments["prompts"]
        if not 1 <= len(prompts) <= 4 or any(set(p) != {"title", "message"} for p in prompts):
            raise Refused("invalid_arguments")
        self.workspace.prompts[arguments["channel_id"]] = arguments
        return {}

    def do_views_publish(self, arguments: Json, app: Installation) -> Json:
        self._checked_view(arguments["view"], "home")
        self.workspace.views[arguments["user_id"]] = arguments["view"]
        return {"view": arguments["view"]}

    def do_views_open(self, arguments: Json, app: Installation) -> Json:
        if not arguments["trigger_id"].startswith("trigger"):
            raise Refused("invalid_trigger_id")
        self._checked_view(arguments["view"], "modal")
        view = arguments["view"] | {"id": self.workspace.serial("V")}
        self.workspace.views[view["id"]] = view
        return {"view": view}

    def _checked_view(self, view: Json, kind: str) -> None:
        faults = list(block_faults(view.get("blocks", []), most=100))
        if view.get("type") != kind:
            faults.append(f"a view of type {view.get('type')}, not {kind}")
        if kind == "modal" and len(view.get("title", {}).get("text", "")) > 24:
            faults.append("more than 24 characters in a modal's title")
        if len(view.get("private_metadata", "")) > 3_000:
            faults.append("more than 3,000 characters of private metadata")
        if faults:
            self.workspace.violations += faults
            raise Refused("invalid_arguments", message="; ".join(faults))

    # -- files --------------------------------------------------------------------------------

    def do_files_getUploadURLExternal(self, arguments: Json, app: Installation) -> Json:  # noqa: N802
        ident, length = self.workspace.serial("F"), int(arguments["length"])
        if not length:
            raise Refused("missing_argument")
        self.workspace.promised[ident] = (arguments["filename"], length)
        return {"file_id": ident, "upload_url": f"{self.workspace.url}/upload/{ident}"}

    def do_files_completeUploadExternal(self, arguments: Json, app: Installation) -> Json:  # noqa: N802
        """`channel_id` takes no person's id (github slackapi/bolt-js issue 2115)."""
        channel, root = str(arguments.get("channel_id", "")), arguments.get("thread_ts")
        if not channel.startswith(("C", "D", "G")):
            raise Refused("invalid_arguments")
        if channel in self.workspace.without_app:
            raise Refused("not_in_channel")
        shared = [
            {"id": one["id"], "name": self.workspace.promised[one["id"]][0], "mode": "hosted"}
            for one in arguments["files"]
            if one["id"] in self.workspace.files
        ]
        if not shared:
            raise Refused("file_not_found")
        message = Message(
            channel, self.workspace.next_ts(), app.bot_user, "", root, bot_id=app.bot_id
        )
        message.files, message.unfurl = shared, False
        self._add(message)
        return {"files": shared}

    # -- reading ------------------------------------------------------------------------------

    def do_auth_test(self, arguments: Json, app: Installation) -> Json:
        return {
            "url": "https://local.slack.com/",
            "team": "Local",
            "user": "henji",
            "team_id": app.org or app.team,
            "user_id": app.bot_user,
            "bot_id": app.bot_id,
            "enterprise_id": self.workspace.enterprise or None,
            "is_enterprise_install": bool(app.org),
        }

    def do_users_info(self, arguments: Json, app: Installation) -> Json:
        person = self.workspace.people.get(arguments["user"])
        if person is None:
            raise Refused("user_not_found")
        user = {
            "id": person.id,
            **({} if person.only_global else {"team_id": person.team}),
            "name": person.name.lower(),
            "real_name": person.name,
            "profile": {"display_name": person.name},
            "is_admin": person.admin,
            "is_stranger": person.team != app.team,
            "is_bot": person.bot,
        }
        return {"user": user | {"locale": person.locale} | self._grid(person)}

    def _grid(self, person: Person) -> Json:
        """What Enterprise Grid and shared channels add to a user."""
        enterprise = self.workspace.enterprise
        stranger = person.team != self.workspace.team and (
            not enterprise or person.enterprise != enterprise
        )
        grid = {"id": person.id, "enterprise_id": person.enterprise, "teams": [person.team]}
        return {"is_stranger": stranger, **({"enterprise_user": grid} if person.enterprise else {})}

    def _with_team(self, message: Message) -> Json:
        """A message as history has it: with the workspace of its author, as its event has."""
        person = self.workspace.people.get(message.user)
        team = person.team if person else self.workspace.team
        return message.payload() | {"team": team, "user_team": team}

    def do_users_list(self, arguments: Json, app: Installation) -> Json:
        if app.org and not arguments.get("team_id"):
            raise Refused("missing_argument")
        users = [
            {"id": person.id, "team_id": person.team, "is_restricted": person.guest}
            for person in self.workspace.people.values()
        ]
        team = arguments.get("team_id") or app.team
        bot = {"id": app.bot_user, "team_id": team, "is_bot": True}
        return {"members": [*users, bot], "response_metadata": {"next_cursor": ""}}

    def do_conversations_replies(self, arguments: Json, app: Installation) -> Json:
        """The thread's first message comes first, whatever time is asked for, and counts as one of
        the page: a guess, from what apps are written to expect (github getsentry/sentry pull
        114442, 2026)."""
        messages = self.workspace.thread(arguments["channel"], arguments["ts"])
        if not messages:
            raise Refused("thread_not_found")
        oldest, latest = arguments.get("oldest", "0"), arguments.get("latest", "9e12")
        ends = arguments.get("inclusive") in (True, "1", "true")
        inside = [
            m
            for m in messages
            if float(oldest) < float(m.ts) < float(latest) or (ends and m.ts in (oldest, latest))
        ]
        start, size = int(arguments.get("cursor") or 0), int(arguments.get("limit", 1000))
        size = min(size, self.page)
        root = [] if start else [m for m in messages[:1] if m not in inside]
        size -= len(root)
        page = [self._with_team(m) for m in root + inside[start : start + size]]
        if arguments.get("include_all_metadata") not in (True, "1", "true"):
            page = [{k: v for k, v in m.items() if k != "metadata"} for m in page]
        more = start + size < len(inside)
        cursor = {"next_cursor": str(start + size) if more else ""}
        return {"messages": page, "has_more": more, "response_metadata": cursor}

    def do_conversations_info(self, arguments: Json, app: Installation) -> Json:
        channel = arguments["channel"]
        private = self.workspace.members.get(channel) is not None
        if channel in self.workspace.without_app and private:
            raise Refused("channel_not_found")
        kinds = {"is_im": channel.startswith("D"), "is_mpim": channel.startswith("G")}
        kinds |= {"is_channel": channel.startswith("C")}
        kinds |= {"is_ext_shared": channel in self.workspace.shared}
        named = {} if channel.startswith("D") else {"name": f"channel-{channel.lower()}"}
        return {"channel": {"id": channel, "is_private": private, **kinds, **named}}

    def do_conversations_members(self, arguments: Json, app: Installation) -> Json:
        channel = arguments["channel"]
        if channel in self.workspace.without_app:
            raise Refused("channel_not_found")
        found = sorted(self.workspace.members.get(channel) or self.workspace.people)
        start, size = int(arguments.get("cursor") or 0), int(arguments.get("limit", 100))
        more = start + size < len(found)
        cursor = {"next_cursor": str(start + size) if more else ""}
        return {"members": found[start : start + size], "response_metadata": cursor}

    def do_conversations_history(self, arguments: Json, app: Installation) -> Json:
        """A channel's messages outside threads, with the first ones of threads; newest first."""
        oldest, size = float(arguments.get("oldest", "0")), int(arguments.get("limit", 100))
        found = [
            message
            for message in self.workspace.channel(arguments["channel"])
            if float(message.ts) > oldest and message.thread_ts in (None, message.ts)
        ]
        start, size = int(arguments.get("cursor") or 0), min(size, self.page)
        page = [message.payload() for message in reversed(found)][start : start + size]
        more = len(found) > start + size
        cursor = {"next_cursor": str(start + size) if more else ""}
        return {"messages": page, "has_more": more, "response_metadata": cursor}


def _is_plain(arguments: Json) -> bool:
    """Whether a call turns off previews of links and media."""
    return all(arguments.get(f"unfurl_{what}") is False for what in ("links", "media"))


def _text_of(arguments: Json) -> str:
    """The text of a call: Slack cuts it at 40,000 characters."""
    return str(arguments.get("text") or arguments.get("markdown_text") or "")[:40_000]
