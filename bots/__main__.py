"""`python -m bots`: the henji command, where it is not on the PATH."""

from __future__ import annotations

from bots.cli import main

main()
