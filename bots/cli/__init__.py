"""The `henji` command and its larger parts."""

from bots.cli.entry_point import main

__all__ = ["main"]
