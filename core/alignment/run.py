"""One training run in its folder: the optimizer, checkpoints and resuming."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from core.alignment import Options
from core.alignment.lora import Trainee
from core.errors import OperatorError
from core.models.manifest import ADAPTER_CONFIG

NUMBERS = "progress.jsonl"
PICTURE = "progress.svg"

_LINE_SECONDS = 1.0
"""Seconds between two lines."""


class Progress:
    """The numbers of each step, written to a file and reported from time to time."""

    def __init__(self, directory: Path, total: int, tell: Callable[[str], None]) -> None:
        self._path = directory / NUMBERS
        self._total, self._tell = total, tell
        self._told = float("-inf")
        self._begun, self._first = time.monotonic(), 0
        self.rows: list[dict[str, float]] = []

    def resume(self, step: int) -> None:
        """Go on after `step`, without the later numbers, whose steps are computed again."""
        self._first = step
        lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []
        self.rows = [row for line in lines if (row := json.loads(line))["step"] <= step]
        self._path.write_text("".join(map(_line, self.rows)), encoding="utf-8")

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """The numbers of a step, counted from 1."""
        row = {"step": step, **numbers}
        self.rows.append(row)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line(row))
        now = time.monotonic()
        if now - self._told >= _LINE_SECONDS or step == self._total:
            self._told = now
            self._tell(self._sentence(step, numbers, now))

    def _sentence(self, step: int, numbers: Mapping[str, float], now: float) -> str:
        told = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        left = (now - self._begun) / (step - self._first) * (self._total - step)
        return f"step {step}/{self._total}  {told}  {duration(left)} left"

    def draw(self, title: str) -> None:
        """Write the picture."""
        path = self._path.with_name(PICTURE)
        path.write_text(picture(title, self.rows), encoding="utf-8")


def _line(row: Mapping[str, float]) -> str:
    return json.dumps(row) + "\n"


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.5 h``"""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


_WIDTH, _HEIGHT, _GAP, _COLUMNS = 300, 110, 34, 2
"""Pixels of one panel, and the number of columns."""


def picture(title: str, rows: Sequence[Mapping[str, float]]) -> str:
    """An SVG with a panel for each number, by steps; light or dark as the reader's screen is."""
    names = [name for name in dict.fromkeys(key for row in rows for key in row) if name != "step"]
    panels = [_panel(name, rows, place) for place, name in enumerate(names)]
    height = 40 + -(-len(names) // _COLUMNS) * (_HEIGHT + _GAP)
    width = _COLUMNS * (_WIDTH + _GAP)
    style = (
        "<style>svg{background:#fff;color:#1f2937}.grid{stroke:#d1d5db}"
        "@media(prefers-color-scheme:dark){svg{background:#111827;color:#e5e7eb}"
        ".grid{stroke:#374151}}text{fill:currentColor}</style>"
    )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="12">'
    )
    heading = f'<text x="16" y="22" font-size="14" font-weight="bold">{escape(title)}</text>'
    return "\n".join([head, style, heading, *panels, "</svg>", ""])


def _panel(name: str, rows: Sequence[Mapping[str, float]], place: int) -> str:
    left = 16 + place % _COLUMNS * (_WIDTH + _GAP)
    top = 52 + place // _COLUMNS * (_HEIGHT + _GAP)
    points = [(row["step"], row[name]) for row in rows if name in row]
    low, high = min(value for _, value in points), max(value for _, value in points)
    first, last = points[0][0], points[-1][0]

    def x(step: float) -> float:
        return left + _WIDTH * (step - first) / max(1, last - first)

    def y(value: float) -> float:
        return top + _HEIGHT - _HEIGHT * (value - low) / ((high - low) or 1)

    lines = [
        f'<line x1="{x(a):.1f}" y1="{y(b):.1f}" x2="{x(c):.1f}" y2="{y(d):.1f}" '
        'stroke="#2563eb" stroke-width="1.5"/>'
        for (a, b), (c, d) in pairwise(points)
    ]
    frame = (
        f'<path class="grid" fill="none" d="M{left} {top}v{_HEIGHT}h{_WIDTH}"/>'
        f'<text x="{left}" y="{top - 6}">{escape(name)} {points[-1][1]:.3g}</text>'
        f'<text x="{left + _WIDTH}" y="{top - 6}" text-anchor="end" opacity="0.7">'
        f"{low:.3g} to {high:.3g}</text>"
    )
    return "\n".join([frame, *lines])


_CHECKPOINT = "checkpoint"


@contextmanager
def in_one_sentence(advice: str) -> Iterator[None]:
    """Turn an out-of-memory error into one clear sentence."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _no_memory(advice) from error
    except RuntimeError as error:
        if "allocate memory" not in str(error) and "out of memory" not in str(error):
            raise
        raise _no_memory(advice) from error


def _no_memory(advice: str) -> OperatorError:
    return OperatorError(f"there is not enough memory for a step: {advice}")


class Run:
    """A folder that becomes an adapter."""

    def __init__(
        self,
        directory: Path,
        options: Options,
        trainee: Trainee,
        heads: nn.Module | None,
        origin: Mapping[str, Any],
        tell: Callable[[str], None],
    ) -> None:
        """`heads` are trained beside the adapter; `origin` is the identity of the run: a checkpoint
        of another is not resumed. OperatorError if the folder is not free."""
        self.directory, self.options, self._trainee = directory, options, trainee
        self._heads = heads or nn.Module()
        told = json.dumps([asdict(options), dict(origin)], sort_keys=True, default=str)
        self._signature = hashlib.sha256(told.encode()).hexdigest()
        prepare(directory)
        self.progress = Progress(directory, options.steps, tell)
        adapter = trainee.parameters()
        heads_too = {f"head.{name}": one for name, one in self._heads.named_parameters()}
        self._parameters = adapter | heads_too
        self._optimizer = torch.optim.AdamW(
            [
                {"params": list(adapter.values()), "scale": 1.0},
                # a head is untrained, so it needs larger steps
                {"params": list(heads_too.values()), "scale": 10.0},
            ],
            lr=options.rate,
            weight_decay=0.0,
        )
        self.step = self._resume(tell)

    # -- a step -----------------------------------------------------------------------------

    def begin_step(self) -> None:
        """Set the learning rate, and clear the gradients."""
        done, steps = self.step, self.options.steps
        warm = max(1, steps // 10)
        share = (done + 1) / warm if done < warm else (steps - done) / max(1, steps - warm)
        for group in self._optimizer.param_groups:
            group["lr"] = self.options.rate * group["scale"] * share
        self._optimizer.zero_grad(set_to_none=True)

    def apply(self) -> None:
        """Take a step along the gradients, clipped to norm 1; OperatorError if they are not
        numbers."""
        norm = torch.nn.utils.clip_grad_norm_(self._parameters.values(), 1.0)
        if not math.isfinite(norm.item()):
            raise self.not_a_number()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def not_a_number(self) -> OperatorError:
        kept = self.directory / _CHECKPOINT
        where = f"; the last checkpoint is {kept}" if kept.exists() else ""
        return OperatorError(
            f"the loss is not a number any more at step {self.step + 1}: lower --rate{where}"
        )

    def end_step(self, numbers: Mapping[str, float]) -> None:
        """Count the step, and write its numbers and, from time to time, a checkpoint."""
        if not all(map(math.isfinite, numbers.values())):
            raise self.not_a_number()
        self.step += 1
        self.progress.add(self.step, numbers)
        if self.step % self.options.every == 0 and self.step < self.options.steps:
            self._checkpoint()

    # -- checkpoints ------------------------------------------------------------------------

    def _checkpoint(self) -> None:
        fresh, kept = self.directory / "checkpoint.new", self.directory / _CHECKPOINT
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        save_file(self._trainee.state(), fresh / "adapter.safetensors")
        save_file(dict(self._heads.state_dict()), fresh / "heads.safetensors")
        save_file(self._momenta(), fresh / "optimizer.safetensors")
        state = {"step": self.step, "signature": self._signature}
        (fresh / "state.json").write_text(json.dumps(state), encoding="utf-8")
        old = self.directory / "checkpoint.old"
        shutil.rmtree(old, ignore_errors=True)
        if kept.exists():
            kept.rename(old)
        fresh.rename(kept)
        shutil.rmtree(old, ignore_errors=True)

    def _momenta(self) -> dict[str, Tensor]:
        return {
            f"{name}:{key}": value.contiguous()
            for name, parameter in self._parameters.items()
            for key, value in self._optimizer.state.get(parameter, {}).items()
        }

    def _resume(self, tell: Callable[[str], None]) -> int:
        kept, old = self.directory / _CHECKPOINT, self.directory / "checkpoint.old"
        if old.exists() and not kept.exists():  # it was ended between the two renames
            old.rename(kept)
        if not kept.exists():
            self.progress.resume(0)
            return 0
        state = json.loads((kept / "state.json").read_text(encoding="utf-8"))
        if state["signature"] != self._signature:
            raise OperatorError(
                f"{self.directory} holds a checkpoint of a run with other data or settings: "
                "choose another --out, or remove it"
            )
        self._trainee.load(load_file(kept / "adapter.safetensors"))
        self._heads.load_state_dict(load_file(kept / "heads.safetensors"))
        self._set_momenta(load_file(kept / "optimizer.safetensors"))
        step = int(state["step"])
        self.progress.resume(step)
        tell(f"going on behind step {step} of {self.options.steps}")
        return step

    def _set_momenta(self, momenta: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            mine = {
                key.rpartition(":")[2]: value.to(parameter.device if value.ndim else "cpu")
                for key, value in momenta.items()
                if key.rpartition(":")[0] == name
            }
            if mine:
                self._optimizer.state[parameter] = mine

    def finish(self) -> None:
        """Delete the checkpoints."""
        shutil.rmtree(self.directory / _CHECKPOINT, ignore_errors=True)


def prepare(directory: Path) -> None:
    """Make a run's folder; OperatorError if it holds anything but an unfinished run."""
    if (directory / ADAPTER_CONFIG).exists():
        raise OperatorError(f"{directory} holds an adapter already: choose another --out")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OperatorError(f"{directory} cannot be made: {error.strerror}") from None
