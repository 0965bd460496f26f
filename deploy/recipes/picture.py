"""One line chart as an SVG file: accuracy over the number of training rows, or loss over steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 170, 16, 40
_COLOURS = ("#1f6feb", "#b35900", "#2da44e", "#8250df", "#6e7781")


@dataclass(frozen=True, slots=True)
class CurveLine:
    """One line: its name and its points (x, y, lower, upper); lower and upper may equal y."""

    name: str
    points: Sequence[tuple[float, float, float, float]]


def chart(title: str, across: str, lines: Sequence[CurveLine], top: float) -> str:
    """Return the lines over one another, y from 0 to `top`."""
    most = max(point[0] for line in lines for point in line.points) or 1.0
    parts = [_axis(across, most, top)]
    for index, line in enumerate(lines):
        parts.append(_drawn(line, _COLOURS[index % len(_COLOURS)], most, top))
    legend = [
        f'<text x="{_WIDTH - _RIGHT + 14}" y="{_TOP + 14 + 18 * index}" '
        f'fill="{_COLOURS[index % len(_COLOURS)]}">'
        f"{escape(line.name)}</text>"
        for index, line in enumerate(lines)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'font-family="sans-serif" font-size="12"><title>{escape(title)}</title>'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>{"".join([*parts, *legend])}</svg>\n'
    )


def _place(x: float, y: float, most: float, top: float) -> tuple[float, float]:
    across = _LEFT + x / most * (_WIDTH - _LEFT - _RIGHT)
    return across, _HEIGHT - _BOTTOM - min(y / top, 1.0) * (_HEIGHT - _TOP - _BOTTOM)


def _drawn(line: CurveLine, colour: str, most: float, top: float) -> str:
    places = [_place(x, y, most, top) for x, y, _, _ in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>']
    for (x, _, low, high), (left, above) in zip(line.points, places, strict=True):
        if high > low:
            (_, bottom), (_, upper) = _place(x, low, most, top), _place(x, high, most, top)
            parts.append(
                f'<line x1="{left:.1f}" x2="{left:.1f}" y1="{bottom:.1f}" y2="{upper:.1f}" '
                f'stroke="{colour}"/>'
            )
            parts.append(f'<circle cx="{left:.1f}" cy="{above:.1f}" r="3" fill="{colour}"/>')
    return "".join(parts)


def _axis(across: str, most: float, top: float) -> str:
    parts = []
    for tick in range(5):
        x, y = _place(most * tick / 4, top * tick / 4, most, top)
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#d0d7de"/>'
            f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" '
            f'fill="#57606a">{top * tick / 4:.2g}</text>'
            f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle" fill="#57606a">'
            f"{most * tick / 4:,.0f}</text>"
        )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle" fill="#57606a">{escape(across)}</text>'
    )
    return "".join(parts)
