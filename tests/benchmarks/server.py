"""A Redis for a benchmark: on a port of its own, keeping nothing."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from storage.embedded_server import find_binary


@contextmanager
def plain_server() -> Iterator[str]:
    """The URL of a server that is stopped at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [str(find_binary()), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        for line in server.stdout or ():
            if "Ready to accept connections" in line:
                break
        yield f"redis://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()
