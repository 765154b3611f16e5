"""The rooms of the house, and which may know of which."""

from __future__ import annotations

import ast
import asyncio
import re
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from bots.platforms import names, settings_classes

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "sentencepiece", "tokenizers", "numba")

ALLOWED = {
    "core": {"core"},
    "storage": {"storage", "core"},
    "bots": {"bots", "core"},
}
WIRING = {Path("bots/cli"), Path("bots/services.py")}


def is_wiring(path: Path) -> bool:
    return path.name == "__main__.py" or any(path.is_relative_to(place) for place in WIRING)


def rooms_known_to(path: Path) -> Iterator[str]:
    """The rooms that a file imports anything from, wherever in the file."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield (node.module or "").partition(".")[0]


def files_of(room: str) -> list[Path]:
    return [path.relative_to(ROOT) for path in (ROOT / room).rglob("*.py")]


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_a_room_knows_only_the_rooms_that_the_arrows_lead_to(room: str) -> None:
    assert files_of(room)
    for path in files_of(room):
        known = set(rooms_known_to(path)) & ALLOWED.keys()
        assert is_wiring(path) or known <= ALLOWED[room], f"{path} imports {known}"


def modules_imported_by(path: Path) -> Iterator[str]:
    """The modules of ours that a file imports, wherever in the file; not those for types alone."""
    tree = ast.parse((ROOT / path).read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in for_types:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            yield str(node.module)


def test_no_module_imports_itself_through_others() -> None:
    modules = {
        ".".join(path.with_suffix("").parts).removesuffix(".__init__"): path
        for room in ALLOWED
        for path in files_of(room)
    }
    graph = TopologicalSorter[str]()
    for module, path in modules.items():
        graph.add(module, *(modules.keys() & set(modules_imported_by(path)) - {module}))
    graph.prepare()  # CycleError names a circle


def test_the_files_in_which_bots_and_storage_meet_exist() -> None:
    for path in WIRING:
        assert (ROOT / path).exists()


async def test_finding_the_platforms_needs_no_extra() -> None:
    """`henji --help` and `henji manifest slack` run without any platform's packages."""
    extra = [package for kind in settings_classes().values() for package in kind.packages]
    script = f"""
import sys
sys.modules.update(dict.fromkeys({extra!r}))
from bots.cli import main
sys.argv = ["henji", *sys.argv[1:]]
main()
"""
    for words, said in ((("--help",), "Be a bot in"), (("manifest", "slack"), "socket_mode")):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", script, *words),
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
        out, _ = await asyncio.wait_for(process.communicate(), 60)
        assert said in out.decode()
        assert process.returncode == 0


async def test_no_part_of_a_bot_loads_the_libraries_of_the_model() -> None:
    """Imports all of `bots` in a process of its own."""
    script = f"""
import importlib, pkgutil, sys
import bots
for module in pkgutil.walk_packages(bots.__path__, "bots."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert out.decode().strip() == "[]"


def platforms_named_in(path: Path) -> Iterator[str]:
    """Where code, rather than a sentence or an example, names a platform of `bots/`."""
    tree = ast.parse((ROOT / path).read_text())
    for node in ast.walk(tree):
        words = ""
        match node:
            case ast.Name(id=word) | ast.Attribute(attr=word) | ast.alias(name=word):
                words = word
            case ast.arg(arg=word) | ast.keyword(arg=str(word)):
                words = word
            case ast.FunctionDef(name=word) | ast.AsyncFunctionDef(name=word):
                words = word
            case ast.ImportFrom(module=str(word)):
                words = word
            case ast.Constant(value=str(word)) if not re.search(r"[\s:]", word):
                words = word
        if re.search("|".join(settings_classes()), words, re.IGNORECASE):
            yield f"{path}:{getattr(node, 'lineno', '?')}: {words}"


def is_of_platforms(path: Path) -> bool:
    """The folder of a platform, or the sentences that people read there."""
    return path.parts[:2] in {("bots", name) for name in (*names(), "strings")}


def test_only_a_platforms_folder_names_it() -> None:
    """A new platform is one folder: no code elsewhere tells one platform from another."""
    outside = [path for room in ALLOWED for path in files_of(room) if not is_of_platforms(path)]
    found = [line for path in outside for line in platforms_named_in(path)]
    assert found == []
