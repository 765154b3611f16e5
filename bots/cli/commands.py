"""The `henji` command: one clear sentence on standard error where something does not work."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from io import TextIOWrapper
from typing import NoReturn

import click

from bots.cli.admin import admin
from bots.cli.common import example, open_settings, read_input
from bots.cli.models import models, tokenize
from core.errors import OperatorError, UsageError
from core.extras import install_command
from core.observe.logs import redact, secrets_in
from core.settings import is_text, load_settings

EXTRAS = {
    "torch": "core",
    "transformers": "core",
    "sentencepiece": "core",
    "slack_bolt": "slack",
    "slack_sdk": "slack",
    "aiohttp": "slack",
    "discord": "discord",
    "gguf": "local",
    "accelerate": "local",
}
"""Package -> the extra of this project that installs it."""


NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def main() -> NoReturn:
    """Run this process's command and exit: 0 done, 2 asked wrongly, 1 failed."""
    sys.exit(run())


def run() -> int:
    try:
        _prepare_streams()
        _check_arguments(sys.argv[1:])
        henji.main(standalone_mode=False)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "henji"
        return _complain(f"{error.format_message()} See `{path} --help`.", 2)
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
    """Standard streams that can be read and written, whatever this process was started with."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - until this process ends
    if isinstance(sys.stdout, TextIOWrapper):  # no character that a terminal lacks ends a reply
        sys.stdout.reconfigure(errors="backslashreplace")


def _check_arguments(words: Sequence[str]) -> None:
    for word in words:
        if not is_text(word):
            raise UsageError(f"the argument {word!a} is not text in {sys.stdin.encoding}")


def _silence_output() -> None:
    """What is still to be written goes nowhere: nobody reads it, or there is no room for it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(sentence: str, status: int) -> int:
    print(f"henji: {redact(sentence)}", file=sys.stderr)
    return status


def _explain(error: Exception) -> int:
    """What is not here can be installed; anything else that comes here is a defect."""
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        _silence_output()
        return _complain(f"{error.filename or 'the output'} cannot be written: {error.strerror}", 1)
    package = (getattr(error, "name", None) or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and package in EXTRAS:
        extra = EXTRAS[package]
        return _complain(f"this needs {package}, which is not here: {install_command(extra)}", 1)
    sentence = f"this is a defect of henji: {type(error).__name__}: {error}"
    text = "".join(traceback.format_exception(error)) + f"henji: {sentence}"
    print(redact(text, _known_secrets()), file=sys.stderr)
    return 1


def _known_secrets() -> Collection[str]:
    with suppress(OperatorError):
        return secrets_in(load_settings())
    return ()


# Each command imports what it needs when it runs: a bot's process has no torch in it, and
# `henji --help` is quick.


@click.group(epilog=example("henji chat"), context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="henji")
def henji() -> None:
    """A language model of your own, as a member of your Slack or Discord."""


for command in (admin, models, tokenize):
    henji.add_command(command)


@henji.command(epilog=example("henji up"))
def up() -> None:
    """Start everything that this machine has tokens for.

    A core, and a bot for each platform with a token, with an embedded Redis unless REDIS_URL names
    one. With no tokens: a chat in the terminal.
    """
    from bots.services import run_all

    settings = open_settings()
    if settings.platforms:
        _until_stopped(partial(run_all, settings), with_parent=False)
    else:
        _chat(None, "default")


@henji.command(
    epilog=example("henji chat", 'henji chat --thread trip --once "Where should we go?"')
)
@click.option(
    "--once", metavar="TEXT", help="Print the reply to TEXT and leave; with -, to standard input."
)
@click.option(
    "--thread", metavar="NAME", default="default", show_default=True, help="Which conversation."
)
def chat(once: str | None, thread: str) -> None:
    """Talk in the terminal.

    Starts a core only if none serves the model's lane, and stops it again. Conversations are
    remembered by name.
    """
    _chat(once, thread)


def _chat(once: str | None, thread: str) -> None:
    from bots.console.bot import run_chat

    settings = open_settings(log_level="warning")
    if not thread.strip():
        raise UsageError("--thread has no name")
    text = read_input(sys.stdin.read) if once == "-" else once
    if text is not None and not text.strip():
        raise UsageError("there is nothing to answer: the text is empty")
    asyncio.run(run_chat(settings, text, thread))


with_parent = click.option("--with-parent", is_flag=True, help="Stop when standard input ends.")


def _until_stopped(work: Callable[[asyncio.Event], Awaitable[None]], with_parent: bool) -> None:
    """Work until a signal comes, or whoever started this process is gone."""
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

    The process for the machine with the GPU.
    """
    from bots.services import run_core

    settings = open_settings()

    async def work(stop: asyncio.Event) -> None:
        if not await run_core(settings, stop):
            os._exit(0)  # a thread still loads the model, and nobody waits for it

    _until_stopped(work, with_parent)


@henji.command(epilog=example("SLACK_BOT_TOKEN=xoxb-... SLACK_APP_TOKEN=xapp-... henji slack"))
@with_parent
def slack(with_parent: bool) -> None:
    """Be a bot in Slack. Needs no GPU."""
    _platform("slack", with_parent)


@henji.command(epilog=example("DISCORD_BOT_TOKEN=... henji discord"))
@with_parent
def discord(with_parent: bool) -> None:
    """Be a bot in Discord. Needs no GPU."""
    _platform("discord", with_parent)


def _platform(name: str, with_parent: bool) -> None:
    from bots.services import serve_platform

    settings = open_settings()
    _until_stopped(partial(serve_platform, name, settings), with_parent)


@henji.command(epilog=example("henji doctor"))
def doctor() -> None:
    """Check this machine, and say what to do.

    Python, Redis, the model, the tokens and the GPU, with what to do about each fault; and a
    message through a running system and back.
    """
    from bots.cli.doctor import examine

    settings = open_settings(log_level="error")
    faults = 0
    for finding in asyncio.run(examine(settings)):
        click.echo(str(finding))
        faults += not finding.well
    if faults:
        raise OperatorError(f"{faults} thing{'s' * (faults > 1)} to mend, named above")


@henji.group(epilog=example("henji manifest slack > manifest.json"))
def manifest() -> None:
    """Print what a platform asks for when an app is made there."""


@manifest.command(
    "slack",
    epilog=example(
        "henji manifest slack > manifest.json",
        "henji manifest slack --url https://bot.example.com --locale ja",
    ),
)
@click.option("--name", default="Henji", show_default=True, help="How the bot is called.")
@click.option("--locale", type=click.Choice(["en", "ja"]), default="en", show_default=True)
@click.option("--command", default="/henji", show_default=True, help="The slash command.")
@click.option("--url", metavar="URL", help="Where Slack reaches the bot; default: Socket Mode.")
@click.option("--many", is_flag=True, help="For several workspaces, which install it at the URL.")
def manifest_slack(name: str, locale: str, command: str, url: str | None, many: bool) -> None:
    """The manifest to paste at api.slack.com/apps: Create New App, From a manifest."""
    from bots.slack.manifest import document

    made = document(name, locale, url, command, many=many)
    click.echo(json.dumps(made, ensure_ascii=False, indent=2))


@henji.command(
    epilog=example("henji bench", "henji bench queue --jobs 1000"),
    # whatever follows the name is the benchmark's own, --help too
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("name", required=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(name: str | None, arguments: tuple[str, ...]) -> None:
    """Run a benchmark, or all of them: from a checkout."""
    from bots.cli.bench import run_benchmarks

    run_benchmarks(name, arguments)
