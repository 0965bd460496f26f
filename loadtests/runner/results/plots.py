"""Pictures as inline SVG: lines, dots, steps and bars on one frame, readable in light and dark.

Owns no figures. Colours are CSS classes (`c0` … `c5`), so that the page's style decides; names come from
outside and are escaped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

Point = tuple[float, float]
WIDTH, HEIGHT = 720, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 26, 38


@dataclass(frozen=True)
class PlotSeries:
    """Points with a name; `kind` is line, dots or area. `colour` is a number of the palette."""

    name: str
    points: Sequence[Point]
    colour: int = 0
    kind: str = "line"


@dataclass(frozen=True)
class Plot:
    """One frame: axes from 0, marks (a time and what happened), and a span that is shaded (warm-up)."""

    title: str
    x_name: str
    y_name: str
    series: Sequence[PlotSeries]
    marks: Sequence[tuple[float, str]] = ()
    shaded_until: float = 0.0
    x_max: float | None = None
    y_max: float | None = None
    limits: Sequence[tuple[float, str]] = field(default=())

    def svg(self) -> str:
        """Return the picture; an empty string where there is nothing to show."""
        points = [point for one in self.series for point in one.points if math.isfinite(point[1])]
        if not points:
            return ""
        frame = _Frame(
            self.x_max or max(point[0] for point in points) or 1.0,
            self.y_max or 1.08 * max(point[1] for point in points) or 1.0,
        )
        parts = [
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(self.title)}">',
            f'<text class="title" x="{_LEFT}" y="16">{escape(self.title)}</text>',
            frame.shade(self.shaded_until),
            frame.axes(self.x_name, self.y_name),
            *(frame.limit(value, name) for value, name in self.limits if value < frame.y_max),
            *(frame.mark(at, name) for at, name in self.marks),
            *(frame.draw(one) for one in self.series),
            _legend(self.series),
            "</svg>",
        ]
        return "".join(parts)


@dataclass(frozen=True)
class _Frame:
    x_max: float
    y_max: float

    def x(self, value: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * min(value / self.x_max, 1.0)

    def y(self, value: float) -> float:
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * min(value / self.y_max, 1.0)

    def axes(self, x_name: str, y_name: str) -> str:
        parts = []
        for value in _ticks(self.y_max):
            y = self.y(value)
            parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_short(value)}</text>')
        for value in _ticks(self.x_max):
            x = self.x(value)
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 22}" text-anchor="middle">{_short(value)}</text>')
        parts.append(f'<text x="{WIDTH - _RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{escape(x_name)}</text>')
        parts.append(f'<text x="{WIDTH - _RIGHT}" y="16" text-anchor="end">{escape(y_name)}</text>')
        return "".join(parts)

    def shade(self, until: float) -> str:
        if until <= 0:
            return ""
        width = self.x(until) - _LEFT
        box = f'x="{_LEFT}" y="{_TOP}" width="{width:.1f}" height="{HEIGHT - _TOP - _BOTTOM}"'
        return f'<rect class="warm" {box}><title>warm-up, not measured</title></rect>'

    def mark(self, at: float, name: str) -> str:
        x = self.x(at)
        line = f'x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"'
        return f'<line class="mark" {line}><title>{escape(name)} at {at:.1f} s</title></line>'

    def limit(self, value: float, name: str) -> str:
        y = self.y(value)
        line = f'<line class="limit" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        return f'{line}<text class="limit" x="{_LEFT + 4}" y="{y - 3:.1f}">{escape(name)}</text>'

    def draw(self, one: PlotSeries) -> str:
        found = [(self.x(x), self.y(y)) for x, y in one.points if math.isfinite(y)]
        if one.kind == "dots":
            dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.8"/>' for x, y in found)
            return f'<g class="c{one.colour}">{dots}</g>'
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in found)
        if one.kind == "area" and found:
            floor = HEIGHT - _BOTTOM
            path = f"{found[0][0]:.1f},{floor} {path} {found[-1][0]:.1f},{floor}"
            return f'<polygon class="c{one.colour} area" points="{path}"/>'
        return f'<polyline class="c{one.colour} line" points="{path}"/>'


def bars(title: str, unit: str, rows: Sequence[tuple[str, float, str]]) -> str:
    """Return horizontal bars: a name, its value, and what stands behind the bar."""
    if not rows:
        return ""
    height = 34 + 18 * len(rows)
    most = max(value for _, value, _ in rows) or 1.0
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">',
        f'<text class="title" x="4" y="16">{escape(title)}</text>',
        f'<text x="{WIDTH - 4}" y="16" text-anchor="end">{escape(unit)}</text>',
    ]
    for index, (name, value, text) in enumerate(rows):
        y = 28 + 18 * index
        width = 250 * value / most
        parts.append(f'<text x="196" y="{y + 11}" text-anchor="end">{escape(_cut(name, 28))}</text>')
        parts.append(f'<rect class="c0 area" x="202" y="{y}" width="{width:.1f}" height="13"/>')
        parts.append(f'<text x="{208 + width:.1f}" y="{y + 11}">{escape(text)}</text>')
    return "".join([*parts, "</svg>"])


def steps(points: Sequence[Point], end: float) -> list[Point]:
    """Return points such that a line through them holds each value until the next, and the last to `end`."""
    found: list[Point] = []
    for x, y in points:
        if found:
            found.append((x, found[-1][1]))
        found.append((x, y))
    return [*found, (end, found[-1][1])] if found else []


def _legend(series: Sequence[PlotSeries]) -> str:
    parts, x = [], float(_LEFT)
    for one in series:
        if one.name:
            parts.append(
                f'<rect class="c{one.colour} area" x="{x:.0f}" y="{HEIGHT - 13}" width="9" height="9"/>'
            )
            parts.append(f'<text x="{x + 13:.0f}" y="{HEIGHT - 5}">{escape(_cut(one.name, 30))}</text>')
            x += 28 + 6.3 * len(_cut(one.name, 30))
    return "".join(parts)


def _ticks(most: float) -> list[float]:
    raw = most / 5
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    return [step * index for index in range(int(most / step) + 1)]


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
