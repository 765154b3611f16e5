"""The `henji` process: it runs a command, and says in one sentence why one failed."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from typing import NoReturn

import click
from click.exceptions import NoArgsIsHelpError

from bots import platforms
from bots.cli.commands import henji
from core.errors import OperatorError, UsageError, install_command
from core.observe.logs import SECRET_PATTERNS, Redaction, printable
from core.settings import is_text

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


def main() -> NoReturn:
    """Run the command of this process and exit: 0 done, 1 failed, 2 wrong usage."""
    sys.exit(run())


def run() -> int:
    try:
        _prepare_streams()
        _check_arguments(sys.argv[1:])
        henji.main(standalone_mode=False)
    except NoArgsIsHelpError as error:
        click.echo(error.format_message())
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
    """Say what to install or that the disk is full; anything else is a defect."""
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        _silence_output()
        return _complain(f"{error.filename or 'the output'} cannot be written: {error.strerror}", 1)
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
