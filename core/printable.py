"""Text as it may reach a terminal or a log: no character in it acts, reorders or forges a line."""

from __future__ import annotations

import json
import re

_ACTIVE = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # C0 and C1 controls: terminal commands, and ends of lines
    "\u2028\u2029"  # ends of lines for some readers
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks that reorder text
    "\ud800-\udfff"  # no characters at all
    "]"
)


def printable(text: str, keep: str = "") -> str:
    """`text` with an escape such as ``\\x1b`` for each such character that is not in `keep`."""
    return _ACTIVE.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def printable_json(value: object) -> str:
    """`value` as one line of JSON."""
    text = json.dumps(value, ensure_ascii=False)
    return _ACTIVE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def printable_block(text: str) -> str:
    """The same over several lines: those after the first are indented, so that none looks like a
    line of its own."""
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n    ".join(printable(line, keep="\t") for line in lines)
