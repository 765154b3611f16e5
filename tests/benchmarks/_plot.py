"""Figures as a picture: bars in an SVG that a browser and a README show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

_COLOURS = ("#2563eb", "#93c5fd", "#9ca3af", "#d1d5db", "#6b7280", "#f59e0b", "#10b981")
_WIDTH, _NAMES, _BAR, _GAP = 720, 190, 16, 14
"""Pixels: of the picture, of the names at its left, of a bar, and between two groups."""


def bars(title: str, groups: Mapping[str, Sequence[tuple[str, float]]]) -> str:
    """An SVG of one group of named bars under another; all lengths are on one scale."""
    longest = max(value for rows in groups.values() for _, value in rows)
    names = list(dict.fromkeys(name for rows in groups.values() for name, _ in rows))
    lines, y = [_text(0, 16, title, weight="bold")], 40
    for group, rows in groups.items():
        lines.append(_text(0, y, group, weight="bold"))
        for name, value in rows:
            y += _BAR + 4
            length = (_WIDTH - _NAMES - 60) * value / longest
            colour = _COLOURS[names.index(name) % len(_COLOURS)]
            lines += [
                _text(12, y, name),
                f'<rect x="{_NAMES}" y="{y - 12}" width="{length:.1f}" height="{_BAR}" '
                f'fill="{colour}"/>',
                _text(_NAMES + length + 6, y, f"{value:.0f}"),
            ]
        y += _BAR + _GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y}" '
        'font-family="sans-serif" font-size="13">'
    )
    background = f'<rect width="{_WIDTH}" height="{y}" fill="white"/>'
    return "\n".join([head, background, *lines, "</svg>", ""])


def _text(x: float, y: float, words: str, weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y}" font-weight="{weight}">{escape(words)}</text>'
