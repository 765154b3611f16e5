"""Figures as a picture: bars or lines in an SVG that a browser and a README show."""

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
    drawn, y = [_text(0, 16, title, weight="bold")], 40
    for group, rows in groups.items():
        drawn.append(_text(0, y, group, weight="bold"))
        for name, value in rows:
            y += _BAR + 4
            length = (_WIDTH - _NAMES - 60) * value / longest
            colour = _COLOURS[names.index(name) % len(_COLOURS)]
            drawn += [
                _text(12, y, name),
                f'<rect x="{_NAMES}" y="{y - 12}" width="{length:.1f}" height="{_BAR}" '
                f'fill="{colour}"/>',
                _text(_NAMES + length + 6, y, f"{value:.0f}"),
            ]
        y += _BAR + _GAP
    return _picture(y, drawn)


def lines(title: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """An SVG of values over seconds, each line named at its end; the axis begins at 0."""
    longest = max(at for rows in series.values() for at, _ in rows) or 1
    highest = max(value for rows in series.values() for _, value in rows) or 1
    width, height, top = _WIDTH - _NAMES, 320, 40
    drawn = [_text(0, 16, title, weight="bold")]
    for colour, (name, rows) in zip(_COLOURS, series.items(), strict=False):
        places = [
            (width * at / longest, top + height * (1 - value / highest)) for at, value in rows
        ]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        drawn += [
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>',
            _text(width + 8, places[-1][1] + 4, f"{name} {rows[-1][1]:.0f}"),
        ]
    drawn += [
        f'<path d="M0 {top} V{top + height} H{width}" fill="none" stroke="#6b7280"/>',
        _text(0, top + height + 16, "0"),
        _text(width - 40, top + height + 16, f"{longest / 60:.0f} min"),
    ]
    return _picture(top + height + 30, drawn)


def _picture(height: float, drawn: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="13">'
    )
    background = f'<rect width="{_WIDTH}" height="{height}" fill="white"/>'
    return "\n".join([head, background, *drawn, "</svg>", ""])


def _text(x: float, y: float, words: str, weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y}" font-weight="{weight}">{escape(words)}</text>'
