"""Slack's limits and errors: every reply arrives, whole, or the person is told why not."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from redis.asyncio import Redis

from bots.slack import catchup, components, error_codes, rate_limits
from bots.slack.api import RateLimited, SlackApi
from bots.slack.context import PRIVATELY, Context
from bots.slack.convert import Bot
from bots.slack.questions import MOST_OF_PERSON, Question, Questions
from bots.slack.rate_limits import EPHEMERAL, POST, Bucket, RateLimiter
from bots.slack.users import Users
from core.types import ThreadKey
from tests.local_slack import Message
from tests.local_slack.deployment import SlackDeployment, slack_deployment
from tests.local_slack.errors import PUBLISHED
from tests.local_slack.validation import RULES, UNPUBLISHED
from tests.optional import FOLDER, WEB_API
from tests.store_fixture import StoreFixture
from tests.waiting import until

BOT = "<@U0HENJI>"
SHORT = "すこし長い文章です。" * 12
LONG = "".join(f"{n}番目の文です。" for n in range(700))
"""About 6,000 characters and 17,000 bytes: two messages."""


@pytest.fixture
async def deployment(redis: Redis) -> AsyncIterator[SlackDeployment]:
    """With a core that writes whole replies at once, and an adapter."""
    async with slack_deployment(redis, max_new_tokens=20_000) as deployment:
        await deployment.core(tokens=20_000)
        await deployment.adapter()
        yield deployment
        await deployment.at_rest()


@pytest.fixture
async def slow(redis: Redis) -> AsyncIterator[SlackDeployment]:
    """With a core that takes seconds for `LONG`, where a minute has 30 seconds."""
    async with slack_deployment(redis, max_new_tokens=20_000, minute=30) as deployment:
        await deployment.core(pace=3000, tokens=20_000)
        await deployment.adapter()
        yield deployment
        await deployment.at_rest()


async def whole(deployment: SlackDeployment, channel: str, ts: str, text: str) -> list[Message]:
    """The messages of a reply, once they hold all of it and it has ended."""
    slack = deployment.slack

    def ended() -> list[Message]:
        parts = slack.replies(channel, ts)
        shown = "".join(part.shown for part in parts).replace("\n", "")
        over = all(part.streaming != "open" for part in parts)
        has_controls = parts and (components.REGENERATE in parts[-1].buttons())
        plain = parts and not any(part.blocks for part in parts)
        return parts if shown == text and over and (has_controls or plain) else []

    found = await slack.until(ended)
    assert isinstance(found, list)
    return found


# -- lengths ---------------------------------------------------------------------------------


async def test_without_streams_a_long_reply_is_edited_as_a_whole(
    slow: SlackDeployment,
) -> None:
    slow.slack.methods.streaming = False
    ts = await slow.slack.say("C1", "U1", f"{BOT} {LONG}")
    await whole(slow, "C1", ts, f"echo: {LONG}")
    assert len(slow.slack.called("chat.update")) >= 2
    assert {c.error for c in slow.slack.called("chat.update")} == {""}


async def test_a_long_reply_survives_the_end_of_its_stream(slow: SlackDeployment) -> None:
    slack = slow.slack
    ts = await slack.say("C1", "U1", f"{BOT} {LONG}")
    await slack.until(lambda: any(len(m.text) > 1500 for m in slack.replies("C1", ts)))
    slack.expire_streams()
    await whole(slow, "C1", ts, f"echo: {LONG}")


async def test_a_long_reply_survives_a_new_adapter(redis: Redis, redis_url: str) -> None:
    async with slack_deployment(redis, max_new_tokens=20_000) as deployment:
        deployment.lease = 1.0
        await deployment.core(pace=1500, tokens=20_000)
        process = await deployment.adapter_process(redis_url)
        ts = await deployment.slack.say("C1", "U1", f"{BOT} {LONG}")
        await deployment.slack.until(
            lambda: any(len(m.text) > 1500 for m in deployment.slack.replies("C1", ts))
        )
        process.kill()
        await process.wait()
        await deployment.adapter()
        await whole(deployment, "C1", ts, f"echo: {LONG}")


async def test_a_long_reply_without_blocks_is_split_smaller(deployment: SlackDeployment) -> None:
    deployment.slack.methods.layout = False
    ts = await deployment.slack.say("C1", "U1", f"{BOT} {LONG}")
    parts = await whole(deployment, "C1", ts, f"echo: {LONG}")
    assert len(parts) >= 5
    assert {c.error for c in deployment.slack.called("chat.postMessage")} == {"", "invalid_blocks"}


async def test_a_notification_is_cut_within_bytes_and_never_inside_an_entity() -> None:
    for text in ("あ" * 5000, "<" * 5000, "a" * 3998 + "<&>", "a" * 4000):
        cut = components.notification(text)
        assert len(cut.encode()) <= components.TEXT_BYTES
        assert cut.rstrip("…").replace("&lt;", "").replace("&amp;", "").find("&") == -1
    assert components.notification("a < b") == "a &lt; b"


# -- refusals inside a stream ----------------------------------------------------------------


@pytest.mark.parametrize("error", ["msg_too_long", "msg_blocks_too_long", "invalid_blocks"])
@pytest.mark.parametrize("method", ["chat.appendStream", "chat.stopStream"])
async def test_a_refused_stream_is_closed_and_the_reply_arrives(
    slow: SlackDeployment, method: str, error: str
) -> None:
    slow.slack.refuse(method, error)
    ts = await slow.slack.say("C1", "U1", f"{BOT} {LONG}")
    await whole(slow, "C1", ts, f"echo: {LONG}")
    assert error in [call.error for call in slow.slack.called(method)]


# -- refused edits ---------------------------------------------------------------------------


@pytest.mark.parametrize("error", ["edit_window_closed", "cant_update_message"])
async def test_a_reply_that_may_not_be_edited_is_posted_again(redis: Redis, error: str) -> None:
    async with slack_deployment(redis, minute=30) as deployment:
        slack = deployment.slack
        slack.methods.streaming = False
        await deployment.core(pace=60)
        await deployment.adapter()
        ts = await slack.say("C1", "U1", f"{BOT} {SHORT}")
        await slack.until(lambda: slack.replies("C1", ts))
        slack.refuse("chat.update", error)
        reply = await deployment.answered("C1", ts, f"echo: {SHORT}")
        await slack.until(lambda: slack.replies("C1", ts) == [reply])
        assert len([c for c in slack.called("chat.postMessage") if not c.error]) == 2
        texts = await deployment.stores().texts(deployment.key("C1", ts))
        assert texts == [SHORT, f"echo: {SHORT}"]


async def test_a_reply_deleted_by_somebody_stops_and_is_not_posted_again(
    redis: Redis,
) -> None:
    async with slack_deployment(redis, minute=30) as deployment:
        slack = deployment.slack
        slack.methods.streaming = False
        await deployment.core(pace=30)
        await deployment.adapter()
        ts = await slack.say("C1", "U1", f"{BOT} {SHORT}")
        [reply] = await slack.until(lambda: slack.replies("C1", ts))
        reply.deleted = True  # its event is lost
        await slack.until(lambda: "message_not_found" in errors(deployment, "chat.update"))
        await deployment.at_rest()
        ts = await deployment.asks("hi")
        assert len([c for c in slack.called("chat.postMessage") if not c.error]) == 2


def errors(deployment: SlackDeployment, method: str) -> list[str]:
    return [call.error for call in deployment.slack.called(method)]


# -- final errors ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        "cannot_reply_to_message",
        "app_access_restricted",
        "ekm_access_denied",
        "message_limit_exceeded",
        "team_not_found",
        "restricted_action_thread_locked",
    ],
)
async def test_a_person_learns_at_once_why_slack_refused_the_reply(
    deployment: SlackDeployment, error: str
) -> None:
    slack = deployment.slack
    slack.refuse("chat.postMessage", error, times=99, channel="C1")
    ts = await slack.say("C1", "U2", f"{BOT} hi")
    await slack.until(lambda: [m for m in slack.whispers("U2") if error in m.text])
    assert slack.replies("C1", ts) == []
    assert errors(deployment, "chat.postMessage") == [error]


async def test_a_person_with_a_direct_channel_gets_a_direct_notice(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    direct = await slack.say("DU2", "U2", "hello")
    await deployment.answered("DU2", direct, "echo: hello")
    slack.refuse("chat.postMessage", "is_archived", times=99, channel="C1")
    slack.refuse("chat.postEphemeral", "is_archived", times=99, channel="C1")
    for user in ("U1", "U2"):
        await slack.say("C1", user, f"{BOT} hi")

    def told(channel: str) -> list[str]:
        messages = slack.workspace.messages.values()
        return [m.text for m in messages if m.channel == channel and "is_archived" in m.text]

    await slack.until(lambda: told("DU2"))
    await slack.until(lambda: len(errors(deployment, "chat.postEphemeral")) == 2)
    assert told("DU1") == []


async def test_a_temporary_error_is_retried(deployment: SlackDeployment) -> None:
    deployment.slack.refuse("chat.postMessage", "internal_error", times=1)
    await deployment.asks("hi")


# -- where streams are refused ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "elsewhere", "there"),
    [
        ("channel_type_not_supported", 1, 0),
        ("restricted_action_thread_only_channel", 1, 0),
        ("internal_error", 1, 1),
        ("access_denied", 0, 0),
        ("missing_recipient_user_id", 0, 0),
    ],
)
async def test_a_refused_stream_stops_only_the_streams_it_speaks_of(
    redis: Redis, error: str, elsewhere: int, there: int
) -> None:
    async with slack_deployment(redis, minute=30) as deployment:
        await deployment.core(pace=90)
        await deployment.adapter()
        slack = deployment.slack
        slack.refuse("chat.startStream", error, channel="C1")
        ts = await slack.say("C1", "U1", f"{BOT} {SHORT}")
        await deployment.answered("C1", ts, f"echo: {SHORT}")
        for channel, started in (("C2", elsewhere), ("C1", there)):
            before = len(slack.called("chat.startStream"))
            ts = await slack.say(channel, "U1", f"{BOT} {SHORT}")
            await deployment.answered(channel, ts, f"echo: {SHORT}")
            assert len(slack.called("chat.startStream")) - before == started
        await deployment.at_rest()


async def test_an_allowed_bot_is_answered_without_a_stream(redis: Redis) -> None:
    async with slack_deployment(redis, minute=30, slack_allowed_bots={"B1"}) as deployment:
        await deployment.core(pace=90)
        await deployment.adapter()
        ts = await deployment.slack.say("C1", "", f"{BOT} {SHORT}", bot_id="B1")
        await deployment.answered("C1", ts, f"echo: {SHORT}")
        assert deployment.slack.called("chat.startStream") == []
        await deployment.at_rest()


# -- the published lists ---------------------------------------------------------------------


CLASSES = (
    error_codes.TEMPORARY,
    error_codes.CANNOT_POST_HERE,
    error_codes.ABOUT_THE_PERSON,
    error_codes.ABOUT_THE_MESSAGE,
    error_codes.TOO_LONG,
    error_codes.CANNOT_DISPLAY,
    error_codes.ABOUT_THE_APP,
    error_codes.WRONG_CALL,
)


def test_every_published_error_is_in_exactly_one_class() -> None:
    for error in frozenset().union(*PUBLISHED.values()):
        assert sum(error in errors for errors in CLASSES) == 1, error


@pytest.fixture
def published() -> dict[str, Any]:
    """Slack's published methods, from a folder that is not part of the project."""
    if FOLDER is None:
        pytest.skip("HENJI_TEST_DATA names no folder with slack-methods.json")
    found: dict[str, Any] = json.loads((Path(FOLDER) / "slack-methods.json").read_text())
    return found


def test_the_local_slack_has_the_published_errors(published: dict[str, Any]) -> None:
    for method in RULES:
        assert PUBLISHED[method] == set(published[method]["errors"]), method


def test_every_call_is_held_to_the_published_arguments(published: dict[str, Any]) -> None:
    """The local Slack refuses any argument outside `RULES`; these are Slack's own."""
    for method, rule in RULES.items():
        arguments = published[method]["args"]
        unpublished = UNPUBLISHED.get(method, frozenset())
        assert set(rule.arguments) - set(arguments) - unpublished == set(), method
        needed = {name for name, argument in arguments.items() if argument.get("required")}
        wrongly = {"chat.appendStream": {"markdown_text"}}.get(method, set())
        assert needed - set(rule.required) - wrongly == set(), method


# -- the types that Slack publishes for Node ---------------------------------------------------


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument as npm's @slack/web-api declares it."""

    is_required: bool
    type: str


class Declarations:
    """The interfaces and types of one of its files, and of the file that all share."""

    def __init__(self, folder: Path, group: str) -> None:
        self._texts: dict[str, str] = {}
        for name in ("common", group):
            text = re.sub(r"/\*.*?\*/", "", (folder / f"{name}.d.ts").read_text(), flags=re.DOTALL)
            for found in re.finditer(r"(?:interface|type) (\w+)(?: extends| =)?", text):
                self._texts[found[1]] = _declaration(text[found.end() :])

    def arguments(self, name: str) -> dict[str, Argument]:
        """Every argument of a type; those of an alternative are none that must be there."""
        return self._of(self._texts[name], is_required=True)

    def _of(self, text: str, *, is_required: bool) -> dict[str, Argument]:
        body = "".join(re.findall(r"\{(.*?)\}", text, flags=re.DOTALL))
        head = re.sub(r"\{.*?\}", "", text, flags=re.DOTALL)
        is_required &= "|" not in head
        found: dict[str, Argument] = {}
        for name, part in re.findall(r"\b([A-Z]\w+)(?!\w*<)|(?<=<)([A-Z]\w+)", head):
            inner = name or part
            must = is_required and f"<{inner}>" not in head
            if inner in self._texts:
                found |= self._of(self._texts[inner], is_required=must)
        for name, mark, kind in re.findall(r"^\s*(\w+)(\?)?: ([^;{]+)", body, flags=re.MULTILINE):
            if kind != "never":
                found[name] = Argument(is_required and not mark, kind)
        return found


def _declaration(text: str) -> str:
    """What follows a declared name, to the end of the declaration."""
    depth = 0
    for at, sign in enumerate(text):
        depth += {"{": 1, "}": -1}.get(sign, 0)
        if depth == 0 and (sign == ";" or (sign == "}" and text[at + 1 : at + 2] == "\n")):
            return text[: at + 1]
    return text


UNTYPED: Mapping[str, frozenset[str]] = {
    # in slack_sdk 3.47 and in the method references, not in @slack/web-api 8.2 (2026)
    "chat.postMessage": frozenset({"container_id"}),
}
IN_PYTHON = {"string": str, "boolean": bool, "number": int}


def _python_type(kind: str) -> type:
    return list if kind.endswith("[]") else IN_PYTHON.get(kind, object)


@pytest.mark.parametrize("method", sorted(RULES))
def test_every_call_is_held_to_the_types_that_slack_publishes(method: str) -> None:
    """The local Slack refuses any argument outside `RULES`; these are those of @slack/web-api."""
    if WEB_API is None:
        pytest.skip("HENJI_SLACK_WEB_API names no folder of npm's @slack/web-api")
    name = "".join(part[0].upper() + part[1:] for part in method.split(".")) + "Arguments"
    folder = Path(WEB_API) / "dist" / "types" / "request"
    typed = Declarations(folder, method.partition(".")[0]).arguments(name)
    rule = RULES[method]
    assert set(rule.arguments) - set(typed) - UNTYPED.get(method, frozenset()) == set()
    needed = {name for name, argument in typed.items() if argument.is_required}
    assert needed - set(rule.required) == set()
    for name in rule.arguments.keys() & typed.keys():
        wanted = _python_type(typed[name].type)
        ours = rule.arguments[name]
        assert wanted is object or wanted in (ours if isinstance(ours, tuple) else (ours,)), name


# -- layout ----------------------------------------------------------------------------------


async def test_a_streamed_table_is_laid_out_by_an_update_at_the_end(redis: Redis) -> None:
    table = "表：\n\n| 名前 | 値 |\n|---|---|\n| 一 | 二 |\n" + "説明です。" * 12
    async with slack_deployment(redis, minute=30) as deployment:
        await deployment.core(pace=60)
        await deployment.adapter()
        slack = deployment.slack
        ts = await slack.say("C1", "U1", f"{BOT} {table}")
        reply = await deployment.answered("C1", ts, f"echo: {table}")
        await slack.until(lambda: reply.edits == 1)
        assert errors(deployment, "chat.stopStream") == [""]
        assert slack.replies("C1", ts) == [reply]
        await deployment.at_rest()


async def test_bold_beside_japanese_is_streamed_as_bold(redis: Redis) -> None:
    text = "これは**「重要」**です。" * 6
    async with slack_deployment(redis, minute=30) as deployment:
        await deployment.core(pace=40)
        await deployment.adapter()
        slack = deployment.slack
        ts = await slack.say("C1", "U1", f"{BOT} {text}")
        shown = components.markdown(f"echo: {text}")
        reply = await deployment.answered("C1", ts, shown)
        assert "**\u200b「重要」\u200b**" in reply.shown
        assert slack.called("chat.update") == []
        assert len(slack.called("chat.appendStream")) > 1
        texts = await deployment.stores().texts(deployment.key("C1", ts))
        assert texts[-1] == f"echo: {text}"
        await deployment.at_rest()


# -- apps outside the Marketplace ------------------------------------------------------------


async def test_a_distributed_app_reads_one_page_and_answers_at_once(redis: Redis) -> None:
    async with slack_deployment(redis) as deployment:
        slack = deployment.slack
        slack.distribute()
        await deployment.core()
        await deployment.adapter()
        for channel, read in (("C1", 15), ("C2", 0)):
            root = await slack.say(channel, "U2", "number 0")
            for n in range(1, 20):
                await slack.say(channel, "U2", f"number {n}", thread=root)
            await slack.say(channel, "U1", f"{BOT} hi", thread=root)
            await deployment.answered(channel, root, "echo: hi", within=6)
            texts = await deployment.stores().texts(deployment.key(channel, root))
            assert texts == [*(f"number {n}" for n in range(read)), "hi", "echo: hi"]
        await deployment.at_rest()


async def test_a_distributed_app_reads_the_newest_messages_of_a_thread_that_it_saw(
    redis: Redis,
) -> None:
    minute = 1.0
    async with slack_deployment(redis, minute=minute) as deployment:
        slack = deployment.slack
        slack.distribute()
        await deployment.core()
        await deployment.adapter()
        for channel, read in (("C1", range(15)), ("C2", [0, *range(16, 30)])):
            root = await slack.say(channel, "U2", "number 0")
            for n in range(1, 30):
                await slack.say(channel, "U2", f"number {n}", thread=root)
            for envelope in list(slack.delivery.envelopes):
                await envelope.done.wait()
            await until(partial(_is_past, time.monotonic() + 1.5 * minute))
            await slack.say(channel, "U1", f"{BOT} hi", thread=root)
            await deployment.answered(channel, root, "echo: hi", within=12)
            texts = await deployment.stores().texts(deployment.key(channel, root))
            assert texts[: len(read)] == [f"number {n}" for n in read]


async def _is_past(moment: float) -> bool:
    return time.monotonic() > moment


async def _with_missed_messages(deployment: SlackDeployment, missed: int) -> str:
    """A thread that the bot takes part in, with messages from while it is away."""
    slack = deployment.slack
    slack.distribute()
    await deployment.core()
    await deployment.adapter()
    root = await deployment.asks("hi")
    await deployment.stop("adapter")
    slack.delivery.deaf = True
    for n in range(missed):
        await slack.say("C1", "U2", f"<@U1> number {n}", thread=root)
    if missed:
        await slack.say("C1", "U1", f"{BOT} missed", thread=root)
    slack.delivery.deaf = False
    return root


async def test_a_distributed_app_catches_up_page_by_page_and_answers_meanwhile(
    redis: Redis,
) -> None:
    async with slack_deployment(redis, minute=1) as deployment:
        slack = deployment.slack
        root = await _with_missed_messages(deployment, 32)
        await deployment.adapter()
        ts = await slack.say("C2", "U1", f"{BOT} now")
        await deployment.answered("C2", ts, "echo: now")

        await deployment.answered("C1", root, "echo: missed")
        assert len(slack.called("conversations.replies")) > 3
        assert "ratelimited" in errors(deployment, "conversations.replies")
        texts = await deployment.stores().texts(deployment.key("C1", root))
        assert [text for text in texts if "number" in text] == [
            f"@花子 number {n}" for n in range(32)
        ]


async def test_a_part_of_a_thread_does_not_make_the_rest_deleted(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catchup, "PAGES", 1)
    async with slack_deployment(redis, minute=1) as deployment:
        slack = deployment.slack
        root = await _with_missed_messages(deployment, 0)
        await deployment.adapter()
        for n in range(20):
            await slack.say("C1", "U2", f"<@U1> number {n}", thread=root)
        await slack.say("C1", "U1", f"{BOT} and", thread=root)
        await deployment.answered("C1", root, "echo: and")
        before = await deployment.stores().texts(deployment.key("C1", root))
        await deployment.stop("adapter")
        slack.limits.distributed = True
        await deployment.adapter("again")
        calls = len(slack.called("conversations.replies"))
        await slack.until(lambda: len(slack.called("conversations.replies")) > calls, within=10)
        ts = await slack.say("D9", "U1", "the last")
        await deployment.answered("D9", ts, "echo: the last")
        assert await deployment.stores().texts(deployment.key("C1", root)) == before


def test_a_bucket_limits_calls_in_any_span_of_its_length() -> None:
    bucket = Bucket(most=2, seconds=10)
    assert bucket.wait(0.0) == 0
    bucket.calls.append(0.0)
    bucket.calls.append(4.0)
    assert bucket.wait(5.0) == 5.0
    assert bucket.wait(10.0) == 0


def test_a_bucket_stays_blocked_for_retry_after() -> None:
    bucket = Bucket(most=2, seconds=10, blocked_until=7.0)
    assert bucket.wait(5.0) == 2.0


async def test_last_updates_are_reserved_from_intermediate_ones() -> None:
    limiter = RateLimiter(minute=60)
    for reply in range(44):
        limiter.reserve("chat.update", "T1", str(reply))
    assert limiter.try_acquire("chat.update", "T1", "C1")
    assert not limiter.try_acquire("chat.update", "T1", "C1")
    assert limiter.try_acquire("chat.update", "T2", "C1")  # another workspace has its own
    async with asyncio.timeout(1):
        await limiter.acquire("chat.update", "T1", "C1")
    limiter.release("0")
    limiter.release("1")
    assert limiter.try_acquire("chat.update", "T1", "C1")


async def test_posts_are_one_a_second_in_each_channel() -> None:
    limiter = RateLimiter(minute=6)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.gather(*(limiter.acquire(POST, "T1", "C1") for _ in range(4)))
    assert 0.3 <= loop.time() - began < 0.6
    assert limiter.try_acquire(POST, "T1", "C2")


async def test_several_processes_share_the_tier() -> None:
    limiter = RateLimiter(minute=60, share=0.5)
    assert sum(limiter.try_acquire("chat.update", "T1", "C1") for _ in range(60)) == 22


class Company:
    """The calls that look up people and read threads, in a workspace of an organization."""

    def __init__(self) -> None:
        self.limiter = RateLimiter()
        self.api = SlackApi(self, self.limiter)  # type: ignore[arg-type]  # the rest is not called

    async def client(self, team: str) -> Any:
        del team
        return self

    async def bot(self, team: str) -> Bot:
        return Bot(team, "U0HENJI", "B1", enterprise="E1")

    async def users_info(self, user: str, **more: Any) -> Mapping[str, Any]:
        del more
        return {"user": {"name": user, "team_id": "T2", "enterprise_user": {"enterprise_id": "E1"}}}

    async def conversations_replies(self, **more: Any) -> Mapping[str, Any]:
        del more
        return {"messages": []}


async def test_a_flood_of_names_makes_no_colleague_a_stranger() -> None:
    company = Company()
    users = Users(company, company.limiter, "auto", ())  # type: ignore[arg-type]
    for at in range(0, 160, 16):
        await users.names("T1", [f"U{n}" for n in range(at, at + 16)])
    for _ in range(160):
        await users.is_admin("T1", "U1")
    assert not await users.is_stranger(await company.bot("T1"), "U999", "T2")


async def test_a_flood_of_summaries_leaves_room_to_read_what_was_said_before() -> None:
    company, place = Company(), ThreadKey("slack", "T1", "C1", "1.0")
    call = partial(company.api.call, "conversations.replies", place)

    async def flood() -> None:
        for _ in range(50):
            await call(within=10.0, spare=1 / 3)

    with pytest.raises(RateLimited):
        await flood()
    assert [await call(within=4.0) for _ in range(14)]


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next task that waits for a time."""

    _scheduled: list[asyncio.TimerHandle]
    _ready: list[asyncio.Handle]

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        if self._scheduled and not self._ready:
            self.now = max(self.now, self._scheduled[0].when())
        super()._run_once()  # type: ignore[misc]


@pytest.mark.parametrize("polls", [True, False])
def test_a_flood_of_notices_holds_up_no_reply(monkeypatch: pytest.MonkeyPatch, polls: bool) -> None:
    """A hundred posts of the bot's own in a channel, and ten replies, on the minute. A reply that
    grows polls for room; its last post waits in line."""
    passed: list[tuple[str, float]] = []

    async def reply(limiter: RateLimiter) -> None:
        while polls and (seconds := limiter.wait(POST, "T1", "C1")):  # noqa: ASYNC110
            await asyncio.sleep(seconds)
        await limiter.acquire(POST, "T1", "C1")
        passed.append(("reply", asyncio.get_running_loop().time() - 1000.0))

    async def notice(limiter: RateLimiter) -> None:
        await limiter.acquire_last(POST, "T1", "C1")
        passed.append(("notice", asyncio.get_running_loop().time() - 1000.0))

    async def flood() -> None:
        limiter = RateLimiter()
        notices = [asyncio.create_task(notice(limiter)) for _ in range(100)]
        await asyncio.sleep(0)
        replies = [asyncio.create_task(reply(limiter)) for _ in range(10)]
        await asyncio.gather(*notices, *replies)

    with closing(VirtualLoop()) as loop:
        monkeypatch.setattr(rate_limits, "_now", loop.time)
        loop.run_until_complete(flood())
    at = [time for name, time in passed if name == "reply"]
    assert at == pytest.approx([float(second) for second in range(1, 11)], abs=0.1)
    assert passed[-1][1] == pytest.approx(160, abs=10)


def test_a_flood_by_one_person_puts_no_call_before_anothers_reply(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A hundred refusals, told privately, and then a reply in the same channel, on the minute."""
    passed: list[tuple[str, float]] = []

    async def send(name: str, method: str, limiter: RateLimiter) -> None:
        await limiter.acquire(method, "T1", "C1")
        passed.append((name, asyncio.get_running_loop().time() - 1000.0))

    async def flood() -> None:
        limiter = RateLimiter()
        refusals = [asyncio.create_task(send("no", EPHEMERAL, limiter)) for _ in range(100)]
        reply = [
            asyncio.create_task(send(method, method, limiter)) for method in (POST, "chat.update")
        ]
        await asyncio.gather(*refusals, *reply)

    with closing(VirtualLoop()) as loop:
        monkeypatch.setattr(rate_limits, "_now", loop.time)
        loop.run_until_complete(flood())
    assert [at for name, at in passed if name != "no"] == [0.0, 0.0]
    assert sum(at == 0.0 for name, at in passed if name == "no") == 90
    assert passed[-1][1] == pytest.approx(60.0, abs=1)


# -- shares of one person -----------------------------------------------------------------------


async def test_a_flood_of_private_messages_leaves_room_for_other_people() -> None:
    sent: list[str] = []

    async def post(_: ThreadKey, user: str, __: str) -> None:
        sent.append(user)

    no: Any = None
    api: Any = SimpleNamespace(limiter=RateLimiter(minute=1e6), post_privately=post)
    context = Context(no, no, no, no, no, no, api, no, no, no)
    for user in ["U1"] * 100 + ["U2"]:
        await context.send_privately(ThreadKey("slack", "T1", "C1", "1.0"), user, "no")
    assert Counter(sent) == {"U1": PRIVATELY, "U2": 1}


async def test_one_persons_questions_do_not_fill_the_outbox(redis: Redis) -> None:
    def spawn(work: Coroutine[Any, Any, None]) -> None:
        work.close()  # the rate limits let nothing be posted yet

    context: Any = SimpleNamespace(spawn=spawn)
    outbox = (await StoreFixture.serving(redis)).outbox
    questions = Questions(context, outbox)
    for number, user in enumerate(["U1"] * 100 + ["U2"]):
        await questions.accept(Question(f"{number}", "T1", "C1", "", user, "hello"))
    kept = [json.loads(text)["user"] for text in (await outbox.entries("slack")).values()]
    assert Counter(kept) == {"U1": MOST_OF_PERSON, "U2": 1}


@pytest.mark.parametrize("poison", ["{", "[]", "7", '{"from": "another release"}', "[" * 100_000])
async def test_a_poisoned_question_keeps_no_other_from_being_taken_over(
    redis: Redis, poison: str
) -> None:
    asked: list[str] = []

    def spawn(work: Coroutine[Any, Any, None]) -> None:
        asked.append(str(work))
        work.close()

    context: Any = SimpleNamespace(spawn=spawn, second=1.0)
    outbox = (await StoreFixture.serving(redis)).outbox
    await outbox.put("slack", "1", poison)
    left = Question("2", "T1", "C1", "", "U1", "hello")  # nobody has cared for it
    await outbox.put("slack", "2", json.dumps(asdict(left)))
    await Questions(context, outbox).recover()
    assert len(asked) == 1
    assert (await outbox.entries("slack"))["1"] == poison


def test_the_rate_limits_of_channels_are_bounded() -> None:
    limiter = RateLimiter()
    for number in range(rate_limits.KEPT_CHANNELS + 10):
        assert limiter.try_acquire(POST, "T1", f"C{number}")
    assert len(limiter._posts) == rate_limits.KEPT_CHANNELS
