"""The henji command with short lifetimes in Redis, so that an hour shows what months would.

python -m tests.short_lives SECONDS COMMAND...
"""

from __future__ import annotations

import sys
from dataclasses import replace

from storage import keys


def shorten(seconds: float) -> None:
    """Let no key of this process outlive its last write by more than `seconds`."""
    usual, most = keys.preamble, round(seconds)
    table = [replace(entry, seconds=min(entry.seconds or most, most)) for entry in keys.TABLE]
    vars(keys).update(
        TABLE=tuple(table),
        preamble=lambda retention, audit: usual(min(retention, most), min(audit, most)),
    )


if __name__ == "__main__":
    shorten(float(sys.argv[1]))
    del sys.argv[1]

    from bots.cli import main  # it reads the table

    main()
