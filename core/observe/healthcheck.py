"""A container's health check: asks the process for one of its health pages.

python -m core.observe.healthcheck [/readyz]
"""

from __future__ import annotations

import os
import sys
from urllib.error import URLError
from urllib.request import urlopen

PORT = "HENJI_METRICS_PORT"


def main() -> int:
    """0 if the page answers 200."""
    page = sys.argv[1] if len(sys.argv) > 1 else "/healthz"
    try:
        with urlopen(f"http://127.0.0.1:{os.environ[PORT]}{page}", timeout=4) as answer:
            print(answer.read().decode().strip())
    except KeyError:
        print(f"{PORT} is not set")
        return 1
    except (URLError, OSError) as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
