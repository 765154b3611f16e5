"""The `henji` command and its larger parts."""

from __future__ import annotations

from typing import NoReturn

from bots.cli.ctrl_c import ctrl_c_at_once

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command of this process and exit: 0 done, 1 failed, 2 wrong usage."""
    with ctrl_c_at_once():
        from bots.cli.commands import run
    raise SystemExit(run())
