"""Which command installs an extra of this project, wherever the project itself came from."""

from __future__ import annotations

import json
from importlib.metadata import distribution
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


def install_command(extra: str) -> str:
    """Such as ``pip install '/srv/henji[slack]'``."""
    record = distribution("henji").read_text("direct_url.json") or "{}"
    return command_for(json.loads(record), extra)


def command_for(origin: dict[str, Any], extra: str) -> str:
    """By what the installer wrote down of the origin: a checkout, a wheel, or nothing (PEP 610)."""
    path = Path(unquote(urlsplit(origin.get("url", "")).path))
    if not path.name or not path.exists():
        return f"pip install 'PATH[{extra}]', with the path of Henji's wheel or checkout"
    editable = origin.get("dir_info", {}).get("editable")
    return f"pip install {'--editable ' * bool(editable)}'{path}[{extra}]'"
