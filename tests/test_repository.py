"""What must not be in the repository, secrets, and what must: every version pinned."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from tests import audit

ROOT = Path(__file__).parents[1]

SECRETS = {
    "a Slack token": r"xox[abeprs]-\d{9,}-[\w-]{10,}|xapp-\d-[A-Z0-9]{8,}-\d{9,}",
    "a Discord token": r"[MNO][A-Za-z\d_-]{23,25}\.[\w-]{6}\.[\w-]{27,}",
    "an OpenAI key": r"sk-(?:proj-)?[A-Za-z0-9]{32,}",
    "a Hugging Face token": r"hf_[A-Za-z0-9]{30,}",
    "a GitHub token": r"gh[pousr]_[A-Za-z0-9]{30,}",
    "an AWS key": r"\bAKIA[0-9A-Z]{16}\b",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
}


def files() -> list[Path]:
    """What git keeps; in a copy without git, what is there apart from hidden folders."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        return [path for top in ROOT.glob("[!.]*") for path in [top, *top.rglob("*")]]
    return [ROOT / name for name in listing.stdout.split("\0") if name]


def test_no_secret_is_in_the_repository() -> None:
    found = files()
    assert len(found) > 100
    forms = {name: re.compile(form) for name, form in SECRETS.items()}
    for path in found:
        text = path.read_bytes().decode(errors="ignore") if path.is_file() else ""
        for name, form in forms.items():
            assert not form.search(text), f"{path.relative_to(ROOT)} has {name}"


@pytest.mark.parametrize(
    "secret",
    [
        "xoxb-" + "1" * 12 + "-" + "2" * 12 + "-abcdefghijkl",
        "M" + "a" * 23 + "." + "b" * 6 + "." + "c" * 27,
        "-----BEGIN RSA " + "PRIVATE KEY-----",
    ],
)
def test_the_search_finds_one(secret: str) -> None:
    assert any(re.search(form, f"token = {secret}\n") for form in SECRETS.values())


@pytest.mark.parametrize(
    ("packages", "well", "said"),
    [
        ([{"name": "a", "skip_reason": "not found"}], True, "not audited"),
        ([{"name": "a", "version": "1", "vulns": []}], True, "audited: 1 of 1"),
        (
            [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}],
            False,
            "a 1: CVE-1, mended in 2",
        ),
        (
            [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": []}]},
             {"name": "b", "skip_reason": "not found"}],
            False,
            "no version yet",
        ),
    ],
)  # fmt: skip
def test_an_audit_fails_where_a_fault_is_known_and_says_where_it_could_not_look(
    packages: list[dict[str, Any]], well: bool, said: str
) -> None:
    judged, sentences = audit.summarize({"dependencies": packages})
    assert judged == well
    assert said in sentences[0]


def test_local_settings_and_secrets_are_ignored() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"henji.toml", "docker/secrets/"} <= set(ignored)


PAGES = sorted(path for path in files() if path.suffix == ".md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]*)(?:#[^)]*)?\)", page.read_text()):
        assert not target or (page.parent / target).exists(), target


def drawing() -> str:
    return (ROOT / "README.md").read_text().partition("## The house")[2].split("```")[1]


def drawn_files() -> Iterator[Path]:
    """Every file and folder that the README's drawing of the house names."""
    room = ROOT
    for line in drawing().strip().splitlines():
        first, _, rest = line.partition(" ")
        if first:
            room = ROOT / first
            yield room
        else:
            yield from (room / name for name in re.findall(r"\w+\.(?:py|md)|\w+/", rest))


def test_the_drawing_of_the_house_names_files_that_exist() -> None:
    drawn = list(drawn_files())
    assert len(drawn) > 40
    for path in drawn:
        assert path.exists() or any(path.parent.rglob(path.name)), path


@pytest.mark.parametrize("room", ["core", "storage", "bots"])
def test_the_drawing_has_every_file_of_a_room(room: str) -> None:
    text = drawing()
    for path in (ROOT / room).iterdir():
        if path.name != "__init__.py" and path.suffix == ".py" and path.stem != "__main__":
            assert path.name in text, path
        if path.is_dir() and path.name != "__pycache__":
            assert f"{path.name}/" in text, path


def test_the_walk_of_a_message_names_files_that_exist() -> None:
    walk = (ROOT / "README.md").read_text().partition("## The walk")[2].partition("## Words")[0]
    named = re.findall(r"`((?:core|storage|bots)/[\w./]+)`", walk)
    assert len(named) > 10
    assert all((ROOT / name).is_file() for name in named)


def test_each_room_has_a_page_that_the_readme_leads_to() -> None:
    readme = (ROOT / "README.md").read_text()
    for room in ("bots/slack", "bots/discord", "core", "storage", "docker"):
        assert f"({room}/README.md)" in readme
    assert "(storage/PRIVACY.md)" in readme
    assert "(bots/console/chat.svg)" in readme


EXTRAS = frozenset(("core", "slack", "discord", "local", "tracing", "dev"))

OF_A_GPU = ("nvidia-", "cuda-", "triton")
"""A build of torch for GPUs brings these, at versions that it names itself."""


def needed(
    package: str, extras: frozenset[str], python: str, seen: set[tuple[str, frozenset[str]]]
) -> Iterator[NormalizedName]:
    """Every package that this one makes pip install here, for a version of Python."""
    try:
        requirements = requires(package) or ()
    except PackageNotFoundError:  # another Python has it
        return
    for text in requirements:
        found = Requirement(text)
        name = canonicalize_name(found.name)
        there = {"python_version": python, "python_full_version": f"{python}.0"}
        wanted = any(
            found.marker is None or found.marker.evaluate({**there, "extra": extra})
            for extra in extras or {""}
        )
        step = (name, frozenset(found.extras))
        if wanted and step not in seen and not name.startswith(OF_A_GPU):
            seen.add(step)
            yield name
            yield from needed(*step, python, seen)


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_every_package_that_is_installed_is_pinned(python: str) -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    pinned = {canonicalize_name(pin.name): pin.specifier for pin in pins}
    for name in needed("henji", EXTRAS, python, set()):
        assert name in pinned, f"{name} is not in constraints.txt"
        with suppress(PackageNotFoundError):
            assert pinned[name].contains(version(name)), f"{name} is installed as {version(name)}"


def test_a_version_of_the_changelog_lists_each_change_once() -> None:
    for version_ in (ROOT / "CHANGELOG.md").read_text().split("\n## ")[1:]:
        entries = [line for line in version_.splitlines() if line.startswith("- ")]
        assert sorted(set(entries)) == sorted(entries)
