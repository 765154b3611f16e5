"""The terminal: replies on standard output, notices on standard error, typed lines and Ctrl-C."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
import termios
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Protocol

from bots.cli.common import read_input
from bots.commonmark import mended
from bots.markdown import simplified
from bots.processes import Progress
from bots.text import without_code
from core.errors import UsageError
from core.observe.logs import printable

if TYPE_CHECKING:
    from rich.live import Live

PROGRESS_SECONDS = 0.5
BAR_LENGTH = 24
CLEAR_LINE = "\r\x1b[K"
DRAWN_APART = re.compile(r"\s*([-*+]|\d+[.)]?)(\s|$)|\s*\|")
"""The beginning of a list or of a table, which rich sets apart by itself."""
FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
NOT_SHOWN = re.compile(r"(?<!\\)<(?=[a-zA-Z/!?])|(?<!\\)(?<!\S)\[(?=[^\]\n]{1,200}\]:)")
"""The beginning of a tag, and of what defines a link or a footnote."""
TABLE_RULE = re.compile(r"[ \t|:-]*-[ \t|:-]*$")
PIPE = re.compile(r"(?<!\\)\|")


class Screen:
    """Replies as they are, notices in separate lines."""

    def __init__(self) -> None:
        self._in_line = False
        self._counting = False
        self._progress: Progress | None = None
        self._hinted = False

    def hint(self, line: str) -> None:
        """A notice on the last line of a terminal, until something else is written."""
        if sys.stderr.isatty():
            print(f"{CLEAR_LINE}{printable(line)}", end="", file=sys.stderr, flush=True)
            self._hinted = True

    def _clear_hint(self) -> None:
        if self._hinted:
            print(CLEAR_LINE, end="", file=sys.stderr, flush=True)
            self._hinted = False

    def write(self, text: str) -> None:
        """A piece of text of ours, or of a reply."""
        self._clear_hint()
        shown = printable(text, keep="\n\t") if sys.stdout.isatty() else text
        sys.stdout.write(shown)
        sys.stdout.flush()
        if text:
            self._in_line = not text.endswith("\n")

    def write_reply(self, text: str) -> None:
        """The next piece of a reply."""
        self.write(text)

    def end_reply(self) -> None:
        """The reply is complete."""

    def tell(self, line: str) -> None:
        """A notice."""
        self._clear_hint()
        if self._in_line and sys.stdout.isatty():  # not inside a line of the reply
            self.write("\n")
        clear = CLEAR_LINE if self._counting else ""
        print(clear + printable(line), file=sys.stderr, flush=True)

    def set_progress(self, progress: Progress) -> None:
        """The core's start has come so far."""
        self._progress = progress

    async def show_progress(self) -> None:
        """Show a bar and the seconds on the last line of a terminal, until cancelled."""
        if not sys.stderr.isatty():
            return
        began, self._counting = time.monotonic(), True
        try:
            while True:
                await asyncio.sleep(PROGRESS_SECONDS)
                width = get_terminal_size().columns - 1
                line = progress_line(self._progress, time.monotonic() - began)[:width]
                print(f"{CLEAR_LINE}{line}", end="", file=sys.stderr, flush=True)
        finally:
            print(CLEAR_LINE, end="", file=sys.stderr, flush=True)
            self._counting = False


def progress_line(progress: Progress | None, seconds: float) -> str:
    """A bar, what goes on and for how long; the seconds alone where no stage is known."""
    if progress is None:
        return f"… {seconds:.0f} s"
    full = BAR_LENGTH * progress.done // progress.stages
    bar = "#" * full + "-" * (BAR_LENGTH - full)
    number = min(progress.done + 1, progress.stages)
    return f"[{bar}] {seconds:.0f} s, {number}/{progress.stages} {progress.name}"


class MarkdownScreen(Screen):
    """Replies as Markdown, block by block: the newest block is drawn again as it grows."""

    def __init__(self) -> None:
        super().__init__()
        self._blocks = Blocks()
        self._live: Live | None = None
        self._drawn = False
        """A block of this reply is drawn already."""

    def write_reply(self, text: str) -> None:
        for block in self._blocks.feed(text):
            self._draw(block)
            self._end_block()
        if self._blocks.open.strip():
            self._draw(self._blocks.open)

    def end_reply(self) -> None:
        self._end_block()
        self._blocks, self._drawn = Blocks(), False

    def tell(self, line: str) -> None:
        self._end_block()
        super().tell(line)

    def _draw(self, block: str) -> None:
        self._clear_hint()
        from rich.console import Console
        from rich.live import Live
        from rich.markdown import Markdown

        if self._live is None:
            if self._drawn and not DRAWN_APART.match(block):
                self.write("\n")
            self._drawn = True
            console = Console(highlight=False)
            self._live = Live(
                console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
            )
            self._live.start()
        drawn = Markdown(markdown_of(block), hyperlinks=False)
        self._live.update(drawn, refresh=True)

    def _end_block(self) -> None:
        if self._live is not None:
            self._live.vertical_overflow = "visible"
            self._live.stop()
            self._live = None


class Blocks:
    """Cuts a growing text into Markdown's blocks at blank lines outside code; pure."""

    def __init__(self) -> None:
        self.open = ""
        """The block that may still grow."""

    def feed(self, text: str) -> list[str]:
        """The blocks that the text completes."""
        self.open += text
        complete = []
        while (end := _end_of_block(self.open)) is not None:
            block, self.open = self.open[:end], self.open[end:]
            if block.strip():
                complete.append(block)
        return complete


def _end_of_block(text: str) -> int | None:
    """Where the first block ends, after its blank line; None while it may grow."""
    at, fence, filled = 0, "", False
    for line in text.splitlines(keepends=True):
        if not line.endswith("\n"):
            return None
        at += len(line)
        mark = FENCE.match(line)
        if fence:
            fence = "" if mark and mark[1].startswith(fence) else fence
        elif mark:
            fence = mark[1]
        elif not line.strip() and filled:
            return at
        filled = filled or bool(line.strip())
    return None


def markdown_of(block: str) -> str:
    """A block with its ends of lines kept: Markdown would join them, and people see one line.

    Formulas and HTML for plain formatting become Markdown. Other tags, and what defines a link or a
    footnote, stay words: rich shows none of them.
    """
    lines, fence, columns = [], "", 0
    for line in mended(simplified(printable(block, keep="\n\t"))).split("\n"):
        mark = FENCE.match(line)
        if fence:
            fence = "" if mark and mark[1].startswith(fence) else fence
        elif mark:
            fence = mark[1]
        code = fence or mark or line.startswith("    ")
        if not code and "|" in line and TABLE_RULE.match(line):
            columns = line.strip(" \t|").count("|") + 1
        shown = line if code else _row(_with_words(line), columns)
        lines.append(shown if code or "|" in line else f"{shown}  ")
    return "\n".join(lines)


def _row(line: str, columns: int) -> str:
    """A table's row whose pipes in code, and those of too many cells, part none: rich would drop
    the last cells."""
    if not columns or "|" not in line:
        return line
    seen, begin, end = without_code(line), line.lstrip().startswith("|"), len(line.rstrip()) - 1
    pipes = [found.start() for found in PIPE.finditer(line)]
    outside = [at for at in pipes if seen[at] == "|"]
    parting = {*outside[: begin + columns - 1], end}
    return _escaped(line, [at for at in pipes if at not in parting or seen[at] != "|"])


def _with_words(line: str) -> str:
    """A line of prose in which rich drops no words."""
    return _escaped(line, [found.start() for found in NOT_SHOWN.finditer(without_code(line))])


def _escaped(line: str, places: Sequence[int]) -> str:
    """The line with a backslash in front of some characters."""
    return "\\".join(line[a:b] for a, b in pairwise([0, *places, len(line)]))


def new_screen(*, plain: bool) -> Screen:
    """Markdown is drawn in terminals alone, and where rich is installed."""
    drawn = not plain and sys.stdout.isatty() and find_spec("rich") is not None
    return MarkdownScreen() if drawn else Screen()


@contextmanager
def without_echo() -> Iterator[None]:
    """Keep ``^C`` and what is typed ahead out of a reply. The next prompt shows the latter."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    quiet = [*before]
    quiet[3] &= ~(termios.ECHO | termios.ECHOCTL)
    termios.tcsetattr(sys.stdin, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)


# -- lines --------------------------------------------------------------------------------------


class Interrupt(Exception):
    """Ctrl-C. `typed`: the line that it cleared."""

    def __init__(self, typed: str = "") -> None:
        super().__init__()
        self.typed = typed


class Lines(Protocol):
    """A source of lines. EOFError at the end, Interrupt at Ctrl-C."""

    async def next(self) -> str: ...


def open_lines() -> Lines:
    """The lines of standard input."""
    if sys.stdin.isatty() and sys.stdout.isatty() and find_spec("prompt_toolkit"):
        return TypedLines("> ")
    return PipedLines()


class TypedLines:
    """Lines of a person at a terminal, with editing and history."""

    def __init__(self, prompt: str) -> None:
        from prompt_toolkit import PromptSession

        self._session: PromptSession[str] = PromptSession(prompt, interrupt_exception=Interrupt)

    async def next(self) -> str:
        from prompt_toolkit.patch_stdout import patch_stdout

        try:
            with patch_stdout():  # warnings go above the line that is being typed
                return await self._session.prompt_async(handle_sigint=False)
        except Interrupt:
            raise Interrupt(typed=self._session.default_buffer.text) from None


class PipedLines:
    """Lines of a pipe or a file, read one at a time by a daemon thread."""

    def __init__(self) -> None:
        self._line: asyncio.Future[str] | None = None

    async def next(self) -> str:
        if self._line is None:
            self._line = asyncio.get_running_loop().create_future()
            threading.Thread(target=self._read, args=(self._line,), daemon=True).start()
        line = await asyncio.shield(self._line)  # Ctrl-C must not lose the line being read
        self._line = None
        if not line:
            raise EOFError
        return line

    @staticmethod
    def _read(into: asyncio.Future[str]) -> None:
        settle: Callable[[], None]
        try:
            settle = partial(into.set_result, read_input(sys.stdin.readline))
        except UsageError as error:
            settle = partial(into.set_exception, error)
        with suppress(RuntimeError):  # the loop is closed
            into.get_loop().call_soon_threadsafe(settle)


@asynccontextmanager
async def interrupts() -> AsyncIterator[asyncio.Queue[None]]:
    """A queue that gets an item at each Ctrl-C."""
    queue: asyncio.Queue[None] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, queue.put_nowait, None)
    try:
        yield queue
    finally:
        loop.remove_signal_handler(signal.SIGINT)
