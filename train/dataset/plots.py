"""Plots as inline SVG: bars that need no script, no font and no network.

Owns the geometry. Colours come from the page's style sheet (classes `bar`, `axis`, `label`), so that a plot
follows light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape

_WIDTH, _HEIGHT = 640, 180
_LEFT, _BOTTOM, _TOP = 56, 34, 12
_ROW = 22
_ROOM = 45
_NAME_WIDTH = 210
_NAME_CHARACTERS = 30


def histogram(edges: Sequence[float], counts: Sequence[int], unit: str, title: str) -> str:
    """Return bars of `counts` over the logarithmic bins between `edges`."""
    low, high = math.log(max(edges[0], 1)), math.log(max(edges[-1], 2))
    top = max(counts) or 1

    def across(value: float) -> float:
        share = (math.log(max(value, 1)) - low) / ((high - low) or 1)
        return _LEFT + share * (_WIDTH - _LEFT - 24)

    parts = []
    for start, end, count in zip(edges, edges[1:], counts, strict=False):
        height = count / top * (_HEIGHT - _BOTTOM - _TOP)
        tip = f"{start:.0f} to {end - 1:.0f} {unit}: {count} rows"
        parts.append(
            f'<rect class="bar" x="{across(start):.1f}" y="{_HEIGHT - _BOTTOM - height:.1f}" '
            f'width="{max(across(end) - across(start) - 1, 0.5):.1f}" height="{height:.1f}">'
            f"<title>{escape(tip)}</title></rect>"
        )
    parts += [_tick(x, f"{value:,.0f}") for x, value in _apart(across, edges[0], edges[-1])]
    parts.append(_text(_LEFT - 6, _TOP + 8, f"{top:,}", "end"))
    parts.append(_text(_LEFT - 6, _HEIGHT - _BOTTOM, "0", "end"))
    parts.append(_text((_LEFT + _WIDTH) / 2, _HEIGHT - 4, unit, "middle"))
    base = _HEIGHT - _BOTTOM
    parts.append(f'<line class="axis" x1="{_LEFT}" y1="{base}" x2="{_WIDTH - 24}" y2="{base}"/>')
    return _svg(_HEIGHT, title, parts)


def bars(values: Mapping[str, int], title: str) -> str:
    """Return one horizontal bar per name, with its count and share."""
    total, top = sum(values.values()) or 1, max(values.values(), default=1) or 1
    parts = []
    for index, (name, count) in enumerate(values.items()):
        y = index * _ROW
        width = count / top * (_WIDTH - _NAME_WIDTH - 130)
        shown = name if len(name) <= _NAME_CHARACTERS else f"{name[: _NAME_CHARACTERS - 1]}…"
        parts.append(_text(_NAME_WIDTH - 8, y + 15, shown, "end"))
        size = f'width="{max(width, 1):.1f}" height="{_ROW - 8}"'
        parts.append(
            f'<rect class="bar" x="{_NAME_WIDTH}" y="{y + 4}" {size}>'
            f"<title>{escape(name)}: {count}</title></rect>"
        )
        parts.append(_text(_NAME_WIDTH + width + 8, y + 15, f"{count:,} ({count / total:.1%})", "start"))
    return _svg(len(values) * _ROW + 4, title, parts)


def _apart(across: Callable[[float], float], low: float, high: float) -> Iterator[tuple[float, float]]:
    """Yield the ends of the axis and the round values between that leave room for their figures."""
    ends = (across(low), across(high))
    yield from zip(ends, (low, high - 1), strict=True)
    taken = list(ends)
    for value in _decades(low, high):
        if all(abs(across(value) - x) > _ROOM for x in taken):
            taken.append(across(value))
            yield taken[-1], value


def _decades(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(max(low, 1))), math.ceil(math.log10(max(high, 10)))
    marks = [step * 10.0**power for power in range(first, last + 1) for step in (1, 2, 5)]
    return [mark for mark in marks if low <= mark <= high]


def _tick(x: float, text: str) -> str:
    y = _HEIGHT - _BOTTOM
    line = f'<line class="axis" x1="{x:.1f}" y1="{y}" x2="{x:.1f}" y2="{y + 4}"/>'
    return line + _text(x, y + 16, text, "middle")


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="label" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    head = f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">'
    return f"{head}{''.join(parts)}</svg>"
