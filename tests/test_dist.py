"""What a release is made of; `make dist` makes one whole."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests import dist
from tests.images import COPIED, ROOT


@pytest.mark.parametrize("image", dist.IMAGES)
def test_an_image_can_be_built_from_its_context_alone(image: str) -> None:
    with tarfile.open(fileobj=io.BytesIO(dist.context(image, 1_700_000_000))) as archive:
        names = archive.getnames()
    dockerfile = f"docker/{image}.Dockerfile"
    assert dockerfile in names
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (ROOT / dockerfile).read_text(), re.MULTILINE)
    wanted = {source for line in copied for source in line.split()}
    assert wanted == set(COPIED)
    assert {name.partition("/")[0] for name in names} == wanted | {"docker"}
    assert "storage/scripts/commit.lua" in names
    assert not [name for name in names if "secret" in name and not name.startswith("storage/")]


def test_a_build_context_holds_only_copied_files() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == set(COPIED)


@pytest.mark.parametrize("image", dist.IMAGES)
def test_a_context_of_the_same_commit_is_the_same(image: str) -> None:
    assert dist.context(image, 1_700_000_000) == dist.context(image, 1_700_000_000)


def test_sha256sum_accepts_the_checksums(tmp_path: Path) -> None:
    (tmp_path / "henji.whl").write_bytes(b"wheel")
    (tmp_path / "SHA256SUMS").write_text(dist.checksums(tmp_path))
    check = ["sha256sum", "--check", "SHA256SUMS"]
    assert subprocess.run(check, cwd=tmp_path, check=False).returncode == 0
    (tmp_path / "henji.whl").write_bytes(b"another")
    assert subprocess.run(check, cwd=tmp_path, check=False).returncode == 1


def test_every_extra_for_users_is_tried() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    section = text.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    extras = set(re.findall(r"^(\w+) = \[", section, re.MULTILINE))
    assert extras - {"dev"} == set(dist.EXTRAS) - {""}
