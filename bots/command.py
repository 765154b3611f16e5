"""What the commands share: reading the settings, running, and the example in a command's help."""

from __future__ import annotations

from typing import Any

from core.logs import set_up_logging
from core.settings import Settings, load_settings


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
