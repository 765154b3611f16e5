"""`henji bench engine`: our engine beside other ways to serve the same weights, in one run."""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

from tests.benchmarks._engine_contenders import Result, Task
from tests.benchmarks._plot import bars

OURS = "henji"
SAME_PRECISION = ("one by one", "static batch", "continuous", "vllm")
APART = ("henji int8", "ctranslate2 int8")
LIMIT = "limit"
"""What the memory's bandwidth allows, were a prompt free and every operation too."""
PEERS = Path(".venv-peers")
"""Environments of peers that cannot share ours: `make bench-peers`, `make bench-vllm`."""

_Results: TypeAlias = dict[str, Result]


def main(argv: list[str]) -> int:
    """Run the benchmark; 0 when every contender that is installed came through."""
    options = _options(argv)
    task = _task(options)
    results: _Results = {}
    failed = []
    for turn in range(options.repeat):
        for name in _contenders(options.only):
            print(f"{name}, run {turn + 1} of {options.repeat} ...", file=sys.stderr, flush=True)
            result = _run(name, task)
            if result is None:
                failed.append(name)
                continue
            results[name] = _better(results.get(name), result)
            # A run of many minutes that is ended leaves what it has.
            print(f"  {_brief(result)}", file=sys.stderr, flush=True)
            if options.json:
                Path(options.json).write_text(json.dumps(report(task, results), indent=2) + "\n")
    print(table(task, results))
    if options.plot:
        Path(options.plot).write_text(plot(task, results))
    return 1 if failed else 0


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="henji bench engine",
        description=__doc__,
        epilog="example: henji bench engine --concurrent 1,8 --json engine.json",
    )
    parser.add_argument("--concurrent", type=numbers, default="1,8,32", help="requests at once")
    parser.add_argument("--new", type=int, default=64, help="tokens a reply")
    parser.add_argument("--conversations", type=int, default=16, help="threads; 0 leaves them out")
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument(
        "--lengths", type=Path, help="JSON: [[prompt tokens, reply tokens], ...] of real turns"
    )
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeat", type=int, default=1, help="the best run of each counts")
    parser.add_argument("--only", help="contenders, with commas between")
    parser.add_argument("--json", help="write the figures there too")
    parser.add_argument("--plot", help="draw tokens a second there, as an SVG")
    return parser.parse_args(argv)


def numbers(text: str) -> list[int]:
    """Of `1,8,32`; argparse names this function where the text is something else."""
    return [int(number) for number in text.split(",")]


def _task(options: argparse.Namespace) -> Task:
    lengths = None
    if options.lengths:
        lengths = [(int(q), int(a)) for q, a in json.loads(options.lengths.read_text())]
    return Task(
        layers=options.layers,
        hidden=options.hidden,
        heads=options.heads,
        dtype=options.dtype,
        device=options.device,
        threads=options.threads,
        concurrent=options.concurrent,
        new_tokens=options.new,
        conversations=_conversations(options.conversations, options.turns, lengths),
    )


def _conversations(
    threads: int, turns: int, lengths: list[tuple[int, int]] | None
) -> list[list[tuple[int, int]]]:
    """Turns drawn from real lengths, or from ones like them; a thread stays within the context."""
    draw = random.Random(7)
    made = []
    for _ in range(threads):
        drawn = [
            draw.choice(lengths)
            if lengths
            else (draw.randint(12, 50), min(128, max(8, round(draw.lognormvariate(4.4, 0.5)))))
            for _ in range(turns)
        ]
        made.append([(question, min(answer, 128)) for question, answer in drawn])
    return made


def _contenders(only: str | None) -> list[str]:
    if only:
        return only.split(",")
    installed = {"vllm": PEERS / "vllm", "ctranslate2 int8": PEERS / "engine"}
    return [
        name
        for name in (OURS, *SAME_PRECISION, *APART, LIMIT)
        if name not in installed or installed[name].exists()
    ]


def _run(name: str, task: Task) -> Result | None:
    """One contender in a process of its own; None, with its errors shown, where it fails."""
    paths = (os.getcwd(), os.environ.get("PYTHONPATH"))
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks._engine_contenders", name],
        input=json.dumps(asdict(task)),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
    if done.returncode:
        print(f"{name} failed with status {done.returncode}", file=sys.stderr)
        return None
    fields: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    fields["tokens_per_second"] = {int(n): v for n, v in fields["tokens_per_second"].items()}
    return Result(**fields)


def _brief(result: Result) -> str:
    speeds = [f"{speed:.0f} tokens/s at {n}" for n, speed in result.tokens_per_second.items()]
    run = [f"conversations {result.whole_run:.1f} s"] if result.whole_run else []
    return ", ".join([*speeds, *run])


def _better(old: Result | None, new: Result) -> Result:
    if old is None:
        return new
    speeds = {n: max(v, new.tokens_per_second[n]) for n, v in old.tokens_per_second.items()}
    later = (new.whole_run or 0) < (old.whole_run or 0)
    run = new if later else old
    return Result(speeds, run.whole_run, run.first_token)


def ratios(task: Task, results: _Results) -> dict[str, float]:
    """Ours against the best of the others in the same precision; above 1 is better."""
    ours, others = results.get(OURS), [results[n] for n in SAME_PRECISION if n in results]
    found: dict[str, float] = {}
    if ours is None or not others:
        return found
    for count in task.concurrent:
        best = max(other.tokens_per_second.get(count, 0.0) for other in others)
        if best:
            found[str(count)] = ours.tokens_per_second[count] / best
    runs = [other.whole_run for other in others if other.whole_run]
    if ours.whole_run and runs:
        found["conversations"] = min(runs) / ours.whole_run
    return found


def table(task: Task, results: _Results) -> str:
    """In Markdown."""
    heads = [f"{count} at once" for count in task.concurrent]
    lines = [
        f"{_shape(task)}; prompts of 40-120 tokens, {task.new_tokens} new tokens each.",
        "Tokens a second; the conversations are "
        f"{len(task.conversations)} threads of ten turns at once, in seconds.",
        "",
        "| | " + " | ".join([*heads, "conversations", "first token, turn 1", "last turn"]) + " |",
        "|---" * (len(heads) + 4) + "|",
    ]
    for name, result in results.items():
        speeds = [_figure(result.tokens_per_second.get(n), "{:.0f}") for n in task.concurrent]
        first = [result.first_token[at] if result.first_token else None for at in (0, -1)]
        cells = [*speeds, _figure(result.whole_run, "{:.1f}")]
        cells += [_figure(seconds, "{:.2f}") for seconds in first]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    found = ratios(task, results)
    cells = [_figure(found.get(str(n)), "{:.2f}x") for n in task.concurrent]
    cells += [_figure(found.get("conversations"), "{:.2f}x"), "", ""]
    lines.append("| ours / best other in the same precision | " + " | ".join(cells) + " |")
    if OURS in results and LIMIT in results:
        ours, limit = (results[name].tokens_per_second for name in (OURS, LIMIT))
        shares = [_figure(ours[n] / limit[n], "{:.0%}") for n in task.concurrent]
        lines.append("| ours / limit | " + " | ".join([*shares, "", "", ""]) + " |")
    return "\n".join(lines)


def plot(task: Task, results: _Results) -> str:
    """Tokens a second, as an SVG; the limit would squeeze what is to be compared."""
    groups = {
        f"{count} at once": [
            (name, result.tokens_per_second[count])
            for name, result in results.items()
            if name != LIMIT and count in result.tokens_per_second
        ]
        for count in task.concurrent
    }
    return bars(f"Tokens a second: {_shape(task)}", groups)


def _shape(task: Task) -> str:
    size = f"{task.layers} x {task.hidden}"
    return f"GPT-NeoX {size}, {task.dtype}, {task.device}, {task.threads} threads"


def _figure(value: float | None, form: str) -> str:
    return "" if value is None or value != value else form.format(value)


def report(task: Task, results: _Results) -> dict[str, Any]:
    """Everything, for a plot or another table."""
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "task": asdict(task),
        "results": {name: asdict(result) for name, result in results.items()},
        "ratios": ratios(task, results),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
