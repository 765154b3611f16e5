"""What the commands share: reading the settings, running, and the example in a command's help."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from core.errors import UsageError
from core.observe.logs import set_up_logging
from core.settings import Settings, is_text, load_settings


def example(*lines: str) -> str:
    """The end of a command's help."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


def open_settings(**quieter: Any) -> Settings:
    """The settings of this process, with its logs set up; `quieter` holds where nothing is set.

    UsageError where one is wrong.
    """
    settings = load_settings()
    unset = {
        name: value for name, value in quieter.items() if name not in settings.model_fields_set
    }
    settings = settings.model_copy(update=unset)
    set_up_logging(settings)
    return settings


def read_input(read: Callable[[], str]) -> str:
    """What `read` gives of standard input; UsageError where that is no text."""
    try:
        words = read()
    except OSError as error:
        raise UsageError(f"standard input cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        words = "\udcff"
    if not is_text(words):
        raise UsageError(f"standard input is not text in {sys.stdin.encoding}")
    return words
