"""The `henji` command and its larger parts."""

from bots.cli.commands import main

__all__ = ["main"]
