"""The tables of commands in the platforms' READMEs, written from the code.

`make docs` writes them between two marks; a test holds them current.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TypeAlias

from bots import platforms

Row: TypeAlias = tuple[str, str, str]
"""A command in English, in Japanese, and what it does."""

BEGIN, END = "<!-- commands: by make docs -->", "<!-- end of commands -->"


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [f"| {command} | {japanese} | {about} |" for command, japanese, about in rows]
    return "\n".join(("| command | in Japanese | what it does |", "|---|---|---|", *lines))


def page_of(platform: str) -> Path:
    return Path(__file__).parent / platform / "README.md"


def rewritten(platform: str, page: str) -> str:
    """The page with the platform's table as the code has it."""
    rows: Sequence[Row] = import_module(f"bots.{platform}.commands").described()
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{table(rows)}\n{END}{rest.partition(END)[2]}"


def with_tables() -> Sequence[str]:
    """The platforms whose page has a table of commands."""
    pages = {name: page_of(name) for name in platforms.names()}
    return [name for name, page in pages.items() if page.is_file() and BEGIN in page.read_text()]


if __name__ == "__main__":
    for name in with_tables():
        page_of(name).write_text(rewritten(name, page_of(name).read_text()))
