"""How a training goes: lines for a terminal, a file of numbers, and a picture."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path

NUMBERS = "progress.jsonl"
PICTURE = "progress.svg"

_EVERY = 1.0
"""Seconds between two lines."""


class Progress:
    """The numbers of each step, kept in a file and told from time to time."""

    def __init__(self, directory: Path, total: int, tell: Callable[[str], None]) -> None:
        self._path = directory / NUMBERS
        self._total, self._tell = total, tell
        self._told = float("-inf")
        self._begun, self._first = time.monotonic(), 0
        self.rows: list[dict[str, float]] = []

    def resume(self, step: int) -> None:
        """Go on behind `step`: later numbers are of steps that are computed again."""
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
        if now - self._told >= _EVERY or step == self._total:
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
"""Pixels of one panel, and how many stand side by side."""


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
