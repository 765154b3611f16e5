"""Holds the session's server until standard input ends, which it also does where the session is
killed: then too nothing stays behind.

python -m tests.session_server FOLDER
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path

from storage.embedded_server import embedded_server


async def hold(folder: Path) -> None:
    async with embedded_server(folder) as url:
        print(url, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(hold(Path(sys.argv[1])))
    shutil.rmtree(sys.argv[1], ignore_errors=True)
