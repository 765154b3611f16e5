"""The parts of a page that a machine can check or write: commands, inline code, tables."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from bots import platforms

ROOT = Path(__file__).parents[1]
PAGES = (
    "README.md", "CONTRIBUTING.md", "bots/slack/README.md", "bots/discord/README.md",
    "core/README.md", "storage/README.md", "storage/PRIVACY.md", "docker/README.md",
)  # fmt: skip

COMMANDS = ("henji", "make", "docker", "kubectl", "python", "python3", "pip", "redis-cli", "sudo",
            "journalctl", ".venv/bin/", "tests/")  # fmt: skip
"""The first words of inline code that is a command; variables may come before them."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a page, as it is written there."""

    page: str
    line: str
    named: bool = False
    """In the middle of a sentence, where an argument may be left out."""

    @property
    def words(self) -> tuple[str, ...]:
        """Without the shell's part: variables in front, redirections, comments, sudo."""
        words = shlex.split(self.line, comments=True)
        while words and (re.match(r"[A-Z_]+=", words[0]) or words[0] == "sudo"):
            words = words[1:]
        cut = [n for n, word in enumerate(words) if word in ("<", ">", "|")]
        return tuple(words[: cut[0]] if cut else words)

    @property
    def variables(self) -> tuple[str, ...]:
        return tuple(re.findall(r"(?:^|\s)([A-Z][A-Z_0-9]+)=", self.line))

    def __str__(self) -> str:
        return f"{self.page}: {self.line}"


def read(page: str) -> str:
    return (ROOT / page).read_text()


def blocks(page: str, language: str) -> Iterator[str]:
    """The fenced blocks of a language, without their indentation."""
    fenced = rf"(?ms)^( *)```{language}\n(.*?)^\1```"
    for indent, text in re.findall(fenced, read(page)):
        yield re.sub(rf"(?m)^{indent}", "", text)


def commands(page: str) -> Iterator[Command]:
    """The lines after a prompt, the lines of indented blocks, and inline code that is a command."""
    for block in blocks(page, "console"):
        for line in _joined(block):
            if line.startswith("$ "):
                yield from _piped(page, line.removeprefix("$ "))
    for line in _joined("\n".join(_indented(page))):
        yield from _piped(page, line)
    for code in inline(page):
        plain = re.sub(r"^(?:[A-Z_]+=\S+ +)*", "", code)
        if plain.split(" ")[0] in COMMANDS or plain.startswith(COMMANDS[-2]):
            yield from _piped(page, _without_options(code), named=True)


def commands_in_comments(page: str) -> Iterator[Command]:
    """Those at the top of a compose file, say: lines of a comment that are indented by three."""
    comments = "\n".join(re.findall(r"(?m)^#(.*)$", read(page)))
    for line in _joined(comments):
        plain = re.sub(r"^(?:[A-Z_]+=\S+ +)*", "", line.strip())
        if line.startswith("   ") and plain.split(" ")[0] in (*COMMANDS, "cp"):
            yield from _piped(page, line.strip())


def inline(page: str) -> list[str]:
    """Inline code, outside of blocks: each once, in the same order in every process."""
    text = re.sub(r"(?ms)^( *)```.*?^\1```$", "", read(page))
    return sorted(set(re.findall(r"`([^`\n]+)`", text)))


def _indented(page: str) -> Iterator[str]:
    """Lines of blocks that are indented by four, where they are commands."""
    text = re.sub(r"(?ms)^( *)```.*?^\1```$", "", read(page))
    for line in re.findall(r"(?m)^ {4}(\S.*)$", text):
        if line.split(" ")[0] in COMMANDS:
            yield line


def _joined(block: str) -> list[str]:
    return re.sub(r" *\\\n\s*", " ", block).splitlines()


def _piped(page: str, line: str, *, named: bool = False) -> Iterator[Command]:
    for part in re.split(r" \| | && ", line):
        yield Command(page, part.strip(), named)


def _without_options(code: str) -> str:
    """`config PLACE [NAME [VALUE]]` -> `config PLACE NAME VALUE`; `admin ...` -> `admin`."""
    return re.sub(r" (\.\.\.|…)(?= |$)", " ", re.sub(r"[\[\]]", "", code)).strip()


# -- the tables of commands, which `make docs` writes into the platforms' READMEs ------------------

BEGIN, END = "<!-- commands: by make docs -->", "<!-- end of commands -->"


def table(rows: Sequence[tuple[str, str, str]]) -> str:
    """The rows as a Markdown table: a command in English, in Japanese, and what it does."""
    lines = [f"| {command} | {japanese} | {about} |" for command, japanese, about in rows]
    return "\n".join(("| command | in Japanese | what it does |", "|---|---|---|", *lines))


def page_of(platform: str) -> Path:
    return ROOT / "bots" / platform / "README.md"


def rewritten(platform: str, page: str) -> str:
    """The page with the platform's table as the code has it."""
    rows = import_module(f"bots.{platform}.commands").described()
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{table(rows)}\n{END}{rest.partition(END)[2]}"


def with_tables() -> Sequence[str]:
    """The platforms whose page has a table of commands."""
    pages = {name: page_of(name) for name in platforms.names()}
    return [name for name, page in pages.items() if page.is_file() and BEGIN in page.read_text()]


if __name__ == "__main__":
    for name in with_tables():
        page_of(name).write_text(rewritten(name, page_of(name).read_text()))
