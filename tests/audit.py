"""Known vulnerabilities in pinned packages, if their database can be reached: `make audit`.

python -m tests.audit FOLDER

pip-audit reports "no known vulnerabilities" even if it could not look anything up. That case is
reported as such here, and is no failure: work without a network must go on.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]
TOOL = PROJECT / "docker" / "audit.txt"
PINNED = PROJECT / "constraints.txt"


def summarize(report: dict[str, Any]) -> tuple[bool, list[str]]:
    """Whether no package is vulnerable, and the lines to print."""
    packages = report["dependencies"]
    looked_up = [package for package in packages if "vulns" in package]
    if not looked_up:
        return True, ["not audited: the database of vulnerabilities cannot be reached"]
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
        safe, sentences = summarize(json.loads(report.read_text()))
    except (OSError, ValueError, subprocess.SubprocessError):
        safe, sentences = True, ["not audited: pip-audit cannot be fetched or fails"]
    print(*sentences, sep="\n")
    return not safe


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
