"""A release: the wheel, each image's build context, bills of materials and checksums.

python -m tests.dist DIST ENVIRONMENTS

The wheel is then installed with each extra into a clean environment, and tried there.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

from tests.images import COPIED, ROOT, install, serves
from tests.optional import FETCHED

IMAGES = ("bot", "core")
EXTRAS = ("", "core", "slack", "discord", "local", "tracing", "align")


def git(*words: str) -> str:
    return subprocess.check_output(["git", *words], cwd=ROOT, text=True).strip()


def version() -> str:
    found: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return found


def build_wheel(dist: Path, made_at: int) -> Path:
    """The wheel of this checkout; the same bytes for the same commit."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(made_at)}
    words = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(dist), "."]
    subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, check=True)
    (wheel,) = dist.glob("henji-*.whl")
    return wheel


def context(image: str, made_at: int) -> bytes:
    """What ``docker build -f docker/IMAGE.Dockerfile -`` reads: tracked files, in order."""
    names = git("ls-files", "--", *COPIED, f"docker/{image}.Dockerfile").splitlines()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(names):
            entry = archive.gettarinfo(ROOT / name, arcname=name)
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            entry.mtime, entry.mode = made_at, 0o755 if entry.mode & 0o100 else 0o644
            with (ROOT / name).open("rb") as file:
                archive.addfile(entry, file)
    return gzip.compress(packed.getvalue(), mtime=made_at)


def write_bill(home: Path, file: Path) -> None:
    """What is installed in an environment, in CycloneDX's format."""
    words = ["environment", "--output-reproducible", "--output-format", "JSON"]
    project = ["--pyproject", str(ROOT / "pyproject.toml"), "--output-file", str(file)]
    subprocess.run(
        [FETCHED / "cyclonedx-py", *words, *project, home / "bin" / "python"], check=True
    )


def checksums(dist: Path) -> str:
    """As ``sha256sum --check`` reads them."""
    files = sorted(path for path in dist.iterdir() if path.name != "SHA256SUMS")
    sums = (hashlib.sha256(path.read_bytes()).hexdigest() for path in files)
    return "".join(f"{sum_}  {path.name}\n" for sum_, path in zip(sums, files, strict=True))


# -- the wheel, tried ---------------------------------------------------------------------------


def try_extra(extra: str, wheel: Path, home: Path) -> None:
    """Install the wheel with an extra into a clean environment; AssertionError where it fails."""
    shutil.rmtree(home, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    wanted = f"{wheel}[{extra}]" if extra else str(wheel)
    subprocess.run(
        [home / "bin/pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wanted],
        check=True,
    )
    assert said(home, "henji", "--version").endswith(version())
    match extra:
        case "core" | "slack" | "discord":
            asyncio.run(serves([extra], home))
        case "local":
            reply = said(home, "henji", "chat", "--once", "hello", HENJI_ENGINE="echo")
            assert reply == "echo: hello", reply
        case "tracing":
            begin = "from core.observe.tracing import set_up_tracing as begin"
            said(home, "python", "-c", f"{begin}; begin('http://127.0.0.1:9', 'core')")
        case "align":
            said(home, "python", "-c", "import peft, core.alignment.losses")
        case _:
            assert "henji up" in said(home, "henji", "up", "--help")
    print(f"henji[{extra}]: installed from the wheel, and tried", flush=True)


def said(home: Path, name: str, *words: str, **variables: str) -> str:
    """What a command of an environment prints, started outside of the checkout."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {"PATH": os.environ["PATH"], "HOME": folder, **variables}
        ran = subprocess.run(
            [home / "bin" / name, *words], cwd=folder, env=environment, capture_output=True,
            text=True,
        )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def main() -> None:
    dist, environments = (Path(word).resolve() for word in sys.argv[1:])
    if changed := git("status", "--porcelain"):
        sys.exit(f"a release is of a commit, and these files differ from it:\n{changed}")
    made_at = int(git("log", "-1", "--format=%ct"))
    shutil.rmtree(dist, ignore_errors=True)
    dist.mkdir()
    wheel = build_wheel(dist, made_at)
    for image in IMAGES:
        name = f"henji-{image}-{version()}"
        (dist / f"{name}.context.tar.gz").write_bytes(context(image, made_at))
        home = environments / image
        shutil.rmtree(home, ignore_errors=True)
        install(image, home)
        write_bill(home, dist / f"{name}.cdx.json")
    (dist / "SHA256SUMS").write_text(checksums(dist))
    for extra in EXTRAS:
        try_extra(extra, wheel, environments / f"wheel-{extra or 'alone'}")
    print((dist / "SHA256SUMS").read_text(), end="")


if __name__ == "__main__":
    main()
