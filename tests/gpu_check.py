"""`make gpu-check`: the engine on a GPU, in under ten minutes: its tests, and the benchmark.

Every step has a limit of its own and is written to a JSON file when it ends, so that a run that is
broken off leaves what it has. Needs no network; `--device cpu` tries the script itself.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LAST_LINES = 40
"""Of a step's output that are kept."""

PACKAGES = ("torch", "triton", "transformers", "numba", "henji")
CARD = "name,driver_version,memory.total,clocks.max.memory,clocks.max.sm"


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    words: Sequence[str]
    """Arguments of this Python."""
    seconds: float
    figures: str = ""
    """The file of JSON that it writes."""


@dataclass(frozen=True, slots=True)
class StepResult:
    step: str
    status: int | None
    """None: it was cut off at its limit."""
    seconds: float
    output: Sequence[str]
    figures: object = None


def steps(device: str, out: Path, shape: Sequence[str]) -> list[Step]:
    """What is to be known first comes first. The limits add up to nine and a half minutes."""

    def bench(name: str, seconds: float, *words: str) -> Step:
        figures = str(out / f"bench-{name}.json")
        common = ("-m", "bots", "bench", "engine", "--device", device, *shape, "--json", figures)
        return Step(f"bench {name}", (*common, *words), seconds, figures)

    return [
        Step("tests", ("-m", "pytest", "-q", "-x", "tests/test_engine_gpu.py"), 150),
        bench("replies", 220, "--concurrent", "1,8,64", "--conversations", "0",
              "--only", "henji,limit,static batch"),
        bench("conversations", 200, "--concurrent", "1", "--conversations", "16",
              "--only", "henji"),
    ]  # fmt: skip


def run_step(step: Step) -> StepResult:
    """Run one step to its end or its limit."""
    began = time.monotonic()
    words = [sys.executable, *step.words]
    try:
        ran = subprocess.run(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=step.seconds, check=False,
        )  # fmt: skip
        status, output = ran.returncode, ran.stdout
    except subprocess.TimeoutExpired as cut:
        status, output = None, _text(cut.stdout)
    figures = Path(step.figures)
    found = json.loads(figures.read_text()) if step.figures and figures.exists() else None
    seconds = round(time.monotonic() - began, 1)
    return StepResult(step.name, status, seconds, output.splitlines()[-LAST_LINES:], found)


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def machine() -> dict[str, str]:
    """The card, its driver and the packages that decide what is measured."""
    found = {"python": platform.python_version(), "machine": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    try:
        words = ["nvidia-smi", f"--query-gpu={CARD}", "--format=csv,noheader"]
        found["card"] = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        found["card"] = f"none: {error}"
    return found


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="make gpu-check", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu-check"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--layers", default="36")
    parser.add_argument("--hidden", default="2816")
    parser.add_argument("--heads", default="22")
    parser.add_argument("--new", default="200")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    names = ("dtype", "layers", "hidden", "heads", "new")
    shape = [word for name in names for word in (f"--{name}", getattr(options, name))]
    outcomes: list[StepResult] = []
    for step in steps(options.device, options.out, shape):
        outcome = run_step(step)
        outcomes.append(outcome)
        report = {"machine": machine(), "steps": [asdict(ended) for ended in outcomes]}
        (options.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
        print(
            f"{step.name}: status {outcomes[-1].status} after {outcomes[-1].seconds} s", flush=True
        )
    return int(any(ended.status != 0 for ended in outcomes))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
