"""The `henji` commands. A command that fails says why in one sentence."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.exceptions import NoArgsIsHelpError

from bots import platforms
from bots.cli.admin import admin
from bots.cli.align import align
from bots.cli.common import (
    example,
    open_all_settings,
    open_settings,
    print_json,
    print_text,
    progress,
    read_input,
)
from bots.cli.compare import compare
from bots.cli.ctrl_c import ctrl_c_at_once
from bots.cli.models import models, tokenize
from bots.cli.settings import settings as settings_command
from bots.platforms import ROOM, PlatformSettings, names, settings_classes
from core.errors import OperatorError, UsageError, install_command, is_text
from core.observe.logs import SECRET_PATTERNS, Redaction, printable

if TYPE_CHECKING:
    from bots.cli.doctor import Role

# Each command imports what it needs when it runs, so that no bot imports torch and `henji --help`
# is fast.


@click.group(epilog=example("henji chat"), context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="henji")
def henji() -> None:
    """A self-hosted language model, as a member of your team's chat."""


for command in (admin, align, compare, models, tokenize, settings_command):
    henji.add_command(command)


@henji.command(epilog=example("henji up"))
def up() -> None:
    """Run a core, and a bot for each platform with tokens.

    Each is a process, restarted if it dies. Redis is embedded unless REDIS_URL names one. Without
    tokens: a chat in the terminal.
    """
    from bots.services import run_all

    settings = open_all_settings()
    if bots := settings.bots:
        _until_stopped(partial(run_all, settings.core, bots), with_parent=False)
    elif sys.stdin.isatty():
        _chat(None, "default")
    else:
        known = ", ".join(settings.platforms)
        raise UsageError(
            f"there are no tokens for a platform ({known}), and no terminal to chat in: "
            "set the tokens, or run `henji chat` or `henji core`"
        )


@henji.command(
    epilog=example("henji chat", 'henji chat --thread trip --once "Where should we go?"')
)
@click.option(
    "--once",
    metavar="TEXT",
    help="Print the reply to TEXT and exit; - reads TEXT from standard input.",
)
@click.option(
    "--thread",
    metavar="NAME",
    default="default",
    show_default=True,
    help="The conversation's name.",
)
@click.option("--plain", is_flag=True, help="Show replies as they are, not as Markdown.")
def chat(once: str | None, thread: str, plain: bool) -> None:
    """Talk in the terminal.

    Starts a core if none serves the model, and stops it at the end. Conversations are remembered
    by name.
    """
    _chat(once, thread, plain=plain)


def _chat(once: str | None, thread: str, *, plain: bool = False) -> None:
    with ctrl_c_at_once():
        from bots.console.bot import run_chat

    settings = open_settings(log_level="warning")
    if not thread.strip():
        raise UsageError("--thread is empty: give the conversation a name")
    text = read_input(sys.stdin.read) if once == "-" else once
    if text is not None and not text.strip():
        raise UsageError("the text is empty: there is nothing to answer")
    asyncio.run(run_chat(settings, text, thread, plain=plain))


with_parent = click.option("--with-parent", is_flag=True, help="Stop when standard input ends.")


def _until_stopped(work: Callable[[asyncio.Event], Awaitable[None]], with_parent: bool) -> None:
    """Work until a signal comes, or the parent process has ended."""
    from bots.processes import stop_at_end_of_input, stop_on_signals

    async def run() -> None:
        stop = stop_on_signals()
        if with_parent:
            stop_at_end_of_input(stop)
        await work(stop)

    asyncio.run(run())


@henji.command(epilog=example("HENJI_MODEL=rinna-ppo henji core"))
@with_parent
def core(with_parent: bool) -> None:
    """Answer messages with the language model.

    Runs on the machine with the GPU.
    """
    from bots.services import run_core

    settings = open_settings()

    async def work(stop: asyncio.Event) -> None:
        if not await run_core(settings, stop):
            os._exit(0)  # a thread is still loading the model

    _until_stopped(work, with_parent)


def _command_of(name: str, kind: type[PlatformSettings]) -> click.Command:
    """`henji NAME`, for a platform that has a process."""

    @click.command(
        name, epilog=example(kind.example), help=f"Be a bot in {kind.title}. Needs no GPU."
    )
    @with_parent
    def command(with_parent: bool) -> None:
        from bots.services import serve_platform

        settings = open_all_settings().require(name)
        _until_stopped(partial(serve_platform, name, settings), with_parent)

    return command


for _name, _kind in settings_classes().items():
    henji.add_command(_command_of(_name, _kind))


@henji.command(epilog=example("henji doctor", "henji doctor --role bot --json"))
@click.option(
    "--role",
    type=click.Choice(["core", "bot", "all"]),
    help="What this host runs; by default, what is installed and set.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def doctor(role: Role | None, as_json: bool) -> None:
    """Check this machine, and say what to do.

    Checks Python, Redis, the model, the GPU and the tokens, and sends a message through a running
    core and back.
    """
    from bots.cli.doctor import checks, role_of

    settings = open_all_settings(log_level="error")

    async def run() -> int:
        faults = 0
        for check in checks(settings, role or role_of(settings)):
            with progress(f"checking {check.about} …"):
                finding = await check.run()
            finding = replace(finding, what=settings.redaction.redact(finding.what))
            if as_json:
                print_json(asdict(finding))
            else:
                print_text(str(finding))
            faults += finding.state == "fault"
        return faults

    if faults := asyncio.run(run()):
        raise OperatorError(f"{faults} fault{'s' * (faults > 1)}, named above")


class ManifestGroup(click.Group):
    """A command for each platform whose folder has a `manifest.py`, with its `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in names() if (ROOM / name / "manifest.py").exists()]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(ctx):
            return None
        found = import_module(f"bots.{name}.manifest").command
        assert isinstance(found, click.Command)  # noqa: S101 -- a platform's folder is ours
        return found


@henji.group(cls=ManifestGroup, epilog=example("henji manifest slack > manifest.json"))
def manifest() -> None:
    """Print the manifest with which a platform makes the app."""


@henji.command(
    epilog=example("henji bench", "henji bench queue --jobs 1000"),
    # what follows the name belongs to the benchmark, --help too
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("name", required=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(name: str | None, arguments: tuple[str, ...]) -> None:
    """Run one benchmark, or all of them (from a checkout)."""
    run_benchmarks(name, arguments)


CHECKOUT = Path(__file__).parents[2]


def run_benchmarks(name: str | None, arguments: Sequence[str], checkout: Path = CHECKOUT) -> None:
    """Run the benchmark `name`, or all of them, with these arguments."""
    known = benchmark_names(checkout)
    if name is not None and name not in known:
        raise UsageError(f"there is no benchmark {name}: the benchmarks are {', '.join(known)}")
    sys.path.insert(0, str(checkout))
    for each in [name] if name else known:
        status = import_module(f"tests.benchmarks.{each}").main(list(arguments))
        if status:
            raise OperatorError(f"the benchmark {each} failed")


def benchmark_names(checkout: Path) -> list[str]:
    """The benchmarks' names. OperatorError in an installed copy."""
    folder = checkout / "tests" / "benchmarks"
    if not folder.is_dir():
        raise OperatorError(
            "benchmarks run from a checkout of henji, and this is an installed copy"
        )
    files = folder.glob("[!_]*.py")
    return sorted(path.stem for path in files if "\ndef main(argv" in path.read_text())


# -- the process ----------------------------------------------------------------------------------


EXTRAS = {
    "torch": "core",
    "transformers": "core",
    "sentencepiece": "core",
    "gguf": "local",
    "accelerate": "local",
    "peft": "align",
}
"""Package -> the extra that installs it. A platform's packages are in its settings."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS)


def run() -> int:
    """The command of this process: 0 done, 1 failed, 2 wrong usage."""
    try:
        _prepare_streams()
        _check_arguments(sys.argv[1:])
        henji.main(standalone_mode=False)
    except NoArgsIsHelpError as error:
        click.echo(error.format_message())
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "henji"
        sentence = " ".join(error.format_message().split())  # choices are lines of their own
        return _complain(f"{sentence} See `{path} --help`.", 2)
    except click.ClickException as error:
        return _complain(error.format_message(), error.exit_code)
    except OperatorError as error:
        return _complain(str(error), 2 if isinstance(error, UsageError) else 1)
    except (click.Abort, KeyboardInterrupt):
        return 1
    except BrokenPipeError:  # `henji ... | head`
        _silence_output()
        return 1
    except Exception as error:
        return _explain(error)
    return 0


def _prepare_streams() -> None:
    """Open the standard streams that are missing, and let standard output take any character."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - open until this process ends
    if isinstance(sys.stdout, TextIOWrapper):  # a terminal may lack a character
        sys.stdout.reconfigure(errors="backslashreplace")


def _check_arguments(words: Sequence[str]) -> None:
    for word in words:
        if not is_text(word):
            raise UsageError(f"the argument {word!a} is not text in {sys.stdin.encoding}")


def _silence_output() -> None:
    """Discard the rest of the output: nobody reads it, or the disk is full."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(sentence: str, status: int) -> int:
    print(f"henji: {printable(_redaction().redact(sentence))}", file=sys.stderr)
    return status


def _redaction() -> Redaction:
    """The secrets to strike out of an error; by pattern alone if the settings are wrong."""
    with suppress(OperatorError):
        return platforms.AllSettings.load().redaction
    return Redaction(patterns=(*SECRET_PATTERNS, *platforms.secret_patterns()))


def _explain(error: Exception) -> int:
    """Say what to install, or that a file system refuses; anything else is a defect."""
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        _silence_output()
        return _complain(f"{error.filename or 'the output'} cannot be written: {error.strerror}", 1)
    if isinstance(error, OSError) and error.errno in NO_ACCESS and error.filename:
        return _complain(f"{error.filename} is closed to this user: {error.strerror}", 1)
    package = (getattr(error, "name", None) or "").partition(".")[0]
    extra = EXTRAS.get(package) or platforms.extra_of(package)
    if isinstance(error, ModuleNotFoundError) and extra:
        return _complain(
            f"this needs {package}, which is not installed: {install_command(extra)}", 1
        )
    sentence = f"this is a defect of henji: {type(error).__name__}: {error}"
    text = "".join(traceback.format_exception(error)) + f"henji: {sentence}"
    print(printable(_redaction().redact(text), keep="\n"), file=sys.stderr)
    return 1
