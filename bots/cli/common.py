"""Shared by the commands: reading the settings and the input, and examples in help texts."""

from __future__ import annotations

import os
import pwd
import re
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

import click
import structlog

from bots import platforms
from bots.platforms import AllSettings
from core.errors import UsageError, is_text
from core.observe.logs import printable, printable_block, printable_json, set_up_logging
from core.queue_types import Place
from core.settings import Settings, config_file

log = structlog.get_logger()


def example(*lines: str) -> str:
    """The examples at the end of a command's help."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


def open_settings(**quieter: Any) -> Settings:
    """The settings of this process, with logging set up. `quieter`: defaults of this command.

    UsageError if a setting is wrong.
    """
    return open_all_settings(**quieter).core


def open_all_settings(**quieter: Any) -> AllSettings:
    """The same, with the settings of the platforms."""
    settings = AllSettings.load().with_defaults(**quieter)
    set_up_logging(settings.core, settings.redaction)
    path = config_file()
    if path.is_file() and path.stat().st_mode & stat.S_IWGRP:
        log.warning("the group of the settings file can write it", path=str(path))
    return settings


def parse_place(text: str) -> Place:
    """The place of a command line; UsageError where it is none."""
    parts = [unquote(part) for part in text.split(":")]
    if len(parts) not in (2, 3) or not all(parts):
        raise UsageError(
            f"{text!r} is no place: platform:space or platform:space:channel is expected"
        )
    check_platform(parts[0])
    return Place(*parts)


def check_platform(name: str) -> None:
    """UsageError where there is no such platform."""
    if name not in platforms.names():
        known = ", ".join(platforms.names())
        raise UsageError(f"there is no platform {name}, only {known}")


def operator_name() -> str:
    """The person who runs this command, by the user id: the environment can say anything."""
    try:
        return f"operator:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:  # a container may run as a user id without a name
        return f"operator:{os.getuid()}"


def file_name(model: str) -> str:
    """A model's name, made safe for a file's name."""
    return re.sub(r"[^\w.-]+", "-", model).strip("-.") or "model"


def print_text(text: str) -> None:
    """Print text by people or a model, without control characters."""
    click.echo(printable_block(text))


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table with aligned columns; the last column may be long."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        yield "  ".join([*cells, row[-1]]).rstrip()


def print_status(line: str) -> None:
    """Print a line about the work on standard error."""
    click.echo(printable(line), err=True)


def print_json(value: object) -> None:
    """Print one JSON object, in one line."""
    click.echo(printable_json(value))


@contextmanager
def progress(what: str) -> Iterator[None]:
    """Show the name of the work on a terminal while it lasts."""
    if not sys.stderr.isatty():
        yield
        return
    print(what, end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def read_input(read: Callable[[], str]) -> str:
    """The text that `read` returns from standard input; UsageError if it is not text."""
    try:
        words = read()
    except OSError as error:
        raise UsageError(f"standard input cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        words = "\udcff"
    if not is_text(words):
        raise UsageError(f"standard input is not text in {sys.stdin.encoding}")
    return words
