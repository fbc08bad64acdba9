"""Bars in SVG: a picture for a page, without a library for it."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

_WIDTH, _LEFT, _BAR, _GAP, _TOP = 760, 230, 22, 10, 44


def bars(values: Sequence[tuple[str, float]], title: str) -> str:
    """A picture of labelled horizontal bars, each with its figure."""
    longest = max((value for _, value in values), default=1.0) or 1.0
    room = _WIDTH - _LEFT - 90
    height = _TOP + len(values) * (_BAR + _GAP) + _GAP
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="14">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{_GAP}" y="26" font-size="17" fill="#1f2937">{escape(title)}</text>',
    ]
    for number, (label, value) in enumerate(values):
        y, long = _TOP + number * (_BAR + _GAP), max(1.0, value / longest * room)
        colour = "#9ca3af" if label.startswith("APScheduler") else "#2563eb"
        middle = y + _BAR / 2 + 5
        lines += [
            f'<text x="{_LEFT - 8}" y="{middle}" text-anchor="end" fill="#1f2937">{escape(label)}</text>',
            f'<rect x="{_LEFT}" y="{y}" width="{long:.0f}" height="{_BAR}" fill="{colour}"/>',
            f'<text x="{_LEFT + long + 8:.0f}" y="{middle}" fill="#1f2937">{value:,.0f}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])
