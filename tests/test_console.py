"""The terminal: real processes, a real Redis, and the echo engine."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable
from io import StringIO
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis
from rich.console import Console
from rich.markdown import Markdown

from bots.console import convert
from bots.console.convert import Conversation
from bots.console.platform import ConsolePlatform
from bots.console.terminal import Blocks, markdown_of, progress_line
from bots.platform import Part, Status
from bots.processes import LocalCore, Progress
from bots.strings import say
from core.errors import OperatorError
from core.queue_types import OPENED, Delivery
from core.types import Done, ThreadKey, Usage
from tests.processes import children_of, exists, finish, henji, in_a_shell, start
from tests.pseudo_terminal import terminal
from tests.store_fixture import StoreFixture
from tests.tiny_models import llama
from tests.waiting import until

needs_proc = pytest.mark.skipif(
    not Path("/proc/self").exists(), reason="processes are looked for in /proc"
)

SEAT = Conversation("me", "trip", "en")


# -- input and output ---------------------------------------------------------------------------


def test_every_line_is_addressed_to_the_bot() -> None:
    incoming = convert.incoming("  hello \n", SEAT, "1", 5.0)
    assert str(incoming.thread) == "console:local:me:trip"
    assert (incoming.turn.text, incoming.turn.author, incoming.addressed) == ("hello", "me", True)


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("/reset", "reset"),
        ("/history ", "history"),
        ("/help", "help"),
        ("/usage", "usage"),
        ("/rest", "help"),
        ("/", "help"),
        ("hello", None),
        ("and/or", None),
    ],
)
def test_a_line_with_a_slash_is_a_command(line: str, command: str | None) -> None:
    assert convert.command(line) == command


DELIVERY = Delivery("j", SEAT.key, "1", "me", token=OPENED)
DONE = Done("", "stop", Usage(1, 1))


class Screen:
    """A console platform, and what is on its screen."""

    def __init__(self) -> None:
        self.shown = ""
        self.told: list[str] = []
        self.platform = ConsolePlatform(self._write, self.told.append)

    def _write(self, text: str) -> None:
        self.shown += text

    async def show(self, text: str, *, end: Done | None = None) -> None:
        await self.platform.edit(DELIVERY, "j.0", Part(0, text, last=True, end=end))


async def test_a_growing_reply_is_appended_to() -> None:
    screen = Screen()
    end = screen.platform.expect("j")
    await screen.platform.post(DELIVERY, Part(0, "To", last=True))
    await screen.show("Tokyo")
    assert not end.done()
    await screen.show("Tokyo.", end=DONE)
    assert (screen.shown, (await end).text) == ("Tokyo.", "Tokyo.")


async def test_a_reply_that_changed_is_written_again() -> None:
    screen = Screen()
    screen.platform.expect("j")
    await screen.show("Kyo")
    await screen.show("Tokyo", end=DONE)
    assert screen.shown == "Kyo\nTokyo"


async def test_a_reply_that_begins_again_with_the_same_text_is_not_repeated() -> None:
    screen = Screen()
    screen.platform.expect("j")
    for text in ("Tokyo is", "", "To", "Tokyo is the"):
        await screen.show(text)
    await screen.show("Tokyo is the capital.", end=DONE)
    assert screen.shown == "Tokyo is the capital."


async def test_a_screen_that_cannot_be_written_to_ends_the_reply() -> None:
    def write(text: str) -> None:
        raise BrokenPipeError

    platform = ConsolePlatform(write, print)
    end = platform.expect("j")
    await platform.post(DELIVERY, Part(0, "To", last=True))
    with pytest.raises(BrokenPipeError):
        await end


async def test_a_reply_to_another_terminal_is_not_shown_here() -> None:
    screen = Screen()
    await screen.platform.post(DELIVERY, Part(0, "not yours", last=True, end=DONE))
    await screen.platform.status(DELIVERY, Status("queued", 3))
    assert (screen.shown, screen.told) == ("", [])


async def test_the_position_in_the_queue_is_shown() -> None:
    screen = Screen()
    screen.platform.expect("j")
    await screen.platform.status(DELIVERY, Status("queued", 3))
    assert screen.told == ["Waiting: 3 in line…"]


# -- one reply ----------------------------------------------------------------------------------


async def test_two_calls_share_the_conversation_and_leave_nothing_running(tmp_path: Path) -> None:
    data = {"HENJI_DATA_DIR": str(tmp_path)}
    first = await henji("chat", "--thread", "a", "--once", "吾輩は", **data)
    assert (first.status, first.out) == (0, "echo: 吾輩は\n")
    piped = await henji("chat", "--thread", "a", "--once", "-", given="猫である\n", **data)
    assert (piped.status, piped.out) == (0, "echo: 猫である\n")
    history = await henji("chat", "--thread", "a", given="/history\n", **data)
    assert [line.partition(": ")[2] for line in history.out.strip().splitlines()] == [
        "吾輩は",
        "echo: 吾輩は",
        "猫である",
        "echo: 猫である",
    ]
    assert "4 messages" in history.err
    assert not (tmp_path / "redis" / "valkey.sock").exists()


async def test_a_chat_of_two_lines_in_a_pipe_answers_each(redis_url: str, redis: Redis) -> None:
    ran = await henji("chat", given="one\n\ntwo\n/reset\n", REDIS_URL=redis_url)
    assert ran.status == 0
    assert ran.out.splitlines() == [
        "echo: one",
        "",
        "echo: two",
        "",
        "This conversation is forgotten.",
    ]


async def test_help_and_usage_fit_the_person_at_the_terminal(redis_url: str, redis: Redis) -> None:
    ran = await henji("chat", given="one\n/usage\n/help\n", REDIS_URL=redis_url)
    assert "• messages (you, here): 1 used, without a limit." in ran.out
    assert "It starts again at 00:00 (UTC)." in ran.out
    assert "tokens), with what was said before." in ran.out
    assert say("example_plan", "en") in ran.out
    assert "echo answers here." in ran.out
    assert say("guide_typed", "en") in ran.out
    assert "I read text files" not in ran.out


async def test_a_reply_that_was_cut_is_continued(redis_url: str, redis: Redis) -> None:
    lines = "/continue\nhello\n/continue\n/history\n"
    given = {"REDIS_URL": redis_url, "HENJI_MAX_NEW_TOKENS": "8", "LOGNAME": "me"}
    ran = await henji("chat", given=lines, **given)
    assert [line for line in ran.out.splitlines() if line] == [
        "There is no reply to go on with.",
        "echo: he",
        "The reply reached its length limit. “Continue” goes on from here.",
        "llo",
        "you: hello",
        "echo: echo: hello",
    ]


async def test_a_reply_that_fills_the_prompt_is_kept_when_it_is_continued(
    redis_url: str, redis: Redis
) -> None:
    lines = "abcdefghijklmnopqrstuv\n/continue\n/continue\n/continue\n/history\n"
    room = {"HENJI_CONTEXT_LENGTH": "48", "HENJI_MAX_NEW_TOKENS": "8"}
    ran = await henji("chat", given=lines, REDIS_URL=redis_url, LOGNAME="me", **room)
    said = [line for line in ran.out.splitlines() if line and "limit" not in line]
    assert said == [
        "echo: ab",
        "cdefghij",
        "There is no reply to go on with.",
        "you: abcdefghijklmnopqrstuv",
        "echo: echo: abcdefghij",
    ]


async def test_a_scripts_request_is_queued_behind_people(redis_url: str, redis: Redis) -> None:
    ran = await henji("chat", "--once", "hello", REDIS_URL=redis_url)
    assert (ran.status, ran.out) == (0, "echo: hello\n")
    costs = [await redis.hget(job, "cost") for job in await redis.keys("henji:*:job:*")]
    assert costs == ["8"]


async def test_a_message_that_is_too_long_is_refused_and_not_kept(
    redis_url: str, redis: Redis
) -> None:
    ran = await henji("chat", "--once", "x" * 5000, REDIS_URL=redis_url, LOGNAME="me")
    assert (ran.status, ran.out) == (1, "")
    assert "longer than the model can read" in ran.err
    assert (
        await StoreFixture.over(redis).texts(ThreadKey("console", "local", "me", "default")) == []
    )


@pytest.mark.parametrize("words", [("chat",), ("chat", "--once", "-")])
async def test_input_that_is_not_text_is_refused(
    redis_url: str, redis: Redis, words: tuple[str, ...]
) -> None:
    chat = await start(*words, REDIS_URL=redis_url, PYTHONIOENCODING="utf-8:strict")
    out, err = await asyncio.wait_for(chat.communicate(b"caf\xe9\n"), 90)
    assert (chat.returncode, out) == (2, b"")
    assert err.endswith(b"henji: standard input is not text in utf-8\n")


async def test_a_closed_pipe_ends_a_chat_with_endless_input(redis_url: str, redis: Redis) -> None:
    ran = await in_a_shell("yes | henji chat | head -1", REDIS_URL=redis_url)
    assert ran.out == "echo: y\n"
    assert "Traceback" not in ran.err


# -- the core that it starts --------------------------------------------------------------------


@needs_proc
async def test_a_killed_chat_leaves_no_core_and_no_server_behind(tmp_path: Path) -> None:
    chat = await start("chat", HENJI_DATA_DIR=str(tmp_path))
    core = await child_of(chat)
    chat.kill()
    await finish(chat)
    await until(gone(core))
    socket = tmp_path / "redis" / "valkey.sock"
    await until(lambda: asyncio.to_thread(lambda: not socket.exists()))


@needs_proc
async def test_a_dead_core_is_replaced(redis_url: str, redis: Redis) -> None:
    chat = await start("chat", REDIS_URL=redis_url)
    core = await child_of(chat)
    assert chat.stdin is not None
    assert chat.stdout is not None
    chat.stdin.write(b"one\n")
    assert await asyncio.wait_for(chat.stdout.readline(), 90) == b"echo: one\n"
    os.kill(core, signal.SIGKILL)
    ran = await finish(chat, "two\n")
    assert ran.out == "\necho: two\n\n"
    _, told = ran.err.split("the core died (Killed); starting another\n")
    assert told == "starting echo\nready\n"


@needs_proc
async def test_a_message_waits_for_the_replacement_of_a_core_that_stopped(
    redis_url: str, redis: Redis
) -> None:
    chat = await start("chat", REDIS_URL=redis_url)
    core = await child_of(chat)
    assert chat.stderr is not None
    await chat.stderr.readuntil(b"ready\n")
    os.kill(core, signal.SIGTERM)
    await until(gone(core))
    assert (await finish(chat, "one\n")).out == "echo: one\n\n"


@needs_proc
async def test_a_core_that_is_killed_at_its_start_is_reported(
    redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never() -> bool:
        return False

    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("HENJI_ENGINE", "echo")
    local_core = LocalCore(never, print, stop_timeout=20)
    serving = asyncio.create_task(local_core.keep())
    os.kill(await core_under(os.getpid()), signal.SIGKILL)
    with pytest.raises(OperatorError, match=r"^the core died \(Killed\); is there"):
        await asyncio.wait_for(serving, 90)
    await local_core.aclose()


async def child_of(process: Process) -> int:
    """The core that a chat has started."""
    return await core_under(process.pid)


async def core_under(pid: int) -> int:
    found: list[int] = []

    async def there() -> bool:
        found.extend(cores_under(pid))
        return bool(found)

    await until(there)
    return found[0]


def cores_under(pid: int) -> list[int]:
    return [child for child, words in children_of(pid).items() if "core" in words]


def gone(pid: int) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return not exists(pid)

    return check


# -- the embedded model -------------------------------------------------------------------------


async def test_the_embedded_model_remembers_the_conversation(
    home: Path, redis_url: str, redis: Redis
) -> None:
    greedy = {"HENJI_ENGINE": "torch", "HENJI_TEMPERATURE": "0", "HENJI_DATA_DIR": str(home)}
    chat = await start("chat", REDIS_URL=redis_url, **greedy)
    asked = b"What is the capital of Japan?\nAnd of France?\n"
    async with asyncio.timeout(240):  # the first time, the model is converted
        out, err = await chat.communicate(asked)
    first, second = [line for line in out.decode().splitlines() if line]
    assert "Tokyo" in first
    assert "Paris" in second
    told = ["small English model", "HENJI_MODEL=rinna-ppo henji chat", "loading smollm2", "ready"]
    places = [err.decode().index(words) for words in told]
    assert places == sorted(places)


# -- a person at a terminal ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (None, "… 3 s"),
        (Progress(0, 6, "looking"), f"[{'-' * 24}] 3 s, 1/6 looking"),
        (Progress(1, 1, "ready"), f"[{'#' * 24}] 3 s, 1/1 ready"),
        (Progress(3, 6, "compiling"), f"[{'#' * 12}{'-' * 12}] 3 s, 4/6 compiling"),
    ],
)
def test_a_bar_shows_how_far_a_start_has_come(progress: Progress | None, line: str) -> None:
    assert progress_line(progress, 3.4) == line


async def test_a_model_that_loads_shows_a_bar(tmp_path: Path, redis_url: str, redis: Redis) -> None:
    llama(tmp_path / "small")
    small = {"HENJI_MODEL": str(tmp_path / "small"), "HENJI_ENGINE": "torch"}
    async with terminal("chat", REDIS_URL=redis_url, **small) as screen:
        await screen.shows(r"\[#+-+\] \d+ s, 2/6 reading the libraries")


async def test_ctrl_c_stops_a_reply_and_twice_leaves(redis_url: str, redis: Redis) -> None:
    slow = {"REDIS_URL": redis_url, "HENJI_ECHO_TOKENS_PER_SECOND": "10"}
    async with terminal("chat", **slow) as screen:
        await screen.shows("ready.*>")
        screen.type("a story that takes quite a while\r")
        await screen.shows("echo: a")
        os.kill(screen.process.pid, signal.SIGINT)
        await screen.shows(r"Stopped\..*>")
        screen.type("\x03")
        assert await asyncio.wait_for(screen.process.wait(), 30) == 0


async def test_no_reply_acts_on_the_terminal(redis_url: str, redis: Redis) -> None:
    hostile = "hi\x1b]0;owned\x07 \x9b2J end"
    async with terminal("chat", "--once", hostile, REDIS_URL=redis_url) as screen:
        await screen.shows(r"hi\\x1b\]0;owned\\x07 \\x9b2J end")


async def test_text_typed_ahead_is_in_the_next_prompt(redis_url: str, redis: Redis) -> None:
    slow = {"REDIS_URL": redis_url, "HENJI_ECHO_TOKENS_PER_SECOND": "10"}
    async with terminal("chat", "--plain", **slow) as screen:
        await screen.shows("ready.*>")
        screen.type("one two three four five six seven\r")
        await screen.shows("echo: one")
        screen.type("\x03")  # no signal: it is not this process's controlling terminal
        screen.type("ahead")
        await screen.shows(r"^ two three four five six seven\r\n")  # and nothing between
        await screen.shows(">.*ahead")


MARKDOWN = "# Title\n\nOne **bold** line\nand another\n\n- a\n- b\n\n```py\nx = 1\n\ny = 2\n```\n"


async def test_markdown_is_drawn_in_a_terminal_and_nowhere_else(
    redis_url: str, redis: Redis
) -> None:
    there = {"REDIS_URL": redis_url}
    async with terminal("chat", "--once", MARKDOWN, **there) as screen:
        await screen.shows(
            r"Title *\r\n\r\nOne bold line *\r\nand another.* • a *\r\n • b.*x = 1.*y = 2"
        )
        assert "**" not in screen.seen
    async with terminal("chat", "--plain", "--once", MARKDOWN, **there) as screen:
        await screen.shows(r"One \*\*bold\*\* line")
    assert (await henji("chat", "--once", MARKDOWN, **there)).out == f"echo: {MARKDOWN}"


@given(st.text("a`~ \n|-#"), st.lists(st.integers(0, 40)))
def test_blocks_lose_nothing_however_the_text_comes(text: str, cuts: list[int]) -> None:
    blocks, ends = Blocks(), sorted({min(cut, len(text)) for cut in (*cuts, 0, len(text))})
    complete = [block for begin, end in pairwise(ends) for block in blocks.feed(text[begin:end])]
    at_once = Blocks()
    assert complete == at_once.feed(text)
    assert blocks.open == at_once.open
    assert "".join((*complete, blocks.open)).split() == text.split()


def test_a_code_block_is_one_block() -> None:
    blocks = Blocks()
    assert blocks.feed("```\na\n\nb\n") == []
    assert blocks.feed("```\n\nafter") == ["```\na\n\nb\n```\n\n"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("use the <div> tag, List<int> and </p>", "use the <div> tag, List<int> and </p>"),
        ("`<b>` and <https://a.example> in <b>x</b>", "<b> and <https://a.example> in x"),
        (r"so \(a_1\) is $x_1 * y * z$", "so a_1 is x_1 * y * z"),
        ("see [1]\n[1]: https://a.example/b", "see [1]\n[1]: https://a.example/b"),
        ("```\n<b>\n[1]: x\n```", " <b>\n [1]: x"),
        (
            "| a | b |\n|--|--|\n| `x|y` | 1 |\n| p | q | r |\nm|n|o",
            " a    b\n ──────────\n x|y  1\n p    q | r\n m    n|o",
        ),
        ("**「重要」**です。**注意：**保存", "\u200b「重要」\u200bです。注意：\u200b保存"),
    ],
)
def test_no_words_are_lost_in_a_terminal(text: str, shown: str) -> None:
    console = Console(file=StringIO(), width=60, highlight=False)
    with console.capture() as drawn:
        console.print(Markdown(markdown_of(text), hyperlinks=False))
    lines = [line.rstrip() for line in drawn.get().split("\n")]
    assert "\n".join(filter(None, lines)) == shown


@needs_proc
async def test_notices_stand_on_their_own_lines(redis_url: str, redis: Redis) -> None:
    slow = {"REDIS_URL": redis_url, "HENJI_ECHO_TOKENS_PER_SECOND": "10"}
    async with terminal("chat", **slow) as screen:
        await screen.shows("ready.*>")
        core = await child_of(screen.process)
        screen.type("a story that takes quite a while\r")
        await screen.shows("echo: a")
        os.kill(core, signal.SIGKILL)
        await screen.shows(
            r"\r\nthe core died \(Killed\); starting another\r\nstarting echo\r\nready"
        )


async def test_ctrl_c_clears_a_line_and_two_more_leave(redis_url: str, redis: Redis) -> None:
    async with terminal("chat", REDIS_URL=redis_url) as screen:
        await screen.shows("ready.*>")
        for line in ("one", "two"):
            screen.type(line)
            await screen.shows(line)
            screen.type("\x03")
            await screen.shows("Ctrl-C again leaves.*>")
        screen.type("\x03")
        assert await asyncio.wait_for(screen.process.wait(), 30) == 0


@needs_proc
async def test_a_closed_terminal_ends_the_chat_and_its_core(redis_url: str, redis: Redis) -> None:
    async with terminal("chat", REDIS_URL=redis_url) as screen:
        await screen.shows("ready.*>")
        core = await child_of(screen.process)
        screen.process.send_signal(signal.SIGHUP)
        assert await asyncio.wait_for(screen.process.wait(), 30) == 0
        assert not exists(core)


async def test_a_full_memory_of_redis_is_told_and_heals(redis_url: str, redis: Redis) -> None:
    await redis.config_set("maxmemory", "1")
    try:
        full = await henji("chat", "--once", "hello", REDIS_URL=redis_url)
    finally:
        await redis.config_set("maxmemory", "0")
    assert full.status == 1
    assert full.err.startswith("henji: Redis takes no writes: ")
    assert full.err.count("\n") == 1
    healed = await henji("chat", "--once", "hello", REDIS_URL=redis_url)
    assert (healed.status, healed.out) == (0, "echo: hello\n")
