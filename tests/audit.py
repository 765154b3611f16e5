"""Known faults of the pinned packages, where the database of them can be reached: `make audit`.

python -m tests.audit FOLDER

pip-audit says "no known vulnerabilities" too where it could look nothing up. Here that is said, and
is no failure: whoever works without a network must be able to go on.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

HOUSE = Path(__file__).parents[1]
TOOL = HOUSE / "docker" / "audit.txt"
PINNED = HOUSE / "constraints.txt"


def judge(report: dict[str, Any]) -> tuple[bool, list[str]]:
    """Whether all is well, and what to say of pip-audit's report."""
    packages = report["dependencies"]
    looked_up = [package for package in packages if "vulns" in package]
    if not looked_up:
        return True, ["not audited: the database of known faults cannot be reached"]
    faults = [
        f"{package['name']} {package['version']}: {fault['id']}, mended in "
        f"{', '.join(fault['fix_versions']) or 'no version yet'}"
        for package in looked_up
        for fault in package["vulns"]
    ]
    return not faults, [*faults, f"audited: {len(looked_up)} of {len(packages)} packages"]


def main() -> int:
    folder = Path(sys.argv[1])
    report = folder / "report.json"
    try:
        tool = _tool(folder)
        report.unlink(missing_ok=True)
        words = ("--requirement", PINNED, "--no-deps", "--disable-pip", "--progress-spinner", "off",
                 "--format", "json", "--output", report)  # fmt: skip
        subprocess.run([tool, *words], capture_output=True, timeout=300)
        well, sentences = judge(json.loads(report.read_text()))
    except (OSError, ValueError, subprocess.SubprocessError):
        well, sentences = True, ["not audited: pip-audit cannot be fetched or does not get through"]
    print(*sentences, sep="\n")
    return not well


def _tool(folder: Path) -> Path:
    """pip-audit, in an environment of its own."""
    tool = folder / "bin" / "pip-audit"
    if not tool.exists():
        venv.create(folder, with_pip=True)
        pip = folder / "bin" / "pip"
        subprocess.run([pip, "install", "--quiet", "--requirement", TOOL], check=True, timeout=300)
    return tool


if __name__ == "__main__":
    sys.exit(main())
